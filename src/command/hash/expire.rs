//! Fields with a lifetime: HEXPIRE and its kin, HTTL and its kin, HPERSIST.
//!
//! They answer an array with a number for each field they name. What is logged is the absolute time, or the removal
//! when it is past.

use std::collections::HashSet;

use bytes::Bytes;

use super::remove;
use crate::command::keys::expire::{Timing, invalid_expire_time};
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::hash::{self, Change};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

/// Answer for a field, or a whole hash, that does not exist.
const NO_FIELD: i64 = -2;
/// Answer for a field that does not expire.
const NO_EXPIRY: i64 = -1;
/// Answer for a field that does not meet the condition.
const UNMET: i64 = 0;
/// Answer for a field that was changed.
const CHANGED: i64 = 1;
/// Answer for a field that was removed, because the time is past.
const REMOVED: i64 = 2;

/// Latest expiry of a field, unix ms: the 46 bits to which Redis 7.4 limits it.
const MAX_EXPIRY: i64 = (1 << 46) - 1;

/// Which expiry a field must have now for the new one to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// None.
    Nx,
    /// Any.
    Xx,
    /// An earlier one.
    Gt,
    /// A later one, or none.
    Lt,
}

impl Condition {
    fn parse(text: &[u8]) -> Option<Condition> {
        [(&b"nx"[..], Condition::Nx), (b"xx", Condition::Xx), (b"gt", Condition::Gt), (b"lt", Condition::Lt)]
            .into_iter()
            .find_map(|(name, condition)| text.eq_ignore_ascii_case(name).then_some(condition))
    }

    fn allows(self, current: Option<u64>, new: u64) -> bool {
        match self {
            Condition::Always => true,
            Condition::Nx => current.is_none(),
            Condition::Xx => current.is_some(),
            Condition::Gt => current.is_some_and(|current| new > current),
            Condition::Lt => current.is_none_or(|current| new < current),
        }
    }
}

/// The fields after `FIELDS numfields`. `bad_number` is the error about a number that is none, or too small.
fn fields<'a>(args: &'a [Bytes], bad_number: &'static str) -> Result<&'a [Bytes], CommandError> {
    let [word, number, fields @ ..] = args else { return Err(CommandError::Syntax) };
    if !word.eq_ignore_ascii_case(b"fields") {
        return Err(CommandError::Static("ERR Mandatory argument FIELDS is missing or not at the right position"));
    }
    let number = numbers::parse_i64(number).filter(|number| *number > 0).ok_or(CommandError::Static(bad_number))?;
    if number as usize != fields.len() {
        return Err(CommandError::Static("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(fields)
}

/// HEXPIRE key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
pub fn hexpire(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::EX, "hexpire")
}

/// HPEXPIRE key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
pub fn hpexpire(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::PX, "hpexpire")
}

/// HEXPIREAT key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
pub fn hexpireat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::EXAT, "hexpireat")
}

/// HPEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]
pub fn hpexpireat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::PXAT, "hpexpireat")
}

fn set_expiry(ctx: &mut Ctx<'_, '_>, args: &[Bytes], timing: Timing, command: &str) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let (key, now) = (&args[1], ctx.now);
    let hash = ctx.peek_collection(key, Kind::Hash)?;
    let amount = numbers::integer(&args[2])?;
    if amount < 0 {
        return Err(CommandError::Static("ERR invalid expire time, must be >= 0"));
    }
    let at = timing.resolve(amount, now).filter(|at| *at <= MAX_EXPIRY).map(|at| at as u64);
    let at = at.ok_or_else(|| invalid_expire_time(command))?;
    let condition = Condition::parse(&args[3]);
    let rest = if condition.is_some() { &args[4..] } else { &args[3..] };
    let condition = condition.unwrap_or(Condition::Always);
    let fields = fields(rest, "ERR Parameter `numFields` should be greater than 0")?;
    let Some(hash) = hash else {
        answer(ctx, std::iter::repeat_n(NO_FIELD, fields.len()));
        return Ok(());
    };
    let past = at <= now;
    let (mut answers, mut taken, mut seen) = (Vec::with_capacity(fields.len()), Vec::new(), HashSet::new());
    let mut reader = ctx.reader(key);
    for name in fields {
        // A field that is named again is as the first time has made it.
        let current = if seen.contains(name) {
            (!past).then_some(Some(at))
        } else {
            hash::get(&mut reader, &hash, name, now)?.map(|field| field.expire_at)
        };
        answers.push(match current {
            None => NO_FIELD,
            Some(current) if !condition.allows(current, at) => UNMET,
            Some(_) => {
                if seen.insert(name) {
                    taken.push(name.clone());
                }
                if past { REMOVED } else { CHANGED }
            }
        });
    }
    if !taken.is_empty() {
        if past {
            remove(ctx, key, taken)?;
        } else {
            ctx.apply(Effect::Hash(key.clone(), Change::ExpireAt { at, fields: taken }))?;
            ctx.notify(EventClass::Hash, "hexpire", key);
        }
    }
    answer(ctx, answers.into_iter());
    Ok(())
}

