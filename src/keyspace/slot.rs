//! A slot: what it holds, what it shares with the others, and what may be seen of it. How it is written: [`super::commit`]; how its
//! engine is made durable: [`super::flush`]; how its data are replaced as a whole: [`super::generations`].

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::Error;
use super::cache::{CacheId, EntryCache};
use super::commit::Waiting;
use super::databases::DatabaseMap;
use super::expire::{ExpiryQueue, Unqueued};
use super::fault::Fault;
use super::flush::Flusher;
use super::locks::{SHORT_WAIT, while_waiting};
use super::observer::KeyObserver;
use super::store::{Current, Layout};
use crate::binlog::{Position, SyncHandle, Writer};
use crate::engine::element::VERSION_COUNTER_BITS;
use crate::engine::{self, ElementRange, Engine, Entry, Space};

/// As the one who made a change: no client in particular.
pub(super) const NOBODY: u64 = 0;
/// Why a slot takes no writes when the server stops.
pub(super) const STOPPING: &str = "the server is shutting down";

/// What all slots of a server share.
pub struct SlotEnv {
    pub engine: Arc<engine::Shared>,
    /// The node's term: that of the records it writes as a master.
    pub term: AtomicU32,
    /// Bytes; a binlog file that would grow beyond is followed by a new one. Changes with CONFIG SET.
    pub binlog_file_size: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether every write waits for stable storage. Asked each time.
    pub sync_always: Box<dyn Fn() -> bool + Send + Sync>,
    /// Bytes of log a slot may have that its engine has not flushed, however much others have.
    pub flush_threshold: u64,
    /// Wakes the flusher: there is too much, or somebody waits.
    pub flush_requests: crossbeam_channel::Sender<()>,
    /// Elements and keys that clients of this node changed since it started.
    pub(super) changes: AtomicU64,
    /// Bytes of unflushed log over all slots.
    pub unflushed_total: AtomicU64,
    pub(super) flusher: Flusher,
    pub(super) started: Instant,
    /// Records that recovery applied to the engines at the start.
    pub(super) replayed: AtomicU64,
    pub(super) cache: EntryCache,
    /// Time of the newest record in any log, ms.
    pub(super) newest_record: AtomicU64,
    pub(super) clock_warned: AtomicBool,
    /// Replaced engines that are not closed yet.
    pub(super) retiring: AtomicUsize,
    /// No record is made with an earlier time, ms.
    pub(super) earliest: AtomicU64,
    /// The last version that a collection was given.
    pub(super) last_version: AtomicU64,
    pub(super) observer: OnceLock<Arc<dyn KeyObserver>>,
    pub(super) databases: DatabaseMap,
    /// By database on disk: whether clients may write its logs. Asked under the commit lock ([`Slot::check_owned`]).
    pub(super) owned: Box<[AtomicBool]>,
    pub(super) expiry: ExpiryQueue,
    /// All slots, once they are there: those of the first database, by number, then those of the next.
    pub(super) slots: OnceLock<Vec<Weak<Slot>>>,
    pub(super) slots_per_database: usize,
}

impl SlotEnv {
    /// A version for a collection that is made at `now`: above all that were given before, on whatever node. Invariant: a version's
    /// ms is at most one later than its record's, and the records that follow are not earlier than it. So whoever begins two ms after
    /// the newest record that it knows gives none twice.
    pub(super) fn next_version(&self, now: u64) -> u64 {
        let floor = now << VERSION_COUNTER_BITS;
        let next = |last: u64| (last + 1).max(floor);
        let last = self.last_version.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        let version = next(last.unwrap_or_default());
        self.earliest.fetch_max(version >> VERSION_COUNTER_BITS, Ordering::Relaxed);
        version
    }

    /// Records up to `time` (ms) were not made by this process, and may hold versions that it has not given: its own are later.
    pub(super) fn versions_up_to(&self, time: u64) {
        let earliest = time + 2;
        self.last_version.fetch_max(earliest << VERSION_COUNTER_BITS, Ordering::Relaxed);
        self.earliest.fetch_max(earliest, Ordering::Relaxed);
    }

    /// See [`KeyObserver::settled`].
    pub(super) fn settled(&self) {
        if let Some(observer) = self.observer.get() {
            observer.settled();
        }
    }

    /// See [`KeyObserver::awaits`].
    pub(super) fn awaits(&self, db: usize, key: &Bytes) -> bool {
        self.observer.get().is_some_and(|observer| observer.awaits(db, key))
    }

    /// Milliseconds since the start.
    pub(super) fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

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
    pub(super) log_dir: PathBuf,
}

