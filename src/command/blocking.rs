//! Commands that wait: for an element, an acknowledgement, or just for time to pass.
//!
//! A command that finds nothing answers [`Suspend::Until`](super::error::Suspend) while it still holds its keys; in that moment it is
//! entered here. Its connection parks what the command needs to run ([`Session`]), and waits. Whoever changes a key that somebody waits for
//! runs the waiting commands itself, in the order in which they came, before it answers its own client: so a client that pushes and then
//! looks finds that the waiting ones have been served.
//!
//! What keeps a change from being missed:
//!
//! 1. A command is entered while its keys are locked, and a change is announced ([`Blocked::changed`]) while its key is locked exclusively: so
//!    it is either seen by the command or finds it entered.
//! 2. An announced key stays among the ready ones until somebody has gone through all who wait for it. One thread at a time does so: no two
//!    can serve out of turn. Who announced a key waits until that has been done, whoever does it.
//! 3. Who comes for a command whose session is elsewhere (on its way here, or running) leaves a note, and whoever has it makes
//!    its keys ready again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round, Status};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dispatch::Pipeline;
use super::turn::Scratch;
use super::{CommandError, Flags, Group, Lookup, Spec, float};
use crate::events::KeyEvents;
use crate::keyspace::{Undurable, while_waiting};
use crate::net::{Client, ClientInfo, Reply};
use crate::server::Server;

/// How long who comes to serve waits for another who does, before the thread's other tasks are left to others.
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// Commands waiting for a key that are run without leaving the thread's other tasks to others.
const FEW: usize = 16;

/// What a command that would write is told when the node becomes a replica while it waits.
pub const ROLE_CHANGED: &str =
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";

/// What a command waits for, and how long.
#[derive(Debug)]
pub struct Block {
    /// A change of one of these keys of the connection's database lets it try again. They must be locked.
    pub keys: Vec<Bytes>,
    /// How long; `None` = for ever.
    pub timeout: Option<Duration>,
    pub on_timeout: OnTimeout,
    /// Tries again that often, whatever happens to keys.
    pub poll: Option<Duration>,
    /// The request to try again with, if it is another one than was sent.
    pub args: Option<Vec<Bytes>>,
}

impl Block {
    /// Waits for a change of `keys`.
    pub fn on(keys: Vec<Bytes>, timeout: Option<Duration>, on_timeout: OnTimeout) -> Block {
        Block { keys, timeout, on_timeout, poll: None, args: None }
    }
}

/// The timeout argument of a command that waits, in seconds, with decimals; 0 = for ever (`None`). Part of a millisecond counts as a
/// whole one.
///
/// # Errors
/// When it is no number, negative, or more milliseconds than an `i64` holds.
pub fn parse_timeout(seconds: &[u8]) -> Result<Option<Duration>, CommandError> {
    const NOT_A_FLOAT: CommandError = CommandError::Static("ERR timeout is not a float or out of range");
    let seconds = float::parse(seconds).ok_or(NOT_A_FLOAT)?;
    let thousand = X87DoubleExtended::from_u128(1000).value;
    let ms = (seconds * thousand).value.to_i128_r(64, Round::TowardPositive, &mut false);
    match ms.value {
        _ if ms.status.contains(Status::INVALID_OP) => Err(CommandError::Static("ERR timeout is out of range")),
        ..0 => Err(CommandError::Static("ERR timeout is negative")),
        0 => Ok(None),
        ms => Ok(Some(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)))),
    }
}

/// What a command answers when its time has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    Null,
    NullArray,
    Ok,
    /// What it answers when it is tried again and may not wait: the command writes its own.
    AsIfNested,
}

impl OnTimeout {
    /// Writes the answer; nothing for [`OnTimeout::AsIfNested`].
    pub fn write(self, reply: &mut Reply) {
        match self {
            OnTimeout::Null => reply.null(),
            OnTimeout::NullArray => reply.null_array(),
            OnTimeout::Ok => reply.ok(),
            OnTimeout::AsIfNested => {}
        }
    }
}

/// What commands of a connection run with.
pub struct Session {
    pub client: Client,
    pub reply: Reply,
    pub scratch: Scratch,
    /// What a command that was served has written and is not yet on stable storage, under `sync : always`. Its reply has to wait for
    /// that.
    pub undurable: Undurable,
}

/// How a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command has run and its reply is written.
    Served,
    /// Its time has run out.
    Timeout,
    /// With this error.
    Error(&'static str),
    /// The client does not wait for a reply any more.
    Gone,
}

