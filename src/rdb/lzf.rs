//! LZF, the compression of long strings in RDB.
//!
//! A compressed string is a run of chunks (Marc Lehmann's LibLZF 3):
//!
//! ```text
//! 000LLLLL  L+1 bytes                  those bytes
//! LLLooooo  oooooooo                   L+2 bytes from o+1 bytes back, L from 1 to 6
//! 111ooooo  LLLLLLLL  oooooooo         L+9 bytes from o+1 bytes back
//! ```
//!
//! What is copied may overlap what it makes.

const MAX_LITERALS: usize = 1 << 5;
const MAX_DISTANCE: usize = 1 << 13;
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 264;
/// Lengths below this need no byte of their own.
const SHORT_MATCH: usize = 9;
/// Bytes of the longest reference.
const MAX_REFERENCE_BYTES: usize = 3;

/// No input expands to more than this times its length.
pub const MAX_EXPANSION: u64 = (MAX_MATCH / MAX_REFERENCE_BYTES) as u64;

const TABLE_BITS: u32 = 14;

/// A compressor, to be kept for many strings: its table is made once.
#[derive(Debug, Default)]
pub struct Compressor {
    /// Where three bytes with this hash were last seen: `base` and the offset. What is below `base` is of an
    /// earlier string. Empty before the first string.
    seen: Vec<u32>,
    base: u32,
    out: Vec<u8>,
}

impl Compressor {
    pub fn new() -> Compressor {
        Compressor::default()
    }

    /// `input` compressed to at most `limit` bytes, if it can be.
    pub fn compress(&mut self, input: &[u8], limit: usize) -> Option<&[u8]> {
        let base = self.start(input.len())?;
        self.out.clear();
        let (mut at, mut pending) = (0, 0);
        while let Some(next) = input.get(at..at + MIN_MATCH) {
            let slot = &mut self.seen[hash(next)];
            let before = slot.checked_sub(base).map(|before| before as usize);
            *slot = base + at as u32;
            let Some(from) = before.filter(|&from| at - from <= MAX_DISTANCE && input[from..].starts_with(next)) else {
                at += 1;
                continue;
            };
            let longest = MAX_MATCH.min(input.len() - at);
            let len = MIN_MATCH + (MIN_MATCH..longest).take_while(|&i| input[from + i] == input[at + i]).count();
            self.put_literals(&input[pending..at]);
            self.put_reference(at - from, len);
            if self.out.len() > limit {
                return None;
            }
            for skipped in at + 1..at + len {
                let Some(next) = input.get(skipped..skipped + MIN_MATCH) else { break };
                self.seen[hash(next)] = base + skipped as u32;
            }
            at += len;
            pending = at;
        }
        self.put_literals(&input[pending..]);
        (self.out.len() <= limit).then_some(&self.out)
    }

    /// Makes all that the table holds older than the next string; returns the string's base.
    fn start(&mut self, len: usize) -> Option<u32> {
        let len = u32::try_from(len).ok()?;
        if self.seen.is_empty() {
            self.seen = vec![0; 1 << TABLE_BITS];
            self.base = 1;
        }
        let base = match self.base.checked_add(len) {
            Some(end) => {
                let base = self.base;
                self.base = end;
                base
            }
            None => {
                self.seen.fill(0);
                self.base = len.checked_add(1)?;
                1
            }
        };
        Some(base)
    }

    fn put_literals(&mut self, literals: &[u8]) {
        for run in literals.chunks(MAX_LITERALS) {
            self.out.push(run.len() as u8 - 1);
            self.out.extend_from_slice(run);
        }
    }

    fn put_reference(&mut self, distance: usize, len: usize) {
        let [high, low] = (distance as u16 - 1).to_be_bytes();
        if len < SHORT_MATCH {
            self.out.extend_from_slice(&[(len as u8 - 2) << 5 | high, low]);
        } else {
            self.out.extend_from_slice(&[0b111 << 5 | high, (len - SHORT_MATCH) as u8, low]);
        }
    }
}

