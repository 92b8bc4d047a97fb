//! Long strings, in chunks. Element: suffix `chunk number u64 big-endian`; value: the chunk's bytes. Bytes that no chunk holds are zero, so
//! a bitmap with a few bits set far apart costs a few chunks.
//!
//! A string is put into chunks before APPEND or SETRANGE make it longer than [`WHOLE_MAX`]; from then on they cost what they write, not
//! what it holds. SET writes strings of any length whole.

use bytes::Bytes;

use super::Handle;
use crate::engine::{Collection, Entry, Kind, MAX_CHUNKED_LEN, Space};
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

/// Bytes of a chunk. Part of the format on disk, and of what a log means.
pub const CHUNK: u64 = 1024;
/// Up to this many bytes a string that is changed in place stays whole.
pub const WHOLE_MAX: u64 = 64 << 10;

/// A string as commands that need only parts of it read it.
#[derive(Clone, Debug)]
pub enum Blob {
    Whole(Bytes),
    Chunked(Handle),
}

impl Blob {
    /// Of a string's entry.
    pub fn of(key: &Bytes, entry: &Entry) -> Blob {
        match Handle::of(key, entry) {
            Some(handle) => Blob::Chunked(handle),
            None => Blob::Whole(entry.value.clone()),
        }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Blob::Whole(bytes) => bytes.len() as u64,
            Blob::Chunked(handle) => handle.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes from `from` on and before `to`, as far as there are some.
    pub fn range(&self, state: &mut dyn Read, from: u64, to: u64) -> Result<Bytes, Error> {
        let to = to.min(self.len());
        let from = from.min(to);
        match self {
            Blob::Whole(bytes) => Ok(bytes.slice(from as usize..to as usize)),
            Blob::Chunked(handle) => {
                let mut out = vec![0; (to - from) as usize];
                each(state, handle, from, to, &mut |at, chunk| {
                    // The part of the chunk inside of the range.
                    let skip = from.saturating_sub(at);
                    // A chunk may end before its range does: what follows is zero.
                    let Some(part) = chunk.get(skip as usize..).filter(|part| !part.is_empty()) else { return true };
                    let start = (at + skip - from) as usize;
                    let len = part.len().min(out.len().saturating_sub(start));
                    out[start..start + len].copy_from_slice(&part[..len]);
                    true
                })?;
                Ok(out.into())
            }
        }
    }

    /// All of it.
    pub fn whole(&self, state: &mut dyn Read) -> Result<Bytes, Error> {
        self.range(state, 0, self.len())
    }

    /// The first place at or after `from` that may hold something but zero bytes.
    pub fn next_data(&self, state: &mut dyn Read, from: u64) -> Result<Option<u64>, Error> {
        match self {
            Blob::Whole(bytes) => Ok((from < bytes.len() as u64).then_some(from)),
            Blob::Chunked(handle) => {
                let mut found = None;
                each(state, handle, from, handle.len(), &mut |at, _| {
                    found = Some(at.max(from));
                    false
                })?;
                Ok(found)
            }
        }
    }
}

/// Calls `f` with start and bytes of the chunks that touch the range, until it returns false.
pub fn each(
    state: &mut dyn Read,
    handle: &Handle,
    from: u64,
    to: u64,
    f: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), Error> {
    let first = (from / CHUNK).to_be_bytes();
    let end = to.div_ceil(CHUNK).to_be_bytes();
    handle.each(state, Space::Data, &first, Some(&end), false, &mut |suffix, chunk| match suffix.first_chunk() {
        Some(number) => f(u64::from_be_bytes(*number) * CHUNK, chunk),
        None => true,
    })
}

/// Feeds `add` with all bytes, holes as zeros, a chunk at a time.
pub(super) fn feed(state: &mut dyn Read, handle: &Handle, add: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
    const ZEROS: [u8; CHUNK as usize] = [0; CHUNK as usize];
    let mut done = 0;
    let fill = |done: &mut u64, to: u64, add: &mut dyn FnMut(&[u8])| {
        while *done < to {
            let len = (to - *done).min(CHUNK);
            add(&ZEROS[..len as usize]);
            *done += len;
        }
    };
    each(state, handle, 0, handle.len(), &mut |at, chunk| {
        fill(&mut done, at, add);
        add(chunk);
        done += chunk.len() as u64;
        true
    })?;
    fill(&mut done, handle.len(), add);
    Ok(())
}

/// Puts a string that stands whole, or a missing one, into chunks named `version`.
pub(crate) fn split(state: &mut dyn State, key: &Bytes, entry: Option<&Entry>, version: u64) -> Result<(), Error> {
    let collection = Collection { version, count: 0, extra: Bytes::new() };
    let expire_at = entry.and_then(|entry| entry.expire_at);
    let mut handle = Handle { key: key.clone(), kind: Kind::String, expire_at, collection };
    let bytes = entry.map(|entry| entry.value.clone()).unwrap_or_default();
    write(state, &mut handle, 0, &bytes)
}

/// Writes `bytes` over a string in chunks from `offset` on, zero padded; it is at least that long afterwards.
pub(crate) fn write(state: &mut dyn State, handle: &mut Handle, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    put(state, handle, offset, bytes)?;
    state.put(handle.key.clone(), Some(Entry::collection(Kind::String, &handle.collection, handle.expire_at)));
    Ok(())
}

fn put(state: &mut dyn State, handle: &mut Handle, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    if offset.saturating_add(bytes.len() as u64) > MAX_CHUNKED_LEN {
        return Err(Error::BadEffect(format!("string longer than {MAX_CHUNKED_LEN}: {}", handle.key.escape_ascii())));
    }
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, inside) = (at / CHUNK, (at % CHUNK) as usize);
        let len = rest.len().min(CHUNK as usize - inside);
        let element = handle.element_key(&[&number.to_be_bytes()]);
        let mut chunk = match (inside == 0 && len == CHUNK as usize, number * CHUNK < handle.len()) {
            (false, true) => state.element(Space::Data, &element)?.map(Vec::from).unwrap_or_default(),
            _ => Vec::new(),
        };
        if chunk.len() < inside + len {
            chunk.resize(inside + len, 0);
        }
        chunk[inside..inside + len].copy_from_slice(&rest[..len]);
        state.put_element(Space::Data, element, Some(chunk.into()));
        at += len as u64;
        rest = &rest[len..];
    }
    handle.collection.count = handle.collection.count.max(offset + bytes.len() as u64);
    Ok(())
}
