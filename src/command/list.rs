//! List commands.

mod moves;
mod pops;
mod search;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, KeyRef, Keys, Spec, numbers};
use crate::keyspace::types::list::{self, Change};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const WRITE_COUNTED: Flags = WRITE.and(Flags::MOVABLE_KEYS);
const GROW: Flags = WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
const BLOCK: Flags = WRITE.and(Flags::NOSCRIPT).and(Flags::BLOCKING);
const BLOCK_COUNTED: Flags = WRITE_COUNTED.and(Flags::BLOCKING);
const GROW_BLOCK: Flags = BLOCK.and(Flags::DENYOOM);

/// The family's part of the command table.
pub static LIST: &[Spec] = &[
    Spec {
        name: "blmove",
        arity: 6,
        flags: GROW_BLOCK,
        keys: Keys::TWO,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Moves an element from one list to another, or waits for one.",
        usage: "source destination LEFT|RIGHT LEFT|RIGHT timeout",
        handler: moves::blmove,
        ..BASE
    },
    Spec {
        name: "blmpop",
        arity: -5,
        flags: BLOCK_COUNTED,
        keys: Keys::Find(blmpop_keys),
        since: "7.0.0",
        complexity: "O(N+M), N being the number of keys and M that of elements answered.",
        summary: "Removes and answers elements of the first list that has any, or waits for one.",
        usage: "timeout numkeys key [key ...] LEFT|RIGHT [COUNT count]",
        handler: pops::blmpop,
        ..BASE
    },
    Spec {
        name: "blpop",
        arity: -3,
        flags: BLOCK,
        keys: Keys::Range { first: 1, last: -2, step: 1 },
        since: "2.0.0",
        complexity: "O(N), N being the number of keys.",
        summary: "Removes and answers the first element of the first list that has any, or waits for one.",
        usage: "key [key ...] timeout",
        handler: pops::blpop,
        ..BASE
    },
    Spec {
        name: "brpop",
        arity: -3,
        flags: BLOCK,
        keys: Keys::Range { first: 1, last: -2, step: 1 },
        since: "2.0.0",
        complexity: "O(N), N being the number of keys.",
        summary: "Removes and answers the last element of the first list that has any, or waits for one.",
        usage: "key [key ...] timeout",
        handler: pops::brpop,
        ..BASE
    },
    Spec {
        name: "brpoplpush",
        arity: 4,
        flags: GROW_BLOCK,
        keys: Keys::TWO,
        since: "2.2.0",
        complexity: "O(1)",
        summary: "Moves the last element of a list to the front of another, or waits for one.",
        usage: "source destination timeout",
        handler: moves::brpoplpush,
        ..BASE
    },
    Spec {
        name: "lindex",
        arity: 3,
        flags: READ,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Answers the element at an index; negative ones count from the end.",
        usage: "key index",
        handler: lindex,
        ..BASE
    },
    Spec {
        name: "linsert",
        arity: 5,
        flags: GROW,
        keys: Keys::ONE,
        since: "2.2.0",
        complexity: "O(N), N being the length of the list.",
        summary: "Inserts an element before or after another one.",
        usage: "key BEFORE|AFTER pivot element",
        handler: search::linsert,
        ..BASE
    },
    Spec {
        name: "llen",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Answers the length of a list.",
        usage: "key",
        handler: llen,
        ..BASE
    },
    Spec {
        name: "lmove",
        arity: 5,
        flags: GROW,
        keys: Keys::TWO,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Moves an element from one end of a list to one of another and answers it.",
        usage: "source destination LEFT|RIGHT LEFT|RIGHT",
        handler: moves::lmove,
        ..BASE
    },
    Spec {
        name: "lmpop",
        arity: -4,
        flags: WRITE_COUNTED,
        keys: Keys::Find(lmpop_keys),
        since: "7.0.0",
        complexity: "O(N+M), N being the number of keys and M that of elements answered.",
        summary: "Removes and answers elements of the first list that has any.",
        usage: "numkeys key [key ...] LEFT|RIGHT [COUNT count]",
        handler: pops::lmpop,
        ..BASE
    },
    Spec {
        name: "lpop",
        arity: -2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the number of elements answered.",
        summary: "Removes and answers elements at the front of a list.",
        usage: "key [count]",
        handler: pops::lpop,
        ..BASE
    },
    Spec {
        name: "lpos",
        arity: -3,
        flags: READ,
        keys: Keys::ONE,
        since: "6.0.6",
        complexity: "O(N), N being the number of elements looked at.",
        summary: "Answers the indexes of elements that are equal to one given.",
        usage: "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
        handler: search::lpos,
        ..BASE
    },
    Spec {
        name: "lpush",
        arity: -3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the number of elements added.",
        summary: "Adds elements to the front of a list, creating it when there is none.",
        usage: "key element [element ...]",
        handler: lpush,
        ..BASE
    },
    Spec {
        name: "lpushx",
        arity: -3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        since: "2.2.0",
        complexity: "O(N), N being the number of elements added.",
        summary: "Adds elements to the front of a list that is there.",
        usage: "key element [element ...]",
        handler: lpushx,
        ..BASE
    },
    Spec {
        name: "lrange",
        arity: 4,
        flags: READ,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the number of elements answered.",
        summary: "Answers the elements between two indexes.",
        usage: "key start stop",
        handler: lrange,
        ..BASE
    },
    Spec {
        name: "lrem",
        arity: 4,
        flags: WRITE,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the length of the list.",
        summary: "Removes elements that are equal to one given.",
        usage: "key count element",
        handler: search::lrem,
        ..BASE
    },
    Spec {
        name: "lset",
        arity: 4,
        flags: GROW,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Replaces the element at an index.",
        usage: "key index element",
        handler: lset,
        ..BASE
    },
    Spec {
        name: "ltrim",
        arity: 4,
        flags: WRITE,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the number of elements removed.",
        summary: "Removes all elements but those between two indexes.",
        usage: "key start stop",
        handler: ltrim,
        ..BASE
    },
    Spec {
        name: "rpop",
        arity: -2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the number of elements answered.",
        summary: "Removes and answers elements at the end of a list.",
        usage: "key [count]",
        handler: pops::rpop,
        ..BASE
    },
    Spec {
        name: "rpoplpush",
        arity: 3,
        flags: GROW,
        keys: Keys::TWO,
        since: "1.2.0",
        complexity: "O(1)",
        summary: "Moves the last element of a list to the front of another and answers it.",
        usage: "source destination",
        handler: moves::rpoplpush,
        ..BASE
    },
    Spec {
        name: "rpush",
        arity: -3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        since: "1.0.0",
        complexity: "O(N), N being the number of elements added.",
        summary: "Adds elements to the end of a list, creating it when there is none.",
        usage: "key element [element ...]",
        handler: rpush,
        ..BASE
    },
    Spec {
        name: "rpushx",
        arity: -3,
        flags: GROW_FAST,
        keys: Keys::ONE,
        since: "2.2.0",
        complexity: "O(N), N being the number of elements added.",
        summary: "Adds elements to the end of a list that is there.",
        usage: "key element [element ...]",
        handler: rpushx,
        ..BASE
    },
];

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::List,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: llen,
    subcommands: &[],
};

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Left,
    Right,
}

