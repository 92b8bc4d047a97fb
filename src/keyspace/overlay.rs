//! Changes to a slot that are not written yet, laid over what it holds.

use std::collections::hash_map;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::effect::{Read, State};
use super::slot::NOBODY;
use super::{Error, Slot};
use crate::engine::{Batch, ElementRange, Entry, Found, Space};

/// The last state of each changed key. Reads fall through to the slot.
pub struct Overlay<'s> {
    slot: &'s Slot,
    /// Whether the stripes of the keys are held, so that the cache may be used.
    locked: bool,
    entries: HashMap<Bytes, Changed, FixedState>,
    /// What is changed from now on is numbered with this.
    order: u64,
    /// Who makes the changes from now on.
    by: u64,
    /// Whether what is read may go into the cache.
    keeps: bool,
    data: Elements,
    score: Elements,
    libraries: Option<Bytes>,
}

/// The last state of a key.
struct Changed {
    /// When it was first changed.
    order: u64,
    /// By whom; nobody ([`NOBODY`]) if by several.
    by: u64,
    entry: Option<Entry>,
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
        Overlay {
            slot,
            locked,
            entries,
            order: 0,
            by: NOBODY,
            keeps: false,
            data: Elements::new(),
            score: Elements::new(),
            libraries: None,
        }
    }

    pub fn slot(&self) -> &'s Slot {
        self.slot
    }

    pub fn len(&self) -> usize {
        self.entries.len() + self.data.len() + self.score.len() + usize::from(self.libraries.is_some())
    }

    /// What is changed from now on comes after what was changed, in this overlay or another one, under a lower number, and is changed
    /// by the client `by`.
    pub fn set_order(&mut self, order: u64, by: u64) {
        self.order = order;
        self.by = by;
    }

    /// Whether what is read from now on is worth keeping in the cache: what is read to be replaced is not.
    pub fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// The changed entries.
    pub fn entries(&self) -> impl Iterator<Item = (&Bytes, Option<&Entry>)> {
        self.entries.iter().map(|(key, changed)| (key, changed.entry.as_ref()))
    }

    /// The libraries of functions, if they were changed.
    pub fn libraries(&self) -> Option<&Bytes> {
        self.libraries.as_ref()
    }

    fn space(&self, space: Space) -> &Elements {
        match space {
            Space::Data => &self.data,
            Space::Score => &self.score,
        }
    }

    /// The engine batch that makes the changes.
    pub fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        self.entries().for_each(|(key, entry)| batch.entry(key, entry));
        for space in [Space::Data, Space::Score] {
            self.space(space).iter().for_each(|(key, value)| batch.element(space, key, value.as_ref()));
        }
        if let Some(libraries) = &self.libraries {
            batch.libraries(libraries);
        }
        batch
    }

    /// The engines have made the changes of these overlays. Tells of them in the order in which the keys were first changed.
    pub fn committed<'o>(overlays: impl Iterator<Item = &'o Overlay<'s>>)
    where
        's: 'o,
    {
        let mut changes = Vec::new();
        for overlay in overlays {
            if let Some(libraries) = &overlay.libraries {
                overlay.slot.libraries_changed(libraries);
            }
            overlay.data.iter().for_each(|(key, value)| overlay.slot.element_changed(key, value.is_none()));
            changes.extend(overlay.entries.iter().map(|(key, changed)| (overlay.slot, key, changed)));
        }
        changes.sort_unstable_by_key(|(_, _, changed)| changed.order);
        changes.into_iter().for_each(|(slot, key, changed)| slot.changed(key, changed.entry.as_ref(), changed.by));
    }

    /// Whether the engine has made the changes is not known.
    pub fn uncertain(&self) {
        self.data.keys().for_each(|key| self.slot.element_changed(key, false));
        self.entries.keys().for_each(|key| self.slot.uncertain(key));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.data.clear();
        self.score.clear();
        self.libraries = None;
    }
}

impl Read for Overlay<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        match self.entries.get(key) {
            Some(changed) => Ok(changed.entry.clone()),
            None if self.locked => self.slot.get(key, self.keeps),
            None => self.slot.get_from_engine(key),
        }
    }

    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.space(space).get(key) {
            Some(value) => Ok(value.clone()),
            None if self.locked => self.slot.element(space, key, self.keeps),
            None => self.slot.element_from_engine(space, key),
        }
    }

    fn places(&mut self, prefix: &[u8], places: Range<u64>, found: &mut Found) -> Result<(), Error> {
        // What is changed here is merged with what is there by `elements`.
        let changed = |place: u64| [prefix, &place.to_be_bytes()].concat();
        let (from, to) = (changed(places.start), changed(places.end));
        if !self.locked || self.data.range(from..to).next().is_some() {
            return Ok(());
        }
        self.slot.places(prefix, places, self.keeps, found)
    }

    fn end(&mut self, key: &[u8], places: Range<u64>, left: bool) -> Result<Option<Bytes>, Error> {
        match self.data.get(key) {
            Some(value) => Ok(value.clone()),
            None if self.locked => self.slot.end(key, places, left),
            None => self.slot.element_from_engine(Space::Data, key),
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
    slot.elements(space, range, None, &mut |key, value| {
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
        match self.entries.entry(key) {
            hash_map::Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.entry = entry;
                if known.by != self.by {
                    known.by = NOBODY;
                }
            }
            hash_map::Entry::Vacant(new) => drop(new.insert(Changed { order: self.order, by: self.by, entry })),
        }
    }

    fn put_element(&mut self, space: Space, key: Vec<u8>, value: Option<Bytes>) {
        match space {
            Space::Data => &mut self.data,
            Space::Score => &mut self.score,
        }
        .insert(key, value);
    }

    fn put_libraries(&mut self, payload: Bytes) {
        self.libraries = Some(payload);
    }
}
