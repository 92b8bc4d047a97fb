//! Strings as arrays of bits, read in parts: bit 0 is the highest of the first byte.
//!
//! A value may be large and mostly zeros, so what is known to be zero is not read.

use super::CommandError;

/// Bytes read at a time.
const BLOCK: usize = 16 << 10;

/// A string that can be read in parts.
pub trait BitString {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Reads from `offset` (bytes) on. What lies in a hole or behind the end is zero.
    ///
    /// # Errors
    /// Those of the storage.
    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), CommandError>;

    /// The offset of the first byte from `from` on that may differ from zero; `None` if there is none.
    ///
    /// # Errors
    /// Those of the storage.
    fn next_data(&mut self, from: u64) -> Result<Option<u64>, CommandError>;
}

/// Bits of a string, by their offsets: both within the string, the first not behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRange {
    /// Offset of the first bit.
    pub first: u64,
    /// Offset of the last bit.
    pub last: u64,
}

impl BitRange {
    /// From `start` to `end` as a command names them: inclusive, negative ones counting from the end of a string
    /// of `length` bytes, in bits or else in bytes. `None` if that is empty.
    pub fn of(start: i64, end: i64, bits: bool, length: u64) -> Option<BitRange> {
        let total = if bits { length as i64 * 8 } else { length as i64 };
        let from_beginning = |offset: i64| if offset < 0 { (offset + total).max(0) } else { offset };
        let (start, end) = (from_beginning(start), from_beginning(end).min(total - 1));
        if start > end {
            return None;
        }
        let (start, end) = (start as u64, end as u64);
        Some(if bits { BitRange { first: start, last: end } } else { BitRange { first: start * 8, last: end * 8 + 7 } })
    }

    /// Sets the bits of a block that lie outside the range, and in its edge bytes, to `bit`. The block begins at byte
    /// `offset`; none of its bytes lies wholly outside.
    fn frame(self, offset: u64, block: &mut [u8], bit: bool) {
        let mut mask = |at: u64, outside: u8| {
            let byte = at.checked_sub(offset).and_then(|at| block.get_mut(at as usize));
            if let Some(byte) = byte {
                *byte = if bit { *byte | outside } else { *byte & !outside };
            }
        };
        mask(self.first / 8, !(0xff >> (self.first % 8)));
        mask(self.last / 8, !(0xff << (7 - self.last % 8)));
    }
}

/// How many bits of the range are set.
///
/// # Errors
/// Those of the storage.
pub fn count(string: &mut impl BitString, range: BitRange) -> Result<u64, CommandError> {
    let mut blocks = Blocks::of(range);
    let mut sum = 0;
    while let Some((offset, block)) = blocks.next_data(string)? {
        range.frame(offset, block, false);
        let (words, rest) = block.as_chunks::<8>();
        sum += words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum::<u64>();
        sum += rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    }
    Ok(sum)
}

/// Offset of the first bit of the range that is `bit`.
///
/// # Errors
/// Those of the storage.
pub fn position(string: &mut impl BitString, range: BitRange, bit: bool) -> Result<Option<u64>, CommandError> {
    let mut blocks = Blocks::of(range);
    loop {
        let begin = blocks.at;
        let (offset, block) = match blocks.next_data(string)? {
            Some((offset, _)) if !bit && offset > begin => return Ok(Some(range.first.max(begin * 8))),
            None if !bit && begin <= range.last / 8 => return Ok(Some(range.first.max(begin * 8))),
            None => return Ok(None),
            Some(found) => found,
        };
        range.frame(offset, block, !bit);
        let wanted = if bit { 0 } else { 0xff };
        if let Some(at) = block.iter().position(|byte| *byte != wanted) {
            let byte = if bit { block[at] } else { !block[at] };
            return Ok(Some((offset + at as u64) * 8 + u64::from(byte.leading_zeros())));
        }
    }
}

/// Reads the bytes of a range block by block.
struct Blocks {
    /// Offset of the next byte.
    at: u64,
    /// Offset behind the last byte.
    end: u64,
    buf: Vec<u8>,
}

