//! SORT and SORT_RO: the elements of a list, set or sorted set in the order of themselves or of other keys.
//!
//! The keys that BY and GET lead to are known only once the elements are: each is locked when it is met, and the command runs again
//! with more locks when that cannot be had.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, KeyRef, Keys, Spec, Within, numbers};
use crate::keyspace::types::blob::Blob;
use crate::keyspace::types::{Handle, hash, list, refill, set, zset};
use crate::keyspace::{Entry, Kind};
use crate::pubsub::EventClass;

const BASE: Spec = Spec {
    name: "sort",
    arity: -2,
    flags: Flags::WRITE.and(Flags::DENYOOM).and(Flags::PLANNED).and(Flags::MOVABLE_KEYS).and(Flags::DANGEROUS),
    keys: Keys::Find(keys_of_sort),
    group: Group::Generic,
    since: "1.0.0",
    complexity: "O(N+M*log(M)), N being the number of elements and M of those answered.",
    summary: "Answers, or stores, the elements of a list, set or sorted set in some order.",
    usage: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA] [STORE destination]",
    handler: sort,
    subcommands: &[],
};

/// The family's part of the command table.
pub static SORT: &[Spec] = &[
    BASE,
    Spec {
        name: "sort_ro",
        flags: Flags::READONLY.and(Flags::PLANNED).and(Flags::MOVABLE_KEYS).and(Flags::DANGEROUS),
        since: "7.0.0",
        summary: "SORT without STORE.",
        usage: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA]",
        handler: sort_ro,
        ..BASE
    },
];

/// The options of SORT.
#[derive(Default)]
struct Options<'a> {
    by: Option<Pattern<'a>>,
    /// BY a pattern without a star: the elements stay in their order.
    unsorted: bool,
    get: Vec<Pattern<'a>>,
    offset: i64,
    /// All, if negative.
    count: i64,
    descending: bool,
    alpha: bool,
    store: Option<&'a Bytes>,
}

