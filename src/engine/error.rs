//! What can go wrong with an engine.

use std::path::{Path, PathBuf};

/// An error of an engine, with its folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    RocksDb { path: PathBuf, source: rocksdb::Error },
    /// The bytes inside are not what this build writes.
    #[error("{path}: {what}")]
    Malformed { path: PathBuf, what: String },
}

impl Error {
    pub(super) fn rocksdb(path: &Path) -> impl FnOnce(rocksdb::Error) -> Error + '_ {
        move |source| Error::RocksDb { path: path.to_path_buf(), source }
    }
}
