//! What the rest of the server learns of changes to keys: blocked commands, WATCH, clients' caches, counters and notifications of what
//! has expired.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;

use crate::command::WatchTable;
use crate::command::blocking::Blocked;
use crate::config::Config;
use crate::keyspace::{Entry, Expired, KeyObserver};
use crate::pubsub::{EventClass, PauseKind, Tracking};
use crate::server::Server;

/// Everything that is told of changes.
pub struct KeyEvents {
    /// Commands that wait for keys.
    pub blocked: Blocked,
    /// Keys under WATCH.
    pub watch: WatchTable,
    /// Keys in clients' caches.
    pub tracking: Tracking,
    server: OnceLock<Weak<Server>>,
}

impl KeyEvents {
    /// Nobody waits, watches or tracks.
    pub fn new(config: Arc<Config>) -> Self {
        KeyEvents {
            blocked: Blocked::default(),
            watch: WatchTable::default(),
            tracking: Tracking::new(config),
            server: OnceLock::new(),
        }
    }

    fn server(&self) -> Option<Arc<Server>> {
        self.server.get().and_then(Weak::upgrade)
    }

    /// Sets the server whose waiting commands are to be run, once.
    pub fn set_server(&self, server: Weak<Server>) {
        self.server.get_or_init(|| server);
    }
}

impl KeyObserver for KeyEvents {
    fn changed(&self, db: usize, key: &Bytes, entry: Option<&Entry>, by: u64) {
        self.tracking.changed(key, by);
        self.watch.changed(db, key, entry);
        self.blocked.changed(db, key);
    }

    fn replaced(&self, db: usize) {
        self.tracking.replaced();
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
        self.tracking.deliver();
        if let Some(server) = self.server() {
            self.blocked.serve(&server);
        }
    }

    fn unhindered(&self) {
        if let Some(server) = self.server() {
            self.blocked.serve_held_up(&server);
        }
    }

    fn expires(&self) -> bool {
        self.server().is_some_and(|server| server.switches.active_expire() && server.pause.kind() == PauseKind::None)
    }

    fn owns(&self, db: usize) -> bool {
        self.server().is_some_and(|server| server.writes_log_of(db))
    }

    fn expired(&self, db: usize, key: &Bytes, expired: Expired) {
        let Some(server) = self.server() else { return };
        match expired {
            Expired::Key => {
                server.stats.expired_keys.add(1);
                server.pubsub.notify(db, EventClass::Expired, "expired", key);
            }
            Expired::Fields(count, gone) => {
                server.stats.expired_fields.add(count);
                server.pubsub.notify(db, EventClass::Hash, "hexpired", key);
                if gone {
                    server.pubsub.notify(db, EventClass::Generic, "del", key);
                }
            }
        }
    }

    fn expire_cycle(&self, took: Duration) {
        if let Some(server) = self.server() {
            server.latency_event("expire-cycle", took);
        }
    }
}
