//! Commands that save: BGSAVE, and LASTSAVE, which tells when.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
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
];

/// `BGSAVE [SCHEDULE]`
fn bgsave(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    match &args[1..] {
        [] => {}
        // Redis puts a save off while the AOF is rewritten; here nothing stands in the way.
        [word] if word.eq_ignore_ascii_case(b"schedule") => {}
        _ => return Err(CommandError::Syntax),
    }
    ctx.server
        .bgsave
        .start(ctx.server.keyspace.clone(), Origin::of(&ctx.server.config))
        .map_err(|e| CommandError::Text(format!("ERR {e}")))?;
    ctx.reply.simple("Background saving started");
    Ok(())
}

/// `LASTSAVE`
fn lastsave(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(ctx.server.bgsave.last_save() as i64);
    Ok(())
}
