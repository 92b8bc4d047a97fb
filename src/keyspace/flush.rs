//! How a slot's engine is made durable, when, and what happens when that cannot keep up with writing.
//!
//! What is not flushed is bounded over all slots, by `max-write-buffer-size`. Half of that is for whoever writes most: where few slots are written, each
//! may gather up to three times `write-buffer-size`, and of a key that is written again and again fewer values get as far as a file. When there is too
//! much, the slot goes first in which most bytes have waited longest ([`weight`]): one that was written once and is left alone is flushed
//! once, and not a busy one again and again in its stead.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::locks::while_waiting;
use super::slot::SlotEnv;
use super::{Error, Keyspace, Slot};
use crate::binlog::Position;
use crate::engine::{Applied, Engine};

/// A slot that has this many times `write-buffer-size` of unflushed log waits before it takes more, unless that is within its share.
pub(super) const FAR_BEHIND: u64 = 4;
/// All slots together, as a multiple of `max-write-buffer-size`, likewise.
const ALL_FAR_BEHIND: u64 = 2;
/// A slot may have more than `write-buffer-size` while all together have no more than `max-write-buffer-size` divided by this,
const BUSY_SHARE: u64 = 2;
/// and no more than this many times `write-buffer-size`.
const BUSY_BUFFERS: u64 = 3;
/// How long a commit waits at most. It has locked its keys, and for one of them somebody may wait who has to be done before the flush.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What writers need to know of the thread that flushes.
pub struct Flusher {
    /// Bytes of unflushed log over all slots beyond which some are flushed; `u64::MAX` while nobody flushes.
    max: AtomicU64,
    /// Bytes of unflushed log of slots that cannot be flushed, as of the flusher's last look: others must not suffer for them.
    stuck: AtomicU64,
    lock: Mutex<()>,
    flushed: Condvar,
}

impl Default for Flusher {
    fn default() -> Self {
        Flusher {
            max: AtomicU64::new(u64::MAX),
            stuck: AtomicU64::new(0),
            lock: Mutex::default(),
            flushed: Condvar::new(),
        }
    }
}

impl Flusher {
    /// Somebody flushes slots until all of them have at most `max` bytes of unflushed log.
    pub fn runs(&self, max: u64) {
        self.max.store(max.min(u64::MAX - 1), Ordering::Relaxed);
    }

    /// Nobody flushes any more.
    pub fn stops(&self) {
        self.max.store(u64::MAX, Ordering::Relaxed);
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
        if before == 0 {
            self.unflushed_since.store(self.env.uptime_ms(), Ordering::Relaxed);
        }
        self.env.unflushed_total.fetch_add(bytes, Ordering::Relaxed);
        // One that cannot be flushed is tried again by the clock.
        if self.env.is_too_much(before + bytes) && !self.is_stuck() {
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
        // What is left came while this was flushed.
        self.unflushed_since.store(self.env.uptime_ms(), Ordering::Relaxed);
        self.env.unflushed_total.fetch_sub(bytes, Ordering::Relaxed);
        self.flushed_filenum.store(position.filenum, Ordering::Release);
        self.env.flusher.tell();
    }

    fn is_flusher_far_behind(&self) -> bool {
        let max = self.env.flusher.max.load(Ordering::Relaxed);
        let far = self.env.flush_threshold.saturating_mul(FAR_BEHIND).max(self.env.busy_share() * ALL_FAR_BEHIND);
        let much = self.unflushed() > far || self.env.unflushed_and_not_stuck() > max.saturating_mul(ALL_FAR_BEHIND);
        // Where a flush fails it does not help to wait for one.
        much && max != u64::MAX && !self.is_stuck()
    }

    /// Whether the last flush failed, or the last write found no room.
    fn is_stuck(&self) -> bool {
        self.flush_failed.load(Ordering::Relaxed) || self.no_space().is_some()
    }

    /// How much is gained by flushing the slot: [`weight`].
    fn flush_weight(&self) -> u128 {
        let since = self.unflushed_since.load(Ordering::Relaxed);
        weight(self.unflushed(), self.env.uptime_ms().saturating_sub(since))
    }
}

/// What speaks for a flush of so many bytes, of which the first came so many milliseconds ago: memory and log that are let go of, and that no more
/// writes are to be expected which would take the place of what is there.
fn weight(bytes: u64, ms: u64) -> u128 {
    u128::from(bytes) * u128::from(ms + 1)
}

impl SlotEnv {
    /// Bytes of unflushed log over all slots but those that cannot be flushed.
    fn unflushed_and_not_stuck(&self) -> u64 {
        let stuck = self.flusher.stuck.load(Ordering::Relaxed);
        self.unflushed_total.load(Ordering::Relaxed).saturating_sub(stuck)
    }

    /// Bytes of unflushed log over all slots up to which one of them may have more than it is flushed for.
    fn busy_share(&self) -> u64 {
        let max = self.flusher.max.load(Ordering::Relaxed);
        (max / BUSY_SHARE).min(self.flush_threshold.saturating_mul(BUSY_BUFFERS))
    }

