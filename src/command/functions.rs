//! FUNCTION, FCALL, FCALL_RO: libraries of functions that the server keeps.
//!
//! The libraries are data: what changes them is logged, replicated and committed like a write
//! ([`Effect::Libraries`](crate::keyspace::Effect)). They belong to no database.

use std::sync::Arc;

use bytes::Bytes;

use super::error::lossy;
use super::numbers::parse_i64;
use super::scripting::{Call, RUN_BASE, RUN_RO_BASE, is_flush_mode, run_script};
use super::{CommandError, Ctx, Flags, Group, Keys, Spec, glob};
use crate::keyspace::LIBRARIES_KEY;
use crate::script::{LOAD_TIMEOUT, Libraries, Library, RestorePolicy, ScriptKind};

/// Bytes of an argument shown in an error.
const SHOWN: usize = 128;

const BASE: Spec = Spec {
    flags: Flags::NOSCRIPT,
    keys: Keys::None,
    since: "7.0.0",
    complexity: "O(N), N being the number of functions.",
    usage: "",
    ..RUN_BASE
};

/// Changes the libraries; may run their code.
const CHANGE: Flags = Flags::NOSCRIPT.and(Flags::WRITE).and(Flags::PLANNED);
const LOAD: Flags = CHANGE.and(Flags::DENYOOM).and(Flags::BLOCKING_POOL);

/// The family's part of the command table.
pub static FUNCTIONS: &[Spec] = &[
    Spec {
        name: "fcall",
        since: "7.0.0",
        complexity: "Depends on the function that is executed.",
        summary: "Calls a function.",
        usage: "function numkeys [key [key ...]] [arg [arg ...]]",
        handler: fcall,
        ..RUN_BASE
    },
    Spec {
        name: "fcall_ro",
        complexity: "Depends on the function that is executed.",
        summary: "Calls a function that only reads.",
        usage: "function numkeys [key [key ...]] [arg [arg ...]]",
        handler: fcall_ro,
        ..RUN_RO_BASE
    },
    Spec::container("function", Group::Scripting, "7.0.0", "Manages libraries of functions.", FUNCTION),
];

static FUNCTION: &[Spec] = &[
    Spec {
        name: "delete",
        arity: 3,
        flags: CHANGE,
        complexity: "O(1)",
        summary: "Deletes a library and its functions.",
        usage: "library-name",
        handler: delete,
        ..BASE
    },
    Spec { name: "dump", arity: 2, summary: "Returns all libraries in one string.", handler: dump, ..BASE },
    Spec {
        name: "flush",
        arity: -2,
        flags: CHANGE,
        summary: "Deletes all libraries.",
        usage: "[ASYNC | SYNC]",
        handler: flush,
        ..BASE
    },
    Spec {
        name: "kill",
        arity: 2,
        complexity: "O(1)",
        summary: "Ends functions that take too long and have not written.",
        handler: kill,
        ..BASE
    },
    Spec {
        name: "list",
        arity: -2,
        summary: "Describes the libraries and their functions.",
        usage: "[LIBRARYNAME library-name-pattern] [WITHCODE]",
        handler: list,
        ..BASE
    },
    Spec {
        name: "load",
        arity: -3,
        flags: LOAD,
        complexity: "O(1), not counting the run of the library's code.",
        summary: "Makes a library of its code.",
        usage: "[REPLACE] function-code",
        handler: load,
        ..BASE
    },
    Spec {
        name: "restore",
        arity: -3,
        flags: LOAD,
        complexity: "O(N), N being the number of functions in the string.",
        summary: "Makes the libraries of a string that FUNCTION DUMP returned.",
        usage: "serialized-value [FLUSH | APPEND | REPLACE]",
        handler: restore,
        ..BASE
    },
    Spec {
        name: "stats",
        arity: 2,
        complexity: "O(1)",
        summary: "Tells of the function that runs, and counts libraries and functions.",
        handler: stats,
        ..BASE
    },
    Spec::help(Group::Scripting, "7.0.0"),
];

/// The libraries as this command sees them: with what the transaction that it runs in has changed.
fn libraries(ctx: &Ctx<'_, '_>) -> Arc<Libraries> {
    let server = ctx.server;
    match ctx.tx.pending_libraries() {
        Some(pending) => server.functions.of(&server.scripts, pending),
        None => server.functions.current(),
    }
}

/// Changes the libraries. An error of `change` is the reply's, without its code.
fn alter<T>(
    ctx: &mut Ctx<'_, '_>,
    change: impl FnOnce(&mut Libraries) -> Result<T, String>,
) -> Result<T, CommandError> {
    ctx.tx.ensure(&LIBRARIES_KEY, true)?;
    let mut changed = (*libraries(ctx)).clone();
    let result = change(&mut changed).map_err(|text| CommandError::Text(format!("ERR {text}")))?;
    let payload = ctx.server.functions.prepare(changed);
    ctx.tx.set_libraries(payload, ctx.now)?;
    Ok(result)
}

/// FCALL function numkeys [key [key ...]] [arg [arg ...]]
fn fcall(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    call(ctx, args, false)
}

/// FCALL_RO function numkeys [key [key ...]] [arg [arg ...]]
fn fcall_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    call(ctx, args, true)
}