impl Blocks {
    fn of(range: BitRange) -> Blocks {
        let (at, end) = (range.first / 8, range.last / 8 + 1);
        Blocks { at, end, buf: vec![0; (end - at).min(BLOCK as u64) as usize] }
    }

    /// The next block that may hold more than zeros, and its offset.
    fn next_data(&mut self, string: &mut impl BitString) -> Result<Option<(u64, &mut [u8])>, CommandError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let Some(offset) = string.next_data(self.at)?.filter(|offset| *offset < self.end) else { return Ok(None) };
        let length = (self.end - offset).min(self.buf.len() as u64);
        let block = self.buf.get_mut(..length as usize).unwrap_or_default();
        string.read(offset, block)?;
        self.at = offset + length;
        Ok(Some((offset, block)))
    }
}

/// What BITOP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Set in all of them.
    And,
    /// Set in any of them.
    Or,
    /// Set in an odd number of them.
    Xor,
    /// Not set in the only one.
    Not,
}

impl Operation {
    /// By its name in any case.
    pub fn named(name: &[u8]) -> Option<Operation> {
        [("and", Operation::And), ("or", Operation::Or), ("xor", Operation::Xor), ("not", Operation::Not)]
            .into_iter()
            .find(|(own, _)| name.eq_ignore_ascii_case(own.as_bytes()))
            .map(|(_, operation)| operation)
    }

    /// Where, from `from` on, the result may first differ from zero.
    fn next_data<S: BitString>(self, sources: &mut [S], from: u64) -> Result<Option<u64>, CommandError> {
        if self == Operation::Not {
            return Ok(Some(from));
        }
        let mut next = None;
        for source in sources {
            let own = source.next_data(from)?;
            next = match (self, next, own) {
                (Operation::And, _, None) => return Ok(None),
                (Operation::And, before, own) => before.max(own),
                (_, None, other) | (_, other, None) => other,
                (_, Some(a), Some(b)) => Some(a.min(b)),
            };
        }
        Ok(next)
    }
}

/// Combines strings, the shorter ones as if they went on with zeros, and hands the parts of the result that may differ
/// from zero to `part`, with their offsets. Answers the length of the result, which is that of the longest.
///
/// # Errors
/// Those of the storage.
pub fn combine<S: BitString>(
    operation: Operation,
    sources: &mut [S],
    mut part: impl FnMut(u64, &[u8]),
) -> Result<u64, CommandError> {
    let length = sources.iter().map(BitString::len).max().unwrap_or(0);
    let (mut result, mut other) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < length {
        let Some(offset) = operation.next_data(sources, at)?.filter(|offset| *offset < length) else { break };
        let bytes = (length - offset).min(BLOCK as u64) as usize;
        let (result, other) = (&mut result[..bytes], &mut other[..bytes]);
        let mut sources = sources.iter_mut();
        if let Some(first) = sources.next() {
            first.read(offset, result)?;
        }
        for source in sources {
            source.read(offset, other)?;
            let pairs = result.iter_mut().zip(&*other);
            match operation {
                Operation::And => pairs.for_each(|(a, b)| *a &= b),
                Operation::Or => pairs.for_each(|(a, b)| *a |= b),
                Operation::Xor => pairs.for_each(|(a, b)| *a ^= b),
                Operation::Not => {}
            }
        }
        if operation == Operation::Not {
            result.iter_mut().for_each(|byte| *byte = !*byte);
        }
        part(offset, result);
        at = offset + bytes as u64;
    }
    Ok(length)
}

/// A string in memory.
#[cfg(test)]
#[derive(Default)]
pub struct Whole(pub Vec<u8>);

