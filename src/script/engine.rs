//! The engine: the cache of scripts, a pool of interpreters, the scripts that run.
//!
//! Scripts run in parallel, each in an interpreter that a thread takes from the pool and gives back. What a script
//! leaves behind in an interpreter no later script can see; only what a library keeps in its own local variables
//! stays, once for each interpreter.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::flags::shebang;
use super::interpreter::{Interpreter, Limits};
use super::library::Library;
use super::natives::sha1_text;
use super::running::{Invocation, Run, Running, ScriptKind, SlowObserver};
use super::{Abort, Ended, Host, Script, convert};
use crate::net::Reply;

/// Interpreters of each kind that wait in the pool at most.
const MAX_IDLE: usize = 32;
/// An interpreter that holds more than this after a script, in bytes, is not used again.
const MAX_IDLE_MEMORY: usize = 32 << 20;
/// Scripts that EVAL brought and nothing else asked to keep, as in Redis 7.4.
const MAX_EVAL_SCRIPTS: usize = 500;
/// Bytes of Lua memory that one script may use. Lua 5.1 counts lines and lengths in 31 bits, so it must be below 2 GiB.
pub const DEFAULT_MEMORY_LIMIT: usize = 1 << 30;
/// Runs of an interpreter between two pieces of garbage collection.
const COLLECT_EVERY: usize = 50;

/// Who brought a script into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// EVAL: when there are many such, the oldest goes.
    Eval,
    /// SCRIPT LOAD: it stays until SCRIPT FLUSH.
    Load,
}

/// See the module.
pub struct Engine {
    eval_idle: Mutex<Vec<Interpreter>>,
    function_idle: Mutex<Vec<Interpreter>>,
    /// Rises when idle interpreters must go; those in use go when they come back.
    generation: AtomicU64,
    runs: AtomicUsize,
    memory_limit: usize,
    deprecated_api: AtomicBool,
    scripts: RwLock<Scripts>,
    running: Arc<Running>,
    next_library: AtomicU64,
}

#[derive(Default)]
struct Scripts {
    by_sha: HashMap<String, (Arc<Script>, Origin)>,
    /// Digests of the scripts that EVAL brought, oldest first.
    from_eval: VecDeque<String>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(DEFAULT_MEMORY_LIMIT)
    }
}

impl Engine {
    /// An engine whose scripts may each use `memory_limit` bytes of Lua memory.
    pub fn new(memory_limit: usize) -> Self {
        Engine {
            eval_idle: Mutex::default(),
            function_idle: Mutex::default(),
            generation: AtomicU64::new(0),
            runs: AtomicUsize::new(0),
            memory_limit,
            deprecated_api: AtomicBool::new(false),
            scripts: RwLock::default(),
            running: Arc::default(),
            next_library: AtomicU64::new(1),
        }
    }

    /// Offers scripts `getfenv`, `setfenv` and `newproxy`, or no more (`lua-enable-deprecated-api`).
    pub fn set_deprecated_api(&self, on: bool) {
        if self.deprecated_api.swap(on, Relaxed) != on {
            self.drop_interpreters();
        }
    }

    fn drop_interpreters(&self) {
        self.generation.fetch_add(1, Relaxed);
        self.eval_idle.lock().clear();
        self.function_idle.lock().clear();
    }

    /// The cached script of this digest, in hexadecimal digits of either case.
    pub fn script(&self, sha: &[u8]) -> Option<Arc<Script>> {
        let sha = std::str::from_utf8(sha).ok()?.to_ascii_lowercase();
        self.scripts.read().by_sha.get(&sha).map(|(script, _)| Arc::clone(script))
    }

    /// Compiles `body` and puts it into the cache, if it is not there yet.
    ///
    /// # Errors
    /// The error line to reply with.
    pub fn load(&self, body: &Bytes, origin: Origin) -> Result<Arc<Script>, String> {
        let sha = sha1_text(body);
        if let Some((script, known)) = self.scripts.read().by_sha.get(&sha)
            && (*known == Origin::Load || origin == Origin::Eval)
        {
            return Ok(Arc::clone(script));
        }
        let (flags, code_start) = shebang(body)?;
        let script = Arc::new(Script { sha, body: body.clone(), flags, code_start });
        self.with(ScriptKind::Eval, |interpreter| interpreter.script(&script).map(|_| ()))
            .map_err(|message| format!("ERR Error compiling script (new function): {message}"))?;
        let mut scripts = self.scripts.write();
        let Scripts { by_sha, from_eval } = &mut *scripts;
        if origin == Origin::Eval && !by_sha.contains_key(&script.sha) {
            from_eval.push_back(script.sha.clone());
            if from_eval.len() > MAX_EVAL_SCRIPTS
                && let Some(oldest) = from_eval.pop_front()
            {
                by_sha.remove(&oldest);
            }
        } else if origin == Origin::Load {
            from_eval.retain(|sha| *sha != script.sha);
        }
        by_sha.insert(script.sha.clone(), (Arc::clone(&script), origin));
        Ok(script)
    }

    /// Empties the cache.
    pub fn flush_scripts(&self) {
        *self.scripts.write() = Scripts::default();
        self.eval_idle.lock().iter_mut().for_each(Interpreter::forget_scripts);
    }

    /// Scripts in the cache, and bytes of their texts.
    pub fn cached_scripts(&self) -> (usize, usize) {
        let scripts = self.scripts.read();
        let bytes = scripts.by_sha.values().map(|(script, _)| script.body.len() + script.sha.len()).sum();
        (scripts.by_sha.len(), bytes)
    }

    /// Bytes of Lua memory that idle interpreters of this kind hold.
    pub fn used_memory(&self, kind: ScriptKind) -> usize {
        self.idle(kind).lock().iter().map(Interpreter::used_memory).sum()
    }

