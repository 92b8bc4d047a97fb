//! Hash commands.

mod counters;
mod expire;
mod random;

use bytes::Bytes;

use super::elements::{self, read_whole};
use super::keys::object;
use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::keyspace::types::Handle;
use crate::keyspace::types::hash::{self, Change, Field, FieldRef, Ttl};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW_FAST: Flags = WRITE_FAST.and(Flags::DENYOOM);

/// The family's part of the command table.
pub static HASH: &[Spec] = &[
    Spec {
        name: "hdel",
        arity: -3,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of fields named.",
        summary: "Removes fields from a hash; one without fields is no more.",
        usage: "key field [field ...]",
        handler: hdel,
        ..BASE
    },
    Spec {
        name: "hexists",
        arity: 3,
        flags: READ_FAST,
        summary: "Tells whether a hash has a field.",
        usage: "key field",
        handler: hexists,
        ..BASE
    },
    Spec {
        name: "hexpire",
        arity: -6,
        flags: GROW_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Lets fields of a hash expire after some seconds.",
        usage: "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        handler: expire::hexpire,
        ..BASE
    },
    Spec {
        name: "hexpireat",
        arity: -6,
        flags: GROW_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Lets fields of a hash expire at a unix time in seconds.",
        usage: "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        handler: expire::hexpireat,
        ..BASE
    },
    Spec {
        name: "hexpiretime",
        arity: -5,
        flags: READ_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Answers the unix times, in seconds, at which fields of a hash expire.",
        usage: "key FIELDS numfields field [field ...]",
        handler: expire::hexpiretime,
        ..BASE
    },
    Spec {
        name: "hget",
        arity: 3,
        flags: READ_FAST,
        summary: "Answers the value of a field of a hash.",
        usage: "key field",
        handler: hget,
        ..BASE
    },
    Spec {
        name: "hgetall",
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of fields.",
        summary: "Answers all fields of a hash with their values.",
        usage: "key",
        handler: hgetall,
        ..BASE
    },
    Spec {
        name: "hincrby",
        arity: 4,
        flags: GROW_FAST,
        summary: "Adds a number to the integer in a field of a hash; a missing field counts as 0.",
        usage: "key field increment",
        handler: counters::hincrby,
        ..BASE
    },
    Spec {
        name: "hincrbyfloat",
        arity: 4,
        flags: GROW_FAST,
        since: "2.6.0",
        summary: "Adds a decimal number to that in a field of a hash; a missing field counts as 0.",
        usage: "key field increment",
        handler: counters::hincrbyfloat,
        ..BASE
    },
    Spec {
        name: "hkeys",
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of fields.",
        summary: "Answers all fields of a hash.",
        usage: "key",
        handler: hkeys,
        ..BASE
    },
    Spec {
        name: "hlen",
        arity: 2,
        flags: READ_FAST,
        complexity: "O(1), and O(N) of the fields that have expired and were not removed yet.",
        summary: "Answers how many fields a hash has.",
        usage: "key",
        handler: hlen,
        ..BASE
    },
    Spec {
        name: "hmget",
        arity: -3,
        flags: READ_FAST,
        complexity: "O(N), N being the number of fields named.",
        summary: "Answers the values of several fields of a hash.",
        usage: "key field [field ...]",
        handler: hmget,
        ..BASE
    },
    Spec {
        name: "hmset",
        arity: -4,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of fields set.",
        summary: "Sets fields of a hash, which it creates when there is none.",
        usage: "key field value [field value ...]",
        handler: hmset,
        ..BASE
    },
    Spec {
        name: "hpersist",
        arity: -5,
        flags: WRITE_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Lets fields of a hash expire no more.",
        usage: "key FIELDS numfields field [field ...]",
        handler: expire::hpersist,
        ..BASE
    },
    Spec {
        name: "hpexpire",
        arity: -6,
        flags: GROW_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Lets fields of a hash expire after some milliseconds.",
        usage: "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        handler: expire::hpexpire,
        ..BASE
    },
    Spec {
        name: "hpexpireat",
        arity: -6,
        flags: GROW_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Lets fields of a hash expire at a unix time in milliseconds.",
        usage: "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]",
        handler: expire::hpexpireat,
        ..BASE
    },
    Spec {
        name: "hpexpiretime",
        arity: -5,
        flags: READ_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Answers the unix times, in milliseconds, at which fields of a hash expire.",
        usage: "key FIELDS numfields field [field ...]",
        handler: expire::hpexpiretime,
        ..BASE
    },
    Spec {
        name: "hpttl",
        arity: -5,
        flags: READ_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Answers in how many milliseconds fields of a hash expire.",
        usage: "key FIELDS numfields field [field ...]",
        handler: expire::hpttl,
        ..BASE
    },
    Spec {
        name: "hrandfield",
        arity: -2,
        flags: READ,
        since: "6.2.0",
        complexity: "O(N), N being the number of fields answered; at least some hundred.",
        summary: "Answers random fields of a hash.",
        usage: "key [count [WITHVALUES]]",
        handler: random::hrandfield,
        ..BASE
    },
    Spec {
        name: "hscan",
        arity: -3,
        flags: READ,
        since: "2.8.0",
        complexity: "O(COUNT) for every call, O(N) for a whole iteration over N fields.",
        summary: "Answers the fields of a hash with their values, a few at a time.",
        usage: "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
        handler: hscan,
        ..BASE
    },
    Spec {
        name: "hset",
        arity: -4,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of fields set.",
        summary: "Sets fields of a hash, which it creates when there is none.",
        usage: "key field value [field value ...]",
        handler: hset,
        ..BASE
    },
    Spec {
        name: "hsetnx",
        arity: 4,
        flags: GROW_FAST,
        summary: "Sets a field of a hash, provided that it has no such field.",
        usage: "key field value",
        handler: hsetnx,
        ..BASE
    },
    Spec {
        name: "hstrlen",
        arity: 3,
        flags: READ_FAST,
        since: "3.2.0",
        summary: "Answers how many bytes the value of a field of a hash has.",
        usage: "key field",
        handler: hstrlen,
        ..BASE
    },
    Spec {
        name: "httl",
        arity: -5,
        flags: READ_FAST,
        since: "7.4.0",
        complexity: "O(N), N being the number of fields named.",
        summary: "Answers in how many seconds fields of a hash expire.",
        usage: "key FIELDS numfields field [field ...]",
        handler: expire::httl,
        ..BASE
    },
    Spec {
        name: "hvals",
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of fields.",
        summary: "Answers the values of all fields of a hash.",
        usage: "key",
        handler: hvals,
        ..BASE
    },
];

