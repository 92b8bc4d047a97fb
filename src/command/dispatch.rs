//! Executing a pipeline: checks, key locks, handlers, counters. Hot path: GET and SET allocate nothing
//! here, take no lock but their key's, log nothing.
//!
//! The writes of a pipeline are committed together, and with those of others ([`super::turn`]).

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Command, CommandError, Ctx, Flags, Group, Keys, Lookup, Spec, Suspend, Within,
    blocking::{End, ROLE_CHANGED, Ran, Retried, Session, Wait},
    rules::{
        acts_at_once, check, flags_of, is_exec, is_http, is_named, keys_of, loses_data_with_reply, may_write,
        releases_keys, runs_scripts, unknown_command, unknown_subcommand,
    },
    turn::{Due, Party, Turn},
    witness::{Monitored, is_first_end, is_slow, log_slow, monitor, remember, remember_script},
};
use crate::{
    config::OutputLimits,
    keyspace::{LockPlan, Locked, RestsOn, while_waiting},
    net::{
        Client, Overrun, Replies, Reply, output,
        resp::{Limits, ProtocolError},
    },
    pubsub::{EventClass, PauseKind},
    server::Server,
};

/// Commands after which an open group is committed.
const MAX_GROUP_COMMANDS: usize = 256;
/// Keys that are held after which an open group is committed.
const MAX_GROUP_KEYS: usize = 1024;
/// Bytes of pending writes after which an open group is committed.
const MAX_GROUP_BYTES: usize = 1 << 20;
/// Bytes of arguments that a command may have which runs on the thread that read it: to copy and log more takes long.
const MAX_INLINE_BYTES: usize = 4 << 20;
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
    /// Runs this one again, in a turn of its own: it may have to wait for keys, and others wait for their replies.
    Later,
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

/// Commands of one connection, executed in order in the transaction of a turn.
pub struct Pipeline<'t, 'a> {
    server: &'a Server,
    turn: &'t mut Turn<'a>,
    own: Party<'t>,
    began: Instant,
    /// Bytes of reply that a command may make which keeps its data.
    max_reply: usize,
    /// What may wait for the client.
    output: OutputLimits,
    on_pool: bool,
    /// Whether the running command is told of later changes of what it reads.
    keeps_what_it_reads: bool,
    retry: Retry,
    /// Whether it has changed keys that others wait for, and left them to its caller.
    woke: bool,
    /// Keys that a retry found expired, and has left to its caller.
    expired: Vec<(usize, Bytes)>,
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

impl<'t, 'a> Pipeline<'t, 'a> {
    /// Begins a pipeline in a turn. To be ended by [`Pipeline::leave`].
    pub fn begin(turn: &'t mut Turn<'a>, session: &'t mut Session) -> Self {
        let server = turn.server;
        // What was done for others is not to be counted as this one's.
        turn.clock.lap();
        let mut own = Party::of(session);
        own.begin();
        own.reply.set_limit(usize::MAX);
        let output = server.config.client_output_buffer_limit();
        own.reply.set_hard_limit(hard_limit(&output, own.client));
        turn.tx.set_by(own.client.id());
        Pipeline {
            server,
            began: turn.clock.last(),
            turn,
            own,
            max_reply: server.config.max_reply_size(),
            output,
            on_pool: false,
            keeps_what_it_reads: false,
            retry: Retry::No,
            woke: false,
            expired: Vec::new(),
        }
    }

    /// Bytes of replies so far.
    pub fn reply_len(&self) -> usize {
        self.own.reply.len()
    }

    /// What the next request may be at most.
    pub fn limits(&self) -> Limits {
        Limits { max_bulk: self.server.config.proto_max_bulk_len() as u64, before_auth: self.must_authenticate() }
    }

    fn must_authenticate(&self) -> bool {
        !self.own.client.authenticated() && !self.server.config.requirepass().is_empty()
    }

