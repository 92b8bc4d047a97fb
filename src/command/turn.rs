//! A turn: the pipelines of several connections, executed one after the other in one transaction and committed together. Hot path.
//!
//! One log append and one engine write a slot serve them all, which is most of what a small write costs. A command's reply is final only
//! once the group it ran in is committed: when that fails, every reply that may rest on the group's writes becomes the error, whoever
//! it is for. So a connection's replies are not written before its turn has ended ([`Turn::finish`]).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::After;
use super::blocking::Session;
use super::witness::{is_slow, log_slow};
use super::{CommandError, Flags, KeyRef};
use crate::config::SyncMode;
use crate::keyspace::{self, Keyspace, RestsOn, Transaction, Undurable};
use crate::net::{Client, Reply};
use crate::observe::latency;
use crate::server::Server;

/// Keys that a turn holds beyond which it is committed: more would hardly make it cheaper, but stand in others' way.
const MAX_KEYS: usize = 96;
/// Time after which a turn is committed: the replies of its first pipeline wait that long.
const MAX_AGE: Duration = Duration::from_millis(1);
/// A connection counts as one that writes for so many pipelines after a write.
const WRITER: u8 = 8;
/// What a turn counts that had to wait for a key, where one that had not to counts -1, and from which sum on a connection counts as one that
/// writes what others write: where more than one turn in five has to wait.
const WAIT: u8 = 4;
const CONTENDED_FROM: u8 = 32;
/// For so many pipelines it does; then it is tried anew.
const CONTENDED: u8 = 128;

/// See the module.
pub struct Turn<'a> {
    pub(super) server: &'a Server,
    pub(super) tx: Transaction<'a>,
    /// What is to happen once the open group is committed.
    pub(super) after: Vec<After>,
    /// On what each of these rests.
    pub(super) resting: Vec<RestsOn>,
    pub(super) clock: Clock,
    /// The sessions whose pipelines have ended.
    #[expect(clippy::vec_box, reason = "they come and go in their boxes")]
    ended: Vec<Box<Session>>,
    /// How many of these have nothing in the open group.
    settled: usize,
    /// Whether something was committed whose durability the replies have to wait for.
    awaits_sync: bool,
    /// Whether everybody else would have to wait who writes what others write.
    shared: bool,
}

/// What a commit leaves to be done, now that no key is held any more.
#[must_use]
pub(super) struct Due {
    /// Whether keys were changed that somebody waits for.
    pub awaited: bool,
    /// Keys that were found expired.
    pub expired: Vec<(usize, Bytes)>,
}

/// One connection in a turn.
pub(super) struct Party<'s> {
    pub client: &'s mut Client,
    pub reply: &'s mut Reply,
    pub scratch: &'s mut Scratch,
}

/// What a connection keeps from command to command of its pipeline, in buffers that the next one uses again.
#[derive(Default)]
pub struct Scratch {
    pub(super) keys: Vec<KeyRef>,
    pub(super) marks: Vec<Mark>,
    /// Where the reply of the running request begins.
    pub(super) start: usize,
    /// Index in the marks of the first one of the open group; those before it are committed but not yet durable.
    open: usize,
    pub(super) calls: Calls,
    /// Whether it has written in the open group.
    wrote: bool,
    /// The last command, if it wrote: for the slow log, since its commit counts.
    last: Vec<Bytes>,
    /// Pipelines without a write until the connection does not count as one that writes.
    writer: u8,
    /// Pipelines until it does not count as one that writes what others write.
    contended: u8,
    /// Turns that had to wait, weighed: see [`WAIT`].
    waits: u8,
}

impl Scratch {
    /// Whether one of the last pipelines wrote.
    pub fn writes(&self) -> bool {
        self.writer > 0
    }

    /// Whether it writes what others write: its turns have had to wait for keys again and again.
    pub fn is_contended(&self) -> bool {
        self.contended > 0 && self.writes()
    }

    /// It had a part in a turn that had to wait for a key which somebody else held, or had not to.
    pub fn took_turn(&mut self, waited: bool) {
        if waited {
            self.waits += WAIT;
            if self.waits >= CONTENDED_FROM {
                self.waits = CONTENDED_FROM / 2;
                self.contended = CONTENDED;
            }
        } else if self.contended == 0 {
            self.waits = self.waits.saturating_sub(1);
        }
    }

    /// The running command has changed something.
    pub(super) fn wrote(&mut self) {
        self.wrote = true;
        self.writer = WRITER;
    }
}

