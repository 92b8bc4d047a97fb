//! Changes to a slot that are not written yet, laid over what it holds.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::effect::State;
use super::{Error, Slot};
use crate::engine::{Batch, Engine, Entry};

/// The last state of each changed key. Reads fall through to the slot.
pub(super) struct Overlay<'s> {
    slot: &'s Slot,
    entries: HashMap<Bytes, Option<Entry>, FixedState>,
}

impl<'s> Overlay<'s> {
    pub fn new(slot: &'s Slot) -> Overlay<'s> {
        Overlay { slot, entries: HashMap::with_hasher(FixedState::default()) }
    }

    pub fn slot(&self) -> &'s Slot {
        self.slot
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The engine batch that makes the changes.
    pub fn batch(&self, engine: &Engine) -> Result<Batch, Error> {
        let mut batch = engine.batch();
        for (key, entry) in &self.entries {
            engine.stage(&mut batch, key, entry.as_ref())?;
        }
        Ok(batch)
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl State for Overlay<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        match self.entries.get(key) {
            Some(entry) => Ok(entry.clone()),
            None => self.slot.get(key),
        }
    }

    fn put(&mut self, key: Bytes, entry: Option<Entry>) {
        self.entries.insert(key, entry);
    }
}
