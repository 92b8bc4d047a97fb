//! Strings as numbers: INCR DECR INCRBY DECRBY INCRBYFLOAT.
//!
//! What is logged is the result, not the step, so a replica computes nothing.

use bytes::Bytes;

use crate::command::{CommandError, Ctx, float, numbers};
use crate::pubsub::EventClass;

/// INCR key
pub fn incr(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    step(ctx, &args[1], 1)
}

/// DECR key
pub fn decr(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    step(ctx, &args[1], -1)
}

/// INCRBY key increment
pub fn incrby(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let by = numbers::integer(&args[2])?;
    step(ctx, &args[1], by)
}

/// DECRBY key decrement
pub fn decrby(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let by = numbers::integer(&args[2])?.checked_neg().ok_or(CommandError::Static("ERR decrement would overflow"))?;
    step(ctx, &args[1], by)
}

fn step(ctx: &mut Ctx<'_, '_>, key: &Bytes, by: i64) -> Result<(), CommandError> {
    let (value, expire_at) = match ctx.peek_string(key)? {
        Some(entry) => (numbers::integer(&entry.value)?, entry.expire_at),
        None => (0, None),
    };
    let sum = value.checked_add(by).ok_or(CommandError::Static("ERR increment or decrement would overflow"))?;
    let text = Bytes::copy_from_slice(itoa::Buffer::new().format(sum).as_bytes());
    let db = ctx.db();
    ctx.notify_if_new(db, key)?;
    ctx.tx.set(db, key, text, expire_at, ctx.now)?;
    ctx.notify(EventClass::String, "incrby", key);
    ctx.reply.int(sum);
    Ok(())
}

/// INCRBYFLOAT key increment
pub fn incrbyfloat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let old = ctx.peek_string(&args[1])?;
    let (value, expire_at) = match &old {
        Some(entry) => (&entry.value[..], entry.expire_at),
        None => (&b"0"[..], None),
    };
    let sum = float::add(value, &args[2])?;
    ctx.reply.bulk(sum.as_bytes());
    let db = ctx.db();
    ctx.notify_if_new(db, &args[1])?;
    ctx.tx.set(db, &args[1], Bytes::from(sum), expire_at, ctx.now)?;
    ctx.notify(EventClass::String, "incrbyfloat", &args[1]);
    Ok(())
}
