//! EVAL, EVALSHA, their read-only forms, and SCRIPT.
//!
//! A script runs on the blocking pool with the keys that it declares locked, exclusively unless it declares `no-writes`. When it
//! touches another key that is not free, everything it did is taken back and it runs again with that one locked too: what it
//! sees and does is of one moment, and what it does is committed as one. Messages that it logs may therefore come more than once.

mod host;

use bytes::Bytes;

use self::host::ScriptHost;
use super::admission::{is_out_of_memory, is_stale, lacks_replicas};
use super::numbers::{integer, parse_i64};
use super::{CommandError, Ctx, Flags, Group, KeyRef, Keys, Spec};
use crate::net::Reply;
use crate::script::{Abort, Ended, Host, Invocation, Origin, Script, ScriptFlags, ScriptKind, shebang};
use crate::server::Server;

const RUN: Flags =
    Flags::NOSCRIPT.and(Flags::STALE).and(Flags::MOVABLE_KEYS).and(Flags::PLANNED).and(Flags::BLOCKING_POOL);

/// What commands that run scripts have in common.
pub(super) const RUN_BASE: Spec = Spec {
    name: "",
    arity: -3,
    flags: RUN.and(Flags::MAY_REPLICATE),
    keys: Keys::Find(declared_keys),
    group: Group::Scripting,
    since: "2.6.0",
    complexity: "Depends on the script that is executed.",
    summary: "",
    usage: "script numkeys [key [key ...]] [arg [arg ...]]",
    handler: eval,
    subcommands: &[],
};

/// [`RUN_BASE`] for those that may not write.
pub(super) const RUN_RO_BASE: Spec = Spec { flags: RUN.and(Flags::READONLY), since: "7.0.0", ..RUN_BASE };

const BASE: Spec = Spec { flags: Flags::NOSCRIPT, keys: Keys::None, complexity: "O(1)", usage: "", ..RUN_BASE };

/// The family's part of the command table.
pub static SCRIPTING: &[Spec] = &[
    Spec { name: "eval", summary: "Runs a Lua script.", handler: eval, ..RUN_BASE },
    Spec { name: "eval_ro", summary: "Runs a Lua script that only reads.", handler: eval_ro, ..RUN_RO_BASE },
    Spec {
        name: "evalsha",
        summary: "Runs a Lua script of the cache.",
        usage: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
        handler: evalsha,
        ..RUN_BASE
    },
    Spec {
        name: "evalsha_ro",
        summary: "Runs a Lua script of the cache that only reads.",
        usage: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
        handler: evalsha_ro,
        ..RUN_RO_BASE
    },
    Spec::container("script", Group::Scripting, "2.6.0", "Manages the cache of Lua scripts.", SCRIPT),
];

static SCRIPT: &[Spec] = &[
    Spec {
        name: "debug",
        arity: 3,
        since: "3.2.0",
        summary: "Turns the debugger off, which is not there.",
        usage: "YES | SYNC | NO",
        handler: debug,
        ..BASE
    },
    Spec {
        name: "exists",
        arity: -3,
        complexity: "O(N), N being the number of digests.",
        summary: "Says which scripts are in the cache.",
        usage: "sha1 [sha1 ...]",
        handler: exists,
        ..BASE
    },
    Spec {
        name: "flush",
        arity: -2,
        complexity: "O(N), N being the number of scripts in the cache.",
        summary: "Empties the cache of scripts.",
        usage: "[ASYNC | SYNC]",
        handler: flush,
        ..BASE
    },
    Spec {
        name: "kill",
        arity: 2,
        summary: "Ends scripts that take too long and have not written.",
        handler: kill,
        ..BASE
    },
    Spec {
        name: "load",
        arity: 3,
        flags: Flags::NOSCRIPT.and(Flags::STALE).and(Flags::BLOCKING_POOL),
        complexity: "O(N), N being the length of the script.",
        summary: "Puts a script into the cache and returns its digest.",
        usage: "script",
        handler: load,
        ..BASE
    },
    Spec::help(Group::Scripting, "5.0.0"),
];

