//! Deleting what has expired. Reads take an expired key for missing anyway; here it goes for good, by effects that are logged as a client's
//! deletion is, and only where this node writes the log.
//!
//! Two ways lead to what has expired. Every committed entry with an expiry enters a queue in memory, ordered by time, bounded in bytes; what
//! is due in it is deleted within 100 ms. What the queue does not hold, since it was full or since the node has started only now, is known to
//! each slot as a lower bound of times; a slot whose bound has passed is swept in the background, a few ms at a time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

use super::effect::{Effect, Read};
use super::slot::{Slot, SlotEnv};
use super::types::{Handle, hash};
use super::{Error, Keyspace, Locked, Transaction};
use crate::engine::{Entry, Kind};

/// Bytes of keys in the queue, with what it takes to keep them: some 200,000 keys of common length.
const MAX_QUEUED: usize = 32 << 20;
/// What a queued key takes beside its bytes: its place in the tree, whose nodes are two thirds full, and the allocator's share.
const QUEUED_OVERHEAD: usize = 112;
/// The longest time between two looks at the queue.
const MAX_SLEEP: Duration = Duration::from_millis(100);
/// Keys that are deleted in one commit: their locks are held meanwhile.
const BATCH: usize = 64;
/// How long slots are swept between two looks at the queue.
const SWEEP_TIME: Duration = Duration::from_millis(5);
/// Keys that a sweep looks at before it asks for the time.
const SWEEP_STEP: usize = 256;
/// Fields of one hash that are removed in one effect.
const MAX_FIELDS: usize = 1024;

/// What has expired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// A key.
    Key,
    /// So many fields of a hash; the key is gone if they were all.
    Fields(u64, KeyGone),
}

/// Whether a key went with its last field.
pub type KeyGone = bool;

/// A key and when it, or a field of it, expires.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Due {
    /// The last ms (unix) of its life.
    at: u64,
    /// The slot: database on disk and number.
    db: usize,
    slot: usize,
    key: Bytes,
}

impl Due {
    fn cost(&self) -> usize {
        self.key.len() + QUEUED_OVERHEAD
    }
}

/// The keys that expire next.
pub(super) struct ExpiryQueue {
    queued: Mutex<Queued>,
    /// Bytes.
    limit: usize,
}

#[derive(Default)]
struct Queued {
    due: BTreeSet<Due>,
    /// What they cost, bytes.
    bytes: usize,
}

impl Queued {
    fn insert(&mut self, due: Due) {
        let cost = due.cost();
        if self.due.insert(due) {
            self.bytes += cost;
        }
    }

    fn taken(&mut self, due: Option<Due>) -> Option<Due> {
        self.bytes -= due.as_ref().map_or(0, Due::cost);
        due
    }

    fn pop_first(&mut self) -> Option<Due> {
        let first = self.due.pop_first();
        self.taken(first)
    }

    fn pop_last(&mut self) -> Option<Due> {
        let last = self.due.pop_last();
        self.taken(last)
    }
}

impl Default for ExpiryQueue {
    fn default() -> ExpiryQueue {
        ExpiryQueue { queued: Mutex::default(), limit: MAX_QUEUED }
    }
}

/// When an entry, or the first field of it, expires (the last ms of its life).
fn expiry_of(key: &Bytes, entry: &Entry) -> Option<u64> {
    let field = match entry.kind {
        Kind::Hash => Handle::of(key, entry).and_then(|handle| hash::soonest_expiry(&handle)),
        _ => None,
    };
    match (entry.expire_at, field) {
        (Some(key), Some(field)) => Some(key.min(field)),
        (one, other) => one.or(other),
    }
}

impl ExpiryQueue {
    /// A slot holds this entry now.
    pub fn note(&self, slot: &Slot, key: &Bytes, entry: &Entry) {
        let Some(at) = expiry_of(key, entry) else { return };
        // A copy: the bytes at hand may be a small part of a large buffer.
        let due = Due { at, db: slot.db(), slot: slot.number(), key: Bytes::copy_from_slice(key) };
        self.insert(due).iter().for_each(|dropped| slot.env().leave_to_sweep(dropped));
    }