/// Where the reply of a command lies that may rest on what is not committed, and on what.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub start: usize,
    pub end: usize,
    on: RestsOn,
}

/// Time, read once a command.
pub(super) struct Clock {
    begin: Instant,
    begin_unix_ms: u64,
    last: Instant,
}

impl Clock {
    fn start(keyspace: &Keyspace) -> Self {
        let begin = Instant::now();
        Clock { begin, begin_unix_ms: keyspace.now(), last: begin }
    }

    /// Unix ms at the last lap.
    pub fn now(&self) -> u64 {
        self.begin_unix_ms + (self.last - self.begin).as_millis() as u64
    }

    /// The last lap.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// Time since the last lap.
    pub fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let passed = now - self.last;
        self.last = now;
        passed
    }
}

/// Calls of one command in a row, added to its counters together.
#[derive(Default)]
pub(super) struct Calls {
    pub command: Option<u32>,
    calls: u64,
    usec: u64,
    /// Nanoseconds beyond `usec`, so that fast commands add up.
    nanos: u64,
    /// Duration of the last call, if it wrote.
    pub last_write: Option<Duration>,
    /// The last call's command and duration, until it is counted for LATENCY.
    unnoted: Option<(u32, Duration)>,
}

impl Calls {
    fn add(&mut self, passed: Duration) {
        self.nanos += passed.as_nanos() as u64;
        self.usec += self.nanos / 1000;
        self.nanos %= 1000;
    }

    /// From here on the time is spent for the command at `index`.
    pub fn count_from(&mut self, server: &Server, now: u64, index: u32) {
        if self.command != Some(index) {
            self.flush(server, now);
            self.command = Some(index);
        }
    }

    /// The command at `index` took so long.
    pub fn called(&mut self, server: &Server, now: u64, index: u32, passed: Duration, wrote: bool) {
        self.calls += 1;
        self.add(passed);
        self.note(server, now);
        self.last_write = wrote.then_some(passed);
        self.unnoted = Some((index, passed));
    }

    /// The last call's share of a commit, or of what else it waited for.
    fn waited(&mut self, passed: Duration) {
        self.add(passed);
        self.last_write = self.last_write.map(|own| own + passed);
        self.unnoted = self.unnoted.map(|(index, own)| (index, own + passed));
    }

    /// Adds to the counters; `now` in unix ms.
    fn flush(&mut self, server: &Server, now: u64) {
        self.note(server, now);
        let calls = std::mem::take(self);
        if let Some(command) = calls.command.and_then(|index| server.commands.get(index)) {
            command.stats.calls.fetch_add(calls.calls, Relaxed);
            command.stats.usec.fetch_add(calls.usec + calls.nanos.div_ceil(1000), Relaxed);
        }
    }

    /// Counts the time of the last command for LATENCY, now that its share of commits is known.
    fn note(&mut self, server: &Server, now: u64) {
        let Some((index, passed)) = self.unnoted.take() else { return };
        let Some(command) = server.commands.get(index) else { return };
        let config = &server.config;
        if config.latency_tracking() {
            command.stats.times.add(passed);
        }
        let threshold = config.latency_monitor_threshold();
        if !threshold.is_zero() && passed >= threshold {
            let event = if command.spec.flags.has(Flags::FAST) { latency::FAST_COMMAND } else { latency::COMMAND };
            server.latency.record(event, now / 1000, passed);
        }
    }
}

