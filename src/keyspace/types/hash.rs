//! Hashes. Element: suffix `order(field) u64 big-endian, field`; value `flags u8, [expiry u64 little-endian, unix ms,] bytes`.
//! A field that expires stands once more in the space of scores: suffix `expiry u64 big-endian, field`; no value.
//!
//! The entry adds: soonest expiry of a field, u64 little-endian, unix ms; absent when no field has one. A field that has expired
//! exists for nobody; it is counted until an effect removes it. A hash without a live field is taken away by the next
//! effect that removes a field of it; until then it is an empty hash under a key that exists.

use bytes::{BufMut, Bytes, BytesMut};

use super::{CHUNK, Handle, Outcome, name_in, named};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};
use crate::rdb::HashField;

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
        lives(self.expire_at, now)
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
        let FieldRef { value, expire_at } = FieldRef::decode(bytes)?;
        Ok(Field { value: bytes.slice_ref(value), expire_at })
    }
}

fn lives(expire_at: Option<u64>, now: u64) -> bool {
    expire_at.is_none_or(|at| now <= at)
}

/// A [`Field`] where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRef<'a> {
    pub value: &'a [u8],
    /// Unix ms; after it the field does not exist.
    pub expire_at: Option<u64>,
}

impl FieldRef<'_> {
    /// Whether the field still exists at `now` (unix ms).
    pub fn is_live(&self, now: u64) -> bool {
        lives(self.expire_at, now)
    }

    /// Reads the value of an element.
    pub fn decode(bytes: &[u8]) -> Result<FieldRef<'_>, Error> {
        let malformed = || Error::BadEffect("malformed field of a hash".into());
        let (&flags, rest) = bytes.split_first().ok_or_else(malformed)?;
        match flags {
            0 => Ok(FieldRef { value: rest, expire_at: None }),
            HAS_EXPIRY => {
                let (at, value) = rest.split_first_chunk().ok_or_else(malformed)?;
                Ok(FieldRef { value, expire_at: Some(u64::from_le_bytes(*at)) })
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
        let mut editor = Editor { soonest: soonest_expiry(hash), lost: false, hash, state };
        let mut outcome = Outcome::default();
        match self {
            Change::Set { ttl, pairs } => {
                for (name, value) in pairs {
                    let (element, old) = editor.find(name)?;
                    let kept = old.as_ref().filter(|old| old.is_live(now));
                    outcome.count += u64::from(kept.is_none());
                    let expire_at = match ttl {
                        Ttl::Clear => None,
                        Ttl::Keep => kept.and_then(|old| old.expire_at),
                        Ttl::At(at) => Some(*at),
                    };
                    editor.replace(name, element, old, Some(Field { value: value.clone(), expire_at }));
                    outcome.changed = true;
                }
            }
            Change::Del(names) => {
                for name in names {
                    let (element, Some(old)) = editor.find(name)? else { continue };
                    outcome.count += u64::from(old.is_live(now));
                    editor.replace(name, element, Some(old), None);
                    outcome.changed = true;
                }
            }
            Change::ExpireAt { fields, .. } | Change::Persist(fields) => {
                let expire_at = match self {
                    Change::ExpireAt { at, .. } => Some(*at),
                    _ => None,
                };
                for name in fields {
                    let (element, Some(old)) = editor.find(name)? else { continue };
                    if old.is_live(now) && old.expire_at != expire_at {
                        let value = old.value.clone();
                        editor.replace(name, element, Some(old), Some(Field { value, expire_at }));
                        outcome.count += 1;
                        outcome.changed = true;
                    }
                }
            }
        }
        if outcome.changed {
            editor.finish(matches!(self, Change::Del(_)), now)?;
        }
        Ok(outcome)
    }
}

/// Changes fields one by one, and with them the count and the order of expiry.
struct Editor<'a> {
    hash: &'a mut Handle,
    state: &'a mut dyn State,
    /// No expiry is before this one.
    soonest: Option<u64>,
    /// Whether the field with the soonest expiry may be gone.
    lost: bool,
}