/// What this request to run a script may do: of a script that declares it, that.
pub(super) fn flags(server: &Server, spec: &Spec, args: &[Bytes]) -> Flags {
    let declared = args.get(1).and_then(|script| match spec.name {
        "eval" | "eval_ro" => shebang(script).ok().map(|(flags, _)| flags),
        "evalsha" | "evalsha_ro" => server.scripts.script(script).map(|script| script.flags()),
        _ => server.functions.current().function(script).map(|(_, function)| function.flags),
    });
    let Some(declared) = declared.filter(|flags| !flags.has(ScriptFlags::UNDECLARED)) else { return spec.flags };
    let judged = Flags::STALE.and(Flags::DENYOOM).and(Flags::WRITE).and(Flags::MAY_REPLICATE);
    let reads = declared.has(ScriptFlags::NO_WRITES);
    let mut flags = spec.flags.without(judged);
    for (flag, set) in [
        (Flags::WRITE, !reads),
        (Flags::DENYOOM, !reads && !declared.has(ScriptFlags::ALLOW_OOM)),
        (Flags::STALE, declared.has(ScriptFlags::ALLOW_STALE)),
    ] {
        if set {
            flags = flags.and(flag);
        }
    }
    flags
}

/// The keys in `script numkeys key …`.
fn declared_keys(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    let number = args.get(2).and_then(|number| usize::try_from(parse_i64(number)?).ok());
    let keys = number.and_then(|number| args.get(3..)?.get(..number)).unwrap_or_default();
    found.extend(keys.iter().map(|key| KeyRef { db, key: key.clone() }));
}

/// KEYS and ARGV of a script, from the arguments after the number of keys.
fn keys_and_args(number: i64, rest: &[Bytes]) -> Result<(&[Bytes], &[Bytes]), CommandError> {
    if number > rest.len() as i64 {
        return Err(CommandError::Static("ERR Number of keys can't be greater than number of args"));
    }
    let number = usize::try_from(number).map_err(|_| CommandError::Static("ERR Number of keys can't be negative"))?;
    rest.split_at_checked(number).ok_or(CommandError::Syntax)
}

/// A script that is to run, with what it was called with.
pub(super) struct Call<'c> {
    /// What it declares.
    pub flags: ScriptFlags,
    /// Whether it was called by a command that may not write.
    pub read_only: bool,
    /// The whole command.
    pub command: &'c [Bytes],
}

/// Runs a script or function by `run`, which gets KEYS, ARGV and the rest of what it needs. `number` of the arguments are keys.
pub(super) fn run_script(
    ctx: &mut Ctx<'_, '_>,
    call: &Call<'_>,
    number: i64,
    run: impl FnOnce(&[Bytes], &[Bytes], Invocation, &mut dyn Host, &mut Reply) -> Result<Ended, Abort>,
) -> Result<(), CommandError> {
    let (keys, args) = keys_and_args(number, call.command.get(3..).unwrap_or_default())?;
    admit(ctx.server, call)?;
    let threshold = ctx.server.config.busy_reply_threshold();
    let invocation = Invocation {
        command: call.command.to_vec(),
        busy_after: (!threshold.is_zero()).then_some(threshold),
        from_master: false,
    };
    let db = ctx.db();
    let (mut host, reply) = ScriptHost::new(ctx, call);
    let ended = run(keys, args, invocation, &mut host, reply);
    let suspended = host.into_suspended();
    ctx.client.select(db);
    match ended {
        Ok(Ended { failed: false, .. }) => Ok(()),
        Ok(Ended { counted, .. }) => Err(CommandError::Replied { counted }),
        Err(Abort) => Err(suspended.unwrap_or(CommandError::Static("ERR the script was interrupted"))),
    }
}

/// Whether a script may run that declares this, now. What declares nothing may, and each of its commands is judged by itself.
fn admit(server: &Server, call: &Call<'_>) -> Result<(), CommandError> {
    let refused = |text| Err(CommandError::Static(text));
    let has = |flag| call.flags.has(flag);
    if has(ScriptFlags::UNDECLARED) {
        return if is_stale(server) {
            refused("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.")
        } else {
            Ok(())
        };
    }
    if is_stale(server) && !has(ScriptFlags::ALLOW_STALE) {
        return refused(
            "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and 'allow-stale' flag is not \
             set on the script.",
        );
    }
    let reads = has(ScriptFlags::NO_WRITES);
    if !reads && server.replication.is_slave() && server.config.slave_read_only() {
        return refused("READONLY Can not run script with write flag on readonly replica");
    }
    if !reads && call.read_only {
        return refused("ERR Can not execute a script with write flag using *_ro command.");
    }
    if !reads && lacks_replicas(server) {
        return refused("NOREPLICAS Not enough good replicas to write.");
    }
    if !reads && !has(ScriptFlags::ALLOW_OOM) && is_out_of_memory(server) {
        return refused("OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'");
    }
    Ok(())
}

