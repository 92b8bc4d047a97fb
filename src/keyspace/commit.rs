//! The commit path of a slot. Hot path: no system call beyond the one log write a group.
//!
//! The invariants of the data path, all kept here:
//!
//! 1. Log before engine: a group of records is appended to the binlog, then written to the engine with the position it
//!    ends at, both under the commit lock. The engine never holds what the log does not.
//! 2. One record, once: the engine's position and its data change in one batch, so replay starts exactly where
//!    the engine ends.
//! 3. Nobody reads ahead: the log's end is published to replicas after the engine holds it.
//! 4. A log that is a master's copy takes the master's records only. A command that was admitted before the node became a replica
//!    may come here after it; whether the log is still the node's own is decided under the commit lock.
//! 5. When the engine fails after the log succeeded, the slot takes no more writes: log and engine are made equal by the
//!    next recovery, not by guessing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};

use super::Error;
use super::slot::{Committer, Slot};
use crate::binlog::{self, Draft, Participant, Position};
use crate::engine::{Applied, Batch};

/// Writes to one slot that are committed together.
#[derive(Default)]
pub struct SlotWrite {
    pub(super) drafts: Vec<Draft>,
    pub(super) batch: Batch,
}

impl SlotWrite {
    fn bytes(&self) -> u64 {
        self.drafts.iter().map(|d| d.encoded_len() as u64).sum()
    }

    fn last_time(&self) -> u64 {
        self.drafts.iter().map(|d| d.time).max().unwrap_or(0)
    }
}

/// A write that waits for the thread that holds the commit lock.
pub(super) struct Waiting {
    write: Mutex<Option<SlotWrite>>,
    result: Mutex<Option<Result<Position, Error>>>,
}

impl Slot {
    /// Commits a group that concerns this slot alone; joins the groups of threads that wait at the same time. Handed to the
    /// operating system and visible to readers when it returns.
    pub(super) fn commit(&self, write: SlotWrite) -> Result<Position, Error> {
        if let Some(mut committer) = self.commit.try_lock() {
            let joined = std::mem::take(&mut *self.queue.lock());
            return self.commit_group(&mut committer, write, &joined);
        }
        let waiting = Arc::new(Waiting { write: Mutex::new(Some(write)), result: Mutex::new(None) });
        self.queue.lock().push(waiting.clone());
        let mut committer = self.commit.lock();
        if let Some(result) = waiting.result.lock().take() {
            return result;
        }
        let mut joined = std::mem::take(&mut *self.queue.lock());
        joined.retain(|w| !Arc::ptr_eq(w, &waiting));
        let Some(own) = waiting.write.lock().take() else {
            // Whoever took it did not come back.
            return Err(self.close_for_writes("a commit was begun and not finished"));
        };
        self.commit_group(&mut committer, own, &joined)
    }

    fn commit_group(&self, c: &mut Committer, own: SlotWrite, joined: &[Arc<Waiting>]) -> Result<Position, Error> {
        if joined.is_empty() {
            return self.commit_writes(c, vec![own]);
        }
        let mut writes: Vec<SlotWrite> = joined.iter().filter_map(|w| w.write.lock().take()).collect();
        writes.push(own);
        let result = self.commit_writes(c, writes);
        for waiting in joined {
            *waiting.result.lock() = Some(result.clone());
        }
        result
    }

    fn commit_writes(&self, c: &mut Committer, mut writes: Vec<SlotWrite>) -> Result<Position, Error> {
        self.check_own()?;
        let (_, writer) = self.writable(c)?;
        let bytes = writes.iter().map(SlotWrite::bytes).sum();
        let time = writes.iter().map(SlotWrite::last_time).max().unwrap_or(0);
        let term = self.env.term.load(Ordering::Relaxed);
        let end = writer.append(writes.iter().flat_map(|w| &w.drafts), term)?;
        let batch = match writes.as_mut_slice() {
            [one] => std::mem::take(&mut one.batch),
            many => Batch::concat(many.iter().map(|w| &w.batch)),
        };
        self.apply(c, batch, end, time, bytes)?;
        Ok(end)
    }

    /// Commits one write that spans slots: in all of them or, when appending fails, in none. `parts` are in slot order, one record each. The
    /// commit locks of all are held until every log has its record, so a crash in between leaves it at
    /// the end of some of the logs, where recovery finds that others lack it and takes it back.
    pub(super) fn commit_multi(parts: Vec<(&Slot, SlotWrite)>) -> Result<Vec<Position>, Error> {
        let mut held = lock_commits(parts.into_iter());
        let ends = append_multi(&mut held)?;
        // All logs have it: it has happened. An engine that fails now makes its slot read-only, and recovery applies it.
        let mut failed = None;
        for ((slot, c, write), end) in held.iter_mut().zip(&ends) {
            let (bytes, time) = (write.bytes(), write.last_time());
            if let Err(e) = slot.apply(c, std::mem::take(&mut write.batch), *end, time, bytes) {
                failed = Some(e);
            }
        }
        failed.map_or(Ok(ends), Err)
    }

