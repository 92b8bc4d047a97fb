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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::effect::test_state::Map;
    use crate::keyspace::types::set::Change;
    use crate::keyspace::{Effect, Kind};
    use std::collections::BTreeMap;

    fn set_of(len: u64) -> (Map, Handle) {
        let key = Bytes::from_static(b"key");
        let mut state = Map::default();
        Effect::Create { key: key.clone(), kind: Kind::Set, version: 1 }.apply(&mut state, 0).unwrap();
        let members = (0..len).map(|member| Bytes::from(member.to_string())).collect();
        Effect::Members(key.clone(), Change::Add(members)).apply(&mut state, 0).unwrap();
        let entry = state.get(&key).unwrap().unwrap();
        (state, Handle::of(&key, &entry).unwrap())
    }

    #[test]
    fn a_walk_sees_every_element_once() {
        let (mut state, handle) = set_of(1000);
        for count in [1, 7, 999, 1000, 5000] {
            let (mut seen, mut cursor) = (HashSet::new(), 0);
            loop {
                let before = seen.len();
                cursor = walk(&mut state, &handle, cursor, count, &mut |name, _| {
                    assert!(seen.insert(name.to_vec()));
                })
                .unwrap();
                assert!(cursor < 1 << 53 && (cursor == 0 || seen.len() - before >= count as usize));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen.len(), 1000);
        }
        let nothing = |cursor, state: &mut Map| walk(state, &handle, cursor, 9, &mut |_, _| panic!("an element"));
        assert_eq!(nothing(1 << 53, &mut state).unwrap(), 0);
        assert_eq!(nothing(u64::MAX, &mut state).unwrap(), 0);
    }

    #[test]
    fn samples_are_distinct_and_draws_as_many_as_asked_for() {
        for len in [1, 5, SMALL, SMALL + 1, 4000] {
            let (mut state, handle) = set_of(len);
            for count in [0, 1, 3, 40, len / 2, len - 1, len, len + 10] {
                let sample = sample(&mut state, &handle, len, count, &|_| true).unwrap();
                assert_eq!(sample.len() as u64, count.min(len), "{count} of {len}");
                assert_eq!(sample.iter().collect::<HashSet<_>>().len(), sample.len());
                assert_eq!(draw(&mut state, &handle, len, count, &|_| true).unwrap().len() as u64, count);
            }
        }
        let (mut state, handle) = set_of(3);
        assert!(draw(&mut state, &handle, 0, 5, &|_| false).unwrap().is_empty());
        assert!(sample(&mut state, &handle, 0, 5, &|_| false).unwrap().is_empty());
    }

    /// Chi-square of how often each of `len` elements was chosen.
    fn unevenness(len: u64, chosen: impl Iterator<Item = Chosen>) -> f64 {
        let mut counts = BTreeMap::new();
        chosen.for_each(|element| *counts.entry(element.name).or_insert(0u64) += 1);
        let expected = counts.values().sum::<u64>() as f64 / len as f64;
        let missing = (len - counts.len() as u64) as f64 * expected;
        missing + counts.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum::<f64>()
    }

    #[test]
    fn small_collections_are_chosen_from_fairly() {
        const LEN: u64 = 50;
        // 49 degrees of freedom: beyond this once in ten million times.
        const LIMIT: f64 = 115.0;
        let (mut state, handle) = set_of(LEN);
        let drawn = draw(&mut state, &handle, LEN, 20_000, &|_| true).unwrap();
        assert!(unevenness(LEN, drawn.into_iter()) < LIMIT);
        let sampled = (0..2000).flat_map(|_| sample(&mut state, &handle, LEN, 10, &|_| true).unwrap());
        assert!(unevenness(LEN, sampled.collect::<Vec<_>>().into_iter()) < LIMIT);
    }

    #[test]
    fn in_large_collections_no_element_is_out_of_reach() {
        const LEN: u64 = 1500;
        let (mut state, handle) = set_of(LEN);
        let mut seen = HashSet::new();
        for _ in 0..LEN * 20 {
            seen.extend(draw(&mut state, &handle, LEN, 1, &|_| true).unwrap());
        }
        assert_eq!(seen.len() as u64, LEN);
    }
}
