//! Opening slots after a stop of any kind.
//!
//! Each slot's engine says which record it contains up to; the log is replayed from there. A write that spans slots
//! has a record in each of them that names the others: where a crash left it in some logs only, it is taken back
//! from those (it was acknowledged to nobody, and shown to no replica). This concerns only
//! records that this node wrote as a master: a replica receives the parts of such a write one by one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use super::effect::Effect;
use super::flush::FAR_BEHIND;
use super::overlay::Overlay;
use super::replay::effects_of;
use super::slot::Store;
use super::store::Current;
use super::{Error, Slot};
use crate::binlog::{self, Participant, Position, Record, Recovered, Writer, decode_body};
use crate::disk::{self, Point};
use crate::engine::{Applied, Batch, Engine};

/// Changed keys and bytes that are written to the engine at once.
const BATCH_KEYS: usize = 50_000;
const BATCH_BYTES: u64 = 16 << 20;

/// A slot by database and number.
pub type SlotKey = (u16, u16);

/// A write over several slots, as one of them has it in its log.
#[derive(Clone, Debug)]
pub struct Multi {
    /// The end of the record before.
    pub before: Position,
    pub index: u64,
    pub participants: Vec<Participant>,
}

/// A slot whose log has been read.
struct Opening {
    slot: Arc<Slot>,
    applied: Applied,
    /// Replayed up to here; later records wait for the decision on the first of `multis`.
    replayed: Applied,
    multis: Vec<Multi>,
    found: Recovered,
}

impl Opening {
    fn sync_log(&self) -> Result<(), Error> {
        let Some(store) = self.slot.store().clone() else { return Ok(()) };
        Ok(binlog::make_durable(store.log_dir(), &self.found.tail)?)
    }
}

/// Opens all slots that exist. `leading_from`: records of this term and later were written by this node as a master.
pub(super) fn open_slots(slots: &[Arc<Slot>], leading_from: Option<u32>) -> Result<(), Error> {
    let next = Mutex::new(slots.iter());
    let opened = Mutex::new(Vec::new());
    // How far each slot's log goes, also of those that are finished or closed already.
    let ends = Mutex::new(HashMap::new());
    let work = || -> Result<(), Error> {
        loop {
            let Some(slot) = next.lock().next() else { return Ok(()) };
            let (end, opening) = read_slot(slot, leading_from)?;
            ends.lock().insert(key_of(slot), end);
            opened.lock().extend(opening);
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|w| match w.join() {
            Ok(result) => result,
            Err(_) => Err(Error::BadEffect("a recovery thread panicked".into())),
        })
    })?;
    let opened = opened.into_inner();
    let multis: Vec<_> = opened.iter().map(|o| (key_of(&o.slot), o.multis.as_slice())).collect();
    let limits = torn_writes(&multis, ends.into_inner());
    if opened.iter().any(|opening| !opening.multis.is_empty()) {
        // A FLUSHDB that is replayed makes its engine durable at once: what the logs hold of it must be before. They may have it from a
        // killed process's page cache only.
        opened.iter().try_for_each(Opening::sync_log)?;
    }
    opened.into_iter().try_for_each(|opening| {
        let limit = limits.get(&key_of(&opening.slot)).copied();
        finish(opening, limit)
    })
}

fn key_of(slot: &Slot) -> SlotKey {
    (slot.db() as u16, slot.number() as u16)
}

/// The last index of a log that cannot tell: no write over several slots may be taken back because of it.
pub const UNKNOWN_END: u64 = u64::MAX;

