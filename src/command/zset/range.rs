//! Ranges of a sorted set, by rank, score or name: how they are written in requests, and going through them.

use std::ops::Bound;

use bytes::Bytes;

use crate::command::{CommandError, Ctx, float, numbers};
use crate::keyspace::types::Handle;
use crate::keyspace::types::zset::{self, Ends, Names, Scores};
use crate::keyspace::{Error, Read};

/// The order that a range is given in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Rank,
    Score,
    Name,
}

/// Some members of a sorted set.
#[derive(Clone, Copy, Debug)]
pub enum Range<'a> {
    /// From this rank to that one; negative ones count from the end.
    Ranks(i64, i64),
    Scores(Scores),
    Names(Names<'a>),
}

impl<'a> Range<'a> {
    /// Reads the two arguments that bound a range, the lower one first.
    pub fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Range<'a>, CommandError> {
        Ok(match by {
            By::Rank => Range::Ranks(numbers::integer(min)?, numbers::integer(max)?),
            By::Score => Range::Scores(scores(min, max)?),
            By::Name => Range::Names(names(min, max)?),
        })
    }
}

/// Two bounds of a range of scores: a number, after `(` when it is not itself in the range.
pub fn scores(min: &[u8], max: &[u8]) -> Result<Scores, CommandError> {
    match (score_bound(min), score_bound(max)) {
        (Some(min), Some(max)) => Ok(Scores { min, max }),
        _ => Err(CommandError::Static("ERR min or max is not a float")),
    }
}

fn score_bound(text: &[u8]) -> Option<Bound<f64>> {
    match text.strip_prefix(b"(") {
        Some(text) => number(text).map(Bound::Excluded),
        None => number(text).map(Bound::Included),
    }
}

/// A number as C's `strtod` reads it from a string that must be nothing else: spaces before it are skipped, nothing is zero, a zero byte is
/// the end, and what is too large for a double is infinite.
fn number(text: &[u8]) -> Option<f64> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let spaces = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let text = text.get(spaces..).unwrap_or_default();
    float::parse_f64(text).or_else(|| {
        let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        (!number.is_nan()).then_some(number)
    })
}

/// Two bounds of a range of names: `-`, `+`, or a name after `[`, or after `(` when it is not itself in the range.
pub fn names<'a>(min: &'a [u8], max: &'a [u8]) -> Result<Names<'a>, CommandError> {
    const INVALID: CommandError = CommandError::Static("ERR min or max not valid string range item");
    let (min, max) = name_bound(min).zip(name_bound(max)).ok_or(INVALID)?;
    Ok(match (min, max) {
        // A range that begins at the end, or ends at the beginning.
        (NameBound::Last, _) | (_, NameBound::First) => Names { min: Bound::Excluded(b""), max: Bound::Excluded(b"") },
        (min, max) => Names { min: min.bound(), max: max.bound() },
    })
}

enum NameBound<'a> {
    First,
    Last,
    At(Bound<&'a [u8]>),
}

impl<'a> NameBound<'a> {
    fn bound(self) -> Bound<&'a [u8]> {
        match self {
            NameBound::At(bound) => bound,
            NameBound::First | NameBound::Last => Bound::Unbounded,
        }
    }
}

fn name_bound(text: &[u8]) -> Option<NameBound<'_>> {
    match text {
        b"-" => Some(NameBound::First),
        b"+" => Some(NameBound::Last),
        [b'(', name @ ..] => Some(NameBound::At(Bound::Excluded(name))),
        [b'[', name @ ..] => Some(NameBound::At(Bound::Included(name))),
        _ => None,
    }
}

/// The first of the ranks and how many they are; `None` for none.
fn ranks(first: i64, last: i64, len: u64) -> Option<(u64, u64)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from_end = |rank: i64| if rank < 0 { len + rank } else { rank };
    let first = from_end(first).max(0);
    let last = from_end(last).min(len - 1);
    (first <= last).then(|| (first as u64, (last - first) as u64 + 1))
}

/// Which members a request is about, in which order.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub range: Range<'a>,
    pub reverse: bool,
    /// Members of the range that are left out at its beginning; negative: all.
    pub offset: i64,
    /// Members that are answered at most; negative: no limit.
    pub limit: i64,
}