/// The lines in which those who wait for one key stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// They take elements of a list: when one of them finds none, there are none for those behind it either.
    List,
    /// So for sorted sets.
    SortedSet,
    /// Each sees by itself whether there is something for it.
    Other,
}

impl Line {
    const ALL: [Line; 3] = [Line::List, Line::SortedSet, Line::Other];

    fn of(group: Group) -> Line {
        match group {
            Group::List => Line::List,
            Group::SortedSet => Line::SortedSet,
            _ => Line::Other,
        }
    }
}

/// A waiting command.
pub struct Waiter {
    /// Rising with the time at which the wait began.
    number: u64,
    client: Arc<ClientInfo>,
    db: usize,
    keys: Vec<Bytes>,
    args: Vec<Bytes>,
    line: Line,
    writes: bool,
    pub deadline: Option<Instant>,
    pub poll: Option<Duration>,
    on_timeout: OnTimeout,
    place: Mutex<Place>,
    /// Of the connection: the wait has ended.
    over: Notify,
}

/// A command that waits, as its connection holds it: dropped, however that comes about, it waits no more.
pub struct Wait {
    events: Arc<KeyEvents>,
    waiter: Arc<Waiter>,
}

impl Wait {
    /// Of a command that was entered.
    pub fn new(events: &Arc<KeyEvents>, waiter: Arc<Waiter>) -> Wait {
        Wait { events: events.clone(), waiter }
    }
}

impl Deref for Wait {
    type Target = Arc<Waiter>;

    fn deref(&self) -> &Arc<Waiter> {
        &self.waiter
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.events.blocked.end(&self.waiter, End::Gone);
    }
}

/// Where the session of a waiting command is.
enum Place {
    /// With its connection, which is about to park it.
    Coming(Notes),
    /// Here.
    Parked(Box<Session>),
    /// With somebody who runs the command.
    Running(Notes),
    /// Here, for the connection to take.
    Ended(Box<Session>, End),
    /// With its connection for good, or about to be dropped.
    Left,
}

/// What others want of a session that is elsewhere.
#[derive(Clone, Copy, Default)]
struct Notes {
    /// Its keys have changed.
    again: bool,
    /// The wait is to end this way, unless the command is served.
    end: Option<End>,
}

/// What came of a try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tried {
    /// The command has run. `woke`: it changed keys that others wait for.
    Served { woke: bool },
    /// It goes on waiting.
    InVain,
    /// The session is elsewhere, and whoever has it will make its keys ready again; or a script that does not end holds its keys, and they
    /// are made ready again when it does.
    Busy,
    /// The wait had ended.
    Over,
}

/// What [`Pipeline::retry`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retried {
    pub ran: Ran,
    /// Whether it changed keys that others wait for: [`Blocked::serve`] is due.
    pub woke: bool,
    /// Keys that it found expired: [`Server::expire_found`] is due, once nobody is being served.
    pub expired: Vec<(usize, Bytes)>,
}

/// What came of running a waiting command again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ran {
    /// It was answered.
    Served,
    /// It found nothing and goes on waiting.
    InVain,
    /// It could not run, since a script that does not end holds its keys. It goes on waiting.
    Busy,
}

impl Waiter {
    /// The session of a command whose wait has ended, and how it did. Waits for that; to be dropped when something else comes
    /// first.
    pub async fn ended(&self) -> (Box<Session>, End) {
        loop {
            let over = self.over.notified();
            if let Some(ended) = self.take_ended() {
                return ended;
            }
            over.await;
        }
    }

