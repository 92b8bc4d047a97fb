//! Moving elements from list to list: LMOVE, RPOPLPUSH, and the forms that wait.

use std::time::Duration;

use bytes::Bytes;

use super::pops::{notify_taken, take};
use super::{End, add};
use crate::command::blocking::{Block, OnTimeout, parse_timeout};
use crate::command::{CommandError, Ctx};
use crate::keyspace::Kind;
use crate::keyspace::types::{Handle, list};
use crate::pubsub::EventClass;

/// Moves an element of `source`, a list, and answers it.
fn move_element(
    ctx: &mut Ctx<'_, '_>,
    source: &Handle,
    destination: &Bytes,
    from: End,
    to: End,
) -> Result<(), CommandError> {
    let same = source.key == *destination;
    if !same {
        ctx.peek_collection(destination, Kind::List)?;
    }
    let len = source.len();
    // A list that takes its only element back, or at the end that it has lost it from, stays as it is.
    let stays = same && (len == 1 || from == to);
    let moved = if stays {
        vec![list::end(&mut ctx.reader(&source.key), source, from.is_left())?]
    } else {
        let moved = take(ctx, source, from, 1)?;
        add(ctx, destination, to, moved.clone())?;
        moved
    };
    ctx.notify(EventClass::List, to.push_event(), destination);
    if same {
        ctx.notify(EventClass::List, from.pop_event(), &source.key);
    } else {
        notify_taken(ctx, source, from, 1);
    }
    moved.iter().for_each(|element| ctx.reply.bulk(element));
    Ok(())
}

fn move_now(ctx: &mut Ctx<'_, '_>, args: &[Bytes], from: End, to: End) -> Result<(), CommandError> {
    match ctx.peek_collection(&args[1], Kind::List)? {
        Some(source) => move_element(ctx, &source, &args[2], from, to),
        None => {
            ctx.reply.null();
            Ok(())
        }
    }
}

fn move_or_wait(
    ctx: &mut Ctx<'_, '_>,
    args: &[Bytes],
    from: End,
    to: End,
    timeout: Option<Duration>,
) -> Result<(), CommandError> {
    match ctx.peek_awaited(&args[1], Kind::List)? {
        Some(source) => move_element(ctx, &source, &args[2], from, to),
        None if ctx.may_block() => ctx.block(Block::on(vec![args[1].clone()], timeout, OnTimeout::NullArray)),
        None => {
            ctx.reply.null();
            Ok(())
        }
    }
}

/// LMOVE source destination LEFT | RIGHT LEFT | RIGHT
pub fn lmove(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (from, to) = (End::parse(&args[3])?, End::parse(&args[4])?);
    move_now(ctx, args, from, to)
}

/// RPOPLPUSH source destination
pub fn rpoplpush(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    move_now(ctx, args, End::Right, End::Left)
}

/// BLMOVE source destination LEFT | RIGHT LEFT | RIGHT timeout
pub fn blmove(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (from, to) = (End::parse(&args[3])?, End::parse(&args[4])?);
    let timeout = parse_timeout(&args[5])?;
    move_or_wait(ctx, args, from, to, timeout)
}

/// BRPOPLPUSH source destination timeout
pub fn brpoplpush(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let timeout = parse_timeout(&args[3])?;
    move_or_wait(ctx, args, End::Right, End::Left, timeout)
}
