//! Changes to a slot that are not written yet, laid over what it holds.

use std::collections::hash_map::Entry as Change;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::effect::{Read, State};
use super::{Error, Slot};
use crate::engine::{Batch, ElementRange, Engine, Entry, Space};

/// The last state of each changed key. Reads fall through to the slot.
pub struct Overlay<'s> {
    slot: &'s Slot,
    /// Whether the stripes of the keys are held, so that the cache may be used.
    locked: bool,
    /// With the place of each in the order in which they were first changed.
    entries: HashMap<Bytes, (usize, Option<Entry>), FixedState>,
    data: Elements,
    score: Elements,
}

/// Changed elements of a space.
type Elements = BTreeMap<Vec<u8>, Option<Bytes>>;

impl<'s> Overlay<'s> {
    /// For keys whose stripes are held exclusively.
    pub fn locked(slot: &'s Slot) -> Overlay<'s> {
        Overlay::new(slot, true)
    }

    /// For a slot that nobody else uses yet.
    pub fn alone(slot: &'s Slot) -> Overlay<'s> {
        Overlay::new(slot, false)
    }

    fn new(slot: &'s Slot, locked: bool) -> Overlay<'s> {
        let entries = HashMap::with_hasher(FixedState::default());
        Overlay { slot, locked, entries, data: Elements::new(), score: Elements::new() }
    }

    pub fn slot(&self) -> &'s Slot {
        self.slot
    }

    pub fn len(&self) -> usize {
        self.entries.len() + self.data.len() + self.score.len()
    }

    /// The changed entries.
    pub fn entries(&self) -> impl Iterator<Item = (&Bytes, Option<&Entry>)> {
        self.entries.iter().map(|(key, (_, entry))| (key, entry.as_ref()))
    }

    fn space(&self, space: Space) -> &Elements {
        match space {
            Space::Data => &self.data,
            Space::Score => &self.score,
        }
    }

    /// The engine batch that makes the changes.
    pub fn batch(&self, engine: &Engine) -> Result<Batch, Error> {
        let mut batch = engine.batch();
        for (key, (_, entry)) in &self.entries {
            engine.stage(&mut batch, key, entry.as_ref())?;
        }
        for space in [Space::Data, Space::Score] {
            for (key, value) in self.space(space) {
                engine.stage_element(&mut batch, space, key, value.as_ref())?;
            }
        }
        Ok(batch)
    }

    /// The engine has made the changes, for the client `by` (0 = none).
    pub fn committed(&self, by: u64) {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(_, (place, _))| *place);
        for (key, (_, entry)) in entries {
            self.slot.changed(key, entry.as_ref(), by);
        }
    }

    /// Whether the engine has made the changes is not known.
    pub fn uncertain(&self) {
        self.entries.keys().for_each(|key| self.slot.uncertain(key));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.data.clear();
        self.score.clear();
    }
}

impl Read for Overlay<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        match self.entries.get(key) {
            Some((_, entry)) => Ok(entry.clone()),
            None if self.locked => self.slot.get(key),
            None => self.slot.get_from_engine(key),
        }
    }

    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.space(space).get(key) {
            Some(value) => Ok(value.clone()),
            None => self.slot.element(space, key),
        }
    }

    fn elements(
        &mut self,
        space: Space,
        range: &ElementRange<'_>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let bounds = (Bound::Included(range.lower), Bound::Excluded(range.upper));
        let changed = self.space(space).range::<[u8], _>(bounds);
        if range.reverse {
            merge(self.slot, space, range, changed.rev(), f)
        } else {
            merge(self.slot, space, range, changed, f)
        }
    }
}

/// Calls `f` with the elements of the slot as `changed`, in the range's direction, makes them.
fn merge<'c>(
    slot: &Slot,
    space: Space,
    range: &ElementRange<'_>,
    changed: impl Iterator<Item = (&'c Vec<u8>, &'c Option<Bytes>)>,
    f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), Error> {
    let mut changed = changed.peekable();
    let mut more = true;
    let comes_before = |a: &[u8], b: &[u8]| if range.reverse { a > b } else { a < b };
    slot.elements(space, range, &mut || {}, &mut |key, value| {
        while let Some((own, new)) = changed.next_if(|(own, _)| comes_before(own, key)) {
            if let Some(new) = new
                && !f(own, new)
            {
                more = false;
                return false;
            }
        }
        more = match changed.next_if(|(own, _)| own.as_slice() == key) {
            Some((_, Some(new))) => f(key, new),
            Some((_, None)) => true,
            None => f(key, value),
        };
        more
    })?;
    for (own, new) in changed {
        if let Some(new) = new {
            more = more && f(own, new);
        }
    }
    Ok(())
}

impl State for Overlay<'_> {
    fn put(&mut self, key: Bytes, entry: Option<Entry>) {
        let place = self.entries.len();
        match self.entries.entry(key) {
            Change::Occupied(mut known) => known.get_mut().1 = entry,
            Change::Vacant(new) => {
                new.insert((place, entry));
            }
        }
    }

    fn put_element(&mut self, space: Space, key: Vec<u8>, value: Option<Bytes>) {
        match space {
            Space::Data => &mut self.data,
            Space::Score => &mut self.score,
        }
        .insert(key, value);
    }
}