/// A hash of the first three bytes.
fn hash(bytes: &[u8]) -> usize {
    let key = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
    // Fibonacci hashing: 2^32 over the golden ratio.
    (key.wrapping_mul(0x9E37_79B1) >> (u32::BITS - TABLE_BITS)) as usize
}

/// The string of `len` bytes that was compressed to `input`. `None` when it is no such thing. Allocates `len`
/// bytes only when `input` is long enough to hold so much.
pub fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    if len as u64 > (input.len() as u64).saturating_mul(MAX_EXPANSION) {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        if usize::from(control) < MAX_LITERALS {
            let (literals, after) = rest.split_at_checked(usize::from(control) + 1)?;
            rest = after;
            if literals.len() > len - out.len() {
                return None;
            }
            out.extend_from_slice(literals);
        } else {
            let mut count = usize::from(control >> 5) + 2;
            if count == SHORT_MATCH {
                count += usize::from(*rest.split_off_first()?);
            }
            let distance = (usize::from(control & 0x1f) << 8 | usize::from(*rest.split_off_first()?)) + 1;
            let from = out.len().checked_sub(distance)?;
            if count > len - out.len() {
                return None;
            }
            while count > 0 {
                let some = count.min(out.len() - from);
                out.extend_from_within(from..from + some);
                count -= some;
            }
        }
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressible() -> impl Strategy<Value = Vec<u8>> {
        let words = proptest::collection::vec(proptest::collection::vec(0u8..4, 1..40), 1..6);
        (words, proptest::collection::vec(any::<prop::sample::Index>(), 0..400))
            .prop_map(|(words, picks)| picks.iter().flat_map(|pick| pick.get(&words).clone()).collect())
    }

    proptest! {
        #[test]
        fn round_trips(strings in proptest::collection::vec(prop_oneof![compressible(), any::<Vec<u8>>()], 1..5)) {
            let mut compressor = Compressor::new();
            for string in strings {
                let packed = compressor.compress(&string, usize::MAX).unwrap();
                prop_assert_eq!(decompress(packed, string.len()), Some(string));
            }
        }

        #[test]
        fn any_bytes_expand_or_are_refused(input: Vec<u8>, len in 0usize..5000) {
            if let Some(out) = decompress(&input, len) {
                prop_assert_eq!(out.len(), len);
            }
        }
    }

    #[test]
    fn every_length_of_repetition() {
        let mut compressor = Compressor::new();
        for len in 0..3 * MAX_MATCH {
            for period in 1..5 {
                let string: Vec<u8> = (0..len).map(|i| (i % period) as u8).collect();
                let packed = compressor.compress(&string, usize::MAX).unwrap();
                assert_eq!(decompress(packed, len).unwrap(), string);
            }
        }
        assert!(compressor.compress(&[7; 10_000], 150).is_some());
        assert!(compressor.compress(&[7; 10_000], 50).is_none());
    }

    #[test]
    fn distances_reach_8192_and_no_further() {
        for (gap, repeated) in [(MAX_DISTANCE, true), (MAX_DISTANCE + 1, false)] {
            let mut string = vec![0; gap + 8];
            string[..8].copy_from_slice(b"\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xf7");
            string.copy_within(..8, gap);
            let mut compressor = Compressor::new();
            let packed = compressor.compress(&string, usize::MAX).unwrap();
            assert_eq!(packed.ends_with(&[(8 - 2) << 5 | 0x1f, 0xff]), repeated);
            assert_eq!(decompress(packed, string.len()).unwrap(), string);
        }
    }

    #[test]
    fn the_table_survives_a_wrap() {
        let mut compressor = Compressor::new();
        compressor.compress(b"abcabcabcabc", 100);
        compressor.base = u32::MAX - 5;
        let packed = compressor.compress(b"abcabcabcabc", 100).unwrap();
        assert_eq!(decompress(packed, 12).unwrap(), b"abcabcabcabc");
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_allocated() {
        assert_eq!(decompress(&[0xff, 0xff, 0], usize::MAX), None);
        assert_eq!(decompress(&[], 0), Some(vec![]));
    }
}