impl End {
    fn parse(word: &[u8]) -> Result<End, CommandError> {
        if word.eq_ignore_ascii_case(b"left") {
            Ok(End::Left)
        } else if word.eq_ignore_ascii_case(b"right") {
            Ok(End::Right)
        } else {
            Err(CommandError::Syntax)
        }
    }

    fn is_left(self) -> bool {
        self == End::Left
    }

    fn push_event(self) -> &'static str {
        if self.is_left() { "lpush" } else { "rpush" }
    }

    fn pop_event(self) -> &'static str {
        if self.is_left() { "lpop" } else { "rpop" }
    }
}

fn lmpop_keys(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    found.extend(counted_keys(args, 1).iter().map(|key| KeyRef { db, key: key.clone() }));
}

fn blmpop_keys(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    found.extend(counted_keys(args, 2).iter().map(|key| KeyRef { db, key: key.clone() }));
}

/// The keys after their number at `at`; none where the number is none, or too large.
fn counted_keys(args: &[Bytes], at: usize) -> &[Bytes] {
    let number = args.get(at).and_then(|number| numbers::parse_i64(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.and_then(|number| args.get(at + 1..(at + 1).checked_add(number)?)).unwrap_or_default()
}

/// The index that a client means; negative ones count from the end. `None` outside of the list.
fn resolve(index: i64, len: u64) -> Option<u64> {
    let index = if index < 0 { len.checked_sub(index.unsigned_abs())? } else { index as u64 };
    (index < len).then_some(index)
}

/// First index, and the one after the last, of the part of a list from `start` to `stop` as clients mean them.
fn span(start: i64, stop: i64, len: u64) -> (u64, u64) {
    let absolute = |index: i64| if index < 0 { len as i64 + index.max(-(len as i64) - 1) } else { index };
    let first = absolute(start).max(0) as u64;
    let end = (absolute(stop).saturating_add(1).max(0) as u64).min(len);
    if first < end { (first, end) } else { (0, 0) }
}

/// Adds elements to an end of the list at `key`, which is created if there is none.
fn add(ctx: &mut Ctx<'_, '_>, key: &Bytes, end: End, elements: Vec<Bytes>) -> Result<(), CommandError> {
    ctx.create_if_missing(key, Kind::List)?;
    ctx.apply(Effect::List(key.clone(), Change::Push { left: end.is_left(), elements }))?;
    Ok(())
}

fn push(ctx: &mut Ctx<'_, '_>, args: &[Bytes], end: End, only_if_there: bool) -> Result<(), CommandError> {
    let (key, elements) = (&args[1], &args[2..]);
    let len = ctx.peek_collection(key, Kind::List)?.map(|list| list.len());
    if only_if_there && len.is_none() {
        ctx.reply.int(0);
        return Ok(());
    }
    add(ctx, key, end, elements.to_vec())?;
    ctx.notify(EventClass::List, end.push_event(), key);
    ctx.reply.int((len.unwrap_or(0) + elements.len() as u64) as i64);
    Ok(())
}

/// LPUSH key element [element ...]
fn lpush(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    push(ctx, args, End::Left, false)
}

/// RPUSH key element [element ...]
fn rpush(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    push(ctx, args, End::Right, false)
}

/// LPUSHX key element [element ...]
fn lpushx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    push(ctx, args, End::Left, true)
}

/// RPUSHX key element [element ...]
fn rpushx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    push(ctx, args, End::Right, true)
}

