//! The cache of hot entries and elements in front of the engines. Hot path.
//!
//! Never the truth: turning it off changes speed only. The invariant that keeps it so: what a key holds is put in by a reader only while
//! it holds the key's stripe, and taken out by a committer while it holds the stripe exclusively, once the engine has
//! something new. So whoever holds a stripe finds either nothing or what the engine holds; but for the places of a list that are not
//! its places any more: nobody asks for those, and before one is the list's again it is put, which takes its run out. (Entries and elements are
//! asked for here only when what was written lately does not know them; runs of a list come first, but for who pops.) When a slot's data are
//! replaced as a whole it takes a new id, and what is cached under the old one is never found again.

mod runs;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use foldhash::fast::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::engine::Entry;
use runs::run_of;
pub(super) use runs::{end_of_run, start_of_run};

/// Larger values are left to the engine's block cache, bytes.
const MAX_VALUE: usize = 4 << 10;
/// As [`MAX_VALUE`], for the elements of a run together.
pub(super) const MAX_RUN: usize = 16 << 10;
/// What an entry costs beside its [`Cached`] bytes.
const OVERHEAD: u64 = 80;
/// Room that is reserved for the index at first, in entries: one for so many bytes of cache.
const BYTES_PER_ITEM: usize = 1024;

/// Which data of which slot: new whenever a slot's data are replaced.
#[derive(Debug)]
pub(super) struct CacheId(AtomicU32);

