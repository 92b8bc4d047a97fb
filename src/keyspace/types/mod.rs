//! The types whose values are more than one entry: where their elements stand, how they are read, and the changes to them
//! that a log can hold.
//!
//! A type is a file: the suffixes and values of its elements, functions that read, and a `Change` with its encoding in the
//! log and its application, which is the one place where the elements, their count and what else the entry says change.

pub mod blob;
pub mod hash;
pub mod list;
pub mod ordered;
pub mod refill;
pub mod set;
pub mod stream;
pub(super) mod verify;
pub mod zset;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::Error;
use super::effect::{Read, State};
use crate::engine::element::{prefix, prefix_len};
use crate::engine::{Collection, ElementRange, Entry, Kind, Space};

/// What applying a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything is different now: only then it is logged.
    pub changed: bool,
    /// How many elements are new, gone, or otherwise concerned: the number that most commands answer.
    pub count: u64,
}

impl Outcome {
    /// Concerned and changed `count` elements.
    pub fn of(count: u64) -> Outcome {
        Outcome { changed: count > 0, count }
    }
}

/// A collection that was looked up: its entry, and the way to its elements.
#[derive(Clone, Debug)]
pub struct Handle {
    pub key: Bytes,
    pub kind: Kind,
    pub expire_at: Option<u64>,
    pub collection: Collection,
}

impl Handle {
    /// The handle of an entry that has elements; `None` for a plain string.
    pub fn of(key: &Bytes, entry: &Entry) -> Option<Handle> {
        let collection = entry.as_collection()?;
        Some(Handle { key: key.clone(), kind: entry.kind, expire_at: entry.expire_at, collection })
    }

    /// Elements.
    pub fn len(&self) -> u64 {
        self.collection.count
    }

    /// Whether there are none: only while it is being made.
    pub fn is_empty(&self) -> bool {
        self.collection.count == 0
    }

    /// The key of the element with this suffix, given in parts.
    pub fn element_key(&self, suffix: &[&[u8]]) -> Vec<u8> {
        let room = suffix.iter().map(|part| part.len()).sum();
        let mut out = prefix(&self.key, self.collection.version, room);
        suffix.iter().for_each(|part| out.extend_from_slice(part));
        out
    }

    /// The suffix of an element's key.
    pub fn suffix<'e>(&self, element: &'e [u8]) -> &'e [u8] {
        element.get(prefix_len(&self.key)..).unwrap_or_default()
    }

    /// A key above those of all its elements.
    pub fn upper(&self) -> Vec<u8> {
        prefix(&self.key, self.collection.version.wrapping_add(1), 0)
    }

    /// Calls `f` with suffix and value of the elements whose suffixes are at least `from` and below `to` (`None`: up to the
    /// last), in order or from the last to the first, until it returns false.
    pub fn each(
        &self,
        state: &mut dyn Read,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        reverse: bool,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let lower = self.element_key(&[from]);
        let upper = to.map_or_else(|| self.upper(), |to| self.element_key(&[to]));
        if lower >= upper {
            return Ok(());
        }
        let skip = prefix_len(&self.key);
        let range = ElementRange { lower: &lower, upper: &upper, reverse };
        state.elements(space, &range, &mut |key, value| f(key.get(skip..).unwrap_or_default(), value))
    }

    /// Writes the entry back after a change; an empty collection, unless it is a stream, is no more.
    pub fn save(&self, state: &mut dyn State) {
        let exists = !self.is_empty() || self.kind == Kind::Stream;
        let entry = exists.then(|| Entry::collection(self.kind, &self.collection, self.expire_at));
        state.put(self.key.clone(), entry);
    }
}

/// Feeds a digest with what a collection holds, so that equal contents give equal bytes whatever the history.
pub fn digest(state: &mut dyn Read, handle: &Handle, add: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    if handle.kind == Kind::String {
        // As if it stood whole.
        return blob::feed(state, handle, add);
    }
    add(&handle.len().to_be_bytes());
    let mut pair = |name: &[u8], value: &[u8]| {
        add(&(name.len() as u64).to_be_bytes());
        add(name);
        add(&(value.len() as u64).to_be_bytes());
        add(value);
        true
    };
    match handle.kind {
        // The places of a list's elements depend on what was there before them.
        Kind::List => {
            list::each(state, handle, 0, handle.len(), false, &mut |index, element| pair(&index.to_be_bytes(), element))
        }
        Kind::Stream => stream::digest(state, handle, add),
        _ => handle.each(state, Space::Data, &[], None, false, &mut pair),
    }
}

/// Elements of a large collection that one effect sets, where a command makes the collection as a whole.
pub const CHUNK: usize = 4096;

/// Bytes of a hash before a member or field in its suffix.
pub const HASH_LEN: usize = 8;

/// Elements of hashes and sets stand in the order of this hash of their name, and so does the member side of sorted sets: a position in
/// that order is a number, which makes a cursor that outlives any write, and a random position finds a random element.
/// XXH3 with no seed: part of the format on disk.
pub fn order(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// The suffix of a member or field.
pub fn named(handle: &Handle, name: &[u8]) -> Vec<u8> {
    handle.element_key(&[&order(name).to_be_bytes(), name])
}

/// The name in the suffix of a member or field.
pub fn name_in(suffix: &[u8]) -> &[u8] {
    suffix.get(HASH_LEN..).unwrap_or_default()
}

/// The place of a member's or field's suffix in the order.
pub fn order_in(suffix: &[u8]) -> u64 {
    suffix.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
