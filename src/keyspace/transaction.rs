//! A transaction: commands that are committed together, of one client or of several that take turns in it, their locks and their
//! writes, up to the commit. Hot path.
//!
//! A command first takes its keys ([`Transaction::lock`]), then reads through the writes of the commands before it, and
//! changes state only by effects, which are logged and applied in one. Key locks of writes are held until
//! [`Transaction::commit`] returns, so nobody outside of the transaction sees, or builds on, what is not committed. Who does so inside
//! of it is answered after the commit, and [`RestsOn`] says which answers do not stand when that fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::commit::{SlotWrite, Span};
use super::effect::{Effect, LIBRARIES_KEY, Read};
use super::flush::wait_for_flusher;
use super::held::Held;
use super::locks::{AllStripes, SHORT_WAIT, StripeGuard};
use super::overlay::Overlay;
use super::slot::{Maintenance, Slot};
use super::types::{Handle, Outcome, blob};
use super::{Error, Keyspace};
use crate::binlog::Draft;
use crate::engine::{ElementRange, Entry, Found, Kind, Space};

/// A write that is so much older than the newest record is refused: compaction may have dropped what has expired since (the engine
/// waits twice as long). ms.
const MAX_COMMAND_MS: u64 = 150_000;

/// What [`Transaction::lock`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Locked {
    /// The keys are held; the command may run.
    Yes,
    /// Commit first, then lock again: the keys cannot be had while earlier writes are pending. After [`Transaction::hurry`] also where
    /// nothing is: then lock again in another transaction, which may wait.
    CommitFirst,
    /// The keys are held by a command that does not end: nothing is locked.
    Busy,
}

/// Keys that a command needs which turns out to need more while it runs: a script, a MULTI, a SORT by keys. It runs with the keys
/// known so far; when it meets another one that is not free it is given up, without a trace, and runs again with that
/// one locked too, and in the end with everything locked.
#[derive(Clone, Debug, Default)]
pub struct LockPlan {
    /// Stripes, and whether exclusively.
    stripes: Vec<(usize, bool)>,
    everything: bool,
    attempts: usize,
}

impl LockPlan {
    /// Runs of a command with locks for what it is known to need, before it gets all locks.
    const MAX_ATTEMPTS: usize = 8;

    /// Also this key.
    pub fn add(&mut self, keyspace: &Keyspace, key: &[u8], exclusive: bool) {
        self.add_stripe(keyspace.locks.stripe(key), exclusive);
    }

    /// All keys of all databases, and the right to replace whole databases.
    pub fn add_everything(&mut self) {
        self.everything = true;
    }

    /// What a run that met a conflict would have needed.
    pub fn learn(&mut self, conflict: Conflict) {
        self.attempts += 1;
        match conflict {
            Conflict::Stripe(stripe, exclusive) if self.attempts < Self::MAX_ATTEMPTS => {
                self.add_stripe(stripe, exclusive);
            }
            _ => self.everything = true,
        }
    }

    fn add_stripe(&mut self, stripe: usize, exclusive: bool) {
        match self.stripes.iter_mut().find(|(s, _)| *s == stripe) {
            Some((_, held)) => *held |= exclusive,
            None => self.stripes.push((stripe, exclusive)),
        }
    }
}

/// Which uncommitted writes what a command answers may rest on, its own included: those to these slots. A bit a slot; slots beyond
/// the 64th share theirs, so that it may be more than it seems, never less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestsOn(u64);

impl RestsOn {
    pub const NOTHING: RestsOn = RestsOn(0);
    pub const EVERYTHING: RestsOn = RestsOn(u64::MAX);

    fn add(&mut self, slot: &Slot) {
        self.0 |= slot.bit();
    }

    /// Whether it does not stand after a commit that failed.
    pub fn falls_with(self, failed: RestsOn) -> bool {
        self.0 & failed.0 != 0
    }
}

/// What a running command met that it had not locked and could not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// A stripe, and whether exclusively.
    Stripe(usize, bool),
    /// Everything.
    Everything,
}

