//! The native functions of the sandbox: `redis.*`, the random numbers, and what the sandbox itself needs.

use std::sync::Arc;

use bytes::Bytes;
use mlua::{Lua, MultiValue, Table, Value};
use nix::time::{ClockId, clock_gettime};
use sha1::{Digest, Sha1};

use super::interpreter::{Answer, Failure, Registered, Request, Shared};
use super::lib::{bit, cjson, cmsgpack, structs};
use super::library::valid_name;
use super::raise::{Args, Raised, reply_error, text_error, type_name};
use super::random::Random;
use super::running::ScriptKind;
use super::{LogLevel, ScriptFlags, convert, number};
use crate::observe::info::REDIS_VERSION;

/// Arguments beyond which a native function has too little of Lua's stack left to work by itself.
const MANY_ARGS: usize = 7900;

/// Replication flags of `redis.set_repl`: the append-only file and the replicas.
const REPL_AOF: i64 = 1;
const REPL_REPLICA: i64 = 2;

/// What the sandbox is made of.
pub(super) fn natives(lua: &Lua, kind: ScriptKind, state: &Shared, json: &cjson::Shared) -> mlua::Result<Table> {
    let natives = lua.create_table()?;
    natives.raw_set("bit", bit::functions(lua)?)?;
    natives.raw_set("struct", structs::functions(lua)?)?;
    natives.raw_set("cmsgpack", cmsgpack::functions(lua)?)?;
    natives.raw_set("cjson", cjson::functions(lua, json)?)?;
    natives.raw_set("redis", redis(lua, kind, state)?)?;
    natives.raw_set("loading", loading(lua, state)?)?;
    let os = lua.create_table()?;
    os.raw_set("clock", lua.create_function(|_, ()| Ok(clock()))?)?;
    natives.raw_set("os", os)?;
    put(lua, &natives, "random", state, random)?;
    put(lua, &natives, "randomseed", state, |state, args| {
        let seed = args.integer(1)? as i32;
        state.lock().random = Some(Random::seeded(seed));
        Ok(Value::Nil)
    })?;
    put(lua, &natives, "caught", state, caught)?;
    put(lua, &natives, "check", state, |state, _| match state.lock().stopped {
        Some(_) => Err(Raised::Stop.into()),
        None => Ok(Value::Nil),
    })?;
    put(lua, &natives, "located", state, located)?;
    put(lua, &natives, "perform", state, perform)?;
    Ok(natives)
}

type Native = fn(&Shared, &Args<'_>) -> mlua::Result<Value>;

fn put(lua: &Lua, table: &Table, name: &'static str, state: &Shared, function: Native) -> mlua::Result<()> {
    let state = Arc::clone(state);
    let native = move |lua: &Lua, values: MultiValue| function(&state, &Args::new(lua, name, values));
    table.raw_set(name, lua.create_function(native)?)
}

/// The table `redis` of running scripts.
fn redis(lua: &Lua, kind: ScriptKind, state: &Shared) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    logging(lua, &redis, state)?;
    put(lua, &redis, "call", state, |state, args| command(state, args, true))?;
    put(lua, &redis, "pcall", state, |state, args| command(state, args, false))?;
    put(lua, &redis, "setresp", state, set_resp)?;
    put(lua, &redis, "sha1hex", state, sha1_hex)?;
    put(lua, &redis, "error_reply", state, error_reply)?;
    put(lua, &redis, "status_reply", state, status_reply)?;
    put(lua, &redis, "set_repl", state, set_repl)?;
    put(lua, &redis, "acl_check_cmd", state, acl_check_cmd)?;
    let flags = [
        ("NONE", 0),
        ("AOF", REPL_AOF),
        ("SLAVE", REPL_REPLICA),
        ("REPLICA", REPL_REPLICA),
        ("ALL", REPL_AOF | REPL_REPLICA),
    ];
    for (name, flag) in flags {
        redis.raw_set(format!("REPL_{name}"), flag)?;
    }
    if kind == ScriptKind::Eval {
        // There is no debugger: nothing stops at a breakpoint and nobody reads what is debugged.
        redis.raw_set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
        redis.raw_set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
        redis.raw_set("replicate_commands", lua.create_function(|_, _: MultiValue| Ok(true))?)?;
    }
    Ok(redis)
}

/// The table `redis` while a library is loaded.
fn loading(lua: &Lua, state: &Shared) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    logging(lua, &redis, state)?;
    put(lua, &redis, "register_function", state, register_function)?;
    Ok(redis)
}

