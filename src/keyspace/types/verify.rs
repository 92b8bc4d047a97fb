//! The invariants of collections, as docs/encodings.md states them, verified on what is stored.

use std::cell::RefCell;

use bytes::Bytes;

use super::{HASH_LEN, Handle, blob, hash, list, name_in, order, order_in, stream, zset};
use crate::engine::{Kind, Space};
use crate::keyspace::Error;
use crate::keyspace::effect::Read;

/// Point lookups beside an iteration.
pub(crate) trait Lookup: Read + Copy {
    /// The value of an element.
    fn lookup(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;
}

/// Collects what is wrong, and keeps the first error of a lookup.
pub(super) struct Flaws<'f> {
    flaw: RefCell<&'f mut dyn FnMut(String)>,
    error: RefCell<Option<Error>>,
}

impl Flaws<'_> {
    pub fn add(&self, what: String) {
        (self.flaw.borrow_mut())(what);
    }

    /// The value, unless the lookup failed: then nothing is known.
    pub fn known<T>(&self, looked_up: Result<T, Error>) -> Option<T> {
        looked_up.map_err(|e| *self.error.borrow_mut() = Some(e)).ok()
    }

    pub fn failed(&self) -> bool {
        self.error.borrow().is_some()
    }
}

/// Verifies one collection; how many elements it has. `pruned`: elements may be missing.
pub(crate) fn verify(
    state: impl Lookup,
    handle: &Handle,
    pruned: bool,
    flaw: &mut dyn FnMut(String),
) -> Result<u64, Error> {
    let flaws = Flaws { flaw: RefCell::new(flaw), error: RefCell::new(None) };
    let elements = match handle.kind {
        Kind::String => chunks(state, handle, pruned, &flaws)?,
        Kind::Hash => fields(state, handle, pruned, &flaws)?,
        Kind::List => places(state, handle, pruned, &flaws)?,
        Kind::Set => members(state, handle, pruned, &flaws)?,
        Kind::Zset => scores(state, handle, pruned, &flaws)?,
        Kind::Stream => stream::verify(state, handle, pruned, &flaws)?,
    };
    if handle.is_empty() && !matches!(handle.kind, Kind::Stream | Kind::String) {
        flaws.add(format!("an empty {} exists", handle.kind.name()));
    }
    flaws.error.into_inner().map_or(Ok(elements), Err)
}

