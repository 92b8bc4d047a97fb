//! `X HELP` of container commands, made from the table.

use bytes::Bytes;

use super::{CommandError, Ctx, error::lossy};

/// Lists the subcommands of the container `args[0]` with usage and summary.
pub fn help(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some(container) = args.first().and_then(|name| ctx.server.commands.by_name(name)) else {
        return Err(CommandError::Syntax);
    };
    let mut lines = vec![heading(container.spec.name)];
    if container.spec.arity == -1 {
        lines.push("(no subcommand)".into());
        lines.push(format!("    {}", container.spec.summary));
    }
    for sub in ctx.server.commands.subcommands(container) {
        lines.push(format!("{} {}", sub.spec.name.to_ascii_uppercase(), sub.spec.usage).trim_end().to_owned());
        lines.push(format!("    {}", sub.spec.summary));
    }
    reply_lines(ctx, &lines);
    Ok(())
}

/// The first line of a HELP reply of `container`.
pub fn heading(container: &str) -> String {
    format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", container.to_ascii_uppercase())
}

/// Replies with an array of simple strings.
pub fn reply_lines(ctx: &mut Ctx<'_, '_>, lines: &[String]) {
    ctx.reply.array(lines.len());
    for line in lines {
        ctx.reply.simple(line);
    }
}

/// The handler of a container: its arity lets no request without a subcommand reach it.
pub fn container_without_subcommand(_: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    Err(CommandError::Arity(args.first().map(|name| lossy(name, 128).to_ascii_lowercase()).unwrap_or_default()))
}
