//! The operator's offline tools, subcommands of the `haypile` program: what is in the files of a data folder, and whether it is sound.
//!
//! But for `restore`, which makes a new folder, they only read: no file is made, changed or removed. Everything is read in pieces, so
//! memory does not grow with the data.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `dump` | `haypile binlog dump`: records as commands |
//! | `stat` | `haypile binlog stat`: what binlog files hold, in numbers |
//! | `check` | `haypile check`: whether a data folder, a save or a slot is sound |
//! | `restore` | `haypile restore`: a data folder from a save and binlogs |
//! | `files` | the binlog files that a file or folder on the command line means |
//! | `scan` | going through one binlog file, damaged or still being written |
//! | `select` | which records and effects are asked for |
//! | `distinct` | counting different keys in bounded memory |
//! | `text` | how bytes, times and numbers are written and read |
//! | `progress` | how far a tool is |
//! | `lock` | whether a server runs on a data folder |

pub mod check;
mod distinct;
pub mod dump;
mod files;
mod lock;
mod progress;
pub mod restore;
mod scan;
mod select;
pub mod stat;
mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{binlog, engine, keyspace};

/// How a tool ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sound,
    /// Something is damaged; it was reported.
    Damaged,
}

/// Why a tool could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// What was printed could not be written.
    #[error("output: {0}")]
    Output(#[from] io::Error),
    /// Not what can be worked on; the text says what to do.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Binlog(#[from] binlog::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Keyspace(#[from] keyspace::Error),
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// Whether whoever reads the output has had enough of it, as `head` does.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Where a tool prints.
pub struct Terminal<'a> {
    /// What was asked for.
    pub out: &'a mut dyn Write,
    /// Remarks for whoever sits in front of it.
    pub err: &'a mut dyn Write,
    /// Whether progress may be shown on standard error.
    pub shows_progress: bool,
}
