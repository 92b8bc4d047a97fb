//! What can go wrong with an engine.

use std::io;
use std::path::{Path, PathBuf};

/// An error of an engine, with its folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    RocksDb { path: PathBuf, source: rocksdb::Error },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The bytes inside are not what this build writes.
    #[error("{path}: {what}")]
    Malformed { path: PathBuf, what: String },
}

/// How RocksDB words ENOSPC. Its status has a code for it, which the C interface does not hand on.
const NO_SPACE: &str = "No space left on device";

impl Error {
    /// Whether the disk was full. RocksDB goes on by itself when there is room again.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::RocksDb { source, .. } => source.as_ref().contains(NO_SPACE),
            Error::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Error::Malformed { .. } => false,
        }
    }

    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    pub(super) fn rocksdb(path: &Path) -> impl FnOnce(rocksdb::Error) -> Error + '_ {
        move |source| Error::RocksDb { path: path.to_path_buf(), source }
    }
}