impl<'a> Options<'a> {
    fn parse(args: &'a [Bytes], may_store: bool) -> Result<Options<'a>, CommandError> {
        let mut options = Options { count: -1, ..Options::default() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let left = args.len();
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            if is("asc") {
                options.descending = false;
            } else if is("desc") {
                options.descending = true;
            } else if is("alpha") {
                options.alpha = true;
            } else if is("limit") && left >= 2 {
                let mut number = || numbers::integer(args.next().map_or(&[][..], |arg| arg));
                (options.offset, options.count) = (number()?, number()?);
            } else if may_store && is("store") && left >= 1 {
                options.store = args.next();
            } else if is("by") && left >= 1 {
                let pattern = args.next().map(|text| Pattern::parse(text));
                // As in Redis, once unsorted is unsorted for good.
                options.unsorted |= matches!(pattern, Some(Pattern::Nothing | Pattern::Element));
                options.by = pattern;
            } else if is("get") && left >= 1 {
                options.get.extend(args.next().map(|text| Pattern::parse(text)));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// What an element leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern<'a> {
    /// `#`: itself.
    Element,
    /// No star: nothing.
    Nothing,
    /// The element between two texts is a key; of a hash if a field is named.
    Key { before: &'a [u8], after: &'a [u8], field: Option<&'a [u8]> },
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a [u8]) -> Pattern<'a> {
        if text == b"#" {
            return Pattern::Element;
        }
        let Some(star) = memchr::memchr(b'*', text) else { return Pattern::Nothing };
        let (before, after) = (&text[..star], &text[star + 1..]);
        match memchr::memmem::find(after, b"->") {
            Some(arrow) if arrow + 2 < after.len() => {
                Pattern::Key { before, after: &after[..arrow], field: Some(&after[arrow + 2..]) }
            }
            _ => Pattern::Key { before, after, field: None },
        }
    }

    /// What `element` leads to, if it is there.
    fn follow(self, ctx: &mut Ctx<'_, '_>, element: &Bytes) -> Result<Option<Bytes>, CommandError> {
        let (before, after, field) = match self {
            Pattern::Element => return Ok(Some(element.clone())),
            Pattern::Nothing => return Ok(None),
            Pattern::Key { before, after, field } => (before, after, field),
        };
        let key = Bytes::from([before, element, after].concat());
        let db = ctx.db();
        ctx.tx.ensure(&key, false)?;
        let Some(entry) = ctx.tx.get(db, &key, ctx.now)? else { return Ok(None) };
        match (field, entry.kind) {
            (None, Kind::String) => Ok(Some(Blob::of(&key, &entry).whole(&mut ctx.tx.reader(db, &key))?)),
            (Some(field), Kind::Hash) => {
                let Some(handle) = Handle::of(&key, &entry) else { return Ok(None) };
                Ok(hash::get(&mut ctx.tx.reader(db, &key), &handle, field, ctx.now)?.map(|field| field.value))
            }
            _ => Ok(None),
        }
    }
}

/// The key to sort, and the one to store to.
fn keys_of_sort(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    let [_, key, options @ ..] = args else { return };
    found.push(KeyRef { db, key: key.clone() });
    if let Ok(Options { store: Some(store), .. }) = Options::parse(options, true) {
        found.push(KeyRef { db, key: store.clone() });
    }
}

/// SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE destination]
fn sort(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    run(ctx, args, true)
}

/// SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA]
fn sort_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    run(ctx, args, false)
}

fn run(ctx: &mut Ctx<'_, '_>, args: &[Bytes], may_store: bool) -> Result<(), CommandError> {
    let mut options = Options::parse(&args[2..], may_store)?;
    let entry = ctx.read(&args[1])?;
    if entry.as_ref().is_some_and(|entry| !matches!(entry.kind, Kind::List | Kind::Set | Kind::Zset)) {
        return Err(CommandError::WrongType);
    }
    if options.unsorted
        && entry.as_ref().is_some_and(|entry| entry.kind == Kind::Set)
        && (options.store.is_some() || ctx.within == Within::Script)
    {
        // A set has no order of its own that others could know.
        (options.unsorted, options.alpha, options.by) = (false, true, None);
    }
    let elements = match entry {
        Some(entry) => sorted(ctx, &args[1], &entry, &options)?,
        None => Vec::new(),
    };
    let mut found = Vec::with_capacity(elements.len() * options.get.len().max(1));
    for element in elements {
        if options.get.is_empty() {
            found.push(Some(element));
            continue;
        }
        for pattern in &options.get {
            found.push(pattern.follow(ctx, &element)?);
        }
    }
    match options.store {
        Some(key) => store(ctx, key, found),
        None => {
            ctx.reply.array(found.len());
            for element in found {
                match element {
                    Some(element) => ctx.reply.bulk(&element),
                    None => ctx.reply.null(),
                }
            }
            Ok(())
        }
    }
}

fn store(ctx: &mut Ctx<'_, '_>, key: &Bytes, found: Vec<Option<Bytes>>) -> Result<(), CommandError> {
    let (db, len) = (ctx.db(), found.len());
    if len > 0 {
        let effects = refill::list(key, found.into_iter().map(Option::unwrap_or_default));
        super::keys::values::fill(ctx, (db, key), Kind::List, effects, None)?;
        ctx.notify(EventClass::List, "sortstore", key);
    } else if ctx.peek(key)?.is_some() {
        ctx.tx.del(db, key, ctx.now)?;
        ctx.notify(EventClass::Generic, "del", key);
    }
    ctx.reply.int(len as i64);
    Ok(())
}

/// The elements in their order, of which LIMIT leaves some.
fn sorted(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    entry: &Entry,
    options: &Options<'_>,
) -> Result<Vec<Bytes>, CommandError> {
    let Some(handle) = Handle::of(key, entry) else { return Ok(Vec::new()) };
    let len = handle.len();
    let start = u64::try_from(options.offset).unwrap_or(0).min(len);
    let count = u64::try_from(options.count).map_or(len - start, |count| count.min(len - start));
    if options.unsorted {
        ctx.heavy(start.saturating_add(count))?;
        return in_place(ctx, &handle, options.descending, start, count);
    }
    ctx.heavy(len)?;
    let elements = in_place(ctx, &handle, false, 0, len)?;
    let mut weighed = weigh(ctx, elements, options)?;
    let compare = |a: &(Weight, Bytes), b: &(Weight, Bytes)| {
        let order = a.0.compare(&b.0).then_with(|| match options.by {
            // Equal weights that are texts say all that there is to say.
            Some(_) if options.alpha => Ordering::Equal,
            _ => a.1.cmp(&b.1),
        });
        if options.descending { order.reverse() } else { order }
    };
    weighed.sort_by(compare);
    Ok(weighed.into_iter().skip(start as usize).take(count as usize).map(|(_, element)| element).collect())
}

/// `count` elements from `start` on, in the order in which the value holds them or the opposite one.
fn in_place(
    ctx: &mut Ctx<'_, '_>,
    handle: &Handle,
    reverse: bool,
    start: u64,
    count: u64,
) -> Result<Vec<Bytes>, CommandError> {
    let mut elements = Vec::new();
    let mut skip = start;
    let mut take = |element: &[u8]| {
        if skip > 0 {
            skip -= 1;
        } else if (elements.len() as u64) < count {
            elements.push(Bytes::copy_from_slice(element));
        }
        (elements.len() as u64) < count
    };
    let reader = &mut ctx.reader(&handle.key);
    match handle.kind {
        _ if count == 0 => {}
        Kind::List => list::each(reader, handle, 0, handle.len(), reverse, &mut |_, element| take(element))?,
        Kind::Zset => zset::each_by_score(reader, handle, &[], None, reverse, &mut |member, _| take(member))?,
        _ => set::each(reader, handle, &mut |member| take(member))?,
    }
    Ok(elements)
}

/// What an element is compared by.
#[derive(Debug, PartialEq)]
enum Weight {
    Number(f64),
    /// Texts; `None`, for a key that is not there, is the least.
    Text(Option<Bytes>),
}

impl Weight {
    fn compare(&self, other: &Weight) -> Ordering {
        match (self, other) {
            (Weight::Number(a), Weight::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Weight::Text(a), Weight::Text(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }
}

fn weigh(
    ctx: &mut Ctx<'_, '_>,
    elements: Vec<Bytes>,
    options: &Options<'_>,
) -> Result<Vec<(Weight, Bytes)>, CommandError> {
    let mut weighed = Vec::with_capacity(elements.len());
    let mut all_numbers = true;
    for element in elements {
        let by = match options.by {
            Some(pattern) => pattern.follow(ctx, &element)?,
            None => Some(element.clone()),
        };
        let weight = match by {
            by if options.alpha => Weight::Text(by),
            None => Weight::Number(0.0),
            Some(text) => {
                let number = number(&text);
                all_numbers &= number.is_some();
                Weight::Number(number.unwrap_or_default())
            }
        };
        weighed.push((weight, element));
    }
    if all_numbers {
        Ok(weighed)
    } else {
        Err(CommandError::Static("ERR One or more scores can't be converted into double"))
    }
}

/// Reads what C's `strtod` reads and uses up: spaces before the number are nothing, and nothing is zero. What follows a zero byte is not
/// seen.
fn number(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let spaces = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    super::float::parse_f64(&text[spaces..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let key = |before, after, field| Pattern::Key { before, after, field };
        assert_eq!(Pattern::parse(b"#"), Pattern::Element);
        assert_eq!(Pattern::parse(b"nosort"), Pattern::Nothing);
        assert_eq!(Pattern::parse(b"w_*"), key(b"w_", b"", None));
        assert_eq!(Pattern::parse(b"a*b->c"), key(b"a", b"b", Some(b"c")));
        assert_eq!(Pattern::parse(b"a*b->"), key(b"a", b"b->", None));
        assert_eq!(Pattern::parse(b"x->*->y"), key(b"x->", b"", Some(b"y")));
        assert_eq!(Pattern::parse(b"**"), key(b"", b"*", None));
    }

    #[test]
    fn numbers_as_c_reads_them() {
        assert_eq!(number(b""), Some(0.0));
        assert_eq!(number(b" \t1.5"), Some(1.5));
        assert_eq!(number(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(number(b"3\0x"), Some(3.0));
        for bad in [&b"1 "[..], b"x", b"1x", b"nan", b" "] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
