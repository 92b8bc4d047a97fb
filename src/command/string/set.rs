//! SET, SETNX, SETEX, PSETEX and GETEX: strings and their expiry.

use bytes::Bytes;

use crate::command::keys::expire::Timing;
use crate::command::{CommandError, Ctx};
use crate::pubsub::EventClass;

/// Options of SET (and, as far as they concern expiry, of GETEX).
#[derive(Default)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expiry: Option<(Timing, &'a Bytes)>,
}

impl<'a> Options<'a> {
    fn of_set(args: &'a [Bytes]) -> Result<Options<'a>, CommandError> {
        Self::parse(args, |options, arg| {
            if arg.eq_ignore_ascii_case(b"nx") && !options.xx {
                options.nx = true;
            } else if arg.eq_ignore_ascii_case(b"xx") && !options.nx {
                options.xx = true;
            } else if arg.eq_ignore_ascii_case(b"get") {
                options.get = true;
            } else if arg.eq_ignore_ascii_case(b"keepttl") && options.expiry.is_none() {
                options.keep_ttl = true;
            } else {
                return Err(CommandError::Syntax);
            }
            Ok(())
        })
    }

    fn of_getex(args: &'a [Bytes]) -> Result<Options<'a>, CommandError> {
        Self::parse(args, |options, arg| {
            if arg.eq_ignore_ascii_case(b"persist") && options.expiry.is_none() {
                options.persist = true;
                return Ok(());
            }
            Err(CommandError::Syntax)
        })
    }

    /// Reads the expiry options, of which a command takes one kind; `other` reads the rest.
    fn parse(
        args: &'a [Bytes],
        other: impl Fn(&mut Self, &Bytes) -> Result<(), CommandError>,
    ) -> Result<Options<'a>, CommandError> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match timing(arg) {
                Some(timing) => {
                    let compatible = options.expiry.is_none_or(|(earlier, _)| earlier == timing);
                    let amount = args.next().filter(|_| compatible && !options.keep_ttl && !options.persist);
                    options.expiry = Some((timing, amount.ok_or(CommandError::Syntax)?));
                }
                None => other(&mut options, arg)?,
            }
        }
        Ok(options)
    }

    /// The absolute expiry that was asked for, in unix ms.
    fn expire_at(&self, now: u64, command: &str) -> Result<Option<u64>, CommandError> {
        self.expiry.map(|(timing, amount)| timing.option(amount, now, command)).transpose()
    }
}

fn timing(option: &[u8]) -> Option<Timing> {
    [("ex", Timing::EX), ("px", Timing::PX), ("exat", Timing::EXAT), ("pxat", Timing::PXAT)]
        .into_iter()
        .find(|(name, _)| option.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, timing)| timing)
}

/// SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]
///
/// Without NX, XX, GET and KEEPTTL it needs no lookup.
pub fn set(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let options = Options::of_set(&args[3..])?;
    let mut expire_at = options.expire_at(ctx.now, "set")?;
    if options.nx || options.xx || options.get || options.keep_ttl {
        let old = if options.get { ctx.read_string(key)? } else { ctx.peek(key)? };
        if options.get {
            match &old {
                Some(entry) => ctx.reply.bulk(&entry.value),
                None => ctx.reply.null(),
            }
        }
        if options.nx && old.is_some() || options.xx && old.is_none() {
            if !options.get {
                ctx.reply.null();
            }
            return Ok(());
        }
        if options.keep_ttl {
            expire_at = old.and_then(|entry| entry.expire_at);
        }
    }
    store(ctx, key, &args[2], expire_at)?;
    if options.expiry.is_some() && expire_at.is_some_and(|at| ctx.now < at) {
        ctx.notify(EventClass::Generic, "expire", key);
    }
    if !options.get {
        ctx.reply.ok();
    }
    Ok(())
}

/// Sets a string; if its expiry is already past, that deletes the key.
pub fn store(ctx: &mut Ctx<'_, '_>, key: &Bytes, value: &Bytes, expire_at: Option<u64>) -> Result<(), CommandError> {
    let (db, now) = (ctx.db(), ctx.now);
    if expire_at.is_none_or(|at| now < at) {
        ctx.notify_if_new(db, key)?;
        ctx.tx.set(db, key, value.clone(), expire_at, now)?;
        ctx.notify(EventClass::String, "set", key);
    } else if ctx.peek(key)?.is_some() {
        ctx.tx.del(db, key, now)?;
        ctx.notify(EventClass::Generic, "del", key);
    }
    Ok(())
}

/// SETNX key value
pub fn setnx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let missing = ctx.peek(&args[1])?.is_none();
    if missing {
        store(ctx, &args[1], &args[2], None)?;
    }
    ctx.reply.int(i64::from(missing));
    Ok(())
}

/// SETEX key seconds value
pub fn setex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_with_expiry(ctx, args, Timing::EX, "setex")
}

/// PSETEX key milliseconds value
pub fn psetex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    set_with_expiry(ctx, args, Timing::PX, "psetex")
}

fn set_with_expiry(ctx: &mut Ctx<'_, '_>, args: &[Bytes], timing: Timing, command: &str) -> Result<(), CommandError> {
    let expire_at = timing.option(&args[2], ctx.now, command)?;
    store(ctx, &args[1], &args[3], Some(expire_at))?;
    if ctx.now < expire_at {
        ctx.notify(EventClass::Generic, "expire", &args[1]);
    }
    ctx.reply.ok();
    Ok(())
}

/// GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]
pub fn getex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (db, key, now) = (ctx.db(), &args[1], ctx.now);
    let options = Options::of_getex(&args[2..])?;
    let Some(entry) = ctx.read_string(key)? else {
        ctx.reply.null();
        return Ok(());
    };
    match options.expire_at(now, "getex")? {
        Some(at) if at <= now => {
            ctx.tx.del(db, key, now)?;
            ctx.notify(EventClass::Generic, "del", key);
        }
        Some(at) => {
            ctx.tx.expire_at(db, key, at, now)?;
            ctx.notify(EventClass::Generic, "expire", key);
        }
        None if options.persist && entry.expire_at.is_some() => {
            ctx.tx.persist(db, key, now)?;
            ctx.notify(EventClass::Generic, "persist", key);
        }
        None => {}
    }
    ctx.reply.bulk(&entry.value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_options() {
        let words = |text: &str| -> Vec<Bytes> {
            text.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
        };
        for good in ["", "nx get", "XX KEEPTTL", "ex 1 ex 2", "get px 5 nx", "nx nx", "exat 5", "pxat 5"] {
            assert!(Options::of_set(&words(good)).is_ok(), "{good}");
        }
        for bad in ["nx xx", "ex", "ex 1 px 2", "keepttl ex 1", "ex 1 keepttl", "persist", "foo", "get ex"] {
            assert!(Options::of_set(&words(bad)).is_err(), "{bad}");
        }
        for good in ["", "ex 1", "PERSIST", "px 1 px 2", "persist persist"] {
            assert!(Options::of_getex(&words(good)).is_ok(), "{good}");
        }
        for bad in ["nx", "get", "keepttl", "persist ex 1", "ex 1 persist", "ex", "ex 1 pxat 2"] {
            assert!(Options::of_getex(&words(bad)).is_err(), "{bad}");
        }
    }
}