/// See the module.
pub struct Transaction<'k> {
    keyspace: &'k Keyspace,
    /// Stripes of uncommitted writes, and of the running command.
    held: Held<'k>,
    /// In the place of `held`: everything.
    all: Option<Everything<'k>>,
    parts: Vec<Part<'k>>,
    /// Whether the running command may write keys of several slots.
    command_spans: bool,
    /// Whether it only reads.
    command_reads: bool,
    rests_on: RestsOn,
    /// Where the last commit failed.
    failed_in: RestsOn,
    /// Its records so far.
    span: Span,
    /// The records of pending commands that wrote several slots.
    spans: Vec<Span>,
    stripes: Vec<usize>,
    bytes: usize,
    commands: usize,
    /// Effects so far.
    effects: u64,
    /// Elements and keys that they changed: [`Keyspace::changes`].
    changes: u64,
    /// See [`Transaction::is_awaited`].
    awaited: bool,
    /// Whether some was committed by [`Transaction::commit_so_far`] since the last commit.
    early: bool,
    /// Why that failed, or why the pending writes cannot be committed.
    failed: Option<Error>,
    /// Whether [`Transaction::commit_and_release`] let go of all keys.
    released: bool,
    /// Committed, but perhaps not yet on stable storage.
    undurable: Vec<(&'k Slot, u64)>,
    /// Who makes the changes.
    by: u64,
    /// Keys that were found expired.
    expired: Vec<(usize, Bytes)>,
    /// Whether a key was not free.
    waited: bool,
    /// Whether it must not wait for long.
    hurries: bool,
}

/// Writes that are committed, but perhaps not yet on stable storage: database and number of the slot, and the index of the record.
#[derive(Clone, Debug, Default)]
pub struct Undurable(pub(super) Vec<(usize, usize, u64)>);

impl Undurable {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Fields are dropped in order: stripes are let go before maintenance locks are.
struct Everything<'k> {
    _stripes: AllStripes<'k>,
    maintenance: Maintenance<'k>,
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

/// A slot's data as the commands of a transaction see them.
pub enum Reader<'t, 'k> {
    /// Through what the transaction has changed.
    Changed(&'t mut Overlay<'k>),
    /// As committed, and whether to keep it in the cache.
    Committed(&'k Slot, bool),
}

impl Read for Reader<'_, '_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        match self {
            Reader::Changed(overlay) => overlay.get(key),
            Reader::Committed(slot, keep) => slot.get(key, *keep),
        }
    }

    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self {
            Reader::Changed(overlay) => overlay.element(space, key),
            Reader::Committed(slot, keep) => slot.element(space, key, *keep),
        }
    }

    fn places(&mut self, prefix: &[u8], places: Range<u64>, found: &mut Found) -> Result<(), Error> {
        match self {
            Reader::Changed(overlay) => overlay.places(prefix, places, found),
            Reader::Committed(slot, keep) => slot.places(prefix, places, *keep, found),
        }
    }

    fn end(&mut self, key: &[u8], places: Range<u64>, left: bool) -> Result<Option<Bytes>, Error> {
        match self {
            Reader::Changed(overlay) => overlay.end(key, places, left),
            Reader::Committed(slot, _) => slot.end(key, places, left),
        }
    }

    fn elements(
        &mut self,
        space: Space,
        range: &ElementRange<'_>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        match self {
            Reader::Changed(overlay) => overlay.elements(space, range, f),
            Reader::Committed(slot, _) => slot.elements(space, range, None, f),
        }
    }
}

/// Reads a key's elements and lets go of all locks as soon as the view is fixed; after that past the cache, to which nothing may be added without
/// them.
struct LastReader<'t, 'k> {
    slot: &'k Slot,
    held: &'t mut Held<'k>,
    /// Whether to keep what is read in the cache.
    keep: bool,
}

