//! Executing a pipeline: checks, key locks, handlers, group commit, counters. Hot path: GET and SET allocate nothing
//! here, take no lock but their key's, log nothing.
//!
//! The writes of a pipeline are committed together. A command's reply is final only once the group it ran in is
//! committed: when that fails, every reply that may rest on the group's writes becomes the error.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Command, CommandError, Ctx, Flags, KeyRef, Keys, Lookup, Spec, admission, error::lossy};
use crate::{
    config::SyncMode,
    keyspace::{self, Keyspace, Locked, Transaction},
    net::{
        Client, Reply,
        resp::{Limits, ProtocolError},
    },
    observe::latency,
    server::Server,
};

/// Commands after which an open group is committed.
const MAX_GROUP_COMMANDS: usize = 1024;
/// Bytes of pending writes after which an open group is committed.
const MAX_GROUP_BYTES: usize = 1 << 20;
/// Bytes of a command name or argument shown in an error.
const SHOWN: usize = 128;

/// What the connection does after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Goes on with the next one.
    Next,
    /// Runs this one on the blocking pool with [`Pipeline::run_alone`], then goes on.
    Pool(PoolCall),
    /// Writes the replies and ends.
    Close,
}

/// A command that passed its checks and waits to run on the blocking pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCall(u32);

/// Buffers of a connection that its pipelines use one after the other.
#[derive(Default)]
pub struct Scratch {
    keys: Vec<KeyRef>,
    marks: Vec<Mark>,
}

/// Where the reply of a command with keys lies.
#[derive(Clone, Copy)]
struct Mark {
    start: usize,
    end: usize,
}

/// Commands of one connection, executed in order in one transaction.
pub struct Pipeline<'a> {
    server: &'a Server,
    client: &'a mut Client,
    reply: &'a mut Reply,
    scratch: &'a mut Scratch,
    tx: Transaction<'a>,
    /// Index in the marks of the first one of the open group; those before it are committed but not yet durable.
    open: usize,
    /// Whether something was committed whose durability the replies have to wait for.
    awaits_sync: bool,
    clock: Clock,
    calls: Calls,
}

/// Time, read once a command.
struct Clock {
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
    fn now(&self) -> u64 {
        self.begin_unix_ms + (self.last - self.begin).as_millis() as u64
    }

    /// Time since the last lap.
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let passed = now - self.last;
        self.last = now;
        passed
    }
}

/// Calls of one command in a row, added to its counters together.
#[derive(Default)]
struct Calls {
    command: Option<u32>,
    calls: u64,
    usec: u64,
    /// Nanoseconds beyond `usec`, so that fast commands add up.
    nanos: u64,
    /// Duration of the last call, if it wrote.
    last_write: Option<Duration>,
    /// The last call's command and duration, until it is counted for LATENCY.
    unnoted: Option<(u32, Duration)>,
}

impl Calls {
    fn add(&mut self, passed: Duration) {
        self.nanos += passed.as_nanos() as u64;
        self.usec += self.nanos / 1000;
        self.nanos %= 1000;
    }
}

impl<'a> Pipeline<'a> {
    /// Opens a transaction for what follows.
    pub fn begin(server: &'a Server, client: &'a mut Client, reply: &'a mut Reply, scratch: &'a mut Scratch) -> Self {
        scratch.marks.clear();
        Pipeline {
            server,
            client,
            reply,
            scratch,
            tx: server.keyspace.transaction(),
            open: 0,
            awaits_sync: false,
            clock: Clock::start(&server.keyspace),
            calls: Calls::default(),
        }
    }

    /// Bytes of replies so far.
    pub fn reply_len(&self) -> usize {
        self.reply.len()
    }

    /// What the next request may be at most.
    pub fn limits(&self) -> Limits {
        Limits { max_bulk: self.server.config.proto_max_bulk_len() as u64, before_auth: self.must_authenticate() }
    }

    fn must_authenticate(&self) -> bool {
        !self.client.authenticated() && !self.server.config.requirepass().is_empty()
    }

    /// Executes one request.
    pub fn run(&mut self, args: &[Bytes]) -> Outcome {
        let server = self.server;
        let command = match server.commands.lookup(args) {
            Lookup::Found(command) => command,
            Lookup::UnknownCommand if is_http(args) => {
                tracing::warn!(client = %self.client.info().addr, "closed a connection that speaks HTTP: somebody may be trying to reach this server through a web browser");
                return Outcome::Close;
            }
            Lookup::UnknownCommand => return self.refuse(None, &unknown_command(args)),
            Lookup::UnknownSubcommand(container) => {
                return self.refuse(None, &unknown_subcommand(container, args));
            }
        };
        let spec = command.spec;
        if !spec.arity_fits(args.len()) {
            return self.refuse(Some(command), &CommandError::Arity(command.full_name.clone()));
        }
        if !self.client.authenticated() && !spec.flags.has(Flags::NO_AUTH) && self.must_authenticate() {
            return self.refuse(Some(command), &CommandError::Static("NOAUTH Authentication required."));
        }
        if spec.flags.has(Flags::WRITE) && server.replication.is_slave() && !self.may_write_apart(spec, args) {
            let readonly = CommandError::Static("READONLY You can't write against a read only replica.");
            return self.refuse(Some(command), &readonly);
        }
        if let Some(refusal) = admission::refusal(server, spec.flags) {
            return self.refuse(Some(command), &refusal);
        }
        if spec.flags.has(Flags::BLOCKING_POOL) {
            self.commit();
            return Outcome::Pool(PoolCall(command.index));
        }
        self.execute(command, args);
        if self.client.is_closing() { Outcome::Close } else { Outcome::Next }
    }

