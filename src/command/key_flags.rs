//! What commands do with each of their keys, in Redis's words: for COMMAND INFO and COMMAND GETKEYSANDFLAGS.

use bytes::Bytes;

use super::{Flags, Spec};

type Words = &'static [&'static str];

const READ: Words = &["RO", "access"];
/// Reads nothing of the value: only whether it is there, its type or its size.
const LOOK: Words = &["RO"];
const CHANGE: Words = &["RW", "update"];
const READ_AND_CHANGE: Words = &["RW", "access", "update"];
const TAKE: Words = &["RW", "access", "delete"];
const REMOVE: Words = &["RW", "delete"];
const ADD: Words = &["RW", "insert"];
const READ_AND_ADD: Words = &["RW", "access", "insert"];
const REPLACE: Words = &["OW", "update"];
const CREATE: Words = &["OW", "insert"];
const DROP: Words = &["RM", "delete"];
const PLAIN_READ_WRITE: Words = &["RW", "access"];

/// Commands whose keys are not all [`READ`] (if they only read) or [`READ_AND_CHANGE`] (if they write): the first
/// key, the others. As in the declarations of Redis 7.0.15.
const TABLE: &[(&str, Words, Words)] = &[
    (
        "exists hexists hlen hstrlen llen memory|usage object|encoding object|freq object|idletime \
         object|refcount scard sismember strlen touch type watch xlen zcard",
        LOOK,
        LOOK,
    ),
    (
        "expire expireat geoadd hmset hset lset persist pexpire pexpireat setrange xack xadd xclaim \
         xgroup|setid xsetid zadd",
        CHANGE,
        CHANGE,
    ),
    (
        "blmpop blpop brpop bzmpop bzpopmax bzpopmin getdel lmpop lpop migrate rpop spop zmpop zpopmax \
         zpopmin",
        TAKE,
        TAKE,
    ),
    (
        "hdel lrem ltrim srem xautoclaim xdel xgroup|delconsumer xgroup|destroy xtrim zrem zremrangebylex \
         zremrangebyrank zremrangebyscore",
        REMOVE,
        REMOVE,
    ),
    ("append hsetnx linsert lpush lpushx pfadd rpush rpushx sadd xgroup|create xgroup|createconsumer", ADD, ADD),
    ("bitop geosearchstore sdiffstore sunionstore zdiffstore zinterstore zrangestore zunionstore", REPLACE, READ),
    ("sinterstore", CHANGE, READ),
    ("blmove brpoplpush lmove rpoplpush smove", TAKE, ADD),
    ("mset psetex restore setex", REPLACE, REPLACE),
    ("msetnx setnx", CREATE, CREATE),
    ("del unlink", DROP, DROP),
    ("rename", TAKE, REPLACE),
    ("renamenx", TAKE, CREATE),
    ("copy georadius georadiusbymember sort", READ, REPLACE),
    ("pfmerge", READ_AND_ADD, READ),
    ("pfcount pfdebug", PLAIN_READ_WRITE, PLAIN_READ_WRITE),
    ("xreadgroup", READ, READ),
];

/// Commands that do less with their keys than they may, depending on arguments.
const VARIABLE: &[&str] = &["bitfield", "set"];

/// What the command of this full name (`get`, `xgroup|create`) does with its first key, and with the others.
pub fn of_command(full_name: &str, spec: &Spec) -> (Words, Words) {
    let row = TABLE.iter().find(|(names, ..)| names.split(' ').any(|name| name == full_name));
    match row {
        Some((_, first, others)) => (first, others),
        None if spec.flags.has(Flags::READONLY) => (READ, READ),
        None => (READ_AND_CHANGE, READ_AND_CHANGE),
    }
}

/// Whether [`of_request`] may say less than [`of_command`].
pub fn vary(full_name: &str) -> bool {
    VARIABLE.contains(&full_name)
}

/// What this request does with its first key, and with the others.
pub fn of_request(full_name: &str, spec: &Spec, args: &[Bytes]) -> (Words, Words) {
    let has = |word: &str| args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    match full_name {
        "set" if !args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(b"get")) => (REPLACE, REPLACE),
        "bitfield" if !has("set") && !has("incrby") => (READ, READ),
        _ => of_command(full_name, spec),
    }
}