impl CacheId {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

/// What is cached.
#[derive(Clone, Copy)]
enum What {
    Entry,
    /// An element of [`Space::Data`](crate::engine::Space::Data), by its whole key.
    Element,
    /// Elements of a list at consecutive places, all of one run ([`runs`]), by the key that an element at its first place has.
    Run,
}

/// What is known of a key in one piece of memory, so that finding it is little more than one miss of the processor's caches: the id and the key's
/// length (both u32), a [`What`], the key, and what the engine holds; nothing for what does not exist. An entry stands as the engine
/// encodes it, an element behind a byte that is not looked at, a run as [`runs`] says.
///
/// It stands under the hash of all before the value, and says itself whose it is: of two with the same hash, one is kept.
type Cached = Arc<[u8]>;

/// Bytes before the key.
const HEADER: usize = 9;
/// Before an element's value, which may be empty.
const EXISTS: u8 = 1;

fn header(id: u32, what: What, key: &[u8]) -> [u8; HEADER] {
    let mut header = [what as u8; HEADER];
    header[..4].copy_from_slice(&id.to_ne_bytes());
    header[4..8].copy_from_slice(&(key.len() as u32).to_ne_bytes());
    header
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<u64, Cached> for ByBytes {
    fn weight(&self, _: &u64, cached: &Cached) -> u64 {
        OVERHEAD + cached.len() as u64
    }
}

type Entries = Cache<u64, Cached, ByBytes, RandomState, DefaultLifecycle<u64, Cached>>;

/// See the module.
pub(super) struct EntryCache {
    cache: Option<Entries>,
    hasher: RandomState,
    last_id: AtomicU32,
    /// Of which [`What`] something was ever kept: of the others nothing need be looked for.
    kept: [AtomicBool; 3],
}

impl EntryCache {
    /// Holds up to about `bytes`; 0 = nothing at all.
    pub fn new(bytes: usize) -> EntryCache {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(bytes / BYTES_PER_ITEM)
            .weight_capacity(bytes as u64)
            .build()
            .ok()
            .filter(|_| bytes > 0);
        let hasher = RandomState::default();
        let cache = options.map(|o| Cache::with_options(o, ByBytes, hasher.clone(), DefaultLifecycle::default()));
        EntryCache { cache, hasher, last_id: AtomicU32::new(0), kept: Default::default() }
    }

    /// An id that was never used.
    pub fn new_id(&self) -> CacheId {
        CacheId(AtomicU32::new(self.next_id()))
    }

    /// Makes all that is cached under `id` unreachable. The whole slot must be locked.
    pub fn renew(&self, id: &CacheId) {
        id.0.store(self.next_id(), Ordering::Release);
    }

    fn next_id(&self) -> u32 {
        self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    fn hash(&self, id: u32, what: What, key: &[u8]) -> u64 {
        self.hasher.hash_one((id, what as u8, key))
    }

    /// What is known of a key: `None` = nothing, else what `f` makes of the value, or that it does not exist.
    fn find<T>(&self, id: &CacheId, what: What, key: &[u8], f: impl FnOnce(&[u8]) -> Option<T>) -> Option<Option<T>> {
        if !self.kept[what as usize].load(Ordering::Relaxed) {
            return None;
        }
        let id = id.get();
        let cached = self.cache.as_ref()?.get(&self.hash(id, what, key))?;
        match cached.strip_prefix(&header(id, what, key))?.strip_prefix(key)? {
            [] => Some(None),
            value => f(value).map(Some),
        }
    }

    /// Keeps the value of a key, which `encode` appends, if it is not too long.
    fn keep(&self, id: &CacheId, what: What, key: &[u8], len: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let max = if matches!(what, What::Run) { MAX_RUN } else { MAX_VALUE };
        let Some(cache) = self.cache.as_ref().filter(|_| len <= max) else { return };
        // Whoever comes to change the key gets its stripe later, and so sees this.
        self.kept[what as usize].store(true, Ordering::Relaxed);
        let id = id.get();
        let mut bytes = Vec::with_capacity(HEADER + key.len() + 1 + len);
        bytes.extend_from_slice(&header(id, what, key));
        bytes.extend_from_slice(key);
        encode(&mut bytes);
        cache.insert(self.hash(id, what, key), bytes.into());
    }

    fn remove(&self, id: &CacheId, what: What, key: &[u8]) {
        let Some(cache) = self.cache.as_ref().filter(|_| self.kept[what as usize].load(Ordering::Relaxed)) else {
            return;
        };
        // Most that is written was not read before: to find that out first disturbs nobody.
        let hash = self.hash(id.get(), what, key);
        if cache.contains_key(&hash) {
            cache.remove(&hash);
        }
    }

    /// The entry of a key (`Some(None)`: it does not exist); `None` when it is not known here. The key's stripe must be held.
    pub fn get(&self, id: &CacheId, key: &[u8]) -> Option<Option<Entry>> {
        self.find(id, What::Entry, key, Entry::decode)
    }

    /// Keeps what was read from the engine while the key's stripe was held.
    pub fn fill(&self, id: &CacheId, key: &[u8], entry: Option<&Entry>) {
        let encode = |bytes: &mut Vec<u8>| entry.into_iter().for_each(|entry| entry.encode(bytes));
        self.keep(id, What::Entry, key, entry.map_or(0, Entry::encoded_len), encode);
    }

    /// The engine holds a new entry of the key, or may, whose stripe is held exclusively. The next reader finds it there.
    pub fn forget(&self, id: &CacheId, key: &[u8]) {
        self.remove(id, What::Entry, key);
    }

    /// The value of an element, as [`EntryCache::get`]. The stripe of the key it belongs to must be held.
    pub fn element(&self, id: &CacheId, key: &[u8]) -> Option<Option<Bytes>> {
        self.find(id, What::Element, key, |value| Some(Bytes::copy_from_slice(&value[1..])))
    }

    /// As [`EntryCache::fill`].
    pub fn fill_element(&self, id: &CacheId, key: &[u8], value: Option<&Bytes>) {
        let encode = |bytes: &mut Vec<u8>| {
            if let Some(value) = value {
                bytes.push(EXISTS);
                bytes.extend_from_slice(value);
            }
        };
        self.keep(id, What::Element, key, value.map_or(0, Bytes::len), encode);
    }

    /// As [`EntryCache::forget`]. Of a list that loses an element (`removed`) the run stays: nobody asks for places that are not the list's, and
    /// before one is its again it is changed.
    pub fn forget_element(&self, id: &CacheId, key: &[u8], removed: bool) {
        self.remove(id, What::Element, key);
        if !removed {
            self.forget_run(id, key);
        }
    }

    /// Forgets the run that an element is in, if it may be one of a list.
    pub fn forget_run(&self, id: &CacheId, element: &[u8]) {
        if self.kept[What::Run as usize].load(Ordering::Relaxed)
            && let Some(run) = run_of(element)
        {
            self.remove(id, What::Run, &run);
        }
    }

    /// Whether anything is ever kept.
    pub fn is_on(&self) -> bool {
        self.cache.is_some()
    }

    /// Bytes in use, entries.
    pub fn usage(&self) -> (u64, usize) {
        self.cache.as_ref().map_or((0, 0), |c| (c.weight(), c.len()))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::engine::{Found, element};

    fn entry(value: &str) -> Entry {
        Entry::string(Bytes::copy_from_slice(value.as_bytes()), None)
    }

    #[test]
    fn knows_what_was_read_until_it_changes() {
        let cache = EntryCache::new(1 << 20);
        let (one, two) = (cache.new_id(), cache.new_id());
        assert_eq!(cache.get(&one, b"k"), None);
        cache.fill(&one, b"k", Some(&entry("a")));
        cache.fill(&one, b"missing", None);
        assert_eq!(cache.get(&one, b"k"), Some(Some(entry("a"))));
        assert_eq!(cache.get(&one, b"missing"), Some(None));
        assert_eq!(cache.get(&two, b"k"), None);
        cache.forget(&one, b"k");
        assert_eq!((cache.get(&one, b"k"), cache.get(&one, b"missing")), (None, Some(None)));
        cache.fill(&one, b"k", Some(&entry(&"x".repeat(MAX_VALUE + 1))));
        assert_eq!(cache.get(&one, b"k"), None);
        cache.fill(&one, b"k", Some(&entry("c")));
        cache.renew(&one);
        assert_eq!(cache.get(&one, b"k"), None);
    }

    #[test]
    fn elements_are_not_entries() {
        let cache = EntryCache::new(1 << 20);
        let id = cache.new_id();
        let value = Bytes::from_static(b"value");
        cache.fill_element(&id, b"k", Some(&Bytes::new()));
        assert_eq!((cache.element(&id, b"k"), cache.get(&id, b"k")), (Some(Some(Bytes::new())), None));
        cache.fill(&id, b"k", None);
        cache.fill_element(&id, b"k", Some(&value));
        assert_eq!((cache.element(&id, b"k"), cache.get(&id, b"k")), (Some(Some(value)), Some(None)));
        cache.forget_element(&id, b"k", false);
        assert_eq!((cache.element(&id, b"k"), cache.get(&id, b"k")), (None, Some(None)));
    }

    #[test]
    fn parts_of_lists() {
        fn found(cache: &EntryCache, id: &CacheId, places: Range<u64>) -> Option<Vec<Option<Vec<u8>>>> {
            let (mut found, first) = (Found::default(), element::prefix(b"list", 7, 0));
            let first = [&first[..], &places.start.to_be_bytes()].concat();
            let known = cache.run(id, &first, &places, &mut found);
            assert_eq!(known, cache.knows_run(id, &first, &places));
            known.then(|| found.iter().map(|value| value.map(<[u8]>::to_vec)).collect())
        }
        let cache = EntryCache::new(1 << 20);
        let id = cache.new_id();
        let at = |place: u64| [element::prefix(b"list", 7, 0), place.to_be_bytes().to_vec()].concat();
        let value = |place: u64| (!place.is_multiple_of(5)).then(|| vec![place as u8; place as usize % 9]);
        let fill = |places: Range<u64>| {
            let values: Vec<_> = places.clone().map(value).collect();
            let values: Vec<_> = values.iter().map(Option::as_deref).collect();
            cache.fill_run(&id, &at(places.start), &places, &values);
        };
        let all = |places: Range<u64>| Some(places.map(value).collect::<Vec<_>>());
        assert_eq!(found(&cache, &id, 70..80), None);
        fill(70..80);
        assert_eq!(found(&cache, &id, 70..80), all(70..80));
        assert_eq!(found(&cache, &id, 75..76), all(75..76));
        assert_eq!((found(&cache, &id, 69..80), found(&cache, &id, 70..81)), (None, None));
        // Beside and across what is known: together. With a gap: instead.
        fill(80..90);
        fill(64..72);
        assert_eq!(found(&cache, &id, 64..90), all(64..90));
        fill(100..128);
        assert_eq!((found(&cache, &id, 64..90), found(&cache, &id, 100..128)), (None, all(100..128)));
        // A change takes out the run it is in, and no other.
        fill(128..130);
        cache.forget_element(&id, &at(127), true);
        assert_eq!(found(&cache, &id, 100..127), all(100..127), "one less");
        cache.forget_element(&id, &at(127), false);
        assert_eq!((found(&cache, &id, 100..101), found(&cache, &id, 128..130)), (None, all(128..130)));
        cache.forget_element(&id, &at(130), false);
        assert_eq!(found(&cache, &id, 128..130), None);
        // An element is no run, though its key is the same.
        cache.fill_element(&id, &at(64), Some(&Bytes::from_static(b"0 1")));
        assert_eq!(found(&cache, &id, 64..65), None);
        fill(64..65);
        assert_eq!(cache.element(&id, &at(64)), Some(Some(Bytes::from_static(b"0 1"))));
        // What is long is left alone, and takes nothing along.
        let long = vec![1; MAX_RUN];
        cache.fill_run(&id, &at(65), &(65..66), &[Some(&long)]);
        assert_eq!((found(&cache, &id, 65..66), found(&cache, &id, 64..65)), (None, all(64..65)));
        // The last places there are.
        assert_eq!((start_of_run(0), start_of_run(63), start_of_run(64)), (0, 0, 64));
        assert_eq!((end_of_run(0), end_of_run(63), end_of_run(64), end_of_run(u64::MAX)), (64, 64, 128, u64::MAX));
    }

    #[test]
    fn off_knows_nothing_and_a_full_one_stays_in_bounds() {
        let off = EntryCache::new(0);
        let id = off.new_id();
        off.fill(&id, b"k", None);
        assert_eq!(off.get(&id, b"k"), None);
        let small = EntryCache::new(100_000);
        let id = small.new_id();
        for n in 0..10_000 {
            small.fill(&id, format!("key{n}").as_bytes(), Some(&entry("value")));
        }
        assert!(small.usage().0 <= 100_000);
    }
}
