//! Effects: what the records of a binlog say, and the one place where they change state.
//!
//! A client's command, a replica and recovery all end in [`Effect::apply`], so state is a function of the log. An
//! effect carries absolute values only, and is applied with its record's time as now. In the log it is a command
//! (docs/binlog.md lists them).

use std::ops::Range;

use bytes::Bytes;

use super::Error;
use super::types::{Handle, Outcome, blob, hash, list, set, stream, zset};
use crate::binlog::put_effect;
use crate::engine::{Collection, ElementRange, Entry, Found, Kind, Space};

/// One change to one slot.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// `SET key value [PXAT ms]`: the key holds this string now, whatever it held.
    Set {
        key: Bytes,
        value: Bytes,
        expire_at: Option<u64>,
    },
    /// `DEL key`
    Del {
        key: Bytes,
    },
    /// `PEXPIREAT key ms`
    ExpireAt {
        key: Bytes,
        at: u64,
    },
    /// `PERSIST key`
    Persist {
        key: Bytes,
    },
    /// `APPEND key suffix`: keeps the expiry.
    Append {
        key: Bytes,
        suffix: Bytes,
    },
    /// `SETRANGE key offset value`: zero padded, keeps the expiry.
    SetRange {
        key: Bytes,
        offset: u64,
        value: Bytes,
    },
    /// `CREATE key kind version`: the key holds an empty collection now, whatever it held. What fills it stands in the same record.
    Create {
        key: Bytes,
        kind: Kind,
        version: u64,
    },
    /// A change to the hash at a key, which exists; so for the other types.
    Hash(Bytes, hash::Change),
    List(Bytes, list::Change),
    /// A change to a set.
    Members(Bytes, set::Change),
    Zset(Bytes, zset::Change),
    Stream(Bytes, stream::Change),
    /// `CHUNK key version`: the string, or a missing one, stands in chunks from now on.
    Chunk {
        key: Bytes,
        version: u64,
    },
    /// `FUNCTIONS payload`: these are the node's libraries of functions now; empty = none. In the first slot of database 0, and no part of
    /// that database: FLUSHDB leaves them.
    Libraries {
        payload: Bytes,
    },
    /// `FLUSHDB`: the slot is empty now. Always a record of its own.
    Flush,
    /// `SWAPDB a b`: two of the clients' databases trade places. Always a record of its own, in the first slot's log.
    SwapDb {
        a: usize,
        b: usize,
    },
}

/// The key in whose place the libraries of functions are locked, and whose slot holds them: its hash slot is 0, so that it is the first
/// slot of a database however many there are. A key of this name is a key like any other.
pub static LIBRARIES_KEY: Bytes = Bytes::from_static(b"libraries{06S}");

/// A slot's state as commands read it, through the changes not yet written.
pub trait Read {
    /// The entry of a key, expired or not.
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error>;
    /// The value of an element.
    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;
    /// Adds the values of a list's elements at consecutive places to `found`, from the first on and as many as are had in one go; perhaps none. The
    /// key of each is `prefix` and the place, u64 big-endian. Not to be asked for many at a time: locks are held meanwhile.
    fn places(&mut self, _prefix: &[u8], _places: Range<u64>, _found: &mut Found) -> Result<(), Error> {
        Ok(())
    }
    /// The value of the element `key` of a list, the one at the first (`left`) or the last of its `places`, for somebody who takes it out and soon
    /// asks for the next. The key ends in the place, u64 big-endian. The stripe of the list's key must be held exclusively.
    fn end(&mut self, key: &[u8], _places: Range<u64>, _left: bool) -> Result<Option<Bytes>, Error> {
        self.element(Space::Data, key)
    }
    /// Calls `f` with the elements in a range until it returns false.
    fn elements(
        &mut self,
        space: Space,
        range: &ElementRange<'_>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error>;
}

/// State that effects are applied to.
pub trait State: Read {
    fn put(&mut self, key: Bytes, entry: Option<Entry>);
    fn put_element(&mut self, space: Space, key: Vec<u8>, value: Option<Bytes>);
    fn put_libraries(&mut self, payload: Bytes);
}

impl Effect {
    /// The key it changes; `None` for the whole slot.
    pub fn key(&self) -> Option<&Bytes> {
        match self {
            Effect::Set { key, .. }
            | Effect::Del { key }
            | Effect::ExpireAt { key, .. }
            | Effect::Persist { key }
            | Effect::Append { key, .. }
            | Effect::SetRange { key, .. }
            | Effect::Create { key, .. }
            | Effect::Chunk { key, .. }
            | Effect::Hash(key, _)
            | Effect::List(key, _)
            | Effect::Members(key, _)
            | Effect::Zset(key, _)
            | Effect::Stream(key, _) => Some(key),
            Effect::Libraries { .. } => Some(&LIBRARIES_KEY),
            Effect::Flush | Effect::SwapDb { .. } => None,
        }
    }

