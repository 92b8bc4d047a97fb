//! The keyspace: databases, their slots, and the path that every write takes.
//!
//! A command locks its keys ([`locks`]), reads and changes state by effects ([`effect`]) in a [`Transaction`]; the slot
//! commits them ([`commit`]): log, engine, then visible. Replicas ([`replay`]) and recovery ([`recovery`])
//! apply the same effects. What is on disk, and how it is replaced: [`store`], [`generations`].

mod cache;
mod commit;
mod databases;
pub mod effect;
mod error;
mod expire;
mod fault;
mod flush;
mod generations;
mod held;
mod housekeeping;
pub mod inspect;
mod locks;
mod observer;
mod overlay;
mod places;
mod purge;
mod recovery;
mod replay;
mod scan;
mod slot;
mod store;
#[cfg(test)]
mod testing;
mod transaction;
pub mod types;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use crc::{CRC_16_XMODEM, Crc, Table};
use crossbeam_channel::Receiver;

use crate::binlog::Position;
use crate::disk::{self, Point, Replace};
use crate::engine::{self, Applied};
use cache::EntryCache;
use databases::DatabaseMap;
use locks::KeyLocks;
use slot::{Maintenance, SlotEnv};

pub use crate::engine::{Collection, ElementRange, Entry, Kind, Space};
pub use commit::LogEnd;
pub use effect::{Effect, LIBRARIES_KEY, Read, State};
pub use error::Error;
pub use expire::{Expired, KeyGone};
pub use housekeeping::{Housekeeping, HousekeepingOptions};
pub(crate) use locks::while_waiting;
pub use observer::KeyObserver;
pub use purge::{LogPin, PurgePolicy};
pub use scan::KeyCounts;
pub use slot::{Published, Slot, Store};
#[cfg(test)]
pub(crate) use store::parse as parse_current;
pub use store::{Current, Layout};
pub use transaction::{Conflict, LockPlan, Locked, Reader, RestsOn, Transaction, Undurable};
pub use upkeep::Sizes;

/// Hash slots of Redis Cluster; a database's slots are contiguous ranges of them.
const HASH_SLOTS: usize = 16384;
/// With tables for 16 bytes at a time.
static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);
/// A clock that is behind by more is worth a word.
const CLOCK_WARN_MS: u64 = 5_000;

/// How a keyspace is opened.
pub struct KeyspaceOptions {
    pub db_path: PathBuf,
    pub binlog_path: PathBuf,
    pub databases: usize,
    pub slots: usize,
    pub engine: engine::EngineOptions,
    /// Bytes of the cache of hot entries; 0 = none.
    pub cache: usize,
    /// Bytes; asked each time.
    pub binlog_file_size: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Whether every write waits for stable storage; asked each time.
    pub sync_always: Box<dyn Fn() -> bool + Send + Sync>,
    /// The node's term.
    pub term: u32,
    /// Records of this term and later were written by this node as a master.
    pub leading_from: Option<u32>,
}

/// All databases of a node.
pub struct Keyspace {
    databases: Box<[Database]>,
    locks: KeyLocks,
    env: Arc<SlotEnv>,
    flush_requests: Receiver<()>,
    /// Whether a compaction that somebody asked for is going on.
    compacting: AtomicBool,
}

/// What SELECT chooses, as it is on disk.
pub struct Database {
    index: usize,
    slots: Box<[Arc<Slot>]>,
}

impl Database {
    /// Its place on disk: another than its number for clients after a SWAPDB.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The database's slots, by number.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }
}

/// The hash slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it, mod 16384, as in Redis Cluster.
pub fn hash_slot(key: &[u8]) -> usize {
    let tagged = memchr::memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        memchr::memchr(b'}', rest).filter(|&len| len > 0).map(|len| &rest[..len])
    });
    usize::from(CRC16.checksum(tagged.unwrap_or(key))) % HASH_SLOTS
}

