//! The engine of a slot: a RocksDB without a WAL of its own, which always knows which binlog record it contains up to.
//!
//! Writes are gathered in a [`buffer`] and given to RocksDB when the slot is flushed, in one batch that also sets the slot's [`Applied`]
//! state (position and record time); all column families are flushed atomically. So whatever a crash leaves on disk is the state after
//! exactly one record.
//! The engine knows nothing of commands, replication or sockets. Encodings: docs/encodings.md.

mod batch;
mod buffer;
mod damage;
pub mod element;
mod encoding;
mod error;
pub mod inspect;
mod options;
mod places;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, DB, DBRawIterator, FlushOptions, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions,
    properties,
};

use crate::binlog::Position;
use crate::disk::{self, Point};
use batch::Family;
use buffer::{Buffer, Merge, Range, Value};
use damage::Damage;
use element::OpenDb;

pub use batch::Batch;
pub use element::Space;
pub use encoding::{Collection, Entry, Kind, MAX_CHUNKED_LEN};
pub use error::Error;
pub use options::{Compression, EXPIRY_GRACE_MS, EngineOptions, Shared};
pub use places::Found;

/// A checkpoint flushes memtables when RocksDB's own log is larger than this; we have none.
const NO_FLUSH: u64 = u64::MAX;
/// How often a flush under way is looked at.
const FLUSH_POLL: Duration = Duration::from_millis(2);
/// How long a flush that has failed is waited for while RocksDB tries it again.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);
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
    /// Write buffers, RocksDB's and those in front of it.
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

/// One open RocksDB and what it has yet to be given.
pub struct Engine {
    db: Arc<DB>,
    path: PathBuf,
    /// What is not in RocksDB, and what went there last. Frozen while `written` is locked.
    buffer: Arc<Buffer>,
    /// Locked by whoever writes.
    written: Mutex<Written>,
    /// Held while a generation goes into RocksDB.
    draining: Mutex<()>,
    write_options: WriteOptions,
    /// Time of the last record that is flushed, ms. What expired well before it is dropped by compaction.
    flushed_time: Arc<AtomicU64>,
    damage: Damage,
    /// Keeps the caches alive that the options refer to.
    _shared: Arc<Shared>,
}

