//! Whole values of any type: copied to another key, read into memory, written from there.

use bytes::Bytes;

use crate::command::{CommandError, Ctx};
use crate::keyspace::types::blob::{self, Blob};
use crate::keyspace::types::{Handle, hash, list, refill, set, stream, zset};
use crate::keyspace::{Effect, Entry, Kind};
use crate::rdb::{HashField, Value};

/// Where a value is: database and key.
pub type Place<'k> = (usize, &'k Bytes);

/// Makes `to` hold what the entry of `from` stands for, its expiry too, whatever was there. The value costs memory until the
/// write is committed.
pub fn copy_value(ctx: &mut Ctx<'_, '_>, from: Place<'_>, entry: &Entry, to: Place<'_>) -> Result<(), CommandError> {
    let Some(handle) = Handle::of(from.1, entry) else {
        return Ok(ctx.tx.set(to.0, to.1, entry.value.clone(), entry.expire_at, ctx.now)?);
    };
    ctx.heavy(weight(&handle))?;
    let effects = refill::copy(&mut ctx.tx.reader(from.0, from.1), &handle, to.1, ctx.now)?;
    fill(ctx, to, handle.kind, effects, entry.expire_at)
}

/// Makes a key hold what these changes make of an empty value; nothing if there are none.
pub fn fill(
    ctx: &mut Ctx<'_, '_>,
    (db, key): Place<'_>,
    kind: Kind,
    effects: Vec<Effect>,
    expire_at: Option<u64>,
) -> Result<(), CommandError> {
    if (kind == Kind::String || effects.is_empty()) && ctx.tx.get(db, key, ctx.now)?.is_some() {
        ctx.tx.del(db, key, ctx.now)?;
    }
    if effects.is_empty() {
        return Ok(());
    }
    match kind {
        Kind::String => ctx.tx.chunk(db, key, ctx.now)?,
        _ => ctx.tx.create(db, key, kind, ctx.now)?,
    }
    for effect in effects {
        ctx.tx.apply(db, effect, ctx.now)?;
    }
    if let Some(at) = expire_at {
        ctx.tx.expire_at(db, key, at, ctx.now)?;
    }
    Ok(())
}

/// Elements, or what costs as much, that a command goes through with this value.
pub fn weight(handle: &Handle) -> u64 {
    if handle.kind == Kind::String { handle.len() / blob::CHUNK } else { handle.len() }
}

/// All of a value; `None` for a hash of which every field has expired.
pub fn load(ctx: &mut Ctx<'_, '_>, (db, key): Place<'_>, entry: &Entry) -> Result<Option<Value>, CommandError> {
    let Some(handle) = Handle::of(key, entry) else { return Ok(Some(Value::String(entry.value.clone()))) };
    ctx.heavy(weight(&handle))?;
    let now = ctx.now;
    let reader = &mut ctx.tx.reader(db, key);
    Ok(Some(match handle.kind {
        Kind::String => Value::String(Blob::Chunked(handle).whole(reader)?),
        Kind::List => Value::List(list::range(reader, &handle, 0, handle.len())?),
        Kind::Set => Value::Set(set::load(reader, &handle)?),
        Kind::Zset => {
            let mut pairs = Vec::new();
            // Not by score: there -0 is 0.
            zset::each(reader, &handle, &mut |member, score| {
                pairs.push((Bytes::copy_from_slice(member), score));
                true
            })?;
            Value::Zset(pairs)
        }
        Kind::Hash => match hash::load(reader, &handle, now)? {
            fields if fields.is_empty() => return Ok(None),
            fields => Value::Hash(fields),
        },
        Kind::Stream => Value::Stream(stream::load(reader, &handle)?),
    }))
}

/// Makes a key hold this value, whatever was there. Fields that have expired are left out.
pub fn store(
    ctx: &mut Ctx<'_, '_>,
    (db, key): Place<'_>,
    value: Value,
    expire_at: Option<u64>,
) -> Result<(), CommandError> {
    let now = ctx.now;
    let (kind, effects) = match value {
        Value::String(bytes) => return Ok(ctx.tx.set(db, key, bytes, expire_at, now)?),
        Value::List(elements) => (Kind::List, refill::list(key, elements)),
        Value::Set(members) => (Kind::Set, refill::set(key, members)),
        Value::Zset(pairs) => (Kind::Zset, refill::zset(key, pairs.into_iter().map(|(member, score)| (score, member)))),
        Value::Hash(fields) => {
            let fields = fields.into_iter().filter(|field| field.expire_at.is_none_or(|at| now <= at));
            let field = |f: HashField| (f.field, hash::Field { value: f.value, expire_at: f.expire_at });
            (Kind::Hash, refill::hash(key, fields.map(field)))
        }
        Value::Stream(value) => (Kind::Stream, refill::stream(key, value)),
    };
    fill(ctx, (db, key), kind, effects, expire_at)
}