/// The slot of a key in a database of so many slots: contiguous ranges of hash slots.
pub fn slot_of(key: &[u8], slots: usize) -> usize {
    hash_slot(key) * slots / HASH_SLOTS
}

impl Keyspace {
    /// Opens what is on disk and replays the logs.
    pub fn open(options: KeyspaceOptions) -> Result<Keyspace, Error> {
        let (flush_tx, flush_requests) = crossbeam_channel::bounded(1);
        let env = Arc::new(SlotEnv {
            flush_threshold: options.engine.write_buffer_size as u64,
            engine: Arc::new(engine::Shared::new(options.engine)),
            term: AtomicU32::new(options.term),
            binlog_file_size: options.binlog_file_size,
            sync_always: options.sync_always,
            flush_requests: flush_tx,
            changes: AtomicU64::new(0),
            unflushed_total: AtomicU64::new(0),
            flusher: flush::Flusher::default(),
            started: Instant::now(),
            replayed: AtomicU64::new(0),
            cache: EntryCache::new(options.cache),
            slots: OnceLock::new(),
            slots_per_database: options.slots,
            retiring: AtomicUsize::new(0),
            newest_record: AtomicU64::new(0),
            last_version: AtomicU64::new(0),
            earliest: AtomicU64::new(0),
            observer: OnceLock::new(),
            databases: DatabaseMap::new(options.databases),
            owned: (0..options.databases).map(|_| AtomicBool::new(true)).collect(),
            expiry: expire::ExpiryQueue::default(),
            clock_warned: AtomicBool::new(false),
        });
        refuse_unknown_slots(&options.db_path, options.databases, options.slots)?;
        let database = |index: usize| {
            let slot = |number| {
                let layout = Layout::new(&options.db_path, &options.binlog_path, index, number);
                Arc::new(Slot::new(index, number, env.clone(), layout))
            };
            Database { index, slots: (0..options.slots).map(slot).collect() }
        };
        let databases: Box<[Database]> = (0..options.databases).map(database).collect();
        let keyspace =
            Keyspace { databases, locks: KeyLocks::default(), env, flush_requests, compacting: AtomicBool::new(false) };
        let slots: Vec<Arc<Slot>> = keyspace.all_slots().cloned().collect();
        keyspace.env.slots.get_or_init(|| slots.iter().map(Arc::downgrade).collect());
        recovery::open_slots(&slots, options.leading_from)?;
        if let Some(slot) = slots.iter().find(|slot| slot.is_first()) {
            slot.load_databases()?;
        }
        let newest = keyspace.all_slots().map(|s| s.position().term).max().unwrap_or(0);
        keyspace.env.term.fetch_max(newest, Ordering::Relaxed);
        Ok(keyspace)
    }

    /// Number of databases.
    pub fn databases(&self) -> usize {
        self.databases.len()
    }

    /// Slots of each database.
    pub fn slots_per_database(&self) -> usize {
        self.databases.first().map_or(0, |db| db.slots.len())
    }

    /// A clients' database by a number below [`Keyspace::databases`].
    pub fn db(&self, index: usize) -> &Database {
        &self.databases[self.env.databases.on_disk(index)]
    }

    /// A database by its place on disk, as peers name it.
    pub fn db_on_disk(&self, index: usize) -> &Database {
        &self.databases[index]
    }

    /// Where the logs of all slots that were ever written end at one moment: a write over several slots is in all of its logs, or in none.
    pub fn log_ends(&self) -> Vec<LogEnd> {
        commit::log_ends(self.all_slots())
    }

