//! Hashes. Element: suffix `order(field) u64 big-endian, field`; value `flags u8, [expiry u64 little-endian, unix ms,] bytes`.
//! A field that expires stands once more in the space of scores: suffix `expiry u64 big-endian, field`; no value.
//!
//! The entry adds: soonest expiry of a field, u64 little-endian, unix ms; absent when no field has one. A field that has expired
//! exists for nobody; it is counted until an effect removes it. A hash without a live field is taken away by the next
//! effect that removes a field of it; until then it is an empty hash under a key that exists.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Handle, Outcome, name_in, named};
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
pub(super) fn expiry_key(hash: &Handle, at: u64, name: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::effect::test_state::Map;
    use crate::keyspace::types::refill;
    use crate::keyspace::{Effect, Kind};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KEY: Bytes = Bytes::from_static(b"key");

    fn name(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn new_hash() -> Map {
        let mut state = Map::default();
        Effect::Create { key: KEY, kind: Kind::Hash, version: 1 }.apply(&mut state, 0).unwrap();
        state
    }

    fn apply(state: &mut Map, change: Change, now: u64) -> Outcome {
        Effect::Hash(KEY, change).apply(state, now).unwrap()
    }

    fn set(state: &mut Map, ttl: Ttl, fields: &str, now: u64) -> u64 {
        let pairs = fields.split(' ').map(|field| (name(field), name("value"))).collect();
        apply(state, Change::Set { ttl, pairs }, now).count
    }

    fn handle(state: &mut Map) -> Option<Handle> {
        Handle::of(&KEY, &state.get(&KEY).unwrap()?)
    }

    fn soonest(state: &mut Map) -> Option<u64> {
        soonest_expiry(&handle(state).unwrap())
    }

    fn live(state: &mut Map, now: u64) -> u64 {
        let hash = handle(state).unwrap();
        let len = live_len(state, &hash, now).unwrap();
        assert_eq!(load(state, &hash, now).unwrap().len() as u64, len);
        len
    }

    #[test]
    fn what_setting_a_field_does_to_its_expiry() {
        let mut state = new_hash();
        assert_eq!(set(&mut state, Ttl::At(100), "a b", 0), 2);
        assert_eq!(soonest(&mut state), Some(100));
        assert_eq!(set(&mut state, Ttl::Keep, "a", 0), 0);
        assert_eq!(set(&mut state, Ttl::Clear, "b", 0), 0);
        let hash = handle(&mut state).unwrap();
        let expiry = |state: &mut Map, field: &str| get(state, &hash, field.as_bytes(), 50).unwrap().unwrap().expire_at;
        assert_eq!((expiry(&mut state, "a"), expiry(&mut state, "b")), (Some(100), None));
        // What has expired is a new field, and has no expiry to keep.
        assert_eq!(set(&mut state, Ttl::Keep, "a", 101), 1);
        assert_eq!((expiry(&mut state, "a"), soonest(&mut state), live(&mut state, 1000)), (None, None, 2));
    }

    #[test]
    fn a_field_lives_through_its_last_millisecond() {
        let mut state = new_hash();
        set(&mut state, Ttl::At(100), "a", 0);
        set(&mut state, Ttl::Clear, "b", 0);
        assert_eq!((live(&mut state, 100), live(&mut state, 101)), (2, 1));
        let hash = handle(&mut state).unwrap();
        assert_eq!(expired_fields(&mut state, &hash, 100, 10).unwrap(), [] as [Bytes; 0]);
        assert_eq!(expired_fields(&mut state, &hash, 101, 10).unwrap(), [name("a")]);
    }

    #[test]
    fn the_soonest_expiry_follows_every_change() {
        let mut state = new_hash();
        set(&mut state, Ttl::Clear, "z", 0);
        for (at, fields) in [(30, "c d"), (10, "a"), (20, "b")] {
            set(&mut state, Ttl::At(at), fields, 0);
        }
        assert_eq!(soonest(&mut state), Some(10));
        assert_eq!(apply(&mut state, Change::Persist(vec![name("a"), name("z")]), 0).count, 1);
        assert_eq!(soonest(&mut state), Some(20));
        apply(&mut state, Change::ExpireAt { at: 40, fields: vec![name("b")] }, 0);
        assert_eq!(soonest(&mut state), Some(30));
        apply(&mut state, Change::Del(vec![name("c")]), 0);
        assert_eq!(soonest(&mut state), Some(30));
        apply(&mut state, Change::Del(vec![name("d")]), 0);
        assert_eq!(soonest(&mut state), Some(40));
        assert!(!apply(&mut state, Change::ExpireAt { at: 40, fields: vec![name("b")] }, 0).changed);
    }

    #[test]
    fn the_expired_go_in_the_order_of_their_expiry_and_the_key_with_the_last() {
        let mut state = new_hash();
        for (at, field) in [(30, "c"), (10, "a"), (20, "b")] {
            set(&mut state, Ttl::At(at), field, 0);
        }
        let hash = handle(&mut state).unwrap();
        let first = expired_fields(&mut state, &hash, 25, 1).unwrap();
        assert_eq!(first, [name("a")]);
        // It had expired, so nobody loses a field.
        assert_eq!(apply(&mut state, Change::Del(first), 25), Outcome { changed: true, count: 0 });
        assert_eq!((soonest(&mut state), live(&mut state, 25)), (Some(20), 1));
        // The last live field: the expired one goes too.
        assert_eq!(apply(&mut state, Change::Del(vec![name("c")]), 25).count, 1);
        assert!(state.get(&KEY).unwrap().is_none());
    }

    #[test]
    fn a_hash_is_made_of_what_was_loaded() {
        let mut state = new_hash();
        set(&mut state, Ttl::Clear, "a b", 0);
        set(&mut state, Ttl::At(70), "c d", 0);
        set(&mut state, Ttl::At(50), "e", 0);
        set(&mut state, Ttl::At(5), "gone", 0);
        let hash = handle(&mut state).unwrap();
        let mut fields = load(&mut state, &hash, 10).unwrap();
        let mut copy = new_hash();
        for effect in refill::copy(&mut state, &hash, &KEY, 10).unwrap() {
            effect.apply(&mut copy, 10).unwrap();
        }
        let hash = handle(&mut copy).unwrap();
        let mut copied = load(&mut copy, &hash, 10).unwrap();
        fields.sort_by(|a, b| a.field.cmp(&b.field));
        copied.sort_by(|a, b| a.field.cmp(&b.field));
        assert_eq!((copied.len(), soonest(&mut copy)), (5, Some(50)));
        assert_eq!(copied, fields);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(Ttl, Vec<u8>),
        Del(Vec<u8>),
        ExpireAt(u64, Vec<u8>),
        Persist(Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let fields = || proptest::collection::vec(0u8..6, 1..4);
        let ttl = prop_oneof![Just(Ttl::Clear), Just(Ttl::Keep), (0u64..60).prop_map(Ttl::At)];
        prop_oneof![
            (ttl, fields()).prop_map(|(ttl, fields)| Step::Set(ttl, fields)),
            fields().prop_map(Step::Del),
            (0u64..60, fields()).prop_map(|(at, fields)| Step::ExpireAt(at, fields)),
            fields().prop_map(Step::Persist),
        ]
    }

    proptest! {
        /// Against a map of the live fields to their expiries, as time goes by.
        #[test]
        fn behaves_as_a_map_of_fields_that_expire(steps in proptest::collection::vec(step(), 1..40)) {
            let mut state = Map::default();
            let mut model: BTreeMap<Bytes, Option<u64>> = BTreeMap::new();
            for (now, step) in steps.into_iter().enumerate() {
                let now = now as u64;
                let names = |fields: &[u8]| fields.iter().map(|field| name(&field.to_string())).collect::<Vec<_>>();
                model.retain(|_, at| lives(*at, now));
                let before = model.clone();
                let change = match &step {
                    Step::Set(ttl, fields) => {
                        for field in names(fields) {
                            let kept = model.get(&field).copied().flatten();
                            let at = match ttl {
                                Ttl::Clear => None,
                                Ttl::Keep => kept,
                                Ttl::At(at) => Some(*at),
                            };
                            model.insert(field, at);
                        }
                        let pairs = names(fields).into_iter().map(|field| (field, name("v"))).collect();
                        Change::Set { ttl: *ttl, pairs }
                    }
                    Step::Del(fields) => {
                        names(fields).iter().for_each(|field| model.retain(|own, _| own != field));
                        Change::Del(names(fields))
                    }
                    Step::ExpireAt(at, fields) => {
                        for field in names(fields) {
                            model.entry(field).and_modify(|expiry| if lives(*expiry, now) { *expiry = Some(*at) });
                        }
                        Change::ExpireAt { at: *at, fields: names(fields) }
                    }
                    Step::Persist(fields) => {
                        for field in names(fields) {
                            model.entry(field).and_modify(|expiry| *expiry = None);
                        }
                        Change::Persist(names(fields))
                    }
                };
                if state.get(&KEY).unwrap().is_none() {
                    if !matches!(step, Step::Set(..)) {
                        prop_assert!(before.is_empty());
                        continue;
                    }
                    Effect::Create { key: KEY, kind: Kind::Hash, version: now + 1 }.apply(&mut state, now).unwrap();
                }
                apply(&mut state, change, now);
                model.retain(|_, at| lives(*at, now));
                let Some(hash) = handle(&mut state) else {
                    prop_assert!(model.is_empty());
                    continue;
                };
                let loaded = load(&mut state, &hash, now).unwrap();
                let loaded: BTreeMap<_, _> = loaded.into_iter().map(|field| (field.field, field.expire_at)).collect();
                prop_assert_eq!(&loaded, &model);
                prop_assert_eq!(live_len(&mut state, &hash, now).unwrap(), model.len() as u64);
                let expired = expired_fields(&mut state, &hash, now, usize::MAX).unwrap();
                prop_assert_eq!(expired.len() as u64 + model.len() as u64, hash.len());
                if expired.is_empty() {
                    prop_assert_eq!(soonest_expiry(&hash), model.values().flatten().min().copied());
                }
            }
        }
    }
}