    /// Whether a slot has to be flushed, when one of them has `slot` bytes of unflushed log.
    fn is_too_much(&self, slot: u64) -> bool {
        let max = self.flusher.max.load(Ordering::Relaxed);
        let total = self.unflushed_and_not_stuck();
        total > max || slot >= self.flush_threshold && total > self.busy_share()
    }
}

impl Keyspace {
    /// Flushes slots until what they have is not too much, but for those where that failed before ([`Keyspace::flush_what_is_stuck`]). Calls
    /// `report` with each outcome. False if there is more to be done now.
    pub(super) fn flush_what_is_due(&self, report: &mut dyn FnMut(&Slot, Result<(), Error>)) -> bool {
        self.note_stuck();
        let sound: Vec<_> = self.unflushed_slots().filter(|slot| !slot.is_stuck()).collect();
        let most = || sound.iter().filter(|slot| !slot.is_stuck()).map(|slot| slot.unflushed()).max();
        let is_too_much = || self.env.is_too_much(most().unwrap_or_default());
        let mut by_weight: Vec<_> = sound.iter().map(|slot| (slot.flush_weight(), slot)).collect();
        by_weight.sort_unstable_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let mut failed = false;
        for (_, slot) in by_weight {
            if !is_too_much() {
                break;
            }
            let result = self.flush_slot(slot);
            failed |= result.is_err();
            report(slot, result);
        }
        failed || !is_too_much()
    }

    /// Tries again to flush slots where it failed, or to which the disk had no room to log: perhaps it has now, and nobody writes to such a slot
    /// who would find out.
    pub(super) fn flush_what_is_stuck(&self, report: &mut dyn FnMut(&Slot, Result<(), Error>)) {
        for slot in self.unflushed_slots().filter(|slot| slot.is_stuck()) {
            report(slot, self.flush_slot(slot));
        }
        // What was flushed must not be taken from what the others have.
        self.note_stuck();
    }

    fn note_stuck(&self) {
        let stuck = self.unflushed_slots().filter(|slot| slot.is_stuck()).map(|slot| slot.unflushed()).sum();
        self.env.flusher.stuck.store(stuck, Ordering::Relaxed);
    }

    fn unflushed_slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.all_slots().filter(|slot| slot.unflushed() > 0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Locked;
    use super::super::testing::open;
    use super::*;

    fn set(keyspace: &Keyspace, key: &'static [u8]) {
        let mut tx = keyspace.transaction();
        assert_eq!(tx.lock([(0, key)].into_iter(), true), Locked::Yes);
        tx.set(0, &Bytes::from_static(key), Bytes::from_static(b"value"), None, 1).unwrap();
        tx.commit().unwrap();
    }

    /// The slots that are flushed when all may have `max` bytes, and whether it succeeded.
    fn flush(keyspace: &Keyspace, max: u64) -> Vec<(String, bool)> {
        keyspace.env.flusher.runs(max);
        let mut flushed = Vec::new();
        assert!(keyspace.flush_what_is_due(&mut |slot, result| flushed.push((slot.to_string(), result.is_ok()))));
        flushed
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

    #[test]
    fn a_slot_that_is_left_alone_is_flushed_before_a_busy_one() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = open(dir.path());
        set(&keyspace, b"a");
        set(&keyspace, b"b");
        let [left, busy] = [b"a", b"b"].map(|key| keyspace.slot(0, key));
        assert!(!std::ptr::eq(left, busy), "keys of two slots");
        while keyspace.env.uptime_ms() < 10 {
            std::thread::yield_now();
        }
        left.unflushed_since.store(0, Ordering::Relaxed);
        busy.unflushed_since.store(keyspace.env.uptime_ms(), Ordering::Relaxed);
        assert_eq!(flush(&keyspace, keyspace.unflushed()), [], "nothing is due");
        assert_eq!(flush(&keyspace, keyspace.unflushed() - 1), [(left.to_string(), true)]);
        assert_eq!((left.unflushed(), busy.unflushed()), (0, keyspace.unflushed()));
    }

    #[test]
    fn a_slot_that_cannot_be_flushed_keeps_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = open(dir.path());
        set(&keyspace, b"a");
        set(&keyspace, b"b");
        let [stuck, sound] = [b"a", b"b"].map(|key| keyspace.slot(0, key));
        stuck.unflushed_since.store(0, Ordering::Relaxed);
        stuck.flush_failed.store(true, Ordering::Relaxed);
        assert_eq!(flush(&keyspace, sound.unflushed()), [], "what is stuck does not count");
        assert_eq!(flush(&keyspace, 0), [(sound.to_string(), true)]);
        assert!(!sound.is_flusher_far_behind() && stuck.unflushed() > 0);
        let mut tried = Vec::new();
        keyspace.flush_what_is_stuck(&mut |slot, result| tried.push((slot.to_string(), result.is_ok())));
        assert_eq!((tried, keyspace.unflushed()), (vec![(stuck.to_string(), true)], 0));
        assert!(!stuck.is_stuck());
        assert_eq!(keyspace.env.flusher.stuck.load(Ordering::Relaxed), 0, "it counts again at once");
    }

    #[test]
    fn one_busy_slot_may_have_what_others_leave() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = open(dir.path());
        let threshold = keyspace.env.flush_threshold;
        let max = threshold * 6;
        let is_too_much = |total: u64, slot: u64| {
            keyspace.env.unflushed_total.store(total, Ordering::Relaxed);
            keyspace.env.is_too_much(slot)
        };
        assert!(!is_too_much(1 << 50, threshold - 1), "while nobody flushes");
        keyspace.env.flusher.runs(max);
        for (total, slot, too_much) in [
            (max, threshold - 1, false),
            (max + 1, 1, true),
            (threshold * 3, threshold * 3, false),
            (threshold * 3 + 1, threshold * 3 + 1, true),
            (threshold * 3 + 1, threshold, true),
        ] {
            assert_eq!(is_too_much(total, slot), too_much, "{slot} of {total}");
        }
    }
}
