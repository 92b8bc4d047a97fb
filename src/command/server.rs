//! Commands about the server as a whole: INFO, DBSIZE, FLUSHDB, FLUSHALL, TIME, SHUTDOWN, SWAPDB. CONFIG and DEBUG are in files
//! of their own.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, config, debug, numbers};
use crate::observe::info;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);
/// Empties databases: as a write, refused on a read-only replica.
const FLUSH: Flags = Flags::WRITE.and(Flags::BLOCKING_POOL).and(Flags::ALL_KEYS).and(Flags::DANGEROUS);

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::Server,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static SERVER: &[Spec] = &[
    Spec {
        summary: "Commands about the server's settings and counters.",
        ..Spec::container("config", Group::Server, "2.0.0", "", config::CONFIG)
    },
    Spec {
        name: "dbsize",
        arity: 1,
        flags: Flags::READONLY.and(Flags::FAST).and(Flags::BLOCKING_POOL).and(Flags::ALL_KEYS),
        complexity: "O(N), N being the number of keys, unless nothing was written since the last count.",
        summary: "Counts the keys of the database, exactly.",
        handler: dbsize,
        ..BASE
    },
    Spec {
        name: "debug",
        arity: -2,
        flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(ANY_TIME).and(Flags::BLOCKING_POOL).and(Flags::RELEASES_KEYS),
        complexity: "Depends on subcommand.",
        summary: "Commands for tests of the server.",
        usage: "subcommand [argument ...]",
        handler: debug::debug,
        ..BASE
    },
    Spec {
        name: "flushall",
        arity: -1,
        flags: FLUSH,
        complexity: "O(S), S being the number of slots.",
        summary: "Deletes all keys of all databases.",
        usage: "[ASYNC | SYNC]",
        handler: flushall,
        ..BASE
    },
    Spec {
        name: "flushdb",
        arity: -1,
        flags: FLUSH,
        complexity: "O(S), S being the number of slots.",
        summary: "Deletes all keys of the database.",
        usage: "[ASYNC | SYNC]",
        handler: flushdb,
        ..BASE
    },
    Spec {
        name: "info",
        arity: -1,
        flags: ANY_TIME.and(Flags::DANGEROUS).and(Flags::BLOCKING_POOL),
        summary: "Tells about the server, by section.",
        usage: "[section ...]",
        handler: info,
        ..BASE
    },
    Spec {
        name: "shutdown",
        arity: -1,
        flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(ANY_TIME).and(Flags::NO_MULTI),
        summary: "Stops the server; all that was written is durable when it ends.",
        usage: "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
        handler: shutdown,
        ..BASE
    },
    Spec {
        name: "swapdb",
        arity: 3,
        flags: FLUSH,
        since: "4.0.0",
        complexity: "O(1), with one wait for the disk.",
        summary: "Lets two databases trade places.",
        usage: "index1 index2",
        handler: swapdb,
        ..BASE
    },
    Spec {
        name: "time",
        arity: 1,
        flags: ANY_TIME.and(Flags::FAST),
        since: "2.6.0",
        summary: "Returns the server's time: Unix seconds and microseconds.",
        handler: time,
        ..BASE
    },
];

fn dbsize(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    // Where expired keys are left alone they count, as they are there.
    let now = if ctx.server.switches.active_expire() { ctx.now } else { 0 };
    let keys = ctx.server.keyspace.count(ctx.db(), now)?.keys;
    ctx.reply.int(keys as i64);
    Ok(())
}

fn flushdb(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    check_flush_mode(args)?;
    let db = ctx.db();
    ctx.tx.flush_db(Some(db), ctx.now)?;
    note_written(ctx);
    // Also where there was nothing to empty.
    ctx.server.events.tracking.replaced();
    ctx.reply.ok();
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    check_flush_mode(args)?;
    ctx.tx.flush_db(None, ctx.now)?;
    note_written(ctx);
    ctx.server.events.tracking.replaced();
    ctx.reply.ok();
    Ok(())
}

/// The connection has written to whole databases: WAIT is to wait for all that is there.
fn note_written(ctx: &mut Ctx<'_, '_>) {
    for slot in ctx.server.keyspace.all_slots() {
        ctx.client.written.note((slot.db(), slot.number()), slot.position().index);
    }
}

/// SWAPDB index1 index2
fn swapdb(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let index = |arg: &Bytes, error| numbers::integer_32(arg).map_err(|_| CommandError::Static(error));
    let first = index(&args[1], "ERR invalid first DB index")?;
    let second = index(&args[2], "ERR invalid second DB index")?;
    let known = |index: i32| {
        let db = usize::try_from(index).ok().filter(|db| *db < ctx.server.keyspace.databases());
        db.ok_or(CommandError::Static("ERR DB index is out of range"))
    };
    let (first, second) = (known(first)?, known(second)?);
    ctx.tx.swap_db(first, second, ctx.now)?;
    note_written(ctx);
    ctx.reply.ok();
    Ok(())
}

/// ASYNC and SYNC are the same here: either way the keys are gone at once and their space is reclaimed later.
fn check_flush_mode(args: &[Bytes]) -> Result<(), CommandError> {
    match args {
        [_] => Ok(()),
        [_, mode] if mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync") => Ok(()),
        _ => Err(CommandError::Syntax),
    }
}

fn info(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let sections: Vec<&str> =
        args.iter().skip(1).map(|section| std::str::from_utf8(section).unwrap_or_default()).collect();
    let text = info::render(ctx.server, &sections);
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn time(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ctx.reply.array(2);
    ctx.reply.bulk_int(now.as_secs() as i64);
    ctx.reply.bulk_int(i64::from(now.subsec_micros()));
    Ok(())
}

/// Ends without a reply, as Redis does. SAVE and NOSAVE are the same here: what was written is in the binlog.
fn shutdown(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (mut save, mut nosave, mut abort, mut other) = (false, false, false, false);
    for option in args.iter().skip(1) {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        if is("save") {
            save = true;
        } else if is("nosave") {
            nosave = true;
        } else if is("abort") {
            abort = true;
        } else if is("now") || is("force") {
            other = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if (save && nosave) || (abort && (save || nosave || other)) {
        return Err(CommandError::Syntax);
    }
    if abort {
        return Err(CommandError::Static("ERR No shutdown in progress."));
    }
    tracing::info!(client = %ctx.client.info().addr, "shutdown asked for by a client");
    ctx.client.close();
    ctx.server.request_shutdown();
    Ok(())
}
