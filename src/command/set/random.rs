//! Random members: SPOP, SRANDMEMBER.

use bytes::Bytes;

use super::remove;
use crate::command::elements::{Count, read_costly};
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::{CHUNK, Handle, set};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

/// SPOP key [count]
///
/// What is logged is the removal of the members that it came to be.
pub fn spop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    match &args[2..] {
        [] => {
            let Some(set) = ctx.peek_collection(key, Kind::Set)? else {
                ctx.reply.null();
                return Ok(());
            };
            match choose(ctx, &set, Count::Distinct(1))?.pop() {
                Some(member) => {
                    ctx.reply.bulk(&member);
                    remove(ctx, key, vec![member], "spop")?;
                }
                None => ctx.reply.null(),
            }
            Ok(())
        }
        [count] => {
            let count = u64::try_from(numbers::integer(count)?)
                .map_err(|_| CommandError::Static("ERR value is out of range, must be positive"))?;
            pop_several(ctx, key, count)
        }
        _ => Err(CommandError::Syntax),
    }
}

fn pop_several(ctx: &mut Ctx<'_, '_>, key: &Bytes, count: u64) -> Result<(), CommandError> {
    let Some(set) = ctx.peek_collection(key, Kind::Set)?.filter(|_| count > 0) else {
        ctx.reply.set(0);
        return Ok(());
    };
    let wanted = Count::Distinct(count);
    ctx.heavy(wanted.cost(&set))?;
    let all = count >= set.len();
    let popped = if all { set::load(&mut ctx.reader(key), &set)? } else { choose(ctx, &set, wanted)? };
    ctx.reply.set(popped.len());
    popped.iter().for_each(|member| ctx.reply.bulk(member));
    if all {
        ctx.apply(Effect::Del { key: key.clone() })?;
    } else {
        for chunk in popped.chunks(CHUNK) {
            ctx.apply(Effect::Members(key.clone(), set::Change::Remove(chunk.to_vec())))?;
        }
    }
    ctx.notify(EventClass::Set, "spop", key);
    if all {
        ctx.notify(EventClass::Generic, "del", key);
    }
    Ok(())
}

fn choose(ctx: &mut Ctx<'_, '_>, set: &Handle, count: Count) -> Result<Vec<Bytes>, CommandError> {
    let chosen = count.choose(ctx, set, set.len(), &|_| true)?;
    Ok(chosen.into_iter().map(|member| member.name).collect())
}

/// SRANDMEMBER key [count]
///
/// A negative count may answer a member more than once.
pub fn srandmember(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let count = match &args[2..] {
        [] => None,
        [count] => Some(Count::parse(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let wanted = count.unwrap_or(Count::Distinct(1));
    let chosen = match read_costly(ctx, key, Kind::Set, |set| wanted.cost(set))? {
        Some(set) if !wanted.is_zero() => choose(ctx, &set, wanted)?,
        _ => Vec::new(),
    };
    match count {
        Some(_) => {
            ctx.reply.array(chosen.len());
            chosen.iter().for_each(|member| ctx.reply.bulk(member));
        }
        None => match chosen.first() {
            Some(member) => ctx.reply.bulk(member),
            None => ctx.reply.null(),
        },
    }
    Ok(())
}
