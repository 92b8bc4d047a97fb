//! Executing a pipeline: checks, key locks, handlers, group commit, counters. Hot path: GET and SET allocate nothing
//! here, take no lock but their key's, log nothing.
//!
//! The writes of a pipeline are committed together. A command's reply is final only once the group it ran in is
//! committed: when that fails, every reply that may rest on the group's writes becomes the error.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Command, CommandError, Ctx, Flags, Group, KeyRef, Keys, Lookup, Spec, Suspend, Within, admission,
    blocking::{End, ROLE_CHANGED, Ran, Retried, Session, Wait},
    debug,
    error::lossy,
    scripting,
};
use crate::{
    config::{OutputLimits, SyncMode},
    keyspace::{self, Keyspace, LockPlan, Locked, Transaction, while_waiting},
    net::{
        Client, Overrun, Replies, Reply, output,
        resp::{Limits, ProtocolError},
    },
    observe::latency,
    pubsub::{EventClass, Monitors, PauseKind, TrackedBy},
    server::Server,
};

/// Commands after which an open group is committed.
const MAX_GROUP_COMMANDS: usize = 1024;
/// Bytes of pending writes after which an open group is committed.
const MAX_GROUP_BYTES: usize = 1 << 20;
/// Bytes of arguments that a command may have which runs on the thread that read it: to copy and log more takes long.
const MAX_INLINE_BYTES: usize = 4 << 20;
/// Bytes of a command name or argument shown in an error.
const SHOWN: usize = 128;

/// What a client is told that would write on a replica.
pub(super) const READONLY: &str = "READONLY You can't write against a read only replica.";
/// What a client is told that asks for more than `max-reply-size` at a time.
pub(super) const REPLY_TOO_LARGE: CommandError =
    CommandError::Static("ERR the reply is larger than max-reply-size; ask for it in parts");

/// What the connection does after a command.
pub enum Outcome {
    /// Goes on with the next one.
    Next,
    /// Runs this one on the blocking pool with [`Pipeline::run_alone`], then goes on.
    Pool(PoolCall),
    /// Parks the session until this one is served.
    Block(Wait),
    /// Runs this one again when CLIENT PAUSE is over.
    Held,
    /// Writes the replies and ends.
    Close,
    /// Ends at once: the client is over a limit.
    Abort,
}

/// A command that passed its checks and waits to run on the blocking pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCall(u32);

/// What is to happen once the writes of a command are committed.
#[derive(Clone, Debug)]
pub enum After {
    /// A keyspace notification.
    Notify { db: usize, class: EventClass, event: &'static str, key: Bytes },
    /// A message to a channel.
    Publish { channel: Bytes, message: Bytes, shard: bool },
    /// A line of MONITOR.
    Monitor(Vec<u8>),
}

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
    /// Bytes of reply that a command may make which keeps its data.
    max_reply: usize,
    /// What may wait for the client.
    output: OutputLimits,
    tx: Transaction<'a>,
    after: Vec<After>,
    on_pool: bool,
    retry: Retry,
    /// Whether it has changed keys that others wait for, and left them to its caller.
    woke: bool,
    /// Keys that a retry found expired, and has left to its caller.
    expired: Vec<(usize, Bytes)>,
    /// Index in the marks of the first one of the open group; those before it are committed but not yet durable.
    open: usize,
    /// Whether something was committed whose durability the replies have to wait for.
    awaits_sync: bool,
    clock: Clock,
    calls: Calls,
}