pub(super) fn show(bytes: &[u8]) -> String {
    const SHOWN: usize = 64;
    let cut = if bytes.len() > SHOWN { "…" } else { "" };
    format!("\"{}{cut}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

/// Calls `f` with suffix and value of all elements in a space; how many there are.
fn all(
    mut state: impl Lookup,
    handle: &Handle,
    space: Space,
    flaws: &Flaws<'_>,
    f: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64, Error> {
    let mut count = 0;
    handle.each(&mut state, space, &[], None, false, &mut |suffix, value| {
        count += 1;
        f(suffix, value);
        !flaws.failed()
    })?;
    Ok(count)
}

fn expect_count(handle: &Handle, found: u64, pruned: bool, flaws: &Flaws<'_>) {
    let wrong = if pruned { found > handle.len() } else { found != handle.len() };
    if wrong {
        flaws.add(format!("the {} says it has {} elements, {found} are stored", handle.kind.name(), handle.len()));
    }
}

/// A member or field stands behind its own hash.
fn expect_place(suffix: &[u8], what: &str, flaws: &Flaws<'_>) {
    if suffix.len() < HASH_LEN {
        flaws.add(format!("the key of a {what} is too short: {}", show(suffix)));
    } else if order(name_in(suffix)) != order_in(suffix) {
        flaws.add(format!("{what} {} stands in the place of another one", show(name_in(suffix))));
    }
}

fn expect_extra(handle: &Handle, lengths: &[usize], flaws: &Flaws<'_>) {
    let len = handle.collection.extra.len();
    if !lengths.contains(&len) {
        flaws.add(format!("the entry of the {} has {len} bytes more than it should", handle.kind.name()));
    }
}

fn chunks(state: impl Lookup, handle: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let mut end = 0;
    let count = all(state, handle, Space::Data, flaws, &mut |suffix, chunk| match <[u8; 8]>::try_from(suffix) {
        Ok(number) => {
            let number = u64::from_be_bytes(number);
            end = number.saturating_mul(blob::CHUNK).saturating_add(chunk.len() as u64);
            if chunk.is_empty() || chunk.len() as u64 > blob::CHUNK {
                flaws.add(format!("chunk {number} has {} bytes", chunk.len()));
            }
        }
        Err(_) => flaws.add(format!("the key of a chunk is malformed: {}", show(suffix))),
    })?;
    expect_extra(handle, &[0], flaws);
    if end > handle.len() || (!pruned && end < handle.len()) {
        flaws.add(format!("the string says it has {} bytes, its last chunk ends at {end}", handle.len()));
    }
    Ok(count)
}

fn fields(state: impl Lookup, handle: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let (mut expiring, mut soonest) = (0, None::<u64>);
    let count = all(state, handle, Space::Data, flaws, &mut |suffix, value| {
        expect_place(suffix, "field", flaws);
        let name = name_in(suffix);
        let Ok(field) = hash::FieldRef::decode(value) else {
            return flaws.add(format!("the value of field {} is malformed", show(name)));
        };
        if let Some(at) = field.expire_at {
            expiring += 1;
            soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
            let by_expiry = flaws.known(state.lookup(Space::Score, &hash::expiry_key(handle, at, name)));
            if by_expiry == Some(None) && !pruned {
                flaws.add(format!("field {} expires at {at}, which the order of expiries does not say", show(name)));
            }
        }
    })?;
    let by_expiry = all(state, handle, Space::Score, flaws, &mut |_, value| {
        if !value.is_empty() {
            flaws.add("a field in the order of expiries has a value".into());
        }
    })?;
    expect_count(handle, count, pruned, flaws);
    expect_extra(handle, &[0, 8], flaws);
    if pruned {
        return Ok(count);
    }
    // Each expiring field was found there: with as many, they are the same.
    if by_expiry != expiring {
        flaws.add(format!("{expiring} fields expire, {by_expiry} stand in the order of expiries"));
    }
    if hash::soonest_expiry(handle) != soonest {
        let shown = |at: Option<u64>| at.map_or("none".to_string(), |at| at.to_string());
        let said = shown(hash::soonest_expiry(handle));
        flaws.add(format!("the soonest expiry of its fields is {}, the entry says {said}", shown(soonest)));
    }
    Ok(count)
}

fn places(state: impl Lookup, handle: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let mut next = list::head(handle);
    let mut parted = false;
    let count = all(state, handle, Space::Data, flaws, &mut |suffix, _| match <[u8; 8]>::try_from(suffix) {
        Ok(place) => {
            let place = u64::from_be_bytes(place);
            if place != next && !pruned && !parted {
                flaws.add(format!("an element of the list stands at place {place} instead of {next}"));
                parted = true;
            }
            next = place.wrapping_add(1);
        }
        Err(_) => flaws.add(format!("the key of an element is malformed: {}", show(suffix))),
    })?;
    expect_count(handle, count, pruned, flaws);
    expect_extra(handle, &[0, 8], flaws);
    Ok(count)
}

fn members(state: impl Lookup, handle: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let count = all(state, handle, Space::Data, flaws, &mut |suffix, value| {
        expect_place(suffix, "member", flaws);
        if !value.is_empty() {
            flaws.add(format!("member {} of the set has a value", show(name_in(suffix))));
        }
    })?;
    expect_count(handle, count, pruned, flaws);
    expect_extra(handle, &[0], flaws);
    Ok(count)
}

fn scores(state: impl Lookup, handle: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let count = all(state, handle, Space::Data, flaws, &mut |suffix, value| {
        expect_place(suffix, "member", flaws);
        let member = name_in(suffix);
        match zset::decode_score(value) {
            Ok(score) if value.len() == zset::SCORE_LEN && !score.is_nan() => {
                let by_score = flaws.known(state.lookup(Space::Score, &zset::by_score(handle, score, member)));
                if by_score == Some(None) && !pruned {
                    flaws.add(format!(
                        "member {} has the score {score}, which the order of scores does not say",
                        show(member)
                    ));
                }
            }
            _ => flaws.add(format!("the score of member {} is malformed", show(member))),
        }
    })?;
    let by_score = all(state, handle, Space::Score, flaws, &mut |_, value| {
        if !value.is_empty() {
            flaws.add("a member in the order of scores has a value".into());
        }
    })?;
    expect_count(handle, count, pruned, flaws);
    expect_extra(handle, &[0], flaws);
    // Each member was found there: with as many, they are the same.
    if by_score != count && !pruned {
        flaws.add(format!("{count} members have a score, {by_score} stand in the order of scores"));
    }
    Ok(count)
}
