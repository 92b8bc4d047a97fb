//! Lists. Element: suffix `place u64 big-endian`; value: the bytes. The places of a list are consecutive.
//!
//! The entry adds: the first element's place, u64 little-endian. A new list begins in the middle of the range, so both ends can grow.

use bytes::Bytes;

use super::{Handle, Outcome};
use crate::binlog::put_effect;
use crate::engine::{Found, Space};
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

const MIDDLE: u64 = 1 << 63;
/// Elements beyond which it is cheaper to iterate than to look each of them up, there or not.
const MANY: u64 = 1000;
/// Elements that are read at once while locks are held, to begin with; then twice as many, and so on.
const FEW: u64 = 128;

/// A change to a list. Indexes count from 0 at the left end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `LPUSH | RPUSH key element [element ...]`
    Push { left: bool, elements: Vec<Bytes> },
    /// `LPOP | RPOP key count`
    Pop { left: bool, count: u64 },
    /// `LSET key index element`
    Set { index: u64, element: Bytes },
    /// `LINSERTAT key index element`: the element stands at `index` afterwards.
    Insert { index: u64, element: Bytes },
    /// `LREMAT key index [index ...]`, rising.
    Remove(Vec<u64>),
    /// `LTRIM key first last`: these and what is between them stay.
    Trim { first: u64, last: u64 },
}

impl Change {
    /// Adds it to a record's body.
    pub fn encode(&self, key: &[u8], body: &mut Vec<u8>) {
        let (mut one, mut two) = (itoa::Buffer::new(), itoa::Buffer::new());
        match self {
            Change::Push { left, elements } => {
                let name: &[u8] = if *left { b"LPUSH" } else { b"RPUSH" };
                let args: Vec<&[u8]> = [name, key].into_iter().chain(elements.iter().map(|e| &e[..])).collect();
                put_effect(body, &args);
            }
            Change::Pop { left, count } => {
                let name: &[u8] = if *left { b"LPOP" } else { b"RPOP" };
                put_effect(body, &[name, key, one.format(*count).as_bytes()]);
            }
            Change::Set { index, element } => put_effect(body, &[b"LSET", key, one.format(*index).as_bytes(), element]),
            Change::Insert { index, element } => {
                put_effect(body, &[b"LINSERTAT", key, one.format(*index).as_bytes(), element]);
            }
            Change::Remove(indexes) => {
                let indexes: Vec<String> = indexes.iter().map(u64::to_string).collect();
                let args: Vec<&[u8]> =
                    [&b"LREMAT"[..], key].into_iter().chain(indexes.iter().map(String::as_bytes)).collect();
                put_effect(body, &args);
            }
            Change::Trim { first, last } => {
                put_effect(body, &[b"LTRIM", key, one.format(*first).as_bytes(), two.format(*last).as_bytes()]);
            }
        }
    }

    /// Reads it from its arguments after the key.
    pub fn decode(name: &[u8], args: Vec<Bytes>) -> Option<Change> {
        let number = |digits: &Bytes| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
        match (name, args.as_slice()) {
            (b"LPUSH" | b"RPUSH", _) => Some(Change::Push { left: name[0] == b'L', elements: args }),
            (b"LPOP" | b"RPOP", [count]) => Some(Change::Pop { left: name[0] == b'L', count: number(count)? }),
            (b"LSET", [index, element]) => Some(Change::Set { index: number(index)?, element: element.clone() }),
            (b"LINSERTAT", [index, element]) => {
                Some(Change::Insert { index: number(index)?, element: element.clone() })
            }
            (b"LREMAT", indexes) => Some(Change::Remove(indexes.iter().map(number).collect::<Option<_>>()?)),
            (b"LTRIM", [first, last]) => Some(Change::Trim { first: number(first)?, last: number(last)? }),
            _ => None,
        }
    }