    /// Whether a replica may run this write: with `slave-read-only : no`, and if all its keys are in databases that were
    /// taken out of replication. The log of the others is the master's, and no client's to write.
    fn may_write_apart(&self, spec: &Spec, args: &[Bytes]) -> bool {
        if self.server.config.slave_read_only() {
            return false;
        }
        let mut keys = Vec::new();
        spec.keys.collect(self.client.db(), args, &mut keys);
        !keys.is_empty() && keys.iter().all(|key| self.server.replication.is_detached(key.db))
    }

    /// Runs a command that [`Pipeline::run`] put off to the blocking pool.
    pub fn run_alone(&mut self, call: PoolCall, args: &[Bytes]) {
        if let Some(command) = self.server.commands.get(call.0) {
            self.execute(command, args);
        }
    }

    /// Replies to a request that is no RESP; the connection ends after it.
    pub fn protocol_error(&mut self, error: &ProtocolError) {
        self.error(&error.to_string());
    }

    fn execute(&mut self, command: &'a Command, args: &[Bytes]) {
        let spec = command.spec;
        let keyed = !spec.keys.is_none();
        if !keyed && !spec.flags.has(Flags::FAST) {
            self.commit();
        }
        if keyed {
            self.lock(command, args);
        }
        self.count_from(command.index);
        self.client.begin_command(command.index);
        // A wait for the locks must not make the command live in the past.
        let waited = if keyed { self.clock.lap() } else { Duration::ZERO };
        let start = self.reply.len();
        let mut ctx = Ctx {
            server: self.server,
            client: &mut *self.client,
            reply: &mut *self.reply,
            tx: &mut self.tx,
            now: self.clock.now(),
        };
        if let Err(error) = (spec.handler)(&mut ctx, args) {
            self.reply.truncate(start);
            self.error(&error.to_string());
            command.stats.failed.fetch_add(1, Relaxed);
        }
        let pending = self.tx.pending();
        if !self.client.wants_reply() {
            self.reply.truncate(start);
        } else if keyed && pending {
            self.scratch.marks.push(Mark { start, end: self.reply.len() });
        }
        let passed = waited + self.clock.lap();
        self.calls.calls += 1;
        self.calls.add(passed);
        self.note_unnoted();
        self.calls.last_write = spec.flags.has(Flags::WRITE).then_some(passed);
        self.calls.unnoted = Some((command.index, passed));
        if self.is_slow(passed) {
            self.calls.last_write = None;
            self.log_slow(command, args, passed);
        }
        let (bytes, commands) = self.tx.size();
        if pending && (bytes >= MAX_GROUP_BYTES || commands >= MAX_GROUP_COMMANDS) {
            self.commit();
        }
    }

    /// Takes the keys that the request names. Commits the open group first when they cannot be had otherwise.
    fn lock(&mut self, command: &Command, args: &[Bytes]) {
        let exclusive = command.spec.flags.has(Flags::WRITE);
        let db = self.client.db();
        match command.spec.keys {
            Keys::None => {}
            Keys::Range { first, last, step } => {
                let positions = Keys::range(first, last, step, args.len());
                self.lock_keys(positions.filter_map(|at| args.get(at)).map(|key| (db, &**key)), exclusive);
            }
            Keys::Find(find) => {
                let mut found = std::mem::take(&mut self.scratch.keys);
                find(db, args, &mut found);
                // A database that is not there is the handler's to refuse.
                found.retain(|found| found.db < self.server.keyspace.databases());
                self.lock_keys(found.iter().map(|found| (found.db, &*found.key)), exclusive);
                found.clear();
                self.scratch.keys = found;
            }
        }
    }