/// Opens a slot's engine and replays its log as far as no write over several slots is in doubt. Returns the last index of its log,
/// and what is left to be done, if anything.
fn read_slot(slot: &Arc<Slot>, leading_from: Option<u32>) -> Result<(u64, Option<Opening>), Error> {
    let Some(current) = slot.layout().load_current()? else { return Ok((0, None)) };
    let (engine, applied) = match Engine::open(&slot.layout().engine_dir(current.engine), &slot.env().engine) {
        Ok(opened) => opened,
        Err(e) if e.is_damage() => {
            tracing::error!(slot = %slot, "the slot can neither be read nor written: {e}");
            slot.lose(e, Some(current));
            return Ok((UNKNOWN_END, None));
        }
        Err(e) => return Err(e.into()),
    };
    let store = slot.set_store(engine, current);
    let mut replay = Replay::new(slot, store.clone(), applied);
    let mut multis = Vec::new();
    let mut before = applied.position;
    let result = binlog::recover(store.log_dir(), applied.position, |record| {
        let own = leading_from.is_some_and(|from| record.end.term >= from);
        let (participants, _) = decode_body(record.body).ok_or_else(|| malformed(&record))?;
        if own && !participants.is_empty() {
            multis.push(Multi { before, index: record.end.index, participants });
        }
        before = record.end;
        if multis.is_empty() { replay.record(record) } else { Ok(()) }
    });
    if let Err(Error::BadEffect(why)) = &result {
        return stop_before_bad(slot, &mut replay, why).map(|()| (UNKNOWN_END, None));
    }
    let broken = matches!(&result, Err(Error::Engine(_)));
    let written = if broken { Ok(()) } else { replay.write() };
    if replay.store.engine.damage().is_some() {
        // The engine says so; what the log says cannot be built on it.
        give_up(slot, &replay);
        return Ok((UNKNOWN_END, None));
    }
    written?;
    let replayed = replay.applied;
    match result {
        Ok(found) => Ok((found.tail.index, Some(Opening { slot: slot.clone(), applied, replayed, multis, found }))),
        Err(Error::Binlog(e)) => match &*e {
            binlog::Error::NotInLog { .. } => {
                begin_new_log(slot, &store, current, replayed)?;
                Ok((replayed.position.index, None))
            }
            _ => {
                // What is before the damage is there to be read; nothing may be built on it.
                slot.close_for_writes(format!("the binlog cannot be replayed: {e}"));
                slot.publish(replayed.position);
                Ok((UNKNOWN_END, None))
            }
        },
        Err(e) => Err(e),
    }
}

/// Leaves a slot at what its engine contains. Part of a record may be in the overlay, which is dropped.
fn give_up(slot: &Slot, replay: &Replay<'_>) {
    // Unknown if that is what cannot be read.
    let contained = replay.store.engine.applied().map_or(Position::START, |applied| applied.position);
    slot.publish(contained);
}

/// Leaves a slot at the last record that was applied before one that cannot be. Nothing may be built on it.
fn stop_before_bad(slot: &Slot, replay: &mut Replay<'_>, why: &str) -> Result<(), Error> {
    slot.close_for_writes(format!("the binlog holds a record that cannot be replayed: {why}"));
    let last_good = replay.applied.position.index;
    let again = replay.rewind().and_then(|()| {
        let dir = replay.store.log_dir().to_path_buf();
        binlog::recover(&dir, replay.applied.position, |record| match record.end.index <= last_good {
            true => replay.record(record),
            false => Ok(()),
        })?;
        replay.write()
    });
    give_up(slot, replay);
    if replay.store.engine.damage().is_some() { Ok(()) } else { again }
}

fn malformed(record: &Record<'_>) -> Error {
    Error::BadEffect(format!("malformed body of the record that ends at {}", record.end))
}

/// The engine holds records that the log lost to a power cut: the engine is the truth, and the log goes on after it.
fn begin_new_log(slot: &Slot, store: &Store, current: Current, applied: Applied) -> Result<(), Error> {
    tracing::warn!(slot = %slot, position = %applied.position,
        "the binlog ends before the engine's position: beginning a new one there");
    let current = Current { log: current.log + 1, ..current };
    let dir = slot.layout().log_dir(current.log);
    disk::remove_dir(Point::RecoverNewLogClear, &dir).map_err(Error::io(&dir))?;
    let writer = Writer::create(&dir, applied.position, (slot.env().binlog_file_size)())?;
    slot.layout().set_current(current)?;
    let old = store.log_dir().to_path_buf();
    slot.replace_log(current, dir);
    disk::remove_dir(Point::RecoverOldLogRemove, &old).map_err(Error::io(&old))?;
    slot.opened(writer, applied.time, 0, applied.position.filenum);
    Ok(())
}