impl Editor<'_> {
    /// The key of a field's element, and the field, expired or not.
    fn find(&mut self, name: &[u8]) -> Result<(Vec<u8>, Option<Field>), Error> {
        let element = named(self.hash, name);
        let found = self.state.element(Space::Data, &element)?;
        Ok((element, found.as_ref().map(Field::decode).transpose()?))
    }

    fn replace(&mut self, name: &[u8], element: Vec<u8>, old: Option<Field>, new: Option<Field>) {
        let count = &mut self.hash.collection.count;
        match (&old, &new) {
            (None, Some(_)) => *count += 1,
            (Some(_), None) => *count = count.saturating_sub(1),
            _ => {}
        }
        let [was, is] = [&old, &new].map(|field| field.as_ref().and_then(|field| field.expire_at));
        if was != is {
            if let Some(at) = was {
                self.state.put_element(Space::Score, expiry_key(self.hash, at, name), None);
                self.lost |= self.soonest == was;
            }
            if let Some(at) = is {
                self.state.put_element(Space::Score, expiry_key(self.hash, at, name), Some(Bytes::new()));
                self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
            }
        }
        self.state.put_element(Space::Data, element, new.map(|field| field.encode()));
    }

    /// Writes the entry. `fewer`: if no live field is left, the expired ones go too.
    fn finish(mut self, fewer: bool, now: u64) -> Result<(), Error> {
        if self.lost {
            // Nothing is before what was the soonest, so the way there need not be searched.
            let from = self.soonest.unwrap_or(0).to_be_bytes();
            self.soonest = None;
            let soonest = &mut self.soonest;
            self.hash.each(self.state, Space::Score, &from, None, false, &mut |suffix, _| {
                *soonest = suffix.first_chunk().map(|at| u64::from_be_bytes(*at));
                false
            })?;
        }
        self.hash.collection.extra =
            self.soonest.map_or_else(Bytes::new, |at| Bytes::copy_from_slice(&at.to_le_bytes()));
        if fewer && live_len(self.state, self.hash, now)? == 0 {
            self.hash.collection.count = 0;
        }
        self.hash.save(self.state);
        Ok(())
    }
}

/// The key under which a field that expires stands once more.
fn expiry_key(hash: &Handle, at: u64, name: &[u8]) -> Vec<u8> {
    hash.element_key(&[&at.to_be_bytes(), name])
}

/// The soonest expiry of a field (unix ms), past or to come; `None` when no field has one.
pub fn soonest_expiry(hash: &Handle) -> Option<u64> {
    hash.collection.extra.first_chunk().map(|at| u64::from_le_bytes(*at))
}

/// Whether all fields that are counted are live at `now`.
pub fn all_live(hash: &Handle, now: u64) -> bool {
    lives(soonest_expiry(hash), now)
}

/// Fields that are live at `now`.
pub fn live_len(state: &mut dyn Read, hash: &Handle, now: u64) -> Result<u64, Error> {
    let mut expired = 0;
    each_expired(state, hash, now, &mut |_| {
        expired += 1;
        true
    })?;
    Ok(hash.len().saturating_sub(expired))
}

/// Up to `limit` fields that have expired at `now`, those first that did so first: to be removed with [`Change::Del`], after which
/// [`soonest_expiry`] is that of the fields that are left.
pub fn expired_fields(state: &mut dyn Read, hash: &Handle, now: u64, limit: usize) -> Result<Vec<Bytes>, Error> {
    let mut found = Vec::new();
    if limit > 0 {
        each_expired(state, hash, now, &mut |name| {
            found.push(Bytes::copy_from_slice(name));
            found.len() < limit
        })?;
    }
    Ok(found)
}

fn each_expired(state: &mut dyn Read, hash: &Handle, now: u64, f: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Error> {
    if all_live(hash, now) {
        return Ok(());
    }
    let from = soonest_expiry(hash).unwrap_or(0).to_be_bytes();
    let name = |suffix: &[u8]| suffix.get(size_of::<u64>()..).unwrap_or_default().to_vec();
    hash.each(state, Space::Score, &from, Some(&now.to_be_bytes()), false, &mut |suffix, _| f(&name(suffix)))
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
    f: &mut dyn FnMut(&[u8], FieldRef<'_>) -> bool,
) -> Result<(), Error> {
    let mut bad = None;
    hash.each(state, Space::Data, &[], None, false, &mut |suffix, value| match FieldRef::decode(value) {
        Ok(field) => !lives(field.expire_at, now) || f(name_in(suffix), field),
        Err(e) => {
            bad = Some(e);
            false
        }
    })?;
    bad.map_or(Ok(()), Err)
}

/// All fields that are live at `now`.
pub fn load(state: &mut dyn Read, hash: &Handle, now: u64) -> Result<Vec<HashField>, Error> {
    let mut fields = Vec::new();
    each(state, hash, now, &mut |name, FieldRef { value, expire_at }| {
        let (field, value) = (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        fields.push(HashField { field, value, expire_at });
        true
    })?;
    Ok(fields)
}

/// What makes a new hash hold these fields.
pub fn changes(mut fields: Vec<HashField>) -> Vec<Change> {
    // Fields that expire together are set together.
    fields.sort_by_key(|field| field.expire_at);
    let alike = fields.chunk_by(|a, b| a.expire_at == b.expire_at).flat_map(|alike| alike.chunks(CHUNK));
    alike
        .map(|chunk| Change::Set {
            ttl: chunk.first().and_then(|field| field.expire_at).map_or(Ttl::Clear, Ttl::At),
            pairs: chunk.iter().map(|field| (field.field.clone(), field.value.clone())).collect(),
        })
        .collect()
}