    /// Makes the change; counts the elements that are new, gone or changed.
    pub fn apply(&self, list: &mut Handle, state: &mut dyn State) -> Result<Outcome, Error> {
        let (len, head) = (list.len(), head(list));
        let outside = || Error::BadEffect(format!("index outside a list of {len}"));
        let count = match self {
            Change::Push { left, elements } => {
                for (nth, element) in elements.iter().enumerate() {
                    let nth = nth as u64;
                    let place = if *left { head.wrapping_sub(nth + 1) } else { head.wrapping_add(len + nth) };
                    state.put_element(Space::Data, at(list, place), Some(element.clone()));
                }
                let count = elements.len() as u64;
                set_head(list, if *left { head.wrapping_sub(count) } else { head });
                list.collection.count += count;
                count
            }
            Change::Pop { left, count } => {
                let count = (*count).min(len);
                let (from, to) = if *left { (head, head + count) } else { (head + len - count, head + len) };
                // What a list leaves behind that is no more is nobody's.
                if count < len {
                    drop_range(list, state, from, to)?;
                }
                if *left {
                    set_head(list, to);
                }
                list.collection.count -= count;
                count
            }
            Change::Set { index, element } => {
                if *index >= len {
                    return Err(outside());
                }
                state.put_element(Space::Data, at(list, head + index), Some(element.clone()));
                1
            }
            Change::Insert { index, element } => {
                if *index > len {
                    return Err(outside());
                }
                insert(list, state, *index, element)?;
                1
            }
            Change::Remove(indexes) => {
                if indexes.last().is_some_and(|last| *last >= len) || !indexes.is_sorted_by(|a, b| a < b) {
                    return Err(outside());
                }
                remove(list, state, indexes)?;
                indexes.len() as u64
            }
            Change::Trim { first, last } => {
                let first = (*first).min(len);
                let end = last.saturating_add(1).clamp(first, len);
                if first < end {
                    drop_range(list, state, head, head + first)?;
                    drop_range(list, state, head + end, head + len)?;
                }
                set_head(list, head + first);
                list.collection.count = end - first;
                len - (end - first)
            }
        };
        list.save(state);
        Ok(Outcome::of(count))
    }
}

/// Moves the shorter side one place outwards and puts the element into the gap.
fn insert(list: &mut Handle, state: &mut dyn State, index: u64, element: &Bytes) -> Result<(), Error> {
    let (len, head) = (list.len(), head(list));
    if index < len / 2 {
        for (nth, moved) in whole_range(state, list, 0, index)?.into_iter().enumerate() {
            state.put_element(Space::Data, at(list, head - 1 + nth as u64), Some(moved));
        }
        set_head(list, head - 1);
    } else {
        for (nth, moved) in whole_range(state, list, index, len)?.into_iter().enumerate() {
            state.put_element(Space::Data, at(list, head + index + 1 + nth as u64), Some(moved));
        }
    }
    let head = self::head(list);
    state.put_element(Space::Data, at(list, head + index), Some(element.clone()));
    list.collection.count += 1;
    Ok(())
}

/// Closes the gaps by moving what is on the shorter side of them.
fn remove(list: &mut Handle, state: &mut dyn State, indexes: &[u64]) -> Result<(), Error> {
    let (Some(&first), Some(&last)) = (indexes.first(), indexes.last()) else { return Ok(()) };
    let (len, head, gone) = (list.len(), head(list), indexes.len() as u64);
    if len - first <= last + 1 {
        let kept = whole_range(state, list, first, len)?;
        let kept = (first..).zip(kept).filter(|(index, _)| indexes.binary_search(index).is_err());
        for (place, (_, element)) in (head + first..).zip(kept) {
            state.put_element(Space::Data, at(list, place), Some(element));
        }
        drop_range(list, state, head + len - gone, head + len)?;
    } else {
        let kept = whole_range(state, list, 0, last + 1)?;
        let kept = (0..).zip(kept).filter(|(index, _)| indexes.binary_search(index).is_err());
        for (place, (_, element)) in (head + gone..).zip(kept) {
            state.put_element(Space::Data, at(list, place), Some(element));
        }
        drop_range(list, state, head, head + gone)?;
        set_head(list, head + gone);
    }
    list.collection.count -= gone;
    Ok(())
}