impl Store {
    /// Whether anybody else holds it. Only of use once no slot has it any more.
    pub(super) fn has_readers(self: &Arc<Store>) -> bool {
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

/// The maintenance locks of several slots, in order.
pub(super) struct Maintenance<'s> {
    _guards: Vec<MutexGuard<'s, ()>>,
}

impl<'s> Maintenance<'s> {
    /// Of slots that are in order, for a client's command, which must hold no key. A flush, a checkpoint or a full sync may take long: the other
    /// tasks of the thread are left to others meanwhile.
    pub fn of(slots: impl Iterator<Item = &'s Slot>) -> Maintenance<'s> {
        let lock = |slot: &'s Slot| {
            let soon = slot.maintenance.try_lock_for(SHORT_WAIT);
            soon.unwrap_or_else(|| while_waiting(|| slot.maintenance.lock()))
        };
        Maintenance { _guards: slots.map(lock).collect() }
    }
}

/// What the commit lock protects.
pub(super) struct Committer {
    pub(super) writer: Option<Writer>,
    /// Time of the newest record, ms.
    pub(super) time: u64,
}

/// One slot of a database.
pub struct Slot {
    pub(super) db: usize,
    pub(super) number: usize,
    pub(super) env: Arc<SlotEnv>,
    pub(super) layout: Layout,
    /// `None` until the first write: such a slot has no file open and no folder.
    pub(super) store: ArcSwapOption<Store>,
    /// Under which the slot's entries are cached.
    pub(super) cache_id: CacheId,
    pub(super) commit: Mutex<Committer>,
    /// Of the committer's writer; changes with it.
    pub(super) sync: ArcSwapOption<SyncHandle>,
    pub(super) queue: Mutex<Vec<Arc<Waiting>>>,
    pub(super) published: watch::Sender<Published>,
    /// Why the slot takes no writes, unless its engine says so ([`Slot::fault`]).
    pub(super) fault: ArcSwapOption<Fault>,
    /// Why the last write or flush found no room on the disk, if it did not.
    pub(super) no_space: ArcSwapOption<String>,
    /// The fault, if it is that the engine lacks what the log has: [`Slot::catch_up`] mends it.
    pub(super) behind: ArcSwapOption<Fault>,
    pub(super) log_damage: ArcSwapOption<String>,
    /// Bytes logged since the last flush began.
    pub(super) unflushed: AtomicU64,
    /// When the first of them were, by [`SlotEnv::uptime_ms`].
    pub(super) unflushed_since: AtomicU64,
    pub(super) flush_failed: AtomicBool,
    /// Serializes flushes, checkpoints and swaps of the engine. Taken before key locks and commit locks, never while one is held.
    pub(super) maintenance: Mutex<()>,
    /// The first file the engine would need to be replayed from.
    pub(super) flushed_filenum: AtomicU32,
    pub(super) pins: super::purge::Pins,
    pub(super) counts: super::scan::CountCache,
    pub(super) unqueued: Unqueued,
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
            no_space: ArcSwapOption::empty(),
            behind: ArcSwapOption::empty(),
            log_damage: ArcSwapOption::empty(),
            unflushed: AtomicU64::new(0),
            unflushed_since: AtomicU64::new(0),
            flush_failed: AtomicBool::new(false),
            maintenance: Mutex::default(),
            flushed_filenum: AtomicU32::new(0),
            pins: super::purge::Pins::default(),
            counts: super::scan::CountCache::default(),
            unqueued: Unqueued::default(),
        }
    }

    /// Index of the database, as it is on disk.
    pub fn db(&self) -> usize {
        self.db
    }

    /// Its bit in a set of slots.
    pub(super) fn bit(&self) -> u64 {
        1 << ((self.db * self.env.slots_per_database + self.number) % 64)
    }

    /// Index of the database, as clients see it.
    pub fn shown_db(&self) -> usize {
        self.env.databases.shown(self.db)
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

    /// The number of the first binlog file that recovery would need.
    pub fn flushed_filenum(&self) -> u32 {
        self.flushed_filenum.load(Ordering::Acquire)
    }

    /// Bytes of log that the engine has not flushed.
    pub fn unflushed(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    /// The entry of a key, expired or not. The key's stripe must be held. With `keep` it is kept in the cache.
    pub(super) fn get(&self, key: &[u8], keep: bool) -> Result<Option<Entry>, Error> {
        let store = self.store.load();
        let Some(store) = &*store else { return self.check_never_written().map(|()| None) };
        // First where what was written lately is found: that is cheaper than the cache, and is not kept twice.
        if let Some(known) = store.engine.get_known(key)? {
            return Ok(known);
        }
        if let Some(cached) = self.env.cache.get(&self.cache_id, key) {
            return Ok(cached);
        }
        let entry = store.engine.get_flushed(key)?;
        if keep {
            self.env.cache.fill(&self.cache_id, key, entry.as_ref());
        }
        Ok(entry)
    }

    /// [`Slot::get`] past the cache: for recovery, which holds no stripes.
    pub(super) fn get_from_engine(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        match &*self.store.load() {
            Some(store) => Ok(store.engine.get(key)?),
            None => self.check_never_written().map(|()| None),
        }
    }

    /// The value of an element, as [`Slot::get`]. The stripe of its key must be held.
    pub(super) fn element(&self, space: Space, key: &[u8], keep: bool) -> Result<Option<Bytes>, Error> {
        let store = self.store.load();
        let Some(store) = &*store else { return self.check_never_written().map(|()| None) };
        if let Some(known) = store.engine.element_known(space, key) {
            return Ok(known);
        }
        if space != Space::Data {
            // By score they are only iterated.
            return Ok(store.engine.element_flushed(space, key)?);
        }
        if let Some(cached) = self.env.cache.element(&self.cache_id, key) {
            return Ok(cached);
        }
        let value = store.engine.element_flushed(space, key)?;
        if keep {
            self.env.cache.fill_element(&self.cache_id, key, value.as_ref());
        }
        Ok(value)
    }

    /// [`Slot::element`] past the cache: for recovery, which holds no stripes.
    pub(super) fn element_from_engine(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match &*self.store.load() {
            Some(store) => Ok(store.engine.element(space, key)?),
            None => self.check_never_written().map(|()| None),
        }
    }

    /// [`Engine::elements`].
    pub(super) fn elements(
        &self,
        space: Space,
        range: &ElementRange<'_>,
        fixed: Option<&mut dyn FnMut()>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        match self.store.load_full() {
            Some(store) => Ok(store.engine.elements(space, range, fixed, f)?),
            None => self.check_never_written(),
        }
    }

    /// The engine holds a new entry of the key, whose stripe is held exclusively.
    pub(super) fn changed(&self, key: &Bytes, entry: Option<&Entry>, by: u64) {
        self.env.cache.forget(&self.cache_id, key);
        if let Some(entry) = entry {
            self.env.expiry.note(self, key, entry);
        }
        if let Some(observer) = self.env.observer.get() {
            observer.changed(self.shown_db(), key, entry, by);
        }
    }

    /// The engine holds a new value of an element of [`Space::Data`], or may: nobody knows. `removed`: it certainly holds none. The stripe of its
    /// key is held exclusively.
    pub(super) fn element_changed(&self, key: &[u8], removed: bool) {
        self.env.cache.forget_element(&self.cache_id, key, removed);
    }

    /// The engine holds new libraries of functions; [`LIBRARIES_KEY`](super::effect::LIBRARIES_KEY) is held exclusively.
    pub(super) fn libraries_changed(&self, libraries: &Bytes) {
        if let Some(observer) = self.env.observer.get() {
            observer.libraries_changed(libraries);
        }
    }

    /// Whether this is the slot that holds what belongs to no database: the libraries of functions, and the map of databases.
    pub(super) fn is_first(&self) -> bool {
        (self.db, self.number) == (0, 0)
    }

    /// The engine may or may not hold a new entry of the key, whose stripe is held exclusively.
    pub(super) fn uncertain(&self, key: &Bytes) {
        self.env.cache.forget(&self.cache_id, key);
        // Who waits for the key or keeps it had better look.
        if let Some(observer) = self.env.observer.get() {
            observer.changed(self.shown_db(), key, None, NOBODY);
        }
    }

    /// The store, created now if this is the slot's first write; with `for_client` only if clients may write it.
    pub(super) fn store_for_writing(&self, for_client: bool) -> Result<Arc<Store>, Error> {
        match self.store.load_full() {
            Some(store) => Ok(store),
            None => {
                let mut c = self.commit.lock();
                if for_client {
                    self.check_owned()?;
                }
                self.room_for(self.writable(&mut c).map(|(store, _)| store), false)
            }
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

    /// Takes over what recovery opened.
    pub(super) fn opened(&self, writer: Writer, time: u64, unflushed: u64, flushed_filenum: u32) {
        let mut c = self.commit.lock();
        let tail = writer.tail();
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        self.env.versions_up_to(time);
        self.sync.store(Some(writer.sync_handle()));
        *c = Committer { writer: Some(writer), time };
        self.add_unflushed(unflushed);
        self.flushed_filenum.store(flushed_filenum, Ordering::Release);
        self.publish(tail);
    }

    /// An error if the slot takes no writes.
    pub(super) fn refuse_if_closed(&self) -> Result<(), Error> {
        match self.fault() {
            Some(reason) => Err(Error::ReadOnly { slot: self.to_string(), reason: reason.to_string() }),
            None => Ok(()),
        }
    }

    /// The store and writer, created at the first write; an error if the slot takes no writes.
    pub(super) fn writable<'c>(&self, c: &'c mut Committer) -> Result<(Arc<Store>, &'c mut Writer), Error> {
        self.refuse_if_closed()?;
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

    pub(super) fn publish(&self, position: Position) {
        let generation = self.store.load().as_ref().map_or(0, |s| s.current.log);
        self.published.send_replace(Published { position, generation });
    }
}