    /// All slots of all databases, in order.
    pub fn all_slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.databases.iter().flat_map(|db| db.slots.iter())
    }

    /// A slot by its database's name (`db0`) and its number, as peers name it.
    pub fn slot_named(&self, db: &str, number: u32) -> Option<&Arc<Slot>> {
        let index: usize = db.strip_prefix("db")?.parse().ok()?;
        self.databases.get(index)?.slots.get(number as usize)
    }

    /// The slot that a key lives in.
    pub fn slot(&self, db: usize, key: &[u8]) -> &Arc<Slot> {
        let slots = &self.db(db).slots;
        &slots[slot_of(key, slots.len())]
    }

    /// A transaction: see [`Transaction`].
    pub fn transaction(&self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// Unix time, ms, never before the records in the logs: a record's time does not fall when the machine's clock is set back, or
    /// when this node takes over from one whose clock was ahead. So what had expired for one record has expired for all later ones,
    /// and every node agrees on it.
    pub fn now(&self) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let newest = self.env.newest_record.load(Ordering::Relaxed);
        if newest > clock + CLOCK_WARN_MS && !self.env.clock_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ms = newest - clock,
                "this machine's clock is behind the records in the logs: nothing expires until it has caught up"
            );
        }
        clock.max(newest).max(self.env.earliest.load(Ordering::Relaxed))
    }

    /// The node's term.
    pub fn term(&self) -> u32 {
        self.env.term.load(Ordering::Relaxed)
    }

    /// The highest term in any slot's log.
    pub fn newest_term(&self) -> u32 {
        self.all_slots().map(|s| s.position().term).max().unwrap_or(0)
    }

    /// Sets the term of the records written from now on.
    pub fn set_term(&self, term: u32) {
        self.env.term.store(term, Ordering::Relaxed);
    }

    /// Engines that were replaced and still wait to be deleted, because somebody reads from them.
    pub fn retiring(&self) -> usize {
        self.env.retiring.load(Ordering::Acquire)
    }

    /// Bytes of the block cache in use.
    pub fn block_cache_usage(&self) -> usize {
        self.env.engine.block_cache_usage()
    }

    /// Bytes of what was flushed last and is kept for readers.
    pub fn recent_usage(&self) -> usize {
        self.env.engine.recent_usage()
    }

    /// Bytes and entries of the cache of hot entries.
    pub fn cache_usage(&self) -> (u64, usize) {
        self.env.cache.usage()
    }

    /// Bytes of the queue of keys that expire.
    pub fn expiry_queue_usage(&self) -> usize {
        self.env.expiry.usage()
    }

    /// Bytes of log that no engine has flushed: what a recovery now would replay.
    pub fn unflushed(&self) -> u64 {
        self.env.unflushed_total.load(Ordering::Relaxed)
    }

    /// The slots of a database, or of all (`None`), in order.
    fn slots_of(&self, db: Option<usize>) -> Vec<&Slot> {
        let on_disk = db.map(|db| self.db(db).index);
        let chosen = self.databases.iter().filter(|d| on_disk.is_none_or(|index| d.index == index));
        chosen.flat_map(|d| d.slots.iter().map(Arc::as_ref)).collect()
    }

    /// Waits until these writes are on stable storage. Blocks.
    pub fn wait_durable(&self, writes: &Undurable) -> Result<(), Error> {
        for &(db, slot, index) in &writes.0 {
            if let Some(slot) = self.databases.get(db).and_then(|database| database.slots.get(slot)) {
                slot.sync_to(index)?;
            }
        }
        Ok(())
    }

    /// The maintenance locks of all slots.
    fn maintenance(&self) -> Maintenance<'_> {
        Maintenance::of(self.all_slots().map(Arc::as_ref))
    }

    /// A command holds keys for longer than others are expected to wait (`true`), or does no more: who waits for keys meanwhile is told so.
    pub fn set_overtime(&self, begins: bool) {
        self.locks.set_overtime(begins);
    }

    /// Sets who is told of every change, once.
    pub fn set_observer(&self, observer: Arc<dyn KeyObserver>) {
        self.env.observer.get_or_init(|| observer);
    }

    /// The libraries of functions that the node holds, as the last [`Effect::Libraries`] set them; empty = none.
    pub fn libraries(&self) -> Result<Bytes, Error> {
        match self.slot(self.first_database(), &LIBRARIES_KEY).readable()? {
            Some(store) => Ok(store.engine.libraries()?),
            None => Ok(Bytes::new()),
        }
    }

    /// Keys of a database that are live at `now`, exactly. May scan the whole database.
    pub fn count(&self, db: usize, now: u64) -> Result<KeyCounts, Error> {
        self.db(db).slots.iter().map(|slot| slot.count(now)).sum()
    }

    /// [`Slot::estimate`] of a database: never takes long.
    pub fn estimate(&self, db: usize, now: u64) -> Result<KeyCounts, Error> {
        self.db(db).slots.iter().map(|slot| slot.estimate(now)).sum()
    }

    /// A digest of all data: equal on two nodes with equal data. Scans everything. What has expired is judged by the time of the newest
    /// record, not by a clock: nodes with equal logs agree on it.
    pub fn digest(&self) -> Result<[u8; 20], Error> {
        let now = self.env.newest_record.load(Ordering::Relaxed);
        let mut sum = [0; 20];
        for slot in self.all_slots() {
            scan::xor(&mut sum, &slot.digest(now)?);
        }
        Ok(sum)
    }

    /// Says of which databases (as on disk) clients may write the logs; of all of them at first. When it returns nothing of a client is
    /// committed to the others any more. Waits for commits under way; must not be called with a commit lock held.
    pub fn set_owned(&self, owned: impl Fn(usize) -> bool) {
        for database in &self.databases {
            self.env.owned[database.index].store(owned(database.index), Ordering::Release);
        }
        // Who holds a commit lock may have asked before; who takes it next sees the answer.
        self.all_slots().filter(|slot| !owned(slot.db())).for_each(|slot| drop(slot.commit.lock()));
    }

    /// Elements and keys that clients of this node changed since it started: what Redis calls dirty. Keys that a flush took are not
    /// counted.
    pub fn changes(&self) -> u64 {
        self.env.changes.load(Ordering::Relaxed)
    }

    /// Some live key of a database.
    pub fn random_key(&self, db: usize, now: u64) -> Result<Option<Bytes>, Error> {
        let slots = &self.db(db).slots;
        let first = rand::random_range(0..slots.len().max(1));
        for slot in slots.iter().cycle().skip(first).take(slots.len()) {
            if let Some(key) = slot.random_key(now)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Replaces a slot's data by a received checkpoint that contains exactly `applied`, or empties it (`None`).
    /// The old data are served until the new are in place; a crash leaves the one or the other.
    pub fn install(&self, slot: &Slot, received: Option<&Path>, applied: Applied) -> Result<(), Error> {
        self.install_over(slot, received, applied, false).map(drop)
    }

    /// [`Keyspace::install`], and with `keep_log` the log that is replaced is kept, for the operator; returns where.
    pub fn install_over(
        &self,
        slot: &Slot,
        received: Option<&Path>,
        applied: Applied,
        keep_log: bool,
    ) -> Result<Option<PathBuf>, Error> {
        if received.is_none() && slot.store().is_none() && slot.fault().is_none() {
            return Ok(None);
        }
        let installed = slot.install(received, applied, keep_log, || self.locks.lock_all());
        self.env.settled();
        installed
    }

    /// Lets slots that fell behind their logs because the disk was full take writes again, where there is room.
    pub(crate) fn catch_up(&self) {
        for slot in self.all_slots() {
            match slot.catch_up(|| self.locks.lock_all()) {
                Ok(true) => self.env.settled(),
                Ok(false) => {}
                Err(e) => tracing::debug!(slot = %slot, "still behind its log: {e}"),
            }
        }
    }

    /// Makes a slot's engine durable.
    pub(crate) fn flush_slot(&self, slot: &Slot) -> Result<(), Error> {
        slot.flush()
    }

    /// Makes all that is in the logs durable.
    pub(crate) fn sync_logs(&self) {
        self.env.sync_logs();
    }

    /// Closes all engines, for good; after [`Keyspace::flush_all_engines`]. RocksDB must be gone before the process ends: what it
    /// shares is torn down then. False if readers kept some from being closed in `patience`.
    pub fn close(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let closed = self.all_slots().all(|slot| slot.close(until.saturating_duration_since(Instant::now())));
        while self.env.retiring.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(generations::RETIRE_POLL);
        }
        closed && self.env.retiring.load(Ordering::Acquire) == 0
    }

    /// Flushes everything to the engines' files and forgets what is cached of them, so that what is read next comes from there.
    pub fn reread(&self) -> Result<(), Error> {
        self.flush_all_engines()?;
        let _all = self.locks.lock_all();
        for slot in self.all_slots() {
            self.env.cache.renew(&slot.cache_id);
            if let Some(store) = &*slot.store() {
                store.engine.forget_recent();
            }
        }
        Ok(())
    }

    /// Lets nobody write from now on: nothing is committed any more when this returns.
    pub fn refuse_writes(&self) {
        self.all_slots().for_each(|slot| slot.refuse_writes());
    }

    /// Records that the start applied to the engines because the last stop had not: none after a clean one.
    pub fn replayed(&self) -> u64 {
        self.env.replayed.load(Ordering::Relaxed)
    }

    /// Makes all that was committed durable in log and engine: a start after it replays nothing.
    pub fn flush_all_engines(&self) -> Result<(), Error> {
        self.sync_logs();
        let slots: Vec<&Arc<Slot>> = self.all_slots().filter(|s| s.unflushed() > 0).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = slots.into_iter().map(|slot| scope.spawn(move || self.flush_slot(slot))).collect();
            threads.into_iter().try_for_each(|t| match t.join() {
                Ok(result) => result,
                Err(_) => Err(Error::BadEffect("a flushing thread panicked".into())),
            })
        })
    }
}

