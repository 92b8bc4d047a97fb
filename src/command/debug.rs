//! DEBUG: what tests need.

use std::time::Duration;

use bytes::Bytes;

use super::{
    CommandError, Ctx,
    error::lossy,
    help::{heading, reply_lines},
};

/// DEBUG SLEEP, DIGEST and HELP. Runs on the blocking pool: a sleep stalls nobody but the one who asked for it.
pub fn debug(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let is = |name: &str| args.get(1).is_some_and(|given| given.eq_ignore_ascii_case(name.as_bytes()));
    match args {
        [_, _] if is("help") => help(ctx),
        [_, _] if is("digest") => digest(ctx)?,
        [_, _, seconds] if is("sleep") => {
            // Like Redis, takes what is no number for zero.
            let seconds: f64 = std::str::from_utf8(seconds).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
            std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            ctx.reply.ok();
        }
        _ => {
            let subcommand = args.get(1).map(|name| lossy(name, 128)).unwrap_or_default();
            return Err(CommandError::SubcommandForm { subcommand, container: "DEBUG" });
        }
    }
    Ok(())
}

/// 40 hex digits that are equal on two nodes exactly when their data is.
fn digest(ctx: &mut Ctx<'_, '_>) -> Result<(), CommandError> {
    let digest = ctx.server.keyspace.digest()?;
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    ctx.reply.simple(&hex);
    Ok(())
}

fn help(ctx: &mut Ctx<'_, '_>) {
    let mut lines = vec![heading("debug")];
    lines.extend(
        [
            "DIGEST",
            "    Returns a digest of all data, equal on two nodes with equal data.",
            "SLEEP <seconds>",
            "    Answers after this many seconds; decimals are allowed.",
            "HELP",
            "    Prints this help.",
        ]
        .map(String::from),
    );
    reply_lines(ctx, &lines);
}
