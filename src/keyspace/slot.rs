//! A slot: its store, its commit path, and what others may see of its log. Hot path: no allocation
//! and no system call beyond the one log write.
//!
//! The invariants of the data path, all kept here:
//!
//! 1. Log before engine: a group of records is appended to the binlog, then written to the engine with the position it
//!    ends at, both under the commit lock. The engine never holds what the log does not.
//! 2. One record, once: the engine's position and its data change in one batch, so replay starts exactly where
//!    the engine ends.
//! 3. Nobody reads ahead: the log's end is published to replicas after the engine holds it.
//! 4. When the engine fails after the log succeeded, the slot takes no more writes: log and engine are made equal by the
//!    next recovery, not by guessing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::Error;
use super::cache::{CacheId, EntryCache};
use super::effect::Effect;
use super::store::{Current, Layout, move_dir};
use crate::binlog::{Draft, Participant, Position, SyncHandle, Writer};
use crate::engine::{self, Applied, Batch, Engine, Entry};

/// What all slots of a server share.
pub struct SlotEnv {
    pub engine: Arc<engine::Shared>,
    /// The node's term: that of the records it writes as a master.
    pub term: AtomicU32,
    /// Bytes; a binlog file that would grow beyond is followed by a new one. Changes with CONFIG SET.
    pub binlog_file_size: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether every write waits for stable storage. Asked each time.
    pub sync_always: Box<dyn Fn() -> bool + Send + Sync>,
    /// Bytes of log a slot may have that its engine has not flushed.
    pub flush_threshold: u64,
    /// Tells the flusher that a slot has more than that.
    pub flush_requests: crossbeam_channel::Sender<(usize, usize)>,
    /// Bytes of unflushed log over all slots.
    pub unflushed_total: AtomicU64,
    pub(super) cache: EntryCache,
    /// Time of the newest record in any log, ms.
    pub(super) newest_record: AtomicU64,
    pub(super) clock_warned: AtomicBool,
    /// Replaced engines that are not closed yet.
    pub(super) retiring: AtomicUsize,
    /// All slots, once they are there.
    pub(super) slots: OnceLock<Vec<Weak<Slot>>>,
}

impl SlotEnv {
    /// Makes all that is in the logs durable. A slot whose log cannot be synced says so and takes no more writes.
    pub(super) fn sync_logs(&self) {
        let slots = self.slots.get().into_iter().flatten();
        slots.filter_map(Weak::upgrade).for_each(|slot| drop(slot.sync_all()));
    }
}

/// An open slot's generations.
#[derive(Debug)]
pub struct Store {
    pub engine: Arc<Engine>,
    pub(super) current: Current,
    log_dir: PathBuf,
}

impl Store {
    /// Whether anybody else holds it. Only of use once no slot has it any more.
    fn has_readers(self: &Arc<Store>) -> bool {
        Arc::strong_count(self) > 1 || Arc::strong_count(&self.engine) > 1
    }

    /// The folder of the binlog.
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }
}

/// The end of a slot's log as replicas may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub position: Position,
    /// Changes when the log is replaced as a whole: positions of another generation mean nothing.
    pub generation: u64,
}

/// Writes to one slot that are committed together.
#[derive(Default)]
pub struct SlotWrite {
    pub(super) drafts: Vec<Draft>,
    pub(super) batch: Batch,
}

impl SlotWrite {
    fn bytes(&self) -> u64 {
        self.drafts.iter().map(|d| d.encoded_len() as u64).sum()
    }

    fn last_time(&self) -> u64 {
        self.drafts.iter().map(|d| d.time).max().unwrap_or(0)
    }
}

/// A write that waits for the thread that holds the commit lock.
struct Waiting {
    write: Mutex<Option<SlotWrite>>,
    result: Mutex<Option<Result<Position, Error>>>,
}

/// What the commit lock protects.
pub(super) struct Committer {
    writer: Option<Writer>,
    /// Time of the newest record, ms.
    time: u64,
}

