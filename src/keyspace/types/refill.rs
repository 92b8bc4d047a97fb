//! The changes that fill a new collection with what another one holds, or with given elements: for COPY, RENAME, MOVE, RESTORE, SORT … STORE.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Handle, blob, hash, list, set, stream, zset};
use crate::engine::Kind;
use crate::keyspace::effect::Read;
use crate::keyspace::{Effect, Error};
use crate::rdb::Stream;

/// Elements and bytes to a change: large enough that its frame costs nothing, small enough to be built without a large copy.
const MAX_ELEMENTS: usize = 1024;
const MAX_BYTES: usize = 1 << 20;

/// Gathers elements into changes of moderate size.
pub struct Refill<T> {
    gathered: Vec<T>,
    bytes: usize,
    effects: Vec<Effect>,
    make: Box<dyn Fn(Vec<T>) -> Effect>,
}

impl<T> Refill<T> {
    /// `make` turns elements into a change.
    pub fn new(make: impl Fn(Vec<T>) -> Effect + 'static) -> Refill<T> {
        Refill { gathered: Vec::new(), bytes: 0, effects: Vec::new(), make: Box::new(make) }
    }

    /// Adds an element of `bytes` bytes.
    pub fn push(&mut self, element: T, bytes: usize) {
        self.gathered.push(element);
        self.bytes += bytes;
        if self.gathered.len() >= MAX_ELEMENTS || self.bytes >= MAX_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.gathered.is_empty() {
            self.effects.push((self.make)(std::mem::take(&mut self.gathered)));
            self.bytes = 0;
        }
    }

    /// The changes, in the order of the elements.
    pub fn finish(mut self) -> Vec<Effect> {
        self.close();
        self.effects
    }
}

/// The list at `key` gets these elements at its end.
pub fn list(key: &Bytes, elements: impl IntoIterator<Item = Bytes>) -> Vec<Effect> {
    let key = key.clone();
    fill(elements, |e| e.len(), move |elements| Effect::List(key.clone(), list::Change::Push { left: false, elements }))
}

/// The set at `key` gets these members.
pub fn set(key: &Bytes, members: impl IntoIterator<Item = Bytes>) -> Vec<Effect> {
    let key = key.clone();
    fill(members, |m| m.len(), move |members| Effect::Members(key.clone(), set::Change::Add(members)))
}

/// The sorted set at `key` gets these members.
pub fn zset(key: &Bytes, pairs: impl IntoIterator<Item = (f64, Bytes)>) -> Vec<Effect> {
    let key = key.clone();
    fill(pairs, |(_, m)| m.len(), move |pairs| Effect::Zset(key.clone(), zset::Change::Add(pairs)))
}

/// The hash at `key` gets these fields. Those that expire at the same time stand together.
pub fn hash(key: &Bytes, fields: impl IntoIterator<Item = (Bytes, hash::Field)>) -> Vec<Effect> {
    let mut by_expiry: BTreeMap<Option<u64>, Refill<(Bytes, Bytes)>> = BTreeMap::new();
    for (name, field) in fields {
        let group = by_expiry.entry(field.expire_at).or_insert_with(|| {
            let (key, ttl) = (key.clone(), field.expire_at.map_or(hash::Ttl::Clear, hash::Ttl::At));
            Refill::new(move |pairs| Effect::Hash(key.clone(), hash::Change::Set { ttl, pairs }))
        });
        let bytes = name.len() + field.value.len();
        group.push((name, field.value), bytes);
    }
    by_expiry.into_values().flat_map(Refill::finish).collect()
}

/// The stream at `key`, which is empty, becomes this one.
pub fn stream(key: &Bytes, value: Stream) -> Vec<Effect> {
    stream::changes(value).into_iter().map(|change| Effect::Stream(key.clone(), change)).collect()
}

fn fill<T>(
    elements: impl IntoIterator<Item = T>,
    len: impl Fn(&T) -> usize,
    make: impl Fn(Vec<T>) -> Effect + 'static,
) -> Vec<Effect> {
    let mut refill = Refill::new(make);
    elements.into_iter().for_each(|element| {
        let bytes = len(&element);
        refill.push(element, bytes);
    });
    refill.finish()
}

/// What makes a new, empty collection at `to` equal to this one as it is at `now` (unix ms); without its expiry. Nothing for a hash of
/// which every field has expired: there is none.
pub fn copy(state: &mut dyn Read, from: &Handle, to: &Bytes, now: u64) -> Result<Vec<Effect>, Error> {
    let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    match from.kind {
        Kind::String => copy_string(state, from, to),
        Kind::Hash => {
            let mut fields = Vec::new();
            hash::each(state, from, now, &mut |name, field| {
                let value = own(field.value);
                fields.push((own(name), hash::Field { value, expire_at: field.expire_at }));
                true
            })?;
            Ok(hash(to, fields))
        }
        Kind::List => {
            let mut elements = Vec::new();
            list::each(state, from, 0, from.len(), false, &mut |_, element| {
                elements.push(own(element));
                true
            })?;
            Ok(list(to, elements))
        }
        Kind::Set => {
            let mut members = Vec::new();
            set::each(state, from, &mut |member| {
                members.push(own(member));
                true
            })?;
            Ok(set(to, members))
        }
        Kind::Zset => {
            let mut pairs = Vec::new();
            zset::each(state, from, &mut |member, score| {
                pairs.push((score, own(member)));
                true
            })?;
            Ok(zset(to, pairs))
        }
        Kind::Stream => Ok(stream(to, stream::load(state, from)?)),
    }
}

/// The parts that hold data, so that what is sparse stays sparse.
fn copy_string(state: &mut dyn Read, from: &Handle, to: &Bytes) -> Result<Vec<Effect>, Error> {
    let mut parts: Vec<(u64, Vec<u8>)> = Vec::new();
    blob::each(state, from, 0, from.len(), &mut |at, chunk| {
        match parts.last_mut() {
            Some((start, bytes)) if *start + bytes.len() as u64 == at && bytes.len() < MAX_BYTES => {
                bytes.extend_from_slice(chunk);
            }
            _ => parts.push((at, chunk.to_vec())),
        }
        true
    })?;
    let set = |(offset, bytes)| Effect::SetRange { key: to.clone(), offset, value: Bytes::from(bytes) };
    Ok(parts.into_iter().map(set).collect())
}
