//! The primitives of RDB, read: lengths, strings, numbers.

use bytes::{Buf, Bytes};

use super::{Error, lzf};

/// Where bytes come from: a payload in memory, or a file or socket behind a buffer.
pub trait Source {
    /// Fills `buf` with the next bytes.
    ///
    /// # Errors
    /// [`Error::Truncated`] when there are fewer.
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), Error>;

    /// The next `len` bytes. Does not allocate for bytes that are not there.
    ///
    /// # Errors
    /// [`Error::Truncated`] when there are fewer.
    fn take(&mut self, len: u64) -> Result<Bytes, Error>;
}

impl Source for Bytes {
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        self.try_copy_to_slice(buf).map_err(|_| Error::Truncated)
    }

    fn take(&mut self, len: u64) -> Result<Bytes, Error> {
        match usize::try_from(len) {
            Ok(len) if len <= self.len() => Ok(self.split_to(len)),
            _ => Err(Error::Truncated),
        }
    }
}

/// Reads what a [`Writer`](super::Writer) or Redis wrote.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    memory: u64,
}

/// A length, or what stands in its place before a string of a special form.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<S: Source> Reader<S> {
    /// Reads from `source` values that take at most `memory` bytes.
    pub fn new(source: S, memory: u64) -> Reader<S> {
        Reader { source, memory }
    }

    /// The source, at what comes next.
    pub fn into_source(self) -> S {
        self.source
    }

    /// Allows what is read from here on to take `memory` bytes: to be called before each value of many.
    pub fn allow(&mut self, memory: u64) {
        self.memory = memory;
    }

    /// Counts memory that is about to be taken.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it is more than is left.
    pub fn charge(&mut self, bytes: u64) -> Result<(), Error> {
        self.memory = self.memory.checked_sub(bytes).ok_or(Error::TooLarge)?;
        Ok(())
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.source.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// A time in ms, eight bytes.
    pub fn time(&mut self) -> Result<i64, Error> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A double, eight bytes.
    pub fn double(&mut self) -> Result<f64, Error> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A double as text, as it was before RDB version 8: a byte for its length, or for no number and the infinities.
    pub fn text_double(&mut self) -> Result<f64, Error> {
        match self.byte()? {
            253 => Ok(f64::NAN),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            len => {
                let text = self.source.take(u64::from(len))?;
                let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                number.ok_or(Error::Corrupt("a double that is no number"))
            }
        }
    }

    /// A length, or any number that is stored as one.
    pub fn length(&mut self) -> Result<u64, Error> {
        match self.length_or_form()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => Err(Error::Corrupt("a string where a length belongs")),
        }
    }

    fn length_or_form(&mut self) -> Result<Length, Error> {
        let first = self.byte()?;
        let low = first & 0x3f;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(u64::from(low)),
            (1, _) => Length::Plain(u64::from(low) << 8 | u64::from(self.byte()?)),
            (_, 0x80) => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            (_, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, _) => Length::Special(low),
            _ => return Err(Error::Corrupt("an unknown form of length")),
        })
    }

    /// A string: plain, an integer, or compressed.
    pub fn string(&mut self) -> Result<Bytes, Error> {
        match self.length_or_form()? {
            Length::Plain(len) => {
                self.charge(len)?;
                self.source.take(len)
            }
            Length::Special(0) => Ok(decimal(i64::from(i8::from_le_bytes(self.array()?)))),
            Length::Special(1) => Ok(decimal(i64::from(i16::from_le_bytes(self.array()?)))),
            Length::Special(2) => Ok(decimal(i64::from(i32::from_le_bytes(self.array()?)))),
            Length::Special(3) => {
                let (packed, len) = (self.length()?, self.length()?);
                if len > packed.saturating_mul(lzf::MAX_EXPANSION) {
                    return Err(Error::Corrupt("a compressed string that is too long"));
                }
                self.charge(len)?;
                let packed = self.source.take(packed)?;
                let len = usize::try_from(len).map_err(|_| Error::TooLarge)?;
                lzf::decompress(&packed, len).map(Bytes::from).ok_or(Error::Corrupt("a badly compressed string"))
            }
            Length::Special(_) => Err(Error::Corrupt("an unknown form of string")),
        }
    }

    /// A string that is an element of a collection.
    pub(super) fn element(&mut self) -> Result<Bytes, Error> {
        self.charge(ELEMENT_OVERHEAD)?;
        self.string()
    }
}

/// Bytes that an element takes besides its own.
pub(super) const ELEMENT_OVERHEAD: u64 = size_of::<Bytes>() as u64;

pub(super) fn decimal(number: i64) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())
}

/// The integer that `text` is, when it prints back to the same text.
pub(super) fn canonical_integer(text: &[u8]) -> Option<i64> {
    // A sign and 19 digits.
    const LONGEST: usize = 20;
    if text.len() > LONGEST || !text.last()?.is_ascii_digit() {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.parse().ok()?;
    (itoa::Buffer::new().format::<i64>(number).as_bytes() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::super::Writer;
    use super::*;
    use proptest::prelude::*;

    fn reader(bytes: &[u8]) -> Reader<Bytes> {
        Reader::new(Bytes::copy_from_slice(bytes), 1 << 20)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            lengths in proptest::collection::vec((any::<u64>(), 0u32..64), 0..8),
            strings in proptest::collection::vec(prop_oneof!["-?[0-9]{0,20}", "[ab]{0,200}", ".{0,30}"], 0..8),
            double: f64,
            time: i64,
        ) {
            let mut writer = Writer::new(true);
            lengths.iter().for_each(|(n, shift)| writer.length(n >> shift));
            strings.iter().for_each(|s| writer.string(s.as_bytes()));
            writer.double(double);
            writer.time(time);
            let mut reader = reader(&writer.finish());
            for (n, shift) in lengths {
                prop_assert_eq!(reader.length(), Ok(n >> shift));
            }
            for string in strings {
                prop_assert_eq!(reader.string(), Ok(Bytes::from(string)));
            }
            prop_assert_eq!(reader.double().unwrap().to_bits(), double.to_bits());
            prop_assert_eq!(reader.time(), Ok(time));
            prop_assert!(reader.into_source().is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = reader(&bytes);
            while reader.string().is_ok() {}
        }
    }

    #[test]
    fn old_doubles() {
        for (bytes, number) in
            [(&b"\x043.25"[..], 3.25), (b"\x06-1e-10", -1e-10), (b"\xfe", f64::INFINITY), (b"\xff", -f64::INFINITY)]
        {
            assert_eq!(reader(bytes).text_double(), Ok(number));
        }
        assert!(reader(b"\xfd").text_double().unwrap().is_nan());
        assert!(matches!(reader(b"\x01x").text_double(), Err(Error::Corrupt(_))));
        assert_eq!(reader(b"\x051").text_double(), Err(Error::Truncated));
    }

    #[test]
    fn memory_is_counted() {
        let mut reader = Reader::new(Bytes::from_static(b"\x05hello\x05world"), 9);
        assert!(reader.string().is_ok());
        assert_eq!(reader.string(), Err(Error::TooLarge));
        let claims_much = b"\xc3\x05\x81\x00\x00\x00\x00\x00\x00\x02\x00";
        assert!(matches!(self::reader(claims_much).string(), Err(Error::Corrupt(_))));
        assert_eq!(self::reader(b"\x81\x00\x00\x00\x00\x00\x0f\x00\x00x").string(), Err(Error::Truncated));
    }
}
