//! Which register an element belongs to, and what it says there.

use super::sketch::REGISTER_BITS;

/// Redis's seed.
const SEED: u64 = 0xadc8_3b19;
/// Bits of the hash that do not choose the register.
const PATTERN_BITS: u32 = 64 - REGISTER_BITS;

/// The register of an element, and the length of its pattern: one more than the zeros that the rest of its hash
/// ends with, 1 to 51.
pub fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, SEED);
    let register = hash & ((1 << REGISTER_BITS) - 1);
    // The bit beyond the pattern stops the count.
    let pattern = hash >> REGISTER_BITS | 1 << PATTERN_BITS;
    (register as usize, pattern.trailing_zeros() as u8 + 1)
}

/// MurmurHash2 for 64-bit processors, by Austin Appleby (public domain), reading little-endian.
pub fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ hash >> R).wrapping_mul(M);
    hash ^ hash >> R
}
