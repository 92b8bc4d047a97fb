//! SLOWLOG: looking at the slow log.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};

/// Entries that SLOWLOG GET returns when it is not told how many.
const DEFAULT_COUNT: usize = 10;
const ADMIN: Flags = Flags::ADMIN.and(Flags::LOADING).and(Flags::STALE);

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: ADMIN,
    keys: Keys::None,
    group: Group::Server,
    since: "2.2.12",
    complexity: "O(N), N being the number of entries.",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static SLOWLOG: &[Spec] = &[Spec {
    summary: "Commands about the log of commands that took long.",
    ..Spec::container("slowlog", Group::Server, "2.2.12", "", SUBCOMMANDS)
}];

static SUBCOMMANDS: &[Spec] = &[
    Spec {
        name: "get",
        arity: -2,
        summary: "Returns the newest entries: id, Unix time, microseconds, arguments, address and name of the client. \
                  10 of them by default, -1 for all.",
        usage: "[count]",
        handler: get,
        ..BASE
    },
    Spec { name: "len", complexity: "O(1)", summary: "Returns the number of entries.", handler: len, ..BASE },
    Spec { name: "reset", summary: "Drops all entries.", handler: reset, ..BASE },
    Spec::help(Group::Server, "6.2.0"),
];

fn get(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let count = match args {
        [_, _] => DEFAULT_COUNT,
        [_, _, count] => match numbers::parse_i64(count).filter(|count| *count >= -1) {
            None => return Err(CommandError::Static("ERR count should be greater than or equal to -1")),
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        },
        _ => return Err(CommandError::SubcommandForm { subcommand: "get".into(), container: "SLOWLOG" }),
    };
    let entries = ctx.server.slowlog.newest(count);
    ctx.reply.array(entries.len());
    for entry in entries {
        ctx.reply.array(6);
        ctx.reply.int(entry.id as i64);
        ctx.reply.int(entry.at as i64);
        ctx.reply.int(entry.took.as_micros() as i64);
        ctx.reply.array(entry.args.len());
        for arg in &entry.args {
            ctx.reply.bulk(arg);
        }
        ctx.reply.bulk(entry.addr.as_bytes());
        ctx.reply.bulk(entry.name.as_bytes());
    }
    Ok(())
}

fn len(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(ctx.server.slowlog.len() as i64);
    Ok(())
}

fn reset(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.slowlog.reset();
    ctx.reply.ok();
    Ok(())
}
