//! Who is told of changes: for WATCH, blocked clients and clients' caches, which the keyspace knows nothing of.

use std::time::Duration;

use bytes::Bytes;

use super::expire::Expired;
use crate::engine::Entry;

/// Is told of every change once the engine holds it, whether a client, a master or an expiry made it. Must be quick.
pub trait KeyObserver: Send + Sync {
    /// The key holds this now (`None`: nothing). Its stripe is held exclusively: no command that locked the key has seen the change yet.
    /// `by` is who made it, as told to [`Transaction::by`](super::Transaction::by); 0 = no client.
    fn changed(&self, db: usize, key: &Bytes, entry: Option<&Entry>, by: u64);

    /// A slot of the database was emptied or replaced as a whole. All stripes are held.
    fn replaced(&self, db: usize);

    /// These are the libraries of functions now; empty = none. [`LIBRARIES_KEY`](super::LIBRARIES_KEY) is held exclusively.
    fn libraries_changed(&self, libraries: &Bytes);

    /// Whether somebody waits for a change of the key, which is held exclusively: then it is to be committed before the next command runs.
    fn awaits(&self, db: usize, key: &Bytes) -> bool;

    /// Changes were made that no client asked for, and the locks that they needed are free again.
    fn settled(&self);

    /// No keys are held for too long: what was given up because of that may be tried again. Called several times a second, with nothing
    /// locked.
    fn unhindered(&self);

    /// Whether expired keys are to be deleted now.
    fn expires(&self) -> bool;

    /// Whether this node writes the log of the database, so that deleting what has expired is its job.
    fn owns(&self, db: usize) -> bool;

    /// A key or fields of it have expired and are deleted.
    fn expired(&self, db: usize, key: &Bytes, expired: Expired);

    /// Looking for what has expired took so long, and found something.
    fn expire_cycle(&self, took: Duration);
}