impl<'a> Query<'a> {
    /// The whole range, in order.
    pub fn of(range: Range<'a>) -> Query<'a> {
        Query { range, reverse: false, offset: 0, limit: -1 }
    }
}

/// Calls `f` with the members that `query` asks for. May suspend the command: nothing must have been changed yet, and what `f` has
/// made is to be dropped on an error.
///
/// O(log N) to find scores and names. Ranks cost the steps from the nearer end, offsets those from the range's beginning.
pub fn walk(
    ctx: &mut Ctx<'_, '_>,
    zset: &Handle,
    query: &Query<'_>,
    f: &mut dyn FnMut(&[u8], f64),
) -> Result<(), CommandError> {
    walk_with(ctx, zset, query, f, |ctx, zset, read| read(&mut ctx.reader(&zset.key)))
}

/// [`walk`] as the last thing that a command does which only reads: others need not wait for it.
pub fn walk_last(
    ctx: &mut Ctx<'_, '_>,
    zset: &Handle,
    query: &Query<'_>,
    f: &mut dyn FnMut(&[u8], f64),
) -> Result<(), CommandError> {
    walk_with(ctx, zset, query, f, |ctx, zset, read| {
        let db = ctx.db();
        ctx.tx.read_last(db, &zset.key, |state| read(state))
    })
}

/// A read of the storage, and what lets it read.
type ReadOnce<'r> = &'r mut dyn FnMut(&mut dyn Read) -> Result<(), Error>;

fn walk_with(
    ctx: &mut Ctx<'_, '_>,
    zset: &Handle,
    query: &Query<'_>,
    f: &mut dyn FnMut(&[u8], f64),
    run: impl FnOnce(&mut Ctx<'_, '_>, &Handle, ReadOnce<'_>) -> Result<(), Error>,
) -> Result<(), CommandError> {
    if query.offset < 0 || query.limit == 0 {
        return Ok(());
    }
    let (budget, reverse) = (ctx.budget(), query.reverse);
    let (mut skip, mut left) = (query.offset, u64::try_from(query.limit).unwrap_or(u64::MAX));
    let mut steps = 0;
    let mut visit = |member: &[u8], score: f64| {
        steps += 1;
        if skip > 0 {
            skip -= 1;
            return steps <= budget;
        }
        f(member, score);
        left -= 1;
        left > 0 && steps <= budget
    };
    match &query.range {
        Range::Ranks(first, last) => {
            let Some((first, count)) = ranks(*first, *last, zset.len()) else { return Ok(()) };
            ctx.heavy(zset::steps_to_ranks(zset, first, count))?;
            run(ctx, zset, &mut |state| zset::each_in_ranks(state, zset, first, count, reverse, &mut visit))?;
        }
        Range::Scores(scores) => {
            run(ctx, zset, &mut |state| zset::each_in_scores(state, zset, scores, reverse, &mut visit))?;
        }
        Range::Names(names) => {
            let Some(ends) = Ends::of(&mut ctx.reader(&zset.key), zset)? else { return Ok(()) };
            if !ends.is_by_name() {
                ctx.heavy(zset.len())?;
            }
            run(ctx, zset, &mut |state| zset::each_in_names(state, zset, &ends, names, reverse, &mut visit))?;
        }
    }
    ctx.heavy(if steps > budget { steps } else { 0 })
}

/// The members that a range holds, in order.
pub fn members(ctx: &mut Ctx<'_, '_>, zset: &Handle, query: &Query<'_>) -> Result<Vec<(Bytes, f64)>, CommandError> {
    let mut found = Vec::new();
    walk(ctx, zset, query, &mut |member, score| found.push((Bytes::copy_from_slice(member), score)))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bounds() {
        for (text, number) in [
            (&b""[..], Some(0.0)),
            (b" 1", Some(1.0)),
            (b"\n+.5e1", Some(5.0)),
            (b"0x10", Some(16.0)),
            (b"1e999", Some(f64::INFINITY)),
            (b"-1e999", Some(f64::NEG_INFINITY)),
            (b"1e-999", Some(0.0)),
            (b"-inf", Some(f64::NEG_INFINITY)),
            (b"1\0x", Some(1.0)),
            (b"nan", None),
            (b" ", None),
            (b"1 ", None),
            (b"x", None),
        ] {
            assert_eq!(self::number(text), number, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn ranks_of_a_set_of_four() {
        for (first, last, found) in [
            (0, -1, Some((0, 4))),
            (1, 2, Some((1, 2))),
            (-2, -1, Some((2, 2))),
            (-100, 0, Some((0, 1))),
            (3, 100, Some((3, 1))),
            (4, 5, None),
            (2, 1, None),
            (0, -5, None),
            (i64::MIN, i64::MAX, Some((0, 4))),
        ] {
            assert_eq!(ranks(first, last, 4), found, "{first} {last}");
        }
    }
}
