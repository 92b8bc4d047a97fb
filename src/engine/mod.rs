//! The engine of a slot: a RocksDB without a WAL of its own, which always knows which binlog record it contains up to.
//!
//! Every write batch sets the slot's [`Applied`] state (position and record time) beside the data, and all
//! column families are flushed atomically: whatever a crash leaves on disk is the state after exactly one record.
//! The engine knows nothing of commands, replication or sockets. Encodings: docs/encodings.md.

mod batch;
mod damage;
pub mod element;
mod encoding;
mod error;
pub mod inspect;
mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, DB, FlushOptions, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions, properties,
};

use crate::binlog::Position;
use crate::disk::{self, Point};
use damage::Damage;
use element::OpenDb;

pub use batch::Batch;
pub use element::Space;
pub use encoding::{Collection, Entry, Kind, MAX_CHUNKED_LEN};
pub use error::Error;
pub use options::{Compression, EXPIRY_GRACE_MS, EngineOptions, Shared};

/// Keys, with type, expiry and, for strings, the value.
const META: &str = "meta";
/// What the slot knows about itself.
const SYSTEM: &str = "default";
/// A checkpoint flushes memtables when RocksDB's own log is larger than this; we have none.
const NO_FLUSH: u64 = u64::MAX;
/// How often a flush under way is looked at.
const FLUSH_POLL: Duration = Duration::from_millis(2);
/// How long a flush that has failed is waited for while RocksDB tries it again.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);
/// All families, which are flushed together.
const FAMILIES: [&str; 4] = [SYSTEM, META, "data", "score"];
const APPLIED_KEY: &[u8] = b"applied";
const DATABASES_KEY: &[u8] = b"databases";
const LIBRARIES_KEY: &[u8] = b"libraries";

/// Which record the engine contains up to, and when that was executed (unix ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    pub position: Position,
    pub time: u64,
}

impl Applied {
    const ENCODED_LEN: usize = Position::ENCODED_LEN + 8;

    fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..Position::ENCODED_LEN].copy_from_slice(&self.position.encode());
        out[Position::ENCODED_LEN..].copy_from_slice(&self.time.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Applied> {
        let (position, time) = bytes.split_at_checked(Position::ENCODED_LEN)?;
        Some(Applied { position: Position::decode(position)?, time: u64::from_le_bytes(time.try_into().ok()?) })
    }
}

/// What engines take, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSizes {
    /// Files with data.
    pub files: u64,
    pub memtables: u64,
    /// Indexes and filters that are not in the block cache.
    pub table_readers: u64,
    /// What compactions have yet to rewrite, by RocksDB's estimate.
    pub pending_compaction: u64,
    /// Failures of background work; not bytes.
    pub errors: u64,
}

impl EngineSizes {
    /// Adds those of another engine.
    pub fn add(&mut self, other: &EngineSizes) {
        self.files += other.files;
        self.memtables += other.memtables;
        self.table_readers += other.table_readers;
        self.pending_compaction += other.pending_compaction;
        self.errors += other.errors;
    }
}

/// What the first slot's engine holds for the whole node. It belongs to no database, and no flush takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// [`Engine::libraries`].
    pub libraries: Bytes,
    /// [`Engine::databases`].
    pub databases: Option<Bytes>,
}

/// A range of element keys: from `lower` up to `upper`, exclusive.
#[derive(Clone, Copy, Debug)]
pub struct ElementRange<'r> {
    pub lower: &'r [u8],
    pub upper: &'r [u8],
    /// From the last to the first.
    pub reverse: bool,
}

/// A flush under way.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// What is durable when it has ended.
    pub applied: Applied,
    /// Errors of RocksDB's threads before it began.
    errors: u64,
}

/// Is called with each key and its entry until it returns false.
pub type EntryVisitor<'v> = &'v mut dyn FnMut(&[u8], Entry) -> Result<bool, Error>;

