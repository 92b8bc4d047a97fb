//! Set commands.

mod algebra;
mod random;

use bytes::Bytes;

use super::elements::{self, read_whole};
use super::keys::object;
use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::keyspace::types::set::{self, Change};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const GROW: Flags = WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);

/// The family's part of the command table.
pub static SET: &[Spec] = &[
    Spec {
        name: "sadd",
        arity: -3,
        flags: GROW_FAST,
        complexity: "O(N), N being the number of members added.",
        summary: "Adds members to a set, which it creates when there is none.",
        usage: "key member [member ...]",
        handler: sadd,
        ..BASE
    },
    Spec {
        name: "scard",
        arity: 2,
        flags: READ_FAST,
        summary: "Answers how many members a set has.",
        usage: "key",
        handler: scard,
        ..BASE
    },
    Spec {
        name: "sdiff",
        arity: -2,
        flags: READ,
        keys: Keys::ALL,
        complexity: "O(N), N being the members of all sets.",
        summary: "Answers the members of the first set that are in none of the others.",
        usage: "key [key ...]",
        handler: algebra::sdiff,
        ..BASE
    },
    Spec {
        name: "sdiffstore",
        arity: -3,
        flags: GROW,
        keys: Keys::ALL,
        complexity: "O(N), N being the members of all sets.",
        summary: "Stores the members of the first set that are in none of the others.",
        usage: "destination key [key ...]",
        handler: algebra::sdiffstore,
        ..BASE
    },
    Spec {
        name: "sinter",
        arity: -2,
        flags: READ,
        keys: Keys::ALL,
        complexity: "O(N*M) at worst, N being the members of the smallest set and M the number of sets.",
        summary: "Answers the members that all sets have.",
        usage: "key [key ...]",
        handler: algebra::sinter,
        ..BASE
    },
    Spec {
        name: "sintercard",
        arity: -3,
        flags: READ.and(Flags::MOVABLE_KEYS),
        keys: Keys::Find(algebra::keys_of_sintercard),
        since: "7.0.0",
        complexity: "O(N*M) at worst, N being the members of the smallest set and M the number of sets.",
        summary: "Counts the members that all sets have, up to a limit.",
        usage: "numkeys key [key ...] [LIMIT limit]",
        handler: algebra::sintercard,
        ..BASE
    },
    Spec {
        name: "sinterstore",
        arity: -3,
        flags: GROW,
        keys: Keys::ALL,
        complexity: "O(N*M) at worst, N being the members of the smallest set and M the number of sets.",
        summary: "Stores the members that all sets have.",
        usage: "destination key [key ...]",
        handler: algebra::sinterstore,
        ..BASE
    },
    Spec {
        name: "sismember",
        arity: 3,
        flags: READ_FAST,
        summary: "Tells whether a set has a member.",
        usage: "key member",
        handler: sismember,
        ..BASE
    },
    Spec {
        name: "smembers",
        arity: 2,
        flags: READ,
        complexity: "O(N), N being the number of members.",
        summary: "Answers all members of a set.",
        usage: "key",
        handler: smembers,
        ..BASE
    },
    Spec {
        name: "smismember",
        arity: -3,
        flags: READ_FAST,
        since: "6.2.0",
        complexity: "O(N), N being the number of members asked for.",
        summary: "Tells of several members whether a set has them.",
        usage: "key member [member ...]",
        handler: smismember,
        ..BASE
    },
    Spec {
        name: "smove",
        arity: 4,
        flags: WRITE_FAST,
        keys: Keys::TWO,
        summary: "Moves a member from one set to another.",
        usage: "source destination member",
        handler: smove,
        ..BASE
    },
    Spec {
        name: "spop",
        arity: -2,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of members removed; at least some hundred.",
        summary: "Removes random members from a set and answers them.",
        usage: "key [count]",
        handler: random::spop,
        ..BASE
    },
    Spec {
        name: "srandmember",
        arity: -2,
        flags: READ,
        complexity: "O(N), N being the number of members answered; at least some hundred.",
        summary: "Answers random members of a set.",
        usage: "key [count]",
        handler: random::srandmember,
        ..BASE
    },
    Spec {
        name: "srem",
        arity: -3,
        flags: WRITE_FAST,
        complexity: "O(N), N being the number of members named.",
        summary: "Removes members from a set; one without members is no more.",
        usage: "key member [member ...]",
        handler: srem,
        ..BASE
    },
    Spec {
        name: "sscan",
        arity: -3,
        flags: READ,
        since: "2.8.0",
        complexity: "O(COUNT) for every call, O(N) for a whole iteration over N members.",
        summary: "Answers the members of a set a few at a time.",
        usage: "key cursor [MATCH pattern] [COUNT count]",
        handler: sscan,
        ..BASE
    },
    Spec {
        name: "sunion",
        arity: -2,
        flags: READ,
        keys: Keys::ALL,
        complexity: "O(N), N being the members of all sets.",
        summary: "Answers the members that any of the sets has.",
        usage: "key [key ...]",
        handler: algebra::sunion,
        ..BASE
    },
    Spec {
        name: "sunionstore",
        arity: -3,
        flags: GROW,
        keys: Keys::ALL,
        complexity: "O(N), N being the members of all sets.",
        summary: "Stores the members that any of the sets has.",
        usage: "destination key [key ...]",
        handler: algebra::sunionstore,
        ..BASE
    },
];

