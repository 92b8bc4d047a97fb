//! How an entry stands in the `meta` family: one header byte, then what it announces.
//!
//! ```text
//! header   low 4 bits: kind (1 string … 6 stream); bit 4: an expiry follows; other bits: zero
//! expiry   u64 little-endian, unix ms, if announced
//! value    a string's bytes
//! ```

use bytes::Bytes;

const KIND_MASK: u8 = 0x0f;
const HAS_EXPIRY: u8 = 0x10;

/// A key's type, by its number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// Unix ms; after it the key does not exist (in this millisecond it still does, as in Redis).
    pub expire_at: Option<u64>,
    /// A string's value.
    pub value: Bytes,
}

impl Entry {
    pub fn string(value: Bytes, expire_at: Option<u64>) -> Entry {
        Entry { kind: Kind::String, expire_at, value }
    }

    /// Whether the key still exists at `now` (unix ms).
    pub fn is_live(&self, now: u64) -> bool {
        self.expire_at.is_none_or(|at| now <= at)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let header = self.kind as u8;
        match self.expire_at {
            Some(at) => {
                out.push(header | HAS_EXPIRY);
                out.extend_from_slice(&at.to_le_bytes());
            }
            None => out.push(header),
        }
        out.extend_from_slice(&self.value);
    }

    pub(super) fn decode(bytes: Bytes) -> Option<Entry> {
        let (kind, expire_at, header_len) = decode_header(&bytes)?;
        Some(Entry { kind, expire_at, value: bytes.slice(header_len..) })
    }
}

/// The expiry in an encoded entry, without its value. `None` also when it is malformed.
pub(super) fn expiry_of(bytes: &[u8]) -> Option<u64> {
    decode_header(bytes)?.1
}

fn decode_header(bytes: &[u8]) -> Option<(Kind, Option<u64>, usize)> {
    let (&header, rest) = bytes.split_first()?;
    let kind = Kind::from_number(header & KIND_MASK)?;
    match header & !KIND_MASK {
        0 => Some((kind, None, 1)),
        HAS_EXPIRY => Some((kind, Some(u64::from_le_bytes(*rest.first_chunk()?)), 9)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(kind in 1u8..=6, expire_at: Option<u64>, value: Vec<u8>) {
            let entry = Entry { kind: Kind::from_number(kind).unwrap(), expire_at, value: value.into() };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            prop_assert_eq!(expiry_of(&bytes), expire_at);
            prop_assert_eq!(Entry::decode(bytes.into()), Some(entry));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let decoded = Entry::decode(bytes.clone().into());
            if let Some(entry) = decoded {
                let mut again = Vec::new();
                entry.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
