//! String commands.

mod counters;
mod lcs;
mod set;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};
use crate::keyspace::types::blob;
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const GROW: Flags = WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);

/// The family's part of the command table.
pub static STRING: &[Spec] = &[
    Spec {
        name: "append",
        arity: 3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        since: "2.0.0",
        complexity: "O(1) in the log; O(N) in the storage engine, N being the length of the string.",
        summary: "Adds bytes to the end of a string, creating it when there is none.",
        usage: "key value",
        handler: append,
        ..BASE
    },
    Spec {
        name: "decr",
        arity: 2,
        flags: GROW_FAST,
        keys: Keys::ONE,
        summary: "Subtracts one from an integer; a missing key counts as 0.",
        usage: "key",
        handler: counters::decr,
        ..BASE
    },
    Spec {
        name: "decrby",
        arity: 3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        summary: "Subtracts a number from an integer; a missing key counts as 0.",
        usage: "key decrement",
        handler: counters::decrby,
        ..BASE
    },
    Spec {
        name: "get",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        summary: "Answers a string.",
        usage: "key",
        handler: get,
        ..BASE
    },
    Spec {
        name: "getdel",
        arity: 2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "6.2.0",
        summary: "Answers a string and deletes its key.",
        usage: "key",
        handler: getdel,
        ..BASE
    },
    Spec {
        name: "getex",
        arity: -2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "6.2.0",
        summary: "Answers a string and sets or removes its expiry.",
        usage: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
        handler: set::getex,
        ..BASE
    },
    Spec {
        name: "getrange",
        arity: 4,
        flags: READ,
        keys: Keys::ONE,
        since: "2.4.0",
        complexity: "O(N), N being the length of the answer.",
        summary: "Answers the part of a string between two offsets.",
        usage: "key start end",
        handler: getrange,
        ..BASE
    },
    Spec {
        name: "getset",
        arity: 3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        summary: "Answers a string and replaces it.",
        usage: "key value",
        handler: getset,
        ..BASE
    },
    Spec {
        name: "incr",
        arity: 2,
        flags: GROW_FAST,
        keys: Keys::ONE,
        summary: "Adds one to an integer; a missing key counts as 0.",
        usage: "key",
        handler: counters::incr,
        ..BASE
    },
    Spec {
        name: "incrby",
        arity: 3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        summary: "Adds a number to an integer; a missing key counts as 0.",
        usage: "key increment",
        handler: counters::incrby,
        ..BASE
    },
    Spec {
        name: "incrbyfloat",
        arity: 3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        since: "2.6.0",
        summary: "Adds a decimal number to another; a missing key counts as 0.",
        usage: "key increment",
        handler: counters::incrbyfloat,
        ..BASE
    },
    Spec {
        name: "lcs",
        arity: -3,
        flags: READ.and(Flags::BLOCKING_POOL),
        keys: Keys::TWO,
        since: "7.0.0",
        complexity: "O(N*M), N and M being the lengths of the strings.",
        summary: "Finds the longest common subsequence of two strings.",
        usage: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
        handler: lcs::lcs,
        ..BASE
    },
    Spec {
        name: "mget",
        arity: -2,
        flags: READ_FAST,
        keys: Keys::ALL,
        complexity: "O(N), N being the number of keys.",
        summary: "Answers several strings.",
        usage: "key [key ...]",
        handler: mget,
        ..BASE
    },
    Spec {
        name: "mset",
        arity: -3,
        flags: GROW,
        keys: Keys::PAIRS,
        since: "1.0.1",
        complexity: "O(N), N being the number of keys.",
        summary: "Sets several strings at once.",
        usage: "key value [key value ...]",
        handler: mset,
        ..BASE
    },
    Spec {
        name: "msetnx",
        arity: -3,
        flags: GROW,
        keys: Keys::PAIRS,
        since: "1.0.1",
        complexity: "O(N), N being the number of keys.",
        summary: "Sets several strings at once, provided that none of the keys exists.",
        usage: "key value [key value ...]",
        handler: msetnx,
        ..BASE
    },
    Spec {
        name: "psetex",
        arity: 4,
        flags: GROW,
        keys: Keys::ONE,
        since: "2.6.0",
        summary: "Sets a string that expires after some milliseconds.",
        usage: "key milliseconds value",
        handler: set::psetex,
        ..BASE
    },
    Spec {
        name: "set",
        arity: -3,
        flags: GROW,
        keys: Keys::ONE,
        summary: "Sets a string, whatever the key held before.",
        usage: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
                PXAT unix-time-milliseconds | KEEPTTL]",
        handler: set::set,
        ..BASE
    },
    Spec {
        name: "setex",
        arity: 4,
        flags: GROW,
        keys: Keys::ONE,
        since: "2.0.0",
        summary: "Sets a string that expires after some seconds.",
        usage: "key seconds value",
        handler: set::setex,
        ..BASE
    },
    Spec {
        name: "setnx",
        arity: 3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        summary: "Sets a string, provided that the key does not exist.",
        usage: "key value",
        handler: set::setnx,
        ..BASE
    },
    Spec {
        name: "setrange",
        arity: 4,
        flags: GROW,
        keys: Keys::ONE,
        since: "2.2.0",
        complexity: "O(N), N being the length of the resulting string.",
        summary: "Overwrites part of a string, filling up with zero bytes as far as needed.",
        usage: "key offset value",
        handler: setrange,
        ..BASE
    },
    Spec {
        name: "strlen",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "2.2.0",
        summary: "Answers how many bytes a string has.",
        usage: "key",
        handler: strlen,
        ..BASE
    },
    Spec {
        name: "substr",
        arity: 4,
        flags: READ,
        keys: Keys::ONE,
        complexity: "O(N), N being the length of the answer.",
        summary: "GETRANGE by its first name.",
        usage: "key start end",
        handler: getrange,
        ..BASE
    },
];

