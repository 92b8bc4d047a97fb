//! Hashes. Element: suffix `order(field) u64 big-endian, field`; value `flags u8, [expiry u64 little-endian, unix ms,] bytes`.
//!
//! The entry adds: soonest expiry of a field, u64 little-endian, unix ms; absent when no field ever had one. It may be earlier than
//! the soonest that is left, never later. A field that has expired exists for nobody; it is counted until an effect removes it.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Handle, Outcome, name_in, named};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

const HAS_EXPIRY: u8 = 1;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub value: Bytes,
    /// Unix ms; after it the field does not exist.
    pub expire_at: Option<u64>,
}

impl Field {
    /// Whether the field still exists at `now` (unix ms).
    pub fn is_live(&self, now: u64) -> bool {
        self.expire_at.is_none_or(|at| now <= at)
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + self.value.len());
        match self.expire_at {
            Some(at) => {
                out.put_u8(HAS_EXPIRY);
                out.put_u64_le(at);
            }
            None => out.put_u8(0),
        }
        out.put_slice(&self.value);
        out.freeze()
    }

    fn decode(bytes: &Bytes) -> Result<Field, Error> {
        let malformed = || Error::BadEffect("malformed field of a hash".into());
        let (&flags, rest) = bytes.split_first().ok_or_else(malformed)?;
        match flags {
            0 => Ok(Field { value: bytes.slice(1..), expire_at: None }),
            HAS_EXPIRY => {
                let at = rest.first_chunk().ok_or_else(malformed)?;
                Ok(Field { value: bytes.slice(9..), expire_at: Some(u64::from_le_bytes(*at)) })
            }
            _ => Err(malformed()),
        }
    }
}

/// What setting a field does to its expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// It has none afterwards.
    Clear,
    /// It stays as it is.
    Keep,
    /// Unix ms.
    At(u64),
}

/// A change to a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `HSET key field value [field value ...]`, or `HSETEX key KEEPTTL | PXAT ms FIELDS count field value [...]`
    Set { ttl: Ttl, pairs: Vec<(Bytes, Bytes)> },
    /// `HDEL key field [field ...]`
    Del(Vec<Bytes>),
    /// `HPEXPIREAT key ms FIELDS count field [field ...]`
    ExpireAt { at: u64, fields: Vec<Bytes> },
    /// `HPERSIST key FIELDS count field [field ...]`
    Persist(Vec<Bytes>),
}

