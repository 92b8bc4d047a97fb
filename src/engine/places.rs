//! Reading elements by their places, one place after the other: parts of lists. Hot path.

use std::ops::Range;

use bytes::Bytes;

use super::batch::Family;
use super::buffer::Value;
use super::element::Space;
use super::{ElementRange, Engine, Error};

/// Bytes of values that are copied at a time.
const MUCH: usize = 256 << 10;
/// Longer values are not copied, bytes: nobody must wait for that.
const LONG: usize = 16 << 10;
/// Elements that are looked for in memory before writers are let in.
const FEW: u64 = 100;

/// Values of elements, copied one behind the other.
#[derive(Default)]
pub struct Found {
    bytes: Vec<u8>,
    /// Where each ends, and whether there is such an element.
    values: Vec<(usize, bool)>,
}

impl Found {
    /// Adds a value; `None`: there is no such element.
    pub fn push(&mut self, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.values.push((self.bytes.len(), value.is_some()));
    }

    /// How many there are, whether they exist or not.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether no more should be added before these are used.
    pub fn is_much(&self) -> bool {
        self.bytes.len() >= MUCH
    }

    /// The values, in the order in which they were asked for.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Option<&[u8]>> {
        (0..self.values.len()).map(|nth| {
            let start = nth.checked_sub(1).map_or(0, |before| self.values[before].0);
            let (end, exists) = self.values[nth];
            exists.then_some(&self.bytes[start..end])
        })
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
    }
}

impl Engine {
    /// Adds the values of the elements at consecutive `places` to `found`, whose keys are `prefix` and the place, u64 big-endian, from the first on
    /// until much is found or one is long; returns the place before which it stopped. Nobody may write them meanwhile.
    pub fn places(&self, prefix: &[u8], places: Range<u64>, found: &mut Found) -> Result<u64, Error> {
        let at = |place: u64| [prefix, &place.to_be_bytes()].concat();
        // What was written lately is found faster one by one than the first of them is sought on disk.
        let mut next = places.start;
        while next < places.end && !found.is_much() {
            let few = next..places.end.min(next.saturating_add(FEW));
            let known = self.places_known(prefix, few.clone(), found);
            if known < few.end {
                next = known;
                break;
            }
            next = few.end;
        }
        if next == places.end || found.is_much() {
            return Ok(next);
        }
        let (lower, upper) = (at(next), at(places.end));
        let range = ElementRange { lower: &lower, upper: &upper, reverse: false };
        let mut stopped = false;
        self.elements(Space::Data, &range, None, &mut |key, value| {
            let place = key.strip_prefix(prefix).and_then(|place| place.try_into().ok()).map(u64::from_be_bytes);
            // Damage is not made worse.
            let Some(place) = place.filter(|place| *place >= next) else { return true };
            // Those between do not exist.
            (next..place).for_each(|_| found.push(None));
            next = place;
            stopped = value.len() > LONG || found.is_much();
            if !stopped {
                found.push(Some(value));
                next += 1;
            }
            !stopped
        })?;
        if !stopped {
            (next..places.end).for_each(|_| found.push(None));
            next = places.end;
        }
        Ok(next)
    }

    /// The values of the elements at consecutive `places`, with keys as for [`Engine::places`], from the first (`left`) or from the last on: up to
    /// one that is missing, or is in memory as it was written lately; more than one only if they are not more than `much`, bytes. Nobody may
    /// write them meanwhile.
    pub fn flushed_places(
        &self,
        prefix: &[u8],
        places: Range<u64>,
        left: bool,
        much: usize,
    ) -> Result<Vec<Bytes>, Error> {
        let at = |place: u64| [prefix, &place.to_be_bytes()].concat();
        let nth = |n: u64| if left { places.start + n } else { places.end - 1 - n };
        // Before RocksDB is looked into: what is not in memory now is there.
        let flushed = {
            let reading = self.buffer.reading();
            let unknown = |n: &u64| reading.get(Family::Data, &at(nth(*n))).is_none();
            (0..places.end - places.start).take_while(unknown).count() as u64
        };
        let (mut values, mut bytes) = (Vec::new(), 0);
        if flushed == 0 {
            return Ok(values);
        }
        let (lower, upper) = if left { (nth(0), nth(flushed)) } else { (nth(flushed - 1), places.end) };
        let mut iter = self.element_iter(Space::Data, &at(lower), &at(upper), !left)?;
        while let Some((key, value)) = iter.item()
            && key.strip_prefix(prefix) == Some(&nth(values.len() as u64).to_be_bytes())
        {
            bytes += value.len();
            // One that is asked for is had, however long it is; others must not come with it again and again.
            if bytes > much && !values.is_empty() {
                break;
            }
            values.push(Bytes::copy_from_slice(value));
            if bytes >= much || values.len() as u64 == flushed {
                break;
            }
            if left { iter.next() } else { iter.prev() }
        }
        iter.status().map_err(self.failure())?;
        Ok(values)
    }

    /// As [`Engine::places`], until nothing is known of one without RocksDB. Writes to the engine wait meanwhile.
    fn places_known(&self, prefix: &[u8], places: Range<u64>, found: &mut Found) -> u64 {
        let (reading, mut key) = (self.buffer.reading(), prefix.to_vec());
        for place in places.clone() {
            key.truncate(prefix.len());
            key.extend_from_slice(&place.to_be_bytes());
            match reading.get(Family::Data, &key) {
                // Shared are those that are long.
                None | Some(Value::Shared(_)) => return place,
                Some(value) => found.push(value.bytes()),
            }
            if found.is_much() {
                return place + 1;
            }
        }
        places.end
    }
}
