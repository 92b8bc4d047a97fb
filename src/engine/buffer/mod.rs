//! The write buffer of an engine: what was written since RocksDB was last given everything, and what it was given last. Hot path.
//!
//! RocksDB's own memtables are sorted at every insertion, which was nearly half of what a write cost. Here writes go into hash tables
//! ([`table`]), and RocksDB is given all that has come since the last time at once, sorted, when the slot is flushed.
//!
//! A flush *freezes* what has come, gives it to RocksDB (it *drains*), and keeps it: a flush does not end the interest in what was written. A counter
//! is incremented again, a field is set again, what was stored is fetched; finding it here costs a small part of what RocksDB takes.
//! What was written first goes first, over all engines ([`Budget`]).
//!
//! Invariants:
//!
//! 1. **RocksDB contains the log up to one record.** It is given whole generations (what was written between two freezes), each as one batch with the
//!    position that it ends at. Whenever RocksDB flushes or closes by itself, what is on disk is the state after exactly one record.
//! 2. **A key that is known here reads here as it was last written**: the index leads to its newest record and to no other. A key is forgotten with
//!    that record, and only when RocksDB has it: so what is not known here is in RocksDB, and nothing older comes to light.
//! 3. **A generation stays whole for who reads ranges of it**: its keys, each with its last value of the generation, however records move and go meanwhile.
//!    Such a reader takes the generations that RocksDB lacks first and looks into RocksDB after that: whatever RocksDB is given later it finds
//!    in the generation it holds. So a key that nobody writes meanwhile (its stripe is held) reads the same.
//! 4. What is frozen is never written again: it drains, and ranges of it are read, without the lock that writers need.

mod budget;
mod index;
mod merge;
mod order;
mod records;
mod table;

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Applied;
use super::batch::{Batch, Family};
pub(super) use budget::Budget;
pub(super) use merge::{Merge, Range};
use order::Bounds;
use records::Lane;
pub(super) use records::Value;
use table::Table;
pub(super) use table::hash;

/// Keys that are put at a time. Most of what that takes is waiting for memory, and the processor waits for that of many keys at once
/// ([`Table::fetch`]); they must not be so many that the first is out of its caches before it is put.
const RUN: usize = 32;

/// Keys that are forgotten at a time.
const FORGOTTEN: usize = 256;

/// See the module.
pub(super) struct Buffer {
    tables: RwLock<Tables>,
    /// Held by whoever forgets a piece.
    forgetting: Mutex<()>,
    budget: Arc<Budget>,
    own: Weak<Buffer>,
}

#[derive(Default)]
struct Tables {
    families: [Table; Family::ALL.len()],
    /// What comes now belongs to this one.
    active: Arc<Generation>,
    /// What RocksDB is yet to be given.
    frozen: Option<Arc<Generation>>,
}

/// What is written between two freezes: while it is the active one, it stands in the tables.
#[derive(Default)]
pub(super) struct Generation {
    frozen: OnceLock<Arc<Frozen>>,
}

/// A generation that is written no more.
pub(super) struct Frozen {
    /// Up to where RocksDB contains the log when it has this.
    pub applied: Applied,
    families: [table::Frozen; Family::ALL.len()],
}