    fn take_ended(&self) -> Option<(Box<Session>, End)> {
        let mut place = self.place.lock();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Ended(session, end) => Some((session, end)),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Writes the reply of a command whose wait has ended. Blocks while what it wrote is made durable.
    pub fn answer(&self, server: &Server, session: &mut Session, end: End) {
        match end {
            End::Served => {}
            End::Timeout if self.on_timeout == OnTimeout::AsIfNested => {
                session.client.set_denies_blocking(true);
                let retried = Pipeline::retry(server, session, &self.args);
                session.client.set_denies_blocking(false);
                if retried.woke {
                    server.events.blocked.serve(server);
                }
                if !retried.expired.is_empty() {
                    server.expire_found(retried.expired);
                }
            }
            End::Timeout => self.on_timeout.write(&mut session.reply),
            End::Error(text) => {
                session.reply.error(text);
                server.stats.errors.count(text, 1);
                if let Lookup::Found(command) = server.commands.lookup(&self.args) {
                    command.stats.calls.fetch_add(1, Relaxed);
                    command.stats.failed.fetch_add(1, Relaxed);
                }
            }
            End::Gone => {}
        }
        let undurable = std::mem::take(&mut session.undurable);
        if !undurable.is_empty()
            && let Err(error) = tokio::task::block_in_place(|| server.keyspace.wait_durable(&undurable))
        {
            // All that is in the buffer is this command's reply.
            let text = CommandError::from(error).to_string();
            session.reply.truncate(0);
            session.reply.error(&text);
            server.stats.errors.count(&text, 1);
        }
    }
}

/// All waiting commands of a server.
#[derive(Default)]
pub struct Blocked {
    waiters: Mutex<Waiters>,
    /// Parked commands.
    count: AtomicUsize,
    /// Keys that somebody waits for.
    keys: AtomicUsize,
    ready: Mutex<Ready>,
    /// Ready keys that have not been gone through to the end.
    unserved: AtomicUsize,
    /// Held by the one thread that goes through a ready key. That thread must not come to [`Blocked::serve`] meanwhile.
    serving: Mutex<()>,
    /// Keys of commands that could not be tried, since scripts that do not end held keys.
    held_up: Mutex<HashSet<(usize, Bytes)>>,
    /// Keys that commands found expired while they were being served.
    expired: Mutex<Vec<(usize, Bytes)>>,
}

#[derive(Default)]
struct Waiters {
    last_number: u64,
    by_client: HashMap<u64, Arc<Waiter>>,
    /// Those that wait for keys, by database and key.
    by_key: HashMap<(usize, Bytes), Lines>,
}

/// Those who wait for one key, the first first, in the order of [`Line::ALL`].
type Lines = [BTreeMap<u64, Arc<Waiter>>; Line::ALL.len()];

/// Keys that have changed and somebody waits for, in the order in which they did.
#[derive(Default)]
struct Ready {
    queue: VecDeque<(usize, Bytes)>,
    queued: HashSet<(usize, Bytes)>,
    /// Keys that were ever made ready, and of these, those that have been gone through.
    made: u64,
    done: u64,
}

impl Blocked {
    /// Waiting commands.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Keys that somebody waits for.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Enters a command of a client. Its keys must be locked, so that no change of them is missed. [`Blocked::park`] must follow.
    pub fn enter(&self, client: &Client, spec: &Spec, block: Block, args: &[Bytes]) -> Arc<Waiter> {
        // Copies: the bytes at hand may be a small part of a large buffer.
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let mut waiters = self.waiters.lock();
        waiters.last_number += 1;
        let waiter = Arc::new(Waiter {
            number: waiters.last_number,
            client: client.info().clone(),
            db: client.db(),
            keys: block.keys.iter().map(copy).collect(),
            args: block.args.as_deref().unwrap_or(args).iter().map(copy).collect(),
            line: Line::of(spec.group),
            writes: spec.flags.has(Flags::WRITE),
            // A wait that is longer than the clock can tell is one for ever.
            deadline: block.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            poll: block.poll,
            on_timeout: block.on_timeout,
            place: Mutex::new(Place::Coming(Notes::default())),
            over: Notify::new(),
        });
        for key in &waiter.keys {
            let lines = waiters.by_key.entry((waiter.db, key.clone())).or_default();
            lines[waiter.line as usize].insert(waiter.number, waiter.clone());
        }
        waiters.by_client.insert(waiter.client.id, waiter.clone());
        self.keys.store(waiters.by_key.len(), Relaxed);
        waiter
    }

    /// Hands the session of an entered command over, until [`Waiter::ended`].
    pub fn park(&self, server: &Server, waiter: &Arc<Waiter>, session: Box<Session>) {
        let again = {
            let mut place = waiter.place.lock();
            let notes = match *place {
                Place::Coming(notes) => notes,
                _ => Notes { again: false, end: Some(End::Gone) },
            };
            self.count.fetch_add(1, Relaxed);
            waiter.client.set_blocked(true);
            match notes.end {
                Some(end) => {
                    *place = Place::Ended(session, end);
                    drop(place);
                    self.over(waiter);
                    false
                }
                None => {
                    *place = Place::Parked(session);
                    notes.again
                }
            }
        };
        if again {
            self.make_ready_again(waiter);
            self.serve(server);
        }
    }

    /// Strikes a parked command off whose wait has ended, and tells its connection.
    fn over(&self, waiter: &Waiter) {
        self.strike_off(waiter);
        waiter.client.set_blocked(false);
        self.count.fetch_sub(1, Relaxed);
        waiter.over.notify_one();
    }