fn logging(lua: &Lua, redis: &Table, state: &Shared) -> mlua::Result<()> {
    put(lua, redis, "log", state, log)?;
    for (name, level) in [("DEBUG", 0), ("VERBOSE", 1), ("NOTICE", 2), ("WARNING", 3)] {
        redis.raw_set(format!("LOG_{name}"), level)?;
    }
    let version = REDIS_VERSION.split('.').fold(0, |number, part| (number << 8) | part.parse().unwrap_or(0));
    redis.raw_set("REDIS_VERSION_NUM", version)?;
    redis.raw_set("REDIS_VERSION", REDIS_VERSION)
}

/// The arguments of a command: strings, and numbers in full precision.
fn command_args(args: &Args<'_>) -> mlua::Result<Vec<Bytes>> {
    if args.values.is_empty() {
        return Err(reply_error("Please specify at least one argument for this redis lib call"));
    }
    let bytes = |value: &Value| match value {
        Value::String(text) => Some(Bytes::copy_from_slice(&text.as_bytes())),
        Value::Integer(number) => Some(number::format_g(*number as f64, number::EXACT_DIGITS).into()),
        Value::Number(number) => Some(number::format_g(*number, number::EXACT_DIGITS).into()),
        _ => None,
    };
    args.values
        .iter()
        .map(bytes)
        .collect::<Option<_>>()
        .ok_or_else(|| reply_error("Lua redis lib command arguments must be strings or integers"))
}

/// Has the host of the running script do something.
fn ask(state: &Shared, request: Request) -> mlua::Result<Answer> {
    let gate = {
        let mut state = state.lock();
        state.request = Some(request);
        state.gate.clone()
    };
    if let Some(gate) = gate {
        gate.call::<()>(())?;
    }
    let mut state = state.lock();
    match state.stopped {
        Some(_) => Err(Raised::Stop.into()),
        None => Ok(state.answer.take().unwrap_or(Answer::Done)),
    }
}

fn need_run(state: &Shared, function: &str) -> mlua::Result<()> {
    if state.lock().gate.is_none() {
        return Err(reply_error(&format!("redis.{function} can only be called inside a script invocation")));
    }
    Ok(())
}

fn command(state: &Shared, args: &Args<'_>, raise: bool) -> mlua::Result<Value> {
    need_run(state, "call/pcall")?;
    let request = match command_args(args) {
        Ok(request) => request,
        Err(error) if raise => return Err(error),
        Err(error) => return error_value(args.lua, &error),
    };
    if request.len() <= MANY_ARGS {
        return run_command(args.lua, state, request, raise);
    }
    let worker = {
        let mut state = state.lock();
        state.work = Some((request, raise));
        state.worker.clone()
    };
    // Fails for want of room for its results, of which it has none.
    let _ = worker.map(|worker| worker.resume::<()>(()));
    state.lock().worked.take().unwrap_or_else(|| Err(reply_error("too many arguments")))
}

/// Runs the command that was left for the worker.
fn perform(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    let work = state.lock().work.take();
    let worked = work.map(|(request, raise)| run_command(args.lua, state, request, raise));
    state.lock().worked = worked;
    Ok(Value::Nil)
}

fn run_command(lua: &Lua, state: &Shared, request: Vec<Bytes>, raise: bool) -> mlua::Result<Value> {
    let proto = state.lock().proto;
    let Answer::Reply(resp) = ask(state, Request::Call(request, proto))? else { return Ok(Value::Nil) };
    if raise && resp.first() == Some(&b'-') {
        let end = memchr::memchr(b'\r', &resp).unwrap_or(resp.len());
        return Err(Raised::Reply(convert::error_line(resp.get(..end).unwrap_or_default())).into());
    }
    convert::to_lua(lua, &resp)
}

/// The table with `err` of a raised error.
fn error_value(lua: &Lua, error: &mlua::Error) -> mlua::Result<Value> {
    match Raised::from_error(error) {
        Raised::Reply(line) | Raised::Text(line) => {
            let table = lua.create_table()?;
            table.raw_set("err", lua.create_string(line)?)?;
            Ok(Value::Table(table))
        }
        Raised::Stop => Err(Raised::Stop.into()),
    }
}

fn log(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    if args.values.len() < 2 {
        return Err(reply_error("redis.log() requires two arguments or more."));
    }
    let Some(level) = args.get(1).and_then(number::from_value) else {
        return Err(reply_error("First argument must be a number (log level)."));
    };
    let level = match level as i64 {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return Err(reply_error("Invalid debug level.")),
    };
    let words: Vec<Vec<u8>> = args.values.iter().skip(1).filter_map(number::text_of).collect();
    ask(state, Request::Log(level, words.join(&b' ')))?;
    Ok(Value::Nil)
}

