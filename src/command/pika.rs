//! Commands that Pika has and Redis has not: ranges of keys and fields in byte order, deletion by pattern, and upkeep of the data on disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, glob, numbers};
use crate::keyspace::types::blob::Blob;
use crate::keyspace::types::{Handle, hash};
use crate::keyspace::{Entry, Kind};
use crate::pubsub::EventClass;

/// Keys or fields that a call looks at unless LIMIT says otherwise.
const DEFAULT_LIMIT: usize = 10;
/// Keys that one PKPATTERNMATCHDEL deletes at most.
const MAX_DELETED: usize = 100;
/// What a binlog file's name begins with in Pika, and so in PURGELOGSTO.
const BINLOG_PREFIX: &[u8] = b"write2file";

const WHOLE_DATABASE: Flags = Flags::READONLY.and(Flags::BLOCKING_POOL).and(Flags::ALL_KEYS);
const UPKEEP: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::BLOCKING_POOL);

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::Generic,
    since: "0.1.0",
    complexity: "O(LIMIT), and as much for each slot of the database.",
    summary: "",
    usage: "",
    handler: pkscanrange,
    subcommands: &[],
};

/// The family's part of the command table.
pub static PIKA: &[Spec] = &[
    Spec {
        name: "compact",
        arity: -1,
        flags: UPKEEP,
        group: Group::Server,
        complexity: "O(N), N being the bytes on disk, in the background.",
        summary: "Begins to rewrite the data on disk without what was deleted or has expired.",
        usage: "[db[,db ...]]",
        handler: compact,
        ..BASE
    },
    Spec {
        name: "compactrange",
        arity: 4,
        flags: UPKEEP,
        group: Group::Server,
        complexity: "O(N), N being the bytes on disk, in the background.",
        summary: "COMPACT of the keys from the first to the last.",
        usage: "db[,db ...] first-key last-key",
        handler: compactrange,
        ..BASE
    },
    Spec {
        name: "pkhrscanrange",
        arity: -4,
        flags: Flags::READONLY,
        keys: Keys::ONE,
        group: Group::Hash,
        complexity: "O(N), N being the number of fields of the hash.",
        summary: "Answers fields of a hash in falling byte order.",
        usage: "key field-start field-end [MATCH pattern] [LIMIT count]",
        handler: pkhrscanrange,
        ..BASE
    },
    Spec {
        name: "pkhscanrange",
        arity: -4,
        flags: Flags::READONLY,
        keys: Keys::ONE,
        group: Group::Hash,
        complexity: "O(N), N being the number of fields of the hash.",
        summary: "Answers fields of a hash in byte order.",
        usage: "key field-start field-end [MATCH pattern] [LIMIT count]",
        handler: pkhscanrange,
        ..BASE
    },
    Spec {
        name: "pkpatternmatchdel",
        arity: -2,
        flags: Flags::WRITE.and(Flags::BLOCKING_POOL).and(Flags::ALL_KEYS).and(Flags::PLANNED).and(Flags::DANGEROUS),
        complexity: "O(N), N being the number of keys that begin like the pattern.",
        summary: "Deletes up to 100 keys that match a glob pattern, and answers how many.",
        usage: "pattern [max-count]",
        handler: pkpatternmatchdel,
        ..BASE
    },
    Spec {
        name: "pkrscanrange",
        arity: -4,
        flags: WHOLE_DATABASE,
        summary: "Answers keys of a type in falling byte order.",
        usage: "type key-start key-end [MATCH pattern] [LIMIT count]",
        handler: pkrscanrange,
        ..BASE
    },
    Spec {
        name: "pkscanrange",
        arity: -4,
        flags: WHOLE_DATABASE,
        summary: "Answers keys of a type in byte order.",
        usage: "type key-start key-end [MATCH pattern] [LIMIT count]",
        handler: pkscanrange,
        ..BASE
    },
    Spec {
        name: "pksetexat",
        arity: 4,
        flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST),
        keys: Keys::ONE,
        group: Group::String,
        complexity: "O(1)",
        summary: "Sets a string that expires at a unix time in seconds.",
        usage: "key unix-time-seconds value",
        handler: pksetexat,
        ..BASE
    },
    Spec {
        name: "purgelogsto",
        arity: -2,
        flags: UPKEEP,
        group: Group::Server,
        complexity: "O(N), N being the number of binlog files.",
        summary: "Removes the binlog files of a database below a number, but for those that recovery or a replica needs.",
        usage: "write2fileN [db]",
        handler: purgelogsto,
        ..BASE
    },
];