    fn lock_keys<'k>(&mut self, keys: impl Iterator<Item = (usize, &'k [u8])> + Clone, exclusive: bool) {
        while self.tx.lock(keys.clone(), exclusive) == Locked::CommitFirst {
            self.commit();
        }
    }

    /// Commits the open group. When that fails its replies become the error.
    fn commit(&mut self) {
        let wrote = self.tx.pending();
        let committed = self.tx.commit();
        if wrote {
            let passed = self.clock.lap();
            self.calls.add(passed);
            self.calls.last_write = self.calls.last_write.map(|own| own + passed);
            self.calls.unnoted = self.calls.unnoted.map(|(index, own)| (index, own + passed));
        }
        match committed {
            Ok(()) if wrote && self.server.config.sync() == SyncMode::Always => self.awaits_sync = true,
            Ok(()) => {}
            Err(error) => self.fail_from(self.open, error),
        }
        if !self.awaits_sync {
            self.scratch.marks.clear();
        }
        self.open = self.scratch.marks.len();
    }

    /// Commits what is open and, under `sync : always`, waits until it is durable. Must be called before the replies are
    /// written. `args` are those of the last command, for the slow log.
    pub fn finish(mut self, args: &[Bytes]) {
        self.commit();
        if self.awaits_sync {
            let durable = tokio::task::block_in_place(|| self.tx.wait_durable());
            let passed = self.clock.lap();
            self.calls.add(passed);
            self.calls.last_write = self.calls.last_write.map(|own| own + passed);
            self.calls.unnoted = self.calls.unnoted.map(|(index, own)| (index, own + passed));
            if let Err(error) = durable {
                self.fail_from(0, error);
            }
        }
        if let (Some(passed), Some(index)) = (self.calls.last_write, self.calls.command)
            && self.is_slow(passed)
            && let Some(command) = self.server.commands.get(index)
        {
            self.log_slow(command, args, passed);
        }
        self.flush_calls();
        self.server.stats.add_tally(self.client.take_tally());
    }

    /// Puts the error in the place of every marked reply from mark `first` on.
    fn fail_from(&mut self, first: usize, error: keyspace::Error) {
        let Some(marks) = self.scratch.marks.get(first..) else { return };
        let Some(begin) = marks.first().map(|mark| mark.start) else { return };
        let text = CommandError::from(error).to_string();
        let written = self.reply.as_slice().get(begin..).unwrap_or_default().to_vec();
        self.reply.truncate(begin);
        let mut at = begin;
        for mark in marks {
            self.reply.raw(written.get(at - begin..mark.start - begin).unwrap_or_default());
            self.reply.error(&text);
            at = mark.end;
        }
        self.reply.raw(written.get(at - begin..).unwrap_or_default());
        self.server.stats.errors.count(&text, marks.len() as u64);
        self.scratch.marks.truncate(first);
    }

    fn refuse(&mut self, command: Option<&Command>, error: &CommandError) -> Outcome {
        let start = self.reply.len();
        if let Some(command) = command {
            command.stats.rejected.fetch_add(1, Relaxed);
        }
        self.error(&error.to_string());
        if !self.client.wants_reply() {
            self.reply.truncate(start);
        }
        Outcome::Next
    }

    fn error(&mut self, text: &str) {
        self.reply.error(text);
        self.server.stats.errors.count(text, 1);
    }

    /// From here on the time is spent for the command at `index`.
    fn count_from(&mut self, index: u32) {
        if self.calls.command != Some(index) {
            self.flush_calls();
            self.calls.command = Some(index);
        }
    }

    fn flush_calls(&mut self) {
        self.note_unnoted();
        let calls = std::mem::take(&mut self.calls);
        if let Some(command) = calls.command.and_then(|index| self.server.commands.get(index)) {
            command.stats.calls.fetch_add(calls.calls, Relaxed);
            command.stats.usec.fetch_add(calls.usec + calls.nanos.div_ceil(1000), Relaxed);
        }
    }

    /// Counts the time of the last command for LATENCY, now that its share of commits is known.
    fn note_unnoted(&mut self) {
        let Some((index, passed)) = self.calls.unnoted.take() else { return };
        let Some(command) = self.server.commands.get(index) else { return };
        let config = &self.server.config;
        if config.latency_tracking() {
            command.stats.times.add(passed);
        }
        let threshold = config.latency_monitor_threshold();
        if !threshold.is_zero() && passed >= threshold {
            let event = if command.spec.flags.has(Flags::FAST) { latency::FAST_COMMAND } else { latency::COMMAND };
            self.server.latency.record(event, self.clock.now() / 1000, passed);
        }
    }

    fn is_slow(&self, passed: Duration) -> bool {
        u64::try_from(self.server.config.slowlog_log_slower_than())
            .is_ok_and(|threshold| passed.as_micros() as u64 >= threshold)
    }

    fn log_slow(&self, command: &Command, args: &[Bytes], passed: Duration) {
        if !command.spec.flags.has(Flags::SKIP_SLOWLOG) {
            self.server.slowlog.record(
                self.server.config.slowlog_max_len(),
                self.clock.now() / 1000,
                passed,
                args,
                self.client.info(),
            );
        }
    }
}

/// Whether this is the beginning of an HTTP request, which may be a web page's attempt to make a browser talk to us.
fn is_http(args: &[Bytes]) -> bool {
    args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
}

fn unknown_command(args: &[Bytes]) -> CommandError {
    let mut shown = String::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= SHOWN {
            break;
        }
        shown.push('\'');
        shown.push_str(&lossy(arg, SHOWN - shown.len()));
        shown.push_str("' ");
    }
    let name = args.first().map(|name| lossy(name, SHOWN)).unwrap_or_default();
    CommandError::Text(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
}

fn unknown_subcommand(container: &Command, args: &[Bytes]) -> CommandError {
    let name = args.get(1).map(|name| lossy(name, SHOWN)).unwrap_or_default();
    let container = container.spec.name.to_ascii_uppercase();
    CommandError::Text(format!("ERR unknown subcommand '{name}'. Try {container} HELP."))
}