    /// Whether it is a record of its own, and carried out by the slot.
    pub fn stands_alone(&self) -> bool {
        matches!(self, Effect::Flush | Effect::SwapDb { .. })
    }

    /// Adds the effect to a record's body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        match self {
            Effect::Set { key, value, expire_at: None } => put_effect(body, &[b"SET", key, value]),
            Effect::Set { key, value, expire_at: Some(at) } => {
                put_effect(body, &[b"SET", key, value, b"PXAT", digits.format(*at).as_bytes()]);
            }
            Effect::Del { key } => put_effect(body, &[b"DEL", key]),
            Effect::ExpireAt { key, at } => put_effect(body, &[b"PEXPIREAT", key, digits.format(*at).as_bytes()]),
            Effect::Persist { key } => put_effect(body, &[b"PERSIST", key]),
            Effect::Append { key, suffix } => put_effect(body, &[b"APPEND", key, suffix]),
            Effect::SetRange { key, offset, value } => {
                put_effect(body, &[b"SETRANGE", key, digits.format(*offset).as_bytes(), value]);
            }
            Effect::Create { key, kind, version } => {
                put_effect(body, &[b"CREATE", key, kind.name().as_bytes(), digits.format(*version).as_bytes()]);
            }
            Effect::Chunk { key, version } => put_effect(body, &[b"CHUNK", key, digits.format(*version).as_bytes()]),
            Effect::Hash(key, change) => change.encode(key, body),
            Effect::List(key, change) => change.encode(key, body),
            Effect::Members(key, change) => change.encode(key, body),
            Effect::Zset(key, change) => change.encode(key, body),
            Effect::Libraries { payload } => put_effect(body, &[b"FUNCTIONS", payload]),
            Effect::Stream(key, change) => change.encode(key, body),
            Effect::Flush => put_effect(body, &[b"FLUSHDB"]),
            Effect::SwapDb { a, b } => {
                put_effect(body, &[b"SWAPDB", digits.format(*a).as_bytes(), itoa::Buffer::new().format(*b).as_bytes()]);
            }
        }
    }

    /// Reads an effect from its arguments, which are parts of `body`.
    pub fn decode(body: &Bytes, args: &[&[u8]]) -> Result<Effect, Error> {
        let own = |arg: &[u8]| body.slice_ref(arg);
        match args {
            [b"SET", key, value] => Ok(Effect::Set { key: own(key), value: own(value), expire_at: None }),
            [b"SET", key, value, b"PXAT", at] => {
                Ok(Effect::Set { key: own(key), value: own(value), expire_at: Some(number(args, at)?) })
            }
            [b"DEL", key] => Ok(Effect::Del { key: own(key) }),
            [b"PEXPIREAT", key, at] => Ok(Effect::ExpireAt { key: own(key), at: number(args, at)? }),
            [b"PERSIST", key] => Ok(Effect::Persist { key: own(key) }),
            [b"APPEND", key, suffix] => Ok(Effect::Append { key: own(key), suffix: own(suffix) }),
            [b"SETRANGE", key, offset, value] => {
                let offset = number(args, offset)?;
                // What no command may write, no record may make us allocate.
                if offset.saturating_add(value.len() as u64) > u64::from(crate::binlog::MAX_BODY_LEN) {
                    return Err(bad(args));
                }
                Ok(Effect::SetRange { key: own(key), offset, value: own(value) })
            }
            [b"CREATE", key, kind, version] => {
                let kind = Kind::from_name(kind).ok_or_else(|| bad(args))?;
                Ok(Effect::Create { key: own(key), kind, version: number(args, version)? })
            }
            [b"CHUNK", key, version] => Ok(Effect::Chunk { key: own(key), version: number(args, version)? }),
            [b"FUNCTIONS", payload] => Ok(Effect::Libraries { payload: own(payload) }),
            [b"FLUSHDB"] => Ok(Effect::Flush),
            [b"SWAPDB", a, b] => Ok(Effect::SwapDb { a: number(args, a)? as usize, b: number(args, b)? as usize }),
            [name, key, rest @ ..] => {
                let rest = rest.iter().map(|arg| own(arg)).collect();
                Effect::decode_change(name, own(key), rest).ok_or_else(|| bad(args))
            }
            _ => Err(bad(args)),
        }
    }

    /// Changes of collections are named so that the first letter tells the type.
    fn decode_change(name: &[u8], key: Bytes, rest: Vec<Bytes>) -> Option<Effect> {
        match name.first()? {
            b'H' => Some(Effect::Hash(key, hash::Change::decode(name, rest)?)),
            b'L' | b'R' => Some(Effect::List(key, list::Change::decode(name, rest)?)),
            b'S' => Some(Effect::Members(key, set::Change::decode(name, rest)?)),
            b'Z' => Some(Effect::Zset(key, zset::Change::decode(name, rest)?)),
            b'X' => Some(Effect::Stream(key, stream::Change::decode(name, rest)?)),
            _ => None,
        }
    }

    /// Changes `state`. `now` is the record's time (unix ms): what has expired by then does not exist.
    /// What stands alone is carried out by the slot and changes nothing here.
    pub fn apply(&self, state: &mut dyn State, now: u64) -> Result<Outcome, Error> {
        let changed = Outcome { changed: true, count: 1 };
        match self {
            Effect::Set { key, value, expire_at } => {
                state.put(key.clone(), Some(Entry::string(value.clone(), *expire_at)));
            }
            Effect::Del { key } => state.put(key.clone(), None),
            Effect::ExpireAt { key, at } => {
                if let Some(entry) = live(state, key, now)? {
                    state.put(key.clone(), Some(Entry { expire_at: Some(*at), ..entry }));
                }
            }
            Effect::Persist { key } => {
                if let Some(entry) = live(state, key, now)? {
                    state.put(key.clone(), Some(Entry { expire_at: None, ..entry }));
                }
            }
            Effect::Append { key, suffix } => change_string(state, key, now, None, suffix)?,
            Effect::SetRange { key, offset, value } => change_string(state, key, now, Some(*offset), value)?,
            Effect::Chunk { key, version } => {
                let entry = live(state, key, now)?;
                if let Some(entry) = entry.as_ref().filter(|e| e.has_elements()) {
                    return Err(Error::BadEffect(format!("chunking of a {}", entry.kind.name())));
                }
                blob::split(state, key, entry.as_ref(), *version)?;
            }
            Effect::Create { key, kind, version } => {
                let empty = Collection { version: *version, count: 0, extra: Bytes::new() };
                state.put(key.clone(), Some(Entry::collection(*kind, &empty, None)));
            }
            Effect::Hash(key, change) => return change.apply(&mut open(state, key, Kind::Hash, now)?, state, now),
            Effect::List(key, change) => return change.apply(&mut open(state, key, Kind::List, now)?, state),
            Effect::Members(key, change) => return change.apply(&mut open(state, key, Kind::Set, now)?, state),
            Effect::Zset(key, change) => return change.apply(&mut open(state, key, Kind::Zset, now)?, state),
            Effect::Libraries { payload } => state.put_libraries(payload.clone()),
            Effect::Stream(key, change) => return change.apply(&mut open(state, key, Kind::Stream, now)?, state),
            Effect::Flush | Effect::SwapDb { .. } => {}
        }
        Ok(changed)
    }
}

