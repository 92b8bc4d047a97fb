//! The cache of hot entries in front of the engines. Hot path.
//!
//! Never the truth: turning it off changes speed only. The invariant that keeps it so: an entry is put in by a reader only while
//! it holds the key's stripe, and changed by a committer only while it holds the stripe exclusively and after the engine has the
//! new entry. So whoever holds a stripe finds either nothing or what the engine holds. When a slot's data are replaced as a
//! whole it takes a new id, and what is cached under the old one is never found again.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::engine::Entry;

/// Larger values are left to the engine's block cache.
const MAX_VALUE: usize = 4 << 10;
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

/// An entry in one piece of memory, so that finding it is little more than one miss of the processor's caches: the id, the key's length (both u32),
/// the key, and the entry as the engine encodes it; nothing for a key that does not exist.
///
/// It stands under the hash of id and key, and says itself whose it is: of two with the same hash, one is kept.
type Cached = Arc<[u8]>;

/// Bytes before the key.
const HEADER: usize = 8;

fn header(id: u32, key: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&id.to_ne_bytes());
    header[4..].copy_from_slice(&(key.len() as u32).to_ne_bytes());
    header
}

/// What is cached of a key, if `cached` is of that key.
fn entry_of<'c>(cached: &'c [u8], id: u32, key: &[u8]) -> Option<&'c [u8]> {
    cached.strip_prefix(&header(id, key))?.strip_prefix(key)
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
        EntryCache { cache, hasher, last_id: AtomicU32::new(0) }
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

    fn hash(&self, id: u32, key: &[u8]) -> u64 {
        self.hasher.hash_one((id, key))
    }

    /// The entry of a key (`Some(None)`: it does not exist); `None` when it is not known here. The key's stripe must be held.
    pub fn get(&self, id: &CacheId, key: &[u8]) -> Option<Option<Entry>> {
        let id = id.get();
        let cached = self.cache.as_ref()?.get(&self.hash(id, key))?;
        match entry_of(&cached, id, key)? {
            [] => Some(None),
            entry => Entry::decode(entry).map(Some),
        }
    }

    /// Keeps what was read from the engine while the key's stripe was held.
    pub fn fill(&self, id: &CacheId, key: &[u8], entry: Option<&Entry>) {
        let Some(cache) = &self.cache else { return };
        if entry.is_none_or(|e| e.value.len() <= MAX_VALUE) {
            let id = id.get();
            cache.insert(self.hash(id, key), cached(id, key, entry));
        }
    }

    /// The engine holds a new entry of the key, whose stripe is held exclusively. What nobody has read lately is not brought in.
    pub fn changed(&self, id: &CacheId, key: &[u8], entry: Option<&Entry>) {
        let Some(cache) = &self.cache else { return };
        let id = id.get();
        let hash = self.hash(id, key);
        if !cache.contains_key(&hash) {
            return;
        }
        if entry.is_none_or(|e| e.value.len() <= MAX_VALUE) {
            cache.insert(hash, cached(id, key, entry));
        } else {
            cache.remove(&hash);
        }
    }

    /// The engine may or may not hold a new entry of the key, whose stripe is held exclusively.
    pub fn forget(&self, id: &CacheId, key: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.remove(&self.hash(id.get(), key));
        }
    }

    /// Bytes in use, entries.
    pub fn usage(&self) -> (u64, usize) {
        self.cache.as_ref().map_or((0, 0), |c| (c.weight(), c.len()))
    }
}

fn cached(id: u32, key: &[u8], entry: Option<&Entry>) -> Cached {
    let mut bytes = Vec::with_capacity(HEADER + key.len() + entry.map_or(0, Entry::encoded_len));
    bytes.extend_from_slice(&header(id, key));
    bytes.extend_from_slice(key);
    if let Some(entry) = entry {
        entry.encode(&mut bytes);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(value: &str) -> Entry {
        Entry::string(Bytes::copy_from_slice(value.as_bytes()), None)
    }

    #[test]
    fn knows_what_was_read_and_follows_changes() {
        let cache = EntryCache::new(1 << 20);
        let (one, two) = (cache.new_id(), cache.new_id());
        cache.changed(&one, b"k", Some(&entry("unread")));
        assert_eq!(cache.get(&one, b"k"), None);
        cache.fill(&one, b"k", Some(&entry("a")));
        cache.fill(&one, b"missing", None);
        assert_eq!(cache.get(&one, b"k"), Some(Some(entry("a"))));
        assert_eq!(cache.get(&one, b"missing"), Some(None));
        assert_eq!(cache.get(&two, b"k"), None);
        cache.changed(&one, b"k", Some(&entry("b")));
        assert_eq!(cache.get(&one, b"k"), Some(Some(entry("b"))));
        cache.changed(&one, b"k", Some(&entry(&"x".repeat(MAX_VALUE + 1))));
        assert_eq!(cache.get(&one, b"k"), None);
        cache.fill(&one, b"k", Some(&entry("c")));
        cache.renew(&one);
        assert_eq!(cache.get(&one, b"k"), None);
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