/// What PKSCANRANGE and PKHSCANRANGE have in common: a range, and how much of it to look at.
struct Range<'a> {
    /// Where to begin and to end, both inclusive; empty = at the end of everything.
    from: &'a [u8],
    to: &'a [u8],
    reverse: bool,
    pattern: Option<&'a [u8]>,
    limit: usize,
}

impl<'a> Range<'a> {
    fn parse(from: &'a [u8], to: &'a [u8], reverse: bool, options: &'a [Bytes]) -> Result<Range<'a>, CommandError> {
        let mut range = Range { from, to, reverse, pattern: None, limit: DEFAULT_LIMIT };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let value = options.next().ok_or(CommandError::Syntax)?;
            if option.eq_ignore_ascii_case(b"match") {
                range.pattern = Some(value);
            } else if option.eq_ignore_ascii_case(b"limit") {
                range.limit = usize::try_from(numbers::integer(value)?)
                    .ok()
                    .filter(|limit| *limit > 0)
                    .ok_or(CommandError::NotInteger)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(range)
    }

    fn is_before(&self, name: &[u8]) -> bool {
        !self.from.is_empty() && if self.reverse { name > self.from } else { name < self.from }
    }

    fn is_past(&self, name: &[u8]) -> bool {
        !self.to.is_empty() && if self.reverse { name < self.to } else { name > self.to }
    }

    fn admits(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

/// The first so many names of a range, and the one after them, whatever the order in which they come.
struct Nearest<'r, T> {
    range: &'r Range<'r>,
    found: BTreeMap<Bytes, T>,
}

impl<'r, T> Nearest<'r, T> {
    fn new(range: &'r Range<'r>) -> Nearest<'r, T> {
        Nearest { range, found: BTreeMap::new() }
    }

    fn offer(&mut self, name: &[u8], value: impl FnOnce() -> T) {
        if self.range.is_before(name) || self.range.is_past(name) {
            return;
        }
        let full = self.found.len() > self.range.limit;
        let farther = match self.range.reverse {
            false => self.found.last_key_value().is_some_and(|(last, _)| name > last),
            true => self.found.first_key_value().is_some_and(|(first, _)| name < first),
        };
        if full && farther {
            return;
        }
        self.found.insert(Bytes::copy_from_slice(name), value());
        if full {
            let _ = if self.range.reverse { self.found.pop_first() } else { self.found.pop_last() };
        }
    }

    /// Where to go on (empty at the end), and what was found and matches.
    fn finish(self) -> (Bytes, Vec<(Bytes, T)>) {
        let Nearest { range, found } = self;
        let mut names: Vec<_> = found.into_iter().collect();
        if range.reverse {
            names.reverse();
        }
        let next = names.split_off(names.len().min(range.limit)).pop().map(|(name, _)| name).unwrap_or_default();
        names.retain(|(name, _)| range.admits(name));
        (next, names)
    }
}

/// PKSCANRANGE type key-start key-end [MATCH pattern] [LIMIT count]
fn pkscanrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    scan_keys(ctx, args, false)
}

/// PKRSCANRANGE type key-start key-end [MATCH pattern] [LIMIT count]
fn pkrscanrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    scan_keys(ctx, args, true)
}

