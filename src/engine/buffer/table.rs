//! One family of a write buffer: an [`index`](super::index) of hash tables over [`records`](super::records). Hot path.
//!
//! Putting a record in is one look into the hash table and one copy to the end of the memory in use, whatever the order of the
//! keys; that is several times cheaper than a place in a sorted structure of that size, where most comparisons miss the processor's
//! caches. The order is made when somebody asks for it ([`order`](super::order)).
//!
//! One index leads to the newest record of each key, whether RocksDB has that already or not. Most commands that change something look at what is
//! there first: when they then put the new value, all that is needed for that is in the processor's caches.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

use super::index::{BYTES_PER_KEY, Index, Known};
use super::order::{self, Bounds, Order};
use super::records::{Closed, Lane, Open, Place, Value};

/// Keys without an order that a writer puts in order by itself, where ranges are asked for.
const UNORDERED: usize = 4096;

/// See the module. A key that was put stays, deleted or not, until the piece of its newest record goes.
#[derive(Default)]
pub struct Table {
    index: Index,
    /// Since the table was last frozen.
    open: Open,
    /// Keys of `open`.
    len: usize,
    /// Those of them that are deleted.
    deleted: usize,
    /// Records since the order was last made.
    unordered: usize,
    /// Of `open`.
    order: Mutex<Order>,
    /// From before that: what RocksDB has already, then what was frozen last.
    kept: Closed,
}

/// What was put between two moments, of each key the last value. It does not change any more.
#[derive(Default)]
pub struct Frozen {
    records: Closed,
    /// Keys.
    pub len: usize,
    /// Those of them that are deleted.
    pub deleted: usize,
    order: Mutex<Order>,
}

impl Table {
    /// Keys since it was last frozen, those deleted included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Keys since it was last frozen that are deleted.
    pub fn deleted(&self) -> usize {
        self.deleted
    }

    /// Memory of what was put since it was last frozen, about.
    pub fn bytes(&self) -> usize {
        self.open.bytes() + self.len * BYTES_PER_KEY + self.order.lock().bytes()
    }

