//! MONITOR.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, Within};

/// The family's part of the command table.
pub static MONITOR: &[Spec] = &[Spec {
    name: "monitor",
    arity: 1,
    flags: Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE),
    keys: Keys::None,
    group: Group::Server,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "Sends every command that is executed from now on.",
    usage: "",
    handler: monitor,
    subcommands: &[],
}];

/// MONITOR
fn monitor(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    if ctx.within != Within::Nothing || ctx.client.denies_blocking() {
        return Err(CommandError::Static("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    ctx.client.monitor(Some(&ctx.server.monitors));
    ctx.reply.ok();
    Ok(())
}