/// Finds the writes over several slots that not all of their slots have, by the last index of each slot's log, and where to cut
/// the logs before them. Cutting one log may tear another write, hence the repetition.
pub fn torn_writes(opened: &[(SlotKey, &[Multi])], mut ends: HashMap<SlotKey, u64>) -> HashMap<SlotKey, Position> {
    let mut cuts = HashMap::new();
    loop {
        let mut changed = false;
        for &(key, multis) in opened {
            let end = ends.get(&key).copied().unwrap_or(0);
            let lacks = |p: &Participant| ends.get(&(p.db, p.slot)).copied().unwrap_or(0) < p.index;
            let torn = multis.iter().find(|m| m.index <= end && m.participants.iter().any(lacks));
            if let Some(multi) = torn {
                cuts.insert(key, multi.before);
                ends.insert(key, multi.before.index);
                changed = true;
            }
        }
        if !changed {
            return cuts;
        }
    }
}

/// Replays what was in doubt, cuts the log, and opens the slot for writing.
fn finish(opening: Opening, cut: Option<Position>) -> Result<(), Error> {
    let Opening { slot, applied, replayed, multis, mut found } = opening;
    let Some(store) = slot.store().clone() else { return Ok(()) };
    let mut replay = Replay::new(&slot, store, replayed);
    if !multis.is_empty() {
        let last = cut.map_or(found.tail.index, |c| c.index);
        let dir = replay.store.log_dir().to_path_buf();
        let replayed = binlog::recover(&dir, replayed.position, |record| {
            if record.end.index <= last { replay.record(record) } else { Ok(()) }
        });
        if let Err(Error::BadEffect(why)) = &replayed {
            return stop_before_bad(&slot, &mut replay, why);
        }
        let replayed = replayed.and_then(|_| replay.write());
        if replay.store.engine.damage().is_some() {
            give_up(&slot, &replay);
            return Ok(());
        }
        replayed?;
    }
    let log_dir = replay.store.log_dir().to_path_buf();
    if let Some(cut) = cut {
        tracing::warn!(slot = %slot, from = %cut, to = %found.tail,
            "taking back a write over several slots that a crash interrupted");
        binlog::lower_mark(&log_dir, &cut)?;
        // From the last on: a crash in between leaves no gap.
        for filenum in (cut.filenum + 1..=found.tail.filenum).rev() {
            let path = binlog::file_path(&log_dir, filenum);
            disk::remove_file(Point::RecoverCutRemove, &path).map_err(Error::io(&path))?;
        }
        disk::sync_dir(Point::RecoverCutSyncDir, &log_dir).map_err(Error::io(&log_dir))?;
        found.tail = cut;
    } else if let Some(torn) = &found.torn {
        tracing::warn!(slot = %slot, file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes,
            records = torn.dropped, "cutting a torn tail off the binlog ({}); `records` are whole ones behind a hole that a power \
            cut has left", torn.why);
    }
    slot.env().replayed.fetch_add(found.records, Ordering::Relaxed);
    if found.records > 0 {
        tracing::info!(slot = %slot, from = %applied.position, to = %found.tail, records = found.records,
            bytes = found.bytes, "replayed the binlog");
    }
    let writer = Writer::resume(&log_dir, found.tail, (slot.env().binlog_file_size)())?;
    slot.opened(writer, replay.applied.time, found.bytes, applied.position.filenum);
    Ok(())
}

impl Slot {
    /// Gives the engine the records that it lacks because the disk was full when they had been logged, if that is why the slot
    /// takes no writes, and lets it take writes again. An error if there is still no room. `lock_all` takes the key locks.
    pub(super) fn catch_up<G>(&self, lock_all: impl FnOnce() -> G) -> Result<bool, Error> {
        if self.behind.load().is_none() {
            return Ok(false);
        }
        let _maintenance = self.maintenance.lock();
        let _all = lock_all();
        let mut c = self.commit.lock();
        let (Some(store), Some(tail)) = (self.store().clone(), c.writer.as_ref().map(Writer::tail)) else {
            return Ok(false);
        };
        store.engine.check()?;
        // Nobody can add to it until the locks are let go of.
        self.env().cache.renew(&self.cache_id);
        // Not while all keys are locked.
        let mut replay = Replay { flush_at: u64::MAX, ..Replay::new(self, store.clone(), store.engine.applied()?) };
        let from = replay.applied.position;
        binlog::recover(store.log_dir(), from, |record| replay.record(record))?;
        replay.write()?;
        let applied = replay.applied;
        if applied.position != tail {
            return Err(self.close_for_writes(format!("the engine is at {}, its log at {tail}", applied.position)));
        }
        self.replaced();
        if self.is_first() {
            self.load_databases()?;
            self.libraries_changed(&replay.store.engine.libraries()?);
        }
        c.time = c.time.max(applied.time);
        let behind = self.behind.swap(None);
        // Another fault that came meanwhile stays.
        let fault = self.fault.load_full();
        if fault.zip(behind).is_some_and(|(fault, behind)| Arc::ptr_eq(&fault, &behind)) {
            self.fault.store(None);
        }
        self.publish(tail);
        tracing::info!(slot = %self, %from, to = %tail, "the engine has caught up with the log: the slot takes writes again");
        Ok(true)
    }
}