    /// Executes one request.
    pub fn run(&mut self, args: &[Bytes]) -> Outcome {
        if self.server.events.tracking.is_active() {
            self.server.events.tracking.limit();
            self.take_outbox();
        }
        self.own.scratch.start = self.own.reply.len();
        // Its class, and whether it wants replies, may have changed with the command before.
        self.own.reply.set_hard_limit(hard_limit(&self.output, self.own.client));
        let outcome = self.run_checked(args);
        if matches!(outcome, Outcome::Next | Outcome::Close) {
            self.end_request(args);
        }
        self.limit_output(outcome)
    }

    /// Whether the client may go on after a command, with the replies that now wait for it.
    fn limit_output(&mut self, outcome: Outcome) -> Outcome {
        if hard_limit(&self.output, self.own.client) == usize::MAX || self.own.client.replies() != Replies::On {
            return outcome;
        }
        let info = self.own.client.info();
        if self.own.reply.is_over_hard_limit() {
            info.overrun(Overrun::Output, self.own.reply.len());
        } else {
            output::enforce(&self.output, info, self.own.reply.len());
        }
        if info.overran().is_some() { Outcome::Abort } else { outcome }
    }

    /// How long the pipeline has been running, as of its last command.
    pub fn age(&self) -> Duration {
        self.turn.clock.last() - self.began
    }

    /// The request is done.
    fn end_request(&mut self, args: &[Bytes]) {
        if !self.own.client.wants_reply() {
            self.silence(self.own.scratch.start, args);
        }
        if self.own.client.tracked.caching && self.own.client.multi.is_none() && !is_named(args, b"client") {
            self.own.client.tracked.caching = false;
        }
        self.take_outbox();
    }

    /// Puts what was sent to the client behind its replies so far.
    fn take_outbox(&mut self) {
        if self.own.client.info().has_outbox()
            && let Some(sent) = self.own.client.info().take_outbox()
        {
            self.own.reply.raw(&sent);
        }
    }

    /// Takes back the reply of a request, as asked for by CLIENT REPLY.
    fn silence(&mut self, start: usize, args: &[Bytes]) {
        // Answers to these are messages.
        let pushes: &[&[u8]] =
            &[b"subscribe", b"unsubscribe", b"psubscribe", b"punsubscribe", b"ssubscribe", b"sunsubscribe"];
        if !pushes.iter().any(|name| is_named(args, name)) {
            self.own.reply.truncate(start);
            self.own.forget_marks(start);
        }
    }