impl Read for LastReader<'_, '_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        self.slot.get_from_engine(key)
    }

    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.slot.element_from_engine(space, key)
    }

    fn places(&mut self, prefix: &[u8], places: Range<u64>, found: &mut Found) -> Result<(), Error> {
        // Only while nobody can change them.
        if self.held.is_empty() { Ok(()) } else { self.slot.places(prefix, places, self.keep, found) }
    }

    fn elements(
        &mut self,
        space: Space,
        range: &ElementRange<'_>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let held = &mut *self.held;
        self.slot.elements(space, range, Some(&mut || held.clear()), f)
    }
}

impl<'k> Transaction<'k> {
    pub(super) fn new(keyspace: &'k Keyspace) -> Transaction<'k> {
        Transaction {
            keyspace,
            held: Held::default(),
            all: None,
            parts: Vec::new(),
            command_spans: false,
            command_reads: false,
            rests_on: RestsOn::NOTHING,
            failed_in: RestsOn::NOTHING,
            span: Span::new(),
            spans: Vec::new(),
            stripes: Vec::new(),
            bytes: 0,
            commands: 0,
            effects: 0,
            changes: 0,
            awaited: false,
            early: false,
            failed: None,
            released: false,
            undurable: Vec::new(),
            by: 0,
            expired: Vec::new(),
            waited: false,
            hurries: false,
        }
    }

    /// Tells the observer of changes that from now on this client makes them.
    pub fn set_by(&mut self, client: u64) {
        self.by = client;
    }

    /// Stripes of keys that are held: a measure of how much is in the way of others.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// From now on what would have to wait for long is told to commit first, also where nothing is pending.
    pub fn hurry(&mut self) {
        self.hurries = true;
    }

    /// Whether a command had to wait for a key.
    pub fn has_waited(&self) -> bool {
        self.waited
    }

    /// Effects so far, committed or not.
    pub fn effects(&self) -> u64 {
        self.effects
    }

    /// What the running command's answer may rest on.
    pub fn rests_on(&self) -> RestsOn {
        self.rests_on
    }

    /// Where the last commit failed, if it did.
    pub fn failed_in(&self) -> RestsOn {
        self.failed_in
    }

    /// Begins a command on these keys (database and key), which it will write if `exclusive`.
    /// Ends the command before it. May wait for other clients' commands, but only while nothing is pending.
    pub fn lock<'a>(&mut self, keys: impl Iterator<Item = (usize, &'a [u8])> + Clone, exclusive: bool) -> Locked {
        self.end_command();
        self.command_reads = !exclusive;
        self.command_spans = exclusive && self.spans_slots(keys.clone());
        let locks = &self.keyspace.locks;
        // Those that are not held. What is held at this point is held exclusively.
        self.stripes.clear();
        for (db, key) in keys {
            let stripe = locks.stripe(key);
            match self.held.get(stripe) {
                Some(_) => self.rests_on.add(self.keyspace.slot(db, key)),
                None => self.stripes.push(stripe),
            }
        }
        if self.command_spans && self.rests_on != RestsOn::NOTHING {
            // What it reads in one slot it may write in another: that must not outlive a commit which fails, or is torn, in the first.
            return Locked::CommitFirst;
        }
        self.stripes.sort_unstable();
        self.stripes.dedup();
        let patiently = self.held.is_empty();
        let before = self.held.len();
        for nth in 0..self.stripes.len() {
            let stripe = self.stripes[nth];
            let guard = match locks.try_lock(stripe, exclusive) {
                None if patiently => {
                    self.waited = true;
                    match self.hurries {
                        true => locks.lock_within(stripe, exclusive, SHORT_WAIT),
                        false => locks.lock_patiently(stripe, exclusive),
                    }
                }
                tried => tried,
            };
            match guard {
                Some(guard) => self.held.push(stripe, guard),
                None => {
                    self.held.truncate(before);
                    return if patiently && !self.hurries { Locked::Busy } else { Locked::CommitFirst };
                }
            }
        }
        Locked::Yes
    }

    /// An error if one of these keys, which are to be written, is in a slot that takes no writes: what others have pending must not fail
    /// because of it.
    pub fn check_open<'a>(&self, keys: impl Iterator<Item = (usize, &'a [u8])>) -> Result<(), Error> {
        { keys }.try_for_each(|(db, key)| self.keyspace.slot(db, key).refuse_if_closed())
    }

    /// Begins a command that needs no keys.
    pub fn begin_without_keys(&mut self) {
        self.command_reads = false;
        self.rests_on = RestsOn::NOTHING;
    }

    /// Begins a command that may come to need more than `plan`; all it writes is one write, whatever slots it spans. Nothing may be
    /// pending. May wait for other clients' commands; [`Locked::Busy`] if in vain.
    pub fn lock_plan(&mut self, plan: &mut LockPlan) -> Locked {
        self.end_command();
        self.held.clear();
        self.all = None;
        self.command_spans = true;
        self.command_reads = true;
        if plan.everything {
            // Maintenance locks come before key locks.
            let maintenance = self.keyspace.maintenance();
            let Some(stripes) = self.keyspace.locks.lock_all_patiently() else { return Locked::Busy };
            self.all = Some(Everything { _stripes: stripes, maintenance });
            return Locked::Yes;
        }
        plan.stripes.sort_unstable();
        let locks = &self.keyspace.locks;
        for &(stripe, exclusive) in &plan.stripes {
            match locks.lock_patiently(stripe, exclusive) {
                Some(guard) => self.held.push(stripe, guard),
                None => {
                    self.held.clear();
                    return Locked::Busy;
                }
            }
        }
        Locked::Yes
    }

    /// Makes sure that a key is held by a command that began with [`Transaction::lock_plan`]. Never waits.
    pub fn ensure(&mut self, key: &[u8], exclusive: bool) -> Result<(), Conflict> {
        if self.all.is_some() {
            return Ok(());
        }
        let stripe = self.keyspace.locks.stripe(key);
        let conflict = Conflict::Stripe(stripe, exclusive);
        match self.held.get(stripe) {
            Some(StripeGuard::Shared(_)) if exclusive => Err(conflict),
            Some(_) => Ok(()),
            None => {
                let guard = self.keyspace.locks.try_lock(stripe, exclusive).ok_or(conflict)?;
                self.held.push(stripe, guard);
                Ok(())
            }
        }
    }

    /// Makes sure that everything is held, for a command over whole databases inside of another one.
    pub fn ensure_everything(&self) -> Result<(), Conflict> {
        if self.all.is_some() { Ok(()) } else { Err(Conflict::Everything) }
    }

    /// Whether the keys live in more than one slot.
    fn spans_slots<'a>(&self, mut keys: impl Iterator<Item = (usize, &'a [u8])>) -> bool {
        let (Some((db, key)), mut keys) = (keys.next(), keys.peekable()) else { return false };
        if keys.peek().is_none() {
            return false;
        }
        let first = self.keyspace.slot(db, key);
        keys.any(|(db, key)| !Arc::ptr_eq(self.keyspace.slot(db, key), first))
    }

    /// Lets go of what the command before only read, and closes its records.
    fn end_command(&mut self) {
        self.held.let_go_of_shared();
        if self.parts.is_empty() {
            // Exclusive stripes of a command that in the end wrote nothing.
            self.held.clear();
        }
        self.close_drafts();
        self.rests_on = RestsOn::NOTHING;
        self.commands += 1;
    }

    /// What is written from now on is in other records.
    fn close_drafts(&mut self) {
        self.parts.iter_mut().for_each(|p| p.draft_open = false);
        if self.span.len() > 1 {
            self.spans.push(std::mem::take(&mut self.span));
        }
        self.span.clear();
    }

    /// Whether there are writes to commit, or to account for as committed early.
    pub fn pending(&self) -> bool {
        !self.parts.is_empty() || self.early
    }

    /// Whether somebody waits for a change of a key that was written since this was last taken: who does is to be served before the next
    /// command runs.
    pub fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// [`Transaction::is_awaited`], and forgets it.
    pub fn take_awaited(&mut self) -> bool {
        std::mem::take(&mut self.awaited)
    }

    /// Bytes and commands since the last commit: a measure of when to commit.
    pub fn size(&self) -> (usize, usize) {
        (self.bytes, self.commands)
    }

    /// The entry of a key as it is at `now` (unix ms), through the pending writes. Expired = none.
    pub fn get(&mut self, db: usize, key: &Bytes, now: u64) -> Result<Option<Entry>, Error> {
        let entry = self.reader(db, key).get(key)?;
        if entry.as_ref().is_some_and(|entry| !entry.is_live(now)) {
            self.expired.push((db, key.clone()));
            return Ok(None);
        }
        Ok(entry)
    }

    /// Whether keys were found expired.
    pub fn found_expired(&self) -> bool {
        !self.expired.is_empty()
    }

    /// Takes the keys that [`Transaction::get`] found expired.
    pub fn take_expired(&mut self) -> Vec<(usize, Bytes)> {
        std::mem::take(&mut self.expired)
    }

    /// What lies in the slot of `key`, through the pending writes.
    pub fn reader(&mut self, db: usize, key: &[u8]) -> Reader<'_, 'k> {
        let slot = self.keyspace.slot(db, key);
        let keeps = self.keeps(key);
        match self.parts.iter_mut().find(|p| p.is_of(slot)) {
            Some(part) => {
                part.overlay.set_keeps(keeps);
                Reader::Changed(&mut part.overlay)
            }
            None => Reader::Committed(slot, keeps),
        }
    }

    /// Whether what is read of a key is to be kept in the cache: only that may be whose stripe is held. What is planned may read keys that it has
    /// not named, as DEBUG in a MULTI does.
    fn keeps(&self, key: &[u8]) -> bool {
        let is_held = || self.all.is_some() || self.held.get(self.keyspace.locks.stripe(key)).is_some();
        self.command_reads && (!self.command_spans || is_held())
    }

    /// Calls `f` with a reader of the slot of `key`, for the last read of a command that reads much and writes nothing: where nothing is
    /// pending, the locks are let go of as soon as its view is fixed.
    pub fn read_last<T>(&mut self, db: usize, key: &[u8], f: impl FnOnce(&mut dyn Read) -> T) -> T {
        if self.pending() || self.all.is_some() || self.command_spans {
            return f(&mut self.reader(db, key));
        }
        let slot = self.keyspace.slot(db, key);
        f(&mut LastReader { slot, held: &mut self.held, keep: self.command_reads })
    }

    /// The key holds this string from now on, whatever it held. No lookup.
    pub fn set(&mut self, db: usize, key: &Bytes, value: Bytes, expire_at: Option<u64>, now: u64) -> Result<(), Error> {
        self.apply(db, Effect::Set { key: key.clone(), value, expire_at }, now).map(drop)
    }

    /// The key is no more.
    pub fn del(&mut self, db: usize, key: &Bytes, now: u64) -> Result<(), Error> {
        self.apply(db, Effect::Del { key: key.clone() }, now).map(drop)
    }

    /// The live key expires at `at` (unix ms).
    pub fn expire_at(&mut self, db: usize, key: &Bytes, at: u64, now: u64) -> Result<(), Error> {
        self.apply(db, Effect::ExpireAt { key: key.clone(), at }, now).map(drop)
    }

    /// The live key expires no more.
    pub fn persist(&mut self, db: usize, key: &Bytes, now: u64) -> Result<(), Error> {
        self.apply(db, Effect::Persist { key: key.clone() }, now).map(drop)
    }

    /// Makes these the libraries of functions (empty: none). [`LIBRARIES_KEY`] must be held exclusively.
    pub fn set_libraries(&mut self, payload: Bytes, now: u64) -> Result<(), Error> {
        self.apply(self.keyspace.first_database(), Effect::Libraries { payload }, now).map(drop)
    }

    /// The libraries of functions, if a pending write changes them.
    pub fn pending_libraries(&self) -> Option<&Bytes> {
        let slot = self.keyspace.slot(self.keyspace.first_database(), &LIBRARIES_KEY);
        self.parts.iter().find(|part| part.is_of(slot)).and_then(|part| part.overlay.libraries())
    }

    /// Puts a string into chunks before a change in place makes it long.
    fn chunk_for(&mut self, db: usize, key: &Bytes, end: impl FnOnce(u64) -> u64, now: u64) -> Result<(), Error> {
        let entry = self.get(db, key, now)?;
        let len = entry.as_ref().map_or(0, |entry| entry.value.len() as u64);
        if entry.is_none_or(|entry| !entry.has_elements()) && end(len) > blob::WHOLE_MAX {
            self.chunk(db, key, now)?;
        }
        Ok(())
    }

    /// The string, or a missing one, stands in chunks from now on.
    pub fn chunk(&mut self, db: usize, key: &Bytes, now: u64) -> Result<(), Error> {
        let version = self.keyspace.env.next_version(now);
        self.apply(db, Effect::Chunk { key: key.clone(), version }, now).map(drop)
    }

    /// Adds to the string, or makes it. Keeps the expiry.
    pub fn append(&mut self, db: usize, key: &Bytes, suffix: &Bytes, now: u64) -> Result<(), Error> {
        self.chunk_for(db, key, |len| len + suffix.len() as u64, now)?;
        self.apply(db, Effect::Append { key: key.clone(), suffix: suffix.clone() }, now).map(drop)
    }

    /// Overwrites from `offset` (bytes) on, zero padded. Keeps the expiry.
    pub fn set_range(&mut self, db: usize, key: &Bytes, offset: u64, value: &Bytes, now: u64) -> Result<(), Error> {
        self.chunk_for(db, key, |len| len.max(offset + value.len() as u64), now)?;
        self.apply(db, Effect::SetRange { key: key.clone(), offset, value: value.clone() }, now).map(drop)
    }

    /// The key holds an empty collection from now on, whatever it held; the command must fill it.
    pub fn create(&mut self, db: usize, key: &Bytes, kind: Kind, now: u64) -> Result<(), Error> {
        let version = self.keyspace.env.next_version(now);
        self.apply(db, Effect::Create { key: key.clone(), kind, version }, now).map(drop)
    }

    /// Makes sure that the key holds a collection, which the command must fill if it is new. Its present kind must be this one.
    pub fn create_if_missing(&mut self, db: usize, key: &Bytes, kind: Kind, now: u64) -> Result<(), Error> {
        if self.get(db, key, now)?.is_none() {
            self.create(db, key, kind, now)?;
        }
        Ok(())
    }

    /// The collection at a key and a reader of its slot; `None` if there is none, or a plain string.
    pub fn open(&mut self, db: usize, key: &Bytes, now: u64) -> Result<Option<(Handle, Reader<'_, 'k>)>, Error> {
        let Some(entry) = self.get(db, key, now)? else { return Ok(None) };
        let Some(handle) = Handle::of(key, &entry) else { return Ok(None) };
        Ok(Some((handle, self.reader(db, key))))
    }

    /// Applies an effect, and logs it if it changed anything. Its key must be locked for writing.
    pub fn apply(&mut self, db: usize, effect: Effect, now: u64) -> Result<Outcome, Error> {
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
        self.awaited |= self.keyspace.env.awaits(db, key);
        self.rests_on.add(slot);
        self.effects += 1;
        let part = &mut self.parts[at];
        // Applied before it is logged: an effect that fails must not be in the record.
        part.overlay.set_order(self.effects, self.by);
        part.overlay.set_keeps(false);
        let outcome = match effect.apply(&mut part.overlay, now) {
            Ok(outcome) => outcome,
            Err(error) => {
                // Part of it may have been.
                self.failed = Some(error.clone());
                return Err(error);
            }
        };
        if !outcome.changed {
            return Ok(outcome);
        }
        // Only another form of what is there, or filled by the effects that follow.
        if !matches!(effect, Effect::Create { .. } | Effect::Chunk { .. }) {
            self.changes += outcome.count.max(1);
        }
        if !part.draft_open {
            if self.command_spans {
                self.span.push((at, part.drafts.len()));
            }
            part.drafts.push(Draft::new(now));
            part.draft_open = true;
        }
        if let Some(draft) = part.drafts.last_mut() {
            let before = draft.encoded_len();
            effect.encode(draft.effects());
            self.bytes += draft.encoded_len() - before;
        }
        Ok(outcome)
    }

    /// Drops all pending writes, as if their commands had not run, and lets go of all keys.
    pub fn abort(&mut self) {
        self.clear_parts();
        self.failed = None;
        self.changes = 0;
        self.release();
    }

    fn clear_parts(&mut self) {
        self.parts.clear();
        self.span.clear();
        self.spans.clear();
    }

    /// Empties a database, or all (`None`), atomically for readers, and in all of its slots or none across a crash. Nothing may be pending,
    /// unless everything is held: then that is committed first.
    pub fn flush_db(&mut self, db: Option<usize>, now: u64) -> Result<(), Error> {
        if self.all.is_some() {
            self.commit_parts()?;
        }
        self.awaited = true;
        loop {
            let slots = self.keyspace.slots_of(db);
            if let Some(all) = &self.all {
                return Slot::flush_data(&slots, &all.maintenance, now);
            }
            let maintenance = Maintenance::of(slots.iter().copied());
            let _all = self.keyspace.locks.lock_all_patiently().ok_or(Error::Busy)?;
            // Before the locks were held a SWAPDB may have made it another database.
            if self.keyspace.slots_of(db).first().map(|s| s.db()) == slots.first().map(|s| s.db()) {
                return Slot::flush_data(&slots, &maintenance, now);
            }
        }
    }

    /// Lets two databases trade places. What is pending is committed first.
    pub fn swap_db(&mut self, a: usize, b: usize, now: u64) -> Result<(), Error> {
        self.commit_parts()?;
        self.awaited = true;
        match &self.all {
            Some(_) => self.keyspace.swap_db_locked(a, b, now),
            None => {
                let _all = self.keyspace.locks.lock_all_patiently().ok_or(Error::Busy)?;
                self.keyspace.swap_db_locked(a, b, now)
            }
        }
    }

    /// Commits what is pending and keeps the locks: for a command over whole databases that must see the writes before it. Those are then
    /// there whatever becomes of the rest. If it fails (false), the next [`Transaction::commit`] returns the error and commits nothing.
    #[must_use]
    pub fn commit_so_far(&mut self) -> bool {
        if self.failed.is_none() && !self.parts.is_empty() {
            self.early = true;
            self.failed = self.commit_parts().err();
        }
        self.failed.is_none()
    }

    /// [`Transaction::commit_so_far`], and lets go of all keys: for a command that waits for those who need keys themselves.
    /// [`Transaction::resume`] is to be called before the next one.
    #[must_use]
    pub fn commit_and_release(&mut self) -> bool {
        let committed = self.commit_so_far();
        self.release();
        self.released = true;
        committed
    }

    /// Locks everything for the commands after [`Transaction::commit_and_release`]: they can no more be run again, and so must meet no
    /// conflict. May wait for other clients' commands; [`Locked::Busy`] if in vain.
    pub fn resume(&mut self) -> Locked {
        if !self.released {
            return Locked::Yes;
        }
        let mut plan = LockPlan::default();
        plan.add_everything();
        let locked = self.lock_plan(&mut plan);
        self.released = locked != Locked::Yes;
        locked
    }

    /// Whether [`Transaction::commit_so_far`] failed.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Commits all pending writes and lets go of all keys. On an error none of them counts as acknowledged: a slot whose log could not
    /// take them has none of them.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.failed_in = RestsOn::NOTHING;
        let result = match self.failed.take() {
            Some(error) => {
                self.clear_parts();
                self.changes = 0;
                Err(error)
            }
            None => self.commit_parts(),
        };
        if result.is_err() && self.failed_in == RestsOn::NOTHING {
            self.failed_in = RestsOn::EVERYTHING;
        }
        self.early = false;
        self.release();
        result
    }

    fn release(&mut self) {
        self.command_spans = false;
        self.held.clear();
        self.all = None;
        self.released = false;
        self.bytes = 0;
        self.commands = 0;
    }

    fn commit_parts(&mut self) -> Result<(), Error> {
        if self.parts.is_empty() {
            return Ok(());
        }
        self.close_drafts();
        let mut parts = std::mem::take(&mut self.parts);
        let spans = std::mem::take(&mut self.spans);
        let changes = std::mem::take(&mut self.changes);
        if let Some(error) = &self.failed {
            // Nothing of it has left the overlays.
            return Err(error.clone());
        }
        // Who holds everything holds what a flush needs.
        if self.all.is_none() {
            wait_for_flusher(parts.iter().map(|part| part.overlay.slot()));
        }
        let mut failed = Vec::new();
        let result = self.commit_writes(&mut parts, spans, &mut failed);
        if result.is_ok() {
            self.keyspace.env.changes.fetch_add(changes, Relaxed);
        } else if failed.is_empty() {
            failed.extend(parts.iter().map(|part| part.overlay.slot()));
        } else {
            failed.iter().for_each(|slot| self.failed_in.add(slot));
        }
        let (uncertain, committed): (Vec<_>, Vec<_>) =
            parts.iter().partition(|part| failed.iter().any(|slot| part.is_of(slot)));
        Overlay::committed(committed.into_iter().map(|part| &part.overlay));
        uncertain.into_iter().for_each(|part| part.overlay.uncertain());
        result
    }

    /// `failed`: the slots that may not have their part. If it is empty, an error concerns all of them.
    fn commit_writes(
        &mut self,
        parts: &mut [Part<'k>],
        mut spans: Vec<Span>,
        failed: &mut Vec<&'k Slot>,
    ) -> Result<(), Error> {
        let newest = self.keyspace.env.newest_record.load(Relaxed);
        if parts.iter().flat_map(|part| &part.drafts).any(|draft| draft.time + MAX_COMMAND_MS < newest) {
            return Err(Error::TooLate);
        }
        // A part without a record is that of an effect that failed: it changes nothing and takes part in nothing.
        let mut order: Vec<usize> = (0..parts.len()).filter(|&at| !parts[at].drafts.is_empty()).collect();
        order.sort_unstable_by_key(|&at| (parts[at].overlay.slot().db(), parts[at].overlay.slot().number()));
        let mut writes = Vec::with_capacity(order.len());
        for &at in &order {
            let part = &mut parts[at];
            let write = SlotWrite { drafts: std::mem::take(&mut part.drafts), batch: part.overlay.batch() };
            writes.push((part.overlay.slot(), write));
        }
        if !spans.is_empty() {
            for member in spans.iter_mut().flatten() {
                // It has a record.
                member.0 = order.iter().position(|&at| at == member.0).unwrap_or_default();
            }
            spans.iter_mut().for_each(|span| span.sort_unstable());
            let slots: Vec<&'k Slot> = writes.iter().map(|(slot, _)| *slot).collect();
            let ends = Slot::commit_multi(writes, &spans)?;
            slots.into_iter().zip(ends).for_each(|(slot, end)| self.note_undurable(slot, end.index));
            return Ok(());
        }
        let mut result = Ok(());
        for (slot, write) in writes {
            match slot.commit(write) {
                Ok(end) => self.note_undurable(slot, end.index),
                Err(e) => {
                    failed.push(slot);
                    result = Err(e);
                }
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

    /// The last record of each slot that was committed to, since [`Transaction::wait_durable`].
    pub fn committed(&self) -> impl Iterator<Item = (&'k Slot, u64)> {
        self.undurable.iter().copied()
    }

    /// What [`Transaction::wait_durable`] would wait for, to be waited for elsewhere.
    pub fn take_undurable(&mut self) -> Undurable {
        Undurable(self.undurable.drain(..).map(|(slot, index)| (slot.db(), slot.number(), index)).collect())
    }

    /// Waits until everything committed is on stable storage. Blocks; for `sync : always`.
    pub fn wait_durable(&mut self) -> Result<(), Error> {
        for (slot, index) in self.undurable.drain(..) {
            slot.sync_to(index)?;
        }
        Ok(())
    }
}