    fn strike_off(&self, waiter: &Waiter) {
        let mut waiters = self.waiters.lock();
        waiters.by_client.remove(&waiter.client.id);
        for key in &waiter.keys {
            let id = (waiter.db, key.clone());
            if let Some(lines) = waiters.by_key.get_mut(&id) {
                lines[waiter.line as usize].remove(&waiter.number);
                if lines.iter().all(BTreeMap::is_empty) {
                    waiters.by_key.remove(&id);
                }
            }
        }
        self.keys.store(waiters.by_key.len(), Relaxed);
    }

    /// Ends a wait, unless the command is served just now; false if it had ended.
    pub fn end(&self, waiter: &Waiter, end: End) -> bool {
        let mut place = waiter.place.lock();
        match &mut *place {
            Place::Coming(_) if end == End::Gone => {
                // It may never come.
                *place = Place::Left;
                drop(place);
                self.strike_off(waiter);
                true
            }
            Place::Coming(notes) | Place::Running(notes) => {
                if notes.end.is_none() || end == End::Gone {
                    notes.end = Some(end);
                }
                true
            }
            Place::Parked(_) => {
                if let Place::Parked(session) = std::mem::replace(&mut *place, Place::Left) {
                    *place = Place::Ended(session, end);
                }
                drop(place);
                self.over(waiter);
                true
            }
            Place::Ended(..) | Place::Left => false,
        }
    }

    /// Ends the wait of a client; false if it does not wait.
    pub fn end_of_client(&self, client: u64, end: End) -> bool {
        let waiter = self.waiters.lock().by_client.get(&client).cloned();
        waiter.is_some_and(|waiter| self.end(&waiter, end))
    }

    /// This node takes no writes any more: ends the waits of commands that would write.
    pub fn end_writers(&self) {
        let waiters = self.waiters.lock();
        let writers: Vec<_> = waiters.by_client.values().filter(|waiter| waiter.writes).cloned().collect();
        drop(waiters);
        for waiter in writers {
            self.end(&waiter, End::Error(ROLE_CHANGED));
        }
    }

    /// Whether somebody waits for a key. That does not change while the key is locked exclusively, but for waits that end.
    pub fn awaits(&self, db: usize, key: &Bytes) -> bool {
        self.keys() > 0 && self.waiters.lock().by_key.contains_key(&(db, key.clone()))
    }

    /// A key has changed, and is locked.
    pub fn changed(&self, db: usize, key: &Bytes) {
        if self.keys() == 0 {
            return;
        }
        let waiters = self.waiters.lock();
        if let Some((id, _)) = waiters.by_key.get_key_value(&(db, key.clone())) {
            self.make_ready(id);
        }
    }

    /// All keys of a database have changed, and are locked.
    pub fn replaced(&self, db: usize) {
        let waiters = self.waiters.lock();
        waiters.by_key.keys().filter(|(of, _)| *of == db).for_each(|id| self.make_ready(id));
    }

    fn make_ready(&self, id: &(usize, Bytes)) {
        let mut ready = self.ready.lock();
        if ready.queued.insert(id.clone()) {
            ready.queue.push_back(id.clone());
            ready.made += 1;
            self.unserved.fetch_add(1, Relaxed);
        }
    }

    fn make_ready_again(&self, waiter: &Waiter) {
        waiter.keys.iter().for_each(|key| self.make_ready(&(waiter.db, key.clone())));
    }

    /// Runs the commands that wait for keys which have changed, and those that wait for what these change. To be called after every commit of
    /// such a key, with no key locked. Keys that become ready meanwhile through others are left to them.
    pub fn serve(&self, server: &Server) {
        if self.unserved.load(Relaxed) == 0 {
            return;
        }
        self.serve_ready(server);
        self.expire_found(server);
    }

    /// Serves commands that could not be tried before, since scripts that did not end held keys.
    pub fn serve_held_up(&self, server: &Server) {
        let held_up = std::mem::take(&mut *self.held_up.lock());
        if !held_up.is_empty() {
            held_up.iter().for_each(|id| self.make_ready(id));
            self.serve(server);
        }
    }

    /// Deletes what was found expired. That may serve others: nobody may be being served by this thread.
    fn expire_found(&self, server: &Server) {
        let found = std::mem::take(&mut *self.expired.lock());
        if !found.is_empty() {
            server.expire_found(found);
        }
    }

