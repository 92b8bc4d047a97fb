//! Lists. Element: suffix `place u64 big-endian`; value: the bytes. The places of a list are consecutive.
//!
//! The entry adds: the first element's place, u64 little-endian. A new list begins in the middle of the range, so both ends can grow.

use bytes::Bytes;

use super::{Handle, Outcome};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

const MIDDLE: u64 = 1 << 63;

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
                if *left {
                    drop_range(list, state, head, head + count);
                    set_head(list, head + count);
                } else {
                    drop_range(list, state, head + len - count, head + len);
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
                drop_range(list, state, head, head + first);
                drop_range(list, state, head + end, head + len);
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
        for (nth, moved) in range(state, list, 0, index)?.into_iter().enumerate() {
            state.put_element(Space::Data, at(list, head - 1 + nth as u64), Some(moved));
        }
        set_head(list, head - 1);
    } else {
        for (nth, moved) in range(state, list, index, len)?.into_iter().enumerate() {
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
        let kept = range(state, list, first, len)?;
        let kept = (first..).zip(kept).filter(|(index, _)| indexes.binary_search(index).is_err());
        for (place, (_, element)) in (head + first..).zip(kept) {
            state.put_element(Space::Data, at(list, place), Some(element));
        }
        drop_range(list, state, head + len - gone, head + len);
    } else {
        let kept = range(state, list, 0, last + 1)?;
        let kept = (0..).zip(kept).filter(|(index, _)| indexes.binary_search(index).is_err());
        for (place, (_, element)) in (head + gone..).zip(kept) {
            state.put_element(Space::Data, at(list, place), Some(element));
        }
        drop_range(list, state, head, head + gone);
        set_head(list, head + gone);
    }
    list.collection.count -= gone;
    Ok(())
}

fn drop_range(list: &Handle, state: &mut dyn State, from: u64, to: u64) {
    (from..to).for_each(|place| state.put_element(Space::Data, at(list, place), None));
}

fn head(list: &Handle) -> u64 {
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
    let (from, to) = ((head + first.min(end)).to_be_bytes(), (head + end).to_be_bytes());
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
