//! Lua scripts and functions: the sandbox, its libraries, the cache of scripts, the registry of functions.
//!
//! Knows neither commands nor data: a running script reaches them through its [`Host`].
//!
//! - `engine`: scripts by digest, the pool of interpreters, the scripts that run
//! - `interpreter`: one Lua state; `sandbox.lua` is what scripts see of it
//! - `natives`: `redis.*`; `lib`: `cjson`, `cmsgpack`, `struct`, `bit`
//! - `convert`: replies as Lua values and back
//! - `library`: libraries of functions, FUNCTION DUMP and RESTORE
//! - `registry`: the libraries that the node has now
//!
//! Behaviour and texts are those of Redis 7.0.15; `os.clock` and the bound on scripts that EVAL brings are Redis 7.4's.
//! Not there: the debugger.

mod convert;
mod engine;
mod flags;
mod interpreter;
mod lib;
mod library;
mod natives;
mod number;
mod raise;
mod random;
mod registry;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::net::Reply;

pub use engine::{DEFAULT_MEMORY_LIMIT, Engine, Origin};
pub use flags::{ScriptFlags, shebang};
pub use library::{FunctionInfo, LOAD_TIMEOUT, Libraries, Library, RestorePolicy};
pub use registry::Registry;
pub use running::{Invocation, Run, ScriptKind, SlowObserver};

/// What a running script may ask of the server.
pub trait Host {
    /// Runs a command, name first, and appends its encoded reply, in the protocol of `reply`. What refuses the command
    /// is an error reply like any other.
    ///
    /// # Errors
    /// [`Abort`] ends the script at once and discards what it did; the script cannot catch it.
    fn call(&mut self, args: Vec<Bytes>, reply: &mut Reply) -> Result<(), Abort>;

    /// Writes a message of the script to the server's log, if its level is logged.
    fn log(&mut self, level: LogLevel, text: &[u8]);

    /// Whether the commands to come shall go to the append-only file, and to the replicas (`redis.set_repl`).
    fn set_repl(&mut self, log: bool, replicas: bool);

    /// Whether the user may run this command; `None` when there is no such command.
    fn acl_check_cmd(&mut self, args: &[Bytes]) -> Option<bool>;

    /// The script is about to run. The host keeps `run` to note the first write.
    fn started(&mut self, run: &Arc<Run>) {
        let _ = run;
    }
}

/// The run is to be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort;

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether its reply is an error.
    pub failed: bool,
    /// Whether that error came from a command and is in the statistics already.
    pub counted: bool,
}

/// Levels of `redis.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `redis.LOG_DEBUG`.
    Debug,
    /// `redis.LOG_VERBOSE`.
    Verbose,
    /// `redis.LOG_NOTICE`.
    Notice,
    /// `redis.LOG_WARNING`.
    Warning,
}

/// A script of EVAL or SCRIPT LOAD.
#[derive(Debug)]
pub struct Script {
    sha: String,
    body: Bytes,
    flags: ScriptFlags,
    code_start: usize,
}

impl Script {
    /// The SHA-1 digest of its text, in lower-case hexadecimal digits.
    pub fn sha(&self) -> &str {
        &self.sha
    }

    /// Its whole text.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it declares in its first line.
    pub fn flags(&self) -> ScriptFlags {
        self.flags
    }

    /// What Lua runs of it.
    fn code(&self) -> &[u8] {
        self.body.get(self.code_start..).unwrap_or_default()
    }
}
