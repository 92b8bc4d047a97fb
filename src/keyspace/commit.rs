//! The commit path of a slot. Hot path: no system call beyond the one log write a group.
//!
//! The invariants of the data path, all kept here:
//!
//! 1. Log before engine: a group of records is appended to the binlog, then written to the engine with the position it
//!    ends at, both under the commit lock. The engine never holds what the log does not.
//! 2. One record, once: the engine's position and its data change in one batch, so replay starts exactly where
//!    the engine ends.
//! 3. Nobody reads ahead: the log's end is published to replicas after the engine holds it.
//! 4. Nobody writes a master's log: whether a slot's log is this node's clients' to write is asked under the commit lock, by every commit of a
//!    client's command (in a pipeline, EXEC or script, of one that waited, of the expirer). Whoever takes that right away then passes through
//!    the commit lock of each slot ([`super::Keyspace::set_owned`]): what was being committed is done, and no more comes. So a node that has
//!    answered OK to SLAVEOF commits no client's write any more, however early the command was let in.
//! 5. When the engine fails after the log succeeded, the slot takes no more writes: log and engine are made equal by the
//!    next recovery, not by guessing. Only where it is certain that no engine has any of the write, because the disk is full and
//!    RocksDB takes nothing, is it taken back from the log: then it has not happened. Where some engines have their part of a
//!    write over several slots, the others get theirs from their logs when there is room ([`Slot::catch_up`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};

use super::Error;
use super::slot::{Committer, Published, Slot, Store};
use crate::binlog::{self, Draft, Participant, Position, Writer};
use crate::engine::{Applied, Batch};

/// Writes to one slot that are committed together.
#[derive(Default)]
pub struct SlotWrite {
    pub(super) drafts: Vec<Draft>,
    pub(super) batch: Batch,
}

