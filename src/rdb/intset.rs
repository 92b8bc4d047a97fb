//! Intsets: small sets of integers.
//!
//! ```text
//! width     u32: bytes of an integer: 2, 4 or 8
//! count     u32
//! integers  rising
//! ```
//!
//! All little-endian. Source: Redis 7.0.

use super::Error;
use super::listpack::signed_le;

const HEADER_LEN: usize = 8;

/// The intset of these integers, which must rise.
pub fn build(integers: &[i64]) -> Vec<u8> {
    let fits = |low: i64, high: i64| integers.iter().all(|n| (low..=high).contains(n));
    let width = if fits(i64::from(i16::MIN), i64::from(i16::MAX)) {
        2
    } else if fits(i64::from(i32::MIN), i64::from(i32::MAX)) {
        4
    } else {
        8
    };
    let mut intset = Vec::with_capacity(HEADER_LEN + width * integers.len());
    intset.extend_from_slice(&(width as u32).to_le_bytes());
    intset.extend_from_slice(&(integers.len() as u32).to_le_bytes());
    integers.iter().for_each(|n| intset.extend_from_slice(&n.to_le_bytes()[..width]));
    intset
}

/// The integers of an intset, one at least.
///
/// # Errors
/// [`Error::Corrupt`].
pub fn read(intset: &[u8]) -> Result<impl ExactSizeIterator<Item = i64>, Error> {
    const BAD: Error = Error::Corrupt("a malformed intset");
    let (header, integers) = intset.split_first_chunk::<HEADER_LEN>().ok_or(BAD)?;
    let [w0, w1, w2, w3, c0, c1, c2, c3] = *header;
    let width = match u32::from_le_bytes([w0, w1, w2, w3]) {
        width @ (2 | 4 | 8) => width as usize,
        _ => return Err(BAD),
    };
    let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
    if count == 0 || count.checked_mul(width) != Some(integers.len()) {
        return Err(BAD);
    }
    let integers = integers.chunks_exact(width).map(signed_le);
    if !integers.clone().is_sorted_by(|a, b| a < b) {
        return Err(Error::Corrupt("an intset out of order"));
    }
    Ok(integers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn round_trips(integers in proptest::collection::vec((any::<i64>(), 0u32..64), 1..50)) {
            let integers: BTreeSet<i64> = integers.iter().map(|(n, shift)| n >> shift).collect();
            let integers: Vec<i64> = integers.into_iter().collect();
            let intset = build(&integers);
            prop_assert_eq!(read(&intset).unwrap().collect::<Vec<_>>(), integers);
        }

        #[test]
        fn any_bytes_are_read_or_refused(intset: Vec<u8>) {
            let _ = read(&intset);
        }
    }

    #[test]
    fn order_and_size_are_checked() {
        assert_eq!(build(&[1, 2]), b"\x02\0\0\0\x02\0\0\0\x01\0\x02\0");
        for bad in [
            &b"\x02\0\0\0\0\0\0\0"[..],
            b"\x03\0\0\0\x01\0\0\0\x01\0\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0\x01\0",
            b"\x02\0\0\0\x02\0\0\0\x01\0\xff\xff",
        ] {
            assert!(read(bad).is_err());
        }
    }
}
