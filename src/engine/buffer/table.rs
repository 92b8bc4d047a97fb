//! One family of a write buffer: a hash table over records that lie one after the other in large pieces of memory. Hot path.
//!
//! Putting a record in is one look into the hash table and one copy to the end of the memory in use, whatever the order of the
//! keys; that is several times cheaper than a place in a sorted structure of that size, where most comparisons miss the processor's
//! caches. The order is made when somebody asks for it: for a range, of the keys that came since the last one ([`Order`]); at
//! the end, of all ([`Table::sorted`]).
//!
//! ```text
//! record   key length u32, value length u32 (or DELETED, SHARED, REPLACED), room for the value u32, key, value
//! ```
//! in the machine's byte order: it never leaves the process.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::LazyLock;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

/// Bytes before a record's key.
const HEADER: usize = 12;
/// As a value's length: the key is deleted.
const DELETED: u32 = u32::MAX;
/// As a value's length: the value is one of `shared`, whose index stands in its place.
const SHARED: u32 = u32::MAX - 1;
/// As a value's length: there is a newer record of the key, or nothing is known of it any more.
const REPLACED: u32 = u32::MAX - 2;
/// Values of at least so many bytes are kept by themselves, so that readers need not copy them while writers wait.
const SHARED_FROM: usize = 16 << 10;
/// Bytes of the first piece of memory; each is twice as large as the one before, up to the largest. A slot that is hardly written
/// takes little.
const FIRST_CHUNK: usize = 4 << 10;
const LARGEST_CHUNK: usize = 256 << 10;
/// The room for a value is a multiple of so many bytes.
const ROOM_STEP: usize = 8;
/// Keys without an order that a writer puts in order by itself, where ranges are asked for.
const UNORDERED: usize = 4096;
/// What a key in order takes beside its bytes.
const ORDER_OVERHEAD: usize = 32;
/// An index in which less than this share is in use gives its room back.
const SHRINK_BELOW: usize = 4;
/// Keys that are more than this share of those in order are merged with them, not put in one by one.
const MERGE_FROM: usize = 8;

/// Where a record is.
#[derive(Clone, Copy)]
struct Place {
    /// Counted from the first chunk there ever was.
    chunk: u32,
    at: u32,
    /// Of the key's hash: enough to tell most keys apart, and to grow the table without reading them.
    hash: u32,
}

/// A value in a buffer.
#[derive(Clone, Copy, Debug)]
pub enum Value<'t> {
    Deleted,
    Inline(&'t [u8]),
    /// To be kept without a copy.
    Shared(&'t Bytes),
}

impl<'t> Value<'t> {
    /// `None` when the key is deleted.
    pub fn bytes(self) -> Option<&'t [u8]> {
        match self {
            Value::Deleted => None,
            Value::Inline(bytes) => Some(bytes),
            Value::Shared(bytes) => Some(bytes),
        }
    }
}

/// Keys in their order, as far as anybody has asked for it.
#[derive(Default)]
struct Order {
    keys: BTreeSet<Box<[u8]>>,
    /// Memory of `keys`, about.
    bytes: usize,
    /// The first record whose key may not be among them.
    chunk: usize,
    at: usize,
    /// Whether anybody has asked for a range of this table.
    asked: bool,
    /// Whether somebody had of the one before: then writers keep the order from the beginning.
    expected: bool,
}

/// The records, in the order in which they were put.
#[derive(Default)]
struct Chunks {
    chunks: VecDeque<Vec<u8>>,
    /// Chunks that are gone.
    gone: u32,
    /// Values that are kept by themselves.
    shared: Vec<Bytes>,
    /// Memory of all that.
    bytes: usize,
}

/// See the module. A key that was put stays, deleted or not, unless [`Table::forget`] or [`Table::forget_oldest`] is called.
#[derive(Default)]
pub struct Table {
    index: HashTable<Place>,
    chunks: Chunks,
    /// Keys that are deleted.
    deleted: usize,
    /// Records since the order was last made.
    unordered: usize,
    order: Mutex<Order>,
}

