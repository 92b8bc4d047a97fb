//! How a slot's engine is made durable, and what happens when that cannot keep up with writing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::locks::while_waiting;
use super::{Error, Slot};
use crate::binlog::Position;
use crate::engine::{Applied, Engine};

/// A slot that has this many times as much unflushed log as it is flushed for waits before it takes more.
pub(super) const FAR_BEHIND: u64 = 4;
/// All slots together, as a multiple of `max-write-buffer-size`, likewise.
const ALL_FAR_BEHIND: u64 = 2;
/// How long a commit waits at most. It has locked its keys, and for one of them somebody may wait who has to be done before the flush.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What writers need to know of the thread that flushes.
pub struct Flusher {
    /// Bytes of unflushed log over all slots beyond which writers wait; `u64::MAX` while nobody flushes.
    limit: AtomicU64,
    lock: Mutex<()>,
    flushed: Condvar,
}

impl Default for Flusher {
    fn default() -> Self {
        Flusher { limit: AtomicU64::new(u64::MAX), lock: Mutex::default(), flushed: Condvar::new() }
    }
}

impl Flusher {
    /// Somebody flushes slots until all of them have at most `max` bytes of unflushed log.
    pub fn runs(&self, max: u64) {
        self.limit.store(max.saturating_mul(ALL_FAR_BEHIND).min(u64::MAX - 1), Ordering::Relaxed);
    }

    /// Nobody flushes any more.
    pub fn stops(&self) {
        self.limit.store(u64::MAX, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        drop(self.lock.lock());
        self.flushed.notify_all();
    }
}

/// Lets the flusher catch up with these slots, should it be far behind, so that what is not flushed stays within bounds. To be called without
/// a maintenance or commit lock, which a flush needs.
pub(super) fn wait_for_flusher<'s>(slots: impl Iterator<Item = &'s Slot>) {
    let mut until = None;
    for slot in slots.filter(|slot| slot.is_flusher_far_behind()) {
        let until = *until.get_or_insert_with(|| Instant::now() + LONGEST_WAIT);
        let flusher = &slot.env.flusher;
        slot.ask_for_flush();
        while_waiting(|| {
            let mut guard = flusher.lock.lock();
            while slot.is_flusher_far_behind() && !flusher.flushed.wait_until(&mut guard, until).timed_out() {}
        });
    }
}

impl Slot {
    /// Makes the engine durable up to where it is now, and so shortens recovery. First the logs of all slots: a part of a write
    /// over several slots must not be in an engine on disk while another part could still be lost with its log.
    pub(super) fn flush(&self) -> Result<(), Error> {
        let _maintenance = self.maintenance.lock();
        self.flush_in_maintenance()
    }

    pub(super) fn flush_in_maintenance(&self) -> Result<(), Error> {
        let result = self.try_to_flush();
        self.flush_failed.store(result.is_err(), Ordering::Relaxed);
        result
    }

    fn try_to_flush(&self) -> Result<(), Error> {
        let Some(store) = self.store.load_full() else { return Ok(()) };
        // Most of the work, while commits go on. Also for an engine that has stopped because the disk is full: when there is room RocksDB
        // flushes by itself what is in its memtables now, and nothing is added to that before.
        self.env.sync_logs();
        let begun = {
            // Nothing is committed to this slot now: what the engine's buffer holds is in logs that are synced next.
            let _commit = self.commit.lock();
            self.env.sync_logs();
            store.engine.begin_flush().map(|flush| (flush, self.unflushed()))
        };
        let (flush, bytes) = self.room_for(begun.map_err(Error::from), false)?;
        let position = flush.applied.position;
        self.room_for(store.engine.finish_flush(flush).map_err(Error::from), true)?;
        self.engine_flushed_to(position, bytes);
        Ok(())
    }

