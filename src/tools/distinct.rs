//! Counting different keys in bounded memory: exactly up to [`MAX_KEPT`], beyond it by adaptive sampling (Wegman; Flajolet 1990): of
//! the keys' hashes only those below a threshold are kept, and the threshold halves whenever they become too many.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hashes kept; an estimate beyond it is off by about 0.1 %.
const MAX_KEPT: usize = 1 << 20;

/// Hashes of hashes would be a waste.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u64(&mut self, n: u64) {
        // The tables look at the highest bits too, which are equal below a threshold.
        self.0 = n.rotate_left(32);
    }
}

/// See the module.
#[derive(Default)]
pub struct Distinct {
    kept: HashSet<u64, BuildHasherDefault<AsItIs>>,
    /// Hashes with this many zeros at their front are kept.
    zeros: u32,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub keys: u64,
    /// Otherwise an estimate.
    pub exact: bool,
}

impl Distinct {
    /// Counts a key of a database.
    pub fn add(&mut self, database: u64, key: &[u8]) {
        self.add_hash(xxh3_64_with_seed(key, database));
    }

    fn add_hash(&mut self, hash: u64) {
        if hash.leading_zeros() >= self.zeros {
            self.kept.insert(hash);
            while self.kept.len() > MAX_KEPT {
                self.zeros += 1;
                let zeros = self.zeros;
                self.kept.retain(|hash| hash.leading_zeros() >= zeros);
            }
        }
    }

    /// Counts what the other one has counted too.
    pub fn merge(&mut self, other: &Distinct) {
        if other.zeros > self.zeros {
            self.zeros = other.zeros;
            let zeros = self.zeros;
            self.kept.retain(|hash| hash.leading_zeros() >= zeros);
        }
        other.kept.iter().for_each(|hash| self.add_hash(*hash));
    }

    /// How many different ones were counted.
    pub fn count(&self) -> Count {
        Count { keys: (self.kept.len() as u64) << self.zeros, exact: self.zeros == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(from: u64, to: u64) -> Distinct {
        let mut distinct = Distinct::default();
        (from..to).chain(from..to.min(from + 1000)).for_each(|n| distinct.add(0, &n.to_le_bytes()));
        distinct
    }

    #[test]
    fn exact_then_close() {
        assert_eq!(counted(0, 5000).count(), Count { keys: 5000, exact: true });
        let mut many = counted(0, 3_000_000);
        let close = |count: Count, to: f64| (count.keys as f64 / to - 1.0).abs() < 0.01 && !count.exact;
        assert!(close(many.count(), 3e6), "{:?}", many.count());
        many.merge(&counted(2_500_000, 3_500_000));
        assert!(close(many.count(), 3.5e6), "{:?}", many.count());
        let mut few = counted(3_400_000, 3_500_000);
        few.merge(&many);
        assert!(close(few.count(), 3.5e6), "{:?}", few.count());
        assert!(few.kept.len() <= MAX_KEPT);
    }

    #[test]
    fn databases_have_keys_of_their_own() {
        let mut distinct = Distinct::default();
        (0..3).for_each(|db| distinct.add(db, b"k"));
        assert_eq!(distinct.count().keys, 3);
    }
}
