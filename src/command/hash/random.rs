//! HRANDFIELD: random fields.

use bytes::Bytes;

use crate::command::elements::{Count, read_costly};
use crate::command::{CommandError, Ctx};
use crate::keyspace::Kind;
use crate::keyspace::types::hash::{self, FieldRef};

/// More fields with values are refused: their number could not be doubled.
const MAX_WITH_VALUES: u64 = i64::MAX as u64 / 2;

/// HRANDFIELD key [count [WITHVALUES]]
///
/// A negative count may answer a field more than once.
pub fn hrandfield(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, now) = (&args[1], ctx.now);
    let (count, with_values) = match &args[2..] {
        [] => (None, false),
        [count] => (Some(Count::parse(count)?), false),
        [count, option] => {
            let count = Count::parse(count)?;
            if !option.eq_ignore_ascii_case(b"withvalues") {
                return Err(CommandError::Syntax);
            }
            if matches!(count, Count::Distinct(count) if count > MAX_WITH_VALUES) {
                return Err(CommandError::Static("ERR value is out of range"));
            }
            (Some(count), true)
        }
        [count, ..] => return Err(Count::parse(count).err().unwrap_or(CommandError::Syntax)),
    };
    let wanted = count.unwrap_or(Count::Distinct(1));
    let chosen = match read_costly(ctx, key, Kind::Hash, |hash| wanted.cost(hash))? {
        Some(hash) if !wanted.is_zero() => {
            let live = hash::live_len(&mut ctx.reader(key), &hash, now)?;
            wanted.choose(ctx, &hash, live, &|value| FieldRef::decode(value).is_ok_and(|field| field.is_live(now)))?
        }
        _ => Vec::new(),
    };
    let Some(_) = count else {
        match chosen.first() {
            Some(field) => ctx.reply.bulk(&field.name),
            None => ctx.reply.null(),
        }
        return Ok(());
    };
    // In RESP3 a field and its value are an array of their own.
    let nested = with_values && ctx.reply.proto() >= 3;
    ctx.reply.array(if with_values && !nested { 2 * chosen.len() } else { chosen.len() });
    for field in &chosen {
        if nested {
            ctx.reply.array(2);
        }
        ctx.reply.bulk(&field.name);
        if with_values {
            ctx.reply.bulk(FieldRef::decode(&field.value)?.value);
        }
    }
    Ok(())
}
