//! Adding to sorted sets, and removing from them what a request names.

use std::collections::HashMap;

use bytes::Bytes;

use super::range::{self, By, Query, Range};
use super::remove;
use crate::command::{CommandError, Ctx, float};
use crate::keyspace::types::zset::{self, Change};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
struct Options {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    ch: bool,
    incr: bool,
}

impl Options {
    /// Takes the options at the beginning; the rest is not looked at.
    fn parse(&mut self, args: &[Bytes]) -> usize {
        for (at, arg) in args.iter().enumerate() {
            let option = match arg.to_ascii_lowercase().as_slice() {
                b"nx" => &mut self.nx,
                b"xx" => &mut self.xx,
                b"gt" => &mut self.gt,
                b"lt" => &mut self.lt,
                b"ch" => &mut self.ch,
                b"incr" => &mut self.incr,
                _ => return at,
            };
            *option = true;
        }
        args.len()
    }

    fn check(&self, pairs: usize) -> Result<(), CommandError> {
        if self.nx && self.xx {
            return Err(CommandError::Static("ERR XX and NX options at the same time are not compatible"));
        }
        if (self.nx && (self.gt || self.lt)) || (self.gt && self.lt) {
            return Err(CommandError::Static("ERR GT, LT, and/or NX options at the same time are not compatible"));
        }
        if self.incr && pairs > 1 {
            return Err(CommandError::Static("ERR INCR option supports a single increment-element pair"));
        }
        Ok(())
    }

    /// Whether what becomes of a member depends on what it is now.
    fn depend_on_state(&self) -> bool {
        self.nx || self.xx || self.gt || self.lt || self.incr
    }

    /// The score that a member with the score `old` gets; `None` when it stays as it is.
    fn decide(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, CommandError> {
        let Some(old) = old else { return Ok((!self.xx).then_some(given)) };
        if self.nx {
            return Ok(None);
        }
        let new = if self.incr { old + given } else { given };
        if new.is_nan() {
            return Err(CommandError::Static("ERR resulting score is not a number (NaN)"));
        }
        Ok(((!self.lt || new < old) && (!self.gt || new > old)).then_some(new))
    }
}

/// ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]
///
/// Without options it looks each member up once, in the change itself.
pub fn zadd(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    add(ctx, args, Options::default())
}

/// ZINCRBY key increment member: ZADD INCR, whose options it takes too where its arity lets it.
pub fn zincrby(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    add(ctx, args, Options { incr: true, ..Options::default() })
}

fn add(ctx: &mut Ctx<'_, '_>, args: &[Bytes], mut options: Options) -> Result<(), CommandError> {
    let key = &args[1];
    let args = &args[2..];
    let taken = options.parse(args);
    let (pairs, []) = args[taken..].as_chunks::<2>() else { return Err(CommandError::Syntax) };
    if pairs.is_empty() {
        return Err(CommandError::Syntax);
    }
    options.check(pairs.len())?;
    let pair = |[score, member]: &[Bytes; 2]| Some((float::parse_f64(score)?, member.clone()));
    let pairs: Vec<(f64, Bytes)> = pairs.iter().map(pair).collect::<Option<_>>().ok_or(CommandError::NotFloat)?;
    ctx.heavy(pairs.len() as u64)?;
    // With CH it must be known which of several have changed.
    if options.depend_on_state() || (options.ch && pairs.len() > 1) {
        return add_some(ctx, key, pairs, options);
    }
    ctx.peek_collection(key, Kind::Zset)?;
    ctx.create_if_missing(key, Kind::Zset)?;
    let outcome = ctx.apply(Effect::Zset(key.clone(), Change::Add(pairs)))?;
    ctx.reply.int(if options.ch { i64::from(outcome.changed) } else { outcome.count as i64 });
    if outcome.changed {
        ctx.notify(EventClass::Zset, "zadd", key);
    }
    Ok(())
}

/// Adds those of `pairs` that the options let pass.
fn add_some(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    pairs: Vec<(f64, Bytes)>,
    options: Options,
) -> Result<(), CommandError> {
    let zset = ctx.peek_collection(key, Kind::Zset)?;
    let (mut added, mut updated) = (0, 0);
    let mut incremented = None;
    let mut changes: Vec<(f64, Bytes)> = Vec::new();
    // What this command gives to members that it may name again.
    let mut given: HashMap<Bytes, f64> = HashMap::new();
    for (score, member) in pairs {
        let old = match (given.get(&member), &zset) {
            (Some(score), _) => Some(*score),
            (None, Some(zset)) => zset::score(&mut ctx.reader(key), zset, &member)?,
            (None, None) => None,
        };
        let Some(new) = options.decide(old, score)? else { continue };
        incremented = Some(new);
        if old == Some(new) {
            continue;
        }
        if old.is_some() {
            updated += 1
        } else {
            added += 1
        }
        given.insert(member.clone(), new);
        changes.push((new, member));
    }
    if !changes.is_empty() {
        ctx.create_if_missing(key, Kind::Zset)?;
        ctx.apply(Effect::Zset(key.clone(), Change::Add(changes)))?;
        ctx.notify(EventClass::Zset, if options.incr { "zincr" } else { "zadd" }, key);
    }
    match incremented {
        Some(score) if options.incr => ctx.reply.double(score),
        None if options.incr => ctx.reply.null(),
        _ => ctx.reply.int(if options.ch { added + updated } else { added }),
    }
    Ok(())
}

/// ZREM key member [member ...]
pub fn zrem(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let mut removed = 0;
    if let Some(zset) = ctx.peek_collection(key, Kind::Zset)? {
        let members = args[2..].to_vec();
        ctx.heavy(members.len() as u64)?;
        removed = ctx.apply(Effect::Zset(key.clone(), Change::Remove(members)))?.count;
        if removed > 0 {
            ctx.notify(EventClass::Zset, "zrem", key);
        }
        if removed >= zset.len() {
            ctx.notify(EventClass::Generic, "del", key);
        }
    }
    ctx.reply.int(removed as i64);
    Ok(())
}

/// ZREMRANGEBYRANK key start stop
pub fn zremrangebyrank(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    remove_range(ctx, args, By::Rank, "zremrangebyrank")
}

/// ZREMRANGEBYSCORE key min max
pub fn zremrangebyscore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    remove_range(ctx, args, By::Score, "zremrangebyscore")
}

/// ZREMRANGEBYLEX key min max
pub fn zremrangebylex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    remove_range(ctx, args, By::Name, "zremrangebylex")
}

fn remove_range(ctx: &mut Ctx<'_, '_>, args: &[Bytes], by: By, event: &'static str) -> Result<(), CommandError> {
    let range = Range::parse(by, &args[2], &args[3])?;
    let mut removed = 0;
    if let Some(zset) = ctx.peek_collection(&args[1], Kind::Zset)? {
        let mut members = Vec::new();
        range::walk(ctx, &zset, &Query::of(range), &mut |member, _| members.push(Bytes::copy_from_slice(member)))?;
        removed = members.len();
        remove(ctx, &zset, members, event)?;
    }
    ctx.reply.int(removed as i64);
    Ok(())
}
