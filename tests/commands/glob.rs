//! Patterns of KEYS: what matches must be what matches in Redis, however odd the pattern.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::common::rng;
use crate::duel::Duel;

const KEYS: usize = 300;
const PATTERNS: usize = 4_000;

/// Up to `most` bytes of these.
fn bytes(rng: &mut StdRng, of: &[u8], most: usize) -> Vec<u8> {
    (0..rng.random_range(0..=most)).map(|_| of[rng.random_range(0..of.len())]).collect()
}

#[test]
fn random_patterns() {
    let mut duel = Duel::start();
    let mut rng = rng();
    let keys = |rng: &mut StdRng| bytes(rng, b"abcA]-^\\[*\xff\x00", 6);
    duel.stream((0..KEYS).map(|_| vec![b"SET".to_vec(), keys(&mut rng), b"v".to_vec()]).collect());
    let patterns = |rng: &mut StdRng| bytes(rng, b"aabbcA***??[[]]--^^\\\\\xff\x00", 10);
    duel.stream((0..PATTERNS).map(|_| vec![b"KEYS".to_vec(), patterns(&mut rng)]).collect());
}