/// One slot of a database.
pub struct Slot {
    db: usize,
    number: usize,
    env: Arc<SlotEnv>,
    layout: Layout,
    /// `None` until the first write: such a slot has no file open and no folder.
    store: ArcSwapOption<Store>,
    /// Under which the slot's entries are cached.
    cache_id: CacheId,
    commit: Mutex<Committer>,
    /// Of the committer's writer; changes with it.
    sync: ArcSwapOption<SyncHandle>,
    queue: Mutex<Vec<Arc<Waiting>>>,
    published: watch::Sender<Published>,
    /// Why the slot takes no writes.
    fault: ArcSwapOption<String>,
    /// Bytes logged since the last flush began.
    unflushed: AtomicU64,
    /// Serializes flushes, checkpoints and swaps of the engine. Taken before key locks and commit locks, never while one is held.
    pub(super) maintenance: Mutex<()>,
    /// The first file the engine would need to be replayed from.
    flushed_filenum: AtomicU32,
    pub(super) pins: super::purge::Pins,
    pub(super) counts: super::scan::CountCache,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "db{}:{}", self.db, self.number)
    }
}

impl Slot {
    pub(super) fn new(db: usize, number: usize, env: Arc<SlotEnv>, layout: Layout) -> Slot {
        let start = Published { position: Position::START, generation: 0 };
        Slot {
            db,
            number,
            cache_id: env.cache.new_id(),
            env,
            layout,
            store: ArcSwapOption::empty(),
            commit: Mutex::new(Committer { writer: None, time: 0 }),
            sync: ArcSwapOption::empty(),
            queue: Mutex::default(),
            published: watch::Sender::new(start),
            fault: ArcSwapOption::empty(),
            unflushed: AtomicU64::new(0),
            maintenance: Mutex::default(),
            flushed_filenum: AtomicU32::new(0),
            pins: super::purge::Pins::default(),
            counts: super::scan::CountCache::default(),
        }
    }

    /// Index of the database.
    pub fn db(&self) -> usize {
        self.db
    }

