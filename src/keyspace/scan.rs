//! Looking at whole slots: iteration, counting, digests. Holds no lock: a key that is written meanwhile is seen as it was before or after that.

use bytes::Bytes;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};

use super::effect::Read;
use super::slot::Store;
use super::types::{self, Handle};
use super::{Error, Slot};
use crate::binlog::Position;
use crate::engine::{ElementRange, Entry, Space};

/// Up to this many keys, by RocksDB's estimate, statistics count a slot exactly.
const COUNT_EXACTLY: u64 = 100_000;

/// Key counts of a slot or database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// Sum over those of the time they still have, ms.
    pub ttl_sum: u64,
}

impl KeyCounts {
    fn add(&mut self, other: KeyCounts) {
        self.keys += other.keys;
        self.expires += other.expires;
        self.ttl_sum = self.ttl_sum.saturating_add(other.ttl_sum);
    }
}

impl std::iter::Sum for KeyCounts {
    fn sum<I: Iterator<Item = KeyCounts>>(all: I) -> KeyCounts {
        all.fold(KeyCounts::default(), |mut sum, one| {
            sum.add(one);
            sum
        })
    }
}

/// The last exact count, which holds until the slot is written or a key expires.
#[derive(Default)]
pub(super) struct CountCache(Mutex<Option<CachedCount>>);

#[derive(Clone, Copy)]
struct CachedCount {
    position: Position,
    at: u64,
    /// The last ms before the first key expires.
    good_until: u64,
    counts: KeyCounts,
}

impl Slot {
    /// Calls `f` with the keys after `after` (exclusive; `None` = all) that are live at `now`, in byte order, until it
    /// returns false.
    pub fn scan(&self, after: Option<&[u8]>, now: u64, f: &mut dyn FnMut(&[u8], &Entry) -> bool) -> Result<(), Error> {
        let Some(store) = self.readable()? else { return Ok(()) };
        store.engine.scan(after, &mut |key, entry| Ok(!entry.is_live(now) || f(key, &entry)))?;
        Ok(())
    }

    /// Calls `f` with the keys up to `from` (inclusive; `None` = all) that are live at `now`, from the last to the first, until it
    /// returns false.
    pub fn scan_back(
        &self,
        from: Option<&[u8]>,
        now: u64,
        f: &mut dyn FnMut(&[u8], &Entry) -> bool,
    ) -> Result<(), Error> {
        let Some(store) = self.readable()? else { return Ok(()) };
        store.engine.scan_back(from, &mut |key, entry| Ok(!entry.is_live(now) || f(key, &entry)))?;
        Ok(())
    }

    /// The keys that are live at `now`, counted. Scans the slot unless it was counted since its last write.
    pub fn count(&self, now: u64) -> Result<KeyCounts, Error> {
        let position = self.position();
        if let Some(cached) = self.cached_count(position, now) {
            return Ok(cached);
        }
        let mut counts = KeyCounts::default();
        let mut good_until = u64::MAX;
        self.scan(None, now, &mut |_, entry| {
            counts.keys += 1;
            if let Some(at) = entry.expire_at {
                counts.expires += 1;
                counts.ttl_sum = counts.ttl_sum.saturating_add(at - now);
                good_until = good_until.min(at);
            }
            true
        })?;
        *self.counts.0.lock() = Some(CachedCount { position, at: now, good_until, counts });
        Ok(counts)
    }

    fn cached_count(&self, position: Position, now: u64) -> Option<KeyCounts> {
        let cached = (*self.counts.0.lock())?;
        let good = cached.position == position && now >= cached.at && now <= cached.good_until;
        let passed = now.saturating_sub(cached.at).saturating_mul(cached.counts.expires);
        good.then(|| KeyCounts { ttl_sum: cached.counts.ttl_sum.saturating_sub(passed), ..cached.counts })
    }

