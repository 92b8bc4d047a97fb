//! DUMP and RESTORE: values as bytes.

use bytes::Bytes;

use super::object::thresholds;
use super::values;
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::Entry;
use crate::pubsub::EventClass;
use crate::rdb::{self, DumpOptions, RestoreOptions};

/// Bytes of a payload that cost about as much as one element.
const BYTES_AN_ELEMENT: u64 = 64;

/// DUMP key
pub fn dump(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    match ctx.read(key)? {
        Some(entry) => match dump_of(ctx, key, &entry)? {
            Some(payload) => ctx.reply.bulk(&payload),
            None => ctx.reply.null(),
        },
        None => ctx.reply.null(),
    }
    Ok(())
}

/// What DUMP answers for a value; `None` where [`values::load`] finds none.
pub fn dump_of(ctx: &mut Ctx<'_, '_>, key: &Bytes, entry: &Entry) -> Result<Option<Vec<u8>>, CommandError> {
    let db = ctx.db();
    let options = DumpOptions { thresholds: thresholds(ctx), ..DumpOptions::default() };
    let value = values::load(ctx, (db, key), entry)?;
    Ok(value.map(|value| rdb::dump(&value, &options)))
}

/// The options of RESTORE.
#[derive(Default)]
struct RestoreArgs {
    replace: bool,
    absolute: bool,
}

impl RestoreArgs {
    /// IDLETIME and FREQ are checked and forgotten: how often and when a key is used is not recorded.
    fn parse(args: &[Bytes]) -> Result<RestoreArgs, CommandError> {
        let mut options = RestoreArgs::default();
        let (mut idle, mut frequency) = (false, false);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let left = args.len();
            if arg.eq_ignore_ascii_case(b"replace") {
                options.replace = true;
            } else if arg.eq_ignore_ascii_case(b"absttl") {
                options.absolute = true;
            } else if arg.eq_ignore_ascii_case(b"idletime") && left >= 1 && !frequency {
                let seconds = numbers::integer(args.next().ok_or(CommandError::Syntax)?)?;
                if seconds < 0 {
                    return Err(CommandError::Static("ERR Invalid IDLETIME value, must be >= 0"));
                }
                idle = true;
            } else if arg.eq_ignore_ascii_case(b"freq") && left >= 1 && !idle {
                let counter = numbers::integer(args.next().ok_or(CommandError::Syntax)?)?;
                if !(0..=255).contains(&counter) {
                    return Err(CommandError::Static("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                }
                frequency = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]
pub fn restore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (db, key, payload) = (ctx.db(), &args[1], &args[3]);
    let options = RestoreArgs::parse(&args[4..])?;
    let exists = ctx.peek(key)?.is_some();
    if exists && !options.replace {
        return Err(CommandError::Static("BUSYKEY Target key name already exists."));
    }
    let ttl = u64::try_from(numbers::integer(&args[2])?)
        .map_err(|_| CommandError::Static("ERR Invalid TTL value, must be >= 0"))?;
    ctx.heavy(payload.len() as u64 / BYTES_AN_ELEMENT)?;
    let value = rdb::restore(payload, &RestoreOptions::default()).map_err(|e| CommandError::Static(e.reply()))?;
    let expire_at = match ttl {
        0 => None,
        ttl if options.absolute => Some(ttl),
        ttl => Some(ttl.saturating_add(ctx.now)),
    };
    if expire_at.is_some_and(|at| at <= ctx.now) {
        if exists {
            ctx.tx.del(db, key, ctx.now)?;
            ctx.notify(EventClass::Generic, "del", key);
        }
    } else {
        values::store(ctx, (db, key), value, expire_at)?;
        ctx.notify(EventClass::Generic, "restore", key);
    }
    ctx.reply.ok();
    Ok(())
}
