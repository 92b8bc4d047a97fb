//! Commands that save: SAVE, BGSAVE, BGREWRITEAOF, and LASTSAVE, which tells when.

use std::time::Duration;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::server::SECONDS_A_DAY;
use crate::snapshot::Origin;

const BASE: Spec = Spec {
    name: "",
    arity: 1,
    flags: Flags::ADMIN.and(Flags::NOSCRIPT),
    keys: Keys::None,
    group: Group::Server,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: bgsave,
    subcommands: &[],
};

/// The family's part of the command table.
pub static PERSISTENCE: &[Spec] = &[
    Spec {
        name: "bgrewriteaof",
        summary: "Writes all data to the engines' files, so that a start has no log to replay, in the background.",
        handler: bgrewriteaof,
        ..BASE
    },
    Spec {
        name: "bgsave",
        arity: -1,
        summary: "Puts a copy of all data, by hard links, into a new folder under dump-path, in the background.",
        usage: "[SCHEDULE]",
        ..BASE
    },
    Spec {
        name: "lastsave",
        flags: Flags::LOADING.and(Flags::STALE).and(Flags::FAST),
        summary: "Returns the Unix time of the last BGSAVE that succeeded, or of the start of the server.",
        handler: lastsave,
        ..BASE
    },
    Spec {
        name: "save",
        flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::BLOCKING_POOL).and(Flags::NO_MULTI),
        complexity: "O(N), N being the number of slots.",
        summary: "As BGSAVE, and answers when it is done.",
        handler: save,
        ..BASE
    },
];

/// `BGSAVE [SCHEDULE]`
fn bgsave(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    match &args[1..] {
        [] => {}
        // Redis puts a save off while the AOF is rewritten; here nothing stands in the way.
        [word] if word.eq_ignore_ascii_case(b"schedule") => {}
        _ => return Err(CommandError::Syntax),
    }
    start(ctx)?;
    ctx.reply.simple("Background saving started");
    Ok(())
}

/// Begins a save.
fn start(ctx: &Ctx<'_, '_>) -> Result<(), CommandError> {
    let config = &ctx.server.config;
    let expire = Duration::from_secs(u64::from(config.dump_expire()) * SECONDS_A_DAY);
    let begun = ctx.server.bgsave.start(ctx.server.keyspace.clone(), Origin::of(config), expire);
    begun.map_err(|e| CommandError::Text(format!("ERR {e}")))
}

/// `SAVE`
fn save(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    start(ctx)?;
    ctx.server.bgsave.wait().map_err(|e| CommandError::Text(format!("ERR {e}")))?;
    ctx.reply.ok();
    Ok(())
}

/// `BGREWRITEAOF`: what it is for in Redis, a log that is quick to load, is here a log that the engines' files are ahead of.
fn bgrewriteaof(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let keyspace = ctx.server.keyspace.clone();
    let flush = move || match keyspace.flush_all_engines() {
        Ok(()) => tracing::info!("BGREWRITEAOF: all data flushed"),
        Err(e) => tracing::error!("BGREWRITEAOF failed: {e}"),
    };
    let thread = std::thread::Builder::new().name("bgrewriteaof".into()).spawn(flush);
    thread.map_err(|e| CommandError::Text(format!("ERR no thread to flush with: {e}")))?;
    ctx.reply.simple("Background append only file rewriting started");
    Ok(())
}

/// `LASTSAVE`
fn lastsave(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(ctx.server.bgsave.last_save() as i64);
    Ok(())
}