/// Whether the pipeline tries a waiting command again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    No,
    Yes,
    /// It does, and the command found nothing again.
    InVain,
    /// It does, and a script that does not end holds the command's keys.
    Busy,
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
        reply.set_limit(usize::MAX);
        let output = server.config.client_output_buffer_limit();
        reply.set_hard_limit(hard_limit(&output, client));
        let id = client.id();
        Pipeline {
            server,
            client,
            reply,
            scratch,
            max_reply: server.config.max_reply_size(),
            output,
            tx: server.keyspace.transaction().by(id),
            after: Vec::new(),
            on_pool: false,
            retry: Retry::No,
            woke: false,
            expired: Vec::new(),
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
        if self.server.events.tracking.is_active() {
            self.server.events.tracking.limit();
            self.take_outbox();
        }
        let start = self.reply.len();
        // Its class, and whether it wants replies, may have changed with the command before.
        self.reply.set_hard_limit(hard_limit(&self.output, self.client));
        let outcome = self.run_checked(args);
        if matches!(outcome, Outcome::Next | Outcome::Close) {
            self.end_request(start, args);
        }
        self.limit_output(outcome)
    }

    /// Whether the client may go on after a command, with the replies that now wait for it.
    fn limit_output(&mut self, outcome: Outcome) -> Outcome {
        if hard_limit(&self.output, self.client) == usize::MAX || self.client.replies() != Replies::On {
            return outcome;
        }
        let info = self.client.info();
        if self.reply.is_over_hard_limit() {
            info.overrun(Overrun::Output, self.reply.len());
        } else {
            output::enforce(&self.output, info, self.reply.len());
        }
        if info.overran().is_some() { Outcome::Abort } else { outcome }
    }

    /// How long the pipeline has been running, as of its last command.
    pub fn age(&self) -> Duration {
        self.clock.last - self.clock.begin
    }

    /// The request is done; `start` is where its reply begins.
    fn end_request(&mut self, start: usize, args: &[Bytes]) {
        if !self.client.wants_reply() {
            self.silence(start, args);
        }
        if self.client.tracked.caching && self.client.multi.is_none() && !is_named(args, b"client") {
            self.client.tracked.caching = false;
        }
        self.take_outbox();
    }

    /// Puts what was sent to the client behind its replies so far.
    fn take_outbox(&mut self) {
        if self.client.info().has_outbox()
            && let Some(sent) = self.client.info().take_outbox()
        {
            self.reply.raw(&sent);
        }
    }

    /// Takes back the reply of a request, as asked for by CLIENT REPLY.
    fn silence(&mut self, start: usize, args: &[Bytes]) {
        // Answers to these are messages.
        let pushes: &[&[u8]] =
            &[b"subscribe", b"unsubscribe", b"psubscribe", b"punsubscribe", b"ssubscribe", b"sunsubscribe"];
        if !pushes.iter().any(|name| is_named(args, name)) {
            self.reply.truncate(start);
            self.scratch.marks.retain(|mark| mark.start < start);
            self.open = self.open.min(self.scratch.marks.len());
        }
    }

    fn run_checked(&mut self, args: &[Bytes]) -> Outcome {
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
        if let Err(error) = check(server, self.client, command, args) {
            return self.refuse(Some(command), &error);
        }
        if self.is_held(command, args) {
            self.commit();
            return Outcome::Held;
        }
        if !spec.flags.has(Flags::IN_MULTI)
            && let Some(multi) = &mut self.client.multi
        {
            if spec.flags.has(Flags::NO_MULTI) {
                let error = CommandError::Static("ERR Command not allowed inside a transaction");
                return self.refuse(Some(command), &error);
            }
            multi.push(command.index, args);
            self.client.show_transaction();
            self.reply.simple("QUEUED");
            return Outcome::Next;
        }
        if self.is_for_pool(spec, args) {
            self.commit();
            return Outcome::Pool(PoolCall(command.index));
        }
        match self.execute(command, args) {
            Outcome::Next if self.client.is_closing() => Outcome::Close,
            outcome => outcome,
        }
    }

    /// Whether CLIENT PAUSE holds this command back.
    fn is_held(&self, command: &Command, args: &[Bytes]) -> bool {
        let writes = |spec: &Spec, args: &[Bytes]| {
            let flags = flags_of(self.server, spec, args);
            flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE)
        };
        match self.server.pause.kind() {
            PauseKind::None => false,
            PauseKind::All => true,
            PauseKind::Write if is_exec(command.spec) => {
                self.client.multi.iter().flat_map(super::Multi::queue).any(|queued| {
                    let command = self.server.commands.get(queued.command);
                    command.is_some_and(|command| writes(command.spec, &queued.args))
                })
            }
            PauseKind::Write => writes(command.spec, args),
        }
    }

    /// Whether a command, or one of those queued for EXEC, may take long. An EXEC must not be put off to the pool, and so run again, after
    /// a command that does more than a transaction takes back.
    fn is_for_pool(&self, spec: &Spec, args: &[Bytes]) -> bool {
        let queued = |multi: &super::Multi| {
            let mut specs = multi.queue().iter().filter_map(|queued| self.server.commands.get(queued.command));
            specs.any(|command| command.spec.flags.has(Flags::BLOCKING_POOL) || acts_at_once(command.spec))
        };
        let large = args.iter().map(Bytes::len).sum::<usize>() > MAX_INLINE_BYTES;
        large
            || spec.flags.has(Flags::BLOCKING_POOL)
            || (is_exec(spec) && self.client.multi.as_ref().is_some_and(queued))
    }

    /// Runs a command that [`Pipeline::run`] put off to the blocking pool. True when it has to wait after all.
    pub fn run_alone(&mut self, call: PoolCall, args: &[Bytes]) -> Outcome {
        self.on_pool = true;
        let start = self.reply.len();
        let outcome = match self.server.commands.get(call.0) {
            Some(command) => self.execute(command, args),
            None => Outcome::Next,
        };
        if matches!(outcome, Outcome::Next | Outcome::Close) {
            self.end_request(start, args);
        }
        self.limit_output(outcome)
    }

    /// Runs a waiting command again, by whatever thread. What it wrote is committed when this returns; what is not durable
    /// yet is left in the session. Nobody else is served meanwhile: that is left to the caller, who may be the one who serves.
    pub fn retry(server: &Server, session: &mut Session, args: &[Bytes]) -> Retried {
        let Session { client, reply, scratch, undurable } = session;
        // What its command sends to the client itself must not overtake the reply.
        let info = client.info().clone();
        info.hold_outbox(true);
        let start = reply.len();
        let mut pipeline = Pipeline::begin(server, client, reply, scratch);
        pipeline.retry = Retry::Yes;
        if let Lookup::Found(command) = server.commands.lookup(args) {
            // What else is checked was when it began to wait.
            if may_write(server, pipeline.client.db(), command.spec, args) {
                pipeline.execute_here(command, args);
            } else {
                pipeline.error(ROLE_CHANGED);
                command.stats.failed.fetch_add(1, Relaxed);
            }
        }
        pipeline.commit();
        let ran = match pipeline.retry {
            Retry::No | Retry::Yes => Ran::Served,
            Retry::InVain => Ran::InVain,
            Retry::Busy => Ran::Busy,
        };
        if ran == Ran::Served {
            pipeline.end_request(start, args);
            pipeline.limit_output(Outcome::Next);
        }
        if std::mem::take(&mut pipeline.awaits_sync) {
            *undurable = pipeline.tx.take_undurable();
        }
        let (woke, expired) = (pipeline.woke, std::mem::take(&mut pipeline.expired));
        pipeline.finish(args);
        info.hold_outbox(false);
        Retried { ran, woke, expired }
    }

    /// Executes a command of a retry to its end: what would be put off to the blocking pool otherwise runs here, and keeps no other task from
    /// running.
    fn execute_here(&mut self, command: &'a Command, args: &[Bytes]) {
        let is_long =
            command.spec.flags.has(Flags::BLOCKING_POOL) || matches!(self.execute(command, args), Outcome::Pool(_));
        if is_long {
            self.on_pool = true;
            while_waiting(|| self.execute(command, args));
        }
    }

    /// Replies to a request that is no RESP; the connection ends after it.
    pub fn protocol_error(&mut self, error: &ProtocolError) {
        self.error(&error.to_string());
    }

    fn execute(&mut self, command: &'a Command, args: &[Bytes]) -> Outcome {
        if command.spec.flags.has(Flags::PLANNED) {
            return self.execute_planned(command, args);
        }
        let keyed = !command.spec.keys.is_none();
        if !keyed && !command.spec.flags.has(Flags::FAST) {
            self.commit();
        }
        if keyed && !self.lock(command, args) {
            return self.busy(command);
        }
        // A wait for the locks must not make the command live in the past.
        let waited = if keyed { self.clock.lap() } else { Duration::ZERO };
        let result = self.call(command, args, waited);
        let outcome = self.conclude(command, args, result);
        if !self.tx.pending() && (!self.after.is_empty() || self.tx.found_expired()) {
            self.commit();
        }
        let (bytes, commands) = self.tx.size();
        let full = self.tx.pending() && (bytes >= MAX_GROUP_BYTES || commands >= MAX_GROUP_COMMANDS);
        // Who waits for what was written is served before the next command runs.
        if full || self.tx.is_awaited() {
            self.commit();
        }
        if command.spec.flags.has(Flags::WRITE.and(Flags::ALL_KEYS)) && self.retry == Retry::No {
            self.server.events.blocked.serve(self.server);
        }
        outcome
    }

    /// Executes a command that comes to know its keys only while it runs: with the locks that it is known to need, again with
    /// more when these turn out not to be all. What it writes is committed by itself.
    fn execute_planned(&mut self, command: &'a Command, args: &[Bytes]) -> Outcome {
        self.commit();
        let mut plan = self.plan(command, args);
        let outcome = loop {
            if self.tx.lock_plan(&mut plan) == Locked::Busy {
                return self.busy(command);
            }
            let waited = self.clock.lap();
            let (db, multi) = (self.client.db(), self.client.multi.clone());
            let result = self.call(command, args, waited);
            if let Err(CommandError::Suspend(suspend)) = &result
                && !matches!(**suspend, Suspend::Until(_))
            {
                // Nothing has happened: whoever takes it up finds what it began with.
                self.tx.abort();
                self.after.clear();
                self.client.select(db);
                self.client.multi = multi;
                if let Suspend::Conflict(conflict) = **suspend {
                    plan.learn(conflict);
                    continue;
                }
            }
            break self.conclude(command, args, result);
        };
        self.commit();
        outcome
    }

    /// A script that does not end holds the keys of a command. That is no reason to end a wait.
    fn busy(&mut self, command: &Command) -> Outcome {
        if self.retry == Retry::No || self.client.denies_blocking() {
            return self.refuse(Some(command), &busy(self.server));
        }
        self.retry = Retry::Busy;
        Outcome::Next
    }

    /// What a planned command is known to need.
    fn plan(&self, command: &Command, args: &[Bytes]) -> LockPlan {
        let mut plan = LockPlan::default();
        let db = self.client.db();
        for (key, exclusive) in keys_of(self.server, command, db, args) {
            plan.add(&self.server.keyspace, &key.key, exclusive);
        }
        if is_exec(command.spec)
            && let Some(multi) = &self.client.multi
        {
            multi.plan(self.server, db, &mut plan);
            for (_, key) in self.client.watched.keys() {
                plan.add(&self.server.keyspace, key, false);
            }
        }
        plan
    }

    /// Runs the handler of a command whose keys are locked. An error is in the reply, unless the command is suspended.
    fn call(&mut self, command: &'a Command, args: &[Bytes], waited: Duration) -> Result<(), CommandError> {
        self.count_from(command.index);
        self.client.begin_command(command.index);
        let (start, events) = (self.reply.len(), self.after.len());
        if !loses_data_with_reply(command.spec) {
            self.reply.set_limit(start.saturating_add(self.max_reply));
        }
        let by = Monitored::Client(self.client.info().addr);
        let watched = self.server.monitors.any() && self.retry == Retry::No;
        if watched && runs_scripts(command.spec) {
            monitor(&mut self.after, command, self.client.db(), by, args);
        }
        let (db, spec) = (self.client.db(), command.spec);
        remember(self.client, command, args, Within::Nothing);
        let mut ctx = Ctx {
            server: self.server,
            client: &mut *self.client,
            reply: &mut *self.reply,
            tx: &mut self.tx,
            after: &mut self.after,
            now: self.clock.now(),
            within: Within::Nothing,
            on_pool: self.on_pool,
            waited: self.retry != Retry::No,
        };
        let mut result = (command.spec.handler)(&mut ctx, args);
        self.reply.set_limit(usize::MAX);
        if self.reply.take_overflow() && result.is_ok() {
            result = Err(REPLY_TOO_LARGE);
        }
        if watched && !runs_scripts(spec) && is_first_end(&result) {
            monitor(&mut self.after, command, db, by, args);
        }
        remember_script(self.client, command, args);
        if let Err(error) = &result {
            if matches!(error, CommandError::Suspend(_)) {
                self.reply.truncate(start);
                // It counts when it comes to its end.
                self.after.truncate(events);
                self.client.tally.commands -= 1;
                self.clock.lap();
                return result;
            }
            reply_error(self.server, self.reply, start, error);
            command.stats.failed.fetch_add(1, Relaxed);
        }
        if spec.group == Group::Transactions {
            self.client.show_transaction();
        }
        let pending = self.tx.pending();
        if pending {
            self.scratch.marks.push(Mark { start, end: self.reply.len() });
        }
        let passed = waited + self.clock.lap();
        self.calls.calls += 1;
        self.calls.add(passed);
        self.note_unnoted();
        self.calls.last_write = command.spec.flags.has(Flags::WRITE).then_some(passed);
        self.calls.unnoted = Some((command.index, passed));
        if self.is_slow(passed) {
            self.calls.last_write = None;
            self.log_slow(command, args, passed);
        }
        Ok(())
    }

    /// What follows from how a command ended. Its keys are still locked.
    fn conclude(&mut self, command: &'a Command, args: &[Bytes], result: Result<(), CommandError>) -> Outcome {
        let Err(CommandError::Suspend(suspend)) = result else { return Outcome::Next };
        match *suspend {
            Suspend::OnPool => {
                self.commit();
                Outcome::Pool(PoolCall(command.index))
            }
            Suspend::Until(_) if self.retry != Retry::No => {
                self.retry = Retry::InVain;
                Outcome::Next
            }
            Suspend::Until(block) => {
                let blocked = &self.server.events.blocked;
                let entered = blocked.enter(self.client, command.spec, block, args);
                let wait = Wait::new(&self.server.events, entered);
                // Who looks for those that wait to write, because the node has become a replica, may have looked before it was entered.
                if !may_write(self.server, self.client.db(), command.spec, args) {
                    blocked.end(&wait, End::Error(ROLE_CHANGED));
                }
                self.commit();
                Outcome::Block(wait)
            }
            Suspend::Conflict(_) => {
                self.error("ERR the command touched a key that it did not name");
                Outcome::Next
            }
        }
    }

    /// Takes the keys that the request names. Commits the open group first when they cannot be had otherwise. False when they cannot be had
    /// at all, because a script that does not end holds them.
    fn lock(&mut self, command: &Command, args: &[Bytes]) -> bool {
        let exclusive = command.spec.flags.has(Flags::WRITE);
        let db = self.client.db();
        match command.spec.keys {
            Keys::None => true,
            Keys::Range { first, last, step } => {
                let positions = Keys::range(first, last, step, args.len());
                self.lock_keys(positions.filter_map(|at| args.get(at)).map(|key| (db, &**key)), exclusive)
            }
            Keys::Find(find) => {
                let mut found = std::mem::take(&mut self.scratch.keys);
                find(db, args, &mut found);
                // A database that is not there is the handler's to refuse.
                found.retain(|found| found.db < self.server.keyspace.databases());
                let locked = self.lock_keys(found.iter().map(|found| (found.db, &*found.key)), exclusive);
                found.clear();
                self.scratch.keys = found;
                locked
            }
        }
    }

    fn lock_keys<'k>(&mut self, keys: impl Iterator<Item = (usize, &'k [u8])> + Clone, exclusive: bool) -> bool {
        loop {
            match self.tx.lock(keys.clone(), exclusive) {
                Locked::Yes => return true,
                Locked::Busy => return false,
                Locked::CommitFirst => self.commit(),
            }
        }
    }

    /// Commits the open group. When that fails its replies become the error.
    fn commit(&mut self) {
        let (wrote, awaited) = (self.tx.pending(), self.tx.take_awaited());
        let committed = self.tx.commit();
        if wrote {
            let passed = self.clock.lap();
            self.calls.add(passed);
            self.calls.last_write = self.calls.last_write.map(|own| own + passed);
            self.calls.unnoted = self.calls.unnoted.map(|(index, own)| (index, own + passed));
            for (slot, index) in self.tx.committed() {
                self.client.written.note((slot.db(), slot.number()), index);
            }
        }
        let after = std::mem::take(&mut self.after);
        if committed.is_ok() {
            after.into_iter().for_each(|after| self.server.after_commit(after));
        }
        if self.tx.found_expired() {
            let found = self.tx.take_expired();
            match self.retry {
                Retry::No => self.server.expire_found(found),
                // Deleting them makes keys ready, and serves who waits for these: not while a command is being served.
                _ => self.expired.extend(found),
            }
        }
        self.server.events.tracking.deliver();
        match committed {
            Ok(()) if wrote && self.server.config.sync() == SyncMode::Always => self.awaits_sync = true,
            Ok(()) => {}
            Err(error) => self.fail_from(self.open, error),
        }
        if !self.awaits_sync {
            self.scratch.marks.clear();
        }
        self.open = self.scratch.marks.len();
        match self.retry {
            Retry::No if awaited => self.server.events.blocked.serve(self.server),
            // It is run by somebody who goes on to serve others.
            _ => self.woke |= awaited,
        }
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
        if let Some(multi) = &mut self.client.multi {
            multi.refuse();
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
        is_slow(self.server, passed)
    }

    fn log_slow(&self, command: &Command, args: &[Bytes], passed: Duration) {
        log_slow(self.server, self.client, self.clock.now(), command, args, passed);
    }
}