/// What most string commands have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::String,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: get,
    subcommands: &[],
};

/// GET key
fn get(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let entry = ctx.read_string(&args[1])?;
    match entry {
        Some(entry) => ctx.reply.bulk(&entry.value),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// GETSET key value
fn getset(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    get(ctx, args)?;
    set::store(ctx, &args[1], &args[2], None)
}

/// GETDEL key
fn getdel(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let entry = ctx.read_string(&args[1])?;
    match entry {
        Some(entry) => {
            let db = ctx.db();
            ctx.tx.del(db, &args[1], ctx.now)?;
            ctx.notify(EventClass::Generic, "del", &args[1]);
            ctx.reply.bulk(&entry.value);
        }
        None => ctx.reply.null(),
    }
    Ok(())
}

/// MGET key [key ...]
///
/// A key that holds no string counts as missing.
fn mget(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let keys = &args[1..];
    ctx.reply.array(keys.len());
    for key in keys {
        match ctx.read_string(key) {
            Ok(Some(entry)) => ctx.reply.bulk(&entry.value),
            Ok(None) | Err(CommandError::WrongType) => ctx.reply.null(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The (key, value) arguments of MSET and MSETNX.
fn pairs<'a>(args: &'a [Bytes], command: &str) -> Result<&'a [[Bytes; 2]], CommandError> {
    match args[1..].as_chunks::<2>() {
        (pairs, []) => Ok(pairs),
        _ => Err(CommandError::Arity(command.to_owned())),
    }
}

/// MSET key value [key value ...]
fn mset(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    for [key, value] in pairs(args, "mset")? {
        set::store(ctx, key, value, None)?;
    }
    ctx.reply.ok();
    Ok(())
}

/// MSETNX key value [key value ...]
fn msetnx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let pairs = pairs(args, "msetnx")?;
    for [key, _] in pairs {
        if ctx.peek(key)?.is_some() {
            ctx.reply.int(0);
            return Ok(());
        }
    }
    for [key, value] in pairs {
        set::store(ctx, key, value, None)?;
    }
    ctx.reply.int(1);
    Ok(())
}

/// STRLEN key
fn strlen(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let length = ctx.read_blob(&args[1])?.map_or(0, |blob| blob.len());
    ctx.reply.int(length as i64);
    Ok(())
}

/// APPEND key value
fn append(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (db, key, suffix) = (ctx.db(), &args[1], &args[2]);
    let old = ctx.peek_blob(key)?;
    let length = old.as_ref().map_or(0, |blob| blob.len());
    let length = check_length(ctx, length, suffix.len())?;
    if old.is_none() || !suffix.is_empty() {
        ctx.notify_if_new(db, key)?;
        ctx.tx.append(db, key, suffix, ctx.now)?;
        ctx.notify(EventClass::String, "append", key);
    }
    ctx.reply.int(length as i64);
    Ok(())
}

/// SETRANGE key offset value
fn setrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (db, key, value) = (ctx.db(), &args[1], &args[3]);
    let offset = numbers::integer(&args[2])?;
    let offset = u64::try_from(offset).map_err(|_| CommandError::Static("ERR offset is out of range"))?;
    let old = ctx.peek_blob(key)?.map_or(0, |blob| blob.len());
    if value.is_empty() {
        ctx.reply.int(old as i64);
        return Ok(());
    }
    let end = check_length(ctx, offset, value.len())?;
    ctx.notify_if_new(db, key)?;
    ctx.tx.set_range(db, key, offset, value, ctx.now)?;
    ctx.notify(EventClass::String, "setrange", key);
    ctx.reply.int(old.max(end) as i64);
    Ok(())
}

/// The length of a string of `length` bytes with `more` behind it, which has a limit.
fn check_length(ctx: &Ctx<'_, '_>, length: u64, more: usize) -> Result<u64, CommandError> {
    length
        .checked_add(more as u64)
        .filter(|&length| length <= ctx.server.config.proto_max_bulk_len() as u64)
        .ok_or(CommandError::Static("ERR string exceeds maximum allowed size (proto-max-bulk-len)"))
}

/// GETRANGE key start end, and SUBSTR
fn getrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let start = numbers::integer(&args[2])?;
    let end = numbers::integer(&args[3])?;
    let key = &args[1];
    let Some(blob) = ctx.read_blob(key)? else {
        ctx.reply.bulk(b"");
        return Ok(());
    };
    let (from, to) = range(blob.len(), start, end);
    ctx.heavy((to - from) / blob::CHUNK)?;
    let part = blob.range(&mut ctx.reader(key), from, to)?;
    ctx.reply.bulk(&part);
    Ok(())
}

/// The first place and the one after the last of the bytes from `start` to `end`, both inclusive, of a string of this length; negative
/// offsets count from the end, and those before the beginning mean the first byte.
fn range(length: u64, start: i64, end: i64) -> (u64, u64) {
    if start < 0 && end < 0 && start > end {
        return (0, 0);
    }
    let length = length as i64;
    let from_beginning = |offset: i64| if offset < 0 { (offset.saturating_add(length)).max(0) } else { offset };
    let (start, end) = (from_beginning(start), from_beginning(end).min(length - 1));
    if start > end { (0, 0) } else { (start as u64, end as u64 + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (start, end, expected) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (16, 20, ""),
            (5, 2, ""),
            (0, -100, "T"),
            (-100, -100, "T"),
            (-100, 3, "This"),
            (-1, -3, ""),
            (-1, -100, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MAX, ""),
        ] {
            let (from, to) = range(16, start, end);
            assert_eq!(&"This is a string"[from as usize..to as usize], expected, "{start} {end}");
        }
        assert_eq!((range(0, 0, -1), range(0, -1, 0)), ((0, 0), (0, 0)));
    }
}