/// Applies records to an engine that has no other user yet.
struct Replay<'s> {
    overlay: Overlay<'s>,
    store: Arc<Store>,
    /// Up to here the records are in the engine or the overlay.
    applied: Applied,
    bytes: u64,
    /// The engine is flushed when it holds so many bytes in memory.
    flush_at: u64,
}

impl<'s> Replay<'s> {
    fn new(slot: &'s Slot, store: Arc<Store>, applied: Applied) -> Replay<'s> {
        // As shipped, more than it can have gathered before: then one flush is due at the end, not several on the way.
        let flush_at = slot.env().flush_threshold.saturating_mul(2 * FAR_BEHIND);
        Replay { overlay: Overlay::alone(slot), store, applied, bytes: 0, flush_at }
    }

    fn record(&mut self, record: Record<'_>) -> Result<(), Error> {
        let effects = effects_of(&Bytes::copy_from_slice(record.body))?;
        let applied = Applied { position: record.end, time: self.applied.time.max(record.time) };
        match effects.as_slice() {
            [Effect::Flush] => {
                let libraries = self.overlay.libraries().cloned();
                self.overlay.clear();
                self.store = self.overlay.slot().recover_flush(applied, libraries)?;
            }
            [Effect::SwapDb { a, b }] => {
                self.write()?;
                let map = self.overlay.slot().recover_swap(&self.store.engine, *a, *b)?;
                let mut batch = Batch::default();
                batch.databases(&map);
                self.store.engine.write(batch, applied)?;
            }
            effects => effects.iter().try_for_each(|e| e.apply(&mut self.overlay, record.time).map(drop))?,
        }
        self.applied = applied;
        self.bytes += record.body.len() as u64;
        if self.overlay.len() >= BATCH_KEYS || self.bytes >= BATCH_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Forgets what is in the overlay.
    fn rewind(&mut self) -> Result<(), Error> {
        self.overlay.clear();
        self.bytes = 0;
        self.applied = self.store.engine.applied()?;
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        if self.overlay.len() > 0 {
            self.store.engine.write(self.overlay.batch(), self.applied)?;
        }
        // What a slot usually has not flushed needs no room on the disk to be replayed.
        if self.store.engine.buffered() as u64 >= self.flush_at {
            self.store.engine.flush()?;
        }
        self.overlay.clear();
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{copy, open};
    use super::super::{Keyspace, Locked};
    use super::*;

    const KEYS: u32 = 16;

    fn key(n: u32) -> Bytes {
        Bytes::from(format!("key{n}"))
    }

    /// Sets keys in one command, as MSET does.
    fn set(keyspace: &Keyspace, keys: impl Iterator<Item = u32>, value: &'static str) {
        let keys: Vec<Bytes> = keys.map(key).collect();
        let mut tx = keyspace.transaction();
        assert_eq!(tx.lock(keys.iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
        keys.iter().for_each(|k| tx.set(0, k, Bytes::from_static(value.as_bytes()), None, 1).unwrap());
        tx.commit().unwrap();
    }

    fn values(keyspace: &Keyspace) -> Vec<Bytes> {
        let mut tx = keyspace.transaction();
        (0..KEYS).map(|n| tx.get(0, &key(n), 1).unwrap().unwrap().value).collect()
    }

    #[test]
    fn a_write_over_slots_is_there_whole_or_not_at_all() {
        let live = tempfile::tempdir().unwrap();
        let keyspace = open(live.path());
        (0..KEYS).for_each(|n| set(&keyspace, [n].into_iter(), "old"));
        let before: Vec<Position> = keyspace.all_slots().map(|s| s.position()).collect();
        set(&keyspace, 0..KEYS, "new");
        assert!(
            keyspace.all_slots().zip(&before).all(|(s, b)| s.position().index == b.index + 1),
            "all slots take part"
        );

        // What a killed process leaves: the files as they are, the memtables gone.
        let image = tempfile::tempdir().unwrap();
        copy(live.path(), image.path());
        assert_eq!(values(&open(image.path())), vec!["new"; KEYS as usize]);

        for lacking in 0..4 {
            for later in [false, true] {
                if later {
                    // What others wrote afterwards builds on it, and goes with it. Only a power cut can leave this.
                    (0..KEYS).for_each(|n| set(&keyspace, [n].into_iter(), "later"));
                }
                let image = tempfile::tempdir().unwrap();
                copy(live.path(), image.path());
                let log = binlog::file_path(&image.path().join(format!("binlog/db0/{lacking}/log-000001")), 0);
                fs::OpenOptions::new().write(true).open(log).unwrap().set_len(before[lacking].offset).unwrap();
                let recovered = open(image.path());
                assert_eq!(values(&recovered), vec!["old"; KEYS as usize], "slot {lacking} lacks it");
                let positions: Vec<Position> = recovered.all_slots().map(|s| s.position()).collect();
                assert_eq!(positions, before);
                // And it is a keyspace like any other.
                set(&recovered, 0..KEYS, "again");
                assert_eq!(values(&recovered), vec!["again"; KEYS as usize]);
            }
        }
    }

    #[test]
    fn a_damaged_slot_takes_nothing_from_the_others() {
        let live = tempfile::tempdir().unwrap();
        let keyspace = open(live.path());
        (0..KEYS).for_each(|n| set(&keyspace, [n].into_iter(), "old"));
        let before = keyspace.db(0).slots()[2].position();
        set(&keyspace, 0..KEYS, "new");
        set(&keyspace, 0..KEYS, "new");
        let image = tempfile::tempdir().unwrap();
        copy(live.path(), image.path());
        let log = binlog::file_path(&image.path().join("binlog/db0/2/log-000001"), 0);
        let mut bytes = fs::read(&log).unwrap();
        bytes[before.offset as usize + 40] ^= 1;
        fs::write(&log, bytes).unwrap();
        let recovered = open(image.path());
        let faults: Vec<bool> = recovered.all_slots().map(|s| s.fault().is_some()).collect();
        assert_eq!(faults, [false, false, true, false]);
        let damaged = &recovered.db(0).slots()[2];
        assert_eq!(damaged.position(), before);
        for n in 0..KEYS {
            let expected = if Arc::ptr_eq(recovered.slot(0, &key(n)), damaged) { "old" } else { "new" };
            assert_eq!(values(&recovered)[n as usize], expected, "{n}");
        }
        let mut tx = recovered.transaction();
        assert_eq!(tx.lock((0..KEYS).map(key).collect::<Vec<_>>().iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
        (0..KEYS).for_each(|n| tx.set(0, &key(n), Bytes::new(), None, 1).unwrap());
        assert!(tx.commit().is_err(), "a write that concerns the damaged slot is refused as a whole");
        drop(tx);
        assert!(values(&recovered).iter().all(|v| !v.is_empty()));
    }

    #[test]
    fn data_that_are_not_what_was_promised_leave_no_trace() {
        let live = tempfile::tempdir().unwrap();
        let keyspace = open(live.path());
        (0..KEYS).for_each(|n| set(&keyspace, [n].into_iter(), "old"));
        let slot = &keyspace.db(0).slots()[1];
        let received = live.path().join("received");
        let inside = slot.checkpoint(&received).unwrap().unwrap();
        let promised = Applied { time: inside.time + 1, ..inside };
        assert!(keyspace.install(slot, Some(&received), promised).is_err());
        for folder in ["db/db0/1", "binlog/db0/1"] {
            let entries = fs::read_dir(live.path().join(folder)).unwrap().map(|e| e.unwrap().file_type().unwrap());
            assert_eq!(entries.filter(|t| t.is_dir()).count(), 1, "{folder}");
        }
        assert_eq!(values(&keyspace), vec!["old"; KEYS as usize]);
        set(&keyspace, 0..KEYS, "new");
        assert_eq!(values(&keyspace), vec!["new"; KEYS as usize]);
    }
}