fn is_slow(server: &Server, passed: Duration) -> bool {
    u64::try_from(server.config.slowlog_log_slower_than()).is_ok_and(|threshold| passed.as_micros() as u64 >= threshold)
}

/// Enters a command into the slow log; `now` in unix ms.
fn log_slow(server: &Server, client: &Client, now: u64, command: &Command, args: &[Bytes], passed: Duration) {
    if !command.spec.flags.has(Flags::SKIP_SLOWLOG) {
        server.slowlog.record(server.config.slowlog_max_len(), now / 1000, passed, args, client.info());
    }
}

/// Bytes of replies beyond which the client is closed; they are not even made.
fn hard_limit(limits: &OutputLimits, client: &Client) -> usize {
    match output::class_limit(limits, client.info()).hard {
        hard @ 1.. if client.replies() == Replies::On => hard,
        _ => usize::MAX,
    }
}

/// Whether a command may do what no transaction takes back: such a one must not be repeated.
pub(super) fn acts_at_once(spec: &Spec) -> bool {
    spec.keys.is_none() && !spec.flags.has(Flags::FAST)
}

/// Whether what a command answers may be gone afterwards, so that its reply is made whatever its size.
pub(super) fn loses_data_with_reply(spec: &Spec) -> bool {
    spec.flags.has(Flags::WRITE) || runs_scripts(spec) && !spec.flags.has(Flags::READONLY)
}