#[cfg(test)]
impl BitString for Whole {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), CommandError> {
        let stored = self.0.get(offset as usize..).unwrap_or_default();
        let (data, beyond) = buf.split_at_mut(stored.len().min(buf.len()));
        data.copy_from_slice(&stored[..data.len()]);
        beyond.fill(0);
        Ok(())
    }

    fn next_data(&mut self, from: u64) -> Result<Option<u64>, CommandError> {
        Ok((from < self.len()).then_some(from))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data in chunks, some of which are holes.
    #[derive(Clone, Debug)]
    struct Chunked {
        bytes: Vec<u8>,
        chunk: usize,
    }

    impl BitString for Chunked {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), CommandError> {
            for (at, byte) in buf.iter_mut().enumerate() {
                *byte = self.bytes.get(offset as usize + at).copied().unwrap_or(0);
            }
            Ok(())
        }
        fn next_data(&mut self, from: u64) -> Result<Option<u64>, CommandError> {
            let from = from as usize;
            let mut chunks = self.bytes.chunks(self.chunk).enumerate().skip(from / self.chunk);
            let data = chunks.find(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
            Ok(data.map(|(at, _)| (at * self.chunk).max(from) as u64).filter(|at| *at < self.len()))
        }
    }

    impl Chunked {
        fn bit(&self, at: u64) -> bool {
            self.bytes[at as usize / 8] & 0x80 >> (at % 8) != 0
        }
    }

    fn chunked() -> impl Strategy<Value = Chunked> {
        let part = prop_oneof![
            (1..40usize).prop_map(|length| vec![0; length]),
            (1..40usize).prop_map(|length| vec![0xff; length]),
            proptest::collection::vec(any::<u8>(), 1..20),
            Just(vec![0; 2 * BLOCK]),
            Just(vec![0xff; BLOCK]),
        ];
        (proptest::collection::vec(part, 0..6), 1..9usize)
            .prop_map(|(parts, chunk)| Chunked { bytes: parts.concat(), chunk })
    }

    proptest! {
        #[test]
        fn as_one_bit_at_a_time(mut string in chunked(), a in any::<i16>(), b in any::<i16>(), bits in any::<bool>()) {
            if let Some(range) = BitRange::of(a.into(), b.into(), bits, string.len()) {
                let bits = || range.first..=range.last;
                let expected = bits().filter(|at| string.bit(*at)).count() as u64;
                prop_assert_eq!(count(&mut string.clone(), range).unwrap(), expected);
                for wanted in [false, true] {
                    let expected = bits().find(|at| string.bit(*at) == wanted);
                    prop_assert_eq!(position(&mut string, range, wanted).unwrap(), expected);
                }
            }
        }

        #[test]
        fn combined_byte_by_byte(mut strings in proptest::collection::vec(chunked(), 1..4)) {
            let length = strings.iter().map(|string| string.bytes.len()).max().unwrap();
            for (operation, f) in [
                (Operation::And, (|a, b| a & b) as fn(u8, u8) -> u8),
                (Operation::Or, |a, b| a | b),
                (Operation::Xor, |a, b| a ^ b),
                (Operation::Not, |a, _| !a),
            ] {
                let strings = if operation == Operation::Not { &mut strings[..1] } else { &mut strings[..] };
                let length = if operation == Operation::Not { strings[0].bytes.len() } else { length };
                let mut result = vec![0; length];
                combine(operation, strings, |offset, part| {
                    result[offset as usize..][..part.len()].copy_from_slice(part);
                }).unwrap();
                let byte = |string: &Chunked, at: usize| string.bytes.get(at).copied().unwrap_or(0);
                let expected: Vec<u8> = (0..length)
                    .map(|at| match operation {
                        Operation::Not => !byte(&strings[0], at),
                        _ => strings.iter().map(|string| byte(string, at)).reduce(f).unwrap(),
                    })
                    .collect();
                prop_assert!(result == expected);
            }
        }
    }

    #[test]
    fn ranges() {
        let range = |first, last| Some(BitRange { first, last });
        assert_eq!(BitRange::of(0, -1, false, 3), range(0, 23));
        assert_eq!(BitRange::of(1, 1, false, 3), range(8, 15));
        assert_eq!(BitRange::of(-5, 100, true, 3), range(19, 23));
        assert_eq!(BitRange::of(-100, -100, true, 3), range(0, 0));
        assert_eq!(BitRange::of(2, 1, true, 3), None);
        assert_eq!(BitRange::of(0, -1, false, 0), None);
        assert_eq!(BitRange::of(i64::MIN, i64::MAX, true, 1), range(0, 7));
    }
}
