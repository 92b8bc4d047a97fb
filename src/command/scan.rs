//! Commands over all keys of a database: SCAN, KEYS, RANDOMKEY; and the cursors of SCAN.
//!
//! Keys come slot by slot, within a slot in byte order. A cursor stands for the last key that was looked
//! at, so a key that is there from the first call to the last is answered once and only once.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, glob, numbers};
use crate::keyspace::{Database, Entry};

/// The family's part of the command table.
pub static SCAN: &[Spec] = &[
    Spec {
        name: "keys",
        arity: 2,
        flags: WHOLE_DATABASE.and(Flags::DANGEROUS),
        keys: Keys::None,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(N), N being the number of keys that begin like the pattern.",
        summary: "Answers all keys that match a glob pattern.",
        usage: "pattern",
        handler: keys,
        subcommands: &[],
    },
    Spec {
        name: "randomkey",
        arity: 1,
        flags: WHOLE_DATABASE,
        keys: Keys::None,
        group: Group::Generic,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Answers some key.",
        usage: "",
        handler: randomkey,
        subcommands: &[],
    },
    Spec {
        name: "scan",
        arity: -2,
        flags: WHOLE_DATABASE,
        keys: Keys::None,
        group: Group::Generic,
        since: "2.8.0",
        complexity: "O(COUNT) for every call, O(N) for a whole iteration over N keys.",
        summary: "Answers the keys of a database a few at a time.",
        usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        handler: scan,
        subcommands: &[],
    },
];

const WHOLE_DATABASE: Flags = Flags::READONLY.and(Flags::BLOCKING_POOL).and(Flags::ALL_KEYS);

/// Keys that are looked at in one go where only some are wanted.
const MATCHING_STEP: u64 = 1000;
/// Keys that a call of SCAN looks at unless COUNT says otherwise.
const DEFAULT_COUNT: u64 = 10;

/// Which keys an iteration is to answer.
struct Filter<'a> {
    /// None for every key.
    pattern: Option<&'a [u8]>,
    /// What every matching key begins with.
    prefix: Vec<u8>,
    /// The name of a type, as TYPE answers it.
    kind: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    fn new(pattern: Option<&'a [u8]>, kind: Option<&'a [u8]>) -> Filter<'a> {
        let pattern = pattern.filter(|pattern| !glob::matches_everything(pattern));
        Filter { pattern, prefix: pattern.map(glob::literal_prefix).unwrap_or_default(), kind }
    }

    /// A key below every matching one, close to the first.
    fn start(&self) -> Option<Vec<u8>> {
        let (last, head) = self.prefix.split_last()?;
        let mut below = head.to_vec();
        if let Some(smaller) = last.checked_sub(1) {
            below.push(smaller);
            below.push(u8::MAX);
        }
        Some(below)
    }

    /// Whether no key from `key` on can match.
    fn is_past(&self, key: &[u8]) -> bool {
        key > self.prefix.as_slice() && !key.starts_with(&self.prefix)
    }

    fn admits(&self, key: &[u8], entry: &Entry) -> bool {
        self.kind.is_none_or(|kind| kind.eq_ignore_ascii_case(entry.kind.name().as_bytes()))
            && self.pattern.is_none_or(|pattern| glob::matches(pattern, key))
    }
}

/// Where an iteration stands: in which slot, by its place among the database's slots, and after which of its keys
/// (none: at its beginning).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    slot: usize,
    after: Option<Bytes>,
}

/// Looks at up to `count` keys from `progress` on; what `filter` admits goes to `found`. Returns where to go on,
/// or `None` at the end.
fn walk(
    database: &Database,
    mut progress: Progress,
    mut count: u64,
    filter: &Filter<'_>,
    now: u64,
    found: &mut Vec<Bytes>,
) -> Result<Option<Progress>, CommandError> {
    let start = filter.start();
    while let Some(slot) = database.slots().get(progress.slot) {
        let mut interrupted = false;
        let mut last = None;
        slot.scan(progress.after.as_deref().max(start.as_deref()), now, &mut |key, entry| {
            if filter.is_past(key) {
                return false;
            }
            if count == 0 {
                interrupted = true;
                return false;
            }
            count -= 1;
            let admitted = filter.admits(key, entry);
            if admitted || count == 0 {
                let key = Bytes::copy_from_slice(key);
                if admitted {
                    found.push(key.clone());
                }
                last = Some(key);
            }
            true
        })?;
        if interrupted {
            // `last` is empty when the count was used up in an earlier slot.
            return Ok(Some(Progress { slot: progress.slot, after: last.or(progress.after) }));
        }
        progress = Progress { slot: progress.slot + 1, after: None };
    }
    Ok(None)
}