fn call(ctx: &mut Ctx<'_, '_>, command: &[Bytes], read_only: bool) -> Result<(), CommandError> {
    let libraries = libraries(ctx);
    let (library, function) = libraries.function(&command[1]).ok_or(CommandError::Static("ERR Function not found"))?;
    let number = parse_i64(&command[2]).ok_or(CommandError::Static("ERR Bad number of keys provided"))?;
    let server = ctx.server;
    let call = Call { flags: function.flags, read_only, command };
    run_script(ctx, &call, number, |keys, args, invocation, host, reply| {
        server.scripts.call(library, &function.name, keys, args, invocation, host, reply)
    })
}

/// FUNCTION LOAD [REPLACE] function-code
fn load(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some((code, options)) = args[2..].split_last() else { return Err(CommandError::Syntax) };
    if let Some(unknown) = options.iter().find(|option| !option.eq_ignore_ascii_case(b"replace")) {
        return Err(CommandError::Text(format!("ERR Unknown option given: {}", lossy(unknown, SHOWN))));
    }
    let engine = &ctx.server.scripts;
    let name = alter(ctx, |libraries| libraries.load(engine, code, !options.is_empty(), Some(LOAD_TIMEOUT)))?;
    ctx.reply.bulk(name.as_bytes());
    Ok(())
}

/// FUNCTION DELETE library-name
fn delete(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    alter(ctx, |libraries| libraries.delete(&args[2]))?;
    ctx.reply.ok();
    Ok(())
}

/// FUNCTION FLUSH [ASYNC | SYNC]
fn flush(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    if args.len() > 3 {
        return Err(wrong_form(args));
    }
    if !is_flush_mode(&args[2..]) {
        return Err(CommandError::Static("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    ctx.tx.ensure(&LIBRARIES_KEY, true)?;
    if libraries(ctx).iter().len() > 0 {
        alter(ctx, |libraries| {
            *libraries = Libraries::default();
            Ok(())
        })?;
    }
    ctx.reply.ok();
    Ok(())
}

/// FUNCTION DUMP
fn dump(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let dump = libraries(ctx).dump();
    ctx.reply.bulk(&dump);
    Ok(())
}

/// FUNCTION RESTORE serialized-value [FLUSH | APPEND | REPLACE]
fn restore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let policy = match &args[3..] {
        [] => RestorePolicy::Append,
        [word] if word.eq_ignore_ascii_case(b"append") => RestorePolicy::Append,
        [word] if word.eq_ignore_ascii_case(b"replace") => RestorePolicy::Replace,
        [word] if word.eq_ignore_ascii_case(b"flush") => RestorePolicy::Flush,
        [_] => {
            return Err(CommandError::Static(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
        _ => return Err(wrong_form(args)),
    };
    let engine = &ctx.server.scripts;
    alter(ctx, |libraries| libraries.restore(engine, &args[2], policy))?;
    ctx.reply.ok();
    Ok(())
}

fn wrong_form(args: &[Bytes]) -> CommandError {
    CommandError::SubcommandForm { subcommand: lossy(&args[1], SHOWN), container: "FUNCTION" }
}

/// FUNCTION KILL
fn kill(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.scripts.kill(ScriptKind::Function).map_err(CommandError::Static)?;
    ctx.reply.ok();
    Ok(())
}

/// FUNCTION LIST [LIBRARYNAME library-name-pattern] [WITHCODE]
fn list(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (mut pattern, mut with_code) = (None, false);
    let mut options = args[2..].iter();
    while let Some(option) = options.next() {
        if !with_code && option.eq_ignore_ascii_case(b"withcode") {
            with_code = true;
        } else if pattern.is_none() && option.eq_ignore_ascii_case(b"libraryname") {
            let missing = CommandError::Static("ERR library name argument was not given");
            pattern = Some(options.next().ok_or(missing)?);
        } else {
            return Err(CommandError::Text(format!("ERR Unknown argument {}", lossy(option, SHOWN))));
        }
    }
    let libraries = libraries(ctx);
    let matches = |library: &&Arc<Library>| {
        pattern.is_none_or(|pattern| glob::matches_nocase(pattern, library.name().as_bytes()))
    };
    let found: Vec<_> = libraries.iter().filter(matches).collect();
    ctx.reply.array(found.len());
    found.into_iter().for_each(|library| describe(ctx, library, with_code));
    Ok(())
}

fn describe(ctx: &mut Ctx<'_, '_>, library: &Library, with_code: bool) {
    let reply = &mut *ctx.reply;
    reply.map(if with_code { 4 } else { 3 });
    reply.bulk(b"library_name");
    reply.bulk(library.name().as_bytes());
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions().len());
    for function in library.functions() {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(function.name.as_bytes());
        reply.bulk(b"description");
        match &function.description {
            Some(description) => reply.bulk(description),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        reply.set(function.flags.names().count());
        function.flags.names().for_each(|name| reply.simple(name));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(library.code());
    }
}

/// FUNCTION STATS
fn stats(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let (libraries, functions) = libraries(ctx).counts();
    let running = ctx.server.scripts.running(ScriptKind::Function);
    let reply = &mut *ctx.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(run) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(run.name.as_bytes());
            reply.bulk(b"command");
            reply.array(run.invocation.command.len());
            run.invocation.command.iter().for_each(|arg| reply.bulk(arg));
            reply.bulk(b"duration_ms");
            reply.int(run.duration().as_millis() as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.int(libraries as i64);
    reply.bulk(b"functions_count");
    reply.int(functions as i64);
    Ok(())
}