/// Data of databases or slots beyond the configured number would become invisible; keys would be looked for in the wrong slot.
fn refuse_unknown_slots(db_path: &Path, databases: usize, slots: usize) -> Result<(), Error> {
    let layout = db_path.join("LAYOUT");
    let text = slot_num_line(slots);
    match std::fs::read_to_string(&layout) {
        Ok(found) if found != text => {
            let why = format!("the data were written with {}; slot-num cannot change afterwards", found.trim());
            return Err(Error::damaged(&layout, why));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            disk::create_dir_all(Point::LayoutCreateDir, db_path).map_err(Error::io(db_path))?;
            write_slot_num(db_path, slots)?;
        }
        Err(e) => return Err(Error::io(&layout)(e)),
    }
    for entry in std::fs::read_dir(db_path).map_err(Error::io(db_path))? {
        let path = entry.map_err(Error::io(db_path))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let index = name.strip_prefix("db").and_then(|n| n.parse::<usize>().ok());
        if index.is_some_and(|index| index >= databases) {
            return Err(Error::damaged(&path, format!("holds data, but the conf file says databases : {databases}")));
        }
    }
    Ok(())
}

fn slot_num_line(slots: usize) -> String {
    format!("slot-num : {slots}\n")
}

/// Notes how many slots a database has in the folder of all data. Durable when it returns.
pub fn write_slot_num(db_path: &Path, slots: usize) -> Result<(), Error> {
    let layout = db_path.join("LAYOUT");
    disk::replace_file(&Replace::LAYOUT, &layout, slot_num_line(slots).as_bytes()).map_err(Error::io(&layout))
}

/// [`Position::START`] with no time: what a slot that was never written contains.
pub const NEVER_WRITTEN: Applied = Applied { position: Position::START, time: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_slots_are_redis_clusters() {
        // CLUSTER KEYSLOT of Redis 7.
        for (key, slot) in [("foo", 12182), ("{user1000}.following", 3443), ("123456789", 12739), ("", 0)] {
            assert_eq!(hash_slot(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(hash_slot(b"foo{}{bar}"), hash_slot(b"foo{}{bar}"));
        assert_ne!(hash_slot(b"foo{}{bar}"), hash_slot(b"bar"));
        assert_eq!(hash_slot(b"foo{{bar}}zap"), hash_slot(b"{bar"));
    }
}
