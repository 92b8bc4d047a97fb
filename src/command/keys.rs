//! Commands on keys of any type, by name; SCAN, KEYS and RANDOMKEY, which name none, are in `scan`.

mod dump;
pub(super) mod expire;
mod migrate;
pub(super) mod object;
mod transfer;
pub(super) mod values;

pub use object::encoding_at;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::pubsub::EventClass;

const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);

/// The family's part of the command table.
pub static KEYS: &[Spec] = &[
    Spec {
        name: "copy",
        arity: -3,
        flags: WRITE.and(Flags::DENYOOM),
        keys: Keys::Find(transfer::keys_of_copy),
        since: "6.2.0",
        complexity: "O(N), N being the size of the value.",
        summary: "Copies a value to another key or database, its expiry too.",
        usage: "source destination [DB destination-db] [REPLACE]",
        handler: transfer::copy,
        ..BASE
    },
    Spec {
        name: "del",
        arity: -2,
        flags: WRITE,
        keys: Keys::ALL,
        complexity: "O(N), N being the number of keys, whatever their size.",
        summary: "Deletes keys.",
        usage: "key [key ...]",
        handler: del,
        ..BASE
    },
    Spec {
        name: "dump",
        arity: 2,
        flags: Flags::READONLY,
        keys: Keys::ONE,
        since: "2.6.0",
        complexity: "O(N), N being the size of the value.",
        summary: "Answers a value as bytes that RESTORE reads.",
        usage: "key",
        handler: dump::dump,
        ..BASE
    },
    Spec {
        name: "exists",
        arity: -2,
        flags: READ_FAST,
        keys: Keys::ALL,
        complexity: "O(N), N being the number of keys.",
        summary: "Counts which of the keys exist; a key named twice counts twice.",
        usage: "key [key ...]",
        handler: exists,
        ..BASE
    },
    Spec {
        name: "expire",
        arity: -3,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        summary: "Lets a key expire after some seconds.",
        usage: "key seconds [NX | XX | GT | LT]",
        handler: expire::expire,
        ..BASE
    },
    Spec {
        name: "expireat",
        arity: -3,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "1.2.0",
        summary: "Lets a key expire at a unix time in seconds.",
        usage: "key unix-time-seconds [NX | XX | GT | LT]",
        handler: expire::expireat,
        ..BASE
    },
    Spec {
        name: "expiretime",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "7.0.0",
        summary: "Answers the unix time, in seconds, at which a key expires.",
        usage: "key",
        handler: expire::expiretime,
        ..BASE
    },
    Spec {
        name: "migrate",
        arity: -6,
        flags: WRITE.and(Flags::BLOCKING_POOL).and(Flags::MOVABLE_KEYS).and(Flags::DANGEROUS),
        keys: Keys::Find(migrate::keys_of_migrate),
        since: "2.6.0",
        complexity: "O(N), N being the size of the values.",
        summary: "Moves or copies keys to another server.",
        usage: "host port key | \"\" destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] \
                [KEYS key [key ...]]",
        handler: migrate::migrate,
        ..BASE
    },
    Spec {
        name: "move",
        arity: 3,
        flags: WRITE_FAST,
        keys: Keys::Find(transfer::keys_of_move),
        complexity: "O(N), N being the size of the value.",
        summary: "Gives a value to the same key of another database, provided that nothing is there.",
        usage: "key db",
        handler: transfer::move_key,
        ..BASE
    },
    Spec::container(
        "object",
        Group::Generic,
        "2.2.3",
        "What the server knows of a value besides its contents.",
        object::SUBCOMMANDS,
    ),
    Spec {
        name: "persist",
        arity: 2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "2.2.0",
        summary: "Removes the expiry of a key.",
        usage: "key",
        handler: expire::persist,
        ..BASE
    },
    Spec {
        name: "pexpire",
        arity: -3,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "2.6.0",
        summary: "Lets a key expire after some milliseconds.",
        usage: "key milliseconds [NX | XX | GT | LT]",
        handler: expire::pexpire,
        ..BASE
    },
    Spec {
        name: "pexpireat",
        arity: -3,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "2.6.0",
        summary: "Lets a key expire at a unix time in milliseconds.",
        usage: "key unix-time-milliseconds [NX | XX | GT | LT]",
        handler: expire::pexpireat,
        ..BASE
    },
    Spec {
        name: "pexpiretime",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "7.0.0",
        summary: "Answers the unix time, in milliseconds, at which a key expires.",
        usage: "key",
        handler: expire::pexpiretime,
        ..BASE
    },
    Spec {
        name: "pttl",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "2.6.0",
        summary: "Answers in how many milliseconds a key expires.",
        usage: "key",
        handler: expire::pttl,
        ..BASE
    },
    Spec {
        name: "rename",
        arity: 3,
        flags: WRITE,
        keys: Keys::TWO,
        summary: "Gives a value another key, replacing what was there.",
        usage: "key newkey",
        handler: transfer::rename,
        ..BASE
    },
    Spec {
        name: "renamenx",
        arity: 3,
        flags: WRITE_FAST,
        keys: Keys::TWO,
        summary: "Gives a value another key, provided that nothing is there.",
        usage: "key newkey",
        handler: transfer::renamenx,
        ..BASE
    },
    Spec {
        name: "restore",
        arity: -4,
        flags: WRITE.and(Flags::DENYOOM),
        keys: Keys::ONE,
        since: "2.6.0",
        complexity: "O(N), N being the size of the value.",
        summary: "Makes a key of what DUMP answered.",
        usage: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        handler: dump::restore,
        ..BASE
    },
    Spec {
        name: "restore-asking",
        arity: -4,
        flags: WRITE.and(Flags::DENYOOM),
        keys: Keys::ONE,
        group: Group::Server,
        since: "3.0.0",
        complexity: "O(N), N being the size of the value.",
        summary: "RESTORE, as nodes of a Redis Cluster call it.",
        usage: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        handler: dump::restore,
        ..BASE
    },
    Spec {
        name: "touch",
        arity: -2,
        flags: READ_FAST,
        keys: Keys::ALL,
        since: "3.2.1",
        complexity: "O(N), N being the number of keys.",
        summary: "Counts which of the keys exist; access times are not kept.",
        usage: "key [key ...]",
        handler: exists,
        ..BASE
    },
    Spec {
        name: "ttl",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        summary: "Answers in how many seconds a key expires.",
        usage: "key",
        handler: expire::ttl,
        ..BASE
    },
    Spec {
        name: "type",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        summary: "Answers the type of a value.",
        usage: "key",
        handler: type_name,
        ..BASE
    },
    Spec {
        name: "unlink",
        arity: -2,
        flags: WRITE_FAST,
        keys: Keys::ALL,
        since: "4.0.0",
        complexity: "O(N), N being the number of keys, whatever their size.",
        summary: "Deletes keys, exactly as DEL does.",
        usage: "key [key ...]",
        handler: del,
        ..BASE
    },
];

/// What most commands of the family have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: exists,
    subcommands: &[],
};

/// DEL key [key ...], and UNLINK
fn del(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let db = ctx.db();
    let mut deleted = 0;
    for key in &args[1..] {
        if ctx.peek(key)?.is_some() {
            ctx.tx.del(db, key, ctx.now)?;
            ctx.notify(EventClass::Generic, "del", key);
            deleted += 1;
        }
    }
    ctx.reply.int(deleted);
    Ok(())
}

/// EXISTS key [key ...], and TOUCH
fn exists(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let mut found = 0;
    for key in &args[1..] {
        found += i64::from(ctx.read(key)?.is_some());
    }
    ctx.reply.int(found);
    Ok(())
}

/// TYPE key
fn type_name(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let name = ctx.read(&args[1])?.map_or("none", |entry| entry.kind.name());
    ctx.reply.simple(name);
    Ok(())
}
