//! Why a command failed, in Redis's words.

use super::blocking::Block;
use crate::keyspace::{self, Conflict};

/// An error reply. Its `Display` is the whole error line, code first, without the leading `-`.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The key holds another type than the command works on.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Arguments that fit no form of the command.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument or a value that is no 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// An argument or a value that is no float.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// A key that must exist does not.
    #[error("ERR no such key")]
    NoSuchKey,
    /// Any other fixed line.
    #[error("{0}")]
    Static(&'static str),
    /// A line made for the occasion.
    #[error("{0}")]
    Text(String),
    /// The wrong number of arguments for the command of this full name (`client|kill`).
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// A form of a subcommand that its container does not know, for the handlers that parse
    /// their subcommands themselves.
    #[error("ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {container} HELP.")]
    SubcommandForm {
        /// What the client sent.
        subcommand: String,
        /// The container's name in upper case.
        container: &'static str,
    },
    /// A script that does not end holds the keys.
    #[error("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.")]
    Busy,
    /// The command has written the error itself, as its reply.
    #[error("ERR the command failed")]
    Replied {
        /// Whether the statistics of errors have it already: then it is that of a command that this one called.
        counted: bool,
    },
    /// Not an answer: the command is to run otherwise or later.
    #[error("ERR the command cannot wait here")]
    Suspend(Box<Suspend>),
    /// The storage refused or failed.
    #[error("{code} {0}", code = code(.0))]
    Keyspace(#[from] keyspace::Error),
}

/// Why a command did not run to its end. What it did until then is taken back.
#[derive(Debug)]
pub enum Suspend {
    /// It may take long: to be run on the blocking pool.
    OnPool,
    /// There is nothing for it yet.
    Until(Block),
    /// It needs a key that is not locked and not free: to be run again with more locks.
    Conflict(Conflict),
}

impl From<Suspend> for CommandError {
    fn from(suspend: Suspend) -> Self {
        CommandError::Suspend(Box::new(suspend))
    }
}

impl From<Conflict> for CommandError {
    fn from(conflict: Conflict) -> Self {
        Suspend::Conflict(conflict).into()
    }
}

impl CommandError {
    /// A line made for the occasion; `text` starts with its code.
    pub fn text(text: impl Into<String>) -> Self {
        CommandError::Text(text.into())
    }
}

/// The code of an error reply about the storage. MISCONF is what Redis answers to writes that it cannot persist.
fn code(error: &keyspace::Error) -> &'static str {
    match error {
        keyspace::Error::ReadOnly { .. } | keyspace::Error::Unreadable { .. } => "MISCONF",
        keyspace::Error::NotMaster => "READONLY",
        error if error.is_disk_full() => "MISCONF",
        keyspace::Error::Busy => "BUSY",
        _ => "ERR",
    }
}

/// `bytes` as text for an error message, at most `limit` of them.
pub fn lossy(bytes: &[u8], limit: usize) -> String {
    String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes)).into_owned()
}
