//! A transaction: the commands of one pipeline, their locks and their writes, up to the commit. Hot path.
//!
//! A command first takes its keys ([`Transaction::lock`]), then reads through the writes of the commands before it, and
//! changes state only by effects, which are logged and applied in one. Key locks of writes are held until
//! [`Transaction::commit`] returns, so no other client sees, or builds on, what is not committed.

use std::sync::Arc;

use bytes::Bytes;

use super::commit::SlotWrite;
use super::effect::{Effect, State};
use super::locks::StripeGuard;
use super::overlay::Overlay;
use super::slot::Slot;
use super::{Error, Keyspace};
use crate::binlog::Draft;
use crate::engine::Entry;

/// What [`Transaction::lock`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Locked {
    /// The keys are held; the command may run.
    Yes,
    /// Commit first, then lock again: the keys cannot be had while earlier writes are pending.
    CommitFirst,
}

/// See the module.
pub struct Transaction<'k> {
    keyspace: &'k Keyspace,
    /// Stripes of uncommitted writes, and of the running command.
    held: Vec<(usize, StripeGuard<'k>)>,
    parts: Vec<Part<'k>>,
    /// Whether the running command writes keys of several slots.
    command_spans: bool,
    /// Whether the pending writes are those of such a command: then they are its alone.
    group_spans: bool,
    stripes: Vec<usize>,
    bytes: usize,
    commands: usize,
    /// Committed, but perhaps not yet on stable storage.
    undurable: Vec<(&'k Slot, u64)>,
}

/// The uncommitted writes to one slot.
struct Part<'k> {
    overlay: Overlay<'k>,
    drafts: Vec<Draft>,
    /// Whether the last draft belongs to the running command.
    draft_open: bool,
}

impl Part<'_> {
    fn is_of(&self, slot: &Slot) -> bool {
        std::ptr::eq(self.overlay.slot(), slot)
    }
}

