//! Taking members from the ends of sorted sets, and waiting for some.

use bytes::Bytes;

use super::{numkeys, remove};
use crate::command::blocking::{Block, OnTimeout, parse_timeout};
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::Kind;
use crate::keyspace::types::{Handle, zset};

/// The end of a sorted set that is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Min,
    Max,
}

impl End {
    fn event(self) -> &'static str {
        match self {
            End::Min => "zpopmin",
            End::Max => "zpopmax",
        }
    }

    fn parse(word: &[u8]) -> Option<End> {
        match word.to_ascii_lowercase().as_slice() {
            b"min" => Some(End::Min),
            b"max" => Some(End::Max),
            _ => None,
        }
    }
}

/// Takes up to `count` members. May suspend the command.
fn take(ctx: &mut Ctx<'_, '_>, zset: &Handle, end: End, count: u64) -> Result<Vec<(Bytes, f64)>, CommandError> {
    ctx.heavy(count.min(zset.len()))?;
    let mut taken = Vec::new();
    zset::each_in_ranks(&mut ctx.reader(&zset.key), zset, 0, count, end == End::Max, &mut |member, score| {
        taken.push((Bytes::copy_from_slice(member), score));
        true
    })?;
    let members = taken.iter().map(|(member, _)| member.clone()).collect();
    remove(ctx, zset, members, end.event())?;
    Ok(taken)
}

/// The first of the keys that holds a sorted set.
fn first_set(ctx: &mut Ctx<'_, '_>, keys: &[Bytes]) -> Result<Option<Handle>, CommandError> {
    for key in keys {
        if let Some(zset) = ctx.peek_awaited(key, Kind::Zset)? {
            return Ok(Some(zset));
        }
    }
    Ok(None)
}

/// ZPOPMIN key [count]
pub fn zpopmin(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    pop(ctx, args, End::Min)
}

/// ZPOPMAX key [count]
pub fn zpopmax(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    pop(ctx, args, End::Max)
}

fn pop(ctx: &mut Ctx<'_, '_>, args: &[Bytes], end: End) -> Result<(), CommandError> {
    const NOT_POSITIVE: CommandError = CommandError::Static("ERR value is out of range, must be positive");
    let count = match &args[2..] {
        [] => None,
        [count] => {
            let count = numbers::parse_i64(count).and_then(|count| u64::try_from(count).ok());
            Some(count.ok_or(NOT_POSITIVE)?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let taken = match ctx.peek_collection(&args[1], Kind::Zset)? {
        Some(zset) if count != Some(0) => take(ctx, &zset, end, count.unwrap_or(1))?,
        _ => Vec::new(),
    };
    let nested = ctx.reply.proto() >= 3 && count.is_some();
    ctx.reply.array(if nested { taken.len() } else { 2 * taken.len() });
    for (member, score) in &taken {
        if nested {
            ctx.reply.array(2);
        }
        ctx.reply.bulk(member);
        ctx.reply.double(*score);
    }
    Ok(())
}

/// BZPOPMIN key [key ...] timeout
pub fn bzpopmin(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    pop_or_wait(ctx, args, End::Min)
}

/// BZPOPMAX key [key ...] timeout
pub fn bzpopmax(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    pop_or_wait(ctx, args, End::Max)
}

fn pop_or_wait(ctx: &mut Ctx<'_, '_>, args: &[Bytes], end: End) -> Result<(), CommandError> {
    let [_, keys @ .., timeout] = args else { return Err(CommandError::Syntax) };
    let timeout = parse_timeout(timeout)?;
    let Some(zset) = first_set(ctx, keys)? else {
        return ctx.block(Block::on(keys.to_vec(), timeout, OnTimeout::NullArray));
    };
    for (member, score) in take(ctx, &zset, end, 1)? {
        ctx.reply.array(3);
        ctx.reply.bulk(&zset.key);
        ctx.reply.bulk(&member);
        ctx.reply.double(score);
    }
    Ok(())
}

/// What ZMPOP and BZMPOP ask for.
struct Mpop<'a> {
    keys: &'a [Bytes],
    end: End,
    count: u64,
}

impl<'a> Mpop<'a> {
    /// Reads `numkeys key [key ...] <MIN | MAX> [COUNT count]`.
    fn parse(args: &'a [Bytes]) -> Result<Mpop<'a>, CommandError> {
        const KEYS: CommandError = CommandError::Static("ERR numkeys should be greater than 0");
        const COUNT: CommandError = CommandError::Static("ERR count should be greater than 0");
        let positive = |arg: &[u8]| numbers::parse_i64(arg).filter(|n| *n > 0).map(|n| n as u64);
        if args.first().and_then(|arg| positive(arg)).is_none() {
            return Err(KEYS);
        }
        let keys = numkeys(args, 0).ok_or(CommandError::Syntax)?;
        let [end, options @ ..] = &args[1 + keys.len()..] else { return Err(CommandError::Syntax) };
        let end = End::parse(end).ok_or(CommandError::Syntax)?;
        let mut count = None;
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let value = options.next().filter(|_| count.is_none() && option.eq_ignore_ascii_case(b"count"));
            count = Some(positive(value.ok_or(CommandError::Syntax)?).ok_or(COUNT)?);
        }
        Ok(Mpop { keys, end, count: count.unwrap_or(1) })
    }

    fn answer(&self, ctx: &mut Ctx<'_, '_>, zset: &Handle) -> Result<(), CommandError> {
        let taken = take(ctx, zset, self.end, self.count)?;
        ctx.reply.array(2);
        ctx.reply.bulk(&zset.key);
        ctx.reply.array(taken.len());
        for (member, score) in taken {
            ctx.reply.array(2);
            ctx.reply.bulk(&member);
            ctx.reply.double(score);
        }
        Ok(())
    }
}

/// ZMPOP numkeys key [key ...] <MIN | MAX> [COUNT count]
pub fn zmpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let request = Mpop::parse(&args[1..])?;
    match first_set(ctx, request.keys)? {
        Some(zset) => request.answer(ctx, &zset),
        None => {
            ctx.reply.null_array();
            Ok(())
        }
    }
}

/// BZMPOP timeout numkeys key [key ...] <MIN | MAX> [COUNT count]
pub fn bzmpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let request = Mpop::parse(&args[2..])?;
    let timeout = parse_timeout(&args[1])?;
    match first_set(ctx, request.keys)? {
        Some(zset) => request.answer(ctx, &zset),
        None => ctx.block(Block::on(request.keys.to_vec(), timeout, OnTimeout::NullArray)),
    }
}
