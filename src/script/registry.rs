//! The libraries of functions that the node has now.
//!
//! What the node has is what was committed last, here or by its master: the keyspace holds it as a dump and says when it
//! changes. A command that changes it prepares the new libraries first, so that they are not loaded twice.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Engine, Libraries};

/// See the module.
#[derive(Default)]
pub struct Registry {
    current: ArcSwap<Libraries>,
    /// What a command is about to commit, with its dump.
    prepared: Mutex<Option<(Bytes, Arc<Libraries>)>>,
}

impl Registry {
    /// The libraries now.
    pub fn current(&self) -> Arc<Libraries> {
        self.current.load_full()
    }

    /// The dump of libraries that the caller is about to commit; empty when there is none.
    pub fn prepare(&self, libraries: Libraries) -> Bytes {
        let dump = if libraries.counts().0 == 0 { Bytes::new() } else { Bytes::from(libraries.dump()) };
        *self.prepared.lock() = Some((dump.clone(), Arc::new(libraries)));
        dump
    }

    /// The libraries of a dump that was prepared, or that the master made; empty = none.
    pub fn of(&self, engine: &Engine, dump: &Bytes) -> Arc<Libraries> {
        if let Some((prepared, libraries)) = &*self.prepared.lock()
            && prepared == dump
        {
            return Arc::clone(libraries);
        }
        if dump.is_empty() {
            return Arc::default();
        }
        let libraries = Libraries::reload(engine, dump, &self.current.load()).unwrap_or_else(|error| {
            tracing::error!("the libraries of functions cannot be loaded: {error}");
            Libraries::default()
        });
        Arc::new(libraries)
    }

    /// These are committed.
    pub fn install(&self, engine: &Engine, dump: &Bytes) {
        let libraries = self.of(engine, dump);
        self.current.store(libraries);
        *self.prepared.lock() = None;
    }
}