/// The records of one write over several slots: indexes of a part and of a draft in it. In the order of the parts, one of each.
pub(super) type Span = Vec<(usize, usize)>;

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
            return self.room_for(self.commit_writes(c, vec![own]), true);
        }
        let mut writes: Vec<SlotWrite> = joined.iter().filter_map(|w| w.write.lock().take()).collect();
        writes.push(own);
        let result = self.room_for(self.commit_writes(c, writes), true);
        for waiting in joined {
            *waiting.result.lock() = Some(result.clone());
        }
        result
    }

    fn commit_writes(&self, c: &mut Committer, mut writes: Vec<SlotWrite>) -> Result<Position, Error> {
        self.check_owned()?;
        let (_, writer) = self.writable(c)?;
        let bytes = writes.iter().map(SlotWrite::bytes).sum();
        let time = writes.iter().map(SlotWrite::last_time).max().unwrap_or(0);
        let term = self.env.term.load(Ordering::Relaxed);
        let before = writer.tail();
        let end = writer.append(writes.iter().flat_map(|w| &w.drafts), term);
        let end = end.map_err(|e| self.not_appended(c, e))?;
        // The records are in the log, the batch is yet to be copied into the write buffer: large values must not be held more often than needed.
        writes.iter_mut().for_each(|w| w.drafts = Vec::new());
        let batch = match writes.as_mut_slice() {
            [one] => std::mem::take(&mut one.batch),
            many => Batch::concat(many.iter().map(|w| &w.batch)),
        };
        self.apply_alone(c, batch, before, end, time, bytes)?;
        Ok(end)
    }

    /// Whether clients may write the log. The commit lock must be held, so that the answer holds until it is let go of.
    pub(super) fn check_owned(&self) -> Result<(), Error> {
        if self.env.owned[self.db].load(Ordering::Acquire) { Ok(()) } else { Err(Error::NotMaster) }
    }

    /// Commits a group with writes that span slots (`spans`): in all slots or, when appending fails, in none. `parts` are in slot order. The
    /// commit locks of all are held until every log has its records, so a crash in between leaves the group at
    /// the end of some of the logs, where recovery finds what others lack and takes it back, with all that follows it: nothing of
    /// the group has been acknowledged.
    pub(super) fn commit_multi(parts: Vec<(&Slot, SlotWrite)>, spans: &[Span]) -> Result<Vec<Position>, Error> {
        let mut held = lock_commits(parts.into_iter());
        let appended = append_multi(&mut held, spans)?;
        // All logs have it: it has happened. An engine that fails now makes its slot read-only, and recovery applies it.
        let mut failed = None;
        for (nth, Appended { end, .. }) in appended.iter().enumerate() {
            let (slot, c, write) = &mut held[nth];
            let (bytes, time) = (write.bytes(), write.last_time());
            match slot.apply(c, std::mem::take(&mut write.batch), *end, time, bytes) {
                Ok(()) => {}
                Err(NotApplied::NoSpace(e)) if nth == 0 => {
                    // No engine has any of it yet.
                    take_back(&mut held, &appended, &e);
                    return held[0].0.room_for(Err(e), false);
                }
                Err(NotApplied::NoSpace(e)) => failed = Some(slot.fall_behind(&e)),
                Err(NotApplied::Closed(e)) => failed = Some(e),
            }
        }
        for (slot, ..) in &held {
            slot.room_for(Ok(()), true)?;
        }
        failed.map_or(Ok(appended.into_iter().map(|a| a.end).collect()), Err)
    }

    /// Appends a run of records received from a master, ending at `end`, and applies `batch`, their effects.
    pub(super) fn commit_run(&self, run: &[u8], end: Position, batch: Batch, time: u64) -> Result<(), Error> {
        let mut c = self.commit.lock();
        let before = self.writable(&mut c).map(|(_, writer)| writer.tail());
        let appended = before.and_then(|before| self.append_run(&mut c, run, end).map(|()| before));
        let before = self.room_for(appended, false)?;
        self.env.versions_up_to(time);
        let applied = self.apply_alone(&mut c, batch, before, end, time, run.len() as u64);
        self.room_for(applied, true)
    }

    /// Appends a run of a master's records.
    pub(super) fn append_run(&self, c: &mut Committer, run: &[u8], end: Position) -> Result<(), Error> {
        let (_, writer) = self.writable(c)?;
        writer.append_run(run, end).map_err(|e| self.not_appended(c, e))?;
        Ok(())
    }

    /// Takes the end of the log back to `before`, where nothing was built on what follows. If that fails, nothing can follow it.
    pub(super) fn take_back(&self, c: &mut Committer, before: Position, cause: &Error) {
        if let Some(writer) = &mut c.writer {
            writer.take_back(before, cause);
            if let Some(why) = writer.broken() {
                self.close_for_writes(why);
            }
        }
    }

    /// [`Slot::apply`] of a write of this slot alone, which began at `before` in the log: it is taken back if the engine has no room for
    /// it.
    fn apply_alone(
        &self,
        c: &mut Committer,
        batch: Batch,
        before: Position,
        end: Position,
        time: u64,
        bytes: u64,
    ) -> Result<(), Error> {
        self.apply(c, batch, end, time, bytes).map_err(|e| match e {
            NotApplied::NoSpace(e) => {
                self.take_back(c, before, &e);
                e
            }
            NotApplied::Closed(e) => e,
        })
    }

    /// An append has failed. If what it left could not be taken back either, nothing can follow it: the slot takes no more writes, a
    /// replica's takes its master's data whole.
    pub(super) fn not_appended(&self, c: &Committer, e: binlog::Error) -> Error {
        match c.writer.as_ref().and_then(Writer::broken) {
            Some(why) => self.close_for_writes(why),
            None => e.into(),
        }
    }

    /// The second half of every commit: the engine, then everybody may see it.
    fn apply(&self, c: &mut Committer, batch: Batch, end: Position, time: u64, bytes: u64) -> Result<(), NotApplied> {
        c.time = c.time.max(time);
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        let store = self.store.load();
        let Some(store) = &*store else { return Err(NotApplied::Closed(self.close_for_writes("no store"))) };
        let bytes = bytes.max(batch.len() as u64);
        if let Err(e) = store.engine.write(batch, Applied { position: end, time: c.time }) {
            // The engine refuses a write as a whole, before it touches its buffer, when RocksDB has stopped for lack of space.
            let contained = store.engine.applied().map(|applied| applied.position.index);
            if e.is_disk_full() && contained.is_ok_and(|index| index == self.position().index) {
                return Err(NotApplied::NoSpace(e.into()));
            }
            let why = format!("logged up to {end}, but the engine failed: {e}");
            return Err(NotApplied::Closed(self.close_for_writes(why)));
        }
        self.publish(end);
        self.add_unflushed(bytes);
        Ok(())
    }
}

/// Why an engine does not have what was logged.
pub(super) enum NotApplied {
    /// The disk is full: nothing of it is in the engine.
    NoSpace(Error),
    /// Nobody knows; the slot takes no more writes.
    Closed(Error),
}