impl Change {
    /// Adds it to a record's body.
    pub fn encode(&self, key: &[u8], body: &mut Vec<u8>) {
        let (mut digits, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
        let mut args: Vec<&[u8]> = Vec::new();
        match self {
            Change::Set { ttl, pairs } => {
                match ttl {
                    Ttl::Clear => args.extend([&b"HSET"[..], key]),
                    Ttl::Keep => args.extend([&b"HSETEX"[..], key, b"KEEPTTL"]),
                    Ttl::At(at) => args.extend([&b"HSETEX"[..], key, b"PXAT", digits.format(*at).as_bytes()]),
                }
                if *ttl != Ttl::Clear {
                    args.extend([&b"FIELDS"[..], count.format(pairs.len()).as_bytes()]);
                }
                args.extend(pairs.iter().flat_map(|(field, value)| [&field[..], &value[..]]));
            }
            Change::Del(fields) => {
                args.extend([&b"HDEL"[..], key]);
                args.extend(fields.iter().map(|f| &f[..]));
            }
            Change::ExpireAt { at, fields } => {
                args.extend([&b"HPEXPIREAT"[..], key, digits.format(*at).as_bytes(), b"FIELDS"]);
                args.push(count.format(fields.len()).as_bytes());
                args.extend(fields.iter().map(|f| &f[..]));
            }
            Change::Persist(fields) => {
                args.extend([&b"HPERSIST"[..], key, b"FIELDS", count.format(fields.len()).as_bytes()]);
                args.extend(fields.iter().map(|f| &f[..]));
            }
        }
        put_effect(body, &args);
    }

    /// Reads it from its arguments after the key.
    pub fn decode(name: &[u8], args: Vec<Bytes>) -> Option<Change> {
        let number = |digits: &Bytes| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
        match name {
            b"HSET" => Some(Change::Set { ttl: Ttl::Clear, pairs: pairs(args)? }),
            b"HSETEX" if args.first()?.as_ref() == b"KEEPTTL" => {
                Some(Change::Set { ttl: Ttl::Keep, pairs: pairs(args.get(3..)?.to_vec())? })
            }
            b"HSETEX" => {
                Some(Change::Set { ttl: Ttl::At(number(args.get(1)?)?), pairs: pairs(args.get(4..)?.to_vec())? })
            }
            b"HDEL" => Some(Change::Del(args)),
            b"HPEXPIREAT" => Some(Change::ExpireAt { at: number(args.first()?)?, fields: args.get(3..)?.to_vec() }),
            b"HPERSIST" => Some(Change::Persist(args.get(2..)?.to_vec())),
            _ => None,
        }
    }

    /// Makes the change. Counts the fields that did not exist at `now`; for the others, those that are gone or changed.
    pub fn apply(&self, hash: &mut Handle, state: &mut dyn State, now: u64) -> Result<Outcome, Error> {
        match self {
            Change::Set { ttl, pairs } => set(hash, state, *ttl, pairs, now),
            Change::Del(fields) => {
                let (mut gone, mut counted) = (0, 0);
                for field in fields {
                    let element = named(hash, field);
                    if let Some(old) = state.element(Space::Data, &element)? {
                        state.put_element(Space::Data, element, None);
                        gone += 1;
                        counted += u64::from(Field::decode(&old)?.is_live(now));
                    }
                }
                hash.collection.count = hash.collection.count.saturating_sub(gone);
                hash.save(state);
                Ok(Outcome { changed: gone > 0, count: counted })
            }
            Change::ExpireAt { at, fields } => {
                let changed = change_expiry(hash, state, fields, Some(*at), now)?;
                note_expiry(hash, *at);
                hash.save(state);
                Ok(Outcome::of(changed))
            }
            Change::Persist(fields) => change_expiry(hash, state, fields, None, now).map(Outcome::of),
        }
    }
}

fn set(
    hash: &mut Handle,
    state: &mut dyn State,
    ttl: Ttl,
    pairs: &[(Bytes, Bytes)],
    now: u64,
) -> Result<Outcome, Error> {
    let mut fresh = 0;
    for (field, value) in pairs {
        let element = named(hash, field);
        let old = state.element(Space::Data, &element)?;
        hash.collection.count += u64::from(old.is_none());
        let old = old.as_ref().map(Field::decode).transpose()?.filter(|old| old.is_live(now));
        fresh += u64::from(old.is_none());
        let expire_at = match ttl {
            Ttl::Clear => None,
            Ttl::Keep => old.and_then(|old| old.expire_at),
            Ttl::At(at) => Some(at),
        };
        let value = Field { value: value.clone(), expire_at }.encode();
        state.put_element(Space::Data, element, Some(value));
    }
    if let Ttl::At(at) = ttl {
        note_expiry(hash, at);
    }
    hash.save(state);
    Ok(Outcome { changed: !pairs.is_empty(), count: fresh })
}

fn change_expiry(
    hash: &Handle,
    state: &mut dyn State,
    fields: &[Bytes],
    expire_at: Option<u64>,
    now: u64,
) -> Result<u64, Error> {
    let mut changed = 0;
    for name in fields {
        let element = named(hash, name);
        let Some(old) = state.element(Space::Data, &element)? else { continue };
        let field = Field::decode(&old)?;
        if field.is_live(now) && field.expire_at != expire_at {
            state.put_element(Space::Data, element, Some(Field { expire_at, ..field }.encode()));
            changed += 1;
        }
    }
    Ok(changed)
}

fn note_expiry(hash: &mut Handle, at: u64) {
    let soonest = soonest_expiry(hash).map_or(at, |soonest| soonest.min(at));
    hash.collection.extra = Bytes::copy_from_slice(&soonest.to_le_bytes());
}

/// No field expires before this (unix ms); `None` when no field has an expiry.
pub fn soonest_expiry(hash: &Handle) -> Option<u64> {
    hash.collection.extra.first_chunk().map(|at| u64::from_le_bytes(*at))
}

fn pairs(args: Vec<Bytes>) -> Option<Vec<(Bytes, Bytes)>> {
    let (pairs, []) = args.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[field, value]| (field.clone(), value.clone())).collect())
}

/// The field that is live at `now`.
pub fn get(state: &mut dyn Read, hash: &Handle, field: &[u8], now: u64) -> Result<Option<Field>, Error> {
    let found = state.element(Space::Data, &named(hash, field))?;
    Ok(found.as_ref().map(Field::decode).transpose()?.filter(|field| field.is_live(now)))
}

/// Calls `f` with the fields that are live at `now`, in no order that means anything, until it returns false.
pub fn each(
    state: &mut dyn Read,
    hash: &Handle,
    now: u64,
    f: &mut dyn FnMut(&[u8], Field) -> bool,
) -> Result<(), Error> {
    let mut bad = None;
    hash.each(state, Space::Data, &[], None, false, &mut |suffix, value| match Field::decode(&Bytes::copy_from_slice(
        value,
    )) {
        Ok(field) => !field.is_live(now) || f(name_in(suffix), field),
        Err(e) => {
            bad = Some(e);
            false
        }
    })?;
    bad.map_or(Ok(()), Err)
}

/// Up to `limit` fields that have expired at `now`.
pub fn expired_fields(state: &mut dyn Read, hash: &Handle, now: u64, limit: usize) -> Result<Vec<Bytes>, Error> {
    let mut found = Vec::new();
    hash.each(state, Space::Data, &[], None, false, &mut |suffix, value| {
        if Field::decode(&Bytes::copy_from_slice(value)).is_ok_and(|field| !field.is_live(now)) {
            found.push(Bytes::copy_from_slice(name_in(suffix)));
        }
        found.len() < limit
    })?;
    Ok(found)
}
