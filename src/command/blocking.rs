//! Commands that wait: for an element, an acknowledgement, or just for time to pass.
//!
//! A command that finds nothing answers [`Suspend::Until`](super::error::Suspend) while it still holds its keys; in that moment it is entered here. Its
//! connection parks what the command needs to run ([`Session`]), and waits. Whoever changes a key that somebody waits for runs the
//! waiting commands itself, in the order in which they came, before it answers its own client: so a client that pushes and then looks
//! finds that the waiting ones have been served.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round, Status};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{CommandError, float};
use super::dispatch::{Pipeline, Scratch};
use crate::net::{Client, Reply};
use crate::server::Server;

/// What a command waits for, and how long.
#[derive(Debug)]
pub struct Block {
    /// A change of one of these keys of the connection's database lets it try again.
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
}

/// A waiting command.
pub struct Waiter {
    db: usize,
    keys: Vec<Bytes>,
    args: Vec<Bytes>,
    pub deadline: Option<Instant>,
    pub on_timeout: OnTimeout,
    pub poll: Option<Duration>,
    place: Mutex<Place>,
    /// Of the connection: something about its session has changed.
    changed: Notify,
}

/// Where the session of a waiting command is.
enum Place {
    /// With its connection, which is about to park it. True: somebody has come for it meanwhile.
    Coming(bool),
    /// Here.
    Parked(Box<Session>),
    /// With somebody who runs the command. True: somebody else has come for it meanwhile.
    Running(bool),
    /// Here, and the command has been served.
    Served(Box<Session>),
    /// With its connection for good.
    Left,
}

/// What came of a try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tried {
    /// `again`: somebody else came for it meanwhile, and left what is behind it in the queues to us.
    Here { served: bool, again: bool },
    /// The session is elsewhere; whoever has it will try, and go on with who is behind it.
    Elsewhere,
}

impl Waiter {
    /// Hands the session over until [`Waiter::served`]. True when the keys have changed since the command looked: then
    /// [`Blocked::serve_waiter`] is due.
    #[must_use]
    pub fn park(&self, session: Box<Session>) -> bool {
        let mut place = self.place.lock();
        let due = matches!(*place, Place::Coming(true));
        *place = Place::Parked(session);
        due
    }

    /// The session of a command that has been served. Waits for that; to be dropped when something else comes first.
    pub async fn served(&self) -> Box<Session> {
        loop {
            let changed = self.changed.notified();
            if let Some(session) = self.take_served() {
                return session;
            }
            changed.await;
        }
    }

    /// Lets a command whose wait has ended, and whose session is at hand, answer as if it could not wait.
    pub fn answer_now(&self, server: &Server, session: &mut Session) {
        session.client.set_denies_blocking(true);
        Pipeline::retry(server, session, &self.args);
        session.client.set_denies_blocking(false);
    }

    fn take_served(&self) -> Option<Box<Session>> {
        let mut place = self.place.lock();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Served(session) => Some(session),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Takes the session of a command that has not been served, to end the wait; `None` if it is being served just now, or was.
    fn take_back(&self) -> Option<Box<Session>> {
        let mut place = self.place.lock();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Parked(session) => Some(session),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Runs the command again.
    fn try_again(&self, server: &Server) -> Tried {
        let mut session = {
            let mut place = self.place.lock();
            match std::mem::replace(&mut *place, Place::Running(false)) {
                Place::Parked(session) => session,
                Place::Coming(_) => {
                    *place = Place::Coming(true);
                    return Tried::Elsewhere;
                }
                Place::Running(_) => {
                    *place = Place::Running(true);
                    return Tried::Elsewhere;
                }
                other => {
                    *place = other;
                    return Tried::Elsewhere;
                }
            }
        };
        let served = Pipeline::retry(server, &mut session, &self.args);
        let mut place = self.place.lock();
        let again = matches!(*place, Place::Running(true));
        *place = if served { Place::Served(session) } else { Place::Parked(session) };
        drop(place);
        if served {
            self.changed.notify_one();
        }
        Tried::Here { served, again }
    }
}

/// All waiting commands of a server.
#[derive(Default)]
pub struct Blocked {
    /// Waiting commands.
    count: AtomicUsize,
    /// Of these, those that wait for keys, key by key, the first first.
    by_key: Mutex<HashMap<(usize, Bytes), VecDeque<Arc<Waiter>>>>,
    keys: AtomicUsize,
    /// Keys that have changed and somebody waits for, in the order in which they did.
    ready: Mutex<VecDeque<(usize, Bytes)>>,
    ready_count: AtomicUsize,
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

    /// Enters a command of database `db`. Its keys must be locked, so that no change of them is missed.
    pub fn enter(&self, db: usize, block: Block, args: &[Bytes]) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter {
            db,
            keys: block.keys,
            args: block.args.unwrap_or_else(|| args.to_vec()),
            // A wait that is longer than the clock can tell is one for ever.
            deadline: block.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            on_timeout: block.on_timeout,
            poll: block.poll,
            place: Mutex::new(Place::Coming(false)),
            changed: Notify::new(),
        });
        self.count.fetch_add(1, Relaxed);
        let mut by_key = self.by_key.lock();
        for key in &waiter.keys {
            let queue = by_key.entry((db, key.clone())).or_default();
            if !queue.iter().any(|known| Arc::ptr_eq(known, &waiter)) {
                queue.push_back(waiter.clone());
            }
        }
        self.keys.store(by_key.len(), Relaxed);
        waiter
    }