impl Table {
    /// An empty one that takes this one's place.
    pub fn successor(&self) -> Table {
        let order = Mutex::new(Order { expected: self.order.lock().asked, ..Order::default() });
        Table { order, ..Table::default() }
    }

    /// Keys, those deleted included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Keys that are deleted.
    pub fn deleted(&self) -> usize {
        self.deleted
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory it takes, about.
    pub fn bytes(&self) -> usize {
        self.allocated() + self.order.lock().bytes
    }

    /// Memory of records and index.
    pub fn allocated(&self) -> usize {
        self.chunks.bytes + self.index.capacity() * (size_of::<Place>() + 1)
    }

    /// Pieces of memory there ever were.
    pub fn chunks(&self) -> usize {
        self.chunks.gone as usize + self.chunks.chunks.len()
    }

    /// What is known of a key, of which this is the [`hash`]; `None` = nothing.
    pub fn get(&self, hash: u32, key: &[u8]) -> Option<Value<'_>> {
        if self.index.is_empty() {
            return None;
        }
        let place = self.index.find(spread(hash), |place| place.hash == hash && self.chunks.key(*place) == key)?;
        Some(self.chunks.value(*place))
    }

    /// Fetches what [`Table::put`] or [`Table::get`] will look at into the processor's caches. Of several keys the processor fetches that at the same
    /// time, where nothing else comes between them.
    pub fn fetch(&self, hash: u32) {
        let place = self.index.find(spread(hash), |place| place.hash == hash);
        std::hint::black_box(place.map(|place| self.chunks.first_byte(*place)));
    }

    /// Puts a key, of which this is the [`hash`]; `None` deletes it, which is remembered.
    pub fn put(&mut self, hash: u32, key: &[u8], value: Option<&[u8]>) {
        let same = |place: &Place| place.hash == hash && self.chunks.key(*place) == key;
        match self.index.entry(spread(hash), same, |place| spread(place.hash)) {
            Entry::Occupied(mut known) => {
                let place = *known.get();
                self.deleted -= usize::from(self.chunks.is_deleted(place));
                if !self.chunks.overwrite(place, value) {
                    self.chunks.set_len(place, REPLACED);
                    *known.get_mut() = self.chunks.append(hash, key, value);
                    self.unordered += 1;
                }
            }
            Entry::Vacant(free) => {
                free.insert(self.chunks.append(hash, key, value));
                self.unordered += 1;
            }
        }
        self.deleted += usize::from(value.is_none());
        if self.unordered >= UNORDERED {
            self.unordered = 0;
            let order = self.order.get_mut();
            if order.asked || order.expected {
                order.catch_up(&self.chunks);
            }
        }
    }

    /// Knows nothing of a key any more.
    pub fn forget(&mut self, hash: u32, key: &[u8]) {
        let same = |place: &Place| place.hash == hash && self.chunks.key(*place) == key;
        if let Ok(known) = self.index.find_entry(spread(hash), same) {
            self.deleted -= usize::from(self.chunks.is_deleted(*known.get()));
            self.chunks.set_len(*known.get(), REPLACED);
            known.remove();
        }
    }

    /// Gives back the piece of memory that was filled first, and forgets the keys whose records are there. Not where anybody asks for ranges.
    pub fn forget_oldest(&mut self) {
        let Some(oldest) = self.chunks.chunks.front() else { return };
        let (chunk, mut at) = (self.chunks.gone, 0);
        while at < oldest.len() {
            let record = &oldest[at..];
            let hash = hash(record_key(record));
            // The key's newest record may be another one.
            let known = self.index.find_entry(spread(hash), |place| (place.chunk, place.at) == (chunk, at as u32));
            if let Ok(known) = known {
                known.remove();
                self.deleted -= usize::from(number(record, 4) == DELETED);
            }
            at += record_len(record);
        }
        self.chunks.bytes -= oldest.capacity();
        self.chunks.gone += 1;
        self.chunks.chunks.pop_front();
        if self.index.len() < self.index.capacity() / SHRINK_BELOW {
            self.index.shrink_to_fit(|place| spread(place.hash));
        }
    }

