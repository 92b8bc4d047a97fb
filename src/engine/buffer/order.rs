//! The order of the keys of a write buffer, which is made when somebody asks for it: for a range, of the keys that came since the last one
//! ([`Order`]); of all of a buffer that is closed ([`sorted`]).

use std::collections::BTreeMap;
use std::ops::{Bound, Deref};

use super::records::{Closed, Cursor, Place, Records, Value};

/// What a key in order takes beside its bytes.
const OVERHEAD: usize = 40;
/// Keys that are more than this share of those in order are merged with them, not put in one by one.
const MERGE_FROM: usize = 8;
/// Records that are fetched together.
const RUN: usize = 32;

/// Bounds of a range of keys.
pub type Bounds<'b> = (Bound<&'b [u8]>, Bound<&'b [u8]>);

/// Keys in their order and where they are, as far as anybody has asked for it.
#[derive(Default)]
pub struct Order {
    keys: BTreeMap<Box<[u8]>, Place>,
    /// Memory of `keys`, about.
    bytes: usize,
    /// Behind the records that are among them.
    read: Cursor,
    /// Whether anybody has asked for a range.
    asked: bool,
    /// Whether somebody had of the records before these: then writers keep the order from the beginning.
    expected: bool,
}

impl Order {
    /// That of the records to come after these.
    pub fn successor(&self) -> Order {
        Order { expected: self.asked, ..Order::default() }
    }

    /// Whether writers keep it.
    pub fn is_wanted(&self) -> bool {
        self.asked || self.expected
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in the keys of all records that came since.
    pub fn catch_up<P: Deref<Target = [u8]>>(&mut self, records: &Records<P>) {
        let mut new: Vec<_> = records.since(self.read).collect();
        self.read = records.end();
        // Next to each other they find their places faster. Of a key there is one record that is not replaced.
        new.sort_unstable_by_key(|(key, _)| *key);
        self.bytes += new.iter().map(|(key, _)| key.len() + OVERHEAD).sum::<usize>();
        let many = new.len() * MERGE_FROM > self.keys.len();
        let new = new.into_iter().map(|(key, place)| (Box::from(key), place));
        if many {
            self.keys.append(&mut new.collect());
        } else {
            self.keys.extend(new);
        }
    }

    /// Calls `f` with the keys in a range and their values, in their order or from the last to the first, until it returns false.
    pub fn range<P: Deref<Target = [u8]>>(
        &mut self,
        records: &Records<P>,
        bounds: Bounds<'_>,
        reverse: bool,
        f: &mut dyn FnMut(&[u8], Value<'_>) -> bool,
    ) {
        if is_nothing(bounds) {
            return;
        }
        self.asked = true;
        self.catch_up(records);
        let keys = self.keys.range::<[u8], _>(bounds);
        let mut each = |key: &[u8], place: &Place| f(key, records.value(*place));
        if reverse {
            keys.rev().all(|(key, place)| each(key, place));
        } else {
            keys.into_iter().all(|(key, place)| each(key, place));
        }
    }
}

/// Calls `f` with all keys, of which there are `len`, and their values, in the order of the keys.
pub fn sorted(records: &Closed, len: usize, mut f: impl FnMut(&[u8], Value<'_>)) {
    // Keys of a slot often begin alike: what they have in common need not be compared.
    let mut keys = records.live().map(|(key, _)| key);
    let common = keys.next().map_or(0, |first| {
        keys.fold(first.len(), |common, key| first[..common].iter().zip(key).take_while(|(a, b)| a == b).count())
    });
    let mut sorted: Vec<(u128, Place)> = Vec::with_capacity(len);
    sorted.extend(records.live().map(|(key, place)| (leading(&key[common..]), place)));
    sorted.sort_unstable_by(|(a, at_a), (b, at_b)| a.cmp(b).then_with(|| records.key(*at_a).cmp(records.key(*at_b))));
    for run in sorted.chunks(RUN) {
        // They lie anywhere: the processor waits for the memory of all of them at once.
        run.iter().for_each(|(_, place)| {
            std::hint::black_box(records.first_byte(*place));
        });
        run.iter().for_each(|(_, place)| f(records.key(*place), records.value(*place)));
    }
}

/// Whether no key can be within these bounds.
fn is_nothing(bounds: Bounds<'_>) -> bool {
    match bounds {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

/// The first 16 bytes of a key as a number that compares as they do.
fn leading(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(bytes)
}
