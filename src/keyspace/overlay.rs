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
    /// Whether the stripes of the keys are held, so that the cache may be used.
    locked: bool,
    entries: HashMap<Bytes, Option<Entry>, FixedState>,
}

impl<'s> Overlay<'s> {
    /// For keys whose stripes are held exclusively.
    pub fn locked(slot: &'s Slot) -> Overlay<'s> {
        Overlay { slot, locked: true, entries: HashMap::with_hasher(FixedState::default()) }
    }

    /// For a slot that nobody else uses yet.
    pub fn alone(slot: &'s Slot) -> Overlay<'s> {
        Overlay { slot, locked: false, entries: HashMap::with_hasher(FixedState::default()) }
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

    /// The engine has made the changes.
    pub fn committed(&self) {
        for (key, entry) in &self.entries {
            self.slot.changed(key, entry.as_ref());
        }
    }

    /// Whether the engine has made the changes is not known.
    pub fn uncertain(&self) {
        self.entries.keys().for_each(|key| self.slot.uncertain(key));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl State for Overlay<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        match self.entries.get(key) {
            Some(entry) => Ok(entry.clone()),
            None if self.locked => self.slot.get(key),
            None => self.slot.get_from_engine(key),
        }
    }

    fn put(&mut self, key: Bytes, entry: Option<Entry>) {
        self.entries.insert(key, entry);
    }
}