/// Whether a command waits for somebody who may wait for keys: then it must hold none.
pub(super) fn releases_keys(spec: &Spec, args: &[Bytes]) -> bool {
    spec.flags.has(Flags::RELEASES_KEYS) && (spec.name != "debug" || debug::locks_keys(args))
}

fn is_exec(spec: &Spec) -> bool {
    spec.name == "exec"
}

/// Makes an error the reply, in the place of what was written from `start` on, and counts it.
pub(super) fn reply_error(server: &Server, reply: &mut Reply, start: usize, error: &CommandError) {
    if let CommandError::Replied { counted } = error {
        if !counted {
            let line = reply.as_slice().get(start + 1..).unwrap_or_default();
            let line = line.split(|byte| *byte == b'\r').next().unwrap_or_default();
            server.stats.errors.count(&String::from_utf8_lossy(line), 1);
        }
        return;
    }
    let text = error.to_string();
    reply.truncate(start);
    reply.error(&text);
    server.stats.errors.count(&text, 1);
}

/// What a command is told that waits in vain for the keys of a script.
fn busy(server: &Server) -> CommandError {
    server.scripts.busy().map_or(CommandError::Busy, |kind| CommandError::Static(kind.busy_error()))
}

/// What a request may do: for scripts that say so, what they declare.
pub(super) fn flags_of(server: &Server, spec: &Spec, args: &[Bytes]) -> Flags {
    let runs_script = spec.group == Group::Scripting && !spec.keys.is_none();
    if runs_script { scripting::flags(server, spec, args) } else { spec.flags }
}