impl Buffer {
    /// An empty one.
    pub fn new(budget: &Arc<Budget>) -> Arc<Buffer> {
        Arc::new_cyclic(|own| Buffer {
            tables: RwLock::default(),
            forgetting: Mutex::default(),
            budget: budget.clone(),
            own: own.clone(),
        })
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
                tables.families[family as usize].fetch(*place);
                found += 1;
            }
            for (hash, (family, key, value)) in hashes[..found].iter().zip(changes.by_ref()) {
                tables.families[family as usize].put(*hash, key, value);
            }
        }
    }

    /// What `f` makes of a key's value; `None` when nothing is known of the key.
    pub fn get<T>(&self, family: Family, key: &[u8], f: impl FnOnce(Value<'_>) -> T) -> Option<T> {
        let hash = hash(key);
        self.tables.read().families[family as usize].get(hash, key).map(f)
    }

    /// For reading several keys. Writes wait meanwhile.
    pub fn reading(&self) -> Reading<'_> {
        Reading(self.tables.read())
    }

    /// Begins a new generation. `applied` is what RocksDB contains when it is given the one that ends. False: the one before that
    /// is yet to be drained.
    pub fn freeze(&self, applied: Applied) -> bool {
        let mut tables = self.tables.write();
        if tables.frozen.is_some() {
            return false;
        }
        let families = tables.families.each_mut().map(Table::freeze);
        let generation = std::mem::take(&mut tables.active);
        generation.frozen.get_or_init(|| Arc::new(Frozen { applied, families }));
        tables.frozen = Some(generation);
        true
    }

    /// What RocksDB is to be given next, if a generation is frozen.
    pub fn frozen(&self) -> Option<Arc<Frozen>> {
        self.tables.read().frozen()
    }

    /// RocksDB has the frozen generation. Not twice at the same time.
    pub fn drained(&self) {
        let Some(frozen) = self.frozen() else { return };
        for (family, table) in Family::ALL.into_iter().zip(&frozen.families) {
            for lane in Lane::ALL.into_iter().filter(|lane| !is_kept(family, *lane)) {
                table.piece_bytes(lane).for_each(|_| self.forget_oldest(family, lane));
            }
        }
        {
            let mut tables = self.tables.write();
            tables.families.iter_mut().for_each(Table::forget_shared);
            // From here on another one may be frozen.
            tables.frozen = None;
        }
        let mut kept = Vec::new();
        for (family, table) in Family::ALL.into_iter().zip(&frozen.families).filter(|(f, _)| is_kept(*f, Lane::Short)) {
            let pieces: Vec<_> = table.piece_bytes(Lane::Short).collect();
            let count = pieces.len();
            // Those of both families that were written at the same time go at the same time.
            kept.extend(pieces.into_iter().enumerate().map(|(nth, bytes)| (nth * 1000 / count, family, bytes)));
        }
        kept.sort_by_key(|(age, ..)| *age);
        self.budget.keep(&self.own, kept.into_iter().map(|(_, family, bytes)| (family, bytes)));
    }

    /// Forgets the keys whose newest records are in the first piece of a lane, a few at a time: nobody has to wait for all of them.
    fn forget_oldest(&self, family: Family, lane: Lane) {
        let _forgetting = self.forgetting.lock();
        let Some((number, piece)) = self.tables.read().families[family as usize].oldest(lane) else { return };
        let mut records = records::in_piece(lane, number, &piece).map(|(key, place)| (hash(key), place));
        let mut run = Vec::with_capacity(FORGOTTEN);
        loop {
            run.clear();
            run.extend(records.by_ref().take(FORGOTTEN));
            let mut tables = self.tables.write();
            let table = &mut tables.families[family as usize];
            table.forget(&run);
            if run.len() < FORGOTTEN {
                return table.drop_oldest(lane);
            }
            RwLockWriteGuard::unlock_fair(tables);
        }
    }

    /// Forgets what RocksDB has.
    pub fn forget_recent(&self) {
        self.budget.forget(&self.own);
    }

    /// Memory of what RocksDB lacks, about.
    pub fn bytes(&self) -> usize {
        let active = self.tables.read().families.iter().map(Table::bytes).sum::<usize>();
        // Somebody may be putting it in order, for whom nobody else should have to wait.
        active + self.frozen().map_or(0, |frozen| frozen.bytes())
    }

    /// Keys of a family that exist and that are deleted, of what RocksDB lacks, once for each generation that knows them.
    pub fn counts(&self, family: Family) -> (u64, u64) {
        let tables = self.tables.read();
        let active = &tables.families[family as usize];
        let (mut len, mut deleted) = (active.len(), active.deleted());
        if let Some(frozen) = tables.frozen() {
            len += frozen.families[family as usize].len;
            deleted += frozen.families[family as usize].deleted;
        }
        ((len - deleted) as u64, deleted as u64)
    }

    /// The generations that RocksDB lacks and that have keys of a family, the newest first.
    fn generations(&self, family: Family) -> impl Iterator<Item = Arc<Generation>> {
        let tables = self.tables.read();
        let active = (tables.families[family as usize].len() > 0).then(|| tables.active.clone());
        let frozen = tables.frozen.as_ref();
        let known =
            |frozen: &&Arc<Generation>| frozen.frozen.get().is_some_and(|f| f.families[family as usize].len > 0);
        active.into_iter().chain(frozen.filter(known).cloned())
    }

    /// Calls `f` with the keys of a generation that are in a range, as [`Table::range`].
    fn range(
        &self,
        generation: &Generation,
        family: Family,
        (bounds, reverse): (Bounds<'_>, bool),
        f: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) {
        let tables = self.tables.read();
        match generation.frozen.get() {
            // It is the active one, and stays it while the tables are locked.
            None => tables.families[family as usize].range(bounds, reverse, f),
            Some(frozen) => {
                drop(tables);
                frozen.families[family as usize].range(bounds, reverse, f);
            }
        }
    }
}

impl Tables {
    /// [`Buffer::frozen`].
    fn frozen(&self) -> Option<Arc<Frozen>> {
        self.frozen.as_ref()?.frozen.get().cloned()
    }
}

impl Frozen {
    /// Calls `f` with everything, in the order of families and keys.
    pub fn sorted(&self, mut f: impl FnMut(Family, &[u8], Option<&[u8]>)) {
        for (family, table) in Family::ALL.into_iter().zip(&self.families) {
            table.sorted(|key, value| f(family, key, value.bytes()));
        }
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.families.iter().map(table::Frozen::bytes).sum()
    }
}

/// Whether records stay when RocksDB has them: of the families that are read key by key those that do not take the room of many.
fn is_kept(family: Family, lane: Lane) -> bool {
    matches!(family, Family::Meta | Family::Data) && lane == Lane::Short
}

/// [`Buffer::reading`].
pub(super) struct Reading<'b>(RwLockReadGuard<'b, Tables>);

impl Reading<'_> {
    /// [`Buffer::get`].
    pub fn get(&self, family: Family, key: &[u8]) -> Option<Value<'_>> {
        self.0.families[family as usize].get(hash(key), key)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.drop_dead();
    }
}
