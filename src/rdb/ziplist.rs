//! Ziplists, which listpacks replaced in Redis 7.0: read only.
//!
//! ```text
//! bytes     u32, of the whole ziplist
//! tail      u32, offset of the last element
//! count     u16, of elements; 65535 says that they must be counted
//! elements  each: the length of the one before it (a byte below 254, or 254 and a u32), encoding, data
//! end       0xff
//! ```
//!
//! Numbers are little-endian, but for the lengths of texts. An encoding is one of
//!
//! ```text
//! 00llllll              a text of l bytes
//! 01llllll llllllll     a text of l bytes, high bits first
//! 10______ and 4 bytes  a text with its length, big-endian
//! c0 d0 e0 f0 fe        a signed integer of 2, 4, 8, 3, 1 bytes follows
//! f1 … fd               the integers 0 to 12
//! ```
//!
//! Source: Redis 6.2.

use bytes::Bytes;

use super::Error;
use super::element::Element;
use super::listpack::signed_le;

const HEADER_LEN: usize = 10;
const END: u8 = 0xff;
const UNCOUNTED: u16 = u16::MAX;

/// The elements of a ziplist. Every byte is checked on the way; the end is not reached but in a sound ziplist.
#[derive(Debug)]
pub struct Elements {
    ziplist: Bytes,
    at: usize,
    /// Start of the last element read.
    last: Option<usize>,
    seen: usize,
}

impl Elements {
    /// # Errors
    /// [`Error::Corrupt`] when the header or the last byte is not that of a ziplist.
    pub fn of(ziplist: Bytes) -> Result<Elements, Error> {
        let whole = ziplist.len() > HEADER_LEN
            && le_at::<4>(&ziplist, 0).map(u32::from_le_bytes).is_some_and(|len| len as usize == ziplist.len())
            && ziplist.last() == Some(&END);
        if !whole {
            return Err(Error::Corrupt("a malformed ziplist"));
        }
        Ok(Elements { ziplist, at: HEADER_LEN, last: None, seen: 0 })
    }

    /// The next element; its bytes are all before the end mark.
    fn element(&mut self) -> Option<Element> {
        let bytes = &self.ziplist[self.at..self.ziplist.len() - 1];
        let (previous, head) = match *bytes.first()? {
            254 => (u32::from_le_bytes(le_at(bytes, 1)?) as usize, 5),
            short => (usize::from(short), 1),
        };
        if previous != self.last.map_or(0, |last| self.at - last) {
            return None;
        }
        let encoding = *bytes.get(head)?;
        let (encoding_len, data_len) = match encoding {
            0x00..=0x3f => (1, usize::from(encoding)),
            0x40..=0x7f => (2, usize::from(encoding & 0x3f) << 8 | usize::from(*bytes.get(head + 1)?)),
            0x80..=0xbf => (5, u32::from_be_bytes(le_at(bytes, head + 1)?) as usize),
            0xc0 => (1, 2),
            0xd0 => (1, 4),
            0xe0 => (1, 8),
            0xf0 => (1, 3),
            0xfe => (1, 1),
            0xf1..=0xfd => (1, 0),
            _ => return None,
        };
        let start = head + encoding_len;
        let data = bytes.get(start..start + data_len)?;
        let element = match encoding {
            0x00..=0xbf => Element::Text(self.ziplist.slice(self.at + start..self.at + start + data_len)),
            0xf1..=0xfd => Element::Integer(i64::from(encoding - 0xf1)),
            _ => Element::Integer(signed_le(data)),
        };
        self.last = Some(self.at);
        self.at += start + data_len;
        self.seen += 1;
        Some(element)
    }

    /// Whether the header tells the truth, after the last element.
    fn is_sound(&self) -> bool {
        let tail = le_at(&self.ziplist, 4).map(u32::from_le_bytes);
        let count = le_at(&self.ziplist, 8).map(u16::from_le_bytes);
        let tail_holds = match self.last {
            Some(last) => tail.is_some_and(|tail| tail as usize == last),
            None => tail.is_some_and(|tail| (tail as usize) < self.ziplist.len()),
        };
        tail_holds && count.is_some_and(|count| count == UNCOUNTED || usize::from(count) == self.seen)
    }
}

impl Iterator for Elements {
    type Item = Result<Element, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.ziplist.len() - 1 {
            return (!self.is_sound()).then_some(Err(Error::Corrupt("a ziplist with a wrong header")));
        }
        Some(self.element().ok_or(Error::Corrupt("a malformed element in a ziplist")))
    }
}

fn le_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(ziplist: &[u8]) -> Result<Vec<Bytes>, Error> {
        Elements::of(Bytes::copy_from_slice(ziplist))?.map(|element| Ok(element?.into_bytes())).collect()
    }

    /// A ziplist of these elements: each its encoding and data.
    fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        let (mut tail, mut previous) = (HEADER_LEN, 0);
        for element in elements {
            tail = HEADER_LEN + body.len();
            if previous < 254 {
                body.push(previous as u8);
            } else {
                body.push(254);
                body.extend_from_slice(&(previous as u32).to_le_bytes());
            }
            body.extend_from_slice(element);
            previous = HEADER_LEN + body.len() - tail;
        }
        let mut ziplist = ((HEADER_LEN + body.len() + 1) as u32).to_le_bytes().to_vec();
        ziplist.extend_from_slice(&(tail as u32).to_le_bytes());
        ziplist.extend_from_slice(&(elements.len() as u16).to_le_bytes());
        ziplist.extend_from_slice(&body);
        ziplist.push(END);
        ziplist
    }

    #[test]
    fn every_encoding() {
        let long = [&[0x41, 0x2c][..], &[b'l'; 300]].concat();
        let huge = [&[0x80, 0, 0, 0x50, 0][..], &[b'h'; 0x5000]].concat();
        let bytes = ziplist(&[
            b"\x02hi",
            &long,
            &huge,
            b"\xc0\x00\x80",
            b"\xd0\xff\xff\xff\x7f",
            b"\xe0\x00\x00\x00\x00\x00\x00\x00\x80",
            b"\xf0\xff\xff\xff",
            b"\xfe\x80",
            b"\xf1",
            b"\xfd",
        ]);
        let strings = read(&bytes).unwrap();
        assert_eq!(strings[0], "hi");
        assert_eq!((strings[1].len(), strings[2].len()), (300, 0x5000));
        assert_eq!(&strings[3..], ["-32768", "2147483647", "-9223372036854775808", "-1", "-128", "0", "12"]);
        assert_eq!(read(&ziplist(&[])), Ok(vec![]));
    }

    #[test]
    fn a_wrong_header_or_length_is_found() {
        let good = ziplist(&[b"\x02hi", b"\xf3"]);
        assert_eq!(read(&good).unwrap(), ["hi", "2"]);
        for (at, why) in [(0, "bytes"), (4, "tail"), (8, "count"), (10, "first length"), (14, "length"), (16, "end")] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "{why}");
        }
        assert!(read(&ziplist(&[b"\xff"])).is_err());
        assert!(read(&ziplist(&[b"\xc1\0\0"])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            elements in proptest::collection::vec(any::<Vec<u8>>(), 0..6),
            at: prop::sample::Index,
            byte: u8,
        ) {
            let elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
            let mut bytes = ziplist(&elements);
            let _ = read(&bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read(&bytes);
        }
    }
}