/// Whether a request may be executed, or queued, for this client at this time.
pub(super) fn check(server: &Server, client: &Client, command: &Command, args: &[Bytes]) -> Result<(), CommandError> {
    let spec = command.spec;
    if !spec.arity_fits(args.len()) {
        return Err(CommandError::Arity(command.full_name.clone()));
    }
    let open = client.authenticated() || spec.flags.has(Flags::NO_AUTH);
    if !open && !server.config.requirepass().is_empty() {
        return Err(CommandError::Static("NOAUTH Authentication required."));
    }
    if client.subscriptions.any() && client.info().proto() == 2 && !spec.flags.has(Flags::SUBSCRIBED) {
        return Err(CommandError::Text(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            command.full_name
        )));
    }
    if client.monitors() && (spec.flags.has(Flags::WRITE) || spec.flags.has(Flags::READONLY)) {
        return Err(CommandError::Static("ERR Replica can't interact with the keyspace"));
    }
    if !may_write(server, client.db(), spec, args) {
        return Err(CommandError::Static(READONLY));
    }
    admission::refusal(server, flags_of(server, spec, args)).map_or(Ok(()), Err)
}

/// Whether the command, given in this database, does not write, or this node takes its writes from clients.
pub(super) fn may_write(server: &Server, db: usize, spec: &Spec, args: &[Bytes]) -> bool {
    !server.replication.is_slave()
        || !flags_of(server, spec, args).has(Flags::WRITE)
        || may_write_apart(server, db, spec, args)
}

