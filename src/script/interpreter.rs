//! One Lua state with its sandbox: compiles and runs scripts, one at a time.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mlua::{ChunkMode, Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Thread, Value, VmState};
use parking_lot::Mutex;

use super::lib::cjson;
use super::library::{FunctionInfo, Library};
use super::natives::natives;
use super::raise::Raised;
use super::random::Random;
use super::running::{Run, Running, ScriptKind};
use super::{Abort, Ended, Host, LogLevel, Script, ScriptFlags, convert};
use crate::net::Reply;

/// Instructions between two looks at time and kill flags.
const HOOK_PERIOD: u32 = 100_000;
/// Compiled scripts that an interpreter keeps; when there are more it forgets them all.
const MAX_COMPILED: usize = 1000;
/// Bytes of an error message that is not the script's own.
const MAX_INTERNAL_MESSAGE: usize = 100;

/// What an interpreter may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of Lua memory.
    pub memory: usize,
    /// Whether `getfenv`, `setfenv` and `newproxy` are there.
    pub deprecated_api: bool,
}

/// What a native function asks of the host.
pub(super) enum Request {
    Call(Vec<Bytes>, u8),
    Log(LogLevel, Vec<u8>),
    SetRepl { log: bool, replicas: bool },
    AclCheck(Vec<Bytes>),
}

/// What the host answers.
pub(super) enum Answer {
    Reply(Vec<u8>),
    Allowed(Option<bool>),
    Done,
}

/// Why a script was stopped; no script can catch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// SCRIPT KILL or FUNCTION KILL.
    Killed,
    /// The host wants the run discarded.
    Aborted,
    /// Loading a library took too long.
    LoadTimeout,
}

/// An error that no script caught.
pub(super) struct Failure {
    /// The error line, code first.
    pub line: Vec<u8>,
    /// `source:line` of the user code that raised it.
    pub place: Option<String>,
    /// Whether it came from a command, whose statistics have it already.
    pub counted: bool,
}

impl Failure {
    pub fn new(line: Vec<u8>) -> Self {
        Failure { line, place: None, counted: false }
    }
}

/// A function that a library registered.
pub(super) struct Registered {
    pub name: Vec<u8>,
    pub description: Option<Vec<u8>>,
    pub flags: ScriptFlags,
    pub callback: Function,
}

/// What native functions and the interpreter share. Never locked while Lua code runs.
#[derive(Default)]
pub(super) struct State {
    /// Calls the host; there is one while a script runs.
    pub gate: Option<Function>,
    pub request: Option<Request>,
    pub answer: Option<Answer>,
    pub stopped: Option<Stopped>,
    pub failure: Option<Failure>,
    /// Protocol of the replies that the script sees.
    pub proto: u8,
    pub random: Option<Random>,
    /// The functions of the library that is being loaded.
    pub registering: Option<Vec<Registered>>,
    /// The command that the worker is to run and whether to raise its error, then what came of it.
    pub work: Option<(Vec<Bytes>, bool)>,
    pub worked: Option<mlua::Result<Value>>,
    /// A coroutine that runs `work`.
    pub worker: Option<Thread>,
    /// Whether the host is at work.
    serving: bool,
    run: Option<Arc<Run>>,
    deadline: Option<Instant>,
}

pub(super) type Shared = Arc<Mutex<State>>;

/// See the module.
pub(super) struct Interpreter {
    lua: Lua,
    state: Shared,
    json: cjson::Shared,
    /// The sandbox's way to run a script, or a function.
    run: Function,
    /// The sandbox's way to load a library.
    load: Function,
    /// Digest → compiled script.
    compiled: Table,
    compiled_count: usize,
    /// Number of a library → name → function.
    functions: Table,
    libraries: HashMap<u64, Weak<Library>>,
    broken: bool,
}