fn set_resp(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    need_run(state, "setresp")?;
    if args.values.len() != 1 {
        return Err(reply_error("redis.setresp() requires one argument."));
    }
    match args.get(1).and_then(number::from_value).map(|version| version as i64) {
        Some(version @ (2 | 3)) => state.lock().proto = version as u8,
        _ => return Err(reply_error("RESP version must be 2 or 3.")),
    }
    Ok(Value::Nil)
}

fn sha1_hex(_: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    if args.values.len() != 1 {
        return Err(reply_error("wrong number of arguments"));
    }
    let text = args.get(1).and_then(number::text_of).unwrap_or_default();
    Ok(Value::String(args.lua.create_string(sha1_text(&text))?))
}

/// The SHA-1 digest of `bytes` in lower-case hexadecimal digits.
pub(super) fn sha1_text(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn only_string<'a>(args: &'a Args<'_>) -> Option<&'a mlua::String> {
    match (args.values.len(), args.get(1)) {
        (1, Some(Value::String(text))) => Some(text),
        _ => None,
    }
}

fn error_reply(_: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    let Some(text) = only_string(args) else {
        return error_value(args.lua, &reply_error("wrong number or type of arguments"));
    };
    error_value(args.lua, &Raised::Reply(convert::error_line(&text.as_bytes())).into())
}

fn status_reply(_: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    let Some(text) = only_string(args) else {
        return error_value(args.lua, &reply_error("wrong number or type of arguments"));
    };
    let table = args.lua.create_table()?;
    table.raw_set("ok", text)?;
    Ok(Value::Table(table))
}

fn set_repl(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    need_run(state, "set_repl")?;
    if args.values.len() != 1 {
        return Err(reply_error("redis.set_repl() requires two arguments."));
    }
    let flags = args.get(1).and_then(number::from_value).unwrap_or_default() as i64;
    if flags & !(REPL_AOF | REPL_REPLICA) != 0 {
        let text = "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.";
        return Err(reply_error(text));
    }
    ask(state, Request::SetRepl { log: flags & REPL_AOF != 0, replicas: flags & REPL_REPLICA != 0 })?;
    Ok(Value::Nil)
}

fn acl_check_cmd(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    need_run(state, "acl_check_cmd")?;
    match ask(state, Request::AclCheck(command_args(args)?))? {
        Answer::Allowed(Some(allowed)) => Ok(Value::Boolean(allowed)),
        _ => Err(reply_error("Invalid command passed to redis.acl_check_cmd()")),
    }
}

/// CPU time of the process, in seconds.
fn clock() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_or(0.0, |time| time.tv_sec() as f64 + (time.tv_nsec() / 1000) as f64 / 1e6)
}

fn random(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    let fraction = state.lock().random.get_or_insert_with(|| Random::seeded(rand::random())).next();
    let whole = match args.values.len() {
        0 => return Ok(Value::Number(fraction)),
        1 => {
            let up_to = args.integer(1)? as i32;
            if up_to < 1 {
                return Err(args.error(1, "interval is empty"));
            }
            (fraction * f64::from(up_to)).floor() + 1.0
        }
        2 => {
            let (from, up_to) = (args.integer(1)? as i32, args.integer(2)? as i32);
            if from > up_to {
                return Err(args.error(2, "interval is empty"));
            }
            (fraction * f64::from(up_to.wrapping_sub(from).wrapping_add(1))).floor() + f64::from(from)
        }
        _ => return Err(text_error(args.lua, "wrong number of arguments")),
    };
    Ok(Value::Number(whole))
}

/// What a script gets that catches argument 1; argument 2 says whether it wants the text of a table with `err`, as
/// Lua's `pcall` gives in Redis.
fn caught(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    if state.lock().stopped.is_some() {
        return Err(Raised::Stop.into());
    }
    let as_text = matches!(args.get(2), Some(Value::Boolean(true)));
    match args.get(1) {
        Some(Value::Error(error)) => match Raised::from_error(error) {
            Raised::Text(text) => Ok(Value::String(args.lua.create_string(text)?)),
            Raised::Reply(line) if as_text => Ok(Value::String(args.lua.create_string(line)?)),
            Raised::Reply(line) => convert::error_table(args.lua, &line),
            Raised::Stop => Err(Raised::Stop.into()),
        },
        Some(Value::Table(table)) if as_text => match table.get("err")? {
            text @ (Value::String(_) | Value::Integer(_) | Value::Number(_)) => Ok(text),
            _ => Ok(Value::Table(table.clone())),
        },
        Some(other) => Ok(other.clone()),
        None => Ok(Value::Nil),
    }
}