/// EVAL script numkeys [key [key ...]] [arg [arg ...]]
fn eval(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    eval_body(ctx, args, false)
}

/// EVAL_RO script numkeys [key [key ...]] [arg [arg ...]]
fn eval_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    eval_body(ctx, args, true)
}

fn eval_body(ctx: &mut Ctx<'_, '_>, args: &[Bytes], read_only: bool) -> Result<(), CommandError> {
    let number = integer(&args[2])?;
    keys_and_args(number, &args[3..])?;
    let script = ctx.server.scripts.load(&args[1], Origin::Eval).map_err(CommandError::Text)?;
    run_eval(ctx, args, &script, number, read_only)
}

/// EVALSHA sha1 numkeys [key [key ...]] [arg [arg ...]]
fn evalsha(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    eval_cached(ctx, args, false)
}

/// EVALSHA_RO sha1 numkeys [key [key ...]] [arg [arg ...]]
fn evalsha_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    eval_cached(ctx, args, true)
}

fn eval_cached(ctx: &mut Ctx<'_, '_>, args: &[Bytes], read_only: bool) -> Result<(), CommandError> {
    const DIGITS: usize = 40;
    let unknown = || CommandError::Static("NOSCRIPT No matching script. Please use EVAL.");
    if args[1].len() != DIGITS {
        return Err(unknown());
    }
    let number = integer(&args[2])?;
    keys_and_args(number, &args[3..])?;
    let script = ctx.server.scripts.script(&args[1]).ok_or_else(unknown)?;
    run_eval(ctx, args, &script, number, read_only)
}

fn run_eval(
    ctx: &mut Ctx<'_, '_>,
    command: &[Bytes],
    script: &Script,
    number: i64,
    read_only: bool,
) -> Result<(), CommandError> {
    let server = ctx.server;
    let call = Call { flags: script.flags(), read_only, command };
    run_script(ctx, &call, number, |keys, args, invocation, host, reply| {
        server.scripts.eval(script, keys, args, invocation, host, reply)
    })
}

/// SCRIPT DEBUG YES | SYNC | NO
fn debug(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let is = |word: &[u8]| args[2].eq_ignore_ascii_case(word);
    if is(b"no") {
        ctx.reply.ok();
        Ok(())
    } else if is(b"yes") || is(b"sync") {
        Err(CommandError::Static("ERR this server has no debugger for scripts"))
    } else {
        Err(CommandError::Static("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
    }
}

/// SCRIPT EXISTS sha1 [sha1 ...]
fn exists(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.array(args.len() - 2);
    for sha in &args[2..] {
        ctx.reply.int(i64::from(ctx.server.scripts.script(sha).is_some()));
    }
    Ok(())
}

/// SCRIPT FLUSH [ASYNC | SYNC]
fn flush(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    if !is_flush_mode(&args[2..]) {
        return Err(CommandError::Static("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    ctx.server.scripts.flush_scripts();
    ctx.reply.ok();
    Ok(())
}

/// Whether the last arguments of a FLUSH are nothing, `SYNC` or `ASYNC`, which all mean the same here.
pub(super) fn is_flush_mode(args: &[Bytes]) -> bool {
    match args {
        [] => true,
        [mode] => mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async"),
        _ => false,
    }
}

/// SCRIPT KILL
fn kill(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.scripts.kill(ScriptKind::Eval).map_err(CommandError::Static)?;
    ctx.reply.ok();
    Ok(())
}

/// SCRIPT LOAD script
fn load(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let script = ctx.server.scripts.load(&args[2], Origin::Load).map_err(CommandError::Text)?;
    ctx.reply.bulk(script.sha().as_bytes());
    Ok(())
}