    /// What is known of a key, of which this is the [`hash`]; `None` = nothing.
    pub fn get(&self, hash: u32, key: &[u8]) -> Option<Value<'_>> {
        let place = self.index.find(hash, |place| self.key(place) == key)?;
        Some(if self.open.has(place) { self.open.value(place) } else { self.kept.value(place) })
    }

    fn key(&self, place: Place) -> &[u8] {
        key(&self.open, &self.kept, place)
    }

    /// Fetches what [`Table::put`] or [`Table::get`] will look at into the processor's caches. Of several keys the processor fetches that at the same
    /// time, where nothing else comes between them.
    pub fn fetch(&self, hash: u32) {
        let place = self.index.find(hash, |_| true);
        std::hint::black_box(place.map(|place| match self.open.has(place) {
            true => self.open.first_byte(place),
            false => self.kept.first_byte(place),
        }));
    }

    /// Puts a key, of which this is the [`hash`]; `None` deletes it, which is remembered.
    pub fn put(&mut self, hash: u32, key: &[u8], value: Option<&[u8]>) {
        let same = |place| self::key(&self.open, &self.kept, place) == key;
        self.deleted += usize::from(value.is_none());
        match self.index.entry(hash, same) {
            Entry::Occupied(mut known) => {
                let place = known.get().place;
                if self.open.has(place) {
                    self.deleted -= usize::from(self.open.is_deleted(place));
                    if self.open.overwrite(place, value) {
                        return;
                    }
                    self.open.replace(place);
                } else {
                    self.len += 1;
                }
                known.get_mut().place = self.open.append(key, value);
            }
            Entry::Vacant(free) => {
                self.len += 1;
                free.insert(Known::new(hash, self.open.append(key, value)));
            }
        }
        self.unordered += 1;
        if self.unordered >= UNORDERED {
            self.unordered = 0;
            let order = self.order.get_mut();
            if order.is_wanted() {
                order.catch_up(&self.open);
            }
        }
    }

    /// What was put since it was last frozen, which goes on to be found here.
    pub fn freeze(&mut self) -> Frozen {
        let order = self.order.get_mut();
        let order = std::mem::replace(order, order.successor());
        let records = self.open.close();
        self.kept.extend(&records);
        self.unordered = 0;
        Frozen {
            records,
            len: std::mem::take(&mut self.len),
            deleted: std::mem::take(&mut self.deleted),
            order: Mutex::new(order),
        }
    }

    /// The first piece of a lane of what is kept, with its number.
    pub fn oldest(&self, lane: Lane) -> Option<(u32, Bytes)> {
        self.kept.oldest(lane)
    }

    /// Forgets the keys whose newest records these are, by their hashes. RocksDB must have them.
    pub fn forget(&mut self, records: &[(u32, Place)]) {
        // The processor waits for the memory of all of them at once. A key's newest record may be another one.
        for (hash, place) in records {
            std::hint::black_box(self.index.find(*hash, |known| known == *place));
        }
        records.iter().for_each(|(hash, place)| self.index.remove(*hash, *place));
    }

    /// Gives back the first piece of a lane, of which all records are forgotten.
    pub fn drop_oldest(&mut self, lane: Lane) {
        self.kept.drop_oldest(lane);
    }

    /// Lets go of values that are kept by themselves, when no record leads to any of them.
    pub fn forget_shared(&mut self) {
        self.kept.drop_shared();
    }

    /// Calls `f` with the keys in a range that were put since the table was last frozen, and their values, in their order or from the last to
    /// the first, until it returns false.
    pub fn range(&self, bounds: Bounds<'_>, reverse: bool, f: &mut dyn FnMut(&[u8], Value<'_>) -> bool) {
        if self.len > 0 {
            self.order.lock().range(&self.open, bounds, reverse, f);
        }
    }
}

impl Frozen {
    /// As [`Table::range`].
    pub fn range(&self, bounds: Bounds<'_>, reverse: bool, f: &mut dyn FnMut(&[u8], Value<'_>) -> bool) {
        if self.len > 0 {
            self.order.lock().range(&self.records, bounds, reverse, f);
        }
    }

    /// Calls `f` with all keys and their values, in the order of the keys.
    pub fn sorted(&self, f: impl FnMut(&[u8], Value<'_>)) {
        order::sorted(&self.records, self.len, f);
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.records.bytes() + self.len * BYTES_PER_KEY + self.order.lock().bytes()
    }

    /// Memory that each piece of a lane takes, its part of the index included.
    pub fn piece_bytes(&self, lane: Lane) -> impl Iterator<Item = usize> {
        let pieces = self.records.pieces(lane);
        let index = self.len * BYTES_PER_KEY / pieces.len().max(1);
        pieces.map(move |bytes| bytes + index)
    }
}

fn key<'r>(open: &'r Open, kept: &'r Closed, place: Place) -> &'r [u8] {
    if open.has(place) { open.key(place) } else { kept.key(place) }
}