fn scan_keys(ctx: &mut Ctx<'_, '_>, args: &[Bytes], reverse: bool) -> Result<(), CommandError> {
    let name = args[1].to_ascii_lowercase();
    let with_values = name == b"string_with_value";
    let kind = if with_values { Some(Kind::String) } else { Kind::from_name(&name) };
    let kind = kind.ok_or(CommandError::Static("ERR invalid db type"))?;
    let range = Range::parse(&args[2], &args[3], reverse, &args[4..])?;
    let mut nearest: Nearest<'_, Entry> = Nearest::new(&range);
    let (db, now) = (ctx.db(), ctx.now);
    for slot in ctx.server.keyspace.db(db).slots() {
        let mut seen = 0;
        let mut look = |key: &[u8], entry: &Entry| {
            if range.is_past(key) || seen > range.limit {
                return false;
            }
            if entry.kind == kind && !range.is_before(key) {
                seen += 1;
                nearest.offer(key, || entry.clone());
            }
            true
        };
        let from = Some(range.from).filter(|from| !from.is_empty());
        match (reverse, from.and_then(<[u8]>::split_last)) {
            (true, _) => slot.scan_back(from, now, &mut look)?,
            // A scan begins after a key: this one is just before the wanted one.
            (false, Some((last, head))) => {
                let mut below = head.to_vec();
                if let Some(smaller) = last.checked_sub(1) {
                    below.push(smaller);
                    below.push(u8::MAX);
                }
                slot.scan(Some(&below), now, &mut look)?;
            }
            (false, None) => slot.scan(None, now, &mut look)?,
        }
    }
    let (next, found) = nearest.finish();
    ctx.reply.array(2);
    ctx.reply.bulk(&next);
    ctx.reply.array(found.len() * if with_values { 2 } else { 1 });
    for (key, entry) in found {
        ctx.reply.bulk(&key);
        if with_values {
            let value = Blob::of(&key, &entry).whole(&mut ctx.tx.reader(db, &key))?;
            ctx.reply.bulk(&value);
        }
    }
    Ok(())
}

/// PKHSCANRANGE key field-start field-end [MATCH pattern] [LIMIT count]
fn pkhscanrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    scan_fields(ctx, args, false)
}

/// PKHRSCANRANGE key field-start field-end [MATCH pattern] [LIMIT count]
fn pkhrscanrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    scan_fields(ctx, args, true)
}

/// Fields stand in no order that means anything: all of them are looked at, and as many as are wanted are kept.
fn scan_fields(ctx: &mut Ctx<'_, '_>, args: &[Bytes], reverse: bool) -> Result<(), CommandError> {
    let range = Range::parse(&args[2], &args[3], reverse, &args[4..])?;
    let mut nearest: Nearest<'_, Bytes> = Nearest::new(&range);
    if let Some(handle) = ctx.read_collection(&args[1], Kind::Hash)? {
        ctx.heavy(Handle::len(&handle))?;
        let now = ctx.now;
        hash::each(&mut ctx.reader(&args[1]), &handle, now, &mut |name, field| {
            nearest.offer(name, || Bytes::copy_from_slice(field.value));
            true
        })?;
    }
    let (next, found) = nearest.finish();
    ctx.reply.array(2);
    ctx.reply.bulk(&next);
    ctx.reply.array(found.len() * 2);
    for (field, value) in found {
        ctx.reply.bulk(&field);
        ctx.reply.bulk(&value);
    }
    Ok(())
}

/// PKPATTERNMATCHDEL pattern [max-count]
fn pkpatternmatchdel(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let max = match args.get(2) {
        Some(arg) => usize::try_from(numbers::integer(arg)?)
            .ok()
            .filter(|max| (1..=MAX_DELETED).contains(max))
            .ok_or(CommandError::NotInteger)?,
        None => MAX_DELETED,
    };
    let (db, now) = (ctx.db(), ctx.now);
    let keys = super::scan::matching(ctx.server.keyspace.db(db), &args[1], max, now)?;
    let mut deleted = 0;
    for key in keys {
        // The key may have gone since it was seen.
        ctx.tx.ensure(&key, true)?;
        if ctx.peek(&key)?.is_some() {
            ctx.tx.del(db, &key, now)?;
            ctx.notify(EventClass::Generic, "del", &key);
            deleted += 1;
        }
    }
    ctx.reply.int(deleted);
    Ok(())
}

