//! Keys with a lifetime: EXPIRE and its kin, TTL and its kin, PERSIST; and how a time argument is read.
//!
//! Times are unix milliseconds. What is logged is always the absolute time, or the deletion when it is past.

use bytes::Bytes;

use crate::command::{CommandError, Ctx, numbers};
use crate::pubsub::EventClass;

/// How a time argument counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Milliseconds in one unit of the argument.
    unit: i64,
    /// From now, rather than from 1970.
    relative: bool,
}

impl Timing {
    /// Seconds from now.
    pub const EX: Timing = Timing { unit: 1000, relative: true };
    /// Milliseconds from now.
    pub const PX: Timing = Timing { unit: 1, relative: true };
    /// Unix seconds.
    pub const EXAT: Timing = Timing { unit: 1000, relative: false };
    /// Unix milliseconds.
    pub const PXAT: Timing = Timing { unit: 1, relative: false };

    /// The unix millisecond that `amount` means at `now`; `None` when it overflows an `i64`.
    pub fn resolve(self, amount: i64, now: u64) -> Option<i64> {
        let base = if self.relative { i64::try_from(now).ok()? } else { 0 };
        amount.checked_mul(self.unit)?.checked_add(base)
    }

    /// The unix millisecond of an expiry option of `command` (SET, GETEX, SETEX …), which must be positive.
    ///
    /// # Errors
    /// `ERR value is not an integer or out of range`, `ERR invalid expire time in '<command>' command`.
    pub fn option(self, arg: &[u8], now: u64, command: &str) -> Result<u64, CommandError> {
        let amount = numbers::integer(arg)?;
        (amount > 0)
            .then(|| self.resolve(amount, now))
            .flatten()
            .and_then(|at| u64::try_from(at).ok())
            .ok_or_else(|| invalid_expire_time(command))
    }
}

/// The error about a time argument of `command` that is out of range.
pub fn invalid_expire_time(command: &str) -> CommandError {
    CommandError::Text(format!("ERR invalid expire time in '{command}' command"))
}