/// Whether a replica may run this write: with `slave-read-only : no`, and if all its keys are in databases that were
/// taken out of replication. The log of the others is the master's, and no client's to write.
fn may_write_apart(server: &Server, db: usize, spec: &Spec, args: &[Bytes]) -> bool {
    if server.config.slave_read_only() {
        return false;
    }
    let mut keys = Vec::new();
    spec.keys.collect(db, args, &mut keys);
    !keys.is_empty() && keys.iter().all(|key| server.replication.is_detached(server.keyspace.db(key.db).index()))
}

/// The keys of a request, and whether it takes them exclusively.
pub(super) fn keys_of(
    server: &Server,
    command: &Command,
    db: usize,
    args: &[Bytes],
) -> impl Iterator<Item = (KeyRef, bool)> {
    let flags = flags_of(server, command.spec, args);
    let exclusive = flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE) && !flags.has(Flags::READONLY);
    let mut found = Vec::new();
    command.spec.keys.collect(db, args, &mut found);
    // A database that is not there is the handler's to refuse.
    let databases = server.keyspace.databases();
    found.into_iter().filter(move |key| key.db < databases).map(move |key| (key, exclusive))
}

/// Runs a command inside of another one, EXEC or a script, in its transaction. [`check`] is the caller's. An error is the caller's to
/// reply with, unless it is a [`Suspend`], which ends the outer command.
pub(super) fn call_within(
    ctx: &mut Ctx<'_, '_>,
    within: Within,
    command: &Command,
    args: &[Bytes],
) -> Result<(), CommandError> {
    let db = ctx.client.db();
    let committed = if releases_keys(command.spec, args) {
        ctx.tx.commit_and_release()
    } else if ctx.tx.resume() == Locked::Busy {
        return Err(busy(ctx.server));
    } else {
        for (key, exclusive) in keys_of(ctx.server, command, db, args) {
            ctx.tx.ensure(&key.key, exclusive)?;
        }
        if command.spec.flags.has(Flags::ALL_KEYS) {
            ctx.tx.ensure_everything()?;
            ctx.tx.commit_so_far()
        } else {
            true
        }
    };
    if !committed {
        return Err(CommandError::Static("ERR what was written before could not be committed"));
    }
    let began = Instant::now();
    let outer = std::mem::replace(&mut ctx.within, within);
    let monitored = ctx.server.monitors.any();
    let by = if within == Within::Script { Monitored::Script } else { Monitored::Client(ctx.client.info().addr) };
    if monitored && runs_scripts(command.spec) {
        monitor(ctx.after, command, db, by, args);
    }
    remember(ctx.client, command, args, within);
    let result = (command.spec.handler)(ctx, args);
    if monitored && !runs_scripts(command.spec) && is_first_end(&result) {
        monitor(ctx.after, command, db, by, args);
    }
    if within == Within::Exec {
        remember_script(ctx.client, command, args);
    }
    ctx.within = outer;
    match &result {
        Err(CommandError::Suspend(_)) => return result,
        Err(_) => drop(command.stats.failed.fetch_add(1, Relaxed)),
        Ok(()) => {}
    }
    let passed = began.elapsed();
    command.stats.calls.fetch_add(1, Relaxed);
    command.stats.usec.fetch_add(passed.as_micros() as u64, Relaxed);
    if is_slow(ctx.server, passed) {
        log_slow(ctx.server, ctx.client, ctx.now, command, args, passed);
    }
    result
}

