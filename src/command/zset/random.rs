//! ZRANDMEMBER.

use std::collections::HashSet;

use bytes::Bytes;
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::Rows;
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::{Handle, zset};
use crate::keyspace::{Error, Kind, Read};

/// Members up to which a random one is counted off, and all are exactly as likely.
const COUNTED: u64 = 1024;
/// Of a larger set, one of so many that follow a random position is taken.
const WINDOW: usize = 32;

/// ZRANDMEMBER key [count [WITHSCORES]]
pub fn zrandmember(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some(count) = args.get(2) else { return single(ctx, &args[1]) };
    let count = numbers::integer(count)?;
    if count == i64::MIN {
        return Err(CommandError::Text(format!(
            "ERR value is out of range, value must between {} and {}",
            -i64::MAX,
            i64::MAX
        )));
    }
    let with_scores = match &args[3..] {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withscores") => true,
        _ => return Err(CommandError::Syntax),
    };
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::Static("ERR value is out of range"));
    }
    let mut rows = Rows::new(ctx, with_scores);
    if let Some(zset) = ctx.read_collection(&args[1], Kind::Zset)? {
        if count < 0 {
            repeated(ctx, &zset, count.unsigned_abs(), &mut rows)?;
        } else {
            distinct(ctx, &zset, count as u64, &mut rows)?;
        }
    }
    rows.reply(ctx);
    Ok(())
}

fn single(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<(), CommandError> {
    let found = match ctx.read_collection(key, Kind::Zset)? {
        Some(zset) => any(&mut ctx.reader(key), &zset)?,
        None => None,
    };
    match found {
        Some((member, _)) => ctx.reply.bulk(&member),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// A random member.
fn any(state: &mut dyn Read, zset: &Handle) -> Result<Option<(Bytes, f64)>, Error> {
    let rng = &mut rand::rng();
    let (position, skip) = if zset.len() <= COUNTED {
        (0, rng.random_range(0..zset.len().max(1)))
    } else {
        (rng.random(), rng.random_range(0..WINDOW as u64))
    };
    // What follows the last position is what stands at the first.
    let mut left = skip;
    let mut found = None;
    for from in [position, 0] {
        zset::each_from(state, zset, from, &mut |_, member, score| {
            if left == 0 {
                found = Some((Bytes::copy_from_slice(member), score));
                return false;
            }
            left -= 1;
            true
        })?;
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}

/// Whether to go through all members costs less than to look for `count` random ones.
fn all_at_once(zset: &Handle, count: u64) -> bool {
    zset.len() <= COUNTED || count.saturating_mul(WINDOW as u64) >= zset.len()
}

/// `count` random members, each as likely every time.
fn repeated(ctx: &mut Ctx<'_, '_>, zset: &Handle, count: u64, rows: &mut Rows) -> Result<(), CommandError> {
    ctx.heavy(count.saturating_mul(WINDOW as u64).min(count.saturating_add(zset.len())))?;
    let mut reader = ctx.reader(&zset.key);
    if !all_at_once(zset, count) {
        for _ in 0..count {
            any(&mut reader, zset)?.into_iter().for_each(|(member, score)| rows.push(&member, score));
        }
        return Ok(());
    }
    let mut all = Vec::new();
    zset::each(&mut reader, zset, &mut |member, score| {
        all.push((Bytes::copy_from_slice(member), score));
        true
    })?;
    let rng = &mut rand::rng();
    for _ in 0..count {
        all.choose(rng).into_iter().for_each(|(member, score)| rows.push(member, *score));
    }
    Ok(())
}

/// `count` different members, or all.
fn distinct(ctx: &mut Ctx<'_, '_>, zset: &Handle, count: u64, rows: &mut Rows) -> Result<(), CommandError> {
    let count = count.min(zset.len());
    if count == 0 {
        return Ok(());
    }
    let all_at_once = all_at_once(zset, count);
    ctx.heavy(if all_at_once { zset.len() } else { count.saturating_mul(WINDOW as u64) })?;
    let mut reader = ctx.reader(&zset.key);
    if !all_at_once {
        let mut chosen = HashSet::new();
        while (chosen.len() as u64) < count {
            let Some((member, score)) = any(&mut reader, zset)? else { break };
            if chosen.insert(member.clone()) {
                rows.push(&member, score);
            }
        }
        return Ok(());
    }
    let mut chosen = rand::seq::index::sample(&mut rand::rng(), zset.len() as usize, count as usize).into_vec();
    chosen.sort_unstable();
    let mut chosen = chosen.into_iter().peekable();
    let mut at = 0;
    zset::each(&mut reader, zset, &mut |member, score| {
        if chosen.next_if_eq(&at).is_some() {
            rows.push(member, score);
        }
        at += 1;
        chosen.peek().is_some()
    })?;
    Ok(())
}
