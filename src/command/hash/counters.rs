//! Fields as numbers: HINCRBY, HINCRBYFLOAT.
//!
//! What is logged is the result, not the step. A field keeps its expiry.

use bytes::Bytes;

use super::{peek_field, set};
use crate::command::{CommandError, Ctx, float, numbers};
use crate::keyspace::types::hash::Ttl;

/// HINCRBY key field increment
pub fn hincrby(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, field) = (&args[1], &args[2]);
    let by = numbers::integer(&args[3])?;
    let (exists, old) = peek_field(ctx, key, field)?;
    let value = match &old {
        Some(old) => numbers::parse_i64(&old.value).ok_or(CommandError::Static("ERR hash value is not an integer"))?,
        None => 0,
    };
    let sum = value.checked_add(by).ok_or(CommandError::Static("ERR increment or decrement would overflow"))?;
    let text = Bytes::copy_from_slice(itoa::Buffer::new().format(sum).as_bytes());
    set(ctx, key, exists, Ttl::Keep, vec![(field.clone(), text)], "hincrby")?;
    ctx.reply.int(sum);
    Ok(())
}

/// HINCRBYFLOAT key field increment
pub fn hincrbyfloat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, field, by) = (&args[1], &args[2], &args[3]);
    if !float::is_finite(by)? {
        return Err(CommandError::Static("ERR value is NaN or Infinity"));
    }
    let (exists, old) = peek_field(ctx, key, field)?;
    let value = old.as_ref().map_or(&b"0"[..], |old| &old.value);
    // The increment is a number, so it is the value that is none.
    let sum = float::add(value, by).map_err(|error| match error {
        CommandError::NotFloat => CommandError::Static("ERR hash value is not a float"),
        other => other,
    })?;
    ctx.reply.bulk(sum.as_bytes());
    set(ctx, key, exists, Ttl::Keep, vec![(field.clone(), sum.into())], "hincrbyfloat")?;
    Ok(())
}
