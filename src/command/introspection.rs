//! COMMAND: what the table says, for client libraries and redis-cli.

use bytes::Bytes;

use super::{Command, CommandError, Ctx, Flags, Group, KeyRef, Keys, Lookup, Spec, glob, key_flags};
use crate::net::Reply;

const ANY_TIME: Flags = Flags::LOADING.and(Flags::STALE);

const BASE: Spec = Spec {
    name: "",
    arity: -2,
    flags: ANY_TIME,
    keys: Keys::None,
    group: Group::Server,
    since: "2.8.13",
    complexity: "O(N), N being the number of commands.",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static INTROSPECTION: &[Spec] = &[Spec {
    name: "command",
    arity: -1,
    summary: "Describes all commands.",
    handler: command,
    subcommands: SUBCOMMANDS,
    ..BASE
}];

static SUBCOMMANDS: &[Spec] = &[
    Spec { name: "count", arity: 2, complexity: "O(1)", summary: "Counts the commands.", handler: count, ..BASE },
    Spec {
        name: "docs",
        since: "7.0.0",
        summary: "Returns the manual of commands.",
        usage: "[command-name [command-name ...]]",
        handler: docs,
        ..BASE
    },
    Spec {
        name: "getkeys",
        arity: -4,
        complexity: "O(N), N being the number of arguments.",
        summary: "Returns the keys that a full command names.",
        usage: "command [arg ...]",
        handler: getkeys,
        ..BASE
    },
    Spec {
        name: "getkeysandflags",
        arity: -4,
        since: "7.0.0",
        complexity: "O(N), N being the number of arguments.",
        summary: "Returns the keys that a full command names, and what it does with each.",
        usage: "command [arg ...]",
        handler: getkeysandflags,
        ..BASE
    },
    Spec {
        name: "info",
        summary: "Describes commands.",
        usage: "[command-name [command-name ...]]",
        handler: info,
        ..BASE
    },
    Spec {
        name: "list",
        since: "7.0.0",
        summary: "Lists the names of commands.",
        usage: "[FILTERBY MODULE module-name | ACLCAT category | PATTERN pattern]",
        handler: list,
        ..BASE
    },
    Spec::help(Group::Server, "5.0.0"),
];

fn command(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let server = ctx.server;
    ctx.reply.array(server.commands.top_level().count());
    for command in server.commands.top_level() {
        describe(ctx, command);
    }
    Ok(())
}

fn count(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(ctx.server.commands.top_level().count() as i64);
    Ok(())
}

fn info(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let names = args.get(2..).unwrap_or_default();
    if names.is_empty() {
        return command(ctx, args);
    }
    ctx.reply.array(names.len());
    for name in names {
        match ctx.server.commands.by_full_name(name) {
            Some(found) => describe(ctx, found),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

/// The ten fields of COMMAND INFO in Redis 7.
fn describe(ctx: &mut Ctx<'_, '_>, command: &Command) {
    let spec = command.spec;
    let reply = &mut *ctx.reply;
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.int(i64::from(spec.arity));
    let found = if matches!(spec.keys, Keys::Find(_)) { Flags::MOVABLE_KEYS } else { Flags::NONE };
    let flags: Vec<&str> = spec.flags.and(found).redis_names().collect();
    simple_set(reply, &flags);
    let (first, last, step) = match spec.keys {
        Keys::Range { first, last, step } => (first as i64, i64::from(last), step as i64),
        Keys::None | Keys::Find(_) => (0, 0, 0),
    };
    for position in [first, last, step] {
        reply.int(position);
    }
    simple_set(reply, &categories(spec));
    reply.array(0);
    key_specs(reply, command);
    let subcommands: Vec<&Command> = ctx.server.commands.subcommands(command).collect();
    ctx.reply.array(subcommands.len());
    for sub in subcommands {
        describe(ctx, sub);
    }
}

fn simple_set(reply: &mut Reply, words: &[&str]) {
    reply.set(words.len());
    for word in words {
        reply.simple(word);
    }
}

/// ACL categories, which follow from flags and chapter.
pub fn categories(spec: &Spec) -> Vec<&'static str> {
    let flags = spec.flags;
    let on_data = flags.has(Flags::WRITE) || flags.has(Flags::READONLY);
    let dangerous = flags.has(Flags::DANGEROUS) || flags.has(Flags::ADMIN);
    let chapter = spec.group.category();
    // In Redis's order.
    [
        (spec.group == Group::Generic || on_data && spec.group == Group::Server).then_some("@keyspace"),
        flags.has(Flags::READONLY).then_some("@read"),
        flags.has(Flags::WRITE).then_some("@write"),
        chapter.filter(|_| !matches!(spec.group, Group::Generic | Group::Connection)),
        flags.has(Flags::ADMIN).then_some("@admin"),
        Some(if flags.has(Flags::FAST) { "@fast" } else { "@slow" }),
        dangerous.then_some("@dangerous"),
        chapter.filter(|_| spec.group == Group::Connection),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where the keys stand, with what is done to them: the first one apart when that differs.
fn key_specs(reply: &mut Reply, command: &Command) {
    let Keys::Range { first, last, step } = command.spec.keys else { return reply.array(0) };
    let (of_first, of_others) = key_flags::of_command(&command.full_name, command.spec);
    let mut of_first = of_first.to_vec();
    if key_flags::vary(&command.full_name) {
        of_first.push("variable_flags");
    }
    if of_first == of_others || i64::from(last) == first as i64 {
        reply.array(1);
        return key_spec(reply, &of_first, first, last, step);
    }
    reply.array(2);
    key_spec(reply, &of_first, first, first as i32, step);
    key_spec(reply, of_others, first + step, last, step);
}

fn key_spec(reply: &mut Reply, flags: &[&str], first: usize, last: i32, step: usize) {
    reply.map(3);
    reply.bulk(b"flags");
    simple_set(reply, flags);
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.int(first as i64);
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    // Counted from the first key, unless it counts from the end.
    let last = if last < 0 { i64::from(last) } else { i64::from(last) - first as i64 };
    for (field, value) in [("lastkey", last), ("keystep", step as i64), ("limit", 0)] {
        reply.bulk(field.as_bytes());
        reply.int(value);
    }
}

fn list(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let is = |word: &Bytes, name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let table = &ctx.server.commands;
    let names: Vec<&str> = match args.get(2..).unwrap_or_default() {
        [] => table.all().map(|command| command.full_name.as_str()).collect(),
        [by, kind, value] if is(by, "filterby") => {
            let wanted: Box<dyn Fn(&Command) -> bool> = if is(kind, "module") {
                Box::new(|_| false)
            } else if is(kind, "aclcat") {
                Box::new(|command| {
                    let mut categories = categories(command.spec).into_iter();
                    categories.any(|category| value.eq_ignore_ascii_case(category.trim_start_matches('@').as_bytes()))
                })
            } else if is(kind, "pattern") {
                Box::new(|command| glob::matches_nocase(value, command.full_name.as_bytes()))
            } else {
                return Err(CommandError::Syntax);
            };
            table.all().filter(|command| wanted(command)).map(|command| command.full_name.as_str()).collect()
        }
        _ => return Err(CommandError::Syntax),
    };
    ctx.reply.array(names.len());
    for name in names {
        ctx.reply.bulk(name.as_bytes());
    }
    Ok(())
}

fn getkeys(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (_, found) = find_keys(ctx, args.get(2..).unwrap_or_default())?;
    ctx.reply.array(found.len());
    for found in found {
        ctx.reply.bulk(&found.key);
    }
    Ok(())
}

fn getkeysandflags(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let args = args.get(2..).unwrap_or_default();
    let (command, found) = find_keys(ctx, args)?;
    let (of_first, of_others) = key_flags::of_request(&command.full_name, command.spec, args);
    ctx.reply.array(found.len());
    for (nth, found) in found.iter().enumerate() {
        ctx.reply.array(2);
        ctx.reply.bulk(&found.key);
        simple_set(ctx.reply, if nth == 0 { of_first } else { of_others });
    }
    Ok(())
}

/// The command that `args` ask for, and the keys they name.
fn find_keys<'s>(ctx: &Ctx<'s, '_>, args: &[Bytes]) -> Result<(&'s Command, Vec<KeyRef>), CommandError> {
    let Lookup::Found(command) = ctx.server.commands.lookup(args) else {
        return Err(CommandError::Static("ERR Invalid command specified"));
    };
    if command.spec.keys.is_none() {
        return Err(CommandError::Static("ERR The command has no key arguments"));
    }
    if !command.spec.arity_fits(args.len()) {
        return Err(CommandError::Static("ERR Invalid number of arguments specified for command"));
    }
    let mut found = Vec::new();
    command.spec.keys.collect(ctx.db(), args, &mut found);
    // The manual says whether there must be any, as in EVAL.
    if found.is_empty() && !command.spec.usage.contains("numkeys [key") {
        return Err(CommandError::Static("ERR Invalid arguments specified for command"));
    }
    Ok((command, found))
}

fn docs(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let table = &ctx.server.commands;
    let names = args.get(2..).unwrap_or_default();
    let found: Vec<&Command> = if names.is_empty() {
        table.top_level().collect()
    } else {
        names.iter().filter_map(|name| table.by_full_name(name)).collect()
    };
    ctx.reply.map(found.len());
    for command in found {
        document(ctx, command);
    }
    Ok(())
}

/// Name and manual of a command: one pair of a map.
fn document(ctx: &mut Ctx<'_, '_>, command: &Command) {
    let spec = command.spec;
    let arguments = arguments(spec.usage);
    let subcommands: Vec<&Command> = ctx.server.commands.subcommands(command).collect();
    let reply = &mut *ctx.reply;
    reply.bulk(command.full_name.as_bytes());
    reply.map(4 + usize::from(!arguments.is_empty()) + usize::from(!subcommands.is_empty()));
    for (field, text) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group.name()),
        ("complexity", spec.complexity),
    ] {
        reply.bulk(field.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        reply.array(arguments.len());
        for argument in arguments {
            reply.map(if argument.optional { 4 } else { 3 });
            for (field, text) in [("name", argument.text), ("type", "string"), ("display_text", argument.text)] {
                reply.bulk(field.as_bytes());
                reply.bulk(text.as_bytes());
            }
            if argument.optional {
                reply.bulk(b"flags");
                simple_set(reply, &["optional"]);
            }
        }
    }
    if !subcommands.is_empty() {
        ctx.reply.bulk(b"subcommands");
        ctx.reply.map(subcommands.len());
        for sub in subcommands {
            document(ctx, sub);
        }
    }
}

/// One argument of a usage line; an optional one without its brackets.
#[derive(Debug, PartialEq)]
struct Argument<'u> {
    text: &'u str,
    optional: bool,
}

/// Splits a usage line at the spaces that no bracket holds.
fn arguments(usage: &str) -> Vec<Argument<'_>> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, byte) in usage.bytes().chain([b' ']).enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b' ' if depth == 0 => {
                let text = usage.get(start..at).unwrap_or_default();
                start = at + 1;
                let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
                if !text.is_empty() {
                    found.push(Argument { text: inner.unwrap_or(text), optional: inner.is_some() });
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_splits_into_arguments() {
        let parts: Vec<(&str, bool)> =
            arguments("key value [NX | XX [GET]] [key ...]").iter().map(|part| (part.text, part.optional)).collect();
        assert_eq!(parts, [("key", false), ("value", false), ("NX | XX [GET]", true), ("key ...", true)]);
        assert!(arguments("").is_empty());
    }
}
