//! ACL, as far as there is anything to control: one user, `default`, with one password, `requirepass`, who may do everything.

use bytes::Bytes;
use rand::RngExt;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, error::lossy, introspection, numbers};

const DEFAULT_USER: &str = "default";
const ONE_USER: &str = "ERR this server has one user, 'default', whose password is the setting requirepass";
const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);
const ANYBODY: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
/// Bits of a password that ACL GENPASS makes when it is not told how many, and at most.
const PASSWORD_BITS: i64 = 256;
const MAX_PASSWORD_BITS: i64 = 4096;

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: ADMIN,
    keys: Keys::None,
    group: Group::Server,
    since: "6.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static ACL: &[Spec] =
    &[Spec { summary: "Commands about users.", ..Spec::container("acl", Group::Server, "6.0.0", "", SUBCOMMANDS) }];

static SUBCOMMANDS: &[Spec] = &[
    Spec {
        name: "cat",
        arity: -2,
        flags: ANYBODY,
        complexity: "O(N), N being the number of commands.",
        summary: "Lists the categories of commands, or the commands of one.",
        usage: "[category]",
        handler: cat,
        ..BASE
    },
    Spec {
        name: "deluser",
        arity: -3,
        flags: ADMIN.and(Flags::SKIP_SLOWLOG),
        summary: "Refused for the only user.",
        usage: "username [username ...]",
        handler: deluser,
        ..BASE
    },
    Spec {
        name: "genpass",
        arity: -2,
        flags: ANYBODY,
        summary: "Makes a random password, in hex digits.",
        usage: "[bits]",
        handler: genpass,
        ..BASE
    },
    Spec {
        name: "getuser",
        arity: 3,
        summary: "Tells what a user may do.",
        usage: "username",
        handler: getuser,
        ..BASE
    },
    Spec::help(Group::Server, "6.0.0"),
    Spec { name: "list", summary: "Lists the rules of all users.", handler: list, ..BASE },
    Spec {
        name: "setuser",
        arity: -3,
        flags: ADMIN.and(Flags::SKIP_SLOWLOG),
        summary: "Refused: there is one user, and requirepass is its password.",
        usage: "username [rule [rule ...]]",
        handler: setuser,
        ..BASE
    },
    Spec { name: "users", summary: "Lists the names of all users.", handler: users, ..BASE },
    Spec {
        name: "whoami",
        flags: ANYBODY,
        summary: "Returns the name of the connection's user.",
        handler: whoami,
        ..BASE
    },
];

fn whoami(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.bulk(DEFAULT_USER.as_bytes());
    Ok(())
}

fn users(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.array(1);
    ctx.reply.bulk(DEFAULT_USER.as_bytes());
    Ok(())
}

/// In Redis's notation a password is its SHA-256; requirepass is not shown in any form.
fn list(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let password = if ctx.server.config.requirepass().is_empty() { " nopass" } else { "" };
    ctx.reply.array(1);
    ctx.reply.bulk(format!("user {DEFAULT_USER} on{password} ~* &* +@all").as_bytes());
    Ok(())
}

fn getuser(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    if &*args[2] != DEFAULT_USER.as_bytes() {
        ctx.reply.null();
        return Ok(());
    }
    let open = ctx.server.config.requirepass().is_empty();
    let reply = &mut *ctx.reply;
    reply.map(6);
    reply.bulk(b"flags");
    let flags: &[&str] = if open { &["on", "nopass"] } else { &["on"] };
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(0);
    for (field, rule) in [("commands", "+@all"), ("keys", "~*"), ("channels", "&*")] {
        reply.bulk(field.as_bytes());
        reply.bulk(rule.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(())
}

fn setuser(_: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    Err(CommandError::Static(ONE_USER))
}

fn deluser(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    if args.iter().skip(2).any(|name| &**name == DEFAULT_USER.as_bytes()) {
        return Err(CommandError::Static("ERR The 'default' user cannot be removed"));
    }
    ctx.reply.int(0);
    Ok(())
}

fn genpass(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let bits = match args {
        [_, _] => PASSWORD_BITS,
        [_, _, bits] => numbers::parse_i64(bits).ok_or(CommandError::NotInteger)?,
        _ => return Err(CommandError::SubcommandForm { subcommand: "genpass".into(), container: "ACL" }),
    };
    if !(1..=MAX_PASSWORD_BITS).contains(&bits) {
        return Err(CommandError::Static(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    let mut rng = rand::rng();
    let digits: String =
        (0..(bits as usize).div_ceil(4)).filter_map(|_| char::from_digit(rng.random_range(0..16), 16)).collect();
    ctx.reply.bulk(digits.as_bytes());
    Ok(())
}

fn cat(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let table = &ctx.server.commands;
    let mut names: Vec<&str> = match args {
        [_, _] => table.all().flat_map(|command| introspection::categories(command.spec)).collect(),
        [_, _, wanted] => {
            let is = |category: &&'static str| wanted.eq_ignore_ascii_case(category.trim_start_matches('@').as_bytes());
            let in_it = table.all().filter(|command| introspection::categories(command.spec).iter().any(&is));
            in_it.map(|command| command.full_name.as_str()).collect()
        }
        _ => return Err(CommandError::SubcommandForm { subcommand: "cat".into(), container: "ACL" }),
    };
    if names.is_empty() {
        let wanted = args.get(2).map(|name| lossy(name, 128)).unwrap_or_default();
        return Err(CommandError::Text(format!("ERR Unknown category '{wanted}'")));
    }
    names.sort_unstable();
    names.dedup();
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name.trim_start_matches('@').as_bytes()));
    Ok(())
}
