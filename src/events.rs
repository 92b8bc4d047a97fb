//! What the rest of the server learns of changes to keys: blocked commands, WATCH.

use std::sync::{OnceLock, Weak};

use bytes::Bytes;

use crate::command::WatchTable;
use crate::command::blocking::Blocked;
use crate::keyspace::{Entry, KeyObserver};
use crate::server::Server;

/// Everything that is told of changes.
#[derive(Default)]
pub struct KeyEvents {
    /// Commands that wait for keys.
    pub blocked: Blocked,
    /// Keys under WATCH.
    pub watch: WatchTable,
    server: OnceLock<Weak<Server>>,
}

impl KeyEvents {
    /// Sets the server whose waiting commands are to be run, once.
    pub fn set_server(&self, server: Weak<Server>) {
        self.server.get_or_init(|| server);
    }
}

impl KeyObserver for KeyEvents {
    fn changed(&self, db: usize, key: &Bytes, _entry: Option<&Entry>) {
        self.watch.changed(db, key);
        self.blocked.changed(db, key);
    }

    fn replaced(&self, db: usize) {
        self.watch.replaced(db);
        self.blocked.replaced(db);
    }

    fn libraries_changed(&self, libraries: &Bytes) {
        if let Some(server) = self.server.get().and_then(Weak::upgrade) {
            server.functions.install(&server.scripts, libraries);
        }
    }

    fn awaits(&self, db: usize, key: &Bytes) -> bool {
        self.blocked.awaits(db, key)
    }

    fn settled(&self) {
        if let Some(server) = self.server.get().and_then(Weak::upgrade) {
            self.blocked.serve(&server);
        }
    }
}