    /// Strikes a waiter off.
    fn leave(&self, waiter: &Arc<Waiter>) {
        let mut by_key = self.by_key.lock();
        for key in &waiter.keys {
            let id = (waiter.db, key.clone());
            if let Some(queue) = by_key.get_mut(&id) {
                queue.retain(|known| !Arc::ptr_eq(known, waiter));
                if queue.is_empty() {
                    by_key.remove(&id);
                }
            }
        }
        self.keys.store(by_key.len(), Relaxed);
    }

    /// A key has changed.
    pub fn changed(&self, db: usize, key: &Bytes) {
        if self.keys() == 0 {
            return;
        }
        let id = (db, key.clone());
        if self.by_key.lock().contains_key(&id) {
            self.make_ready(id);
        }
    }

    /// All keys of a database have changed.
    pub fn replaced(&self, db: usize) {
        let waited: Vec<_> = self.by_key.lock().keys().filter(|(of, _)| *of == db).cloned().collect();
        waited.into_iter().for_each(|id| self.make_ready(id));
    }

    fn make_ready(&self, id: (usize, Bytes)) {
        let mut ready = self.ready.lock();
        if !ready.contains(&id) {
            ready.push_back(id);
            self.ready_count.store(ready.len(), Relaxed);
        }
    }

    /// Runs the commands that wait for keys which have changed. To be called after every commit, with no lock held.
    pub fn serve(&self, server: &Server) {
        while self.ready_count.load(Relaxed) > 0 {
            let next = {
                let mut ready = self.ready.lock();
                let next = ready.pop_front();
                self.ready_count.store(ready.len(), Relaxed);
                next
            };
            let Some(id) = next else { return };
            let queue: Vec<_> = self.by_key.lock().get(&id).into_iter().flatten().cloned().collect();
            for waiter in queue {
                match self.try_again(server, &waiter) {
                    Tried::Here { .. } => {}
                    // Those behind it must not be served before it.
                    Tried::Elsewhere => break,
                }
            }
        }
    }

    /// Tries a waiter whose keys have changed while it was on its way here, and all who wait for the same keys.
    pub fn serve_waiter(&self, server: &Server, waiter: &Arc<Waiter>) {
        let keys = waiter.keys.iter().map(|key| (waiter.db, key.clone()));
        keys.for_each(|id| self.make_ready(id));
        self.serve(server);
    }

    /// Tries a waiter by itself, as it asked for by [`Block::poll`].
    pub fn poll(&self, server: &Server, waiter: &Arc<Waiter>) {
        self.try_again(server, waiter);
    }

    fn try_again(&self, server: &Server, waiter: &Arc<Waiter>) -> Tried {
        let tried = waiter.try_again(server);
        if let Tried::Here { served, again } = tried {
            if served {
                self.leave(waiter);
            }
            if again {
                waiter.keys.iter().for_each(|key| self.make_ready((waiter.db, key.clone())));
            }
        }
        tried
    }

    /// Ends the wait of a command that has not been served, and gives its session back; `None` if it is just being served.
    pub fn give_up(&self, waiter: &Arc<Waiter>) -> Option<Box<Session>> {
        let session = waiter.take_back()?;
        self.leave(waiter);
        Some(session)
    }

    /// The wait has ended, one way or the other.
    pub fn ended(&self) {
        self.count.fetch_sub(1, Relaxed);
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