/// What RocksDB and the buffer contain together.
#[derive(Default)]
struct Written {
    /// `None` until it is known.
    applied: Option<Applied>,
    /// Whether the buffer's active generation holds a part of it.
    since_freeze: bool,
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
        let mut batch = Batch::default();
        batch.libraries(&kept.libraries);
        if let Some(databases) = &kept.databases {
            batch.databases(databases);
        }
        engine.write(batch, applied)?;
        engine.flush()?;
        Ok(engine)
    }

    /// Opens an engine that exists. A folder that is none, or that does not say what it contains, is refused.
    pub fn open(path: &Path, shared: &Arc<Shared>) -> Result<(Engine, Applied), Error> {
        let engine = disk::step(Point::EngineOpen, Error::io(path), || Engine::open_db(path, shared, false))?;
        let applied = engine.applied()?;
        engine.written.lock().applied = Some(applied);
        engine.flushed_time.store(applied.time, Ordering::Release);
        Ok((engine, applied))
    }

    fn open_db(path: &Path, shared: &Arc<Shared>, create: bool) -> Result<Engine, Error> {
        let flushed_time = Arc::new(AtomicU64::new(0));
        let db_options = shared.db_options(create);
        let open = OpenDb::default();
        let families = Family::ALL.map(|family| (family.name(), shared.family_options(family, &flushed_time, &open)));
        let db = Arc::new(DB::open_cf_with_opts(&db_options, path, families).map_err(Error::rocksdb(path))?);
        open.get_or_init(|| Arc::downgrade(&db));
        Ok(Engine::of(db, path, flushed_time, shared))
    }

    fn of(db: Arc<DB>, path: &Path, flushed_time: Arc<AtomicU64>, shared: &Arc<Shared>) -> Engine {
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        Engine {
            db,
            path: path.to_path_buf(),
            buffer: Buffer::new(&shared.recent),
            written: Mutex::default(),
            draining: Mutex::default(),
            write_options,
            flushed_time,
            damage: Damage::default(),
            _shared: shared.clone(),
        }
    }

    /// What the engine in the folder `path` contains, without opening it for writing.
    pub fn applied_in(path: &Path) -> Result<Applied, Error> {
        let options = rocksdb::Options::default();
        let db = DB::open_cf_for_read_only(&options, path, [Family::System.name(), Family::Meta.name()], false)
            .map_err(Error::rocksdb(path))?;
        read_applied(&db, path)
    }

    /// The engine's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, Error> {
        let name = family.name();
        self.db
            .cf_handle(name)
            .ok_or_else(|| Error::Malformed { path: self.path.clone(), what: format!("column family {name} missing") })
    }

    /// What the engine contains.
    pub fn applied(&self) -> Result<Applied, Error> {
        let written = self.written.lock().applied;
        written.map_or_else(|| read_applied(&self.db, &self.path), Ok)
    }

    /// What `f` makes of a value that is in memory as it was written; `None` when nothing is known of the key there.
    fn known<T>(&self, family: Family, key: &[u8], f: impl FnOnce(Value<'_>) -> T) -> Option<T> {
        self.buffer.get(family, key, f)
    }

    /// What `f` makes of a value in RocksDB.
    fn flushed<T>(&self, family: Family, key: &[u8], f: impl Fn(&[u8]) -> T) -> Result<Option<T>, Error> {
        let value = self.db.get_pinned_cf(self.family(family)?, key).map_err(self.failure())?;
        Ok(value.map(|value| f(&value)))
    }

    /// A value that is not an entry.
    fn raw(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.known(family, key, |value| value.to_bytes()) {
            Some(known) => Ok(known),
            None => self.flushed(family, key, Bytes::copy_from_slice),
        }
    }

    /// The entry of a key, expired or not.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        match self.get_known(key)? {
            Some(known) => Ok(known),
            None => self.get_flushed(key),
        }
    }

    /// [`Engine::get`], if that is in memory because it was written lately: found in little time.
    pub fn get_known(&self, key: &[u8]) -> Result<Option<Option<Entry>>, Error> {
        let known = self.known(Family::Meta, key, |value| match value {
            Value::Deleted => Some(None),
            Value::Inline(bytes) => Entry::decode(bytes).map(Some),
            Value::Shared(bytes) => Entry::decode_shared(bytes).map(Some),
        });
        known.map(|known| known.ok_or_else(|| self.bad_entry(key))).transpose()
    }

    /// [`Engine::get`] of what [`Engine::get_known`] does not know.
    pub fn get_flushed(&self, key: &[u8]) -> Result<Option<Entry>, Error> {
        let entry = self.flushed(Family::Meta, key, Entry::decode)?;
        entry.map(|entry| entry.ok_or_else(|| self.bad_entry(key))).transpose()
    }

    fn bad_entry(&self, key: &[u8]) -> Error {
        let what = format!("malformed entry of key \"{}\"", key.escape_ascii());
        Error::Malformed { path: self.path.clone(), what }
    }

    /// The libraries of functions that the slot keeps for the node; empty = none.
    pub fn libraries(&self) -> Result<Bytes, Error> {
        Ok(self.raw(Family::System, LIBRARIES_KEY)?.unwrap_or_default())
    }

    /// The value of an element.
    pub fn element(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.raw(space.into(), key)
    }

    /// As [`Engine::get_known`].
    pub fn element_known(&self, space: Space, key: &[u8]) -> Option<Option<Bytes>> {
        self.known(space.into(), key, |value| value.to_bytes())
    }

    /// As [`Engine::get_flushed`].
    pub fn element_flushed(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.flushed(space.into(), key, Bytes::copy_from_slice)
    }

    /// Calls `f` with the elements whose keys are in `range`, until it returns false. What nobody writes meanwhile reads as one
    /// view. With `fixed`, elements may be written as soon as that is called, which is after the first of them were read; the others
    /// read as they were then.
    pub fn elements(
        &self,
        space: Space,
        range: &ElementRange<'_>,
        fixed: Option<&mut dyn FnMut()>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let (lower, upper) = (Bound::Included(range.lower), Bound::Excluded(range.upper));
        let buffered = Range { family: space.into(), lower, upper, reverse: range.reverse };
        let buffered = Merge::new(&self.buffer, buffered);
        let mut iter = self.element_iter(space, range.lower, range.upper, range.reverse)?;
        buffered.run(&mut iter, fixed, f).map_err(self.failure())
    }

    /// What RocksDB has of the elements from `lower` up to `upper`, exclusive: stands at the first of them, or at the last.
    fn element_iter(
        &self,
        space: Space,
        lower: &[u8],
        upper: &[u8],
        reverse: bool,
    ) -> Result<DBRawIterator<'_>, Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(lower);
        options.set_iterate_upper_bound(upper);
        let mut iter = self.db.raw_iterator_cf_opt(self.family(space.into())?, options);
        if reverse {
            iter.seek_to_last()
        } else {
            iter.seek_to_first()
        }
        Ok(iter)
    }

    /// What is to outlive the keys.
    pub fn kept(&self) -> Result<Kept, Error> {
        Ok(Kept { libraries: self.libraries()?, databases: self.databases()? })
    }

    /// The map of databases, where it was ever written.
    pub fn databases(&self) -> Result<Option<Bytes>, Error> {
        self.raw(Family::System, DATABASES_KEY)
    }

    /// Makes the changes of a batch, all or nothing, after which the engine contains the log up to `applied`.
    pub fn write(&self, batch: Batch, applied: Applied) -> Result<(), Error> {
        let mut written = self.written.lock();
        disk::step(Point::EngineWrite, Error::io(&self.path), || {
            // A buffer that RocksDB will not take must not grow.
            self.check()?;
            self.buffer.apply(&batch);
            *written = Written { applied: Some(applied), since_freeze: true };
            Ok(())
        })
    }

    /// Forgets what was flushed last, so that it is read from RocksDB.
    pub fn forget_recent(&self) {
        self.buffer.forget_recent();
    }

    /// Bytes of memory that hold what RocksDB has yet to be given.
    pub fn buffered(&self) -> usize {
        self.buffer.bytes()
    }

    /// Whether the engine takes writes: the error for which it does not, if so. After a flush that failed for lack of space it takes none
    /// until RocksDB, which looks every five seconds, finds room for a whole memtable and has flushed what was due.
    pub fn check(&self) -> Result<(), Error> {
        self.db.write_opt(WriteBatch::default(), &self.write_options).map_err(self.failure())
    }

    /// Begins to flush what has been written so far, and returns what that is; later writes are of a new generation.
    /// [`Engine::finish_flush`] does the rest.
    pub fn begin_flush(&self) -> Result<Flush, Error> {
        // One that has stopped would only gather more.
        self.check()?;
        let errors = self.property(properties::BACKGROUND_ERRORS)?;
        let applied = disk::step(Point::EngineBeginFlush, Error::io(&self.path), || self.freeze())?;
        Ok(Flush { applied, errors })
    }

    /// Returns when everything up to where a flush was begun is durable.
    pub fn finish_flush(&self, Flush { applied, errors }: Flush) -> Result<(), Error> {
        disk::step(Point::EngineFinishFlush, Error::io(&self.path), || {
            self.drain()?;
            self.flush_memtables(false)?;
            self.wait_for_flush(errors)
        })?;
        self.flushed_time.fetch_max(applied.time, Ordering::AcqRel);
        Ok(())
    }

    /// Begins a new generation. Returns what RocksDB contains when it is given the present one.
    fn freeze(&self) -> Result<Applied, Error> {
        // One that an earlier flush could not give it.
        self.drain()?;
        let mut written = self.written.lock();
        if let Some(frozen) = self.buffer.frozen() {
            // By somebody else, just now.
            return Ok(frozen.applied);
        }
        let applied = match written.applied {
            Some(applied) => applied,
            None => read_applied(&self.db, &self.path)?,
        };
        if written.since_freeze {
            written.since_freeze = !self.buffer.freeze(applied);
        }
        Ok(applied)
    }

    /// Gives RocksDB what is frozen.
    fn drain(&self) -> Result<(), Error> {
        let _draining = self.draining.lock();
        let Some(frozen) = self.buffer.frozen() else { return Ok(()) };
        let mut batch = WriteBatch::with_capacity_bytes(frozen.bytes());
        let families = Family::ALL.map(|family| self.family(family)).into_iter().collect::<Result<Vec<_>, _>>()?;
        frozen.sorted(|family, key, value| match value {
            Some(value) => batch.put_cf(families[family as usize], key, value),
            None => batch.delete_cf(families[family as usize], key),
        });
        batch.put_cf(self.family(Family::System)?, APPLIED_KEY, frozen.applied.encode());
        self.db.write_opt(batch, &self.write_options).map_err(self.failure())?;
        // If RocksDB wants writers to be slower, it has the next one wait for what this one wrote. That must not be a commit.
        self.check()?;
        self.buffer.drained();
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
        let families = Family::ALL.map(|family| self.family(family)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.db.flush_cfs_opt(&families, &options).map_err(self.failure())
    }

    /// Makes all that was written before the call durable, and returns what that contains at least.
    pub fn flush(&self) -> Result<Applied, Error> {
        let applied = disk::step(Point::EngineFlush, Error::io(&self.path), || {
            let applied = self.freeze()?;
            self.drain()?;
            self.flush_memtables(true)?;
            Ok(applied)
        })?;
        self.flushed_time.fetch_max(applied.time, Ordering::AcqRel);
        Ok(applied)
    }

    /// Calls `f` with the entries after `after` (exclusive; `None` = all) in byte order of the keys, expired ones
    /// included, until it returns false. A key that is written meanwhile comes as it was before or after that.
    pub fn scan(&self, after: Option<&[u8]>, f: EntryVisitor<'_>) -> Result<(), Error> {
        self.entries((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded), false, f)
    }

    /// Calls `f` with the entries before `before` (inclusive; `None` = all) from the last to the first, as [`Engine::scan`] does.
    pub fn scan_back(&self, before: Option<&[u8]>, f: EntryVisitor<'_>) -> Result<(), Error> {
        self.entries((Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Included)), true, f)
    }

    fn entries(
        &self,
        (lower, upper): (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        f: EntryVisitor<'_>,
    ) -> Result<(), Error> {
        let buffered = Merge::new(&self.buffer, Range { family: Family::Meta, lower, upper, reverse });
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut iter = self.db.raw_iterator_cf_opt(self.family(Family::Meta)?, options);
        match (lower, upper) {
            (Bound::Excluded(key) | Bound::Included(key), _) if !reverse => {
                iter.seek(key);
                if matches!(lower, Bound::Excluded(_)) && iter.key() == Some(key) {
                    iter.next();
                }
            }
            (_, Bound::Included(key)) if reverse => iter.seek_for_prev(key),
            _ if reverse => iter.seek_to_last(),
            _ => iter.seek_to_first(),
        }
        let mut result = Ok(());
        let read = buffered.run(&mut iter, None, &mut |key, value| {
            let more = Entry::decode(value).ok_or_else(|| self.bad_entry(key)).and_then(|entry| f(key, entry));
            more.unwrap_or_else(|e| {
                result = Err(e);
                false
            })
        });
        read.map_err(self.failure())?;
        result
    }

    /// The first and the last key in byte order; `None` for an empty engine.
    pub fn key_range(&self) -> Result<Option<(Bytes, Bytes)>, Error> {
        let (mut low, mut high) = (None, None);
        self.scan(None, &mut |key, _| {
            low = Some(Bytes::copy_from_slice(key));
            Ok(false)
        })?;
        self.scan_back(None, &mut |key, _| {
            high = Some(Bytes::copy_from_slice(key));
            Ok(false)
        })?;
        Ok(low.zip(high))
    }

    /// Hard-links the engine as it is on disk, that is, as of the last flush, into the new folder `path`.
    pub fn checkpoint(&self, path: &Path) -> Result<(), Error> {
        disk::step(Point::EngineCheckpoint, Error::io(path), || {
            let checkpoint = Checkpoint::new(&self.db).map_err(self.failure())?;
            checkpoint.create_checkpoint_with_log_size(path, NO_FLUSH).map_err(Error::rocksdb(path))
        })
    }

    /// An estimate of the number of keys: those in the write buffer are taken for new ones, and those deleted in it for such as were there.
    pub fn estimated_keys(&self) -> Result<u64, Error> {
        let (live, deleted) = self.buffer.counts(Family::Meta);
        let meta = self.family(Family::Meta)?;
        let count = self.db.property_int_value_cf(meta, properties::ESTIMATE_NUM_KEYS).map_err(self.failure())?;
        Ok((count.unwrap_or(0) + live).saturating_sub(deleted))
    }

    /// A number that RocksDB keeps, summed over the families.
    fn property(&self, name: &properties::PropName) -> Result<u64, Error> {
        let mut sum = 0;
        for family in Family::ALL {
            let value = self.db.property_int_value_cf(self.family(family)?, name);
            sum += value.map_err(self.failure())?.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Rewrites what is on disk; with keys, the entries from the first to the last only, and all elements, which stand in another order.
    /// Ends early when background work is stopped.
    pub fn compact(&self, keys: Option<(&[u8], &[u8])>) -> Result<(), Error> {
        let (first, last) = keys.unzip();
        self.db.compact_range_cf(self.family(Family::Meta)?, first, last);
        for space in [Space::Data, Space::Score] {
            self.db.compact_range_cf(self.family(space.into())?, None::<&[u8]>, None::<&[u8]>);
        }
        // RocksDB does not say here what came of it.
        self.check_background()
    }

    /// What it takes on disk and in memory.
    pub fn sizes(&self) -> Result<EngineSizes, Error> {
        Ok(EngineSizes {
            files: self.property(properties::LIVE_SST_FILES_SIZE)?,
            memtables: self.property(properties::CUR_SIZE_ALL_MEM_TABLES)? + self.buffered() as u64,
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
    let system = db.cf_handle(Family::System.name()).ok_or_else(|| malformed("column family missing"))?;
    let value = db
        .get_pinned_cf(system, APPLIED_KEY)
        .map_err(Error::rocksdb(path))?
        .ok_or_else(|| malformed("no position inside"))?;
    Applied::decode(&value).ok_or_else(|| malformed("malformed position"))
}

#[cfg(test)]
mod tests;
