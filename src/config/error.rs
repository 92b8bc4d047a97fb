//! What can be wrong with a configuration, each in one line that says where.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::value::ValueError;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The conf file as a whole.
    File(PathBuf),
    /// A line of the conf file, counted from 1.
    Line(PathBuf, usize),
    /// The command line: `--port`, `--set timeout`.
    Flag(String),
    /// The table of settings.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Place::Flag(flag) => write!(f, "{flag}"),
            Place::Default => write!(f, "default"),
        }
    }
}

/// Why a configuration was refused, and where.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    pub place: Place,
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match (&self.place, &self.problem) {
            // The flag says which setting it is.
            (Place::Flag(_), _) => {}
            (_, Problem::Value { key, .. } | Problem::SharedFolder { key, .. }) => write!(f, "{key}: ")?,
            _ => {}
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong at a [`Place`].
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("expected `key : value`")]
    Malformed,
    #[error("unknown key '{0}'")]
    UnknownKey(String),
    #[error("'{key}' is already set at {first}")]
    Duplicate { key: String, first: Place },
    /// `value` is empty when it must not be shown.
    #[error("{}{error}", Quoted(.value))]
    Value { key: &'static str, value: String, error: ValueError },
    #[error("'{}' is the folder of {other}, or one of the two lies inside the other", path.display())]
    SharedFolder { key: &'static str, path: PathBuf, other: &'static str },
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "'{}' ", self.0.escape_debug()) }
    }
}

/// Why CONFIG SET changed nothing. Displays as Redis's error reply.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigSetError {
    #[error("ERR Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    #[error("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")]
    Refused { name: String, why: String },
}

/// Why CONFIG REWRITE failed. Displays as Redis's error reply.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    #[error("ERR The server is running without a config file")]
    NoFile,
    #[error("ERR Rewriting config file: {0}")]
    Io(#[from] io::Error),
}
