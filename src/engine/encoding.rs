//! How an entry stands in the `meta` family: one header byte, then what it announces.
//!
//! ```text
//! header      low 4 bits: kind (1 string … 6 stream); bit 4: an expiry follows; bit 5: a string in chunks; other bits: zero
//! expiry      u64 little-endian, unix ms, if announced
//! value       a string's bytes; of everything else a collection:
//! collection  version u64, count u64 (elements; bytes of a string in chunks), then what the type adds
//! ```

use bytes::Bytes;

const KIND_MASK: u8 = 0x0f;
const HAS_EXPIRY: u8 = 0x10;
const CHUNKED: u8 = 0x20;

/// Longest string in chunks, bytes: what a record may write at most. A longer one is no entry, so that nobody goes through its holes.
pub const MAX_CHUNKED_LEN: u64 = 1 << 30;

/// A key's type, by its number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    String = 1,
    Hash = 2,
    List = 3,
    Set = 4,
    Zset = 5,
    Stream = 6,
}

impl Kind {
    fn from_number(n: u8) -> Option<Kind> {
        Some(match n {
            1 => Kind::String,
            2 => Kind::Hash,
            3 => Kind::List,
            4 => Kind::Set,
            5 => Kind::Zset,
            6 => Kind::Stream,
            _ => return None,
        })
    }

    /// The name that TYPE answers.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Hash => "hash",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Zset => "zset",
            Kind::Stream => "stream",
        }
    }

    /// The kind that [`Kind::name`] names.
    pub fn from_name(name: &[u8]) -> Option<Kind> {
        [Kind::String, Kind::Hash, Kind::List, Kind::Set, Kind::Zset, Kind::Stream]
            .into_iter()
            .find(|kind| kind.name().as_bytes() == name)
    }
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// A string whose bytes are elements, chunk by chunk.
    pub chunked: bool,
    /// Unix ms; after it the key does not exist (in this millisecond it still does, as in Redis).
    pub expire_at: Option<u64>,
    /// A string's bytes; of everything else, a [`Collection`].
    pub value: Bytes,
}

impl Entry {
    /// A string that stands whole in its entry.
    pub fn string(value: Bytes, expire_at: Option<u64>) -> Entry {
        Entry { kind: Kind::String, chunked: false, expire_at, value }
    }

    /// An entry whose elements stand elsewhere. A string is one in chunks.
    pub fn collection(kind: Kind, collection: &Collection, expire_at: Option<u64>) -> Entry {
        Entry { kind, chunked: kind == Kind::String, expire_at, value: collection.encode() }
    }

    /// Whether the key still exists at `now` (unix ms).
    pub fn is_live(&self, now: u64) -> bool {
        self.expire_at.is_none_or(|at| now <= at)
    }

    /// Whether it has elements in a space of their own.
    pub fn has_elements(&self) -> bool {
        self.kind != Kind::String || self.chunked
    }

    /// The collection it describes; `None` for a string that stands in the entry, and for malformed bytes.
    pub fn as_collection(&self) -> Option<Collection> {
        if self.has_elements() { Collection::decode(&self.value) } else { None }
    }

    /// Bytes of the encoded entry.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + self.expire_at.map_or(0, |_| size_of::<u64>()) + self.value.len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let header = self.kind as u8 | if self.chunked { CHUNKED } else { 0 };
        match self.expire_at {
            Some(at) => {
                out.push(header | HAS_EXPIRY);
                out.extend_from_slice(&at.to_le_bytes());
            }
            None => out.push(header),
        }
        out.extend_from_slice(&self.value);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Entry> {
        let header = decode_header(bytes)?;
        Entry::checked(&header, Bytes::copy_from_slice(bytes.get(header.len..)?))
    }

    /// [`Entry::decode`] without a copy.
    pub(super) fn decode_shared(bytes: &Bytes) -> Option<Entry> {
        let header = decode_header(bytes)?;
        Entry::checked(&header, bytes.slice(header.len..))
    }

    fn checked(header: &Header, value: Bytes) -> Option<Entry> {
        if header.has_elements {
            let collection = Collection::decode(&value)?;
            if header.chunked && collection.count > MAX_CHUNKED_LEN {
                return None;
            }
        }
        Some(Entry { kind: header.kind, chunked: header.chunked, expire_at: header.expire_at, value })
    }
}

/// What the entry of a collection says of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Tells its elements from those of earlier collections at the same key. Never used twice for a key.
    pub version: u64,
    /// Elements; bytes of a string in chunks.
    pub count: u64,
    /// What the type keeps besides.
    pub extra: Bytes,
}

impl Collection {
    const LEN: usize = 16;

    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::LEN + self.extra.len());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.extra);
        out.into()
    }

    fn decode(bytes: &Bytes) -> Option<Collection> {
        let (version, rest) = bytes.split_first_chunk()?;
        let count = rest.first_chunk()?;
        Some(Collection {
            version: u64::from_le_bytes(*version),
            count: u64::from_le_bytes(*count),
            extra: bytes.slice(Self::LEN..),
        })
    }

    pub(super) fn version_of(bytes: &[u8]) -> Option<u64> {
        bytes.get(..Self::LEN)?.first_chunk().map(|version| u64::from_le_bytes(*version))
    }
}

/// What an encoded entry says before its value.
pub(super) struct Header {
    pub kind: Kind,
    pub chunked: bool,
    pub has_elements: bool,
    pub expire_at: Option<u64>,
    /// Bytes it takes.
    pub len: usize,
}

/// The header of an encoded entry; `None` when it is malformed.
pub(super) fn decode_header(bytes: &[u8]) -> Option<Header> {
    let (&first, rest) = bytes.split_first()?;
    let kind = Kind::from_number(first & KIND_MASK)?;
    let chunked = first & CHUNKED != 0;
    if chunked && kind != Kind::String {
        return None;
    }
    let (expire_at, len) = match first & !KIND_MASK & !CHUNKED {
        0 => (None, 1),
        HAS_EXPIRY => (Some(u64::from_le_bytes(*rest.first_chunk()?)), 9),
        _ => return None,
    };
    Some(Header { kind, chunked, has_elements: chunked || kind != Kind::String, expire_at, len })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(kind in 1u8..=6, chunked: bool, expire_at: Option<u64>, version: u64, count: u64, rest: Vec<u8>) {
            let kind = Kind::from_number(kind).unwrap();
            let entry = if kind == Kind::String && !chunked {
                Entry::string(rest.into(), expire_at)
            } else {
                let count = if chunked && kind == Kind::String { count % (MAX_CHUNKED_LEN + 1) } else { count };
                let collection = Collection { version, count, extra: rest.into() };
                let entry = Entry::collection(kind, &collection, expire_at);
                prop_assert_eq!(entry.as_collection(), Some(collection));
                entry
            };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), entry.encoded_len());
            prop_assert_eq!(decode_header(&bytes).unwrap().expire_at, expire_at);
            prop_assert_eq!(Entry::decode(&bytes), Some(entry));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let decoded = Entry::decode(&bytes);
            if let Some(entry) = decoded {
                let mut again = Vec::new();
                entry.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