/// What most hash commands have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::ONE,
    group: Group::Hash,
    since: "2.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: hlen,
    subcommands: &[],
};

/// The field of a hash for a command that goes on to change it; also whether there is a hash.
fn peek_field(ctx: &mut Ctx<'_, '_>, key: &Bytes, field: &[u8]) -> Result<(bool, Option<Field>), CommandError> {
    let now = ctx.now;
    match ctx.peek_collection(key, Kind::Hash)? {
        Some(hash) => Ok((true, hash::get(&mut ctx.reader(key), &hash, field, now)?)),
        None => Ok((false, None)),
    }
}

/// Sets fields of the hash at `key`, which is made if there is none; how many are new.
fn set(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    exists: bool,
    ttl: Ttl,
    pairs: Vec<(Bytes, Bytes)>,
    event: &'static str,
) -> Result<u64, CommandError> {
    if !exists {
        ctx.create_if_missing(key, Kind::Hash)?;
    }
    let created = ctx.apply(Effect::Hash(key.clone(), Change::Set { ttl, pairs }))?.count;
    ctx.notify(EventClass::Hash, event, key);
    Ok(created)
}

/// Removes fields of the hash at `key`, which there is; how many are gone that had not expired.
fn remove(ctx: &mut Ctx<'_, '_>, key: &Bytes, fields: Vec<Bytes>) -> Result<u64, CommandError> {
    let outcome = ctx.apply(Effect::Hash(key.clone(), Change::Del(fields)))?;
    if outcome.count > 0 {
        ctx.notify(EventClass::Hash, "hdel", key);
    }
    if outcome.changed && ctx.peek(key)?.is_none() {
        ctx.notify(EventClass::Generic, "del", key);
    }
    Ok(outcome.count)
}

fn set_several(ctx: &mut Ctx<'_, '_>, args: &[Bytes], command: &str) -> Result<u64, CommandError> {
    let (pairs, []) = args[2..].as_chunks::<2>() else { return Err(CommandError::Arity(command.to_owned())) };
    ctx.heavy(pairs.len() as u64)?;
    let pairs = pairs.iter().map(|[field, value]| (field.clone(), value.clone())).collect();
    let exists = ctx.peek_collection(&args[1], Kind::Hash)?.is_some();
    set(ctx, &args[1], exists, Ttl::Clear, pairs, "hset")
}

/// HSET key field value [field value ...]
fn hset(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let created = set_several(ctx, args, "hset")?;
    ctx.reply.int(created as i64);
    Ok(())
}

/// HMSET key field value [field value ...]
fn hmset(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_several(ctx, args, "hmset")?;
    ctx.reply.ok();
    Ok(())
}

/// HSETNX key field value
fn hsetnx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, field, value) = (&args[1], &args[2], &args[3]);
    let (exists, old) = peek_field(ctx, key, field)?;
    if old.is_none() {
        set(ctx, key, exists, Ttl::Clear, vec![(field.clone(), value.clone())], "hset")?;
    }
    ctx.reply.int(i64::from(old.is_none()));
    Ok(())
}

