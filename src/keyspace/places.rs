//! Reading lists of a slot by their places, which are consecutive: many at once, or one after the other from an end. Hot path.

use std::ops::Range;

use bytes::Bytes;

use super::cache::{MAX_RUN, end_of_run, start_of_run};
use super::{Error, Slot};
use crate::engine::{Found, Space};

/// Bytes of elements that are read along with the one at an end. With what is known beside them they must find room in a run.
const ALONG: usize = MAX_RUN / 2;

impl Slot {
    /// [`Read::places`](super::effect::Read::places). The stripe of the list's key must be held.
    pub(super) fn places(&self, prefix: &[u8], places: Range<u64>, keep: bool, found: &mut Found) -> Result<(), Error> {
        let store = self.store.load();
        let Some(store) = &*store else { return self.check_never_written() };
        let (cache, id) = (&self.env.cache, &self.cache_id);
        let at = |place: u64| [prefix, &place.to_be_bytes()].concat();
        let run = |from: u64| from..end_of_run(from).min(places.end);
        let mut next = places.start;
        while next < places.end && !found.is_much() {
            let known = run(next);
            if cache.run(id, &at(next), &known, found) {
                next = known.end;
                continue;
            }
            // All that is not known up to the next run that is: to seek costs as much as to read many.
            let mut end = known.end;
            while end < places.end && !cache.knows_run(id, &at(end), &run(end)) {
                end = run(end).end;
            }
            let had = found.len();
            let read = store.engine.places(prefix, next..end, found)?;
            if keep {
                let values: Vec<_> = found.iter().skip(had).collect();
                let mut from = next;
                while from < read {
                    let kept = from..run(from).end.min(read);
                    let values = &values[(kept.start - next) as usize..(kept.end - next) as usize];
                    cache.fill_run(id, &at(from), &kept, values);
                    from = kept.end;
                }
            }
            next = read;
            if read < end {
                break;
            }
        }
        Ok(())
    }

    /// [`Read::end`](super::effect::Read::end). What is not in memory is read together with its neighbours and kept: to seek costs as much
    /// as to read many, and they are asked for next.
    pub(super) fn end(&self, key: &[u8], places: Range<u64>, left: bool) -> Result<Option<Bytes>, Error> {
        let store = self.store.load();
        let Some(store) = &*store else { return self.check_never_written().map(|()| None) };
        if let Some(known) = store.engine.element_known(Space::Data, key) {
            return Ok(known);
        }
        let (cache, id) = (&self.env.cache, &self.cache_id);
        let Some((prefix, _)) = key.split_last_chunk::<{ size_of::<u64>() }>().filter(|_| !places.is_empty()) else {
            return Ok(None);
        };
        let place = if left { places.start } else { places.end - 1 };
        let run = match left {
            true => place..end_of_run(place).min(places.end),
            false => start_of_run(place).max(places.start)..places.end,
        };
        let mut found = Found::default();
        if cache.run(id, key, &(place..place + 1), &mut found) {
            if run.end - run.start == 1 {
                // The last of it: nobody will ask for the run again.
                cache.forget_run(id, key);
            }
            return Ok(found.iter().next().flatten().map(Bytes::copy_from_slice));
        }
        let element = store.engine.element_flushed(Space::Data, key)?;
        // Where its like are as long there are no neighbours to be had, and to look for one element is cheaper than to begin to read a range.
        if !cache.is_on() || element.as_ref().is_none_or(|element| element.len() > ALONG / 2) {
            return Ok(element);
        }
        let mut values = store.engine.flushed_places(prefix, run, left, ALONG)?;
        let count = values.len() as u64;
        let read = if left { place..place + count } else { place + 1 - count..place + 1 };
        if !left {
            values.reverse();
        }
        if count > 1 {
            let values: Vec<_> = values.iter().map(|value| Some(&value[..])).collect();
            cache.fill_run(id, &[prefix, &read.start.to_be_bytes()].concat(), &read, &values);
        }
        Ok(element)
    }
}
