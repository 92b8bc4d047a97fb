//! Zipmaps, which held small hashes before Redis 2.6: read only.
//!
//! ```text
//! count    u8, of fields; 254 says that they must be counted
//! fields   each: length, field, length, u8 of unused bytes, value, unused bytes
//! end      0xff
//! ```
//!
//! A length is a byte below 254, or 254 and a little-endian u32. Source: Redis 2.4.

use bytes::Bytes;

use super::Error;
use super::reader::Source;

const END: u8 = 0xff;
const LONG: u8 = 254;
/// Redis 7 takes none that would not fit a listpack.
const MAX_LEN: usize = 1 << 30;

/// Reads the fields of a zipmap with their values, handing each to `field`.
///
/// # Errors
/// [`Error::Corrupt`], or what `field` answers.
pub fn read(zipmap: Bytes, mut field: impl FnMut(Bytes, Bytes) -> Result<(), Error>) -> Result<(), Error> {
    const BAD: Error = Error::Corrupt("a malformed zipmap");
    if zipmap.len() > MAX_LEN {
        return Err(BAD);
    }
    let mut rest = zipmap;
    let count = rest.split_first().map(|(&count, _)| count).ok_or(BAD)?;
    let mut seen = 0;
    rest = rest.slice(1..);
    while *rest.first().ok_or(BAD)? != END {
        let name = length(&mut rest).and_then(|len| rest.take(len)).map_err(|_| BAD)?;
        let len = length(&mut rest).map_err(|_| BAD)?;
        let unused = u64::from(byte(&mut rest).map_err(|_| BAD)?);
        let value = rest.take(len).map_err(|_| BAD)?;
        rest.take(unused).map_err(|_| BAD)?;
        field(name, value)?;
        seen += 1;
    }
    if rest.len() != 1 || (count != LONG && usize::from(count) != seen) {
        return Err(BAD);
    }
    Ok(())
}

fn byte(rest: &mut Bytes) -> Result<u8, Error> {
    let mut byte = [0];
    rest.fill(&mut byte)?;
    Ok(byte[0])
}

/// A length; an error, whichever, when there is none.
fn length(rest: &mut Bytes) -> Result<u64, Error> {
    match byte(rest)? {
        END => Err(Error::Truncated),
        LONG => {
            let mut len = [0; 4];
            rest.fill(&mut len)?;
            let len = u32::from_le_bytes(len);
            // What fits a byte must be in one.
            if len < u32::from(LONG) { Err(Error::Truncated) } else { Ok(u64::from(len)) }
        }
        short => Ok(u64::from(short)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(zipmap: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let mut fields = Vec::new();
        read(Bytes::copy_from_slice(zipmap), |field, value| {
            fields.push((field, value));
            Ok(())
        })?;
        Ok(fields)
    }

    #[test]
    fn fields_with_and_without_unused_bytes() {
        let long = [&b"\xfe\x2c\x01\0\0"[..], &[b'k'; 300], b"\x01\x00v\xff"].concat();
        assert_eq!(fields(&[b"\x01", &long[..]].concat()).unwrap()[0].0.len(), 300);
        let zipmap = b"\x02\x03foo\x03\x02barXX\x05hello\x05\x00world\xff";
        assert_eq!(fields(zipmap).unwrap(), [("foo".into(), "bar".into()), ("hello".into(), "world".into())]);
        assert!(fields(b"\x01\xfe\x03\0\0\0foo\x03\x00bar\xff").is_err(), "a small length in five bytes");
        assert!(fields(b"\x03\x03foo\x03\x00bar\xff").is_err(), "count");
        assert!(fields(b"\x01\x03foo\x03\x00ba\xff").is_err(), "cut off");
        assert!(fields(b"\x01\x03foo\x03\x00bar\xff\xff").is_err(), "bytes after the end");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(zipmap: Vec<u8>) {
            let _ = fields(&zipmap);
        }
    }
}