    /// The slot's number in its database.
    pub fn number(&self) -> usize {
        self.number
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn env(&self) -> &SlotEnv {
        &self.env
    }

    /// The open store; `None` for a slot that was never written.
    pub fn store(&self) -> Guard<Option<Arc<Store>>> {
        self.store.load()
    }

    /// The log's end.
    pub fn position(&self) -> Position {
        self.published.borrow().position
    }

    /// The log's end and generation, and a way to wait for the next.
    pub fn subscribe(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// The log's end and generation.
    pub fn published(&self) -> Published {
        *self.published.borrow()
    }

    /// Why the slot takes no writes, if it does not.
    pub fn fault(&self) -> Option<Arc<String>> {
        self.fault.load_full()
    }

    /// The number of the first binlog file that recovery would need.
    pub fn flushed_filenum(&self) -> u32 {
        self.flushed_filenum.load(Ordering::Acquire)
    }

    /// Bytes of log that the engine has not flushed.
    pub fn unflushed(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// The entry of a key, expired or not. The key's stripe must be held.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        if let Some(known) = self.env.cache.get(&self.cache_id, key) {
            return Ok(known);
        }
        let entry = self.get_from_engine(key)?;
        self.env.cache.fill(&self.cache_id, key, entry.as_ref());
        Ok(entry)
    }

    /// [`Slot::get`] past the cache: for recovery, which holds no stripes.
    pub(super) fn get_from_engine(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        match &*self.store.load() {
            Some(store) => Ok(store.engine.get(key)?),
            None => Ok(None),
        }
    }

    /// The engine holds a new entry of the key, whose stripe is held exclusively.
    pub(super) fn changed(&self, key: &[u8], entry: Option<&Entry>) {
        self.env.cache.changed(&self.cache_id, key, entry);
    }

    /// The engine may or may not hold a new entry of the key, whose stripe is held exclusively.
    pub(super) fn uncertain(&self, key: &[u8]) {
        self.env.cache.forget(&self.cache_id, key);
    }

    /// The store, created now if this is the slot's first write.
    pub(super) fn store_for_writing(&self) -> Result<Arc<Store>, Error> {
        match self.store.load_full() {
            Some(store) => Ok(store),
            None => Ok(self.writable(&mut self.commit.lock())?.0),
        }
    }

    /// Returns when the record with `index` is on stable storage. Blocks.
    pub fn sync_to(&self, index: u64) -> Result<(), Error> {
        let Some(sync) = self.sync.load_full() else { return Ok(()) };
        // After a failed sync nobody knows which pages the kernel has dropped: trust nothing written since.
        sync.sync(index).map_err(|e| self.close_for_writes(format!("fdatasync of the binlog failed: {e}")))
    }

    /// [`Slot::sync_to`] the end of what has been appended.
    pub(super) fn sync_all(&self) -> Result<(), Error> {
        match self.sync.load_full() {
            Some(sync) if sync.is_dirty() => self.sync_to(sync.appended_index()),
            _ => Ok(()),
        }
    }

    /// Makes the engine durable up to where it is now, and so shortens recovery. First the logs of all slots: a part of a write
    /// over several slots must not be in an engine on disk while another part could still be lost with its log.
    pub(super) fn flush(&self) -> Result<(), Error> {
        let _maintenance = self.maintenance.lock();
        self.flush_in_maintenance()
    }

    fn flush_in_maintenance(&self) -> Result<(), Error> {
        let Some(store) = self.store.load_full() else { return Ok(()) };
        // Most of the work, while commits go on.
        self.env.sync_logs();
        let (applied, bytes) = {
            // Nothing is committed to this slot now: what the memtables hold is in logs that are synced next.
            let _commit = self.commit.lock();
            self.env.sync_logs();
            (store.engine.begin_flush()?, self.unflushed())
        };
        store.engine.finish_flush(applied)?;
        self.engine_flushed_to(applied.position, bytes);
        Ok(())
    }

    /// Puts a copy of the engine as it is on disk, by hard links, into the new folder `dir`, and returns what it contains: all
    /// that was committed before the call. `None` for a slot that was never written.
    pub fn checkpoint(&self, dir: &Path) -> Result<Option<Applied>, Error> {
        let _maintenance = self.maintenance.lock();
        let Some(store) = self.store.load_full() else { return Ok(None) };
        self.flush_in_maintenance()?;
        store.engine.checkpoint(dir)?;
        Ok(Some(Engine::applied_in(dir)?))
    }

    /// Commits a group that concerns this slot alone; joins the groups of threads that wait at the same time. Handed to the
    /// operating system and visible to readers when it returns.
    pub(super) fn commit(&self, write: SlotWrite) -> Result<Position, Error> {
        if let Some(mut committer) = self.commit.try_lock() {
            let joined = std::mem::take(&mut *self.queue.lock());
            return self.commit_group(&mut committer, write, &joined);
        }
        let waiting = Arc::new(Waiting { write: Mutex::new(Some(write)), result: Mutex::new(None) });
        self.queue.lock().push(waiting.clone());
        let mut committer = self.commit.lock();
        if let Some(result) = waiting.result.lock().take() {
            return result;
        }
        let mut joined = std::mem::take(&mut *self.queue.lock());
        joined.retain(|w| !Arc::ptr_eq(w, &waiting));
        let Some(own) = waiting.write.lock().take() else {
            // Whoever took it did not come back.
            return Err(self.close_for_writes("a commit was begun and not finished"));
        };
        self.commit_group(&mut committer, own, &joined)
    }

    fn commit_group(&self, c: &mut Committer, own: SlotWrite, joined: &[Arc<Waiting>]) -> Result<Position, Error> {
        if joined.is_empty() {
            return self.commit_writes(c, vec![own]);
        }
        let mut writes: Vec<SlotWrite> = joined.iter().filter_map(|w| w.write.lock().take()).collect();
        writes.push(own);
        let result = self.commit_writes(c, writes);
        for waiting in joined {
            *waiting.result.lock() = Some(result.clone());
        }
        result
    }

    fn commit_writes(&self, c: &mut Committer, mut writes: Vec<SlotWrite>) -> Result<Position, Error> {
        let (_, writer) = self.writable(c)?;
        let bytes = writes.iter().map(SlotWrite::bytes).sum();
        let time = writes.iter().map(SlotWrite::last_time).max().unwrap_or(0);
        let term = self.env.term.load(Ordering::Relaxed);
        let end = writer.append(writes.iter().flat_map(|w| &w.drafts), term)?;
        let batch = match writes.as_mut_slice() {
            [one] => std::mem::take(&mut one.batch),
            many => Batch::concat(many.iter().map(|w| &w.batch)),
        };
        self.apply(c, batch, end, time, bytes)?;
        Ok(end)
    }

    /// Commits one write that spans slots: in all of them or, when appending fails, in none. `parts` are in slot order, one record each. The
    /// commit locks of all are held until every log has its record, so a crash in between leaves it at
    /// the end of some of the logs, where recovery finds that others lack it and takes it back.
    pub(super) fn commit_multi(parts: Vec<(&Slot, SlotWrite)>) -> Result<Vec<Position>, Error> {
        let mut held = lock_commits(parts.into_iter());
        let ends = append_multi(&mut held)?;
        // All logs have it: it has happened. An engine that fails now makes its slot read-only, and recovery applies it.
        let mut failed = None;
        for ((slot, c, write), end) in held.iter_mut().zip(&ends) {
            let (bytes, time) = (write.bytes(), write.last_time());
            if let Err(e) = slot.apply(c, std::mem::take(&mut write.batch), *end, time, bytes) {
                failed = Some(e);
            }
        }
        failed.map_or(Ok(ends), Err)
    }

    /// Appends a run of records received from a master, ending at `end`, and applies `batch`, their effects.
    pub(super) fn commit_run(&self, run: &[u8], end: Position, batch: Batch, time: u64) -> Result<(), Error> {
        let mut c = self.commit.lock();
        let (_, writer) = self.writable(&mut c)?;
        writer.append_run(run, end)?;
        self.apply(&mut c, batch, end, time, run.len() as u64)
    }

    /// FLUSHDB of these slots (in order), all or none across a crash: one record each, which name each other. Readers of the old engines finish
    /// on them. `lock_all` takes the key locks, after the slots' maintenance locks as everywhere. Slots that were never written are left alone.
    pub(super) fn flush_data<G>(slots: &[&Slot], time: u64, lock_all: impl FnOnce() -> G) -> Result<(), Error> {
        let _maintenance: Vec<_> = slots.iter().map(|slot| slot.maintenance.lock()).collect();
        let _all = lock_all();
        let slots: Vec<&Slot> = slots.iter().copied().filter(|slot| slot.store.load().is_some()).collect();
        let mut held = lock_commits(slots.iter().map(|slot| {
            let mut draft = Draft::new(time);
            Effect::Flush.encode(draft.effects());
            (*slot, SlotWrite { drafts: vec![draft], batch: Batch::default() })
        }));
        let ends = append_multi(&mut held)?;
        // Each slot waits for the disk a few times: let them wait together.
        std::thread::scope(|scope| {
            let mut threads = Vec::with_capacity(held.len());
            for ((slot, c, _), end) in held.iter_mut().zip(ends) {
                let (slot, c) = (*slot, &mut **c);
                threads.push(scope.spawn(move || slot.swap_for_empty(c, end, time)));
            }
            let join = |t: std::thread::ScopedJoinHandle<'_, Result<(), Error>>| match t.join() {
                Ok(result) => result,
                Err(_) => Err(Error::BadEffect("a flushing thread panicked".into())),
            };
            // All of them are waited for, and the first error told.
            threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// FLUSHDB received from a master as the record `run` that ends at `end`. `lock_all` takes the key locks.
    pub(super) fn flush_data_run<G>(
        &self,
        run: &[u8],
        end: Position,
        time: u64,
        lock_all: impl FnOnce() -> G,
    ) -> Result<(), Error> {
        let _maintenance = self.maintenance.lock();
        let _all = lock_all();
        let mut c = self.commit.lock();
        let (_, writer) = self.writable(&mut c)?;
        writer.append_run(run, end)?;
        self.swap_for_empty(&mut c, end, time)
    }

    /// The second half of a FLUSHDB whose record ends at `end`: an empty engine in the place of the present one.
    fn swap_for_empty(&self, c: &mut Committer, end: Position, time: u64) -> Result<(), Error> {
        c.time = c.time.max(time);
        let Some(store) = self.store.load_full() else { return Err(self.close_for_writes("no store")) };
        let replaced = || {
            let current = Current { engine: self.layout.unused()?.engine, ..store.current };
            let engine = self.create_engine(current, Applied { position: end, time: c.time })?;
            self.layout.set_current(current)?;
            Ok((engine, current))
        };
        let (engine, current) = replaced().map_err(|e: Error| {
            self.close_for_writes(format!("logged FLUSHDB, but the engine was not replaced: {e}"))
        })?;
        self.store.store(Some(Arc::new(Store { engine: Arc::new(engine), current, log_dir: store.log_dir.clone() })));
        self.env.cache.renew(&self.cache_id);
        self.engine_flushed_to(end, self.unflushed());
        self.publish(end);
        retire(&self.env, store, false);
        Ok(())
    }

    /// FLUSHDB found in the log at recovery, where the engine has no readers yet.
    pub(super) fn recover_flush(&self, applied: Applied) -> Result<Arc<Store>, Error> {
        let Some(store) = self.store.load_full() else {
            return Err(Error::BadEffect("flush of a slot without a store".into()));
        };
        let current = Current { engine: self.layout.unused()?.engine, ..store.current };
        let engine = self.create_engine(current, applied)?;
        self.layout.set_current(current)?;
        let new = Arc::new(Store { engine: Arc::new(engine), current, log_dir: store.log_dir.clone() });
        self.store.store(Some(new.clone()));
        retire(&self.env, store, false);
        Ok(new)
    }

    fn create_engine(&self, current: Current, applied: Applied) -> Result<Engine, Error> {
        let dir = self.layout.engine_dir(current.engine);
        crate::fsutil::remove_dir(&dir).map_err(Error::io(&dir))?;
        Ok(Engine::create(&dir, &self.env.engine, applied)?)
    }

    /// Replaces data and log by a received checkpoint (`Some(folder)`), which must contain exactly `applied`, or by nothing
    /// (`None`, for a slot its master never wrote). `all_locked` takes the key locks once everything that can
    /// fail or take long is done. The old data are served until then; on an error they stay.
    pub(super) fn install<G>(
        &self,
        received: Option<&Path>,
        applied: Applied,
        all_locked: impl FnOnce() -> G,
    ) -> Result<(), Error> {
        let _maintenance = self.maintenance.lock();
        self.layout.create_dirs()?;
        let old = self.store.load_full();
        let current = self.layout.unused()?;
        let engine = match received {
            Some(folder) => {
                let dir = self.layout.engine_dir(current.engine);
                crate::fsutil::remove_dir(&dir).map_err(Error::io(&dir))?;
                move_dir(folder, &dir)?;
                let (engine, inside) = Engine::open(&dir, &self.env.engine)?;
                if inside != applied {
                    let why = format!("contains {}, its info says {}", inside.position, applied.position);
                    return Err(Error::damaged(&dir, why));
                }
                engine
            }
            None => self.create_engine(current, applied)?,
        };
        let log_dir = self.layout.log_dir(current.log);
        crate::fsutil::remove_dir(&log_dir).map_err(Error::io(&log_dir))?;
        let writer = Writer::create(&log_dir, applied.position, (self.env.binlog_file_size)())?;
        let store = Arc::new(Store { engine: Arc::new(engine), current, log_dir });

        let all = all_locked();
        let mut c = self.commit.lock();
        self.layout.set_current(current).map_err(|e| self.close_for_writes(e))?;
        self.store.store(Some(store));
        self.env.cache.renew(&self.cache_id);
        self.env.newest_record.fetch_max(applied.time, Ordering::Relaxed);
        self.sync.store(Some(writer.sync_handle()));
        *c = Committer { writer: Some(writer), time: applied.time };
        self.engine_flushed_to(applied.position, self.unflushed());
        self.fault.store(None);
        self.publish(applied.position);
        drop((c, all));
        if let Some(old) = old {
            retire(&self.env, old, true);
        }
        Ok(())
    }

    /// Takes over what recovery opened.
    pub(super) fn opened(&self, writer: Writer, time: u64, unflushed: u64, flushed_filenum: u32) {
        let mut c = self.commit.lock();
        let tail = writer.tail();
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        self.sync.store(Some(writer.sync_handle()));
        *c = Committer { writer: Some(writer), time };
        self.add_unflushed(unflushed);
        self.flushed_filenum.store(flushed_filenum, Ordering::Release);
        self.publish(tail);
    }

    pub(super) fn set_store(&self, engine: Engine, current: Current) -> Arc<Store> {
        let store = Arc::new(Store { engine: Arc::new(engine), current, log_dir: self.layout.log_dir(current.log) });
        self.store.store(Some(store.clone()));
        store
    }

    /// Closes log and engine, for good: the slot reads as empty and takes no writes. Waits for readers of the engine, up to `patience`;
    /// false if some are left, and the engine is closed when they are done.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let _maintenance = self.maintenance.lock();
        let mut c = self.commit.lock();
        self.fault.store(Some(Arc::new("the server is shutting down".into())));
        c.writer = None;
        let Some(store) = self.store.swap(None) else { return true };
        store.engine.stop_background_work();
        let until = Instant::now() + patience;
        while store.has_readers() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(RETIRE_POLL);
        }
        true
    }

    /// Points the store at another log folder, at recovery.
    pub(super) fn replace_log(&self, current: Current, log_dir: PathBuf) {
        self.store.rcu(|old| {
            old.as_ref().map(|old| Arc::new(Store { engine: old.engine.clone(), current, log_dir: log_dir.clone() }))
        });
    }

    /// Makes the slot refuse writes from now on.
    pub(super) fn close_for_writes(&self, cause: impl std::fmt::Display) -> Error {
        let reason = cause.to_string();
        tracing::error!(slot = %self, "slot is read-only from now on: {reason}");
        self.fault.store(Some(Arc::new(reason.clone())));
        Error::ReadOnly { slot: self.to_string(), reason }
    }

    /// The store and writer, created at the first write; an error if the slot takes no writes.
    fn writable<'c>(&self, c: &'c mut Committer) -> Result<(Arc<Store>, &'c mut Writer), Error> {
        if let Some(reason) = &*self.fault.load() {
            return Err(Error::ReadOnly { slot: self.to_string(), reason: reason.to_string() });
        }
        if c.writer.is_none() {
            c.writer = Some(self.create_store()?);
        }
        match (self.store.load_full(), &mut c.writer) {
            (Some(store), Some(writer)) => {
                writer.set_max_file_size((self.env.binlog_file_size)());
                Ok((store, writer))
            }
            _ => Err(Error::BadEffect("slot without a store".into())),
        }
    }

