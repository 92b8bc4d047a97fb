//! Parts of lists in the cache: what a client reads of a list lies side by side, and to look for each element costs as much as all the rest.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::{CacheId, EntryCache, MAX_RUN, What};
use crate::engine::Found;
use crate::engine::element::{owner, prefix_len};

/// Places of a list that are cached together: from a multiple of this on. A power of two that divides 256.
const RUN: u64 = 64;
const _: () = assert!(MAX_RUN < KnownRun::MISSING as usize, "lengths are u16");

/// The first place of the run that a place is in.
pub fn start_of_run(place: u64) -> u64 {
    place & !(RUN - 1)
}

/// The end of the run that a place is in.
pub fn end_of_run(place: u64) -> u64 {
    (place | (RUN - 1)).saturating_add(1)
}

/// What is cached of a run: the first place's number in it and how many there are, a byte each; the length of each element, u16 little-endian
/// (or [`KnownRun::MISSING`]); the elements.
struct KnownRun<'c> {
    from: usize,
    lengths: &'c [[u8; 2]],
    bytes: &'c [u8],
}

impl<'c> KnownRun<'c> {
    /// As a length: there is no such element.
    const MISSING: u16 = u16::MAX;

    fn read(cached: &'c [u8]) -> Option<KnownRun<'c>> {
        let ([from, count], rest) = cached.split_first_chunk()?;
        let (lengths, bytes) = rest.split_at_checked(2 * usize::from(*count))?;
        Some(KnownRun { from: usize::from(*from), lengths: lengths.as_chunks().0, bytes })
    }

    /// Number in the run, and value, of each.
    fn values(&self) -> impl Iterator<Item = (usize, Option<&'c [u8]>)> {
        let mut left = self.bytes;
        self.lengths.iter().zip(self.from..).map_while(move |(len, nth)| match u16::from_le_bytes(*len) {
            KnownRun::MISSING => Some((nth, None)),
            len => {
                let value = left.split_off(..usize::from(len))?;
                Some((nth, Some(value)))
            }
        })
    }

    fn write(from: usize, values: &[Option<&[u8]>], out: &mut Vec<u8>) {
        out.extend_from_slice(&[from as u8, values.len() as u8]);
        for value in values {
            let len = value.map_or(KnownRun::MISSING, |value| value.len() as u16);
            out.extend_from_slice(&len.to_le_bytes());
        }
        values.iter().flatten().for_each(|value| out.extend_from_slice(value));
    }

    fn len(values: &[Option<&[u8]>]) -> usize {
        2 + values.iter().map(|value| 2 + value.map_or(0, <[u8]>::len)).sum::<usize>()
    }
}

/// What the run is cached by that an element is in, if it may be one of a list.
pub(super) fn run_of(element: &[u8]) -> Option<Vec<u8>> {
    let (key, _) = owner(element)?;
    (element.len() == prefix_len(key) + size_of::<u64>()).then(|| run_key(element))
}

fn run_key(element: &[u8]) -> Vec<u8> {
    let mut key = element.to_vec();
    if let Some(last) = key.last_mut() {
        *last &= !(RUN as u8 - 1);
    }
    key
}

/// The numbers that places have in the run of the first of them, which must be that of the last.
fn in_run(places: &Range<u64>) -> Range<usize> {
    let from = (places.start % RUN) as usize;
    from..from + (places.end - places.start) as usize
}

impl EntryCache {
    /// Adds the elements of a list at `places`, which lie in one run, to `found`; false: not all of them are known here. `first` is the key
    /// of the first of them. As [`EntryCache::get`].
    pub fn run(&self, id: &CacheId, first: &[u8], places: &Range<u64>, found: &mut Found) -> bool {
        self.with_run(id, first, places, |values| values.for_each(|value| found.push(value)))
    }

    /// Whether [`EntryCache::run`] would add them.
    pub fn knows_run(&self, id: &CacheId, first: &[u8], places: &Range<u64>) -> bool {
        self.with_run(id, first, places, |_| ())
    }

    fn with_run(
        &self,
        id: &CacheId,
        first: &[u8],
        places: &Range<u64>,
        f: impl FnOnce(&mut dyn Iterator<Item = Option<&[u8]>>),
    ) -> bool {
        if !self.kept[What::Run as usize].load(Ordering::Relaxed) {
            return false;
        }
        let numbers = in_run(places);
        let found = self.find(id, What::Run, &run_key(first), |cached| {
            let known = KnownRun::read(cached)?;
            if known.from > numbers.start || known.from + known.lengths.len() < numbers.end {
                return None;
            }
            let asked = |(nth, value)| numbers.contains(&nth).then_some(value);
            f(&mut known.values().filter_map(asked));
            Some(())
        });
        found.is_some()
    }

    /// Keeps elements of a list at consecutive places of one run, beside those that are known already if there is no gap between them. `first` is
    /// the key of the first of them. As [`EntryCache::fill`].
    pub fn fill_run(&self, id: &CacheId, first: &[u8], places: &Range<u64>, values: &[Option<&[u8]>]) {
        let (numbers, key) = (in_run(places), run_key(first));
        let keep = |from: usize, values: &[Option<&[u8]>]| {
            let len = KnownRun::len(values);
            self.keep(id, What::Run, &key, len, |bytes| KnownRun::write(from, values, bytes));
            len <= MAX_RUN
        };
        let together = self.find(id, What::Run, &key, |cached| {
            let known = KnownRun::read(cached)?;
            let end = known.from + known.lengths.len();
            if known.from > numbers.end || numbers.start > end {
                return None;
            }
            let from = known.from.min(numbers.start);
            let mut all = vec![None; end.max(numbers.end) - from];
            known.values().for_each(|(nth, value)| all[nth - from] = value);
            all[numbers.start - from..numbers.end - from].copy_from_slice(values);
            keep(from, &all).then_some(())
        });
        if together.is_none() {
            keep(numbers.start, values);
        }
    }
}