/// What most set commands have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::ONE,
    group: Group::Set,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: scard,
    subcommands: &[],
};

/// Adds members to the set at `key`, which there may not be yet; how many are new.
fn add(ctx: &mut Ctx<'_, '_>, key: &Bytes, members: Vec<Bytes>) -> Result<u64, CommandError> {
    if ctx.peek_collection(key, Kind::Set)?.is_none() {
        ctx.create_if_missing(key, Kind::Set)?;
    }
    let added = ctx.apply(Effect::Members(key.clone(), Change::Add(members)))?.count;
    if added > 0 {
        ctx.notify(EventClass::Set, "sadd", key);
    }
    Ok(added)
}

/// Removes members from the set at `key`, which there is, and tells of it as `event`; how many are gone.
fn remove(ctx: &mut Ctx<'_, '_>, key: &Bytes, members: Vec<Bytes>, event: &'static str) -> Result<u64, CommandError> {
    let removed = ctx.apply(Effect::Members(key.clone(), Change::Remove(members)))?.count;
    if removed > 0 {
        ctx.notify(EventClass::Set, event, key);
        if ctx.peek(key)?.is_none() {
            ctx.notify(EventClass::Generic, "del", key);
        }
    }
    Ok(removed)
}

/// SADD key member [member ...]
fn sadd(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let added = add(ctx, &args[1], args[2..].to_vec())?;
    ctx.reply.int(added as i64);
    Ok(())
}

/// SREM key member [member ...]
fn srem(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let removed = match ctx.peek_collection(&args[1], Kind::Set)? {
        Some(_) => remove(ctx, &args[1], args[2..].to_vec(), "srem")?,
        None => 0,
    };
    ctx.reply.int(removed as i64);
    Ok(())
}

/// SMOVE source destination member
fn smove(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (source, destination, member) = (&args[1], &args[2], &args[3]);
    let Some(set) = ctx.peek_collection(source, Kind::Set)? else {
        ctx.reply.int(0);
        return Ok(());
    };
    ctx.peek_collection(destination, Kind::Set)?;
    let moved = if source == destination {
        set::contains(&mut ctx.reader(source), &set, member)?
    } else {
        remove(ctx, source, vec![member.clone()], "srem")? > 0
    };
    if moved && source != destination {
        add(ctx, destination, vec![member.clone()])?;
    }
    ctx.reply.int(i64::from(moved));
    Ok(())
}

/// SCARD key
fn scard(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let len = ctx.read_collection(&args[1], Kind::Set)?.map_or(0, |set| set.len());
    ctx.reply.int(len as i64);
    Ok(())
}

/// SISMEMBER key member
fn sismember(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let found = match ctx.read_collection(&args[1], Kind::Set)? {
        Some(set) => set::contains(&mut ctx.reader(&args[1]), &set, &args[2])?,
        None => false,
    };
    ctx.reply.int(i64::from(found));
    Ok(())
}

/// SMISMEMBER key member [member ...]
fn smismember(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let set = ctx.read_collection(&args[1], Kind::Set)?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        let found = match &set {
            Some(set) => set::contains(&mut ctx.reader(&args[1]), set, member)?,
            None => false,
        };
        ctx.reply.int(i64::from(found));
    }
    Ok(())
}

/// SMEMBERS key
fn smembers(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some(set) = read_whole(ctx, &args[1], Kind::Set)? else {
        ctx.reply.set(0);
        return Ok(());
    };
    let (db, reply) = (ctx.db(), &mut *ctx.reply);
    reply.set(set.len() as usize);
    ctx.tx.read_last(db, &args[1], |reader| {
        set::each(reader, &set, &mut |member| {
            reply.bulk(member);
            true
        })
    })?;
    Ok(())
}

/// SSCAN key cursor [MATCH pattern] [COUNT count]
fn sscan(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some((set, cursor, options)) = elements::open_scan(ctx, args, Kind::Set)? else { return Ok(()) };
    let whole = object::is_compact(ctx, &set)?;
    let mut found = Vec::new();
    let next = elements::scan(ctx, &set, cursor, &options, whole, &mut |member, _| {
        found.push(Bytes::copy_from_slice(member));
    })?;
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(found.len());
    found.iter().for_each(|member| ctx.reply.bulk(member));
    Ok(())
}