    /// Calls `f` with the keys in a range and their values, in their order or from the last to the first, until it returns false.
    pub fn range(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        f: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) {
        if self.index.is_empty() || is_nothing(bounds) {
            return;
        }
        let mut order = self.order.lock();
        order.asked = true;
        order.catch_up(&self.chunks);
        let keys = order.keys.range::<[u8], _>(bounds);
        let mut each = |key: &[u8]| self.get(hash(key), key).is_none_or(|value| f(key, value));
        if reverse {
            keys.rev().all(|key| each(key));
        } else {
            keys.into_iter().all(|key| each(key));
        }
    }

    /// All keys with their values, in the order of the keys.
    pub fn sorted(&self) -> impl Iterator<Item = (&[u8], Value<'_>)> {
        // Keys of a slot often begin alike: what they have in common need not be compared.
        let mut keys = self.chunks.live().map(|(key, _)| key);
        let common = keys.next().map_or(0, |first| {
            keys.fold(first.len(), |common, key| first[..common].iter().zip(key).take_while(|(a, b)| a == b).count())
        });
        let mut sorted: Vec<(u128, Place)> = Vec::with_capacity(self.index.len());
        sorted.extend(self.chunks.live().map(|(key, place)| (leading(&key[common..]), place)));
        sorted.sort_unstable_by(|(a, at_a), (b, at_b)| {
            a.cmp(b).then_with(|| self.chunks.key(*at_a).cmp(self.chunks.key(*at_b)))
        });
        sorted.into_iter().map(|(_, place)| (self.chunks.key(place), self.chunks.value(place)))
    }
}

impl Chunks {
    fn record(&self, place: Place) -> &[u8] {
        &self.chunks[(place.chunk - self.gone) as usize][place.at as usize..]
    }

    fn key(&self, place: Place) -> &[u8] {
        record_key(self.record(place))
    }

    fn first_byte(&self, place: Place) -> u8 {
        self.record(place)[0]
    }

    fn is_deleted(&self, place: Place) -> bool {
        number(self.record(place), 4) == DELETED
    }

    fn value(&self, place: Place) -> Value<'_> {
        let record = self.record(place);
        let start = HEADER + number(record, 0) as usize;
        match number(record, 4) {
            DELETED => Value::Deleted,
            SHARED => Value::Shared(&self.shared[number(record, start) as usize]),
            len => Value::Inline(&record[start..start + len as usize]),
        }
    }

    /// Puts a value in the place of a record's present one, if there is room.
    fn overwrite(&mut self, place: Place, value: Option<&[u8]>) -> bool {
        let record = &mut self.chunks[(place.chunk - self.gone) as usize][place.at as usize..];
        let (start, room) = (HEADER + number(record, 0) as usize, number(record, 8) as usize);
        // What is shared keeps its place until the buffer goes.
        let len = match value {
            _ if number(record, 4) == SHARED => return false,
            None => DELETED,
            Some(value) if value.len() <= room && value.len() < SHARED_FROM => {
                record[start..start + value.len()].copy_from_slice(value);
                value.len() as u32
            }
            Some(_) => return false,
        };
        self.set_len(place, len);
        true
    }

    fn set_len(&mut self, place: Place, len: u32) {
        let record = &mut self.chunks[(place.chunk - self.gone) as usize][place.at as usize..];
        record[4..8].copy_from_slice(&len.to_ne_bytes());
    }

    /// Keys and places of all records that are not replaced, in the order in which they were put.
    fn live(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.chunks.iter().zip(self.gone..).flat_map(|(bytes, chunk)| {
            let mut at = 0;
            std::iter::from_fn(move || {
                let record = bytes.get(at..).filter(|record| !record.is_empty())?;
                let place = Place { chunk, at: at as u32, hash: 0 };
                at += record_len(record);
                Some((record, place))
            })
            .filter(|(record, _)| number(record, 4) != REPLACED)
            .map(|(record, place)| (record_key(record), place))
        })
    }

    fn append(&mut self, hash: u32, key: &[u8], value: Option<&[u8]>) -> Place {
        let index;
        let (len, value): (u32, &[u8]) = match value {
            None => (DELETED, &[]),
            Some(value) if value.len() < SHARED_FROM => (value.len() as u32, value),
            Some(value) => {
                index = (self.shared.len() as u32).to_ne_bytes();
                self.shared.push(Bytes::copy_from_slice(value));
                self.bytes += value.len();
                (SHARED, &index)
            }
        };
        // A counter that grows a digit stays where it is.
        let room = value.len().next_multiple_of(ROOM_STEP);
        let needed = HEADER + key.len() + room;
        if self.chunks.back().is_none_or(|last| last.capacity() - last.len() < needed) {
            let next = self.chunks.back().map_or(FIRST_CHUNK, |last| (last.capacity() * 2).min(LARGEST_CHUNK));
            self.chunks.push_back(Vec::with_capacity(next.max(needed)));
            self.bytes += next.max(needed);
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        let at = chunk.len();
        for header in [key.len() as u32, len, room as u32] {
            chunk.extend_from_slice(&header.to_ne_bytes());
        }
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
        chunk.resize(at + needed, 0);
        Place { chunk: self.gone + last as u32, at: at as u32, hash }
    }
}

