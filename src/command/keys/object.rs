//! OBJECT: how a value is kept.

use bytes::Bytes;

use crate::command::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};
use crate::keyspace::types::{Handle, hash, set, zset};
use crate::keyspace::{Entry, Error, Kind, Read};
use crate::rdb::Thresholds;

/// The longest string that Redis keeps in one piece with its header, and calls `embstr`.
const EMBEDDED_STRING: usize = 44;

/// The subcommands of OBJECT.
pub static SUBCOMMANDS: &[Spec] = &[
    Spec {
        name: "encoding",
        arity: 3,
        flags: Flags::READONLY,
        keys: KEY,
        since: "2.2.3",
        summary: "Answers the name of the encoding that Redis would choose for the value.",
        usage: "<key>",
        handler: encoding,
        ..BASE
    },
    Spec {
        name: "freq",
        arity: 3,
        flags: Flags::READONLY,
        keys: KEY,
        since: "4.0.0",
        summary: "Refused: how often a key is used is not counted.",
        usage: "<key>",
        handler: freq,
        ..BASE
    },
    Spec::help(Group::Generic, "6.2.0"),
    Spec {
        name: "idletime",
        arity: 3,
        flags: Flags::READONLY,
        keys: KEY,
        since: "2.2.3",
        summary: "Refused: when a key was last used is not recorded.",
        usage: "<key>",
        handler: idletime,
        ..BASE
    },
    Spec {
        name: "refcount",
        arity: 3,
        flags: Flags::READONLY,
        keys: KEY,
        since: "2.2.3",
        summary: "Answers how many references there are to the value: always 1.",
        usage: "<key>",
        handler: refcount,
        ..BASE
    },
];

const KEY: Keys = Keys::Range { first: 2, last: 2, step: 1 };

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::Generic,
    since: "2.2.3",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: encoding,
    subcommands: &[],
};

/// Answers what `describe` makes of the entry at `args[2]`, or null when there is none.
fn inspect(
    ctx: &mut Ctx<'_, '_>,
    args: &[Bytes],
    describe: impl Fn(&mut Ctx<'_, '_>, &Entry) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    match ctx.read(&args[2])? {
        Some(entry) => describe(ctx, &entry),
        None => {
            ctx.reply.null();
            Ok(())
        }
    }
}

/// OBJECT ENCODING key
fn encoding(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    inspect(ctx, args, |ctx, entry| {
        let encoding = encoding_at(ctx, &args[2], entry)?;
        ctx.reply.bulk(encoding.as_bytes());
        Ok(())
    })
}

/// Redis's name for the encoding that it would give to the value at `key`, a key of the connection's database.
pub fn encoding_at(ctx: &mut Ctx<'_, '_>, key: &Bytes, entry: &Entry) -> Result<&'static str, CommandError> {
    let Some(handle) = Handle::of(key, entry) else { return Ok(encoding_of(entry)) };
    let (thresholds, now) = (thresholds(ctx), ctx.now);
    Ok(collection_encoding(&mut ctx.reader(key), &handle, now, &thresholds)?)
}

/// Up to where Redis would call values small, by the settings of now.
pub fn thresholds(ctx: &Ctx<'_, '_>) -> Thresholds {
    let config = &ctx.server.config;
    Thresholds {
        hash_entries: config.hash_max_listpack_entries(),
        hash_value: config.hash_max_listpack_value(),
        intset_entries: config.set_max_intset_entries(),
        zset_entries: config.zset_max_listpack_entries(),
        zset_value: config.zset_max_listpack_value(),
        ..Thresholds::default()
    }
}

/// Whether Redis would keep the collection in one piece of memory, as it does small ones.
pub fn is_compact(ctx: &mut Ctx<'_, '_>, handle: &Handle) -> Result<bool, CommandError> {
    let (thresholds, now) = (thresholds(ctx), ctx.now);
    let encoding = collection_encoding(&mut ctx.reader(&handle.key), handle, now, &thresholds)?;
    Ok(matches!(encoding, "listpack" | "intset"))
}

/// Redis's name for the encoding that it would give to what the collection holds now. Looks at no more elements than a small one has.
pub fn collection_encoding(
    reader: &mut dyn Read,
    handle: &Handle,
    now: u64,
    thresholds: &Thresholds,
) -> Result<&'static str, Error> {
    match handle.kind {
        Kind::Hash if is_small_hash(reader, handle, now, thresholds)? => Ok("listpack"),
        Kind::Set if is_intset(reader, handle, thresholds)? => Ok("intset"),
        Kind::Hash | Kind::Set => Ok("hashtable"),
        Kind::List => Ok("quicklist"),
        Kind::Zset if is_small_zset(reader, handle, thresholds)? => Ok("listpack"),
        Kind::Zset => Ok("skiplist"),
        Kind::Stream => Ok("stream"),
        Kind::String => Ok("raw"),
    }
}

/// Whether there are few fields, and none of them long.
fn is_small_hash(reader: &mut dyn Read, handle: &Handle, now: u64, thresholds: &Thresholds) -> Result<bool, Error> {
    let mut small = hash::live_len(reader, handle, now)? <= thresholds.hash_entries as u64;
    if small {
        hash::each(reader, handle, now, &mut |name, field| {
            small = name.len().max(field.value.len()) <= thresholds.hash_value;
            small
        })?;
    }
    Ok(small)
}

/// Whether there are few members, and none of them long.
fn is_small_zset(reader: &mut dyn Read, handle: &Handle, thresholds: &Thresholds) -> Result<bool, Error> {
    let mut small = handle.len() <= thresholds.zset_entries as u64;
    if small {
        zset::each(reader, handle, &mut |member, _| {
            small = member.len() <= thresholds.zset_value;
            small
        })?;
    }
    Ok(small)
}

/// Whether there are few members, all of them integers.
fn is_intset(reader: &mut dyn Read, handle: &Handle, thresholds: &Thresholds) -> Result<bool, Error> {
    let mut integers = handle.len() <= thresholds.intset_entries as u64;
    if integers {
        set::each(reader, handle, &mut |member| {
            integers = numbers::parse_i64(member).is_some();
            integers
        })?;
    }
    Ok(integers)
}

/// Redis's name for the encoding it gives such a value when it is set.
fn encoding_of(entry: &Entry) -> &'static str {
    match entry.kind {
        Kind::String if numbers::parse_i64(&entry.value).is_some() => "int",
        Kind::String if entry.value.len() <= EMBEDDED_STRING => "embstr",
        Kind::String => "raw",
        Kind::Hash | Kind::Set => "hashtable",
        Kind::List => "quicklist",
        Kind::Zset => "skiplist",
        Kind::Stream => "stream",
    }
}

/// OBJECT REFCOUNT key
fn refcount(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    inspect(ctx, args, |ctx, _| {
        ctx.reply.int(1);
        Ok(())
    })
}

/// OBJECT FREQ key
fn freq(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    inspect(ctx, args, |_, _| {
        Err(CommandError::Static(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
             when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ))
    })
}

/// OBJECT IDLETIME key
fn idletime(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    inspect(ctx, args, |_, _| Err(CommandError::Static("ERR idle time is not tracked by this server")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_by_value() {
        for (value, expected) in [
            (&b"12"[..], "int"),
            (b"-9223372036854775808", "int"),
            (b"012", "embstr"),
            (b"", "embstr"),
            (&[b'x'; 44], "embstr"),
            (&[b'x'; 45], "raw"),
        ] {
            let entry = Entry::string(Bytes::copy_from_slice(value), None);
            assert_eq!(encoding_of(&entry), expected);
        }
    }
}