    /// Runs a script with KEYS and ARGV and appends its reply.
    ///
    /// # Errors
    /// [`Abort`] when the host wanted the run discarded; then there is no reply.
    pub fn eval(
        &self,
        script: &Script,
        keys: &[Bytes],
        args: &[Bytes],
        invocation: Invocation,
        host: &mut dyn Host,
        reply: &mut Reply,
    ) -> Result<Ended, Abort> {
        let run = |interpreter: &mut Interpreter, reply: &mut Reply| {
            let function = interpreter
                .script(script)
                .map_err(|message| format!("Error compiling script (new function): {message}"))?;
            let run = self.start(ScriptKind::Eval, &script.sha, invocation, host);
            Ok(interpreter.run(function, keys, args, &run.0, host, reply))
        };
        self.run(ScriptKind::Eval, reply, run)
    }

    /// Runs a function of a library and appends its reply.
    ///
    /// # Errors
    /// [`Abort`] when the host wanted the run discarded; then there is no reply.
    #[allow(clippy::too_many_arguments)]
    pub fn call(
        &self,
        library: &Arc<Library>,
        function: &str,
        keys: &[Bytes],
        args: &[Bytes],
        invocation: Invocation,
        host: &mut dyn Host,
        reply: &mut Reply,
    ) -> Result<Ended, Abort> {
        let run = |interpreter: &mut Interpreter, reply: &mut Reply| {
            let callback = interpreter.function(library, function)?;
            let run = self.start(ScriptKind::Function, function, invocation, host);
            Ok(interpreter.run(callback, keys, args, &run.0, host, reply))
        };
        self.run(ScriptKind::Function, reply, run)
    }

    /// Has an interpreter run something; what keeps it from running becomes the reply.
    fn run(
        &self,
        kind: ScriptKind,
        reply: &mut Reply,
        run: impl FnOnce(&mut Interpreter, &mut Reply) -> Result<Result<Ended, Abort>, String>,
    ) -> Result<Ended, Abort> {
        self.with(kind, |interpreter| run(interpreter, reply)).unwrap_or_else(|message| {
            convert::write_error(reply, format!("ERR {message}").as_bytes());
            Ok(Ended { failed: true, counted: false })
        })
    }

    /// Runs the code of a library, for at most `timeout`, and collects the functions that it registers.
    ///
    /// # Errors
    /// Redis's message, without a code.
    pub(super) fn load_library(
        &self,
        name: String,
        code: Bytes,
        lua_start: usize,
        timeout: Option<Duration>,
    ) -> Result<Arc<Library>, String> {
        self.with(ScriptKind::Function, |interpreter| {
            let id = self.next_library.fetch_add(1, Relaxed);
            let functions = interpreter.load(id, code.get(lua_start..).unwrap_or_default(), timeout)?;
            let library = Arc::new(Library::new(id, name, code, lua_start, functions));
            interpreter.keep(&library);
            Ok(library)
        })
    }

    /// The kind of a script that has been running for longer than it may, if there is one.
    pub fn busy(&self) -> Option<ScriptKind> {
        self.running.busy()
    }

    /// The script of this kind that has been running longest.
    pub fn running(&self, kind: ScriptKind) -> Option<Arc<Run>> {
        self.running.longest(kind)
    }

    /// Sets who is told of slow scripts, once. Is called on the threads of these.
    pub fn observe_slow(&self, observer: SlowObserver) {
        self.running.observe(observer);
    }

    /// Ends the slow scripts of this kind that have not written.
    ///
    /// # Errors
    /// The error line to reply with, when there is none.
    pub fn kill(&self, kind: ScriptKind) -> Result<(), &'static str> {
        self.running.kill(kind)
    }

    /// Ends all scripts, whatever they have done, and those that begin from now on.
    pub fn stop(&self) {
        self.running.stop();
    }

    fn start<'e>(&'e self, kind: ScriptKind, name: &str, how: Invocation, host: &mut dyn Host) -> Started<'e> {
        let run = self.running.start(kind, name, how);
        host.started(&run);
        Started(run, &self.running)
    }

    fn idle(&self, kind: ScriptKind) -> &Mutex<Vec<Interpreter>> {
        match kind {
            ScriptKind::Eval => &self.eval_idle,
            ScriptKind::Function => &self.function_idle,
        }
    }

    /// Works with an interpreter of the pool.
    fn with<R>(&self, kind: ScriptKind, work: impl FnOnce(&mut Interpreter) -> Result<R, String>) -> Result<R, String> {
        let generation = self.generation.load(Relaxed);
        let idle = self.idle(kind).lock().pop();
        let mut interpreter = match idle {
            Some(interpreter) => interpreter,
            None => {
                let limits = Limits { memory: self.memory_limit, deprecated_api: self.deprecated_api.load(Relaxed) };
                Interpreter::new(kind, limits, &self.running)
                    .map_err(|error| format!("cannot make a Lua interpreter: {error}"))?
            }
        };
        let result = work(&mut interpreter);
        if self.runs.fetch_add(1, Relaxed).is_multiple_of(COLLECT_EVERY) {
            interpreter.collect_some();
        }
        if !interpreter.broken()
            && interpreter.used_memory() <= MAX_IDLE_MEMORY.min(self.memory_limit / 4)
            && self.generation.load(Relaxed) == generation
        {
            let mut idle = self.idle(kind).lock();
            if idle.len() < MAX_IDLE {
                idle.push(interpreter);
            }
        }
        result
    }
}

/// A script that runs, until this is dropped.
struct Started<'e>(Arc<Run>, &'e Running);

impl Drop for Started<'_> {
    fn drop(&mut self) {
        self.1.end(&self.0);
    }
}