fn drop_range(list: &Handle, state: &mut dyn State, from: u64, to: u64) -> Result<(), Error> {
    if to.saturating_sub(from) <= MANY {
        (from..to).for_each(|place| state.put_element(Space::Data, at(list, place), None));
        return Ok(());
    }
    // Only those that are there: a count that is wrong must not keep us for ever.
    let mut found = Vec::new();
    list.each(state, Space::Data, &from.to_be_bytes(), Some(&to.to_be_bytes()), false, &mut |suffix, _| {
        found.push(list.element_key(&[suffix]));
        true
    })?;
    found.into_iter().for_each(|element| state.put_element(Space::Data, element, None));
    Ok(())
}

/// [`range`], all of which must be there: what is moved in a list with a gap would end in the wrong place.
fn whole_range(state: &mut dyn Read, list: &Handle, first: u64, end: u64) -> Result<Vec<Bytes>, Error> {
    let found = range(state, list, first, end)?;
    if found.len() as u64 == end - first { Ok(found) } else { Err(lacks(list)) }
}

fn lacks(list: &Handle) -> Error {
    Error::BadEffect(format!("a list of {} lacks elements: {}", list.len(), list.key.escape_ascii()))
}

/// The place of the first element.
pub(super) fn head(list: &Handle) -> u64 {
    list.collection.extra.first_chunk().map_or(MIDDLE, |head| u64::from_le_bytes(*head))
}

fn set_head(list: &mut Handle, head: u64) {
    list.collection.extra = Bytes::copy_from_slice(&head.to_le_bytes());
}

fn at(list: &Handle, place: u64) -> Vec<u8> {
    list.element_key(&[&place.to_be_bytes()])
}

/// The element at an index.
pub fn get(state: &mut dyn Read, list: &Handle, index: u64) -> Result<Option<Bytes>, Error> {
    if index >= list.len() { Ok(None) } else { state.element(Space::Data, &at(list, head(list) + index)) }
}

/// The element at the left or the right end, which must be there, and is about to be taken out: the list's key must be held exclusively.
pub fn end(state: &mut dyn Read, list: &Handle, left: bool) -> Result<Bytes, Error> {
    let places = head(list)..head(list).saturating_add(list.len());
    let place = if left { places.start } else { places.end.wrapping_sub(1) };
    state.end(&at(list, place), places, left)?.ok_or_else(|| lacks(list))
}

/// Calls `f` with index and element of those from `first` on and before `end`, or from the last of them to the first, until it returns false.
pub fn each(
    state: &mut dyn Read,
    list: &Handle,
    first: u64,
    end: u64,
    reverse: bool,
    f: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), Error> {
    let head = head(list);
    let end = end.min(list.len());
    let mut places = head + first.min(end)..head + end;
    // Most of what is read is short, and soon read again.
    let (prefix, mut found) = (list.element_key(&[]), Found::default());
    // Who stops at the first of them must not pay for many.
    let mut few = FEW;
    while few < MANY {
        if places.is_empty() {
            return Ok(());
        }
        let asked = if reverse {
            places.end.saturating_sub(few).max(places.start)..places.end
        } else {
            places.start..places.start.saturating_add(few).min(places.end)
        };
        few *= 2;
        found.clear();
        state.places(&prefix, asked.clone(), &mut found)?;
        let whole = found.len() as u64 == asked.end - asked.start;
        if reverse && !whole {
            break;
        }
        let mut each =
            |(place, element): (u64, Option<&[u8]>)| element.is_none_or(|element| f(place.wrapping_sub(head), element));
        let goes_on = match reverse {
            true => asked.clone().rev().zip(found.iter().rev()).all(&mut each),
            false => asked.clone().zip(found.iter()).all(&mut each),
        };
        if !goes_on {
            return Ok(());
        }
        if reverse {
            places.end = asked.start;
        } else {
            places.start += found.len() as u64;
        }
        if !whole {
            break;
        }
    }
    let (from, to) = (places.start.to_be_bytes(), places.end.to_be_bytes());
    list.each(state, Space::Data, &from, Some(&to), reverse, &mut |suffix, element| match suffix.first_chunk() {
        Some(place) => f(u64::from_be_bytes(*place).wrapping_sub(head), element),
        None => true,
    })
}