/// PKSETEXAT key unix-time-seconds value
fn pksetexat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (db, key, now) = (ctx.db(), &args[1], ctx.now);
    let seconds = numbers::integer(&args[2])?;
    let at = seconds.checked_mul(1000).ok_or(CommandError::NotInteger)?;
    match u64::try_from(at) {
        Ok(at) if at > now => ctx.tx.set(db, key, args[3].clone(), Some(at), now)?,
        _ if ctx.peek(key)?.is_some() => ctx.tx.del(db, key, now)?,
        _ => {}
    }
    ctx.reply.ok();
    Ok(())
}

/// The databases in `db0,db3`, or in `0,3`.
fn databases(ctx: &Ctx<'_, '_>, names: &[u8]) -> Result<Vec<usize>, CommandError> {
    let number = |name: &[u8]| {
        let digits = name.strip_prefix(b"db").unwrap_or(name);
        let db = numbers::parse_i64(digits).and_then(|db| usize::try_from(db).ok());
        let invalid = || CommandError::Text(format!("ERR invalid DB for '{}'", String::from_utf8_lossy(name)));
        db.filter(|db| *db < ctx.server.keyspace.databases()).ok_or_else(invalid)
    };
    names.split(|byte| *byte == b',').map(number).collect()
}

/// COMPACT [db[,db ...]]
fn compact(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let databases = match args {
        [_] => (0..ctx.server.keyspace.databases()).collect(),
        [_, names] => databases(ctx, names)?,
        _ => return Err(CommandError::Syntax),
    };
    begin_compaction(ctx, &databases, None)
}

/// COMPACTRANGE db[,db ...] first-key last-key
fn compactrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let databases = databases(ctx, &args[1])?;
    begin_compaction(ctx, &databases, Some((args[2].clone(), args[3].clone())))
}

fn begin_compaction(
    ctx: &mut Ctx<'_, '_>,
    databases: &[usize],
    keys: Option<(Bytes, Bytes)>,
) -> Result<(), CommandError> {
    if !ctx.server.keyspace.compact_in_background(databases, keys) {
        return Err(CommandError::Static("ERR a compaction is going on already"));
    }
    ctx.reply.ok();
    Ok(())
}

/// PURGELOGSTO write2fileN [db]
fn purgelogsto(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let below = args[1].strip_prefix(BINLOG_PREFIX).and_then(numbers::parse_i64);
    let below = below.and_then(|below| u32::try_from(below).ok());
    let below = below.ok_or(CommandError::Static("ERR Invalid Argument"))?;
    let databases = match args {
        [_, _] => vec![0],
        [_, _, names] => databases(ctx, names)?,
        _ => return Err(CommandError::Syntax),
    };
    for db in databases {
        for slot in ctx.server.keyspace.db(db).slots() {
            slot.purge_below(below)?;
        }
    }
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: &'static str, to: &'static str, reverse: bool, limit: usize) -> Range<'static> {
        Range { from: from.as_bytes(), to: to.as_bytes(), reverse, pattern: None, limit }
    }

    #[test]
    fn the_nearest_names_are_kept() {
        for (from, to, reverse, limit, next, names) in [
            ("", "", false, 2, "c", "ab"),
            ("", "", true, 2, "c", "ed"),
            ("b", "d", false, 9, "", "bcd"),
            ("d", "b", true, 2, "b", "dc"),
            ("f", "", false, 2, "", ""),
            ("", "", false, 5, "", "abcde"),
        ] {
            let range = range(from, to, reverse, limit);
            let mut nearest = Nearest::new(&range);
            ["d", "a", "e", "c", "b"].iter().for_each(|name| nearest.offer(name.as_bytes(), || ()));
            let (found_next, found) = nearest.finish();
            let found: String = found.iter().map(|(name, ())| String::from_utf8_lossy(name)).collect();
            assert_eq!((&found_next[..], found.as_str()), (next.as_bytes(), names), "{from} {to} {reverse} {limit}");
        }
    }
}