    /// Key counts that never take long: exact for a slot of up to 100,000 keys and for one not written since its last exact
    /// count; otherwise RocksDB's estimate of the keys, and nothing known of expiries.
    pub fn estimate(&self, now: u64) -> Result<KeyCounts, Error> {
        if let Some(cached) = self.cached_count(self.position(), now) {
            return Ok(cached);
        }
        let Some(store) = self.readable()? else { return Ok(KeyCounts::default()) };
        let keys = store.engine.estimated_keys()?;
        if keys <= COUNT_EXACTLY { self.count(now) } else { Ok(KeyCounts { keys, ..KeyCounts::default() }) }
    }

    /// A digest of the slot's data at `now`: equal for equal keys, types, values and expiries, whatever the order they were written in, and
    /// whatever versions collections have.
    pub fn digest(&self, now: u64) -> Result<[u8; 20], Error> {
        let mut sum = [0u8; 20];
        let db = (self.shown_db() as u32).to_be_bytes();
        let Some(store) = self.readable()? else { return Ok(sum) };
        let libraries = store.engine.libraries()?;
        if !libraries.is_empty() {
            let mut hash = Sha1::new();
            hash.update(b"libraries");
            hash.update(&libraries);
            xor(&mut sum, hash.finalize().as_slice());
        }
        let mut failed = None;
        self.scan(None, now, &mut |key, entry| {
            let mut hash = Sha1::new();
            hash.update(db);
            hash.update([entry.kind as u8]);
            hash.update(entry.expire_at.unwrap_or(0).to_be_bytes());
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(key);
            let key = Bytes::copy_from_slice(key);
            match Handle::of(&key, entry) {
                None => hash.update(&entry.value),
                Some(handle) => {
                    if let Err(e) = types::digest(&mut StoreReader(&store), &handle, &mut |bytes| hash.update(bytes)) {
                        failed = Some(e);
                        return false;
                    }
                }
            }
            xor(&mut sum, hash.finalize().as_slice());
            true
        })?;
        failed.map_or(Ok(sum), Err)
    }

    /// Some key that is live at `now`, near a random place in the key space; `None` if the slot has none.
    pub fn random_key(&self, now: u64) -> Result<Option<Bytes>, Error> {
        let Some(store) = self.readable()? else { return Ok(None) };
        let Some((low, high)) = store.engine.key_range()? else { return Ok(None) };
        let probe = random_between(&low, &high);
        let mut found = None;
        self.scan(Some(&probe), now, &mut |key, _| {
            found = Some(Bytes::copy_from_slice(key));
            false
        })?;
        if found.is_none() {
            self.scan(None, now, &mut |key, _| {
                found = Some(Bytes::copy_from_slice(key));
                false
            })?;
        }
        Ok(found)
    }
}

/// Reads one store, which may be replaced meanwhile. Elements are read one collection after the other: a digest is one of a moment
/// only if nothing is written meanwhile.
struct StoreReader<'s>(&'s Store);

impl Read for StoreReader<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        Ok(self.0.engine.get(key)?)
    }

    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.engine.element(space, key)?)
    }

    fn elements(
        &mut self,
        space: Space,
        range: &ElementRange<'_>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        Ok(self.0.engine.elements(space, range, None, f)?)
    }
}

/// Adds `other` to an order-free sum.
pub(super) fn xor(sum: &mut [u8; 20], other: &[u8]) {
    sum.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

/// Random bytes between two keys: their common prefix, then a random byte between those that follow, then noise.
fn random_between(low: &[u8], high: &[u8]) -> Vec<u8> {
    let common = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let mut probe = low[..common].to_vec();
    let from = low.get(common).copied().unwrap_or(0);
    let to = high.get(common).copied().unwrap_or(u8::MAX).max(from);
    probe.push(rand::random_range(from..=to));
    // Keys are mostly text: digits and letters spread the probe better than any byte would.
    probe.extend((0..8).map(|_| rand::random_range(b'0'..=b'z')));
    probe
}