/// By whom a command is run, as MONITOR shows it.
#[derive(Clone, Copy)]
enum Monitored {
    Client(SocketAddr),
    Script,
}

fn monitor(after: &mut Vec<After>, command: &Command, db: usize, by: Monitored, args: &[Bytes]) {
    // What operators do is too dangerous to be shown.
    if command.spec.flags.has(Flags::ADMIN) {
        return;
    }
    after.push(After::Monitor(match by {
        Monitored::Client(addr) => Monitors::line(db, &addr, args),
        Monitored::Script => Monitors::line(db, &"lua", args),
    }));
}

/// Whether a command shows in MONITOR before those that it runs.
fn runs_scripts(spec: &Spec) -> bool {
    spec.group == Group::Scripting && spec.flags.has(Flags::PLANNED)
}

/// Whether a command has run to its end, or to the point where it waits.
fn is_first_end(result: &Result<(), CommandError>) -> bool {
    match result {
        Err(CommandError::Suspend(suspend)) => matches!(**suspend, Suspend::Until(_)),
        _ => true,
    }
}

/// Remembers what a command is about to read, or write, for a client that tracks it. Its keys are locked.
fn remember(client: &mut Client, command: &Command, args: &[Bytes], within: Within) {
    let spec = command.spec;
    let reads = spec.flags.has(Flags::READONLY) && spec.group != Group::Transactions && !runs_scripts(spec);
    if !client.tracked.is_on() || client.tracked.options.broadcast || !(reads || spec.flags.has(Flags::WRITE)) {
        return;
    }
    let by = if within == Within::Script { TrackedBy::Script } else { TrackedBy::Itself };
    let mut keys = Vec::new();
    spec.keys.collect(client.db(), args, &mut keys);
    let keys = keys.iter().map(|key| &key.key);
    if reads { client.tracked.read(by, keys) } else { client.tracked.writes(keys) }
}

/// What a script reads counts as reads of the keys that it declares.
fn remember_script(client: &mut Client, command: &Command, args: &[Bytes]) {
    if client.tracked.is_on() && client.tracked.take_script_read() {
        let mut keys = Vec::new();
        command.spec.keys.collect(client.db(), args, &mut keys);
        client.tracked.read(TrackedBy::Itself, keys.iter().map(|key| &key.key));
    }
}

/// Whether a request is of this command.
fn is_named(args: &[Bytes], name: &[u8]) -> bool {
    args.first().is_some_and(|arg| arg.eq_ignore_ascii_case(name))
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