/// LLEN key
fn llen(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let len = ctx.read_collection(&args[1], Kind::List)?.map_or(0, |list| list.len());
    ctx.reply.int(len as i64);
    Ok(())
}

/// LINDEX key index
fn lindex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let element = match ctx.read_collection(&args[1], Kind::List)? {
        None => None,
        Some(list) => match resolve(numbers::integer(&args[2])?, list.len()) {
            None => None,
            Some(index) => list::get(&mut ctx.reader(&args[1]), &list, index)?,
        },
    };
    match element {
        Some(element) => ctx.reply.bulk(&element),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// LSET key index element
fn lset(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let list = ctx.peek_collection(key, Kind::List)?.ok_or(CommandError::NoSuchKey)?;
    let index = resolve(numbers::integer(&args[2])?, list.len());
    let index = index.ok_or(CommandError::Static("ERR index out of range"))?;
    ctx.apply(Effect::List(key.clone(), Change::Set { index, element: args[3].clone() }))?;
    ctx.notify(EventClass::List, "lset", key);
    ctx.reply.ok();
    Ok(())
}

/// LRANGE key start stop
fn lrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (start, stop) = (numbers::integer(&args[2])?, numbers::integer(&args[3])?);
    let Some(list) = ctx.read_collection(&args[1], Kind::List)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let (first, end) = span(start, stop, list.len());
    ctx.heavy(end - first)?;
    ctx.reply.array((end - first) as usize);
    let (db, reply) = (ctx.client.db(), &mut *ctx.reply);
    ctx.tx.read_last(db, &args[1], |reader| {
        list::each(reader, &list, first, end, false, &mut |_, element| {
            reply.bulk(element);
            true
        })
    })?;
    Ok(())
}

/// LTRIM key start stop
fn ltrim(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let (start, stop) = (numbers::integer(&args[2])?, numbers::integer(&args[3])?);
    if let Some(list) = ctx.peek_collection(key, Kind::List)? {
        let (first, end) = span(start, stop, list.len());
        ctx.heavy(list.len() - (end - first))?;
        let change = match first < end {
            true => Change::Trim { first, last: end - 1 },
            false => Change::Pop { left: true, count: list.len() },
        };
        ctx.apply(Effect::List(key.clone(), change))?;
        ctx.notify(EventClass::List, "ltrim", key);
        if first == end {
            ctx.notify(EventClass::Generic, "del", key);
        }
    }
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_clients_mean_them() {
        for ((start, stop), expected) in [
            ((0, -1), (0, 5)),
            ((1, 2), (1, 3)),
            ((-2, -1), (3, 5)),
            ((-100, 100), (0, 5)),
            ((3, 2), (0, 0)),
            ((5, 9), (0, 0)),
            ((0, -6), (0, 0)),
            ((0, -5), (0, 1)),
            ((i64::MIN, i64::MAX), (0, 5)),
            ((i64::MAX, i64::MIN), (0, 0)),
        ] {
            assert_eq!(span(start, stop, 5), expected, "{start} {stop}");
        }
        assert_eq!((resolve(-5, 5), resolve(4, 5)), (Some(0), Some(4)));
        assert_eq!((resolve(-6, 5), resolve(5, 5), resolve(i64::MIN, 5)), (None, None, None));
    }

    #[test]
    fn keys_with_their_number() {
        let find = |text: &str| {
            let args: Vec<Bytes> = text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            let mut found = Vec::new();
            lmpop_keys(0, &args, &mut found);
            found.iter().map(|found| found.key.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(find("lmpop 2 a b left"), [b"a", b"b"]);
        for bad in ["lmpop 9 a left", "lmpop x a left", "lmpop -1 a left", "lmpop 9223372036854775807 a left"] {
            assert!(find(bad).is_empty(), "{bad}");
        }
    }
}