    /// Puts a copy of the engine as it is on disk, by hard links, into the new folder `dir`, and returns what it contains: all
    /// that was committed before the call. `None` for a slot that was never written. Whether it is whole only
    /// [`Slot::verify_checkpoint`] tells.
    pub fn checkpoint(&self, dir: &Path) -> Result<Option<Applied>, Error> {
        let _maintenance = self.maintenance.lock();
        let Some(store) = self.readable()? else { return Ok(None) };
        if let Some(damage) = self.damage() {
            return Err(Error::Unreadable { slot: self.to_string(), reason: damage.to_string() });
        }
        self.flush_in_maintenance()?;
        store.engine.checkpoint(dir)?;
        Ok(Some(Engine::applied_in(dir)?))
    }

    pub(super) fn add_unflushed(&self, bytes: u64) {
        let before = self.unflushed.fetch_add(bytes, Ordering::Relaxed);
        self.env.unflushed_total.fetch_add(bytes, Ordering::Relaxed);
        if before < self.env.flush_threshold && before + bytes >= self.env.flush_threshold {
            self.ask_for_flush();
        }
    }

    fn ask_for_flush(&self) {
        // If one is waiting already, the flusher has yet to look at all slots.
        let _ = self.env.flush_requests.try_send(());
    }

    /// The engine is durable up to `position`; `bytes` of log fewer are needed for that.
    pub(super) fn engine_flushed_to(&self, position: Position, bytes: u64) {
        self.unflushed.fetch_sub(bytes, Ordering::Relaxed);
        self.env.unflushed_total.fetch_sub(bytes, Ordering::Relaxed);
        self.flushed_filenum.store(position.filenum, Ordering::Release);
        self.env.flusher.tell();
    }

    fn is_flusher_far_behind(&self) -> bool {
        let limit = self.env.flusher.limit.load(Ordering::Relaxed);
        let much = self.unflushed() > self.env.flush_threshold.saturating_mul(FAR_BEHIND)
            || self.env.unflushed_total.load(Ordering::Relaxed) > limit;
        // Where a flush fails it does not help to wait for one.
        much && limit != u64::MAX && !self.flush_failed.load(Ordering::Relaxed) && self.no_space().is_none()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::testing::open;
    use super::super::{Keyspace, Locked};
    use super::*;

    fn set(keyspace: &Keyspace, key: &'static [u8]) {
        let mut tx = keyspace.transaction();
        assert_eq!(tx.lock([(0, key)].into_iter(), true), Locked::Yes);
        tx.set(0, &Bytes::from_static(key), Bytes::from_static(b"value"), None, 1).unwrap();
        tx.commit().unwrap();
    }

    #[test]
    fn a_commit_waits_for_the_flusher_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = open(dir.path());
        // Nobody flushes: there is nothing to wait for.
        set(&keyspace, b"a");
        let before = keyspace.unflushed();
        assert!(before > 0);
        // Nobody is allowed any unflushed byte, and nobody comes to flush.
        keyspace.env.flusher.runs(0);
        let began = Instant::now();
        set(&keyspace, b"b");
        assert!(began.elapsed() >= LONGEST_WAIT);
        assert!(keyspace.unflushed() > before);
        assert!(keyspace.flush_requests.try_recv().is_ok(), "it asks for a flush");
        // Somebody does.
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (0..20).for_each(|_| set(&keyspace, b"c"));
            });
            while !writer.is_finished() {
                keyspace.flush_all_engines().unwrap();
            }
        });
        // Where a flush has failed nobody waits for the next.
        keyspace.all_slots().for_each(|slot| slot.flush_failed.store(true, Ordering::Relaxed));
        assert!(keyspace.all_slots().all(|slot| !slot.is_flusher_far_behind()));
        keyspace.all_slots().for_each(|slot| slot.flush_failed.store(false, Ordering::Relaxed));
        set(&keyspace, b"d");
        assert!(keyspace.all_slots().any(|slot| slot.is_flusher_far_behind()));
        keyspace.env.flusher.stops();
        assert!(keyspace.all_slots().all(|slot| !slot.is_flusher_far_behind()));
    }
}