    fn run_checked(&mut self, args: &[Bytes]) -> Outcome {
        let server = self.server;
        let command = match server.commands.lookup(args) {
            Lookup::Found(command) => command,
            Lookup::UnknownCommand if is_http(args) => {
                tracing::warn!(client = %self.own.client.info().addr, "closed a connection that speaks HTTP: somebody may be trying to reach this server through a web browser");
                return Outcome::Close;
            }
            Lookup::UnknownCommand => return self.refuse(None, &unknown_command(args)),
            Lookup::UnknownSubcommand(container) => {
                return self.refuse(None, &unknown_subcommand(container, args));
            }
        };
        let spec = command.spec;
        if let Err(error) = check(server, self.own.client, command, args) {
            return self.refuse(Some(command), &error);
        }
        if self.is_held(command, args) {
            self.commit();
            return Outcome::Held;
        }
        if !spec.flags.has(Flags::IN_MULTI)
            && let Some(multi) = &mut self.own.client.multi
        {
            if spec.flags.has(Flags::NO_MULTI) {
                let error = CommandError::Static("ERR Command not allowed inside a transaction");
                return self.refuse(Some(command), &error);
            }
            multi.push(command.index, args);
            self.own.client.show_transaction();
            self.own.reply.simple("QUEUED");
            return Outcome::Next;
        }
        if self.is_for_pool(spec, args) {
            self.commit();
            return Outcome::Pool(PoolCall(command.index));
        }
        match self.execute(command, args) {
            Outcome::Next if self.own.client.is_closing() => Outcome::Close,
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
                self.own.client.multi.iter().flat_map(super::Multi::queue).any(|queued| {
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
            || (is_exec(spec) && self.own.client.multi.as_ref().is_some_and(queued))
    }

    /// Runs a command that [`Pipeline::run`] put off to the blocking pool. True when it has to wait after all.
    pub fn run_alone(&mut self, call: PoolCall, args: &[Bytes]) -> Outcome {
        self.on_pool = true;
        self.own.scratch.start = self.own.reply.len();
        let outcome = match self.server.commands.get(call.0) {
            Some(command) => self.execute(command, args),
            None => Outcome::Next,
        };
        if matches!(outcome, Outcome::Next | Outcome::Close) {
            self.end_request(args);
        }
        self.limit_output(outcome)
    }

    /// Runs a waiting command again, by whatever thread. What it wrote is committed when this returns; what is not durable
    /// yet is left in the session. Nobody else is served meanwhile: that is left to the caller, who may be the one who serves.
    pub fn retry(server: &Server, session: &mut Session, args: &[Bytes]) -> Retried {
        // What its command sends to the client itself must not overtake the reply.
        let info = session.client.info().clone();
        info.hold_outbox(true);
        let mut turn = Turn::begin(server);
        let mut pipeline = Pipeline::begin(&mut turn, session);
        pipeline.own.scratch.start = pipeline.own.reply.len();
        pipeline.retry = Retry::Yes;
        if let Lookup::Found(command) = server.commands.lookup(args) {
            // What else is checked was when it began to wait.
            if may_write(server, pipeline.own.client.db(), command.spec, args) {
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
            pipeline.end_request(args);
            pipeline.limit_output(Outcome::Next);
        }
        let (woke, expired) = (pipeline.woke, std::mem::take(&mut pipeline.expired));
        pipeline.leave(args);
        let undurable = turn.take_undurable();
        turn.end(session);
        session.undurable = undurable;
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
            if self.turn.keeps_others() {
                return Outcome::Later;
            }
            return self.execute_planned(command, args);
        }
        let keyed = !command.spec.keys.is_none();
        if !keyed && !command.spec.flags.has(Flags::FAST) {
            self.commit();
        }
        if keyed {
            match self.lock(command, args) {
                Ok(Locked::Yes) => {}
                Ok(Locked::CommitFirst) => return Outcome::Later,
                Ok(Locked::Busy) => return self.busy(command),
                Err(error) => return self.refuse(Some(command), &error),
            }
        } else {
            self.turn.tx.begin_without_keys();
        }
        // A wait for the locks must not make the command live in the past.
        let waited = if keyed { self.turn.clock.lap() } else { Duration::ZERO };
        let result = self.call(command, args, waited);
        let outcome = self.conclude(command, args, result);
        if !self.turn.tx.pending() && (!self.turn.after.is_empty() || self.turn.tx.found_expired()) {
            self.commit();
        }
        let (bytes, commands) = self.turn.tx.size();
        let full = bytes >= MAX_GROUP_BYTES || commands >= MAX_GROUP_COMMANDS || self.turn.tx.held() >= MAX_GROUP_KEYS;
        let full = self.turn.tx.pending() && (full || self.turn.tx.has_failed());
        // Who waits for what was written is served before the next command runs.
        if full || self.turn.tx.is_awaited() {
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
            if self.turn.tx.lock_plan(&mut plan) == Locked::Busy {
                return self.busy(command);
            }
            let waited = self.turn.clock.lap();
            let (db, multi) = (self.own.client.db(), self.own.client.multi.clone());
            let result = self.call(command, args, waited);
            if let Err(CommandError::Suspend(suspend)) = &result
                && !matches!(**suspend, Suspend::Until(_))
            {
                // Nothing has happened: whoever takes it up finds what it began with.
                self.turn.tx.abort();
                self.turn.after.clear();
                self.turn.resting.clear();
                self.own.client.select(db);
                self.own.client.multi = multi;
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
        if self.retry == Retry::No || self.own.client.denies_blocking() {
            return self.refuse(Some(command), &busy(self.server));
        }
        self.retry = Retry::Busy;
        Outcome::Next
    }

    /// What a planned command is known to need.
    fn plan(&self, command: &Command, args: &[Bytes]) -> LockPlan {
        let mut plan = LockPlan::default();
        let db = self.own.client.db();
        for (key, exclusive) in keys_of(self.server, command, db, args) {
            plan.add(&self.server.keyspace, &key.key, exclusive);
        }
        if is_exec(command.spec)
            && let Some(multi) = &self.own.client.multi
        {
            multi.plan(self.server, db, &mut plan);
            for (_, key) in self.own.client.watched.keys() {
                plan.add(&self.server.keyspace, key, false);
            }
        }
        plan
    }

    /// Runs the handler of a command whose keys are locked. An error is in the reply, unless the command is suspended.
    fn call(&mut self, command: &'a Command, args: &[Bytes], waited: Duration) -> Result<(), CommandError> {
        self.own.scratch.calls.count_from(self.server, self.turn.clock.now(), command.index);
        self.own.client.begin_command(command.index);
        let (start, events) = (self.own.reply.len(), self.turn.after.len());
        if !loses_data_with_reply(command.spec) {
            self.own.reply.set_limit(start.saturating_add(self.max_reply));
        }
        let by = Monitored::Client(self.own.client.info().addr);
        let watched = self.server.monitors.any() && self.retry == Retry::No;
        if watched && runs_scripts(command.spec) {
            monitor(&mut self.turn.after, command, self.own.client.db(), by, args);
        }
        let (db, spec) = (self.own.client.db(), command.spec);
        remember(self.own.client, command, args, Within::Nothing);
        let mut ctx = Ctx {
            server: self.server,
            client: &mut *self.own.client,
            reply: &mut *self.own.reply,
            tx: &mut self.turn.tx,
            after: &mut self.turn.after,
            now: self.turn.clock.now(),
            within: Within::Nothing,
            on_pool: self.on_pool,
            waited: self.retry != Retry::No,
        };
        let effects = ctx.tx.effects();
        let mut result = (command.spec.handler)(&mut ctx, args);
        if self.turn.tx.effects() != effects {
            self.own.scratch.wrote();
        }
        self.own.reply.set_limit(usize::MAX);
        if self.own.reply.take_overflow() && result.is_ok() {
            result = Err(REPLY_TOO_LARGE);
        }
        if watched && !runs_scripts(spec) && is_first_end(&result) {
            monitor(&mut self.turn.after, command, db, by, args);
        }
        remember_script(self.own.client, command, args);
        if let Err(error) = &result {
            if matches!(error, CommandError::Suspend(_)) {
                self.own.reply.truncate(start);
                // It counts when it comes to its end.
                self.turn.after.truncate(events);
                self.turn.resting.truncate(events);
                self.own.client.tally.commands -= 1;
                self.turn.clock.lap();
                return result;
            }
            reply_error(self.server, self.own.reply, start, error);
            command.stats.failed.fetch_add(1, Relaxed);
        }
        if spec.group == Group::Transactions {
            self.own.client.show_transaction();
        }
        // What a planned command has read is not known here; nobody else is in its group.
        let planned = spec.flags.has(Flags::PLANNED) && self.turn.tx.pending();
        let on = if planned { RestsOn::EVERYTHING } else { self.turn.tx.rests_on() };
        self.own.mark(start, on);
        self.turn.resting.resize(self.turn.after.len(), on);
        let passed = waited + self.turn.clock.lap();
        let wrote = command.spec.flags.has(Flags::WRITE);
        let now = self.turn.clock.now();
        self.own.scratch.calls.called(self.server, now, command.index, passed, wrote);
        if self.is_slow(passed) {
            self.own.scratch.calls.last_write = None;
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
                let entered = blocked.enter(self.own.client, command.spec, block, args);
                let wait = Wait::new(&self.server.events, entered);
                // Who looks for those that wait to write, because the node has become a replica, may have looked before it was entered.
                if !may_write(self.server, self.own.client.db(), command.spec, args) {
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

    /// Takes the keys that the request names. Commits the open group first when they cannot be had otherwise, and says so when others wait for
    /// their replies: to wait is not for this turn. [`Locked::Busy`] when a script that does not end holds them; an error when they are to be
    /// written and cannot be.
    fn lock(&mut self, command: &Command, args: &[Bytes]) -> Result<Locked, CommandError> {
        let exclusive = command.spec.flags.has(Flags::WRITE);
        let db = self.own.client.db();
        self.keeps_what_it_reads = !exclusive && (self.own.client.tracked.is_on() || command.spec.name == "watch");
        match command.spec.keys {
            Keys::None => Ok(Locked::Yes),
            Keys::Range { first, last, step } => {
                let positions = Keys::range(first, last, step, args.len());
                self.lock_keys(positions.filter_map(|at| args.get(at)).map(|key| (db, &**key)), exclusive)
            }
            Keys::Find(find) => {
                let mut found = std::mem::take(&mut self.own.scratch.keys);
                find(db, args, &mut found);
                // A database that is not there is the handler's to refuse.
                found.retain(|found| found.db < self.server.keyspace.databases());
                let locked = self.lock_keys(found.iter().map(|found| (found.db, &*found.key)), exclusive);
                found.clear();
                self.own.scratch.keys = found;
                locked
            }
        }
    }

    fn lock_keys<'k>(
        &mut self,
        keys: impl Iterator<Item = (usize, &'k [u8])> + Clone,
        exclusive: bool,
    ) -> Result<Locked, CommandError> {
        if exclusive {
            self.turn.tx.check_open(keys.clone())?;
        }
        loop {
            match self.turn.tx.lock(keys.clone(), exclusive) {
                // What it watches, or keeps, must not seem to change by what it has seen.
                Locked::Yes if self.keeps_what_it_reads && self.turn.tx.rests_on() != RestsOn::NOTHING => self.commit(),
                Locked::CommitFirst => {
                    self.commit();
                    if self.turn.keeps_others() {
                        return Ok(Locked::CommitFirst);
                    }
                }
                locked => return Ok(locked),
            }
        }
    }

    /// Commits the open group, also what others have a part in. When that fails its replies become the error.
    fn commit(&mut self) {
        let due = self.turn.commit(Some(&mut self.own));
        self.take(due);
    }

    fn take(&mut self, due: Due) {
        if self.retry == Retry::No {
            return due.serve(self.server);
        }
        // It is run by somebody who goes on to serve others. Deleting expired keys makes keys ready, and serves who waits for these.
        self.woke |= due.awaited;
        self.expired.extend(due.expired);
        self.server.events.tracking.deliver();
    }

    /// Ends the pipeline, whose last request had these arguments. Its session is to [join](Turn::join) the turn or to [end](Turn::end)
    /// it: before that what the pipeline wrote may not be committed, nor are its replies final.
    pub fn leave(mut self, args: &[Bytes]) {
        self.own.leave(args);
    }

    fn refuse(&mut self, command: Option<&Command>, error: &CommandError) -> Outcome {
        let start = self.own.reply.len();
        if let Some(command) = command {
            command.stats.rejected.fetch_add(1, Relaxed);
        }
        if let Some(multi) = &mut self.own.client.multi {
            multi.refuse();
        }
        self.error(&error.to_string());
        if !self.own.client.wants_reply() {
            self.own.reply.truncate(start);
        }
        Outcome::Next
    }

    fn error(&mut self, text: &str) {
        self.own.reply.error(text);
        self.server.stats.errors.count(text, 1);
    }

    fn is_slow(&self, passed: Duration) -> bool {
        is_slow(self.server, passed)
    }

    fn log_slow(&self, command: &Command, args: &[Bytes], passed: Duration) {
        log_slow(self.server, self.own.client, self.turn.clock.now(), command, args, passed);
    }
}

/// Bytes of replies beyond which the client is closed; they are not even made.
fn hard_limit(limits: &OutputLimits, client: &Client) -> usize {
    match output::class_limit(limits, client.info()).hard {
        hard @ 1.. if client.replies() == Replies::On => hard,
        _ => usize::MAX,
    }
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