impl<'s> Party<'s> {
    pub fn of(session: &'s mut Session) -> Party<'s> {
        let Session { client, reply, scratch, .. } = session;
        Party { client, reply, scratch }
    }

    /// Begins a pipeline.
    pub fn begin(&mut self) {
        self.scratch.marks.clear();
        self.scratch.open = 0;
        self.scratch.wrote = false;
        self.scratch.writer = self.scratch.writer.saturating_sub(1);
        self.scratch.contended = self.scratch.contended.saturating_sub(1);
    }

    /// What the reply from `start` on says may rest on what is not committed.
    pub fn mark(&mut self, start: usize, on: RestsOn) {
        if on != RestsOn::NOTHING {
            self.scratch.marks.push(Mark { start, end: self.reply.len(), on });
        }
    }

    /// There are no replies from `start` on.
    pub fn forget_marks(&mut self, start: usize) {
        self.scratch.marks.retain(|mark| mark.start < start);
        self.scratch.open = self.scratch.open.min(self.scratch.marks.len());
    }

    /// Puts the error in the place of every reply from mark `first` on that falls with these slots.
    fn fail_from(&mut self, server: &Server, first: usize, error: keyspace::Error, failed: RestsOn) {
        let marks = self.scratch.marks.split_off(first.min(self.scratch.marks.len()));
        let Some(begin) = marks.first().map(|mark| mark.start) else { return };
        let running_from = self.scratch.start;
        let text = CommandError::from(error).to_string();
        let written = self.reply.as_slice().get(begin..).unwrap_or_default().to_vec();
        self.reply.truncate(begin);
        let (mut at, mut count) = (begin, 0);
        for mark in marks {
            self.reply.raw(written.get(at - begin..mark.start - begin).unwrap_or_default());
            let start = self.reply.len();
            if mark.on.falls_with(failed) {
                self.reply.error(&text);
                at = mark.end;
                count += 1;
            } else {
                self.reply.raw(written.get(mark.start - begin..mark.end - begin).unwrap_or_default());
                at = mark.end;
                self.scratch.marks.push(Mark { start, end: self.reply.len(), on: mark.on });
            }
            if mark.end <= running_from {
                // The reply of the running request begins that much later, or earlier.
                self.scratch.start = running_from + self.reply.len() - mark.end;
            }
        }
        self.reply.raw(written.get(at - begin..).unwrap_or_default());
        server.stats.errors.count(&text, count);
    }

    /// The pipeline is over, `args` are those of its last command; what it wrote may still be uncommitted.
    pub fn leave(&mut self, args: &[Bytes]) {
        if self.scratch.calls.last_write.is_some() {
            self.scratch.last.clear();
            self.scratch.last.extend_from_slice(args);
        }
    }

    /// The open group is committed, or has failed. `share`: of the time which that took.
    fn committed(&mut self, turn: &Committed<'_>) {
        if self.scratch.wrote {
            self.scratch.calls.waited(turn.share.unwrap_or_default());
            turn.written.iter().for_each(|&(slot, index)| self.client.written.note(slot, index));
            self.scratch.wrote = false;
        }
        if let Err(error) = turn.result {
            self.fail_from(turn.server, self.scratch.open, error.clone(), turn.failed_in);
        }
        if !turn.awaits_sync {
            self.scratch.marks.clear();
        }
        self.scratch.open = self.scratch.marks.len();
    }

    /// Everything is committed and as durable as it has to be: counts what is left to be counted.
    fn conclude(&mut self, server: &Server, now: u64) {
        if let (Some(passed), Some(index)) = (self.scratch.calls.last_write, self.scratch.calls.command)
            && is_slow(server, passed)
            && let Some(command) = server.commands.get(index)
        {
            log_slow(server, self.client, now, command, &self.scratch.last, passed);
        }
        // They are parts of the input buffer, which may have to grow.
        self.scratch.last.clear();
        self.scratch.calls.flush(server, now);
        server.stats.add_tally(self.client.take_tally());
    }
}

/// What a commit means for each party.
struct Committed<'c> {
    server: &'c Server,
    result: &'c Result<(), keyspace::Error>,
    failed_in: RestsOn,
    /// The last record of each slot that was committed to.
    written: &'c [((usize, usize), u64)],
    /// Each party's share of the time, if there was anything to commit.
    share: Option<Duration>,
    awaits_sync: bool,
}

