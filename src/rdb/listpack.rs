//! Listpacks: short sequences of strings and integers in one run of bytes.
//!
//! ```text
//! bytes      u32, of the whole listpack
//! count      u16, of elements; 65535 says that they must be counted
//! elements   each: encoding and data, then the length of both backwards, 7 bits a byte
//! end        0xff
//! ```
//!
//! Numbers are little-endian. An element starts with one of
//!
//! ```text
//! 0iiiiiii            the integer i
//! 10llllll            a text of l bytes
//! 110iiiii iiiiiiii   a signed integer of 13 bits, high bits first
//! 1110llll llllllll   a text of l bytes, high bits first
//! f0                  a text with its length in four bytes
//! f1 f2 f3 f4         a signed integer of 2, 3, 4, 8 bytes
//! ```
//!
//! Source: antirez/listpack, and Redis 7.0.

use bytes::Bytes;

use super::Error;
use super::element::Element;
use super::reader::canonical_integer;

const HEADER_LEN: usize = 6;
const END: u8 = 0xff;
const UNCOUNTED: u16 = u16::MAX;

/// Bytes of a listpack without elements.
pub const EMPTY_LEN: usize = HEADER_LEN + 1;

const BAD_ELEMENT: Error = Error::Corrupt("a malformed element in a listpack");

/// The elements of a listpack. Every byte is checked on the way; the end is not reached but in a sound listpack.
#[derive(Debug)]
pub struct Elements {
    listpack: Bytes,
    at: usize,
    seen: usize,
}

impl Elements {
    /// # Errors
    /// [`Error::Corrupt`] when the header or the last byte is not that of a listpack.
    pub fn of(listpack: Bytes) -> Result<Elements, Error> {
        let whole = listpack.len() >= EMPTY_LEN
            && u32_at(&listpack, 0).is_some_and(|len| len as usize == listpack.len())
            && listpack.last() == Some(&END);
        if !whole {
            return Err(Error::Corrupt("a malformed listpack"));
        }
        Ok(Elements { listpack, at: HEADER_LEN, seen: 0 })
    }

    /// The next element where there must be one.
    pub fn expect(&mut self) -> Result<Element, Error> {
        self.next().unwrap_or(Err(Error::Corrupt("a listpack that ends early")))
    }

    /// The number of elements that the header gives.
    fn declared(&self) -> u16 {
        u16::from_le_bytes([self.listpack[4], self.listpack[5]])
    }

    /// The next element; its bytes are all before the end mark.
    fn element(&mut self) -> Option<Element> {
        let end = self.listpack.len() - 1;
        let bytes = &self.listpack[self.at..end];
        let first = *bytes.first()?;
        let low = |bits: u8| usize::from(first & ((1 << bits) - 1));
        let (head, data) = match first {
            0x00..=0x7f => (1, 0),
            0x80..=0xbf => (1, low(6)),
            0xc0..=0xdf => (2, 0),
            0xe0..=0xef => (2, low(4) << 8 | usize::from(*bytes.get(1)?)),
            0xf0 => (5, u32_at(bytes, 1)? as usize),
            0xf1 => (3, 0),
            0xf2 => (4, 0),
            0xf3 => (5, 0),
            0xf4 => (9, 0),
            0xf5..=0xff => return None,
        };
        let len = head + data;
        let (encoded, back) = bytes.split_at_checked(len)?;
        let (expected, back_len) = backward_len(len);
        if !back.starts_with(&expected[..back_len]) {
            return None;
        }
        let element = match first {
            0x00..=0x7f => Element::Integer(i64::from(first)),
            0xc0..=0xdf => {
                let bits = (low(5) << 8 | usize::from(encoded[1])) as i16;
                Element::Integer(i64::from(bits << 3 >> 3))
            }
            0xf1..=0xf4 => Element::Integer(signed_le(&encoded[1..])),
            _ => Element::Text(self.listpack.slice(self.at + head..self.at + len)),
        };
        self.at += len + back_len;
        self.seen += 1;
        Some(element)
    }
}

