//! What can go wrong with snapshots, as an operator reads it in the log and in INFO.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{BadInfo, BadListing};
use crate::{binlog, keyspace};

/// A snapshot could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Keyspace(#[from] keyspace::Error),
    #[error(transparent)]
    Binlog(binlog::Error),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    BadListing { path: PathBuf, source: BadListing },
    /// The slot's log was replaced again and again while its snapshot was being made.
    #[error("{slot}: its data were replaced while the snapshot was being made")]
    Replaced { slot: String },
    #[error("the server is stopping")]
    Stopping,
    #[error("the thread that made it panicked; standard error says why")]
    Panicked,
}

impl Error {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }
}

/// A snapshot could not be received. What was received and verified stays in the receive folder for the next try.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The receive folder: asking the master again does not help.
    #[error("{slot}: receiving a snapshot: {path}: {source}")]
    Io { slot: String, path: PathBuf, source: io::Error },
    /// The master does not, or no longer, serve this replica a snapshot of the slot: MetaSync and DBSync come first.
    #[error("{slot}: {master} gives no snapshot: {reason}")]
    Refused { slot: String, master: String, reason: String },
    /// The master has none to give: it could not make one, or has dropped this replica.
    #[error("{slot}: {master} gives no snapshot: {reason}")]
    Denied { slot: String, master: String, reason: String },
    /// The snapshot was damaged on the master after it was listed.
    #[error("{slot}: the snapshot on {master} is damaged: {reason}")]
    Damaged { slot: String, master: String, reason: String },
    /// Snapshots that were replaced, or files that came whole but wrong, again and again.
    #[error("{slot}: the transfer of the snapshot from {master} began anew {times} times: {cause}")]
    NeverWhole { slot: String, master: String, times: u32, cause: String },
    #[error("{slot}: {master} was not done making a snapshot after {} s", waited.as_secs())]
    NotReady { slot: String, master: String, waited: Duration },
    #[error("{slot}: the transfer of the snapshot from {master} was given up after {tries} tries: {cause}")]
    GivenUp { slot: String, master: String, tries: u32, cause: String },
    #[error("{slot}: the listing that {master} sent: {source}")]
    BadListing { slot: String, master: String, source: BadListing },
    #[error("{slot}: the info file that {master} sent: {source}")]
    BadInfo { slot: String, master: String, source: BadInfo },
    /// Whole and verified, but not a snapshot of this slot.
    #[error("{slot}: the snapshot that {master} sent does not fit: {why}")]
    Unfit { slot: String, master: String, why: String },
}

impl ReceiveError {
    /// Whether trying again at once would cost master and network as much again, and likely for nothing.
    pub fn is_costly(&self) -> bool {
        match self {
            ReceiveError::Io { .. }
            | ReceiveError::Denied { .. }
            | ReceiveError::Damaged { .. }
            | ReceiveError::NeverWhole { .. }
            | ReceiveError::NotReady { .. }
            | ReceiveError::BadListing { .. }
            | ReceiveError::BadInfo { .. }
            | ReceiveError::Unfit { .. } => true,
            ReceiveError::Refused { .. } | ReceiveError::GivenUp { .. } => false,
        }
    }

    /// Whether the disk was full (or over quota).
    pub fn is_disk_full(&self) -> bool {
        matches!(self, ReceiveError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
