//! Streams. An element's suffix begins with a letter that says what it is:
//!
//! ```text
//! e  id                             an entry: node varint, then each field and value as length varint, bytes
//! g  group                          a consumer group: last id, entries read, pending, consumers
//! c  group, consumer                a consumer: seen and active time (unix ms), pending
//! p  group, id                      an entry that awaits acknowledgement: delivery time (unix ms), deliveries, consumer's name
//! o  group, consumer, id            nothing: the consumer has this pending entry
//! ```
//!
//! IDs are 16 bytes big-endian; a name that something follows is preceded by its length, u32 big-endian; numbers in values are u64
//! little-endian, all ones where nothing is known. The entry adds what [`Head`] holds. A stream may be empty and exist.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `change` | [`Change`]: the changes that a log can hold |
//! | `groups` | consumer groups: their elements, and how they are read |
//! | `nodes` | [`Head`]: IDs, counters, and the nodes that approximate trimming goes by |
//! | `trim` | [`Trim`]: which entries a trimming removes |
//! | `verify` | what must hold of a stream as it is stored |
//! | `convert` | from and to [`crate::rdb::Stream`] |

mod change;
mod convert;
mod groups;
mod nodes;
mod trim;
mod verify;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::Handle;
use crate::binlog::{put_varint, take_varint};
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::Read;
use crate::rdb::StreamId;

pub use change::{Change, Claim};
pub use convert::{changes, load};
pub use groups::{
    Consumer, Delivery, Group, consumer, consumers, delivery, each_owned, each_pending, group, groups, pending_range,
};
pub use nodes::{Head, NodeLimits};
pub use trim::{Cut, Strategy, Trim};
pub(super) use verify::verify;

const ENTRY: &[u8] = b"e";

fn malformed(what: &str) -> Error {
    Error::BadEffect(format!("malformed {what} of a stream"))
}

/// An entry as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Number of the node it is in.
    pub node: u64,
    elements: &'a [u8],
}

impl<'a> Entry<'a> {
    fn decode(mut value: &'a [u8]) -> Option<Entry<'a>> {
        let node = take_varint(&mut value)?;
        Some(Entry { node, elements: value })
    }

    /// Whether it holds pairs of fields and values and nothing else.
    fn is_whole(&self) -> bool {
        let mut rest = self.elements;
        let mut count = 0u64;
        while !rest.is_empty() {
            let len = take_varint(&mut rest).and_then(|len| usize::try_from(len).ok());
            let Some((_, after)) = len.and_then(|len| rest.split_at_checked(len)) else { return false };
            (rest, count) = (after, count + 1);
        }
        count > 0 && count.is_multiple_of(2)
    }

    /// Its fields and values, one after the other.
    pub fn elements(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let mut rest = self.elements;
        std::iter::from_fn(move || {
            let len = usize::try_from(take_varint(&mut rest)?).ok()?;
            let (element, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(element)
        })
    }
}

fn encode_entry(node: u64, elements: &[Bytes]) -> Bytes {
    let mut out = Vec::with_capacity(2 + elements.iter().map(|element| 2 + element.len()).sum::<usize>());
    put_varint(&mut out, node);
    for element in elements {
        put_varint(&mut out, element.len() as u64);
        out.extend_from_slice(element);
    }
    out.into()
}

fn entry_key(stream: &Handle, id: StreamId) -> Vec<u8> {
    stream.element_key(&[ENTRY, &id.to_bytes()])
}

/// The end of a range of suffixes that are a prefix and an ID: just after `last`.
fn after(prefix: &[u8], last: StreamId) -> Vec<u8> {
    [prefix, &last.to_bytes(), &[0]].concat()
}

/// The ID that a suffix ends in.
fn id_in(suffix: &[u8]) -> StreamId {
    StreamId::from_bytes(suffix.last_chunk().copied().unwrap_or_default())
}

/// Calls `f` with the entries from `first` to `last`, both included, or from the last of them to the first, until it returns false.
pub fn each(
    state: &mut dyn Read,
    stream: &Handle,
    first: StreamId,
    last: StreamId,
    reverse: bool,
    f: &mut dyn FnMut(StreamId, Entry<'_>) -> bool,
) -> Result<(), Error> {
    if stream.is_empty() {
        return Ok(());
    }
    // What was trimmed before the first entry may still lie about in the engine.
    let first = first.max(Head::of(stream).first_id);
    let from = [ENTRY, &first.to_bytes()].concat();
    let mut sound = true;
    stream.each(
        state,
        Space::Data,
        &from,
        Some(&after(ENTRY, last)),
        reverse,
        &mut |suffix, value| match Entry::decode(value) {
            Some(entry) => f(id_in(suffix), entry),
            None => {
                sound = false;
                false
            }
        },
    )?;
    if sound { Ok(()) } else { Err(malformed("entry")) }
}

/// The value of the entry with this ID, for [`with_entry`].
fn stored(state: &mut dyn Read, stream: &Handle, id: StreamId) -> Result<Option<Bytes>, Error> {
    state.element(Space::Data, &entry_key(stream, id))
}

/// Calls `f` with the entry that has this ID; `None` if there is none.
pub fn with_entry<T>(
    state: &mut dyn Read,
    stream: &Handle,
    id: StreamId,
    f: impl FnOnce(Entry<'_>) -> T,
) -> Result<Option<T>, Error> {
    match stored(state, stream, id)? {
        Some(value) => Entry::decode(&value).map(|entry| Some(f(entry))).ok_or_else(|| malformed("entry")),
        None => Ok(None),
    }
}

/// Whether there is an entry with this ID.
pub fn exists(state: &mut dyn Read, stream: &Handle, id: StreamId) -> Result<bool, Error> {
    Ok(stored(state, stream, id)?.is_some())
}

/// The ID of the last entry.
pub fn last_entry(state: &mut dyn Read, stream: &Handle) -> Result<Option<StreamId>, Error> {
    let mut found = None;
    each(state, stream, StreamId::MIN, StreamId::MAX, true, &mut |id, _| {
        found = Some(id);
        false
    })?;
    Ok(found)
}

/// Whether there is an entry after `id`.
pub fn has_after(state: &mut dyn Read, stream: &Handle, id: StreamId) -> Result<bool, Error> {
    let Some(first) = id.next().filter(|_| id < Head::of(stream).last_id) else { return Ok(false) };
    let mut found = false;
    each(state, stream, first, StreamId::MAX, false, &mut |_, _| {
        found = true;
        false
    })?;
    Ok(found)
}

/// Feeds a digest with what the stream holds; how it is divided into nodes is no part of that.
pub fn digest(state: &mut dyn Read, stream: &Handle, add: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    let head = Head::of(stream);
    [head.last_id, head.max_deleted_id].iter().for_each(|id| add(&id.to_bytes()));
    add(&head.entries_added.to_be_bytes());
    stream.each(state, Space::Data, &[], None, false, &mut |suffix, value| {
        add(&(suffix.len() as u64).to_be_bytes());
        add(suffix);
        let value = match Entry::decode(value) {
            Some(entry) if suffix.starts_with(ENTRY) => entry.elements,
            _ => value,
        };
        add(&(value.len() as u64).to_be_bytes());
        add(value);
        true
    })
}
