//! What can go wrong with a binlog.

use std::io;
use std::path::{Path, PathBuf};

use super::Position;

/// An error of a binlog, with the file and, where there is one, the offset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// A file that is no binlog, or of a version this build does not know.
    #[error("{path}: {why}")]
    Format { path: PathBuf, why: String },
    /// The bytes at `offset` are not a whole record that continues the log.
    #[error("{path}: offset {offset}: {why}")]
    BadRecord { path: PathBuf, offset: u64, why: &'static str },
    /// A bad record with good records behind it: not a torn tail.
    #[error("{path}: offset {offset}: corrupt record ({why}), with whole records after it from offset {next}")]
    Corrupt { path: PathBuf, offset: u64, why: &'static str, next: u64 },
    /// Records that were on stable storage are gone from the log's end.
    #[error("{path}: ends at {tail}, but was durable up to file {filenum} offset {offset}")]
    Shortened { path: PathBuf, tail: Position, filenum: u32, offset: u64 },
    /// The log does not reach back to, or up to, the position asked for.
    #[error("{path}: file {filenum} offset {offset} is not in this log")]
    NotInLog { path: PathBuf, filenum: u32, offset: u64 },
    /// One command would write more than a record can hold.
    #[error("a write of {bytes} bytes is too large for one record (1 GiB)")]
    TooLarge { bytes: usize },
    /// An earlier write failed and could not be undone.
    #[error("the binlog is closed for writing: {0}")]
    Broken(String),
    /// A run of records received from a master does not continue this log.
    #[error("records received do not continue this log at file {filenum} offset {offset}: {why}")]
    Discontinuous { filenum: u32, offset: u64, why: &'static str },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// Whether the disk was full (or over quota): the one I/O error that heals by itself.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