    /// Adds a key. Returns those for which there is no room any more: the last to expire.
    fn insert(&self, due: Due) -> Vec<Due> {
        let mut queued = self.queued.lock();
        queued.insert(due);
        let mut dropped = Vec::new();
        while queued.bytes > self.limit {
            dropped.extend(queued.pop_last());
        }
        dropped
    }

    /// Bytes in use.
    pub fn usage(&self) -> usize {
        self.queued.lock().bytes
    }

    /// Takes up to `count` keys whose time had come before `now`.
    fn take_due(&self, now: u64, count: usize) -> Vec<Due> {
        let mut queued = self.queued.lock();
        let mut due = Vec::new();
        while due.len() < count && queued.due.first().is_some_and(|first| first.at < now) {
            due.extend(queued.pop_first());
        }
        due
    }

    /// When the next key expires.
    fn soonest(&self) -> Option<u64> {
        self.queued.lock().due.first().map(|first| first.at)
    }
}

impl SlotEnv {
    /// A key that the queue cannot hold is for the sweep.
    fn leave_to_sweep(&self, due: &Due) {
        let slot = self.slots.get().and_then(|slots| slots.get(due.db * self.slots_per_database + due.slot));
        if let Some(slot) = slot.and_then(Weak::upgrade) {
            slot.unqueued.note(due.at);
        }
    }
}

/// No key of the slot that is not in the queue expires before this (unix ms); 0 = nothing is known.
#[derive(Default)]
pub(super) struct Unqueued(AtomicU64);

impl Unqueued {
    fn note(&self, at: u64) {
        self.0.fetch_min(at, Relaxed);
    }

    /// Nothing is known any more: the slot is to be swept.
    pub fn forget(&self) {
        self.0.store(0, Relaxed);
    }

    fn is_before(&self, now: u64) -> bool {
        self.0.load(Relaxed) < now
    }

    /// A sweep begins: what it meets is noted anew.
    fn begin(&self) {
        self.0.store(u64::MAX, Relaxed);
    }
}

impl Keyspace {
    /// Deletes those of these keys that have expired, and the expired fields of those that are hashes. The observer is told. Must not be
    /// called with keys locked. Those that a script which does not end holds are left to the sweep. Returns how many keys have expired.
    pub fn expire(&self, keys: &[(usize, Bytes)]) -> Result<usize, Error> {
        let mut tx = self.transaction();
        let mut gone = Vec::new();
        for (db, key) in keys {
            let mut locked = tx.lock(std::iter::once((*db, &**key)), true);
            if locked == Locked::CommitFirst {
                self.commit_expired(&mut tx, &mut gone)?;
                // With nothing pending it waits for the key instead.
                locked = tx.lock(std::iter::once((*db, &**key)), true);
            }
            if locked != Locked::Yes {
                self.slot(*db, key).unqueued.forget();
                continue;
            }
            if let Some(expired) = self.expire_locked(&mut tx, *db, key)? {
                gone.push((*db, key, expired));
            }
        }
        let keys = gone.iter().filter(|(.., expired)| *expired == Expired::Key).count();
        self.commit_expired(&mut tx, &mut gone)?;
        Ok(keys)
    }

    fn expire_locked(&self, tx: &mut Transaction<'_>, db: usize, key: &Bytes) -> Result<Option<Expired>, Error> {
        let now = self.now();
        let Some(entry) = tx.reader(db, key).get(key)? else { return Ok(None) };
        if !entry.is_live(now) {
            tx.del(db, key, now)?;
            return Ok(Some(Expired::Key));
        }
        let handle = (entry.kind == Kind::Hash).then(|| Handle::of(key, &entry)).flatten();
        let Some(handle) = handle.filter(|hash| hash::soonest_expiry(hash).is_some_and(|at| at < now)) else {
            return Ok(None);
        };
        let fields = hash::expired_fields(&mut tx.reader(db, key), &handle, now, MAX_FIELDS)?;
        if fields.is_empty() {
            return Ok(None);
        }
        let count = fields.len() as u64;
        tx.apply(db, Effect::Hash(key.clone(), hash::Change::Del(fields)), now)?;
        let gone = tx.reader(db, key).get(key)?.is_none();
        Ok(Some(Expired::Fields(count, gone)))
    }