/// Up to `max` keys that match a pattern.
pub fn matching(database: &Database, pattern: &[u8], max: usize, now: u64) -> Result<Vec<Bytes>, CommandError> {
    let filter = Filter::new(Some(pattern), None);
    let (mut found, mut progress) = (Vec::new(), Some(Progress::default()));
    while let Some(from) = progress.filter(|_| found.len() < max) {
        progress = walk(database, from, MATCHING_STEP, &filter, now, &mut found)?;
    }
    found.truncate(max);
    Ok(found)
}

/// KEYS pattern
fn keys(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let filter = Filter::new(Some(&args[1]), None);
    let mut found = Vec::new();
    let database = ctx.server.keyspace.db(ctx.db());
    walk(database, Progress::default(), u64::MAX, &filter, ctx.now, &mut found)?;
    reply_keys(ctx, &found);
    Ok(())
}

fn reply_keys(ctx: &mut Ctx<'_, '_>, keys: &[Bytes]) {
    ctx.reply.array(keys.len());
    for key in keys {
        ctx.reply.bulk(key);
    }
}

/// RANDOMKEY
fn randomkey(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    match ctx.server.keyspace.random_key(ctx.db(), ctx.now)? {
        Some(key) => ctx.reply.bulk(&key),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
fn scan(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let cursor = parse_cursor(&args[1])?;
    let (mut pattern, mut kind, mut count) = (None, None, DEFAULT_COUNT);
    let mut options = args[2..].iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or(CommandError::Syntax)?;
        if option.eq_ignore_ascii_case(b"match") {
            pattern = Some(&value[..]);
        } else if option.eq_ignore_ascii_case(b"type") {
            kind = Some(&value[..]);
        } else if option.eq_ignore_ascii_case(b"count") {
            count = u64::try_from(numbers::integer(value)?).unwrap_or(0);
            if count == 0 {
                return Err(CommandError::Syntax);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let db = ctx.db();
    let cursors = &ctx.server.scan_cursors;
    let progress = match cursor {
        0 => Progress::default(),
        id => cursors.find(db, id).ok_or(INVALID_CURSOR)?,
    };
    let mut found = Vec::new();
    let filter = Filter::new(pattern, kind);
    let next = walk(ctx.server.keyspace.db(db), progress, count, &filter, ctx.now, &mut found)?;
    let next = next.map_or(0, |progress| cursors.add(db, progress));
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    reply_keys(ctx, &found);
    Ok(())
}

const INVALID_CURSOR: CommandError = CommandError::Static("ERR invalid cursor");

/// Reads a cursor argument.
pub(super) fn parse_cursor(text: &[u8]) -> Result<u64, CommandError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(INVALID_CURSOR)
}

/// The cursors that SCAN handed out, the most recent ones of all clients.
///
/// A cursor is a number because clients take it for one; what it stands for stays here. Using one does not
/// consume it: a client that lost a reply may ask again. The oldest are forgotten beyond
/// 65,536 cursors or 16 MiB of keys, and all when the server stops.
#[derive(Debug)]
pub struct ScanCursors {
    recent: Mutex<Recent>,
}

/// Cursors with consecutive ids, oldest first.
#[derive(Debug)]
struct Recent {
    cursors: VecDeque<(usize, Progress)>,
    /// The id of the oldest, or of the next to come if there is none.
    oldest: u64,
    /// Bytes of keys held.
    bytes: usize,
}

impl ScanCursors {
    const MAX_CURSORS: usize = 65_536;
    const MAX_BYTES: usize = 16 << 20;

    /// An empty table. Its first id is random, so that a cursor from before a restart is not taken for a
    /// new one; ids stay below 2^53, which every client's number can hold.
    pub fn new() -> ScanCursors {
        let oldest = (u64::from(rand::random::<u32>()) << 20) | 1;
        ScanCursors { recent: Mutex::new(Recent { cursors: VecDeque::new(), oldest, bytes: 0 }) }
    }

    /// Remembers `progress` in database `db`; its cursor.
    fn add(&self, db: usize, progress: Progress) -> u64 {
        let mut recent = self.recent.lock();
        recent.bytes += progress.size();
        recent.cursors.push_back((db, progress));
        while recent.cursors.len() > 1 && (recent.cursors.len() > Self::MAX_CURSORS || recent.bytes > Self::MAX_BYTES) {
            if let Some((_, forgotten)) = recent.cursors.pop_front() {
                recent.bytes -= forgotten.size();
                recent.oldest += 1;
            }
        }
        recent.oldest + recent.cursors.len() as u64 - 1
    }

    /// What cursor `id` of database `db` stands for, if it is remembered.
    fn find(&self, db: usize, id: u64) -> Option<Progress> {
        let recent = self.recent.lock();
        let at = usize::try_from(id.checked_sub(recent.oldest)?).ok()?;
        let (of, progress) = recent.cursors.get(at)?;
        (*of == db).then(|| progress.clone())
    }
}

impl Default for ScanCursors {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    fn size(&self) -> usize {
        self.after.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(key: &str) -> Progress {
        Progress { slot: 1, after: Some(Bytes::copy_from_slice(key.as_bytes())) }
    }

    #[test]
    fn cursors_are_remembered_until_pushed_out() {
        let cursors = ScanCursors::new();
        let first = cursors.add(0, at("a"));
        let second = cursors.add(5, at("b"));
        assert!(first != 0 && first < second && second < 1 << 53);
        assert_eq!(cursors.find(0, first), Some(at("a")));
        assert_eq!(cursors.find(0, first), Some(at("a")), "using a cursor does not consume it");
        assert_eq!(cursors.find(5, second), Some(at("b")));
        assert_eq!(cursors.find(0, second), None, "a cursor belongs to a database");
        assert_eq!((cursors.find(0, first - 1), cursors.find(0, second + 1)), (None, None));
        for _ in 0..ScanCursors::MAX_CURSORS - 1 {
            cursors.add(0, at("c"));
        }
        assert_eq!(cursors.find(0, first), None);
        assert_eq!(cursors.find(5, second), Some(at("b")));
        let huge = cursors.add(0, at(&"x".repeat(ScanCursors::MAX_BYTES + 1)));
        assert!(cursors.find(0, huge).is_some());
        assert_eq!(cursors.find(0, huge - 1), None);
        assert_eq!(cursors.recent.lock().bytes, ScanCursors::MAX_BYTES + 1);
    }

    #[test]
    fn a_prefix_bounds_the_iteration() {
        let filter = Filter::new(Some(b"ab*"), None);
        let start = filter.start().unwrap();
        assert!(start.as_slice() < b"ab".as_slice() && start.as_slice() > b"aa".as_slice());
        assert!(!filter.is_past(b"aa\xff\xff\xff") && !filter.is_past(b"ab") && !filter.is_past(b"ab\xff"));
        assert!(filter.is_past(b"ac") && filter.is_past(b"b"));
        assert_eq!(Filter::new(Some(b"a\0*"), None).start().unwrap(), b"a");
        assert_eq!(Filter::new(Some(b"\0*"), None).start().unwrap(), b"");
        let every = Filter::new(Some(b"*"), None);
        assert!(every.start().is_none() && !every.is_past(b"") && !every.is_past(b"\xff"));
    }

    #[test]
    fn cursor_arguments() {
        assert!(matches!(parse_cursor(b"18446744073709551615"), Ok(u64::MAX)));
        for bad in ["", "x", " 0", "-1", "18446744073709551616"] {
            assert!(parse_cursor(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