/// One open RocksDB.
pub struct Engine {
    db: Arc<DB>,
    path: PathBuf,
    write_options: WriteOptions,
    /// Time of the last record that is flushed, ms. What expired well before it is dropped by compaction.
    flushed_time: Arc<AtomicU64>,
    damage: Damage,
    /// Keeps the caches alive that the options refer to.
    _shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Engine {
    /// Creates the engine of a slot that holds no key, and contains the log up to `applied`. Durable when it returns.
    pub fn create(path: &Path, shared: &Arc<Shared>, applied: Applied, kept: &Kept) -> Result<Engine, Error> {
        let engine = disk::step(Point::EngineCreate, Error::io(path), || Engine::open_db(path, shared, true))?;
        let mut batch = engine.batch();
        engine.stage_libraries(&mut batch, &kept.libraries)?;
        if let Some(databases) = &kept.databases {
            engine.stage_databases(&mut batch, databases)?;
        }
        engine.write(batch, applied)?;
        engine.flush()?;
        Ok(engine)
    }

    /// Opens an engine that exists. A folder that is none, or that does not say what it contains, is refused.
    pub fn open(path: &Path, shared: &Arc<Shared>) -> Result<(Engine, Applied), Error> {
        let engine = disk::step(Point::EngineOpen, Error::io(path), || Engine::open_db(path, shared, false))?;
        let applied = engine.applied()?;
        engine.flushed_time.store(applied.time, Ordering::Release);
        Ok((engine, applied))
    }

    fn open_db(path: &Path, shared: &Arc<Shared>, create: bool) -> Result<Engine, Error> {
        let flushed_time = Arc::new(AtomicU64::new(0));
        let db_options = shared.db_options(create);
        let open = OpenDb::default();
        let elements = |space: Space| shared.element_options(space, flushed_time.clone(), open.clone());
        let families = [
            (SYSTEM, shared.system_options()),
            (META, shared.meta_options(flushed_time.clone())),
            (Space::Data.family(), elements(Space::Data)),
            (Space::Score.family(), elements(Space::Score)),
        ];
        let db = Arc::new(DB::open_cf_with_opts(&db_options, path, families).map_err(Error::rocksdb(path))?);
        open.get_or_init(|| Arc::downgrade(&db));
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        Ok(Engine {
            db,
            path: path.to_path_buf(),
            write_options,
            flushed_time,
            damage: Damage::default(),
            _shared: shared.clone(),
        })
    }

    /// What the engine in the folder `path` contains, without opening it for writing.
    pub fn applied_in(path: &Path) -> Result<Applied, Error> {
        let options = rocksdb::Options::default();
        let db = DB::open_cf_for_read_only(&options, path, [SYSTEM, META], false).map_err(Error::rocksdb(path))?;
        read_applied(&db, path)
    }

    /// The engine's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, Error> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| Error::Malformed { path: self.path.clone(), what: format!("column family {name} missing") })
    }

    /// What the engine contains, as it would be after a crash right after the last flush or as it is now: read
    /// from the same view as the data.
    pub fn applied(&self) -> Result<Applied, Error> {
        read_applied(&self.db, &self.path)
    }

