//! ZRANDMEMBER.

use bytes::Bytes;

use super::Rows;
use crate::command::elements::{self, Count};
use crate::command::{CommandError, Ctx};
use crate::keyspace::Kind;
use crate::keyspace::types::zset;

/// ZRANDMEMBER key [count [WITHSCORES]]
pub fn zrandmember(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let count = args.get(2).map(|count| Count::parse(count)).transpose()?;
    let with_scores = match args.get(3..).unwrap_or_default() {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withscores") => true,
        _ => return Err(CommandError::Syntax),
    };
    if let Some(Count::Distinct(count) | Count::Any(count)) = count
        && with_scores
        && count > i64::MAX as u64 / 2
    {
        return Err(CommandError::Static("ERR value is out of range"));
    }
    let wanted = count.unwrap_or(Count::Any(1));
    let zset = elements::read_costly(ctx, &args[1], Kind::Zset, |zset| wanted.cost(zset))?;
    let chosen = match &zset {
        Some(zset) if !wanted.is_zero() => wanted.choose(ctx, zset, zset.len(), &|_| true)?,
        _ => Vec::new(),
    };
    if count.is_none() {
        match chosen.first() {
            Some(chosen) => ctx.reply.bulk(&chosen.name),
            None => ctx.reply.null(),
        }
        return Ok(());
    }
    let mut rows = Rows::new(ctx, with_scores);
    for chosen in &chosen {
        rows.push(&chosen.name, zset::decode_score(&chosen.value)?);
    }
    rows.reply(ctx);
    Ok(())
}