impl<'k> Transaction<'k> {
    pub(super) fn new(keyspace: &'k Keyspace) -> Transaction<'k> {
        Transaction {
            keyspace,
            held: Vec::new(),
            parts: Vec::new(),
            command_spans: false,
            group_spans: false,
            stripes: Vec::new(),
            bytes: 0,
            commands: 0,
            undurable: Vec::new(),
        }
    }

    /// Begins a command on these keys (database and key), which it will write if `exclusive`.
    /// Ends the command before it. May wait for other clients' commands, but only while nothing is pending.
    pub fn lock<'a>(&mut self, keys: impl Iterator<Item = (usize, &'a [u8])> + Clone, exclusive: bool) -> Locked {
        self.end_command();
        self.command_spans = exclusive && self.spans_slots(keys.clone());
        if exclusive && self.pending() && (self.command_spans || self.group_spans) {
            return Locked::CommitFirst;
        }
        let locks = &self.keyspace.locks;
        self.stripes.clear();
        self.stripes.extend(keys.map(|(db, key)| locks.stripe(db, key)));
        self.stripes.sort_unstable();
        self.stripes.dedup();
        if self.held.is_empty() {
            self.held.extend(self.stripes.iter().map(|&s| (s, locks.lock(s, exclusive))));
            return Locked::Yes;
        }
        let before = self.held.len();
        for &stripe in &self.stripes {
            // What is held at this point is held exclusively.
            if self.held[..before].iter().any(|(s, _)| *s == stripe) {
                continue;
            }
            match locks.try_lock(stripe, exclusive) {
                Some(guard) => self.held.push((stripe, guard)),
                None => {
                    self.held.truncate(before);
                    return Locked::CommitFirst;
                }
            }
        }
        Locked::Yes
    }

    /// Whether the keys live in more than one slot.
    fn spans_slots<'a>(&self, mut keys: impl Iterator<Item = (usize, &'a [u8])>) -> bool {
        let Some((db, key)) = keys.next() else { return false };
        let first = self.keyspace.slot(db, key);
        keys.any(|(db, key)| !Arc::ptr_eq(self.keyspace.slot(db, key), first))
    }

    /// Lets go of what the command before only read, and closes its records.
    fn end_command(&mut self) {
        self.held.retain(|(_, guard)| matches!(guard, StripeGuard::Exclusive(_)));
        if self.parts.is_empty() {
            // Exclusive stripes of a command that in the end wrote nothing.
            self.held.clear();
        }
        self.parts.iter_mut().for_each(|p| p.draft_open = false);
        self.commands += 1;
    }

    /// Whether there are writes to commit.
    pub fn pending(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Bytes and commands since the last commit: a measure of when to commit.
    pub fn size(&self) -> (usize, usize) {
        (self.bytes, self.commands)
    }

    /// The entry of a key as it is at `now` (unix ms), through the pending writes. Expired = none.
    pub fn get(&mut self, db: usize, key: &Bytes, now: u64) -> Result<Option<Entry>, Error> {
        let slot = self.keyspace.slot(db, key);
        let entry = match self.parts.iter_mut().find(|p| p.is_of(slot)) {
            Some(part) => part.overlay.get(key)?,
            None => slot.get(key)?,
        };
        Ok(entry.filter(|e| e.is_live(now)))
    }

    /// The key holds this string from now on, whatever it held. No lookup.
    pub fn set(&mut self, db: usize, key: &Bytes, value: Bytes, expire_at: Option<u64>, now: u64) -> Result<(), Error> {
        self.effect(db, Effect::Set { key: key.clone(), value, expire_at }, now)
    }

    /// The key is no more.
    pub fn del(&mut self, db: usize, key: &Bytes, now: u64) -> Result<(), Error> {
        self.effect(db, Effect::Del { key: key.clone() }, now)
    }

    /// The live key expires at `at` (unix ms).
    pub fn expire_at(&mut self, db: usize, key: &Bytes, at: u64, now: u64) -> Result<(), Error> {
        self.effect(db, Effect::ExpireAt { key: key.clone(), at }, now)
    }

    /// The live key expires no more.
    pub fn persist(&mut self, db: usize, key: &Bytes, now: u64) -> Result<(), Error> {
        self.effect(db, Effect::Persist { key: key.clone() }, now)
    }

    /// Adds to the string, or makes it. Keeps the expiry.
    pub fn append(&mut self, db: usize, key: &Bytes, suffix: &Bytes, now: u64) -> Result<(), Error> {
        self.effect(db, Effect::Append { key: key.clone(), suffix: suffix.clone() }, now)
    }

    /// Overwrites from `offset` (bytes) on, zero padded. Keeps the expiry.
    pub fn set_range(&mut self, db: usize, key: &Bytes, offset: u64, value: &Bytes, now: u64) -> Result<(), Error> {
        self.effect(db, Effect::SetRange { key: key.clone(), offset, value: value.clone() }, now)
    }

    /// Logs an effect and applies it. Its key must be locked for writing.
    fn effect(&mut self, db: usize, effect: Effect, now: u64) -> Result<(), Error> {
        let Some(key) = effect.key() else {
            return Err(Error::BadEffect("effect without a key in a transaction".into()));
        };
        let slot = self.keyspace.slot(db, key);
        let at = match self.parts.iter().position(|p| p.is_of(slot)) {
            Some(at) => at,
            None => {
                self.parts.push(Part { overlay: Overlay::locked(slot), drafts: Vec::new(), draft_open: false });
                self.parts.len() - 1
            }
        };
        self.group_spans |= self.command_spans;
        let part = &mut self.parts[at];
        // Applied before it is logged: an effect that fails must not be in the record.
        effect.apply(&mut part.overlay, now)?;
        if !part.draft_open {
            part.drafts.push(Draft::new(now));
            part.draft_open = true;
        }
        if let Some(draft) = part.drafts.last_mut() {
            let before = draft.encoded_len();
            effect.encode(draft.effects());
            self.bytes += draft.encoded_len() - before;
        }
        Ok(())
    }

    /// Commits all pending writes and lets go of all keys. On an error none of them counts as acknowledged: a slot whose log could not
    /// take them has none of them.
    pub fn commit(&mut self) -> Result<(), Error> {
        let result = self.commit_parts();
        self.parts.clear();
        self.group_spans = false;
        self.held.clear();
        self.bytes = 0;
        self.commands = 0;
        result
    }

    fn commit_parts(&mut self) -> Result<(), Error> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let mut parts = std::mem::take(&mut self.parts);
        let result = self.commit_writes(&mut parts);
        for part in &parts {
            match result {
                Ok(()) => part.overlay.committed(),
                Err(_) => part.overlay.uncertain(),
            }
        }
        result
    }

    fn commit_writes(&mut self, parts: &mut [Part<'k>]) -> Result<(), Error> {
        let mut writes = Vec::with_capacity(parts.len());
        // A part without a record is that of an effect that failed: it changes nothing and takes part in nothing.
        for part in parts.iter_mut().filter(|p| !p.drafts.is_empty()) {
            let slot = part.overlay.slot();
            let batch = part.overlay.batch(&slot.store_for_writing()?.engine)?;
            writes.push((slot, SlotWrite { drafts: std::mem::take(&mut part.drafts), batch }));
        }
        if self.group_spans && writes.len() > 1 {
            writes.sort_unstable_by_key(|(slot, _)| (slot.db(), slot.number()));
            let slots: Vec<&'k Slot> = writes.iter().map(|(slot, _)| *slot).collect();
            let ends = Slot::commit_multi(writes)?;
            slots.into_iter().zip(ends).for_each(|(slot, end)| self.note_undurable(slot, end.index));
            return Ok(());
        }
        let mut result = Ok(());
        for (slot, write) in writes {
            match slot.commit(write) {
                Ok(end) => self.note_undurable(slot, end.index),
                Err(e) => result = Err(e),
            }
        }
        result
    }

    fn note_undurable(&mut self, slot: &'k Slot, index: u64) {
        match self.undurable.iter_mut().find(|(s, _)| std::ptr::eq(*s, slot)) {
            Some((_, last)) => *last = (*last).max(index),
            None => self.undurable.push((slot, index)),
        }
    }

    /// Waits until everything committed is on stable storage. Blocks; for `sync : always`.
    pub fn wait_durable(&mut self) -> Result<(), Error> {
        for (slot, index) in self.undurable.drain(..) {
            slot.sync_to(index)?;
        }
        Ok(())
    }
}