/// Of a key: the same for all tables of this process.
pub fn hash(key: &[u8]) -> u32 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    (HASHER.hash_one(key) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Bound;

    use proptest::prelude::*;

    use super::super::records::{LARGEST_PIECE, SHARED_FROM, in_piece};
    use super::*;

    type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
    type Found = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn found(read: impl FnOnce(&mut dyn FnMut(&[u8], Value<'_>) -> bool)) -> Found {
        let mut out = Vec::new();
        read(&mut |key, value| {
            out.push((key.to_vec(), value.bytes().map(<[u8]>::to_vec)));
            true
        });
        out
    }

    /// Calls the last with what a range finds, from the last on if so.
    type Ranges<'t> = &'t dyn Fn(Bounds<'_>, bool, &mut dyn FnMut(&[u8], Value<'_>) -> bool);

    /// What ranges find that begin after `low`, in both directions, is what the model has there.
    fn check_ranges(range: Ranges<'_>, low: &[u8], model: &Model) {
        let bounds = (Bound::Excluded(low), Bound::Unbounded);
        let mut expected: Found = model.range::<[u8], _>(bounds).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(found(|f| range(bounds, false, f)), expected);
        expected.reverse();
        assert_eq!(found(|f| range(bounds, true, f)), expected);
        assert_eq!(found(|f| range((Bound::Excluded(low), Bound::Excluded(low)), false, f)), []);
    }

    /// A table, what was put into each of its generations, and the generations that it was frozen to.
    #[derive(Default)]
    struct Tested {
        table: Table,
        active: Model,
        frozen: Vec<(Frozen, Model)>,
    }

    impl Tested {
        fn put(&mut self, key: &[u8], value: Option<Vec<u8>>) {
            self.table.put(hash(key), key, value.as_deref());
            self.active.insert(key.to_vec(), value);
        }

        fn freeze(&mut self) {
            // As when it is drained.
            if !self.frozen.is_empty() {
                while self.table.kept.pieces(Lane::Long).len() > 0 {
                    self.forget_oldest(Lane::Long);
                }
            }
            self.frozen.push((self.table.freeze(), std::mem::take(&mut self.active)));
        }

        fn forget_oldest(&mut self, lane: Lane) {
            let Some((number, piece)) = self.table.oldest(lane) else { return };
            let records: Vec<_> = in_piece(lane, number, &piece).map(|(key, place)| (hash(key), place)).collect();
            records.chunks(7).for_each(|run| self.table.forget(run));
            self.table.drop_oldest(lane);
        }

        fn check(&self, low: &[u8]) {
            check_ranges(&|bounds, reverse, f| self.table.range(bounds, reverse, f), low, &self.active);
            let counts = |model: &Model| (model.len(), model.values().filter(|value| value.is_none()).count());
            assert_eq!((self.table.len(), self.table.deleted()), counts(&self.active));
            for (frozen, model) in &self.frozen {
                assert_eq!((frozen.len, frozen.deleted), counts(model));
                check_ranges(&|bounds, reverse, f| frozen.range(bounds, reverse, f), low, model);
                let mut sorted = Vec::new();
                frozen.sorted(|key, value| sorted.push((key.to_vec(), value.bytes().map(<[u8]>::to_vec))));
                assert!(sorted.iter().map(|(k, v)| (k, v)).eq(model));
            }
        }

        /// The keys that are known, each of which must have its newest value.
        fn known(&self) -> BTreeSet<&[u8]> {
            let mut newest: BTreeMap<&[u8], &Option<Vec<u8>>> = BTreeMap::new();
            for model in self.frozen.iter().map(|(_, model)| model).chain([&self.active]) {
                newest.extend(model.iter().map(|(key, value)| (&key[..], value)));
            }
            let mut known = BTreeSet::new();
            for (key, value) in newest {
                match self.table.get(hash(key), key) {
                    Some(found) => {
                        assert_eq!(found.bytes(), value.as_deref());
                        known.insert(key);
                    }
                    None => assert!(!self.active.contains_key(key)),
                }
            }
            assert_eq!(known.len(), self.table.index.len());
            known
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(Vec<u8>, Option<(u8, usize)>),
        Freeze,
        Forget,
        Check(Vec<u8>),
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = |len| prop::collection::vec(0u8..4, 0..len);
        let value = prop_oneof![30 => 0usize..40, 2 => 1000usize..1100, 1 => Just(SHARED_FROM)];
        prop_oneof![
            100 => (key(24), prop::option::of((any::<u8>(), value))).prop_map(|(key, value)| Op::Put(key, value)),
            60 => (key(4), prop::option::of((any::<u8>(), 0usize..40))).prop_map(|(key, value)| Op::Put(key, value)),
            3 => Just(Op::Freeze),
            3 => Just(Op::Forget),
            3 => key(4).prop_map(Op::Check),
        ]
    }

    proptest! {
        #[test]
        fn is_a_map(ops in prop::collection::vec(op(), 0..500)) {
            let mut tested = Tested::default();
            for op in ops {
                match op {
                    Op::Put(key, value) => tested.put(&key, value.map(|(byte, len)| vec![byte; len])),
                    Op::Freeze => tested.freeze(),
                    // Not what was frozen last.
                    Op::Forget => {
                        let last = tested.frozen.last().map_or(0, |(frozen, _)| frozen.records.pieces(Lane::Short).len());
                        if tested.table.kept.pieces(Lane::Short).len() > last {
                            tested.forget_oldest(Lane::Short);
                        }
                    }
                    Op::Check(low) => {
                        tested.check(&low);
                        tested.known();
                    }
                }
            }
            tested.check(&[]);
            let last = tested.frozen.last().map(|(_, model)| model.clone()).unwrap_or_default();
            let known = tested.known();
            prop_assert!(last.keys().all(|key| known.contains(&key[..])));
            prop_assert!(tested.table.get(hash(b"missing"), b"missing").is_none());
        }
    }

    #[test]
    fn many_keys_and_values_of_all_sizes() {
        let mut tested = Tested::default();
        for n in 0..40_000usize {
            let key = format!("key:{:06}", n.wrapping_mul(7919) % 9000).into_bytes();
            let value = (n % 11 != 0).then(|| vec![n as u8; if n % 500 == 0 { SHARED_FROM + n } else { n % 300 }]);
            tested.put(&key, value);
            match n {
                // From here on the writer keeps the order, in later generations too.
                5000 | 39_000 => tested.check(b"key:0"),
                20_000 => {
                    assert!(tested.table.bytes() > 9000 * 100);
                    tested.freeze();
                    assert_eq!(tested.table.bytes(), 0);
                }
                _ => {}
            }
        }
        assert_eq!(tested.known().len(), 9000);
        tested.check(b"key:0");
    }

    #[test]
    fn a_key_larger_than_any_piece_of_memory() {
        let mut tested = Tested::default();
        let key = vec![7; LARGEST_PIECE * 2];
        tested.put(&key, Some(b"v".to_vec()));
        tested.put(b"k", Some(b"w".to_vec()));
        tested.freeze();
        tested.check(b"");
        assert_eq!(tested.known().len(), 2);
        tested.forget_oldest(Lane::Long);
        assert_eq!(tested.known().into_iter().collect::<Vec<_>>(), [b"k"]);
    }

    #[test]
    fn what_is_given_back_is_forgotten_and_nothing_older_comes_to_light() {
        let mut tested = Tested::default();
        for n in 0..30_000usize {
            let key = format!("key:{}", n.wrapping_mul(7919) % 3000).into_bytes();
            // In place, and elsewhere.
            tested.put(&key, (n % 13 != 0).then(|| format!("{n}{}", "x".repeat(n % 60)).into_bytes()));
            if n % 4000 == 3999 {
                tested.freeze();
            }
            if n % 1000 == 999 && tested.table.kept.pieces(Lane::Short).len() > 20 {
                let (before, pieces) = (tested.known().len(), tested.table.kept.pieces(Lane::Short).len());
                tested.forget_oldest(Lane::Short);
                assert!(tested.known().len() <= before);
                assert_eq!(tested.table.kept.pieces(Lane::Short).len(), pieces - 1);
            }
        }
        tested.freeze();
        while tested.table.kept.pieces(Lane::Short).len() > 0 {
            tested.forget_oldest(Lane::Short);
        }
        assert_eq!(tested.known().len(), 0);
        assert!(tested.table.index.capacity() < 100 * 32, "the index gives its room back");
        tested.check(b"");
    }
}