    /// The first write: folders, engine, log, and last the file that makes them valid.
    fn create_store(&self) -> Result<Writer, Error> {
        self.layout.create_dirs()?;
        let current = self.layout.unused()?;
        let engine = self.create_engine(current, Applied { position: Position::START, time: 0 })?;
        let log_dir = self.layout.log_dir(current.log);
        let writer = Writer::create(&log_dir, Position::START, (self.env.binlog_file_size)())?;
        self.layout.set_current(current)?;
        self.sync.store(Some(writer.sync_handle()));
        self.set_store(engine, current);
        Ok(writer)
    }

    /// The second half of every commit: the engine, then everybody may see it.
    fn apply(&self, c: &mut Committer, batch: Batch, end: Position, time: u64, bytes: u64) -> Result<(), Error> {
        c.time = c.time.max(time);
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        let store = self.store.load();
        let Some(store) = &*store else { return Err(self.close_for_writes("no store")) };
        if let Err(e) = store.engine.write(batch, Applied { position: end, time: c.time }) {
            return Err(self.close_for_writes(format!("logged up to {end}, but the engine failed: {e}")));
        }
        self.publish(end);
        self.add_unflushed(bytes);
        Ok(())
    }

    pub(super) fn publish(&self, position: Position) {
        let generation = self.store.load().as_ref().map_or(0, |s| s.current.log);
        self.published.send_replace(Published { position, generation });
    }

