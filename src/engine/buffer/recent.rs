//! What RocksDB was given last, kept in memory for those who read it again. Hot path.
//!
//! A flush empties the write buffer, not the interest in what was written: a counter is incremented again, a field is set again, what was
//! stored is fetched. Finding it here costs a small part of what RocksDB takes.
//!
//! Never the truth, and never older than RocksDB: whatever goes there comes here first, in the same order, or is forgotten here ([`Recent::put`]),
//! before the buffer that it comes from is let go of. What was put first goes first, over all engines ([`Budget`]): so of a key's values an older
//! one never outlives a newer one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::super::batch::Family;
use super::Value;
use super::table::{Table, hash};

/// Longer keys and values are left to RocksDB's block cache, bytes together: one of them would take the place of many.
const MAX_LEN: usize = 1 << 10;

/// See the module.
pub struct Recent {
    tables: [RwLock<Table>; Family::ALL.len()],
    budget: Arc<Budget>,
    own: Weak<Recent>,
}

/// The memory that all engines of a server have for this.
pub struct Budget {
    /// Bytes.
    limit: usize,
    used: AtomicUsize,
    /// For each piece of memory in use, whose it is: in the order in which they were begun.
    pieces: Mutex<VecDeque<(Weak<Recent>, Family)>>,
}

impl Budget {
    /// About so many bytes; 0 = keep nothing.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, used: AtomicUsize::new(0), pieces: Mutex::default() }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Counts what the table of a family has become, and makes room.
    fn changed(&self, recent: &Weak<Recent>, family: Family, pieces: usize, (before, after): (usize, usize)) {
        // In one step, or others would see both and make room for them.
        self.used.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        if pieces > 0 {
            self.pieces.lock().extend(std::iter::repeat_n((recent.clone(), family), pieces));
        }
        while self.used() > self.limit {
            let Some((oldest, family)) = self.pieces.lock().pop_front() else { return };
            if let Some(oldest) = oldest.upgrade() {
                let mut table = oldest.tables[family as usize].write();
                let before = table.allocated();
                table.forget_oldest();
                self.used.fetch_sub(before - table.allocated(), Ordering::Relaxed);
            }
        }
    }
}

impl Recent {
    /// Of an engine.
    pub fn new(budget: &Arc<Budget>) -> Arc<Recent> {
        Arc::new_cyclic(|own| Recent { tables: Default::default(), budget: budget.clone(), own: own.clone() })
    }

    /// RocksDB is given these values of keys (`None`: it is deleted). Not more at a time than readers may wait for.
    pub fn put(&self, family: Family, values: &[(&[u8], Option<&[u8]>)]) {
        // The others are not read key by key.
        if self.budget.limit == 0 || !matches!(family, Family::Meta | Family::Data) {
            return;
        }
        let hashes: Vec<_> = values.iter().map(|(key, _)| hash(key)).collect();
        let mut table = self.tables[family as usize].write();
        let (bytes, pieces) = (table.allocated(), table.chunks());
        hashes.iter().for_each(|hash| table.fetch(*hash));
        for ((key, value), hash) in values.iter().zip(hashes) {
            match value {
                _ if key.len() + value.map_or(0, <[u8]>::len) > MAX_LEN => table.forget(hash, key),
                _ => table.put(hash, key, *value),
            }
        }
        let (after, new) = (table.allocated(), table.chunks() - pieces);
        drop(table);
        if after != bytes {
            self.budget.changed(&self.own, family, new, (bytes, after));
        }
    }

    /// Knows nothing any more.
    pub fn clear(&self) {
        self.budget.pieces.lock().retain(|(recent, _)| !recent.ptr_eq(&self.own));
        for table in &self.tables {
            let mut table = table.write();
            self.budget.used.fetch_sub(table.allocated(), Ordering::Relaxed);
            *table = Table::default();
        }
    }

    /// For reading several keys of a family. Flushes wait meanwhile.
    pub fn reading(&self, family: Family) -> RwLockReadGuard<'_, Table> {
        self.tables[family as usize].read()
    }

    /// What `f` makes of a key's value; `None` when nothing is known of the key, of which this is the [`hash`](super::hash).
    pub fn get<T>(&self, family: Family, hash: u32, key: &[u8], f: impl FnOnce(Value<'_>) -> T) -> Option<T> {
        self.tables[family as usize].read().get(hash, key).map(f)
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        let used: usize = self.tables.iter_mut().map(|table| table.get_mut().allocated()).sum();
        self.budget.used.fetch_sub(used, Ordering::Relaxed);
        self.budget.pieces.lock().retain(|(recent, _)| recent.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(recent: &Recent, key: &str) -> Option<Option<Vec<u8>>> {
        recent.get(Family::Meta, super::super::hash(key.as_bytes()), key.as_bytes(), |value| {
            value.bytes().map(<[u8]>::to_vec)
        })
    }

    fn put(recent: &Recent, key: &[u8], value: Option<&[u8]>) {
        recent.put(Family::Meta, &[(key, value)]);
    }

    #[test]
    fn what_was_put_first_goes_first_whosever_it_is() {
        const LIMIT: usize = 64 << 10;
        let budget = Arc::new(Budget::new(LIMIT));
        let [one, two] = [Recent::new(&budget), Recent::new(&budget)];
        put(&one, b"first", Some(b"v"));
        put(&two, b"gone", None);
        assert_eq!(get(&one, "first"), Some(Some(b"v".to_vec())));
        assert_eq!((get(&two, "gone"), get(&two, "first")), (Some(None), None));
        for n in 0..1000 {
            put(&two, format!("key{n}").as_bytes(), Some(&[n as u8; 100]));
            assert!(budget.used() <= LIMIT);
        }
        assert_eq!((get(&one, "first"), get(&two, "gone"), get(&two, "key0")), (None, None, None));
        assert_eq!(get(&two, "key999"), Some(Some(vec![231; 100])));
        assert!(budget.used() > LIMIT / 4);
        let left = budget.used();
        drop(two);
        assert!(budget.used() < left / 4);
        drop(one);
        assert_eq!((budget.used(), budget.pieces.lock().len()), (0, 0));
    }

    #[test]
    fn what_is_long_is_left_to_rocksdb() {
        let recent = Recent::new(&Arc::new(Budget::new(1 << 20)));
        put(&recent, b"k", Some(b"short"));
        put(&recent, b"k", Some(&[0; MAX_LEN]));
        assert_eq!(get(&recent, "k"), None, "not what it was before");
        put(&recent, b"k", Some(b"short again"));
        assert!(get(&recent, "k").is_some());
        recent.clear();
        assert_eq!((get(&recent, "k"), recent.budget.used()), (None, 0));
        let off = Recent::new(&Arc::new(Budget::new(0)));
        put(&off, b"k", None);
        assert_eq!(get(&off, "k"), None);
    }
}