impl Interpreter {
    pub fn new(kind: ScriptKind, limits: Limits, running: &Arc<Running>) -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING | StdLib::MATH, LuaOptions::default())?;
        let state = Shared::default();
        let json = cjson::Shared::default();
        let options = lua.create_table()?;
        options.raw_set("deprecated", limits.deprecated_api)?;
        options.raw_set("values", super::lib::MAX_VALUES)?;
        let natives = natives(&lua, kind, &state, &json)?;
        let sandbox: Table = lua
            .load(include_str!("sandbox.lua"))
            .set_name("=sandbox")
            .set_environment(lua.create_table()?)
            .call((lua.globals(), natives, options))?;
        state.lock().worker = sandbox.raw_get("worker")?;
        lua.set_globals(sandbox.raw_get("globals")?)?;
        let (hooked, watched) = (Arc::clone(&state), Arc::clone(running));
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(HOOK_PERIOD), move |_, _| {
            hooked.lock().watch(&watched)?;
            Ok(VmState::Continue)
        })?;
        let entry = match kind {
            ScriptKind::Eval => "eval",
            ScriptKind::Function => "call",
        };
        let interpreter = Interpreter {
            run: sandbox.raw_get(entry)?,
            load: sandbox.raw_get("load")?,
            compiled: lua.create_table()?,
            compiled_count: 0,
            functions: lua.create_table()?,
            libraries: HashMap::new(),
            broken: false,
            state,
            json,
            lua,
        };
        interpreter.lua.gc_collect()?;
        interpreter.lua.set_memory_limit(limits.memory)?;
        Ok(interpreter)
    }

    /// Bytes of Lua memory in use.
    pub fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Whether a script has left it in a state in which it should run no other.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// Lets the collector do a piece of its work.
    pub fn collect_some(&self) {
        // Nothing here has a finalizer that could fail.
        let _ = self.lua.gc_step_kbytes(50);
    }

    fn compile(&self, code: &[u8], name: &str) -> Result<Function, String> {
        let chunk = self.lua.load(code).set_name(name).set_mode(ChunkMode::Text);
        chunk.into_function().map_err(|error| match error {
            mlua::Error::SyntaxError { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// The compiled script.
    ///
    /// # Errors
    /// The compiler's message.
    pub fn script(&mut self, script: &Script) -> Result<Function, String> {
        if let Ok(Value::Function(function)) = self.compiled.raw_get(script.sha.as_str()) {
            return Ok(function);
        }
        let function = self.compile(script.code(), "@user_script")?;
        if self.compiled_count >= MAX_COMPILED {
            self.compiled.clear().map_err(|e| e.to_string())?;
            self.compiled_count = 0;
        }
        self.compiled.raw_set(script.sha.as_str(), &function).map_err(|e| e.to_string())?;
        self.compiled_count += 1;
        Ok(function)
    }

    /// Forgets all compiled scripts.
    pub fn forget_scripts(&mut self) {
        if let Ok(table) = self.lua.create_table() {
            self.compiled = table;
            self.compiled_count = 0;
        }
    }

    /// Runs the code of a library as number `id`, for at most `timeout`, and says what it registered.
    ///
    /// # Errors
    /// Redis's message, without a code.
    pub fn load(&mut self, id: u64, code: &[u8], timeout: Option<Duration>) -> Result<Vec<FunctionInfo>, String> {
        self.libraries.retain(|id, library| {
            let alive = library.strong_count() > 0;
            if !alive {
                // A leftover costs memory only. Not `raw_remove`, which would move the functions of the libraries after it.
                let _ = self.functions.raw_set(*id, Value::Nil);
            }
            alive
        });
        let function =
            self.compile(code, "@user_function").map_err(|message| format!("Error compiling function: {message}"))?;
        {
            let mut state = self.state.lock();
            state.registering = Some(Vec::new());
            state.deadline = timeout.map(|limit| Instant::now() + limit);
        }
        let result: mlua::Result<(bool, Value)> = self.load.call(function);
        let (registered, stopped) = {
            let mut state = self.state.lock();
            state.deadline = None;
            (state.registering.take().unwrap_or_default(), state.stopped.take())
        };
        let failed = |text: &str| Err(format!("Error registering functions: {text}"));
        match (stopped, result) {
            (Some(_), _) => return failed("ERR FUNCTION LOAD timeout"),
            (None, Err(error)) => return failed(&format!("ERR {}", Raised::from_error(&error))),
            (None, Ok((false, value))) => return failed(&load_error(&value)),
            (None, Ok((true, _))) => {}
        }
        let functions = self.lua.create_table().map_err(|e| e.to_string())?;
        let mut infos = Vec::with_capacity(registered.len());
        for function in registered {
            let name = String::from_utf8_lossy(&function.name).into_owned();
            functions.raw_set(name.as_str(), function.callback).map_err(|e| e.to_string())?;
            infos.push(FunctionInfo {
                name,
                description: function.description.map(Bytes::from),
                flags: function.flags,
            });
        }
        self.functions.raw_set(id, functions).map_err(|e| e.to_string())?;
        Ok(infos)
    }

    /// Keeps what [`Interpreter::load`] made of `library` for as long as the library lives.
    pub fn keep(&mut self, library: &Arc<Library>) {
        self.libraries.insert(library.id(), Arc::downgrade(library));
    }

    /// A function of a library, which is loaded if it is not yet.
    pub fn function(&mut self, library: &Arc<Library>, name: &str) -> Result<Function, String> {
        if !self.libraries.contains_key(&library.id()) {
            self.load(library.id(), library.lua_code(), None)?;
            self.keep(library);
        }
        let functions: Table = self.functions.raw_get(library.id()).map_err(|e| e.to_string())?;
        functions.raw_get(name).map_err(|_| "Function not found".into())
    }

    /// Runs a script, or a function, and writes its reply.
    pub fn run(
        &mut self,
        function: Function,
        keys: &[Bytes],
        args: &[Bytes],
        run: &Arc<Run>,
        host: &mut dyn Host,
        reply: &mut Reply,
    ) -> Result<Ended, Abort> {
        *self.json.lock() = cjson::Settings::default();
        {
            let mut state = self.state.lock();
            let worker = state.worker.take();
            *state = State { proto: 2, run: Some(Arc::clone(run)), worker, ..State::default() };
        }
        let start = reply.len();
        // The binding to Lua panics when a script, by recursion, calls a native function with more values than a
        // native can take.
        let guarded = AssertUnwindSafe(|| self.run_in_sandbox(function, keys, args, host));
        let result = catch_unwind(guarded).unwrap_or_else(|panic| {
            if self.state.lock().serving {
                resume_unwind(panic);
            }
            self.broken = true;
            Err(mlua::Error::StackError)
        });
        let (proto, stopped, failure) = {
            let mut state = self.state.lock();
            state.gate = None;
            state.run = None;
            (state.proto, state.stopped.take(), state.failure.take())
        };
        let internal = |message: &[u8]| {
            let text = message.get(..MAX_INTERNAL_MESSAGE).unwrap_or(message);
            Failure::new([b"ERR Error running script ", run.name.as_bytes(), b", ", text].concat())
        };
        let failure = match (stopped, result) {
            (Some(Stopped::Aborted), _) => return Err(Abort),
            (Some(_), _) => Failure {
                line: b"ERR Script killed by user with SCRIPT KILL...".to_vec(),
                ..failure.unwrap_or(Failure::new(Vec::new()))
            },
            (None, Ok((true, value))) => match convert::reply(&value, proto, reply) {
                Ok(failed) => return Ok(Ended { failed, counted: failed && is_counted(&value) }),
                Err(error) => internal(Raised::from_error(&error).to_string().as_bytes()),
            },
            (None, Ok((false, value))) => failure.unwrap_or_else(|| match &value {
                Value::String(text) => internal(&text.as_bytes()),
                Value::Error(error) => internal(Raised::from_error(error).to_string().as_bytes()),
                _ => internal(b"execution failure"),
            }),
            (None, Err(error)) => internal(Raised::from_error(&error).to_string().as_bytes()),
        };
        reply.truncate(start);
        let mut line = failure.line;
        if let Some(place) = failure.place {
            line.extend_from_slice(format!(" script: {}, on {place}.", run.name).as_bytes());
        }
        convert::write_error(reply, &line);
        Ok(Ended { failed: true, counted: failure.counted })
    }

    fn run_in_sandbox(
        &self,
        function: Function,
        keys: &[Bytes],
        args: &[Bytes],
        host: &mut dyn Host,
    ) -> mlua::Result<(bool, Value)> {
        let array = |values: &[Bytes]| {
            let table = self.lua.create_table_with_capacity(values.len(), 0)?;
            for (index, value) in values.iter().enumerate() {
                table.raw_set(index + 1, self.lua.create_string(value)?)?;
            }
            mlua::Result::Ok(table)
        };
        let (keys, args) = (array(keys)?, array(args)?);
        self.lua.scope(|scope| {
            let state = Arc::clone(&self.state);
            let gate = scope.create_function_mut(move |_, ()| {
                let request = {
                    let mut state = state.lock();
                    state.serving = true;
                    state.request.take()
                };
                let answer = request.map_or(Ok(Answer::Done), |request| serve(host, request));
                let mut state = state.lock();
                state.serving = false;
                match answer {
                    Ok(answer) => state.answer = Some(answer),
                    Err(Abort) => state.stopped = Some(Stopped::Aborted),
                }
                Ok(())
            })?;
            self.state.lock().gate = Some(gate);
            self.run.call((function, keys, args))
        })
    }
}

impl State {
    /// Stops what has been killed or takes too long.
    fn watch(&mut self, running: &Running) -> Result<(), Raised> {
        if let Some(run) = &self.run {
            running.tick(run);
            if run.killed() && self.stopped.is_none() {
                self.stopped = Some(Stopped::Killed);
            }
        } else if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            self.stopped = Some(Stopped::LoadTimeout);
        }
        if self.stopped.is_some() { Err(Raised::Stop) } else { Ok(()) }
    }
}

fn serve(host: &mut dyn Host, request: Request) -> Result<Answer, Abort> {
    Ok(match request {
        Request::Call(args, proto) => {
            let mut reply = Reply::new(proto);
            host.call(args, &mut reply)?;
            Answer::Reply(reply.as_slice().to_vec())
        }
        Request::Log(level, text) => {
            host.log(level, &text);
            Answer::Done
        }
        Request::SetRepl { log, replicas } => {
            host.set_repl(log, replicas);
            Answer::Done
        }
        Request::AclCheck(args) => Answer::Allowed(host.acl_check_cmd(&args)),
    })
}

/// The text of what loading a library raised.
fn load_error(value: &Value) -> String {
    let line = match value {
        Value::Error(error) => match Raised::from_error(error) {
            Raised::Reply(line) => return String::from_utf8_lossy(&line).into_owned(),
            other => other.to_string().into_bytes(),
        },
        Value::Table(table) => match table.raw_get("err") {
            Ok(Value::String(line)) => return line.to_string_lossy(),
            _ => b"(error object is a table value)".to_vec(),
        },
        Value::String(text) => text.as_bytes().to_vec(),
        other => super::number::text_of(other).unwrap_or_default(),
    };
    format!("ERR {}", String::from_utf8_lossy(&line))
}

/// Whether the error that a script returned came from a command.
fn is_counted(value: &Value) -> bool {
    match value {
        Value::Table(table) => matches!(table.raw_get("ignore_error_stats_update"), Ok(Value::Boolean(true))),
        _ => false,
    }
}