    fn commit_expired(&self, tx: &mut Transaction<'_>, gone: &mut Vec<(usize, &Bytes, Expired)>) -> Result<(), Error> {
        let gone = std::mem::take(gone);
        tx.commit()?;
        if gone.is_empty() {
            return Ok(());
        }
        if let Some(observer) = self.env.observer.get() {
            gone.into_iter().for_each(|(db, key, expired)| observer.expired(db, key, expired));
        }
        self.env.settled();
        Ok(())
    }
}

/// Looks for what has expired until `stopped`.
pub(super) fn run(keyspace: &Keyspace, stopped: &Receiver<()>) {
    let mut sweeper = Sweeper { slots: keyspace.all_slots().cloned().collect(), at: 0, after: None };
    let mut sleep = MAX_SLEEP;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(sleep) {
        sleep = MAX_SLEEP;
        let Some(observer) = keyspace.env.observer.get() else { continue };
        if !keyspace.locks.is_overtime() {
            observer.unhindered();
        }
        if !observer.expires() {
            continue;
        }
        let began = Instant::now();
        let deleted = expire_due(keyspace) + sweeper.sweep(keyspace);
        if deleted > 0 {
            observer.expire_cycle(began.elapsed());
        }
        if let Some(soonest) = keyspace.env.expiry.soonest() {
            // The key lives through the ms of its expiry.
            let left = (soonest + 1).saturating_sub(keyspace.now());
            sleep = MAX_SLEEP.min(Duration::from_millis(left.max(1)));
        }
    }
}

fn expire_due(keyspace: &Keyspace) -> usize {
    let mut deleted = 0;
    loop {
        let due = keyspace.env.expiry.take_due(keyspace.now(), BATCH);
        if due.is_empty() {
            return deleted;
        }
        let shown = |due: &Due| keyspace.env.databases.shown(due.db);
        let owned = |due: &Due| keyspace.env.observer.get().is_some_and(|observer| observer.owns(shown(due)));
        let (own, others): (Vec<Due>, Vec<Due>) = due.into_iter().partition(owned);
        // The log of these is another node's to write. When this one comes to write it, sweeps find them.
        others.iter().for_each(|due| keyspace.env.leave_to_sweep(due));
        let keys: Vec<_> = own.iter().map(|due| (shown(due), due.key.clone())).collect();
        match keyspace.expire(&keys) {
            Ok(expired) => {
                deleted += expired;
                // A SWAPDB meanwhile has sent us to another database.
                let moved = own.iter().zip(&keys).filter(|(due, (db, _))| shown(due) != *db);
                moved.for_each(|(due, _)| keyspace.env.leave_to_sweep(due));
            }
            Err(e) => {
                tracing::debug!("expired keys could not be deleted: {e}");
                own.iter().for_each(|due| keyspace.env.leave_to_sweep(due));
                return deleted;
            }
        }
    }
}

/// Goes through the slots that hold expired keys which the queue does not.
struct Sweeper {
    slots: Vec<Arc<Slot>>,
    /// Index of the slot that is swept, or is looked at next.
    at: usize,
    /// The key after which the sweep of it goes on; `None` = none is under way.
    after: Option<Bytes>,
}

impl Sweeper {
    fn sweep(&mut self, keyspace: &Keyspace) -> usize {
        let began = Instant::now();
        let mut deleted = 0;
        // Every slot is looked at once at most.
        for _ in 0..self.slots.len() {
            let Some(slot) = self.slots.get(self.at).cloned() else { return deleted };
            let due = self.after.is_some() || slot.unqueued.is_before(keyspace.now());
            let ours = keyspace.env.observer.get().is_some_and(|observer| observer.owns(slot.shown_db()));
            if due && ours && slot.fault().is_none() {
                if self.after.is_none() {
                    slot.unqueued.begin();
                }
                match self.sweep_slot(keyspace, &slot, began) {
                    Ok((keys, whole)) => {
                        deleted += keys;
                        if !whole {
                            return deleted;
                        }
                    }
                    Err(e) => {
                        tracing::debug!(slot = %slot, "expired keys could not be looked for: {e}");
                        slot.unqueued.forget();
                    }
                }
            } else if self.after.is_some() {
                slot.unqueued.forget();
            }
            self.after = None;
            self.at = (self.at + 1) % self.slots.len();
        }
        deleted
    }