    /// The entry of a key, expired or not.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        let value = self.db.get_pinned_cf(self.family(META)?, key).map_err(self.failure())?;
        value.map(|v| Entry::decode(&v).ok_or_else(|| self.bad_entry(key))).transpose()
    }

    fn bad_entry(&self, key: &[u8]) -> Error {
        let what = format!("malformed entry of key \"{}\"", key.escape_ascii());
        Error::Malformed { path: self.path.clone(), what }
    }

    /// The libraries of functions that the slot keeps for the node; empty = none.
    pub fn libraries(&self) -> Result<Bytes, Error> {
        let value = self.db.get_pinned_cf(self.family(SYSTEM)?, LIBRARIES_KEY).map_err(self.failure())?;
        Ok(value.map(|v| Bytes::copy_from_slice(&v)).unwrap_or_default())
    }

    /// Adds the new libraries to a batch.
    pub fn stage_libraries(&self, batch: &mut Batch, libraries: &[u8]) -> Result<(), Error> {
        let system = self.family(SYSTEM)?;
        match libraries {
            [] => batch.delete(system, LIBRARIES_KEY),
            _ => batch.put_raw(system, LIBRARIES_KEY, libraries),
        }
        Ok(())
    }

    /// The value of an element.
    pub fn element(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.db.get_pinned_cf(self.family(space.family())?, key).map_err(self.failure())?;
        Ok(value.map(|v| Bytes::copy_from_slice(&v)))
    }

    /// Calls `f` with the elements whose keys are in `range`, from one consistent view, until it returns false. `opened` is called once
    /// the view is fixed, before the first element.
    pub fn elements(
        &self,
        space: Space,
        range: &ElementRange<'_>,
        opened: &mut dyn FnMut(),
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(range.lower);
        options.set_iterate_upper_bound(range.upper);
        let mut iter = self.db.raw_iterator_cf_opt(self.family(space.family())?, options);
        opened();
        if range.reverse {
            iter.seek_to_last()
        } else {
            iter.seek_to_first()
        }
        while let Some((key, value)) = iter.item() {
            if !f(key, value) {
                return Ok(());
            }
            if range.reverse { iter.prev() } else { iter.next() }
        }
        iter.status().map_err(self.failure())
    }

    /// Adds the new value of an element to a batch, or its removal.
    pub fn stage_element(
        &self,
        batch: &mut Batch,
        space: Space,
        key: &[u8],
        value: Option<&Bytes>,
    ) -> Result<(), Error> {
        let family = self.family(space.family())?;
        match value {
            Some(value) => batch.put_raw(family, key, value),
            None => batch.delete(family, key),
        }
        Ok(())
    }

    /// An empty batch for [`Engine::write`].
    pub fn batch(&self) -> Batch {
        Batch::default()
    }

    /// Adds the new entry of a key to a batch, or its removal.
    pub fn stage(&self, batch: &mut Batch, key: &[u8], entry: Option<&Entry>) -> Result<(), Error> {
        let meta = self.family(META)?;
        match entry {
            Some(entry) => batch.put(meta, key, entry),
            None => batch.delete(meta, key),
        }
        Ok(())
    }

    /// Adds the map of databases to a batch, as opaque bytes.
    pub fn stage_databases(&self, batch: &mut Batch, databases: &[u8]) -> Result<(), Error> {
        batch.put_raw(self.family(SYSTEM)?, DATABASES_KEY, databases);
        Ok(())
    }

    /// What is to outlive the keys.
    pub fn kept(&self) -> Result<Kept, Error> {
        Ok(Kept { libraries: self.libraries()?, databases: self.databases()? })
    }

    /// The map of databases, where it was ever written.
    pub fn databases(&self) -> Result<Option<Bytes>, Error> {
        let value = self.db.get_pinned_cf(self.family(SYSTEM)?, DATABASES_KEY).map_err(self.failure())?;
        Ok(value.map(|v| Bytes::copy_from_slice(&v)))
    }

    /// Writes a batch to the memtables, all or nothing, after which the engine contains the log up to `applied`.
    pub fn write(&self, mut batch: Batch, applied: Applied) -> Result<(), Error> {
        batch.put_raw(self.family(SYSTEM)?, APPLIED_KEY, &applied.encode());
        disk::step(Point::EngineWrite, Error::io(&self.path), || {
            self.db.write_opt(batch.into_inner(), &self.write_options).map_err(self.failure())
        })
    }

    /// Whether the engine takes writes: the error for which it does not, if so. After a flush that failed for lack of space it takes none
    /// until RocksDB, which looks every five seconds, finds room for a whole memtable and has flushed what was due.
    pub fn check(&self) -> Result<(), Error> {
        self.db.write_opt(WriteBatch::default(), &self.write_options).map_err(self.failure())
    }

    /// Begins to flush what has been written so far, and returns what that is; later writes go to new memtables. Nothing may be
    /// written meanwhile. [`Engine::finish_flush`] waits for the end.
    pub fn begin_flush(&self) -> Result<Flush, Error> {
        // One that has stopped would only gather more memtables.
        self.check()?;
        let errors = self.property(properties::BACKGROUND_ERRORS)?;
        let applied = self.applied()?;
        disk::step(Point::EngineBeginFlush, Error::io(&self.path), || self.flush_memtables(false))?;
        Ok(Flush { applied, errors })
    }

    /// Returns when everything up to where a flush was begun is durable.
    pub fn finish_flush(&self, Flush { applied, errors }: Flush) -> Result<(), Error> {
        disk::step(Point::EngineFinishFlush, Error::io(&self.path), || self.wait_for_flush(errors))?;
        self.flushed_time.fetch_max(applied.time, Ordering::AcqRel);
        Ok(())
    }

    fn wait_for_flush(&self, errors: u64) -> Result<(), Error> {
        // RocksDB can wait for a flush only by beginning another one, of what was written since.
        let mut failed = None;
        while self.property(properties::NUM_IMMUTABLE_MEM_TABLE)? > 0 {
            if self.property(properties::BACKGROUND_ERRORS)? > errors {
                // Was it one for which the flush will not be tried again?
                self.check()?;
                // It is tried again and again, whatever becomes of it; others have to be flushed meanwhile.
                if failed.get_or_insert_with(Instant::now).elapsed() >= FLUSH_PATIENCE {
                    let why = "a flush has failed and is tried again; RocksDB's file LOG says why";
                    return Err(Error::io(&self.path)(std::io::Error::other(why)));
                }
            }
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }

    fn flush_memtables(&self, wait: bool) -> Result<(), Error> {
        let families = FAMILIES.map(|name| self.family(name)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.db.flush_cfs_opt(&families, &options).map_err(self.failure())
    }

    /// Makes all that was written before the call durable, and returns what that contains at least.
    pub fn flush(&self) -> Result<Applied, Error> {
        let applied = self.applied()?;
        disk::step(Point::EngineFlush, Error::io(&self.path), || self.flush_memtables(true))?;
        self.flushed_time.fetch_max(applied.time, Ordering::AcqRel);
        Ok(applied)
    }

    /// Calls `f` with the entries after `after` (exclusive; `None` = all) in byte order of the keys, expired ones
    /// included, from one consistent view, until it returns false.
    pub fn scan(&self, after: Option<&[u8]>, f: EntryVisitor<'_>) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut iter = self.db.raw_iterator_cf_opt(self.family(META)?, options);
        match after {
            Some(key) => {
                iter.seek(key);
                if iter.key() == Some(key) {
                    iter.next();
                }
            }
            None => iter.seek_to_first(),
        }
        while let Some((key, value)) = iter.item() {
            let entry = Entry::decode(value).ok_or_else(|| self.bad_entry(key))?;
            if !f(key, entry)? {
                return Ok(());
            }
            iter.next();
        }
        iter.status().map_err(self.failure())
    }

    /// The first and the last key in byte order; `None` for an empty engine.
    pub fn key_range(&self) -> Result<Option<(Bytes, Bytes)>, Error> {
        let mut iter = self.db.raw_iterator_cf(self.family(META)?);
        iter.seek_to_first();
        let low = iter.key().map(Bytes::copy_from_slice);
        // The next seek forgets it.
        iter.status().map_err(self.failure())?;
        iter.seek_to_last();
        let high = iter.key().map(Bytes::copy_from_slice);
        iter.status().map_err(self.failure())?;
        Ok(low.zip(high))
    }

    /// Hard-links the engine as it is on disk, that is, as of the last flush, into the new folder `path`.
    pub fn checkpoint(&self, path: &Path) -> Result<(), Error> {
        disk::step(Point::EngineCheckpoint, Error::io(path), || {
            let checkpoint = Checkpoint::new(&self.db).map_err(self.failure())?;
            checkpoint.create_checkpoint_with_log_size(path, NO_FLUSH).map_err(Error::rocksdb(path))
        })
    }

    /// RocksDB's estimate of the number of keys: overwritten and deleted ones may count twice.
    pub fn estimated_keys(&self) -> Result<u64, Error> {
        let count =
            self.db.property_int_value_cf(self.family(META)?, properties::ESTIMATE_NUM_KEYS).map_err(self.failure())?;
        Ok(count.unwrap_or(0))
    }

    /// A number that RocksDB keeps, summed over the families.
    fn property(&self, name: &properties::PropName) -> Result<u64, Error> {
        let mut sum = 0;
        for family in FAMILIES {
            let value = self.db.property_int_value_cf(self.family(family)?, name);
            sum += value.map_err(self.failure())?.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Calls `f` with the entries before `before` (inclusive; `None` = all) from the last to the first, expired ones included, from one
    /// consistent view, until it returns false.
    pub fn scan_back(&self, before: Option<&[u8]>, f: EntryVisitor<'_>) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut iter = self.db.raw_iterator_cf_opt(self.family(META)?, options);
        match before {
            Some(key) => iter.seek_for_prev(key),
            None => iter.seek_to_last(),
        }
        while let Some((key, value)) = iter.item() {
            let entry = Entry::decode(value).ok_or_else(|| self.bad_entry(key))?;
            if !f(key, entry)? {
                return Ok(());
            }
            iter.prev();
        }
        iter.status().map_err(self.failure())
    }

    /// Rewrites what is on disk; with keys, the entries from the first to the last only, and all elements, which stand in another order.
    /// Ends early when background work is stopped.
    pub fn compact(&self, keys: Option<(&[u8], &[u8])>) -> Result<(), Error> {
        let (first, last) = keys.unzip();
        self.db.compact_range_cf(self.family(META)?, first, last);
        for space in [Space::Data, Space::Score] {
            self.db.compact_range_cf(self.family(space.family())?, None::<&[u8]>, None::<&[u8]>);
        }
        // RocksDB does not say here what came of it.
        self.check_background()
    }

    /// What it takes on disk and in memory.
    pub fn sizes(&self) -> Result<EngineSizes, Error> {
        Ok(EngineSizes {
            files: self.property(properties::LIVE_SST_FILES_SIZE)?,
            memtables: self.property(properties::CUR_SIZE_ALL_MEM_TABLES)?,
            table_readers: self.property(properties::ESTIMATE_TABLE_READERS_MEM)?,
            pending_compaction: self.property(properties::ESTIMATE_PENDING_COMPACTION_BYTES)?,
            errors: self.property(properties::BACKGROUND_ERRORS)?,
        })
    }

    /// Stops compactions and flushes and waits for those under way: before the engine is closed or its folder goes.
    pub fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }

    /// Waits until no compaction is due. For tests and operators.
    pub fn wait_for_compactions(&self) -> Result<(), Error> {
        self.db.wait_for_compact(&WaitForCompactOptions::default()).map_err(self.failure())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A compaction filter holds the database while it runs; the last one to let go closes it, and must not be RocksDB's own thread.
        self.db.cancel_all_background_work(true);
    }
}

fn read_applied(db: &DB, path: &Path) -> Result<Applied, Error> {
    let malformed = |what: &str| Error::Malformed { path: path.to_path_buf(), what: what.to_string() };
    let system = db.cf_handle(SYSTEM).ok_or_else(|| malformed("column family missing"))?;
    let value = db
        .get_pinned_cf(system, APPLIED_KEY)
        .map_err(Error::rocksdb(path))?
        .ok_or_else(|| malformed("no position inside"))?;
    Applied::decode(&value).ok_or_else(|| malformed("malformed position"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(index: u64) -> Applied {
        Applied { position: Position { index, ..Position::START }, time: index * 1000 }
    }

    #[test]
    fn position_and_data_are_one() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::new(EngineOptions::default()));
        let path = dir.path().join("engine");
        let engine = Engine::create(&path, &shared, applied(0), &Kept::default()).unwrap();
        let put = |engine: &Engine, index: u64| {
            let mut batch = engine.batch();
            let entry = Entry::string(Bytes::from(index.to_string()), None);
            engine.stage(&mut batch, b"k", Some(&entry)).unwrap();
            engine.write(batch, applied(index)).unwrap();
        };
        put(&engine, 1);
        assert_eq!(engine.flush().unwrap(), applied(1));
        put(&engine, 2);
        engine.stop_background_work();
        drop(engine);
        // Whether the close flushed the second write or not: position and data tell of the same record.
        let (engine, at) = Engine::open(&path, &shared).unwrap();
        assert_eq!(engine.get(b"k").unwrap().unwrap().value, at.position.index.to_string());
        assert!(at == applied(1) || at == applied(2));
    }

    #[test]
    fn a_folder_that_is_no_engine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::new(EngineOptions::default()));
        assert!(Engine::open(&dir.path().join("missing"), &shared).is_err());
        assert!(Engine::open(dir.path(), &shared).is_err());
    }
}