impl<'a> Turn<'a> {
    /// Opens a transaction for what follows.
    pub fn begin(server: &'a Server) -> Turn<'a> {
        Turn {
            server,
            tx: server.keyspace.transaction(),
            after: Vec::new(),
            resting: Vec::new(),
            clock: Clock::start(&server.keyspace),
            ended: Vec::new(),
            settled: 0,
            awaits_sync: false,
            shared: false,
        }
    }

    /// A turn that must not wait for long: what would have to is run later, in a turn of its own.
    pub fn begin_shared(server: &'a Server) -> Turn<'a> {
        let mut turn = Turn { shared: true, ..Turn::begin(server) };
        turn.tx.hurry();
        turn
    }

    /// Whether it had to wait for a key.
    pub fn has_waited(&self) -> bool {
        self.tx.has_waited()
    }

    /// Whether another pipeline may join.
    pub fn has_room(&self) -> bool {
        self.tx.held() < MAX_KEYS && self.clock.last - self.clock.begin < MAX_AGE
    }

    /// Whether somebody waits for its end: pipelines that have ended in it, for their replies, or others that would be next.
    pub(super) fn keeps_others(&self) -> bool {
        self.shared || !self.ended.is_empty()
    }

    /// Takes a session whose pipeline has ended by [`super::Pipeline::leave`].
    pub fn join(&mut self, session: Box<Session>) {
        self.ended.push(session);
    }

    /// Commits the open group, in which `own`, whose pipeline is running, may have a part. When that fails the replies become
    /// the error.
    pub(super) fn commit(&mut self, mut own: Option<&mut Party<'_>>) -> Due {
        let server = self.server;
        let (wrote, awaited) = (self.tx.pending(), self.tx.take_awaited());
        let result = self.tx.commit();
        let failed_in = self.tx.failed_in();
        let open = self.ended.get_mut(self.settled..).unwrap_or_default();
        let own_wrote = own.as_ref().is_some_and(|own| own.scratch.wrote);
        let parties = open.iter().filter(|session| session.scratch.wrote).count() + usize::from(own_wrote);
        let share = wrote.then(|| self.clock.lap() / (parties.max(1) as u32));
        let written: Vec<_> = match wrote {
            true => self.tx.committed().map(|(slot, index)| ((slot.db(), slot.number()), index)).collect(),
            false => Vec::new(),
        };
        let after = std::mem::take(&mut self.after);
        let resting = std::mem::take(&mut self.resting).into_iter().chain(std::iter::repeat(RestsOn::EVERYTHING));
        for (after, on) in after.into_iter().zip(resting) {
            if !on.falls_with(failed_in) {
                server.after_commit(after);
            }
        }
        // Also of a commit that failed in some slots only.
        self.awaits_sync |= wrote && failed_in != RestsOn::EVERYTHING && server.config.sync() == SyncMode::Always;
        let committed =
            Committed { server, result: &result, failed_in, written: &written, share, awaits_sync: self.awaits_sync };
        open.iter_mut().for_each(|session| Party::of(session).committed(&committed));
        self.settled = self.ended.len();
        if let Some(own) = own.as_mut() {
            own.committed(&committed);
        }
        Due { awaited, expired: self.tx.take_expired() }
    }

    /// Commits what is open and, under `sync : always`, waits until all is durable. Returns the sessions in the order in which they
    /// joined: their replies may be written.
    /// `first` is called before anybody else is served whom that concerns, which may have to wait for keys.
    pub fn finish(mut self, first: impl FnOnce()) -> Vec<Box<Session>> {
        let due = self.settle(None);
        if due.awaited || !due.expired.is_empty() {
            first();
        }
        due.serve(self.server);
        let (server, now) = (self.server, self.clock.now());
        self.ended.iter_mut().for_each(|session| Party::of(session).conclude(server, now));
        self.ended
    }

    /// [`Turn::finish`] of a turn of one pipeline, that of a session which has not joined.
    pub fn end(mut self, session: &mut Session) {
        self.settle(Some(&mut Party::of(session))).serve(self.server);
        Party::of(session).conclude(self.server, self.clock.now());
    }

    /// What has been committed and may not be durable, if replies have to wait for that: to be waited for elsewhere.
    pub(super) fn take_undurable(&mut self) -> Undurable {
        match std::mem::take(&mut self.awaits_sync) {
            true => self.tx.take_undurable(),
            false => Undurable::default(),
        }
    }

    fn settle(&mut self, mut own: Option<&mut Party<'_>>) -> Due {
        let due = self.commit(own.as_deref_mut());
        if self.awaits_sync {
            let durable = tokio::task::block_in_place(|| self.tx.wait_durable());
            let server = self.server;
            let passed = self.clock.lap();
            let parties = self.ended.iter_mut().map(|session| Party::of(session)).chain(own.map(|own| Party {
                client: &mut *own.client,
                reply: &mut *own.reply,
                scratch: &mut *own.scratch,
            }));
            for mut party in parties {
                party.scratch.calls.waited(passed);
                if let Err(error) = &durable {
                    party.fail_from(server, 0, error.clone(), RestsOn::EVERYTHING);
                }
            }
        }
        due
    }
}

impl Due {
    /// Does it. Not while somebody is being served ([`super::blocking`]).
    pub fn serve(self, server: &Server) {
        if !self.expired.is_empty() {
            server.expire_found(self.expired);
        }
        server.events.tracking.deliver();
        if self.awaited {
            server.events.blocked.serve(server);
        }
    }
}
