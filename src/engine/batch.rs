//! Write batches. Hot path.
//!
//! ```text
//! change   family u8, key length u32, value length u32 (or DELETE), key, value
//! ```
//! in the machine's byte order: it never leaves the process.

use bytes::Bytes;

use super::element::Space;
use super::{DATABASES_KEY, Entry, LIBRARIES_KEY};

/// Bytes before a change's key.
const HEADER: usize = 9;
/// As a value's length: the key is deleted.
const DELETE: u32 = u32::MAX;

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// What the slot knows about itself.
    System,
    /// Keys, with type, expiry and, for strings, the value.
    Meta,
    Data,
    Score,
}

impl Family {
    /// By their numbers.
    pub const ALL: [Family; 4] = [Family::System, Family::Meta, Family::Data, Family::Score];

    /// What RocksDB calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Family::System => "default",
            Family::Meta => "meta",
            Family::Data => "data",
            Family::Score => "score",
        }
    }
}

impl From<Space> for Family {
    fn from(space: Space) -> Family {
        match space {
            Space::Data => Family::Data,
            Space::Score => Family::Score,
        }
    }
}

/// Changes to one engine that take effect together.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Begins a change; returns where the value's length is to stand.
    fn begin(&mut self, family: Family, key: &[u8]) -> usize {
        self.bytes.push(family as u8);
        self.bytes.extend_from_slice(&(key.len() as u32).to_ne_bytes());
        let len_at = self.bytes.len();
        self.bytes.extend_from_slice(&DELETE.to_ne_bytes());
        self.bytes.extend_from_slice(key);
        len_at
    }

    fn set_len(&mut self, len_at: usize, len: usize) {
        self.bytes[len_at..len_at + size_of::<u32>()].copy_from_slice(&(len as u32).to_ne_bytes());
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        let len_at = self.begin(family, key);
        self.bytes.extend_from_slice(value);
        self.set_len(len_at, value.len());
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        self.begin(family, key);
    }

    /// The new entry of a key, or its removal.
    pub fn entry(&mut self, key: &[u8], entry: Option<&Entry>) {
        let Some(entry) = entry else { return self.delete(Family::Meta, key) };
        let len_at = self.begin(Family::Meta, key);
        let start = self.bytes.len();
        entry.encode(&mut self.bytes);
        self.set_len(len_at, self.bytes.len() - start);
    }

    /// The new value of an element, or its removal.
    pub fn element(&mut self, space: Space, key: &[u8], value: Option<&Bytes>) {
        match value {
            Some(value) => self.put(space.into(), key, value),
            None => self.delete(space.into(), key),
        }
    }

    /// The new libraries of functions; empty = none.
    pub fn libraries(&mut self, libraries: &[u8]) {
        match libraries {
            [] => self.delete(Family::System, LIBRARIES_KEY),
            _ => self.put(Family::System, LIBRARIES_KEY, libraries),
        }
    }

    /// The new map of databases, as opaque bytes.
    pub fn databases(&mut self, databases: &[u8]) {
        self.put(Family::System, DATABASES_KEY, databases);
    }

    /// Bytes: about what it adds to the write buffer.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The changes in order: `None` deletes.
    pub(super) fn changes(&self) -> Changes<'_> {
        Changes(&self.bytes)
    }

    /// One batch that does what `batches` do, in order.
    pub fn concat<'a>(batches: impl Iterator<Item = &'a Batch>) -> Batch {
        let mut bytes = Vec::new();
        batches.for_each(|batch| bytes.extend_from_slice(&batch.bytes));
        Batch { bytes }
    }
}

/// See [`Batch::changes`].
#[derive(Clone)]
pub(super) struct Changes<'b>(&'b [u8]);

impl<'b> Iterator for Changes<'b> {
    type Item = (Family, &'b [u8], Option<&'b [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.0.split_first_chunk::<HEADER>()?;
        let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let (key, rest) = rest.split_at(number(1) as usize);
        let (value, rest) = match number(5) {
            DELETE => (None, rest),
            len => {
                let (value, rest) = rest.split_at(len as usize);
                (Some(value), rest)
            }
        };
        self.0 = rest;
        Some((Family::ALL[header[0] as usize], key, value))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn changes_come_back_in_order() {
        let entry = Entry::string(Bytes::from_static(b"value"), Some(7));
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        let mut first = Batch::default();
        assert!(first.is_empty());
        first.entry(b"key", Some(&entry));
        first.element(Space::Data, b"", None);
        let mut second = Batch::default();
        second.element(Space::Score, b"s", Some(&Bytes::new()));
        second.libraries(b"");
        let both = Batch::concat([&first, &second].into_iter());
        assert_eq!(both.len(), first.len() + second.len());
        let expected: [<Changes<'_> as Iterator>::Item; 4] = [
            (Family::Meta, b"key", Some(&encoded)),
            (Family::Data, b"", None),
            (Family::Score, b"s", Some(b"")),
            (Family::System, LIBRARIES_KEY, None),
        ];
        assert!(both.changes().eq(expected));
    }
}
