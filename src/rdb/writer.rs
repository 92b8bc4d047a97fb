//! The primitives of RDB, written: lengths, strings, numbers.

use super::lzf::Compressor;
use super::reader::canonical_integer;

/// Strings up to this length are not worth compressing, bytes.
const MIN_COMPRESSED: usize = 20;
/// Bytes that compression must save.
const MIN_SAVED: usize = 4;
/// Strings longer than this are no 32-bit integers.
const MAX_INTEGER_TEXT: usize = 11;

/// Writes into memory what a [`Reader`](super::Reader) or Redis reads.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    compressor: Option<Compressor>,
}

impl Writer {
    /// An empty writer; `compress` long strings or not.
    pub fn new(compress: bool) -> Writer {
        Writer { out: Vec::new(), compressor: compress.then(Compressor::new) }
    }

    /// All that was written.
    pub fn as_slice(&self) -> &[u8] {
        &self.out
    }

    /// Forgets what was written, to go on with the same buffers.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// All that was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    pub fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A time in ms, eight bytes.
    pub fn time(&mut self, ms: i64) {
        self.raw(&ms.to_le_bytes());
    }

    /// A double, eight bytes.
    pub fn double(&mut self, number: f64) {
        self.raw(&number.to_le_bytes());
    }

    /// A length, or any number that is stored as one: 1, 2, 5 or 9 bytes.
    pub fn length(&mut self, length: u64) {
        match length {
            0..0x40 => self.byte(length as u8),
            0x40..0x4000 => self.raw(&(length as u16 | 0x4000).to_be_bytes()),
            0x4000..=0xffff_ffff => {
                self.byte(0x80);
                self.raw(&(length as u32).to_be_bytes());
            }
            _ => {
                self.byte(0x81);
                self.raw(&length.to_be_bytes());
            }
        }
    }

    /// A string: as an integer where it is one of 32 bits, compressed where that saves something.
    pub fn string(&mut self, string: &[u8]) {
        if string.len() <= MAX_INTEGER_TEXT
            && let Some(number) = canonical_integer(string).and_then(|number| i32::try_from(number).ok())
        {
            return self.integer(number);
        }
        if string.len() > MIN_COMPRESSED && self.compressed(string) {
            return;
        }
        self.length(string.len() as u64);
        self.raw(string);
    }

    fn integer(&mut self, number: i32) {
        if let Ok(number) = i8::try_from(number) {
            self.raw(&[0xc0, number as u8]);
        } else if let Ok(number) = i16::try_from(number) {
            self.byte(0xc1);
            self.raw(&number.to_le_bytes());
        } else {
            self.byte(0xc2);
            self.raw(&number.to_le_bytes());
        }
    }

    /// Writes the string compressed, if that is wanted and saves something.
    fn compressed(&mut self, string: &[u8]) -> bool {
        let Some(mut compressor) = self.compressor.take() else { return false };
        let packed = compressor.compress(string, string.len() - MIN_SAVED);
        let saves = packed.is_some();
        if let Some(packed) = packed {
            self.byte(0xc3);
            self.length(packed.len() as u64);
            self.length(string.len() as u64);
            self.raw(packed);
        }
        self.compressor = Some(compressor);
        saves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new(true);
        write(&mut writer);
        writer.finish()
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, expected) in [
            (0, &b"\x00"[..]),
            (63, b"\x3f"),
            (64, b"\x40\x40"),
            (16383, b"\x7f\xff"),
            (16384, b"\x80\x00\x00\x40\x00"),
            (0xffff_ffff, b"\x80\xff\xff\xff\xff"),
            (1 << 32, b"\x81\x00\x00\x00\x01\x00\x00\x00\x00"),
        ] {
            assert_eq!(written(|w| w.length(length)), expected, "{length}");
        }
    }

    #[test]
    fn integers_are_stored_as_such() {
        for (string, expected) in [
            ("0", &b"\xc0\x00"[..]),
            ("-128", b"\xc0\x80"),
            ("128", b"\xc1\x80\x00"),
            ("-32768", b"\xc1\x00\x80"),
            ("32768", b"\xc2\x00\x80\x00\x00"),
            ("-2147483648", b"\xc2\x00\x00\x00\x80"),
            ("2147483648", b"\x0a2147483648"),
            ("007", b"\x03007"),
            ("-0", b"\x02-0"),
            ("", b"\x00"),
        ] {
            assert_eq!(written(|w| w.string(string.as_bytes())), expected, "{string}");
        }
    }

    #[test]
    fn compression_must_pay() {
        assert_eq!(written(|w| w.string(&[b'a'; 20])).len(), 21);
        assert!(written(|w| w.string(&[b'a'; 21])).len() < 12);
        let plain: Vec<u8> = (0..100).collect();
        assert_eq!(written(|w| w.string(&plain)).len(), 102);
        let mut writer = Writer::new(false);
        writer.string(&[b'a'; 100]);
        assert_eq!(writer.finish().len(), 102);
    }
}
