//! ZSCAN.
//!
//! A cursor is a position in the order that the members have by the hashes of their names, so it needs no memory and outlives every
//! change: a member that is there from the first call to the last is answered once.

use bytes::Bytes;

use crate::command::scan::{DEFAULT_COUNT, parse_cursor};
use crate::command::{CommandError, Ctx, glob, numbers};
use crate::keyspace::Kind;
use crate::keyspace::types::{Handle, zset};
use crate::net::reply::format_double;
use crate::rdb::score;

/// Bits of a position that are not in a cursor: what is left is a number that every client's floats hold.
const DROPPED_BITS: u32 = 11;

/// ZSCAN key cursor [MATCH pattern] [COUNT count]
pub fn zscan(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let cursor = parse_cursor(&args[2])?;
    let Some(zset) = ctx.read_collection(&args[1], Kind::Zset)? else {
        reply(ctx, 0, &[]);
        return Ok(());
    };
    let (mut pattern, mut count) = (None, DEFAULT_COUNT);
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or(CommandError::Syntax)?;
        if option.eq_ignore_ascii_case(b"match") {
            pattern = Some(&value[..]).filter(|pattern| !glob::matches_everything(pattern));
        } else if option.eq_ignore_ascii_case(b"count") {
            count = u64::try_from(numbers::integer(value)?).ok().filter(|n| *n > 0).ok_or(CommandError::Syntax)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let mut found = Vec::new();
    let mut collect = |member: &[u8], score: String| {
        if pattern.is_none_or(|pattern| glob::matches(pattern, member)) {
            found.push((Bytes::copy_from_slice(member), score));
        }
    };
    // What Redis keeps in one piece it answers in one piece, and whole scores as they stand there.
    if zset.len() <= ctx.server.config.zset_max_listpack_entries() as u64 {
        zset::each_by_score(&mut ctx.reader(&args[1]), &zset, &[], None, false, &mut |member, number| {
            collect(member, score::print(number));
            true
        })?;
        reply(ctx, 0, &found);
        return Ok(());
    }
    ctx.heavy(count.min(zset.len()))?;
    let next = walk(ctx, &zset, cursor, count, &mut |member, score| collect(member, format_double(score)))?;
    reply(ctx, next, &found);
    Ok(())
}

/// Calls `f` with about `count` members from `cursor` on; returns where to go on, 0 at the end. Members that share a cursor go together.
fn walk(
    ctx: &mut Ctx<'_, '_>,
    zset: &Handle,
    cursor: u64,
    count: u64,
    f: &mut dyn FnMut(&[u8], f64),
) -> Result<u64, CommandError> {
    let (mut seen, mut last, mut next) = (0, 0, 0);
    if cursor > u64::MAX >> DROPPED_BITS {
        return Ok(0);
    }
    zset::each_from(&mut ctx.reader(&zset.key), zset, cursor << DROPPED_BITS, &mut |position, member, score| {
        let at = position >> DROPPED_BITS;
        if seen >= count && at != last {
            next = at;
            return false;
        }
        (seen, last) = (seen + 1, at);
        f(member, score);
        true
    })?;
    Ok(next)
}

fn reply(ctx: &mut Ctx<'_, '_>, cursor: u64, found: &[(Bytes, String)]) {
    ctx.reply.array(2);
    ctx.reply.bulk(cursor.to_string().as_bytes());
    ctx.reply.array(2 * found.len());
    for (member, score) in found {
        ctx.reply.bulk(member);
        ctx.reply.bulk(score.as_bytes());
    }
}
