//! Where the elements of collections stand: their keys, and the spaces that hold them.
//!
//! ```text
//! element key   key length u32 big-endian, key, version u64 big-endian, suffix
//! ```
//!
//! All elements of a collection lie together. The suffix is the type's ([`crate::keyspace::types`]). A collection that
//! is deleted, expires or is replaced leaves its elements behind: no `meta` entry names their version any more, nobody
//! reads them, and compaction drops them.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{DB, ReadOptions, ReadTier};

use super::batch::Family;
use super::encoding::{Collection, decode_header};
use super::options::EXPIRY_GRACE_MS;

/// A column family of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Fields, members, list elements, stream entries, chunks of long strings.
    Data,
    /// The members of sorted sets once more, ordered by score.
    Score,
}

/// A version is the time at which a collection was made, ms, and this many bits to tell those of one ms apart.
pub const VERSION_COUNTER_BITS: u32 = 20;

const LEN_BYTES: usize = 4;
const VERSION_BYTES: usize = 8;

/// Bytes before an element's suffix.
pub fn prefix_len(key: &[u8]) -> usize {
    LEN_BYTES + key.len() + VERSION_BYTES
}

/// What the keys of all elements of a collection begin with, with room for a suffix of `room` bytes.
pub fn prefix(key: &[u8], version: u64, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix_len(key) + room);
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&version.to_be_bytes());
    out
}

/// Key and version in an element's key; `None` for what is none.
pub fn owner(element: &[u8]) -> Option<(&[u8], u64)> {
    let (len, rest) = element.split_first_chunk::<LEN_BYTES>()?;
    let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((key, u64::from_be_bytes(*rest.first_chunk()?)))
}

/// The database that a compaction filter looks owners up in; set once it is open.
pub(super) type OpenDb = Arc<OnceLock<Weak<DB>>>;

/// Makes the filters that drop the elements of collections that are no more.
pub(super) struct OrphanFilters {
    pub db: OpenDb,
    /// Time of the last record that is flushed, ms.
    pub flushed_time: Arc<AtomicU64>,
}

impl CompactionFilterFactory for OrphanFilters {
    type Filter = OrphanFilter;

    fn create(&mut self, _: CompactionFilterContext) -> OrphanFilter {
        let flushed = self.flushed_time.load(Ordering::Acquire);
        OrphanFilter {
            db: self.db.get().and_then(Weak::upgrade),
            flushed,
            expired_before: flushed.saturating_sub(EXPIRY_GRACE_MS),
            last: Vec::new(),
            last_lives: true,
        }
    }

    fn name(&self) -> &CStr {
        c"orphans"
    }
}

/// Decides for one compaction. Judges by what is *flushed*: a replay after a crash starts from there, so a collection that is gone there is
/// gone for everything that will ever be replayed. Elements and entries are flushed together, so an element that is on disk finds
/// the entry that was written with it, or a later one.
pub(super) struct OrphanFilter {
    db: Option<Arc<DB>>,
    /// Time of the last record that was flushed when the compaction began, ms: what is newer is not judged.
    flushed: u64,
    expired_before: u64,
    /// Prefix of the last element that was looked at.
    last: Vec<u8>,
    last_lives: bool,
}

impl OrphanFilter {
    fn lives(&self, key: &[u8], version: u64) -> bool {
        if version >> VERSION_COUNTER_BITS >= self.flushed {
            return true;
        }
        let Some(db) = &self.db else { return true };
        let Some(meta) = db.cf_handle(Family::Meta.name()) else { return true };
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        // What cannot be read or understood is kept.
        let Ok(found) = db.get_pinned_cf_opt(meta, key, &options) else { return true };
        let Some(entry) = found else { return false };
        let Some(header) = decode_header(&entry) else { return true };
        if header.expire_at.is_some_and(|at| at <= self.expired_before) {
            return false;
        }
        header.has_elements && Collection::version_of(&entry[header.len..]) == Some(version)
    }
}

impl CompactionFilter for OrphanFilter {
    fn filter(&mut self, _level: u32, element: &[u8], _value: &[u8]) -> Decision {
        let Some((key, version)) = owner(element) else { return Decision::Keep };
        let prefix = &element[..prefix_len(key)];
        if self.last != prefix {
            self.last_lives = self.lives(key, version);
            self.last.clear();
            self.last.extend_from_slice(prefix);
        }
        if self.last_lives { Decision::Keep } else { Decision::Remove }
    }

    fn name(&self) -> &CStr {
        c"orphan"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_keys_name_their_owner() {
        for key in [&b""[..], b"k", b"a longer key"] {
            let mut element = prefix(key, 7, 3);
            assert_eq!(element.len(), prefix_len(key));
            element.extend_from_slice(b"abc");
            assert_eq!(owner(&element), Some((key, 7)));
        }
        assert_eq!(owner(b"\0\0\0\x09short"), None);
    }
}
