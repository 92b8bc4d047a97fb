//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! Commands are checked when they are queued; whether the server lets them run, also when they are executed. EXEC locks the keys of all of them, and those under WATCH, and runs them in one
//! transaction: readers see all of it or nothing, and so does a log, also after a crash and also when it spans slots. A command over
//! whole databases in the queue (FLUSHALL, DBSIZE …) commits what stands before it on its own; one that must hold no keys (REPLICAOF …)
//! also lets go of them, and what follows it is another transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;

use super::dispatch::{REPLY_TOO_LARGE, call_within, reply_error};
use super::rules::{READONLY, acts_at_once, flags_of, keys_of, loses_data_with_reply, may_write};
use super::{Command, CommandError, Ctx, Flags, Group, Keys, Spec, Within, admission};
use crate::events::KeyEvents;
use crate::keyspace::{Entry, LockPlan};
use crate::server::Server;

const CONTROL: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST).and(Flags::IN_MULTI);

const BASE: Spec = Spec {
    name: "",
    arity: 1,
    flags: CONTROL,
    keys: Keys::None,
    group: Group::Transactions,
    since: "1.2.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: multi,
    subcommands: &[],
};

/// The family's part of the command table.
pub static TRANSACTIONS: &[Spec] = &[
    Spec {
        name: "discard",
        since: "2.0.0",
        complexity: "O(N), N being the number of queued commands.",
        summary: "Drops the commands queued since MULTI.",
        handler: discard,
        ..BASE
    },
    Spec {
        name: "exec",
        flags: Flags::NOSCRIPT
            .and(Flags::LOADING)
            .and(Flags::STALE)
            .and(Flags::IN_MULTI)
            .and(Flags::PLANNED)
            .and(Flags::SKIP_SLOWLOG),
        complexity: "Depends on the queued commands.",
        summary: "Runs the commands queued since MULTI as one.",
        handler: exec,
        ..BASE
    },
    Spec { name: "multi", summary: "Queues the commands that follow for EXEC.", handler: multi, ..BASE },
    Spec {
        name: "unwatch",
        since: "2.2.0",
        flags: Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST),
        summary: "Forgets the keys under WATCH.",
        handler: unwatch,
        ..BASE
    },
    Spec {
        name: "watch",
        arity: -2,
        flags: CONTROL.and(Flags::READONLY),
        keys: Keys::ALL,
        since: "2.2.0",
        complexity: "O(N), N being the number of keys.",
        summary: "Lets EXEC run only if none of these keys is changed until then.",
        usage: "key [key ...]",
        handler: watch,
        ..BASE
    },
];

/// A queued command: its index in the table, and the request.
#[derive(Clone, Debug)]
pub struct Queued {
    pub command: u32,
    pub args: Vec<Bytes>,
}

/// The commands queued since MULTI.
#[derive(Clone, Debug, Default)]
pub struct Multi {
    queue: Arc<Vec<Queued>>,
    /// Bytes of their arguments.
    bytes: usize,
    /// Whether a command was refused.
    refused: bool,
}

impl Multi {
    /// Adds a command that passed its checks.
    pub fn push(&mut self, command: u32, args: &[Bytes]) {
        self.bytes += args.iter().map(Bytes::len).sum::<usize>();
        Arc::make_mut(&mut self.queue).push(Queued { command, args: args.to_vec() });
    }

    /// A command was refused: EXEC will be, too.
    pub fn refuse(&mut self) {
        self.refused = true;
    }

    /// The commands so far.
    pub fn queue(&self) -> &[Queued] {
        &self.queue
    }

