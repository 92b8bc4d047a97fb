//! RDB, Redis's serialization of values: what DUMP answers and RESTORE reads, and the primitives of RDB files.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `value` | [`Value`]: a value of any type, whole in memory |
//! | `encoding` | [`Encoding`]: the types of value, by their numbers |
//! | `layout` | [`Layout`]: how a value is written, and up to where it counts as small |
//! | `decode` | [`read_value`]: every encoding read |
//! | `stream` | streams, both ways |
//! | `reader`, `writer` | [`Reader`], [`Writer`]: lengths, strings, numbers |
//! | `listpack`, `ziplist`, `zipmap`, `intset`, `element`, `score` | what small collections are packed into |
//! | `lzf` | the compression of strings |
//!
//! A dump is
//!
//! ```text
//! encoding   u8
//! value
//! version    u16: of the RDB format
//! checksum   u64: CRC-64 (Jones, reflected) of all before it
//! ```
//!
//! both little-endian. Written is what Redis 7.0 reads (version 10); only a hash of which a field expires takes
//! version 12, of Redis 7.4. Read is every version up to that. Source: Redis 7.0 and 7.4, `rdb.c` and `cluster.c`.

mod decode;
mod element;
mod encoding;
mod error;
mod intset;
mod layout;
mod listpack;
mod lzf;
mod reader;
pub mod score;
mod stream;
mod value;
mod writer;
mod ziplist;
mod zipmap;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::Bytes;
use crc::{CRC_64_REDIS, Crc, Table};

pub use decode::read_value;
pub use encoding::{Encoding, NEWEST_VERSION};
pub use error::Error;
pub use layout::{Layout, Thresholds};
pub use listpack::{EMPTY_LEN as EMPTY_LISTPACK_LEN, element_len, integer_len};
pub use reader::{Reader, Source};
pub use value::{
    HashField, MAX_FIELD_EXPIRY, Pending, Stream, StreamConsumer, StreamEntry, StreamGroup, StreamId, Value,
};
pub use writer::Writer;

/// The checksum of dumps and RDB files.
pub const CHECKSUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

const VERSION_LEN: usize = 2;
const CHECKSUM_LEN: usize = 8;

/// How a value is dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpOptions {
    pub thresholds: Thresholds,
    /// Compress long strings: `rdbcompression`.
    pub compress: bool,
}

impl Default for DumpOptions {
    fn default() -> DumpOptions {
        DumpOptions { thresholds: Thresholds::default(), compress: true }
    }
}

/// How a dump is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Bytes of memory that the value may take. A dump can hold a value 88 times its own size.
    pub memory: u64,
    /// Refuse a wrong checksum. Without it a dump is checked in every other way (DEBUG SET-SKIP-CHECKSUM-VALIDATION).
    pub verify_checksum: bool,
}

impl Default for RestoreOptions {
    fn default() -> RestoreOptions {
        RestoreOptions { memory: 4 << 30, verify_checksum: true }
    }
}

/// What DUMP answers for a value.
pub fn dump(value: &Value, options: &DumpOptions) -> Vec<u8> {
    let layout = Layout::of(value, &options.thresholds);
    let encoding = layout.encoding();
    let mut writer = Writer::new(options.compress);
    writer.byte(encoding.byte());
    layout.write(&mut writer, &options.thresholds);
    let mut payload = writer.finish();
    seal(&mut payload, encoding.version());
    payload
}

/// The value in a dump. It shares memory with `payload`.
///
/// # Errors
/// [`Error::NoFooter`], [`Error::Version`] and [`Error::Checksum`] when this is no dump that could be read here,
/// others when the value in it is not sound.
pub fn restore(payload: &Bytes, options: &RestoreOptions) -> Result<Value, Error> {
    let body_len = unseal(payload, options.verify_checksum)?.len();
    let mut reader = Reader::new(payload.slice(..body_len), options.memory);
    let encoding = Encoding::from_byte(reader.byte()?)?;
    let value = read_value(&mut reader, encoding)?;
    if !reader.into_source().is_empty() {
        return Err(Error::Corrupt("bytes after the value"));
    }
    Ok(value)
}

/// Appends version and checksum: of a dump, or of what FUNCTION DUMP answers.
pub fn seal(payload: &mut Vec<u8>, version: u16) {
    payload.extend_from_slice(&version.to_le_bytes());
    let checksum = CHECKSUM.checksum(payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
}

/// What stands before version and checksum.
///
/// # Errors
/// [`Error::NoFooter`], [`Error::Version`], and [`Error::Checksum`] if that is to be verified.
pub fn unseal(payload: &[u8], verify_checksum: bool) -> Result<&[u8], Error> {
    let (covered, checksum) = payload.split_last_chunk::<CHECKSUM_LEN>().ok_or(Error::NoFooter)?;
    let (body, version) = covered.split_last_chunk::<VERSION_LEN>().ok_or(Error::NoFooter)?;
    let version = u16::from_le_bytes(*version);
    if version > NEWEST_VERSION {
        return Err(Error::Version(version));
    }
    if verify_checksum && CHECKSUM.checksum(covered) != u64::from_le_bytes(*checksum) {
        return Err(Error::Checksum);
    }
    Ok(body)
}

fn are_distinct<'a>(strings: impl IntoIterator<Item = &'a Bytes>) -> bool {
    let mut strings = strings.into_iter();
    let mut seen = HashSet::with_capacity(strings.size_hint().0);
    strings.all(|string| seen.insert(string))
}
