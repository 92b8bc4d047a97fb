//! CONFIG: reading and changing settings, writing them to the conf file, resetting counters.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, error::lossy, glob};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: ADMIN,
    keys: Keys::None,
    group: Group::Server,
    since: "2.0.0",
    complexity: "O(N), N being the number of settings.",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The subcommands.
pub static CONFIG: &[Spec] = &[
    Spec {
        name: "get",
        arity: -3,
        summary: "Returns the settings that match the patterns, with their values.",
        usage: "parameter [parameter ...]",
        handler: get,
        ..BASE
    },
    Spec { name: "resetstat", summary: "Sets the counters of INFO to zero.", handler: resetstat, ..BASE },
    Spec {
        name: "rewrite",
        flags: ADMIN.and(Flags::BLOCKING_POOL),
        since: "2.8.0",
        summary: "Writes what CONFIG SET changed to the conf file.",
        handler: rewrite,
        ..BASE
    },
    Spec {
        name: "set",
        arity: -4,
        summary: "Changes settings, all of them or none.",
        usage: "parameter value [parameter value ...]",
        handler: set,
        ..BASE
    },
    Spec::help(Group::Server, "5.0.0"),
];

fn get(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let patterns = args.get(2..).unwrap_or_default();
    let found =
        ctx.server.config.get(|name| patterns.iter().any(|pattern| glob::matches_nocase(pattern, name.as_bytes())));
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn set(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (pairs, []) = args.get(2..).unwrap_or_default().as_chunks::<2>() else { return Err(CommandError::Syntax) };
    let pairs = pairs
        .iter()
        .map(|[name, value]| Ok((lossy(name, name.len()), text(name, value)?)))
        .collect::<Result<Vec<_>, CommandError>>()?;
    let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    ctx.server.config.set(&borrowed).map_err(|error| CommandError::text(error.to_string()))?;
    ctx.reply.ok();
    Ok(())
}

/// A value as text; no setting holds other bytes.
fn text(name: &[u8], value: &[u8]) -> Result<String, CommandError> {
    String::from_utf8(value.to_vec()).map_err(|_| {
        let name = lossy(name, name.len());
        CommandError::Text(format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - argument must be UTF-8 text"
        ))
    })
}

fn rewrite(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.config.rewrite().map_err(|error| CommandError::text(error.to_string()))?;
    ctx.reply.ok();
    Ok(())
}

fn resetstat(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.stats.reset();
    ctx.server.commands.reset_stats();
    ctx.reply.ok();
    Ok(())
}