    /// Appends a run of records received from a master, ending at `end`, and applies `batch`, their effects.
    pub(super) fn commit_run(&self, run: &[u8], end: Position, batch: Batch, time: u64) -> Result<(), Error> {
        let mut c = self.commit.lock();
        let (_, writer) = self.writable(&mut c)?;
        writer.append_run(run, end)?;
        self.env.versions_up_to(time);
        self.apply(&mut c, batch, end, time, run.len() as u64)
    }

    /// The second half of every commit: the engine, then everybody may see it.
    fn apply(&self, c: &mut Committer, batch: Batch, end: Position, time: u64, bytes: u64) -> Result<(), Error> {
        c.time = c.time.max(time);
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        let store = self.store.load();
        let Some(store) = &*store else { return Err(self.close_for_writes("no store")) };
        let bytes = bytes.max(batch.len() as u64);
        if let Err(e) = store.engine.write(batch, Applied { position: end, time: c.time }) {
            return Err(self.close_for_writes(format!("logged up to {end}, but the engine failed: {e}")));
        }
        self.publish(end);
        self.add_unflushed(bytes);
        Ok(())
    }
}

/// A slot whose commit lock is held, and what is to be committed.
pub(super) type HeldCommit<'s> = (&'s Slot, MutexGuard<'s, Committer>, SlotWrite);

/// Takes the commit locks of slots that are in order.
pub(super) fn lock_commits<'s>(parts: impl Iterator<Item = (&'s Slot, SlotWrite)>) -> Vec<HeldCommit<'s>> {
    parts.map(|(slot, write)| (slot, slot.commit.lock(), write)).collect()
}

/// Appends one record to each slot's log, to all of them or, when one fails, to none. The records name each other if they
/// are several. Returns where they end.
pub(super) fn append_multi(held: &mut [HeldCommit<'_>]) -> Result<Vec<Position>, Error> {
    let mut participants = Vec::with_capacity(held.len());
    for (slot, c, _) in held.iter_mut() {
        slot.check_own()?;
        let (_, writer) = slot.writable(c)?;
        let index = writer.tail().index + 1;
        participants.push(Participant { db: slot.db as u16, slot: slot.number as u16, index });
    }
    let mut ends: Vec<(Position, Position)> = Vec::with_capacity(held.len());
    for nth in 0..held.len() {
        let (slot, c, write) = &mut held[nth];
        if participants.len() > 1 {
            write.drafts.iter_mut().for_each(|d| d.set_participants(&participants));
        }
        // Not `writable` again: whatever has closed the slot meanwhile, the logs before it have the record already.
        let appended = match &mut c.writer {
            Some(writer) => {
                let before = writer.tail();
                let term = slot.env.term.load(Ordering::Relaxed);
                writer.append(write.drafts.iter(), term).map(|end| (before, end))
            }
            None => Err(binlog::Error::Broken(format!("{slot} is closed"))),
        };
        match appended {
            Ok(end) => ends.push(end),
            Err(e) => {
                for ((_, c, _), (before, _)) in held.iter_mut().zip(&ends) {
                    if let Some(writer) = &mut c.writer {
                        writer.take_back(*before);
                    }
                }
                return Err(e.into());
            }
        }
    }
    if held.first().is_some_and(|(slot, ..)| (slot.env.sync_always)()) && held.len() > 1 {
        // Before any other record can follow: one that is durable must not stand behind a write that a power cut tears.
        // The logs have the record now, and the engines must follow, also where this fails: such a slot is closed, and whoever waits
        // for the record to be durable is told.
        for ((slot, ..), (_, end)) in held.iter().zip(&ends) {
            drop(slot.sync_to(end.index));
        }
    }
    Ok(ends.into_iter().map(|(_, end)| end).collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Keyspace, KeyspaceOptions, Locked};
    use super::*;
    use crate::engine::EngineOptions;

    #[test]
    fn what_was_admitted_before_a_node_became_a_replica_is_not_added_to_its_masters_log() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = Keyspace::open(KeyspaceOptions {
            db_path: dir.path().join("db"),
            binlog_path: dir.path().join("binlog"),
            databases: 1,
            slots: 4,
            cache: 1 << 20,
            engine: EngineOptions::default(),
            binlog_file_size: Box::new(|| 1 << 20),
            sync_always: Box::new(|| false),
            term: 1,
            leading_from: Some(1),
        })
        .unwrap();
        let keys: Vec<Bytes> = (0..16).map(|n| Bytes::from(format!("key{n}"))).collect();
        let ends = || keyspace.all_slots().map(|s| s.position().index).sum::<u64>();
        // A write of one slot, and one of all.
        for count in [1, keys.len()] {
            let mut tx = keyspace.transaction();
            assert_eq!(tx.lock(keys[..count].iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
            keys[..count].iter().for_each(|k| tx.set(0, k, Bytes::from_static(b"v"), None, 1).unwrap());
            keyspace.all_slots().for_each(|slot| slot.set_followed(true));
            assert!(matches!(tx.commit(), Err(Error::Followed)));
            drop(tx);
            assert_eq!(ends(), 0);
            keyspace.all_slots().for_each(|slot| slot.set_followed(false));
        }
        let mut tx = keyspace.transaction();
        assert_eq!(tx.lock(keys.iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
        keys.iter().for_each(|k| tx.set(0, k, Bytes::from_static(b"v"), None, 1).unwrap());
        tx.commit().unwrap();
        assert_eq!(ends(), 4);
    }
}