/// HPERSIST key FIELDS numfields field [field ...]
pub fn hpersist(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let (key, now) = (&args[1], ctx.now);
    let hash = ctx.peek_collection(key, Kind::Hash)?;
    let fields = fields(&args[2..], BAD_NUMBER)?;
    let Some(hash) = hash else {
        answer(ctx, std::iter::repeat_n(NO_FIELD, fields.len()));
        return Ok(());
    };
    let (mut answers, mut taken, mut seen) = (Vec::with_capacity(fields.len()), Vec::new(), HashSet::new());
    let mut reader = ctx.reader(key);
    for name in fields {
        let field = hash::get(&mut reader, &hash, name, now)?;
        answers.push(match field.map(|field| field.expire_at) {
            None => NO_FIELD,
            Some(Some(_)) if seen.insert(name) => {
                taken.push(name.clone());
                CHANGED
            }
            Some(_) => NO_EXPIRY,
        });
    }
    if !taken.is_empty() {
        ctx.apply(Effect::Hash(key.clone(), Change::Persist(taken)))?;
        ctx.notify(EventClass::Hash, "hpersist", key);
    }
    answer(ctx, answers.into_iter());
    Ok(())
}

const BAD_NUMBER: &str = "ERR Number of fields must be a positive integer";

/// HTTL key FIELDS numfields field [field ...]
pub fn httl(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let now = ctx.now;
    report(ctx, args, |at| at.saturating_sub(now).div_ceil(1000))
}

/// HPTTL key FIELDS numfields field [field ...]
pub fn hpttl(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let now = ctx.now;
    report(ctx, args, |at| at.saturating_sub(now))
}

/// HEXPIRETIME key FIELDS numfields field [field ...]
pub fn hexpiretime(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    report(ctx, args, |at| at.div_ceil(1000))
}

/// HPEXPIRETIME key FIELDS numfields field [field ...]
pub fn hpexpiretime(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    report(ctx, args, |at| at)
}

/// Answers what `describe` makes of the expiry of each field.
fn report(ctx: &mut Ctx<'_, '_>, args: &[Bytes], describe: impl Fn(u64) -> u64) -> Result<(), CommandError> {
    ctx.heavy(args.len() as u64)?;
    let (key, now) = (&args[1], ctx.now);
    let hash = ctx.read_collection(key, Kind::Hash)?;
    let fields = fields(&args[2..], BAD_NUMBER)?;
    let mut answers = Vec::with_capacity(fields.len());
    for name in fields {
        let field = match &hash {
            Some(hash) => hash::get(&mut ctx.reader(key), hash, name, now)?,
            None => None,
        };
        answers.push(match field.map(|field| field.expire_at) {
            None => NO_FIELD,
            Some(None) => NO_EXPIRY,
            Some(Some(at)) => i64::try_from(describe(at)).unwrap_or(i64::MAX),
        });
    }
    answer(ctx, answers.into_iter());
    Ok(())
}

fn answer(ctx: &mut Ctx<'_, '_>, answers: impl ExactSizeIterator<Item = i64>) {
    ctx.reply.array(answers.len());
    answers.for_each(|number| ctx.reply.int(number));
}