/// HDEL key field [field ...]
fn hdel(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let removed = match ctx.peek_collection(&args[1], Kind::Hash)? {
        Some(_) => remove(ctx, &args[1], args[2..].to_vec())?,
        None => 0,
    };
    ctx.reply.int(removed as i64);
    Ok(())
}

/// The live field of a hash for a command that reads; counts a keyspace hit or miss.
fn read_field(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<Option<Field>, CommandError> {
    let now = ctx.now;
    match ctx.read_collection(&args[1], Kind::Hash)? {
        Some(hash) => Ok(hash::get(&mut ctx.reader(&args[1]), &hash, &args[2], now)?),
        None => Ok(None),
    }
}

/// HGET key field
fn hget(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    match read_field(ctx, args)? {
        Some(field) => ctx.reply.bulk(&field.value),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// HEXISTS key field
fn hexists(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let found = read_field(ctx, args)?.is_some();
    ctx.reply.int(i64::from(found));
    Ok(())
}

/// HSTRLEN key field
fn hstrlen(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let len = read_field(ctx, args)?.map_or(0, |field| field.value.len());
    ctx.reply.int(len as i64);
    Ok(())
}

/// HMGET key field [field ...]
fn hmget(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, now) = (&args[1], ctx.now);
    ctx.heavy(args.len() as u64)?;
    let hash = ctx.read_collection(key, Kind::Hash)?;
    ctx.reply.array(args.len() - 2);
    for field in &args[2..] {
        let found = match &hash {
            Some(hash) => hash::get(&mut ctx.reader(key), hash, field, now)?,
            None => None,
        };
        match found {
            Some(field) => ctx.reply.bulk(&field.value),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

/// HLEN key
///
/// Fields that have expired are not counted, though Redis does count them until it has removed them.
fn hlen(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let now = ctx.now;
    let len = match ctx.read_collection(&args[1], Kind::Hash)? {
        Some(hash) => hash::live_len(&mut ctx.reader(&args[1]), &hash, now)?,
        None => 0,
    };
    ctx.reply.int(len as i64);
    Ok(())
}

/// What HGETALL, HKEYS and HVALS answer of each field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Both,
    Name,
    Value,
}

impl Part {
    fn header(self, ctx: &mut Ctx<'_, '_>, fields: usize) {
        match self {
            Part::Both => ctx.reply.map(fields),
            Part::Name | Part::Value => ctx.reply.array(fields),
        }
    }
}

fn answer_all(ctx: &mut Ctx<'_, '_>, key: &Bytes, part: Part) -> Result<(), CommandError> {
    let Some(hash) = read_whole(ctx, key, Kind::Hash)? else {
        part.header(ctx, 0);
        return Ok(());
    };
    if hash::all_live(&hash, ctx.now) {
        part.header(ctx, hash.len() as usize);
        return answer_fields(ctx, &hash, part);
    }
    // How many fields are left is known once they are read.
    let now = ctx.now;
    let fields = hash::load(&mut ctx.reader(key), &hash, now)?;
    part.header(ctx, fields.len());
    for field in fields {
        if part != Part::Value {
            ctx.reply.bulk(&field.field);
        }
        if part != Part::Name {
            ctx.reply.bulk(&field.value);
        }
    }
    Ok(())
}

fn answer_fields(ctx: &mut Ctx<'_, '_>, hash: &Handle, part: Part) -> Result<(), CommandError> {
    let (db, now, reply) = (ctx.db(), ctx.now, &mut *ctx.reply);
    ctx.tx.read_last(db, &hash.key, |reader| {
        hash::each(reader, hash, now, &mut |name, field| {
            if part != Part::Value {
                reply.bulk(name);
            }
            if part != Part::Name {
                reply.bulk(field.value);
            }
            true
        })
    })?;
    Ok(())
}

/// HGETALL key
fn hgetall(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer_all(ctx, &args[1], Part::Both)
}

/// HKEYS key
fn hkeys(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer_all(ctx, &args[1], Part::Name)
}

/// HVALS key
fn hvals(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer_all(ctx, &args[1], Part::Value)
}

/// HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]
fn hscan(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some((hash, cursor, options)) = elements::open_scan(ctx, args, Kind::Hash)? else { return Ok(()) };
    let whole = object::is_compact(ctx, &hash)?;
    let (now, mut found, mut malformed) = (ctx.now, Vec::new(), None);
    let next = elements::scan(ctx, &hash, cursor, &options, whole, &mut |name, value| match FieldRef::decode(value) {
        Ok(field) if field.is_live(now) => {
            found.push(Bytes::copy_from_slice(name));
            if !options.novalues {
                found.push(Bytes::copy_from_slice(field.value));
            }
        }
        Ok(_) => {}
        Err(error) => malformed = Some(error),
    })?;
    if let Some(error) = malformed {
        return Err(error.into());
    }
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(found.len());
    found.iter().for_each(|part| ctx.reply.bulk(part));
    Ok(())
}