/// The options of EXPIRE: which expiry the key must have now for the new one to be set.
#[derive(Default)]
struct Condition {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Condition {
    fn parse(args: &[Bytes]) -> Result<Condition, CommandError> {
        let mut condition = Condition::default();
        for arg in args {
            if arg.eq_ignore_ascii_case(b"nx") {
                condition.nx = true;
            } else if arg.eq_ignore_ascii_case(b"xx") {
                condition.xx = true;
            } else if arg.eq_ignore_ascii_case(b"gt") {
                condition.gt = true;
            } else if arg.eq_ignore_ascii_case(b"lt") {
                condition.lt = true;
            } else {
                return Err(CommandError::Text(format!("ERR Unsupported option {}", String::from_utf8_lossy(arg))));
            }
        }
        if condition.nx && (condition.xx || condition.gt || condition.lt) {
            return Err(CommandError::Static("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if condition.gt && condition.lt {
            return Err(CommandError::Static("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(condition)
    }

    /// A key without expiry lives for ever: nothing is greater, everything is less.
    fn allows(&self, current: Option<u64>, new: i64) -> bool {
        let new = i128::from(new);
        let current = current.map(i128::from);
        !(self.nx && current.is_some()
            || self.xx && current.is_none()
            || self.gt && current.is_none_or(|current| new <= current)
            || self.lt && current.is_some_and(|current| new >= current))
    }
}

/// EXPIRE key seconds [NX|XX|GT|LT]
pub fn expire(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::EX, "expire")
}

/// PEXPIRE key milliseconds [NX|XX|GT|LT]
pub fn pexpire(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::PX, "pexpire")
}

/// EXPIREAT key unix-seconds [NX|XX|GT|LT]
pub fn expireat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::EXAT, "expireat")
}

/// PEXPIREAT key unix-milliseconds [NX|XX|GT|LT]
pub fn pexpireat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_expiry(ctx, args, Timing::PXAT, "pexpireat")
}

fn set_expiry(ctx: &mut Ctx<'_, '_>, args: &[Bytes], timing: Timing, command: &str) -> Result<(), CommandError> {
    let (db, key, now) = (ctx.db(), &args[1], ctx.now);
    let condition = Condition::parse(&args[3..])?;
    let amount = numbers::integer(&args[2])?;
    let at = timing.resolve(amount, now).ok_or_else(|| invalid_expire_time(command))?;
    let allowed = match ctx.peek(key)? {
        Some(entry) => condition.allows(entry.expire_at, at),
        None => false,
    };
    if allowed {
        match u64::try_from(at) {
            Ok(at) if at > now => {
                ctx.tx.expire_at(db, key, at, now)?;
                ctx.notify(EventClass::Generic, "expire", key);
            }
            _ => {
                ctx.tx.del(db, key, now)?;
                ctx.notify(EventClass::Generic, "del", key);
            }
        }
    }
    ctx.reply.int(i64::from(allowed));
    Ok(())
}

/// PERSIST key
pub fn persist(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let expires = ctx.peek(key)?.is_some_and(|entry| entry.expire_at.is_some());
    if expires {
        let db = ctx.db();
        ctx.tx.persist(db, key, ctx.now)?;
        ctx.notify(EventClass::Generic, "persist", key);
    }
    ctx.reply.int(i64::from(expires));
    Ok(())
}

/// TTL key
pub fn ttl(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let now = ctx.now;
    report(ctx, args, |at| seconds(at.saturating_sub(now)))
}

/// PTTL key
pub fn pttl(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let now = ctx.now;
    report(ctx, args, |at| at.saturating_sub(now))
}

/// EXPIRETIME key
pub fn expiretime(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    report(ctx, args, seconds)
}

/// PEXPIRETIME key
pub fn pexpiretime(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    report(ctx, args, |at| at)
}

/// Milliseconds to the nearest second.
fn seconds(milliseconds: u64) -> u64 {
    milliseconds.saturating_add(500) / 1000
}

/// Answers what `describe` makes of the key's expiry; -1 when it has none, -2 when there is no key.
fn report(ctx: &mut Ctx<'_, '_>, args: &[Bytes], describe: impl Fn(u64) -> u64) -> Result<(), CommandError> {
    let answer = match ctx.read(&args[1])? {
        None => -2,
        Some(entry) => match entry.expire_at {
            None => -1,
            Some(at) => i64::try_from(describe(at)).unwrap_or(i64::MAX),
        },
    };
    ctx.reply.int(answer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn option_times() {
        assert_eq!(Timing::EX.option(b"10", NOW, "set").ok(), Some(NOW + 10_000));
        assert_eq!(Timing::PX.option(b"10", NOW, "set").ok(), Some(NOW + 10));
        assert_eq!(Timing::EXAT.option(b"10", NOW, "set").ok(), Some(10_000));
        assert_eq!(Timing::PXAT.option(b"9223372036854775807", NOW, "set").ok(), Some(i64::MAX as u64));
        for (timing, bad) in [
            (Timing::EX, "0"),
            (Timing::PXAT, "-1"),
            (Timing::EX, "9223372036854775807"),
            (Timing::EXAT, "9223372036854776"),
            (Timing::PX, "9223372036854775807"),
        ] {
            let error = timing.option(bad.as_bytes(), NOW, "set").unwrap_err();
            assert_eq!(error.to_string(), "ERR invalid expire time in 'set' command", "{bad}");
        }
        assert!(matches!(Timing::EX.option(b"1.5", NOW, "set"), Err(CommandError::NotInteger)));
    }

    #[test]
    fn conditions() {
        let parse = |text: &str| {
            let args: Vec<Bytes> = text.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
            Condition::parse(&args)
        };
        for (options, current, new, expected) in [
            ("NX", None, 5, true),
            ("nx", Some(9), 5, false),
            ("XX", None, 5, false),
            ("xx", Some(9), 5, true),
            ("GT", None, 5, false),
            ("gt", Some(5), 5, false),
            ("gt", Some(4), 5, true),
            ("LT", None, 5, true),
            ("lt", Some(5), 5, false),
            ("lt", Some(6), -5, true),
            ("xx gt", Some(4), 5, true),
            ("xx lt", None, 5, false),
        ] {
            assert_eq!(parse(options).unwrap().allows(current, new), expected, "{options} {current:?} {new}");
        }
        for bad in ["nx xx", "gt nx", "gt lt", "foo"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_rounded() {
        assert_eq!((seconds(499), seconds(500), seconds(1499)), (0, 1, 1));
        assert_eq!(seconds(i64::MAX as u64), 9_223_372_036_854_776);
    }
}
