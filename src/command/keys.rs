//! Commands on keys of any type, by name; SCAN, KEYS and RANDOMKEY, which name none, are in `scan`.

pub(super) mod expire;
pub(super) mod object;

pub use object::encoding_of;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, KeyRef, Keys, Spec, numbers};
use crate::keyspace::{Entry, Kind};

const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);

/// The family's part of the command table.
pub static KEYS: &[Spec] = &[
    Spec {
        name: "copy",
        arity: -3,
        flags: WRITE.and(Flags::DENYOOM),
        keys: Keys::Find(keys_of_copy),
        since: "6.2.0",
        complexity: "O(N), N being the size of the value.",
        summary: "Copies a value to another key or database, its expiry too.",
        usage: "source destination [DB destination-db] [REPLACE]",
        handler: copy,
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
        handler: rename,
        ..BASE
    },
    Spec {
        name: "renamenx",
        arity: 3,
        flags: WRITE_FAST,
        keys: Keys::TWO,
        summary: "Gives a value another key, provided that nothing is there.",
        usage: "key newkey",
        handler: renamenx,
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

/// RENAME key newkey
fn rename(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, new) = (&args[1], &args[2]);
    let entry = ctx.peek(key)?.ok_or(CommandError::NoSuchKey)?;
    if key != new {
        move_entry(ctx, key, new, entry)?;
    }
    ctx.reply.ok();
    Ok(())
}

/// RENAMENX key newkey
fn renamenx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, new) = (&args[1], &args[2]);
    let entry = ctx.peek(key)?.ok_or(CommandError::NoSuchKey)?;
    let free = ctx.peek(new)?.is_none();
    if free {
        move_entry(ctx, key, new, entry)?;
    }
    ctx.reply.int(i64::from(free));
    Ok(())
}

fn move_entry(ctx: &mut Ctx<'_, '_>, key: &Bytes, new: &Bytes, entry: Entry) -> Result<(), CommandError> {
    let db = ctx.db();
    put(ctx, db, new, entry)?;
    ctx.tx.del(db, key, ctx.now)?;
    Ok(())
}

/// Makes `entry` the value of `key`, expiry included.
fn put(ctx: &mut Ctx<'_, '_>, db: usize, key: &Bytes, entry: Entry) -> Result<(), CommandError> {
    match entry.kind {
        Kind::String => Ok(ctx.tx.set(db, key, entry.value, entry.expire_at, ctx.now)?),
        // Nothing writes the other kinds yet: such an entry was made by a later version.
        kind => Err(CommandError::Text(format!("ERR this server cannot copy a {}", kind.name()))),
    }
}

/// The options of COPY.
#[derive(Default)]
struct CopyOptions {
    /// The database to copy to, if it is named.
    db: Option<usize>,
    replace: bool,
}

impl CopyOptions {
    fn parse(args: &[Bytes], databases: usize) -> Result<CopyOptions, CommandError> {
        let mut options = CopyOptions::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg.eq_ignore_ascii_case(b"replace") {
                options.replace = true;
            } else if arg.eq_ignore_ascii_case(b"db") {
                let db = numbers::integer_32(args.next().ok_or(CommandError::Syntax)?)?;
                let db = usize::try_from(db).ok().filter(|db| *db < databases);
                options.db = Some(db.ok_or(CommandError::Static("ERR DB index is out of range"))?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// The keys of COPY: the second lies in the database that the request names, if it names one. Of
/// a request that COPY will refuse nothing needs to be locked.
fn keys_of_copy(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    if let [_, source, destination, options @ ..] = args
        && let Ok(options) = CopyOptions::parse(options, usize::MAX)
    {
        found.push(KeyRef { db, key: source.clone() });
        found.push(KeyRef { db: options.db.unwrap_or(db), key: destination.clone() });
    }
}

/// COPY source destination [DB destination-db] [REPLACE]
fn copy(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (source, destination) = (&args[1], &args[2]);
    let options = CopyOptions::parse(&args[3..], ctx.server.keyspace.databases())?;
    let target = options.db.unwrap_or(ctx.db());
    if target == ctx.db() && source == destination {
        return Err(CommandError::Static("ERR source and destination objects are the same"));
    }
    let copied = match ctx.read(source)? {
        Some(entry) if options.replace || ctx.tx.get(target, destination, ctx.now)?.is_none() => {
            put(ctx, target, destination, entry)?;
            true
        }
        _ => false,
    };
    ctx.reply.int(i64::from(copied));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_copy_to_another_database() {
        let find = |text: &str| {
            let args: Vec<Bytes> = text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            let mut found = Vec::new();
            keys_of_copy(3, &args, &mut found);
            found.iter().map(|key| (key.db, key.key.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(find("copy a b"), [(3, b"a".to_vec()), (3, b"b".to_vec())]);
        assert_eq!(find("copy a b replace db 5"), [(3, b"a".to_vec()), (5, b"b".to_vec())]);
        assert_eq!(find("copy a b db"), []);
        assert_eq!(find("copy a b db -1"), []);
    }
}
