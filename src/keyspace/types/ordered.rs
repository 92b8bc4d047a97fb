//! Elements that stand in the order of their names, as those of hashes and sets do: going through them by cursor, and choosing
//! some at random.

use std::collections::HashSet;

use bytes::Bytes;
use rand::seq::SliceRandom;

use super::{HASH_LEN, Handle, name_in, order_in};
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::Read;

/// A cursor is a place in the order without its lowest bits, so that 53 are left, which every client's number can hold.
const CURSOR_SHIFT: u32 = u64::BITS - 53;
/// Collections of up to so many elements are gone through to choose from them, which is exactly fair.
const SMALL: u64 = 1024;
/// In larger ones an element is one of so many that follow a random place: the wider, the less it matters how large
/// the gap is before each.
const WINDOW: u64 = 32;
/// How many elements can be gone through in the time of one search.
const ELEMENTS_PER_SEARCH: u64 = 64;
/// Searches for one element more, after which the choice is made by going through all.
const MAX_SEARCHES: u64 = 16;

/// Calls `f` with name and value of at least `count` elements from `cursor` on, if there are as many, and of all others that share the
/// cursor's place with the last of them. Returns the cursor to go on with; 0 at the end. An element that is there from
/// the first call, with cursor 0, to the last is seen exactly once.
pub fn walk(
    state: &mut dyn Read,
    handle: &Handle,
    cursor: u64,
    count: u64,
    f: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64, Error> {
    if cursor >> (u64::BITS - CURSOR_SHIFT) != 0 {
        return Ok(0);
    }
    let from = (cursor << CURSOR_SHIFT).to_be_bytes();
    let (mut seen, mut last, mut next) = (0, 0, 0);
    handle.each(state, Space::Data, &from, None, false, &mut |suffix, value| {
        let place = order_in(suffix) >> CURSOR_SHIFT;
        if seen >= count && place != last {
            next = place;
            return false;
        }
        (seen, last) = (seen + 1, place);
        f(name_in(suffix), value);
        true
    })?;
    Ok(next)
}

/// An element that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chosen {
    pub name: Bytes,
    pub value: Bytes,
}

impl Chosen {
    fn new(suffix: &[u8], value: &[u8]) -> Chosen {
        Chosen { name: Bytes::copy_from_slice(name_in(suffix)), value: Bytes::copy_from_slice(value) }
    }
}

/// Which elements count, by their values.
pub type Eligible<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Elements that a choice of `count` among `len` may go through.
pub fn cost(len: u64, count: u64) -> u64 {
    if searches_pay(len, count) { count.saturating_mul(ELEMENTS_PER_SEARCH) } else { len.saturating_add(count) }
}

fn searches_pay(len: u64, count: u64) -> bool {
    len > SMALL && count.saturating_mul(ELEMENTS_PER_SEARCH) <= len
}

/// Up to `count` different elements of the `len` that are eligible, chosen at random, in an order that means nothing.
pub fn sample(
    state: &mut dyn Read,
    handle: &Handle,
    len: u64,
    count: u64,
    eligible: Eligible<'_>,
) -> Result<Vec<Chosen>, Error> {
    let mut chosen = HashSet::new();
    if searches_pay(len, count) {
        for _ in 0..count.saturating_mul(MAX_SEARCHES) {
            if chosen.len() as u64 >= count {
                return Ok(chosen.into_iter().collect());
            }
            chosen.extend(search(state, handle, eligible)?);
        }
    }
    // Each is taken with the chance that makes up for those still to come.
    let (mut left, mut wanted) = (len, count.min(len));
    let mut sample = Vec::new();
    handle.each(state, Space::Data, &[], None, false, &mut |suffix, value| {
        if wanted > 0 && eligible(value) {
            if rand::random_range(0..left.max(1)) < wanted {
                sample.push(Chosen::new(suffix, value));
                wanted -= 1;
            }
            left = left.saturating_sub(1);
        }
        wanted > 0
    })?;
    Ok(sample)
}

/// `count` elements of the `len` that are eligible, each chosen at random whatever the others are; none if there are none.
pub fn draw(
    state: &mut dyn Read,
    handle: &Handle,
    len: u64,
    count: u64,
    eligible: Eligible<'_>,
) -> Result<Vec<Chosen>, Error> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let mut drawn = Vec::new();
    if searches_pay(len, count) {
        for _ in 0..count {
            drawn.extend(search(state, handle, eligible)?);
        }
        return Ok(drawn);
    }
    let mut indexes: Vec<u64> = (0..count).map(|_| rand::random_range(0..len)).collect();
    indexes.sort_unstable();
    let mut indexes = indexes.into_iter().peekable();
    let mut index = 0;
    handle.each(state, Space::Data, &[], None, false, &mut |suffix, value| {
        if eligible(value) {
            let mut here = None;
            while indexes.next_if_eq(&index).is_some() {
                drawn.push(here.get_or_insert_with(|| Chosen::new(suffix, value)).clone());
            }
            index += 1;
        }
        indexes.peek().is_some()
    })?;
    drawn.shuffle(&mut rand::rng());
    Ok(drawn)
}

/// One of the eligible elements that follow a random place, or the first of all follow the last.
fn search(state: &mut dyn Read, handle: &Handle, eligible: Eligible<'_>) -> Result<Option<Chosen>, Error> {
    let from = rand::random::<u64>().to_be_bytes();
    let mut skip = rand::random_range(0..WINDOW);
    let mut found = None;
    for from in [from, [0; HASH_LEN]] {
        handle.each(state, Space::Data, &from, None, false, &mut |suffix, value| {
            if eligible(value) {
                if skip == 0 {
                    found = Some(Chosen::new(suffix, value));
                } else {
                    skip -= 1;
                }
            }
            found.is_none()
        })?;
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}