/// Records in one of several logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    /// The log's end without them.
    pub before: Position,
    pub end: Position,
}

/// Takes the last group back from these logs.
pub(super) fn take_back(held: &mut [HeldCommit<'_>], appended: &[Appended], cause: &Error) {
    for ((slot, c, _), Appended { before, .. }) in held.iter_mut().zip(appended) {
        slot.take_back(c, *before, cause);
    }
}

/// A slot whose commit lock is held, and what is to be committed.
pub(super) type HeldCommit<'s> = (&'s Slot, MutexGuard<'s, Committer>, SlotWrite);

/// Takes the commit locks of slots that are in order.
pub(super) fn lock_commits<'s>(parts: impl Iterator<Item = (&'s Slot, SlotWrite)>) -> Vec<HeldCommit<'s>> {
    parts.map(|(slot, write)| (slot, slot.commit.lock(), write)).collect()
}

/// The end of a slot's log.
pub struct LogEnd {
    pub slot: Arc<Slot>,
    pub published: Published,
    /// Its log stays as long as this is held.
    pub store: Arc<Store>,
}

/// The ends of the logs of slots that are in order, all at one moment between two commits.
pub(super) fn log_ends<'s>(slots: impl Iterator<Item = &'s Arc<Slot>>) -> Vec<LogEnd> {
    let slots: Vec<_> = slots.collect();
    let _held: Vec<_> = slots.iter().map(|slot| slot.commit.lock()).collect();
    let end = |slot: &Arc<Slot>| {
        let store = slot.store().clone()?;
        Some(LogEnd { slot: slot.clone(), published: slot.published(), store })
    };
    slots.into_iter().filter_map(end).collect()
}

/// Appends each slot's records to its log, to all of them or, when one fails, to none. Those of a write over several slots name each
/// other. Returns where they are.
pub(super) fn append_multi(held: &mut [HeldCommit<'_>], spans: &[Span]) -> Result<Vec<Appended>, Error> {
    let mut firsts = Vec::with_capacity(held.len());
    for (slot, c, _) in held.iter_mut() {
        slot.check_owned()?;
        let first = slot.writable(c).and_then(|(store, writer)| {
            // It must not be found out when some engines have their part.
            store.engine.check().map_err(|e| match e.is_disk_full() {
                true => e.into(),
                false => slot.close_for_writes(format!("the engine failed: {e}")),
            })?;
            Ok(writer.tail().index + 1)
        });
        firsts.push(slot.room_for(first, false)?);
    }
    for span in spans.iter().filter(|span| span.len() > 1) {
        let participant = |&(part, draft): &(usize, usize)| {
            let slot = held[part].0;
            Participant { db: slot.db as u16, slot: slot.number as u16, index: firsts[part] + draft as u64 }
        };
        let participants: Vec<Participant> = span.iter().map(participant).collect();
        for &(part, draft) in span {
            held[part].2.drafts[draft].set_participants(&participants);
        }
    }
    let mut done: Vec<Appended> = Vec::with_capacity(held.len());
    for nth in 0..held.len() {
        let (slot, c, write) = &mut held[nth];
        // Not `writable` again: whatever has closed the slot meanwhile, the logs before it have their records already.
        let appended = match &mut c.writer {
            Some(writer) => {
                let before = writer.tail();
                let term = slot.env.term.load(Ordering::Relaxed);
                writer.append(write.drafts.iter(), term).map(|end| Appended { before, end })
            }
            None => Err(binlog::Error::Broken(format!("{slot} is closed"))),
        };
        match appended {
            Ok(appended) => done.push(appended),
            Err(e) => {
                let failed = slot.not_appended(c, e);
                let failed = slot.room_for::<()>(Err(failed), false);
                failed.inspect_err(|e| take_back(held, &done, e))?;
            }
        }
    }
    if held.first().is_some_and(|(slot, ..)| (slot.env.sync_always)()) {
        // Before any other record can follow: one that is durable must not stand behind a write that a power cut tears.
        // The logs have the record now, and the engines must follow, also where this fails: such a slot is closed, and whoever waits
        // for the record to be durable is told.
        let spanned = |part| spans.iter().any(|span| span.len() > 1 && span.iter().any(|member| member.0 == part));
        for (part, ((slot, ..), Appended { end, .. })) in held.iter().zip(&done).enumerate() {
            if spanned(part) {
                drop(slot.sync_to(end.index));
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