impl Iterator for Elements {
    type Item = Result<Element, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.listpack.len() - 1 {
            let count = self.declared();
            return (count != UNCOUNTED && usize::from(count) != self.seen)
                .then_some(Err(Error::Corrupt("a listpack with a wrong count")));
        }
        Some(self.element().ok_or(BAD_ELEMENT))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// A signed little-endian integer of one to eight bytes.
pub(super) fn signed_le(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

/// An element's length as it stands behind it, to be read backwards: the low 7 bits last, the high bit set in
/// all bytes but the first. Returns the bytes and how many they are.
fn backward_len(len: usize) -> ([u8; 5], usize) {
    // The limits are one below what the bits would hold, but for the first: so Redis has it.
    let bytes = match len {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut back = [0; 5];
    for (i, byte) in back[..bytes].iter_mut().enumerate() {
        *byte = (len >> (7 * (bytes - 1 - i))) as u8 & 0x7f | if i == 0 { 0 } else { 0x80 };
    }
    (back, bytes)
}

/// Bytes that a string takes as an element.
pub fn element_len(string: &[u8]) -> usize {
    match canonical_integer(string) {
        Some(number) => integer_len(number),
        None => {
            let head = match string.len() {
                0..64 => 1,
                64..4096 => 2,
                _ => 5,
            };
            with_backward_len(head + string.len())
        }
    }
}

/// Bytes that an integer takes as an element.
pub fn integer_len(number: i64) -> usize {
    with_backward_len(match number {
        0..=127 => 1,
        -4096..=4095 => 2,
        -0x8000..=0x7fff => 3,
        -0x80_0000..=0x7f_ffff => 4,
        -0x8000_0000..=0x7fff_ffff => 5,
        _ => 9,
    })
}

fn with_backward_len(len: usize) -> usize {
    len + backward_len(len).1
}

/// Makes a listpack.
#[derive(Debug)]
pub struct Builder {
    /// Without the end mark.
    listpack: Vec<u8>,
    count: usize,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { listpack: vec![0; HEADER_LEN], count: 0 }
    }
}

impl Builder {
    /// Bytes of the listpack as it is now.
    pub fn len(&self) -> usize {
        self.listpack.len() + 1
    }

    /// Adds a string: as an integer where it is one.
    pub fn push(&mut self, string: &[u8]) {
        if let Some(number) = canonical_integer(string) {
            return self.push_integer(number);
        }
        let start = self.listpack.len();
        let len = string.len();
        match len {
            0..64 => self.listpack.push(0x80 | len as u8),
            64..4096 => self.listpack.extend_from_slice(&(0xe000 | len as u16).to_be_bytes()),
            _ => {
                self.listpack.push(0xf0);
                self.listpack.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
        self.listpack.extend_from_slice(string);
        self.close(start);
    }

    pub fn push_integer(&mut self, number: i64) {
        let start = self.listpack.len();
        let bytes = number.to_le_bytes();
        match number {
            0..=127 => self.listpack.push(number as u8),
            -4096..=4095 => self.listpack.extend_from_slice(&(0xc000 | number as u16 & 0x1fff).to_be_bytes()),
            -0x8000..=0x7fff => self.put_wide(0xf1, &bytes[..2]),
            -0x80_0000..=0x7f_ffff => self.put_wide(0xf2, &bytes[..3]),
            -0x8000_0000..=0x7fff_ffff => self.put_wide(0xf3, &bytes[..4]),
            _ => self.put_wide(0xf4, &bytes),
        }
        self.close(start);
    }

    fn put_wide(&mut self, encoding: u8, bytes: &[u8]) {
        self.listpack.push(encoding);
        self.listpack.extend_from_slice(bytes);
    }

    fn close(&mut self, start: usize) {
        let (back, bytes) = backward_len(self.listpack.len() - start);
        self.listpack.extend_from_slice(&back[..bytes]);
        self.count += 1;
    }

    /// Adds the elements of another.
    pub fn append(&mut self, other: &Builder) {
        self.listpack.extend_from_slice(&other.listpack[HEADER_LEN..]);
        self.count += other.count;
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.listpack.push(END);
        let len = self.listpack.len() as u32;
        self.listpack[..4].copy_from_slice(&len.to_le_bytes());
        let count = u16::try_from(self.count).unwrap_or(UNCOUNTED);
        self.listpack[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        self.listpack
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(listpack: Vec<u8>) -> Result<Vec<Bytes>, Error> {
        Elements::of(listpack.into())?.map(|element| Ok(element?.into_bytes())).collect()
    }

    fn strings() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let string = prop_oneof![
            (any::<i64>(), 0u32..64).prop_map(|(n, shift)| (n >> shift).to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..100),
            (0usize..20_000).prop_map(|len| vec![b'x'; len]),
        ];
        proptest::collection::vec(string, 0..20)
    }

    proptest! {
        #[test]
        fn round_trips(strings in strings()) {
            let mut builder = Builder::default();
            strings.iter().for_each(|string| builder.push(string));
            let len = builder.len();
            prop_assert_eq!(len, EMPTY_LEN + strings.iter().map(|string| element_len(string)).sum::<usize>());
            let listpack = builder.finish();
            prop_assert_eq!(listpack.len(), len);
            prop_assert_eq!(read(listpack).unwrap(), strings);
        }

        #[test]
        fn damage_is_found_or_harmless(strings in strings(), at: prop::sample::Index, byte: u8) {
            let mut builder = Builder::default();
            strings.iter().for_each(|string| builder.push(string));
            let mut listpack = builder.finish();
            let at = at.index(listpack.len());
            listpack[at] = byte;
            let _ = read(listpack);
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut listpack = (body.len() as u32 + 7).to_le_bytes().to_vec();
            listpack.extend_from_slice(&[0xff, 0xff]);
            listpack.extend_from_slice(&body);
            listpack.push(END);
            let _ = read(listpack);
        }
    }

    #[test]
    fn integers_at_the_edges() {
        for edge in [0i64, 127, 4095, 0x7fff, 0x7f_ffff, 0x7fff_ffff, i64::MAX] {
            for number in [edge, edge.wrapping_add(1), !edge, (!edge).wrapping_sub(1)] {
                let mut builder = Builder::default();
                builder.push_integer(number);
                let element = Elements::of(builder.finish().into()).unwrap().expect();
                assert_eq!(element, Ok(Element::Integer(number)));
            }
        }
    }

    #[test]
    fn lengths_backwards() {
        for (len, expected) in [
            (127, &[127][..]),
            (128, &[1, 0x80]),
            (16_382, &[0x7f, 0xfe]),
            (16_383, &[0, 0xff, 0xff]),
            (2_097_151, &[0, 0xff, 0xff, 0xff]),
            (268_435_455, &[0, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let (back, bytes) = backward_len(len);
            assert_eq!(&back[..bytes], expected);
        }
    }

    #[test]
    fn a_listpack_of_redis() {
        let bytes = b"\x10\0\0\0\x03\0\x82hi\x03\x05\x01\xdf\xff\x02\xff";
        assert_eq!(read(bytes.to_vec()).unwrap(), ["hi", "5", "-1"]);
        let mut builder = Builder::default();
        ["hi", "5", "-1"].iter().for_each(|s| builder.push(s.as_bytes()));
        assert_eq!(builder.finish(), bytes);
        for (at, why) in [(0, "length"), (4, "count"), (9, "backward length"), (15, "end")] {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(read(bad).is_err(), "{why}");
        }
    }
}