impl Order {
    /// Takes in the keys of all records that came since.
    fn catch_up(&mut self, Chunks { chunks, .. }: &Chunks) {
        let mut new: Vec<&[u8]> = Vec::new();
        while let Some(chunk) = chunks.get(self.chunk) {
            while self.at < chunk.len() {
                let record = &chunk[self.at..];
                new.push(record_key(record));
                self.at += record_len(record);
            }
            if self.chunk + 1 == chunks.len() {
                break;
            }
            (self.chunk, self.at) = (self.chunk + 1, 0);
        }
        // Next to each other they find their places faster.
        new.sort_unstable();
        new.dedup();
        self.bytes += new.iter().map(|key| key.len() + ORDER_OVERHEAD).sum::<usize>();
        if new.len() * MERGE_FROM > self.keys.len() {
            self.keys.append(&mut new.into_iter().map(Box::from).collect());
        } else {
            self.keys.extend(new.into_iter().map(Box::from));
        }
    }
}

/// Whether no key can be within these bounds.
fn is_nothing(bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

/// Of a key: the same for all tables of this process, so that a key which is looked for in several is hashed once.
pub fn hash(key: &[u8]) -> u32 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    (HASHER.hash_one(key) >> 32) as u32
}

/// The hash by which the table finds a place: it looks at the highest and at the lowest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn number(record: &[u8], at: usize) -> u32 {
    record[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn record_key(record: &[u8]) -> &[u8] {
    &record[HEADER..HEADER + number(record, 0) as usize]
}

/// Bytes of a record with its room.
fn record_len(record: &[u8]) -> usize {
    HEADER + number(record, 0) as usize + number(record, 8) as usize
}

/// The first 16 bytes of a key as a number that compares as they do.
fn leading(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

    fn collect(table: &Table, bounds: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut out = Vec::new();
        table.range(bounds, reverse, &mut |key, value| {
            out.push((key.to_vec(), value.bytes().map(<[u8]>::to_vec)));
            true
        });
        out
    }

    fn check(table: &Table, model: &Model) {
        assert_eq!(table.len(), model.len());
        assert_eq!(table.deleted(), model.values().filter(|value| value.is_none()).count());
        for (key, value) in model {
            assert_eq!(table.get(hash(key), key).expect("a known key").bytes(), value.as_deref());
        }
        let sorted: Vec<_> = table.sorted().map(|(k, v)| (k.to_vec(), v.bytes().map(<[u8]>::to_vec))).collect();
        let expected: Vec<_> = model.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(sorted, expected);
    }

    proptest! {
        #[test]
        fn is_a_map(
            ops in prop::collection::vec(
                (prop::collection::vec(0u8..4, 0..24), prop::option::of((any::<u8>(), 0usize..40))), 0..400),
            low in prop::collection::vec(0u8..4, 0..4),
            every in 1usize..50,
        ) {
            let (mut table, mut model) = (Table::default(), Model::new());
            for (n, (key, value)) in ops.into_iter().enumerate() {
                let value = value.map(|(byte, len)| vec![byte; len]);
                table.put(hash(&key), &key, value.as_deref());
                model.insert(key, value);
                if n.is_multiple_of(every) {
                    let bounds = (Bound::Excluded(&low[..]), Bound::Unbounded);
                    let mut expected: Vec<_> =
                        model.range::<[u8], _>(bounds).map(|(k, v)| (k.clone(), v.clone())).collect();
                    prop_assert_eq!(&collect(&table, bounds, false), &expected);
                    expected.reverse();
                    prop_assert_eq!(&collect(&table, bounds, true), &expected);
                }
            }
            check(&table, &model);
            prop_assert!(table.get(hash(b"missing"), b"missing").is_none());
        }
    }

    #[test]
    fn many_keys_and_values_of_all_sizes() {
        let (mut table, mut model) = (Table::default(), Model::new());
        for n in 0..20_000usize {
            let key = format!("key:{:06}", n.wrapping_mul(7919) % 9000).into_bytes();
            let value = (n % 11 != 0).then(|| vec![n as u8; if n % 500 == 0 { SHARED_FROM + n } else { n % 300 }]);
            table.put(hash(&key), &key, value.as_deref());
            model.insert(key, value);
            if n == 5000 {
                // From here on the writer keeps the order.
                assert_eq!(collect(&table, (Bound::Unbounded, Bound::Unbounded), false).len(), model.len());
            }
        }
        check(&table, &model);
        let all: Vec<_> = model.into_iter().collect();
        assert_eq!(collect(&table, (Bound::Unbounded, Bound::Unbounded), false), all);
        assert!(table.bytes() > 9000 * 100);
        assert!(table.successor().is_empty());
    }

    #[test]
    fn a_key_larger_than_any_piece_of_memory() {
        let mut table = Table::default();
        let key = vec![7; LARGEST_CHUNK * 2];
        table.put(hash(&key), &key, Some(b"v"));
        table.put(hash(b"k"), b"k", Some(b"w"));
        assert_eq!(table.get(hash(&key), &key).unwrap().bytes(), Some(&b"v"[..]));
        assert_eq!(table.sorted().map(|(key, _)| key.len()).collect::<Vec<_>>(), [key.len(), 1]);
    }

    #[test]
    fn what_is_given_back_is_forgotten_and_nothing_older_comes_to_light() {
        let (mut table, mut newest) = (Table::default(), BTreeMap::new());
        for n in 0..30_000usize {
            let key = format!("key:{}", n.wrapping_mul(7919) % 3000).into_bytes();
            // In place, and elsewhere.
            let value = (n % 13 != 0).then(|| format!("{n}{}", "x".repeat(n % 60)).into_bytes());
            table.put(hash(&key), &key, value.as_deref());
            newest.insert(key.clone(), value);
            if n % 100 == 0 {
                table.forget(hash(&key), &key);
                assert!(table.get(hash(&key), &key).is_none());
            }
            if n % 2000 == 1999 {
                let before = table.allocated();
                table.forget_oldest();
                assert!(table.allocated() < before);
                let known = newest.iter().filter(|(key, value)| {
                    let known = table.get(hash(key), key);
                    assert!(known.is_none_or(|known| known.bytes() == value.as_deref()));
                    known.is_some()
                });
                let known: Vec<_> = known.collect();
                assert_eq!(table.len(), known.len());
                assert_eq!(table.deleted(), known.iter().filter(|(_, value)| value.is_none()).count());
            }
        }
        (0..table.chunks()).for_each(|_| table.forget_oldest());
        assert_eq!((table.len(), table.deleted(), table.chunks.bytes), (0, 0, 0));
        assert!(table.allocated() < 1000, "the index gives its room back");
    }
}
