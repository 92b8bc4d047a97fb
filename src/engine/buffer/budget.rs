//! The memory in which write buffers keep what RocksDB has already, over all engines of a server.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::batch::Family;
use super::Buffer;
use super::records::Lane;

/// See the module.
pub struct Budget {
    /// Bytes.
    limit: usize,
    used: AtomicUsize,
    /// In the order in which they came. Of each buffer and family as many as it keeps of what RocksDB has.
    pieces: Mutex<VecDeque<Piece>>,
}

/// A piece of memory that is kept.
struct Piece {
    of: Weak<Buffer>,
    family: Family,
    bytes: usize,
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

    /// A buffer keeps these pieces, each of so many bytes, until there is no room for them.
    pub(super) fn keep(&self, of: &Weak<Buffer>, pieces: impl Iterator<Item = (Family, usize)>) {
        {
            let mut all = self.pieces.lock();
            for (family, bytes) in pieces {
                self.used.fetch_add(bytes, Ordering::Relaxed);
                all.push_back(Piece { of: of.clone(), family, bytes });
            }
        }
        while self.used() > self.limit {
            let oldest = {
                let mut all = self.pieces.lock();
                let Some(oldest) = all.pop_front() else { return };
                self.used.fetch_sub(oldest.bytes, Ordering::Relaxed);
                oldest
            };
            oldest.forget();
        }
    }

    /// Forgets all that a buffer keeps.
    pub(super) fn forget(&self, of: &Weak<Buffer>) {
        self.take(|piece| piece.of.ptr_eq(of)).iter().for_each(Piece::forget);
    }

    /// A buffer is no more.
    pub(super) fn drop_dead(&self) {
        self.take(|piece| piece.of.strong_count() == 0);
    }

    fn take(&self, which: impl Fn(&Piece) -> bool) -> Vec<Piece> {
        let mut all = self.pieces.lock();
        let (taken, left) = all.drain(..).partition(which);
        *all = left;
        let taken: VecDeque<Piece> = taken;
        self.used.fetch_sub(taken.iter().map(|piece| piece.bytes).sum(), Ordering::Relaxed);
        taken.into()
    }
}

impl Piece {
    /// It is the first one of its buffer and family, or those before it are being forgotten too.
    fn forget(&self) {
        if let Some(buffer) = self.of.upgrade() {
            buffer.forget_oldest(self.family, Lane::Short);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::super::batch::Batch;
    use super::super::super::element::Space;
    use super::super::super::tests::applied;
    use super::*;

    const LIMIT: usize = 64 << 10;

    fn put(buffer: &Buffer, key: &[u8], value: Option<&[u8]>) {
        let mut batch = Batch::default();
        for space in [Space::Data, Space::Score] {
            batch.element(space, key, value.map(Bytes::copy_from_slice).as_ref());
        }
        buffer.apply(&batch);
    }

    fn get(buffer: &Buffer, family: Family, key: &[u8]) -> Option<Option<Vec<u8>>> {
        buffer.get(family, key, |value| value.bytes().map(<[u8]>::to_vec))
    }

    fn drain(buffer: &Buffer) {
        assert!(buffer.freeze(applied(1)));
        assert!(!buffer.freeze(applied(2)), "one at a time");
        assert_eq!(buffer.frozen().map(|frozen| frozen.applied), Some(applied(1)));
        buffer.drained();
        assert!(buffer.frozen().is_none());
    }

    #[test]
    fn what_was_put_first_goes_first_whosever_it_is() {
        let budget = Arc::new(Budget::new(LIMIT));
        let [one, two] = [Buffer::new(&budget), Buffer::new(&budget)];
        put(&one, b"first", Some(b"v"));
        drain(&one);
        put(&two, b"gone", None);
        drain(&two);
        assert_eq!(get(&one, Family::Data, b"first"), Some(Some(b"v".to_vec())));
        assert_eq!((get(&two, Family::Data, b"gone"), get(&two, Family::Data, b"first")), (Some(None), None));
        assert_eq!(get(&two, Family::Score, b"gone"), None, "nobody asks for these one by one");
        assert!(budget.used() > 0);
        for n in 0..1000 {
            put(&two, format!("key{n}").as_bytes(), Some(&[n as u8; 100]));
            // What is not drained does not go.
            assert_eq!(
                get(&two, Family::Data, format!("key{}", n / 50 * 50).as_bytes()),
                Some(Some(vec![(n / 50 * 50) as u8; 100]))
            );
            if n % 50 == 49 {
                drain(&two);
            }
            assert!(budget.used() <= LIMIT);
        }
        for (buffer, key) in [(&one, "first"), (&two, "gone"), (&two, "key0")] {
            assert_eq!(get(buffer, Family::Data, key.as_bytes()), None);
        }
        assert_eq!(get(&two, Family::Data, b"key999"), Some(Some(vec![231; 100])));
        assert!(budget.used() > LIMIT / 4);
        put(&one, b"left", Some(b"v"));
        drain(&one);
        let left = budget.used();
        drop(two);
        assert!(budget.used() < left / 4);
        one.forget_recent();
        assert_eq!((get(&one, Family::Data, b"left"), budget.used()), (None, 0));
        drop(one);
        assert_eq!((budget.used(), budget.pieces.lock().len()), (0, 0));
    }

    #[test]
    fn what_is_long_and_what_nobody_may_keep_is_let_go_of() {
        let buffer = Buffer::new(&Arc::new(Budget::new(1 << 20)));
        put(&buffer, b"k", Some(b"short"));
        drain(&buffer);
        for long in [2 << 10, 20 << 10] {
            put(&buffer, b"k", Some(&vec![7; long]));
            assert_eq!(get(&buffer, Family::Data, b"k"), Some(Some(vec![7; long])));
            drain(&buffer);
            assert_eq!(get(&buffer, Family::Data, b"k"), None, "not what it was before");
        }
        put(&buffer, b"k", Some(b"short again"));
        drain(&buffer);
        assert!(get(&buffer, Family::Data, b"k").is_some());
        // A new value takes nothing along when the old one goes.
        put(&buffer, b"k", Some(b"new"));
        buffer.forget_recent();
        assert_eq!(get(&buffer, Family::Data, b"k"), Some(Some(b"new".to_vec())));
        let off = Buffer::new(&Arc::new(Budget::new(0)));
        put(&off, b"k", None);
        drain(&off);
        assert_eq!(get(&off, Family::Data, b"k"), None);
    }
}