    fn serve_ready(&self, server: &Server) {
        let mut until = self.ready.lock().made;
        loop {
            let serving = self.serving.try_lock_for(SHORT_WAIT);
            let _serving = serving.unwrap_or_else(|| while_waiting(|| self.serving.lock()));
            let id = {
                let mut ready = self.ready.lock();
                if ready.done >= until {
                    return;
                }
                let Some(id) = ready.queue.pop_front() else { return };
                ready.queued.remove(&id);
                id
            };
            let woke = if self.waiting_for(&id) > FEW {
                while_waiting(|| self.serve_key(server, &id))
            } else {
                self.serve_key(server, &id)
            };
            let mut ready = self.ready.lock();
            ready.done += 1;
            self.unserved.fetch_sub(1, Relaxed);
            if woke {
                until = ready.made;
            }
        }
    }

    fn waiting_for(&self, id: &(usize, Bytes)) -> usize {
        self.waiters.lock().by_key.get(id).map_or(0, |lines| lines.iter().map(BTreeMap::len).sum())
    }

    /// Goes through those who wait for a key now. True when they changed keys that others wait for.
    fn serve_key(&self, server: &Server, id: &(usize, Bytes)) -> bool {
        let mut woke = false;
        let last = self.waiters.lock().last_number;
        for line in Line::ALL {
            let mut from = 0;
            while let Some(waiter) = self.next_in(id, line, from, last) {
                from = waiter.number + 1;
                match self.try_again(server, &waiter) {
                    Tried::Served { woke: others } => woke |= others,
                    Tried::InVain if line != Line::Other => break,
                    // Those behind it must not be served before it.
                    Tried::Busy => break,
                    Tried::InVain | Tried::Over => {}
                }
            }
        }
        woke
    }

    fn next_in(&self, id: &(usize, Bytes), line: Line, from: u64, last: u64) -> Option<Arc<Waiter>> {
        if from > last {
            return None;
        }
        let waiters = self.waiters.lock();
        waiters.by_key.get(id)?[line as usize].range(from..=last).next().map(|(_, waiter)| waiter.clone())
    }

    /// Tries a waiter by itself, as it asked for by [`Block::poll`].
    pub fn poll(&self, server: &Server, waiter: &Waiter) {
        self.try_again(server, waiter);
        self.serve(server);
        self.expire_found(server);
    }

    /// Runs a waiting command again.
    fn try_again(&self, server: &Server, waiter: &Waiter) -> Tried {
        let mut session = {
            let mut place = waiter.place.lock();
            match &mut *place {
                Place::Coming(notes) | Place::Running(notes) => {
                    notes.again = true;
                    return Tried::Busy;
                }
                Place::Ended(..) | Place::Left => return Tried::Over,
                Place::Parked(_) => match std::mem::replace(&mut *place, Place::Running(Notes::default())) {
                    Place::Parked(session) => session,
                    _ => return Tried::Over,
                },
            }
        };
        let retried = Pipeline::retry(server, &mut session, &waiter.args);
        if !retried.expired.is_empty() {
            self.expired.lock().extend(retried.expired);
        }
        let mut place = waiter.place.lock();
        let notes = if let Place::Running(notes) = *place { notes } else { Notes::default() };
        let end = if retried.ran == Ran::Served { Some(End::Served) } else { notes.end };
        *place = match end {
            Some(end) => Place::Ended(session, end),
            None => Place::Parked(session),
        };
        drop(place);
        if end.is_some() {
            self.over(waiter);
        }
        if notes.again {
            self.make_ready_again(waiter);
        }
        match end {
            Some(End::Served) => Tried::Served { woke: retried.woke || notes.again },
            Some(_) => Tried::Over,
            None if retried.ran == Ran::Busy => {
                self.held_up.lock().extend(waiter.keys.iter().map(|key| (waiter.db, key.clone())));
                Tried::Busy
            }
            None => Tried::InVain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        for (text, ms) in [("0", 0), ("1", 1000), ("0.1", 100), ("1.0001", 1001), ("-0.0001", 0), ("1e3", 1_000_000)] {
            let expected = (ms > 0).then(|| Duration::from_millis(ms));
            assert_eq!(parse_timeout(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for (text, error) in [
            ("", "ERR timeout is not a float or out of range"),
            ("x", "ERR timeout is not a float or out of range"),
            ("-1", "ERR timeout is negative"),
            ("1e30", "ERR timeout is out of range"),
            ("inf", "ERR timeout is out of range"),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()).unwrap_err().to_string(), error, "{text}");
        }
    }
}