/// The elements from `first` on and before `end`.
pub fn range(state: &mut dyn Read, list: &Handle, first: u64, end: u64) -> Result<Vec<Bytes>, Error> {
    let mut found = Vec::new();
    each(state, list, first, end, false, &mut |_, element| {
        found.push(Bytes::copy_from_slice(element));
        true
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::effect::Effect;
    use crate::keyspace::effect::test_state::Map;
    use crate::keyspace::{Entry, Kind};

    const KEY: Bytes = Bytes::from_static(b"list");

    fn element() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..4).prop_map(Bytes::from)
    }

    /// A change that fits a list of `len` elements.
    fn change(len: u64) -> BoxedStrategy<Change> {
        let push = (any::<bool>(), proptest::collection::vec(element(), 1..6));
        let push = push.prop_map(|(left, elements)| Change::Push { left, elements });
        let remove = proptest::collection::btree_set(0..len.max(1), 0..8);
        prop_oneof![
            2 => push,
            1 => (any::<bool>(), 0..4u64).prop_map(|(left, count)| Change::Pop { left, count }),
            1 => (0..len.max(1), element()).prop_map(|(index, element)| Change::Set { index, element }),
            2 => (0..=len, element()).prop_map(|(index, element)| Change::Insert { index, element }),
            2 => remove.prop_map(|indexes| Change::Remove(indexes.into_iter().collect())),
            1 => (0..len + 2, 0..len + 2).prop_map(|(first, last)| Change::Trim { first, last }),
        ]
        .boxed()
    }

    /// What a change makes of a list, and the count that it answers; `None` if it does not fit.
    fn model(change: &Change, list: &mut Vec<Bytes>) -> Option<u64> {
        let len = list.len();
        Some(match change {
            Change::Push { left: true, elements } => {
                elements.iter().for_each(|element| list.insert(0, element.clone()));
                elements.len() as u64
            }
            Change::Push { left: false, elements } => {
                list.extend(elements.iter().cloned());
                elements.len() as u64
            }
            Change::Pop { left, count } => {
                let count = len.min(*count as usize);
                list.drain(if *left { 0..count } else { len - count..len });
                count as u64
            }
            Change::Set { index, element } => {
                *list.get_mut(*index as usize)? = element.clone();
                1
            }
            Change::Insert { index, element } => {
                let index = usize::try_from(*index).ok().filter(|index| *index <= len)?;
                list.insert(index, element.clone());
                1
            }
            Change::Remove(indexes) => {
                if indexes.iter().any(|index| *index >= len as u64) {
                    return None;
                }
                indexes.iter().rev().for_each(|index| drop(list.remove(*index as usize)));
                indexes.len() as u64
            }
            Change::Trim { first, last } => {
                let first = len.min(*first as usize);
                let end = len.min(last.saturating_add(1) as usize).max(first);
                *list = list[first..end].to_vec();
                (len - list.len()) as u64
            }
        })
    }

    fn handle(state: &mut Map) -> Option<Handle> {
        let entry = state.get(&KEY).unwrap()?;
        Handle::of(&KEY, &entry)
    }

    fn contents(state: &mut Map) -> Vec<Bytes> {
        let Some(list) = handle(state) else { return Vec::new() };
        let all = range(state, &list, 0, u64::MAX).unwrap();
        assert_eq!(all.len() as u64, list.len());
        let stored = state.1.len() as u64;
        assert_eq!(stored, list.len(), "an element was left behind");
        all
    }

    fn apply(state: &mut Map, change: &Change) -> Result<Outcome, Error> {
        if state.get(&KEY)?.is_none() {
            // Of lists that are no more.
            state.1.clear();
            Effect::Create { key: KEY, kind: Kind::List, version: 7 }.apply(state, 0)?;
        }
        Effect::List(KEY, change.clone()).apply(state, 0)
    }

    proptest! {
        #[test]
        fn a_list_is_a_vec(seeds in proptest::collection::vec(any::<proptest::sample::Index>(), 1..60), picks in any::<u64>()) {
            let mut runner = proptest::test_runner::TestRunner::new_with_rng(
                ProptestConfig::default(),
                proptest::test_runner::TestRng::from_seed(
                    proptest::test_runner::RngAlgorithm::XorShift,
                    &[picks.to_le_bytes(), [1; 8]].concat(),
                ),
            );
            let (mut state, mut expected) = (Map::default(), Vec::new());
            for _ in seeds {
                let change = change(expected.len() as u64).new_tree(&mut runner).unwrap().current();
                let before = expected.clone();
                // A list that is just made is filled by the command that makes it.
                if before.is_empty() && !matches!(change, Change::Push { .. }) {
                    continue;
                }
                let outcome = apply(&mut state, &change);
                match model(&change, &mut expected) {
                    Some(count) => prop_assert_eq!(outcome.unwrap(), Outcome::of(count), "{:?} of {:?}", change, before),
                    None => prop_assert!(outcome.is_err(), "{:?} of {:?}", change, before),
                }
                prop_assert_eq!(&contents(&mut state), &expected, "{:?} of {:?}", change, before);
                prop_assert_eq!(state.get(&KEY).unwrap().is_some(), !expected.is_empty());
            }
        }
    }

    #[test]
    fn parts_of_a_list() {
        let letters: Vec<Bytes> = ["a", "b", "c", "d"].map(Bytes::from).to_vec();
        let mut state = Map::default();
        apply(&mut state, &Change::Push { left: false, elements: letters.clone() }).unwrap();
        let list = handle(&mut state).unwrap();
        assert_eq!(get(&mut state, &list, 3).unwrap(), Some(letters[3].clone()));
        assert_eq!(get(&mut state, &list, 4).unwrap(), None);
        assert_eq!(range(&mut state, &list, 1, 3).unwrap(), letters[1..3]);
        assert_eq!(range(&mut state, &list, 3, 2).unwrap(), [] as [Bytes; 0]);
        let mut seen = Vec::new();
        each(&mut state, &list, 1, 9, true, &mut |index, element| {
            seen.push((index, Bytes::copy_from_slice(element)));
            index > 2
        })
        .unwrap();
        assert_eq!(seen, [(3, letters[3].clone()), (2, letters[2].clone())]);
        let ends = [true, false].map(|left| end(&mut state, &list, left).unwrap());
        assert_eq!(ends, [letters[0].clone(), letters[3].clone()]);
        // Damage is no answer.
        state.1.remove(&(Space::Data, at(&list, head(&list))));
        assert!(end(&mut state, &list, true).is_err() && end(&mut state, &list, false).is_ok());
    }

    #[test]
    fn an_expiry_outlives_changes() {
        let mut state = Map::default();
        apply(&mut state, &Change::Push { left: true, elements: vec![Bytes::from("a"), Bytes::from("b")] }).unwrap();
        Effect::ExpireAt { key: KEY, at: 99 }.apply(&mut state, 0).unwrap();
        apply(&mut state, &Change::Pop { left: true, count: 1 }).unwrap();
        assert_eq!(state.get(&KEY).unwrap().and_then(|entry: Entry| entry.expire_at), Some(99));
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut state = Map::default();
        apply(&mut state, &Change::Push { left: true, elements: vec![Bytes::from("a"), Bytes::from("b")] }).unwrap();
        let before = contents(&mut state);
        let element = Bytes::from("x");
        for change in [
            Change::Set { index: 2, element: element.clone() },
            Change::Insert { index: 3, element },
            Change::Remove(vec![2]),
            Change::Remove(vec![1, 0]),
            Change::Remove(vec![0, 0]),
        ] {
            assert!(apply(&mut state, &change).is_err(), "{change:?}");
            assert_eq!(contents(&mut state), before);
        }
        for nothing in
            [Change::Remove(vec![]), Change::Pop { left: true, count: 0 }, Change::Trim { first: 0, last: 1 }]
        {
            assert!(!apply(&mut state, &nothing).unwrap().changed);
        }
    }
}