    /// Bytes of the arguments of the commands so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its commands, each with its database and its request.
    fn requests<'m>(
        &'m self,
        server: &'m Server,
        mut db: usize,
    ) -> impl Iterator<Item = (usize, &'m Command, &'m [Bytes])> {
        self.queue.iter().filter_map(move |queued| {
            let command = server.commands.get(queued.command)?;
            if command.spec.name == "select"
                && let Some(Ok(chosen)) = queued.args.get(1).map(|arg| super::numbers::integer(arg))
            {
                db = usize::try_from(chosen).ok().filter(|db| *db < server.keyspace.databases()).unwrap_or(db);
            }
            Some((db, command, queued.args.as_slice()))
        })
    }

    /// Adds the keys of all its commands to a plan.
    pub fn plan(&self, server: &Server, db: usize, plan: &mut LockPlan) {
        let (mut acts, mut may_conflict) = (false, false);
        for (db, command, args) in self.requests(server, db) {
            if command.spec.flags.has(Flags::ALL_KEYS) {
                plan.add_everything();
            }
            acts |= acts_at_once(command.spec);
            may_conflict |= command.spec.flags.has(Flags::PLANNED) || command.spec.group == Group::Scripting;
            for (key, exclusive) in keys_of(server, command, db, args) {
                plan.add(&server.keyspace, &key.key, exclusive);
            }
        }
        // Then it must not meet a conflict, and so run twice.
        if acts && may_conflict {
            plan.add_everything();
        }
    }

    /// Why it must not be executed now, if one of its commands would be refused.
    fn refusal(&self, server: &Server, db: usize) -> Option<CommandError> {
        self.requests(server, db).find_map(|(db, command, args)| {
            if !may_write(server, db, command.spec, args) {
                return Some(CommandError::Static(READONLY));
            }
            admission::refusal(server, flags_of(server, command.spec, args))
        })
    }
}

/// MULTI
fn multi(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    if ctx.client.multi.is_some() {
        return Err(CommandError::Static("ERR MULTI calls can not be nested"));
    }
    ctx.client.multi = Some(Multi::default());
    ctx.reply.ok();
    Ok(())
}

/// DISCARD
fn discard(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.client.multi.take().ok_or(CommandError::Static("ERR DISCARD without MULTI"))?;
    ctx.client.watched.clear();
    ctx.reply.ok();
    Ok(())
}

/// EXEC
fn exec(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let multi = ctx.client.multi.take().ok_or(CommandError::Static("ERR EXEC without MULTI"))?;
    if let Some(refusal) = multi.refusal(ctx.server, ctx.client.db()) {
        ctx.client.watched.clear();
        return Err(CommandError::Text(format!("EXECABORT Transaction discarded because of: {refusal}")));
    }
    let refused = multi.refused;
    let touched = !refused && !ctx.client.watched.untouched(ctx.tx, ctx.now)?;
    if refused || touched {
        ctx.client.watched.clear();
        if refused {
            return Err(CommandError::Static("EXECABORT Transaction discarded because of previous errors."));
        }
        ctx.reply.null_array();
        return Ok(());
    }
    // Of the replies those are limited that can be asked for again.
    let mut limit = ctx.reply.limit();
    ctx.reply.set_limit(usize::MAX);
    ctx.reply.array(multi.queue.len());
    for queued in multi.queue.iter() {
        let Some(command) = ctx.server.commands.get(queued.command) else { continue };
        let start = ctx.reply.len();
        let limited = !loses_data_with_reply(command.spec);
        if limited {
            ctx.reply.set_limit(limit);
        }
        // A command before it may have made this node a replica.
        let mut result = if may_write(ctx.server, ctx.client.db(), command.spec, &queued.args) {
            call_within(ctx, Within::Exec, command, &queued.args)
        } else {
            Err(CommandError::Static(READONLY))
        };
        ctx.reply.set_limit(usize::MAX);
        if ctx.reply.take_overflow() && result.is_ok() {
            result = Err(REPLY_TOO_LARGE);
        }
        match result {
            Ok(()) => {}
            Err(suspend @ CommandError::Suspend(_)) => return Err(suspend),
            Err(error) => reply_error(ctx.server, ctx.reply, start, &error),
        }
        if !limited {
            limit = limit.saturating_add(ctx.reply.len().saturating_sub(start));
        }
        if ctx.tx.has_failed() {
            // The commit that follows puts its error in the place of the reply.
            break;
        }
    }
    ctx.client.watched.clear();
    Ok(())
}

/// WATCH key [key ...]
fn watch(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    if ctx.client.multi.is_some() {
        return Err(CommandError::Static("ERR WATCH inside MULTI is not allowed"));
    }
    let db = ctx.db();
    for key in &args[1..] {
        let live = ctx.tx.get(db, key, ctx.now)?.is_some();
        let client = ctx.client_id();
        ctx.client.watched.add(&ctx.server.events, client, db, key, live);
    }
    ctx.reply.ok();
    Ok(())
}