    fn add_unflushed(&self, bytes: u64) {
        let before = self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        self.env.unflushed_total.fetch_add(bytes, Ordering::Relaxed);
        if before < self.env.flush_threshold && before + bytes >= self.env.flush_threshold {
            // A full channel means that the flusher is busy; it looks at all slots when it is done.
            let _ = self.env.flush_requests.try_send((self.db, self.number));
        }
    }

    /// The engine is durable up to `position`; `bytes` of log fewer are needed for that.
    pub(super) fn engine_flushed_to(&self, position: Position, bytes: u64) {
        self.unflushed.fetch_sub(bytes, Ordering::Relaxed);
        self.env.unflushed_total.fetch_sub(bytes, Ordering::Relaxed);
        self.flushed_filenum.store(position.filenum, Ordering::Release);
    }
}

/// A slot whose commit lock is held, and what is to be committed.
type HeldCommit<'s> = (&'s Slot, MutexGuard<'s, Committer>, SlotWrite);

/// Takes the commit locks of slots that are in order.
fn lock_commits<'s>(parts: impl Iterator<Item = (&'s Slot, SlotWrite)>) -> Vec<HeldCommit<'s>> {
    parts.map(|(slot, write)| (slot, slot.commit.lock(), write)).collect()
}

/// Appends one record to each slot's log, to all of them or, when one fails, to none. The records name each other if they
/// are several. Returns where they end.
fn append_multi(held: &mut [HeldCommit<'_>]) -> Result<Vec<Position>, Error> {
    let mut participants = Vec::with_capacity(held.len());
    for (slot, c, _) in held.iter_mut() {
        let (_, writer) = slot.writable(c)?;
        let index = writer.tail().index + 1;
        participants.push(Participant { db: slot.db as u16, slot: slot.number as u16, index });
    }
    let mut ends: Vec<(Position, Position)> = Vec::with_capacity(held.len());
    for nth in 0..held.len() {
        let (slot, c, write) = &mut held[nth];
        if participants.len() > 1 {
            write.drafts.iter_mut().for_each(|d| d.set_participants(&participants));
        }
        // Not `writable` again: whatever has closed the slot meanwhile, the logs before it have the record already.
        let Some(writer) = &mut c.writer else { continue };
        let before = writer.tail();
        match writer.append(write.drafts.iter(), slot.env.term.load(Ordering::Relaxed)) {
            Ok(end) => ends.push((before, end)),
            Err(e) => {
                for ((_, c, _), (before, _)) in held.iter_mut().zip(&ends) {
                    if let Some(writer) = &mut c.writer {
                        writer.take_back(*before);
                    }
                }
                return Err(e.into());
            }
        }
    }
    if held.first().is_some_and(|(slot, ..)| (slot.env.sync_always)()) && held.len() > 1 {
        // Before any other record can follow: one that is durable must not stand behind a write that a power cut tears.
        // The logs have the record now, and the engines must follow, also where this fails: such a slot is closed, and whoever waits
        // for the record to be durable is told.
        for ((slot, ..), (_, end)) in held.iter().zip(&ends) {
            drop(slot.sync_to(end.index));
        }
    }
    Ok(ends.into_iter().map(|(_, end)| end).collect())
}

/// How often an engine that is to be closed is looked at for readers.
pub(super) const RETIRE_POLL: Duration = Duration::from_millis(10);

/// Lets go of a replaced generation: its folders go when its last reader is done.
fn retire(env: &Arc<SlotEnv>, store: Arc<Store>, with_log: bool) {
    let own_env = env.clone();
    let wait = move || {
        store.engine.stop_background_work();
        while store.has_readers() {
            std::thread::sleep(RETIRE_POLL);
        }
        let mut dirs = vec![store.engine.path().to_path_buf()];
        dirs.extend(with_log.then(|| store.log_dir.clone()));
        drop(store);
        for dir in dirs {
            if let Err(e) = crate::fsutil::remove_dir(&dir) {
                tracing::warn!("could not remove {}: {e}; it goes at the next start", dir.display());
            }
        }
        own_env.retiring.fetch_sub(1, Ordering::AcqRel);
    };
    env.retiring.fetch_add(1, Ordering::AcqRel);
    if let Err(e) = std::thread::Builder::new().name("retire".into()).spawn(wait) {
        env.retiring.fetch_sub(1, Ordering::AcqRel);
        tracing::warn!("no thread to remove a replaced engine: {e}; it goes at the next start");
    }
}