/// The collection of this kind that a change is about: it must be there.
fn open(state: &mut dyn State, key: &Bytes, kind: Kind, now: u64) -> Result<Handle, Error> {
    let entry = live(state, key, now)?;
    entry.filter(|e| e.kind == kind).and_then(|entry| Handle::of(key, &entry)).ok_or_else(|| {
        Error::BadEffect(format!("change of a {} that does not exist: {}", kind.name(), key.escape_ascii()))
    })
}

fn live(state: &mut dyn State, key: &Bytes, now: u64) -> Result<Option<Entry>, Error> {
    Ok(state.get(key)?.filter(|e| e.is_live(now)))
}

/// Writes into a string, or into a new empty one, at an offset or (`None`) its end, and keeps its expiry.
fn change_string(state: &mut dyn State, key: &Bytes, now: u64, offset: Option<u64>, bytes: &[u8]) -> Result<(), Error> {
    let entry = live(state, key, now)?;
    if let Some(mut handle) = entry.as_ref().and_then(|entry| Handle::of(key, entry)) {
        if handle.kind != Kind::String {
            return Err(Error::BadEffect(format!("string change of a {}", handle.kind.name())));
        }
        let offset = offset.unwrap_or(handle.len());
        return blob::write(state, &mut handle, offset, bytes);
    }
    let (mut value, expire_at) = entry.map_or((Vec::new(), None), |entry| (Vec::from(entry.value), entry.expire_at));
    let start = offset.map_or(value.len(), |offset| offset as usize);
    let end = start + bytes.len();
    if value.len() < end {
        value.resize(end, 0);
    }
    value[start..end].copy_from_slice(bytes);
    state.put(key.clone(), Some(Entry::string(value.into(), expire_at)));
    Ok(())
}