/// UNWATCH
fn unwatch(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.client.watched.clear();
    ctx.reply.ok();
    Ok(())
}

/// A key that a client watches.
struct WatchedKey {
    db: usize,
    key: Bytes,
    /// Whether it was live when WATCH was given.
    live: bool,
    /// Set when its database is emptied or becomes another one.
    replaced: Arc<AtomicBool>,
}

/// The keys that a client watches.
#[derive(Default)]
pub struct Watched {
    /// Where they are entered, if there are any.
    events: Option<Arc<KeyEvents>>,
    client: u64,
    keys: Vec<WatchedKey>,
    /// Set when one of them is changed.
    touched: Arc<AtomicBool>,
}

impl Watched {
    /// The keys, with their databases.
    pub fn keys(&self) -> impl Iterator<Item = (usize, &Bytes)> {
        self.keys.iter().map(|watched| (watched.db, &watched.key))
    }

    fn add(&mut self, events: &Arc<KeyEvents>, client: u64, db: usize, key: &Bytes, live: bool) {
        if !self.keys.iter().any(|known| known.db == db && known.key == key) {
            let replaced = Arc::default();
            self.client = client;
            let watcher = Watcher { client, live, touched: self.touched.clone(), replaced: Arc::clone(&replaced) };
            events.watch.add(db, key, watcher);
            self.keys.push(WatchedKey { db, key: key.clone(), live, replaced });
            self.events.get_or_insert_with(|| events.clone());
        }
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        if let Some(events) = self.events.take() {
            self.keys.drain(..).for_each(|watched| events.watch.remove(self.client, watched.db, &watched.key));
            self.touched = Arc::default();
        }
    }

    /// Whether none of the keys, which are locked, was changed, and none has expired.
    fn untouched(&self, tx: &mut crate::keyspace::Transaction<'_>, now: u64) -> Result<bool, CommandError> {
        if self.touched.load(Relaxed) {
            return Ok(false);
        }
        for watched in &self.keys {
            let lives = tx.get(watched.db, &watched.key, now)?.is_some();
            // Of a database that was replaced, a key is the same only if it was in neither.
            let changed = if watched.replaced.load(Relaxed) { watched.live || lives } else { watched.live && !lives };
            if changed {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Who watches which key.
#[derive(Default)]
pub struct WatchTable {
    watchers: Mutex<HashMap<(usize, Bytes), Vec<Watcher>>>,
    keys: AtomicUsize,
}

struct Watcher {
    client: u64,
    /// Whether the key was live when WATCH was given.
    live: bool,
    /// Of the client.
    touched: Arc<AtomicBool>,
    /// Of the key.
    replaced: Arc<AtomicBool>,
}

impl WatchTable {
    fn add(&self, db: usize, key: &Bytes, watcher: Watcher) {
        let mut watchers = self.watchers.lock();
        // A copy: the bytes at hand may be a small part of a large buffer.
        let key = (db, Bytes::copy_from_slice(key));
        watchers.entry(key).or_default().push(watcher);
        self.keys.store(watchers.len(), Relaxed);
    }

    fn remove(&self, client: u64, db: usize, key: &Bytes) {
        let mut watchers = self.watchers.lock();
        let id = (db, key.clone());
        if let Some(of_key) = watchers.get_mut(&id) {
            of_key.retain(|watcher| watcher.client != client);
            if of_key.is_empty() {
                watchers.remove(&id);
            }
        }
        self.keys.store(watchers.len(), Relaxed);
    }

    /// Keys that somebody watches.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// A key has changed; its stripe is held.
    pub fn changed(&self, db: usize, key: &Bytes, entry: Option<&Entry>) {
        if self.keys() > 0
            && let Some(watchers) = self.watchers.lock().get(&(db, key.clone()))
        {
            // That a key goes which had expired before it was watched is no change.
            let concerned = watchers.iter().filter(|watcher| watcher.live || entry.is_some());
            concerned.for_each(|watcher| watcher.touched.store(true, Relaxed));
        }
    }

    /// A database was replaced.
    pub fn replaced(&self, db: usize) {
        let watchers = self.watchers.lock();
        let of_db = watchers.iter().filter(|((of, _), _)| *of == db);
        of_db.flat_map(|(_, watchers)| watchers).for_each(|watcher| watcher.replaced.store(true, Relaxed));
    }
}
