//! What can go wrong with the keyspace, as an operator reads it in the log and a client in a reply.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{binlog, engine};

/// An error of the keyspace. Cheap to clone: the writes of one group fail together.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("binlog: {0}")]
    Binlog(Arc<binlog::Error>),
    #[error("engine: {0}")]
    Engine(Arc<engine::Error>),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: Arc<io::Error> },
    /// The slot takes no writes until the server is restarted.
    #[error("{slot} is read-only: {reason}")]
    ReadOnly { slot: String, reason: String },
    /// The slot's log is a master's, and no client's to write.
    #[error("You can't write against a read only replica.")]
    NotMaster,
    /// The slot has data, and they cannot be read.
    #[error("{slot} cannot be read: {reason}")]
    Unreadable { slot: String, reason: String },
    /// The disk has no room for the write, which was not done.
    #[error("the disk is full, {slot} takes writes again when there is room: {cause}")]
    DiskFull { slot: String, cause: String },
    /// A folder or file is not what it should be.
    #[error("{path}: {why}")]
    Damaged { path: PathBuf, why: String },
    /// Keys are held by a command that does not end.
    #[error("a script holds the keys")]
    Busy,
    /// The command has run for longer than its reading of the clock is good for.
    #[error("the command took too long to be committed")]
    TooLate,
    /// A record that this build cannot apply.
    #[error("record not understood: {0}")]
    BadEffect(String),
}

impl From<binlog::Error> for Error {
    fn from(e: binlog::Error) -> Self {
        Error::Binlog(Arc::new(e))
    }
}

impl From<engine::Error> for Error {
    fn from(e: engine::Error) -> Self {
        Error::Engine(Arc::new(e))
    }
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source: Arc::new(source) }
    }

    /// Whether the disk was full: the one failure of the storage that heals by itself.
    pub fn is_disk_full(&self) -> bool {
        let full = |e: &io::Error| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Error::DiskFull { .. } => true,
            Error::Binlog(e) => e.is_disk_full(),
            Error::Engine(e) => e.is_disk_full(),
            Error::Io { source, .. } => full(source),
            Error::ReadOnly { .. }
            | Error::NotMaster
            | Error::Unreadable { .. }
            | Error::Damaged { .. }
            | Error::Busy
            | Error::TooLate
            | Error::BadEffect(_) => false,
        }
    }

    pub(super) fn damaged(path: &Path, why: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_path_buf(), why: why.into() }
    }
}
