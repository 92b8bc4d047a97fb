//! Taking elements from the ends of lists: LPOP, LMPOP, BLPOP and their kin.

use std::time::Duration;

use bytes::Bytes;

use super::{End, counted_keys};
use crate::command::blocking::{Block, OnTimeout, parse_timeout};
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::Handle;
use crate::keyspace::types::list::{self, Change};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

/// Takes up to `count` elements from an end of a list: the outermost first.
pub fn take(ctx: &mut Ctx<'_, '_>, list: &Handle, end: End, count: u64) -> Result<Vec<Bytes>, CommandError> {
    let (key, len) = (&list.key, list.len());
    let count = count.min(len);
    ctx.heavy(count)?;
    let mut reader = ctx.reader(key);
    let taken = match (count, end) {
        (1, end) => vec![list::end(&mut reader, list, end.is_left())?],
        (_, End::Left) => list::range(&mut reader, list, 0, count)?,
        (_, End::Right) => {
            let mut taken = list::range(&mut reader, list, len - count, len)?;
            taken.reverse();
            taken
        }
    };
    ctx.apply(Effect::List(key.clone(), Change::Pop { left: end.is_left(), count }))?;
    Ok(taken)
}

/// Tells of elements that were taken from a list of `len`.
pub fn notify_taken(ctx: &mut Ctx<'_, '_>, list: &Handle, end: End, count: u64) {
    ctx.notify(EventClass::List, end.pop_event(), &list.key);
    if count >= list.len() {
        ctx.notify(EventClass::Generic, "del", &list.key);
    }
}

fn pop(ctx: &mut Ctx<'_, '_>, args: &[Bytes], end: End) -> Result<(), CommandError> {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count, 0, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Arity(end.pop_event().into())),
    };
    let list = ctx.peek_collection(&args[1], Kind::List)?;
    match (list, count) {
        (None, None) => ctx.reply.null(),
        (None, Some(_)) => ctx.reply.null_array(),
        (Some(_), Some(0)) => ctx.reply.array(0),
        (Some(list), None) => {
            let taken = take(ctx, &list, end, 1)?;
            notify_taken(ctx, &list, end, 1);
            taken.iter().for_each(|element| ctx.reply.bulk(element));
        }
        (Some(list), Some(count)) => reply_taken(ctx, &list, end, count)?,
    }
    Ok(())
}

/// Takes elements and answers with an array of them.
fn reply_taken(ctx: &mut Ctx<'_, '_>, list: &Handle, end: End, count: u64) -> Result<(), CommandError> {
    let taken = take(ctx, list, end, count)?;
    notify_taken(ctx, list, end, count);
    ctx.reply.array(taken.len());
    taken.iter().for_each(|element| ctx.reply.bulk(element));
    Ok(())
}

/// An integer of at least `min`, and a fixed error for everything else.
fn positive(text: &[u8], min: u64, error: &'static str) -> Result<u64, CommandError> {
    let number = numbers::parse_i64(text).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number >= min).ok_or(CommandError::Static(error))
}

/// LPOP key [count]
pub fn lpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    pop(ctx, args, End::Left)
}

/// RPOP key [count]
pub fn rpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    pop(ctx, args, End::Right)
}

/// The first of these lists that is there.
fn first_list(ctx: &mut Ctx<'_, '_>, keys: &[Bytes]) -> Result<Option<Handle>, CommandError> {
    for key in keys {
        if let Some(list) = ctx.peek_awaited(key, Kind::List)? {
            return Ok(Some(list));
        }
    }
    Ok(None)
}

fn wait_for(ctx: &mut Ctx<'_, '_>, keys: &[Bytes], timeout: Option<Duration>) -> Result<(), CommandError> {
    ctx.block(Block::on(keys.to_vec(), timeout, OnTimeout::NullArray))
}

fn blocking_pop(ctx: &mut Ctx<'_, '_>, args: &[Bytes], end: End) -> Result<(), CommandError> {
    let [_, keys @ .., timeout] = args else { return Err(CommandError::Syntax) };
    let timeout = parse_timeout(timeout)?;
    let Some(list) = first_list(ctx, keys)? else { return wait_for(ctx, keys, timeout) };
    let taken = take(ctx, &list, end, 1)?;
    notify_taken(ctx, &list, end, 1);
    ctx.reply.array(2);
    ctx.reply.bulk(&list.key);
    taken.iter().for_each(|element| ctx.reply.bulk(element));
    Ok(())
}

/// BLPOP key [key ...] timeout
pub fn blpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    blocking_pop(ctx, args, End::Left)
}

/// BRPOP key [key ...] timeout
pub fn brpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    blocking_pop(ctx, args, End::Right)
}

/// What LMPOP and BLMPOP say after their names and timeout.
struct Counted<'a> {
    keys: &'a [Bytes],
    end: End,
    count: u64,
}

impl<'a> Counted<'a> {
    /// `numkeys key [key ...] LEFT|RIGHT [COUNT count]`, the number at `at`.
    fn parse(args: &'a [Bytes], at: usize) -> Result<Counted<'a>, CommandError> {
        let number = args.get(at).ok_or(CommandError::Syntax)?;
        positive(number, 1, "ERR numkeys should be greater than 0")?;
        let keys = counted_keys(args, at);
        if keys.is_empty() {
            return Err(CommandError::Syntax);
        }
        let rest = args.get(at + 1 + keys.len()..).unwrap_or_default();
        let (end, options) = rest.split_first().ok_or(CommandError::Syntax)?;
        let end = End::parse(end)?;
        let count = match options {
            [] => 1,
            [option, count, rest @ ..] if option.eq_ignore_ascii_case(b"count") => {
                let count = positive(count, 1, "ERR count should be greater than 0")?;
                if !rest.is_empty() {
                    return Err(CommandError::Syntax);
                }
                count
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(Counted { keys, end, count })
    }
}

/// Takes elements and answers with the key and an array of them.
fn reply_counted(ctx: &mut Ctx<'_, '_>, list: &Handle, end: End, count: u64) -> Result<(), CommandError> {
    ctx.reply.array(2);
    ctx.reply.bulk(&list.key);
    reply_taken(ctx, list, end, count)
}

/// LMPOP numkeys key [key ...] LEFT | RIGHT [COUNT count]
pub fn lmpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Counted { keys, end, count } = Counted::parse(args, 1)?;
    match first_list(ctx, keys)? {
        Some(list) => reply_counted(ctx, &list, end, count),
        None => {
            ctx.reply.null_array();
            Ok(())
        }
    }
}

/// BLMPOP timeout numkeys key [key ...] LEFT | RIGHT [COUNT count]
pub fn blmpop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Counted { keys, end, count } = Counted::parse(args, 2)?;
    let timeout = parse_timeout(&args[1])?;
    match first_list(ctx, keys)? {
        Some(list) => reply_counted(ctx, &list, end, count),
        None => wait_for(ctx, keys, timeout),
    }
}
