//! Sets. Element: suffix `order(member) u64 big-endian, member`; no value.

use bytes::Bytes;

use super::{Handle, Outcome, name_in, named};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

/// A change to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `SADD key member [member ...]`
    Add(Vec<Bytes>),
    /// `SREM key member [member ...]`
    Remove(Vec<Bytes>),
}

impl Change {
    /// Adds it to a record's body.
    pub fn encode(&self, key: &[u8], body: &mut Vec<u8>) {
        let (name, members) = match self {
            Change::Add(members) => (&b"SADD"[..], members),
            Change::Remove(members) => (&b"SREM"[..], members),
        };
        let args: Vec<&[u8]> = [name, key].into_iter().chain(members.iter().map(|m| &m[..])).collect();
        put_effect(body, &args);
    }

    /// Reads it from its arguments after the key.
    pub fn decode(name: &[u8], args: Vec<Bytes>) -> Option<Change> {
        match name {
            b"SADD" => Some(Change::Add(args)),
            b"SREM" => Some(Change::Remove(args)),
            _ => None,
        }
    }

    /// Makes the change; counts the members that are new or gone.
    pub fn apply(&self, set: &mut Handle, state: &mut dyn State) -> Result<Outcome, Error> {
        let (Change::Add(members) | Change::Remove(members)) = self;
        let adds = matches!(self, Change::Add(_));
        let mut count = 0;
        for member in members {
            let element = named(set, member);
            if state.element(Space::Data, &element)?.is_some() != adds {
                state.put_element(Space::Data, element, adds.then(Bytes::new));
                count += 1;
            }
        }
        if count > 0 {
            let len = &mut set.collection.count;
            *len = if adds { *len + count } else { len.saturating_sub(count) };
            set.save(state);
        }
        Ok(Outcome::of(count))
    }
}

/// Whether `member` is in the set.
pub fn contains(state: &mut dyn Read, set: &Handle, member: &[u8]) -> Result<bool, Error> {
    Ok(state.element(Space::Data, &named(set, member))?.is_some())
}

/// Calls `f` with the members, in no order that means anything, until it returns false.
pub fn each(state: &mut dyn Read, set: &Handle, f: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Error> {
    set.each(state, Space::Data, &[], None, false, &mut |suffix, _| f(name_in(suffix)))
}

/// All members.
pub fn load(state: &mut dyn Read, set: &Handle) -> Result<Vec<Bytes>, Error> {
    let mut members = Vec::new();
    each(state, set, &mut |member| {
        members.push(Bytes::copy_from_slice(member));
        true
    })?;
    Ok(members)
}