fn number(args: &[&[u8]], digits: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(digits).ok().and_then(|s| s.parse().ok()).ok_or_else(|| bad(args))
}

fn bad(args: &[&[u8]]) -> Error {
    let shown: Vec<String> = args.iter().take(5).map(|a| a[..a.len().min(32)].escape_ascii().to_string()).collect();
    Error::BadEffect(shown.join(" "))
}

/// State in memory, for tests.
#[cfg(test)]
pub mod test_state {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    /// Entries and elements.
    #[derive(Default)]
    pub struct Map(pub HashMap<Bytes, Entry>, pub BTreeMap<(Space, Vec<u8>), Bytes>);

    impl Read for Map {
        fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
            Ok(self.0.get(key).cloned())
        }
        fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
            Ok(self.1.get(&(space, key.to_vec())).cloned())
        }
        fn elements(
            &mut self,
            space: Space,
            range: &ElementRange<'_>,
            f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), Error> {
            let found = self.1.range((space, range.lower.to_vec())..(space, range.upper.to_vec()));
            let mut found: Vec<_> = found.collect();
            if range.reverse {
                found.reverse();
            }
            found.into_iter().all(|((_, key), value)| f(key, value));
            Ok(())
        }
    }

    impl State for Map {
        fn put_element(&mut self, space: Space, key: Vec<u8>, value: Option<Bytes>) {
            match value {
                Some(value) => self.1.insert((space, key), value),
                None => self.1.remove(&(space, key)),
            };
        }
        fn put_libraries(&mut self, _: Bytes) {}
        fn put(&mut self, key: Bytes, entry: Option<Entry>) {
            match entry {
                Some(entry) => self.0.insert(key, entry),
                None => self.0.remove(&key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test_state::Map;
    use super::*;
    use crate::binlog::{Draft, Position, RunDecoder, decode_body};
    use crate::rdb::StreamId;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn some() -> impl Strategy<Value = Vec<Bytes>> {
        proptest::collection::vec(bytes(), 1..4)
    }

    fn hash_change() -> impl Strategy<Value = hash::Change> {
        let ttl = prop_oneof![Just(hash::Ttl::Clear), Just(hash::Ttl::Keep), any::<u64>().prop_map(hash::Ttl::At)];
        prop_oneof![
            (ttl, proptest::collection::vec((bytes(), bytes()), 1..4))
                .prop_map(|(ttl, pairs)| hash::Change::Set { ttl, pairs }),
            some().prop_map(hash::Change::Del),
            (any::<u64>(), some()).prop_map(|(at, fields)| hash::Change::ExpireAt { at, fields }),
            some().prop_map(hash::Change::Persist),
        ]
    }

    fn list_change() -> impl Strategy<Value = list::Change> {
        prop_oneof![
            (any::<bool>(), some()).prop_map(|(left, elements)| list::Change::Push { left, elements }),
            (any::<bool>(), any::<u64>()).prop_map(|(left, count)| list::Change::Pop { left, count }),
            (any::<u64>(), bytes()).prop_map(|(index, element)| list::Change::Set { index, element }),
            (any::<u64>(), bytes()).prop_map(|(index, element)| list::Change::Insert { index, element }),
            proptest::collection::vec(any::<u64>(), 1..4).prop_map(list::Change::Remove),
            (any::<u64>(), any::<u64>()).prop_map(|(first, last)| list::Change::Trim { first, last }),
        ]
    }

    fn id() -> impl Strategy<Value = StreamId> {
        any::<(u64, u64)>().prop_map(|(ms, seq)| StreamId { ms, seq })
    }

    fn ids() -> impl Strategy<Value = Vec<StreamId>> {
        proptest::collection::vec(id(), 1..4)
    }

    /// Of what may be unknown: all ones stand for that.
    fn known() -> impl Strategy<Value = Option<u64>> {
        proptest::option::of(0..u64::MAX)
    }

    fn stream_change() -> impl Strategy<Value = stream::Change> {
        use stream::{Change, Claim};
        let claim = (id(), any::<u64>(), any::<u64>()).prop_map(|(id, time, count)| Claim { id, time, count });
        prop_oneof![
            (id(), any::<bool>(), proptest::collection::vec((bytes(), bytes()), 1..4)).prop_map(
                |(id, opens_node, pairs)| {
                    let elements = pairs.into_iter().flat_map(|(field, value)| [field, value]).collect();
                    Change::Add { id, opens_node, elements }
                }
            ),
            ids().prop_map(Change::Del),
            id().prop_map(|through| Change::Trim { through }),
            (id(), any::<u64>(), id()).prop_map(|(last_id, entries_added, max_deleted_id)| Change::SetId {
                last_id,
                entries_added,
                max_deleted_id
            }),
            (bytes(), id(), known()).prop_map(|(name, last_id, entries_read)| Change::Group {
                name,
                last_id,
                entries_read
            }),
            bytes().prop_map(Change::DestroyGroup),
            (bytes(), bytes(), any::<u64>(), known()).prop_map(|(group, name, seen, active)| Change::Consumer {
                group,
                name,
                seen,
                active
            }),
            (bytes(), bytes()).prop_map(|(group, name)| Change::DelConsumer { group, name }),
            (bytes(), bytes(), proptest::collection::vec(claim, 1..4))
                .prop_map(|(group, consumer, claims)| Change::Claim { group, consumer, claims }),
            (bytes(), ids()).prop_map(|(group, ids)| Change::Ack { group, ids }),
        ]
    }

    fn effect() -> impl Strategy<Value = Effect> {
        prop_oneof![
            (bytes(), bytes(), any::<Option<u64>>()).prop_map(|(key, value, expire_at)| Effect::Set {
                key,
                value,
                expire_at
            }),
            bytes().prop_map(|key| Effect::Del { key }),
            (bytes(), any::<u64>()).prop_map(|(key, at)| Effect::ExpireAt { key, at }),
            bytes().prop_map(|key| Effect::Persist { key }),
            (bytes(), bytes()).prop_map(|(key, suffix)| Effect::Append { key, suffix }),
            (bytes(), 0u64..1000, bytes()).prop_map(|(key, offset, value)| Effect::SetRange { key, offset, value }),
            Just(Effect::Flush),
            (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Effect::SwapDb { a, b }),
            bytes().prop_map(|payload| Effect::Libraries { payload }),
            (bytes(), any::<u64>()).prop_map(|(key, version)| Effect::Create { key, kind: Kind::Zset, version }),
            (bytes(), any::<u64>()).prop_map(|(key, version)| Effect::Chunk { key, version }),
            (bytes(), hash_change()).prop_map(|(key, change)| Effect::Hash(key, change)),
            (bytes(), list_change()).prop_map(|(key, change)| Effect::List(key, change)),
            (bytes(), stream_change()).prop_map(|(key, change)| Effect::Stream(key, change)),
            (bytes(), some()).prop_map(|(key, members)| Effect::Members(key, set::Change::Add(members))),
            (bytes(), some()).prop_map(|(key, members)| Effect::Members(key, set::Change::Remove(members))),
            (bytes(), proptest::collection::vec((proptest::num::f64::NORMAL, bytes()), 1..4))
                .prop_map(|(key, pairs)| Effect::Zset(key, zset::Change::Add(pairs))),
            (bytes(), some()).prop_map(|(key, members)| Effect::Zset(key, zset::Change::Remove(members))),
        ]
    }

    proptest! {
        #[test]
        fn round_trips_through_a_record(effects in proptest::collection::vec(effect(), 1..6)) {
            let mut draft = Draft::new(7);
            effects.iter().for_each(|e| e.encode(draft.effects()));
            let mut run = Vec::new();
            draft.encode(1, &mut { Position::START }, &mut run);
            let record = RunDecoder::new(&run, Position::START).next().unwrap().unwrap();
            let body = Bytes::copy_from_slice(record.body);
            let (_, mut iter) = decode_body(&body).unwrap();
            let (mut args, mut decoded) = (Vec::new(), Vec::new());
            while iter.next_into(&mut args) == Some(true) {
                decoded.push(Effect::decode(&body, &args).unwrap());
            }
            prop_assert_eq!(decoded, effects);
        }
    }

    #[test]
    fn the_records_time_decides_what_is_expired() {
        let key = Bytes::from_static(b"k");
        let append = Effect::Append { key: key.clone(), suffix: Bytes::from_static(b"+") };
        for (now, value, expire_at) in [(100, "v+", Some(100)), (101, "+", None)] {
            let mut state = Map::default();
            state.put(key.clone(), Some(Entry::string(Bytes::from_static(b"v"), Some(100))));
            append.apply(&mut state, now).unwrap();
            assert_eq!(state.0[&key], Entry::string(Bytes::from(value), expire_at));
        }
    }

    proptest! {
        #[test]
        fn a_string_in_chunks_is_the_string(
            split_at in 0usize..4,
            writes in proptest::collection::vec((0u64..5000, proptest::collection::vec(any::<u8>(), 0..3000)), 4),
            from in 0u64..9000,
            len in 0u64..9000,
        ) {
            let key = Bytes::from_static(b"k");
            let (mut whole, mut chunked) = (Map::default(), Map::default());
            for (nth, (offset, bytes)) in writes.into_iter().enumerate() {
                if nth == split_at {
                    Effect::Chunk { key: key.clone(), version: 9 }.apply(&mut chunked, 0).unwrap();
                }
                let value = Bytes::from(bytes);
                let effect = match offset % 3 {
                    0 => Effect::Append { key: key.clone(), suffix: value },
                    _ => Effect::SetRange { key: key.clone(), offset, value },
                };
                effect.apply(&mut whole, 0).unwrap();
                effect.apply(&mut chunked, 0).unwrap();
            }
            let expected = whole.0[&key].value.clone();
            let blob = blob::Blob::of(&key, &chunked.0[&key]);
            prop_assert_eq!(blob.len(), expected.len() as u64);
            prop_assert_eq!(&blob.whole(&mut chunked).unwrap(), &expected);
            let (start, end) = (expected.len().min(from as usize), expected.len().min((from + len) as usize));
            prop_assert_eq!(&blob.range(&mut chunked, from, from + len).unwrap(), &expected[start..end]);
            let mut fed = Vec::new();
            if let blob::Blob::Chunked(handle) = &blob {
                super::super::types::digest(&mut chunked, handle, &mut |bytes| fed.extend_from_slice(bytes)).unwrap();
                prop_assert_eq!(fed, expected);
            }
        }
    }

    #[test]
    fn set_range_pads_with_zeros() {
        let key = Bytes::from_static(b"k");
        let mut state = Map::default();
        let patch = Bytes::from_static(b"ab");
        Effect::SetRange { key: key.clone(), offset: 2, value: patch }.apply(&mut state, 0).unwrap();
        assert_eq!(state.0[&key].value.as_ref(), b"\0\0ab");
    }
}