/// The handler of errors that no script catches: notes what was raised and where.
fn located(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    let mut failure = match args.get(1) {
        Some(Value::Error(error)) => match Raised::from_error(error) {
            Raised::Text(text) => Failure::new([b"ERR ", text.as_slice()].concat()),
            Raised::Reply(line) => Failure { counted: true, ..Failure::new(line) },
            Raised::Stop => Failure::new(Vec::new()),
        },
        Some(Value::Table(table)) => match number::text_of(&table.raw_get("err")?) {
            Some(line) => {
                let counted = matches!(table.raw_get("ignore_error_stats_update")?, Value::Boolean(true));
                Failure { counted, ..Failure::new(line) }
            }
            None => Failure::new(b"ERR (error object is a table value)".to_vec()),
        },
        None | Some(Value::Nil) => Failure::new(b"ERR nil".to_vec()),
        Some(Value::Boolean(value)) => Failure::new(format!("ERR {value}").into_bytes()),
        Some(other) => match number::text_of(other) {
            Some(text) => Failure::new([b"ERR ", text.as_slice()].concat()),
            None => Failure::new(format!("ERR (error object is a {} value)", type_name(other)).into_bytes()),
        },
    };
    failure.place = place(args.lua);
    state.lock().failure = Some(failure);
    Ok(Value::Nil)
}

/// The innermost line of user code that runs, as `source:line`.
fn place(lua: &Lua) -> Option<String> {
    (1..)
        .map_while(|level| {
            lua.inspect_stack(level, |debug| {
                let line = debug.current_line();
                let source = debug.source().source.filter(|source| source.starts_with("@user_"));
                source.zip(line).map(|(source, line)| format!("{source}:{line}"))
            })
        })
        .flatten()
        .next()
}

fn register_function(state: &Shared, args: &Args<'_>) -> mlua::Result<Value> {
    if state.lock().registering.is_none() {
        return Err(reply_error("redis.register_function can only be called on FUNCTION LOAD command"));
    }
    let registered = match (args.values.len(), args.get(1)) {
        (1, Some(Value::Table(table))) => named(table)?,
        (1, _) => {
            return Err(reply_error(
                "calling redis.register_function with a single argument is only applicable to Lua table \
                 (representing named arguments).",
            ));
        }
        (2, name) => {
            let Some(name) = name.and_then(number::text_of) else {
                return Err(reply_error("first argument to redis.register_function must be a string"));
            };
            let Some(Value::Function(callback)) = args.get(2) else {
                return Err(reply_error("second argument to redis.register_function must be a function"));
            };
            Registered { name, description: None, flags: ScriptFlags::NONE, callback: callback.clone() }
        }
        _ => return Err(reply_error("wrong number of arguments to redis.register_function")),
    };
    if !valid_name(&registered.name) {
        return Err(reply_error(
            "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ));
    }
    let mut state = state.lock();
    let functions = state.registering.get_or_insert_default();
    if functions.iter().any(|other| other.name == registered.name) {
        return Err(reply_error("Function already exists in the library"));
    }
    functions.push(registered);
    Ok(Value::Nil)
}

/// A function registered by a table of named arguments.
fn named(table: &Table) -> mlua::Result<Registered> {
    let (mut name, mut description, mut callback, mut flags) = (None, None, None, ScriptFlags::NONE);
    table.for_each(|key: Value, value: Value| {
        let Some(key) = number::text_of(&key) else {
            return Err(reply_error("named argument key given to redis.register_function is not a string"));
        };
        let text = |argument: &str| {
            number::text_of(&value).ok_or_else(|| {
                reply_error(&format!("{argument} argument given to redis.register_function must be a string"))
            })
        };
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => name = Some(text("function_name")?),
            b"description" => description = Some(text("description")?),
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => {
                    let text = "callback argument given to redis.register_function must be a function";
                    return Err(reply_error(text));
                }
            },
            b"flags" => match value {
                Value::Table(list) => flags = declared_flags(&list)?,
                _ => {
                    let text = "flags argument to redis.register_function must be a table representing function flags";
                    return Err(reply_error(text));
                }
            },
            _ => return Err(reply_error("unknown argument given to redis.register_function")),
        }
        Ok(())
    })?;
    let name = name.ok_or_else(|| reply_error("redis.register_function must get a function name argument"))?;
    let callback = callback.ok_or_else(|| reply_error("redis.register_function must get a callback argument"))?;
    Ok(Registered { name, description, flags, callback })
}

fn declared_flags(list: &Table) -> mlua::Result<ScriptFlags> {
    let mut flags = ScriptFlags::NONE;
    for index in 1.. {
        let value: Value = list.get(index)?;
        if value.is_nil() {
            break;
        }
        let flag = number::text_of(&value).and_then(|name| ScriptFlags::by_name(&name.to_ascii_lowercase()));
        flags = flags.and(flag.ok_or_else(|| reply_error("unknown flag given"))?);
    }
    Ok(flags)
}
