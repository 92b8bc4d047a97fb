//! The index of a write buffer: where the newest record of each key is. Hot path.

use hashbrown::HashTable;
use hashbrown::hash_table::{Entry, OccupiedEntry};

use super::records::Place;

/// Tables that share the keys. A table that has to grow moves all that is in it while everybody waits, so none should be large.
const SHARDS: usize = 32;
/// The first bit of a hash that chooses the table: within one, the lowest and the highest seven find the place.
const SHARD_BIT: u32 = 20;
const _: () = assert!(SHARDS.is_power_of_two() && (SHARDS << SHARD_BIT) as u64 <= 1 << (u32::BITS - 7));
/// A table in which less than this share is in use gives half of its room back, or more,
const SHRINK_BELOW: usize = 4;
/// unless it has room for so few keys only.
const SMALL: usize = 64;
/// Bytes that a key takes, about: a table is between a half and all full.
pub const BYTES_PER_KEY: usize = (size_of::<Known>() + 1) * 3 / 2;

/// A key's newest record.
#[derive(Clone, Copy)]
pub struct Known {
    pub place: Place,
    /// Of the key: enough to tell most keys apart, and to grow a table without reading them.
    hash: u32,
}

impl Known {
    pub fn new(hash: u32, place: Place) -> Known {
        Known { place, hash }
    }

    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// See the module.
#[derive(Default)]
pub struct Index {
    shards: [HashTable<Known>; SHARDS],
}

impl Index {
    /// The place with this hash that `is` the one.
    pub fn find(&self, hash: u32, is: impl Fn(Place) -> bool) -> Option<Place> {
        let found = self.shards[shard(hash)].find(spread(hash), |known| known.hash == hash && is(known.place));
        found.map(|known| known.place)
    }

    /// The entry of the place with this hash that `is` the one.
    pub fn entry(&mut self, hash: u32, is: impl Fn(Place) -> bool) -> Entry<'_, Known> {
        let is = |known: &Known| known.hash == hash && is(known.place);
        self.shards[shard(hash)].entry(spread(hash), is, Known::spread)
    }

    /// Forgets a place, should it be known.
    pub fn remove(&mut self, hash: u32, place: Place) {
        let shard = &mut self.shards[shard(hash)];
        let is = |known: &Known| known.hash == hash && known.place == place;
        shard.find_entry(spread(hash), is).map(OccupiedEntry::remove).ok();
        if shard.capacity() > SMALL && shard.len() < shard.capacity() / SHRINK_BELOW {
            shard.shrink_to(shard.len() * 2, Known::spread);
        }
    }

    /// Keys.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }

    /// Keys for which there is room.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.shards.iter().map(HashTable::capacity).sum()
    }
}

fn shard(hash: u32) -> usize {
    (hash >> SHARD_BIT) as usize % SHARDS
}

/// The hash by which a table finds a place: it looks at the highest and at the lowest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
