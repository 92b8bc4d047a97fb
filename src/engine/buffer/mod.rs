//! The write buffer of an engine: what was written since RocksDB was last given everything. Hot path.
//!
//! RocksDB's own memtables are sorted at every insertion, which was nearly half of what a write cost. Here writes go into hash tables
//! ([`table`]), and RocksDB is given a whole buffer at once, sorted, when the slot is flushed.
//!
//! Invariants:
//!
//! 1. **RocksDB contains the log up to one record.** It is given whole buffers, each as one batch with the position that the buffer ends
//!    at. Whenever RocksDB flushes or closes by itself, what is on disk is the state after exactly one record.
//! 2. **What is in a buffer hides what RocksDB holds, and the active buffer hides the frozen one.** A key's newest value is in the first
//!    of the three that knows the key. A frozen buffer is let go of only after RocksDB has all of it.
//! 3. Readers take the pair of buffers first and look into RocksDB after that: whatever has left the buffers by then is in RocksDB. Who took
//!    the pair before a buffer was frozen finds in it what was there when it was frozen, for as long as it likes. So a key that
//!    nobody writes meanwhile (its stripe is held) reads the same however buffers move.
//! 4. What has left the buffers last stays in [`recent`], for reads of single keys: they look there after the buffers and before RocksDB.
//!    It has a whole buffer before that is let go of, so it never knows an older value than RocksDB does.

mod merge;
mod recent;
mod table;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};

use super::Applied;
use super::batch::{Batch, Family};
pub(super) use merge::{Merge, Range};
pub(super) use recent::{Budget, Recent};
use table::Table;
pub(super) use table::{Value, hash};

/// Keys that are put at a time. Most of what that takes is waiting for memory, and the processor waits for that of many keys at once
/// ([`Table::fetch`]); they must not be so many that the first is out of its caches before it is put.
const RUN: usize = 32;

/// What was written between two moments.
#[derive(Default)]
pub(super) struct Buffer {
    tables: RwLock<Tables>,
}

type Tables = [Table; Family::ALL.len()];

impl Buffer {
    /// An empty one that takes this one's place.
    pub fn successor(&self) -> Buffer {
        Buffer { tables: RwLock::new(self.tables.read().each_ref().map(Table::successor)) }
    }

    /// Makes the changes of a batch: readers see all of them or none.
    pub fn apply(&self, batch: &Batch) {
        let mut changes = batch.changes();
        let mut tables = self.tables.write();
        let mut hashes = [0; RUN];
        let mut found = RUN;
        while found == RUN {
            found = 0;
            for (place, (family, key, _)) in hashes.iter_mut().zip(changes.clone()) {
                *place = hash(key);
                tables[family as usize].fetch(*place);
                found += 1;
            }
            for (hash, (family, key, value)) in hashes[..found].iter().zip(changes.by_ref()) {
                tables[family as usize].put(*hash, key, value);
            }
        }
    }

    /// What `f` makes of a key's value; `None` when nothing is known of the key, of which this is the [`hash`].
    pub fn get<T>(&self, family: Family, hash: u32, key: &[u8], f: impl FnOnce(Value<'_>) -> T) -> Option<T> {
        self.tables.read()[family as usize].get(hash, key).map(f)
    }

    /// [`Table::range`].
    fn range(
        &self,
        family: Family,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        f: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) {
        self.tables.read()[family as usize].range(bounds, reverse, f);
    }

    /// Calls `f` with everything, in the order of families and keys, a run of keys of one family at a time. For a buffer that nobody writes any more.
    pub fn sorted(&self, mut f: impl FnMut(Family, &[(&[u8], Option<&[u8]>)])) {
        let tables = self.tables.read();
        let mut run = Vec::with_capacity(RUN);
        for (family, table) in Family::ALL.into_iter().zip(&*tables) {
            let mut sorted = table.sorted().map(|(key, value)| (key, value.bytes()));
            loop {
                run.clear();
                run.extend(sorted.by_ref().take(RUN));
                if run.is_empty() {
                    break;
                }
                f(family, &run);
            }
        }
    }

    fn is_empty(&self, family: Family) -> bool {
        self.tables.read()[family as usize].is_empty()
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.tables.read().iter().map(Table::bytes).sum()
    }
}

/// A buffer that is written no more, on its way into RocksDB.
pub(super) struct Frozen {
    pub buffer: Arc<Buffer>,
    /// Up to where RocksDB contains the log when it has the buffer.
    pub applied: Applied,
}

/// The buffers at one moment.
#[derive(Default)]
pub(super) struct Buffers {
    pub active: Arc<Buffer>,
    pub frozen: Option<Arc<Frozen>>,
}

impl Buffers {
    /// From the one that hides the others.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Buffer>> {
        std::iter::once(&self.active).chain(self.frozen.as_ref().map(|frozen| &frozen.buffer))
    }

    /// What `f` makes of a key's value; `None` when no buffer knows of the key.
    pub fn get<T>(&self, family: Family, hash: u32, key: &[u8], f: impl Fn(Value<'_>) -> T) -> Option<T> {
        self.iter().find_map(|buffer| buffer.get(family, hash, key, &f))
    }

    /// For reading several keys. Writes wait meanwhile.
    pub fn reading(&self) -> Reading<'_> {
        Reading {
            active: self.active.tables.read(),
            frozen: self.frozen.as_ref().map(|frozen| frozen.buffer.tables.read()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.iter().map(|buffer| buffer.bytes()).sum()
    }

    /// Keys of a family that exist and that are deleted, once for each buffer that knows them.
    pub fn counts(&self, family: Family) -> (u64, u64) {
        self.iter().fold((0, 0), |(live, deleted), buffer| {
            let table = &buffer.tables.read()[family as usize];
            (live + (table.len() - table.deleted()) as u64, deleted + table.deleted() as u64)
        })
    }
}

/// [`Buffers::reading`].
pub(super) struct Reading<'b> {
    active: RwLockReadGuard<'b, Tables>,
    frozen: Option<RwLockReadGuard<'b, Tables>>,
}

impl Reading<'_> {
    /// [`Buffers::get`].
    pub fn get(&self, family: Family, hash: u32, key: &[u8]) -> Option<Value<'_>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen[family as usize].get(hash, key));
        self.active[family as usize].get(hash, key).or_else(frozen)
    }
}

impl Value<'_> {
    /// A copy of its own, unless it is shared already; `None` when the key is deleted.
    pub fn to_bytes(self) -> Option<Bytes> {
        match self {
            Value::Deleted => None,
            Value::Inline(bytes) => Some(Bytes::copy_from_slice(bytes)),
            Value::Shared(bytes) => Some(bytes.clone()),
        }
    }
}