    /// Returns the number of deleted keys, and whether the slot's end was reached in the time that a sweep may take.
    fn sweep_slot(&mut self, keyspace: &Keyspace, slot: &Slot, began: Instant) -> Result<(usize, bool), Error> {
        let mut deleted = 0;
        loop {
            let now = keyspace.now();
            let (mut seen, mut last, mut expired) = (0, None, Vec::new());
            let Some(store) = slot.readable()? else { return Ok((deleted, true)) };
            store.engine.scan(self.after.as_deref(), &mut |key, entry| {
                let key = Bytes::copy_from_slice(key);
                match expiry_of(&key, &entry) {
                    Some(at) if at < now => expired.push((slot.shown_db(), key.clone())),
                    Some(_) => keyspace.env.expiry.note(slot, &key, &entry),
                    None => {}
                }
                last = Some(key);
                seen += 1;
                Ok(seen < SWEEP_STEP && expired.len() < BATCH)
            })?;
            drop(store);
            deleted += keyspace.expire(&expired)?;
            if expired.iter().any(|(db, _)| *db != slot.shown_db()) {
                // A SWAPDB meanwhile has sent us to another database.
                slot.unqueued.forget();
            }
            let Some(last) = last.filter(|_| seen == SWEEP_STEP || expired.len() == BATCH) else {
                return Ok((deleted, true));
            };
            self.after = Some(last);
            if began.elapsed() >= SWEEP_TIME {
                return Ok((deleted, false));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_gives_what_is_due_in_order() {
        let queue = ExpiryQueue::default();
        let due = |at, key: &'static [u8]| Due { at, db: 0, slot: 0, key: Bytes::from_static(key) };
        [due(30, b"c"), due(10, b"a"), due(20, b"b"), due(10, b"a")]
            .into_iter()
            .for_each(|due| drop(queue.insert(due)));
        assert_eq!(queue.soonest(), Some(10));
        // A key lives through the ms of its expiry.
        assert!(queue.take_due(10, 9).is_empty());
        assert_eq!(queue.take_due(21, 9), [due(10, b"a"), due(20, b"b")]);
        assert_eq!(queue.take_due(u64::MAX, 1), [due(30, b"c")]);
        assert_eq!(queue.soonest(), None);
    }

    #[test]
    fn the_queue_keeps_to_its_bytes_and_drops_what_expires_last() {
        const KEYS: usize = 10;
        let queue = ExpiryQueue { queued: Mutex::default(), limit: KEYS * (QUEUED_OVERHEAD + 3) };
        let due = |at: usize, key: Bytes| Due { at: at as u64, db: 0, slot: 0, key };
        let short = |at: usize| due(at, Bytes::from(format!("{at:03}")));
        assert!((0..KEYS).all(|at| queue.insert(short(at)).is_empty()));
        assert!(queue.insert(short(0)).is_empty(), "it is there");
        assert_eq!(queue.usage(), queue.limit);
        assert_eq!(queue.insert(short(500)), [short(500)]);
        // One that is as long as several others.
        let long = due(1, Bytes::from(vec![b'x'; 2 * QUEUED_OVERHEAD + 9]));
        assert_eq!(queue.insert(long.clone()).len(), 3);
        assert_eq!(queue.take_due(u64::MAX, usize::MAX).len(), KEYS - 2);
        assert_eq!(queue.usage(), 0);
        // One that there is no room for at all.
        let huge = due(1, Bytes::from(vec![b'x'; queue.limit]));
        assert_eq!(queue.insert(huge.clone()), [huge]);
        assert_eq!(queue.usage(), 0);
    }

    #[test]
    fn a_bound_is_the_least_of_what_was_noted() {
        let unqueued = Unqueued::default();
        assert!(unqueued.is_before(1));
        unqueued.begin();
        assert!(!unqueued.is_before(u64::MAX));
        unqueued.note(7);
        unqueued.note(9);
        assert!(unqueued.is_before(8) && !unqueued.is_before(7));
        unqueued.forget();
        assert!(unqueued.is_before(1));
    }
}
