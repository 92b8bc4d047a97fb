//! The master's side of full syncs: makes snapshots of slots, shares each between the replicas that want one, and
//! removes them.
//!
//! A slot has one current snapshot at most. It stays while a registered [`Reader`] may need it, and at most `snapshot-ttl` after
//! its last use; whoever streams a file holds the [`Snapshot`], whose folder goes with its last holder.
//!
//! No reader is given a snapshot that contains less than the replica has already: its clients would see the past again.
//!
//! Invariant: the log behind a snapshot's position is pinned without a gap from before the snapshot is made until its reader has joined
//! the log. The slot's entry has a pin of its own for readers to come. Each reader's pin is made while that one holds, at a file not
//! above it, and lasts as long as the [`Reader`], whatever becomes of the snapshot: it may be replaced or removed while a replica still
//! installs it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::checkpoint::{self, Origin};
use super::listing::{Listing, Pieces};
use super::{DATA, Error, FileEntry, INFO, Info, SlotKey, key_of};
use crate::binlog;
use crate::config::Config;
use crate::disk::{self, Point};
use crate::keyspace::{LogPin, Slot};

/// A snapshot further behind than this many binlog files is not given to another replica.
const MAX_FILES_BEHIND: u32 = 50;
/// Snapshots made at one time, over all slots.
const MAKERS: usize = 2;
/// How often a slot's data may be replaced under a snapshot in the making.
const MAX_REPLACED: u32 = 3;

/// A snapshot that is ready to be fetched.
#[derive(Debug)]
pub struct Snapshot {
    folder: Folder,
    info: Info,
    listing: Listing,
    pieces: Pieces,
    /// Of the slot's log.
    generation: u64,
    last_used: Mutex<Instant>,
}

impl Snapshot {
    /// Its name.
    pub fn uuid(&self) -> &str {
        &self.listing.uuid
    }

    /// What it contains.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its files.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Where a file of its listing is.
    pub(super) fn path_of(&self, file: &FileEntry) -> PathBuf {
        file.path_in(&self.folder.0)
    }

    /// Whether a piece of a file, which begins at a multiple of [`super::MESSAGE_LEN`], is still what was listed.
    pub(super) fn is_intact(&self, file: &FileEntry, offset: u64, piece: &[u8]) -> bool {
        self.pieces.matches(&file.name, offset, piece)
    }

    /// Whether the slot's data are those that it was taken of, and what was written since: not those of another full sync.
    pub(super) fn is_of_log(&self, slot: &Slot) -> bool {
        slot.published().generation == self.generation
    }

    /// Counts as a use.
    pub(super) fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    fn is_idle_for(&self, time: Duration) -> bool {
        self.last_used.lock().elapsed() >= time
    }

    /// Index of the last record that it contains.
    fn index(&self) -> u64 {
        self.info.applied.position.index
    }

    /// Whether a replica that fetches it now can go on from its position by the slot's log.
    fn fits(&self, slot: &Slot) -> bool {
        let now = slot.published();
        let filenum = self.info.applied.position.filenum;
        let in_log = match &*slot.store() {
            Some(store) => binlog::file_path(store.log_dir(), filenum).exists(),
            None => self.info.empty,
        };
        let whole = self.folder.0.join(INFO).exists() && (self.info.empty || self.folder.0.join(DATA).exists());
        now.generation == self.generation
            && now.position.filenum.saturating_sub(filenum) <= MAX_FILES_BEHIND
            && in_log
            && whole
    }

    /// Makes it, with a pin of the log behind it.
    fn make(slot: &Slot, dir: &Path, origin: &Origin, stop: &AtomicBool) -> Result<(Snapshot, LogPin), Error> {
        let began = Instant::now();
        let stop = || stop.load(Ordering::Relaxed);
        for _ in 0..MAX_REPLACED {
            let generation = slot.published().generation;
            let pin = slot.pin_log(slot.position().filenum);
            let uuid = Uuid::new_v4().to_string();
            let folder = Folder(dir.join(format!("db{}-{}-{uuid}", slot.db(), slot.number())));
            let info = checkpoint::take(slot, &folder.0, origin)?;
            if slot.published().generation != generation {
                continue;
            }
            let (listing, pieces) = Listing::of_folder(uuid, &folder.0, &stop)?;
            if !info.empty {
                // After the checksums were taken: what is damaged from now on does not match them, what was damaged before is found here.
                slot.verify_checkpoint(&folder.0.join(DATA), &stop)?;
            }
            if stop() {
                return Err(Error::Stopping);
            }
            pin.move_to(info.applied.position.filenum);
            tracing::info!(slot = %slot, position = %info.applied.position, uuid = listing.uuid, files = listing.files.len(),
                bytes = listing.bytes(), ms = began.elapsed().as_millis() as u64, "snapshot made");
            let last_used = Mutex::new(Instant::now());
            return Ok((Snapshot { folder, info, listing, pieces, generation, last_used }, pin));
        }
        Err(Error::Replaced { slot: slot.to_string() })
    }
}

/// A folder that goes when it is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.0);
        let removal = std::thread::Builder::new().name("snapshot-rm".into()).spawn(move || {
            if let Err(e) = disk::remove_dir(Point::SnapshotRemove, &folder) {
                tracing::warn!("could not remove the snapshot {}: {e}; it goes at the next start", folder.display());
            }
        });
        if let Err(e) = removal {
            tracing::warn!("no thread to remove a snapshot with: {e}; it goes at the next start");
        }
    }
}

/// What there is for a replica of a slot.
#[derive(Clone, Debug)]
pub enum SnapshotState {
    /// Nobody asked for one ([`SnapshotSource::prepare`]), or it is gone.
    None,
    Making,
    /// Why there is none; [`SnapshotSource::prepare`] tries again.
    Failed(Arc<str>),
    Ready(Arc<Snapshot>),
}

/// A slot that has, or is to have, a snapshot.
struct Entry {
    /// Those registered, and their pins.
    readers: HashMap<u64, Arc<LogPin>>,
    state: SnapshotState,
    /// When `state` was set.
    since: Instant,
    /// At or before the position of the snapshot, also of one in the making.
    pin: Option<LogPin>,
    /// Pins of readers that joined while the snapshot was in the making: they are where it is when it is made.
    joined: Vec<Arc<LogPin>>,
    /// The most that one of those has already (index of a record): a snapshot with less is made once more.
    least: u64,
}

#[derive(Default)]
struct State {
    slots: HashMap<SlotKey, Entry>,
    queue: VecDeque<Arc<Slot>>,
    makers: usize,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
    next_reader: u64,
}

struct Shared {
    dir: PathBuf,
    config: Arc<Config>,
    state: Mutex<State>,
    stop: AtomicBool,
    made: AtomicU64,
}

/// The snapshots of a server.
pub struct SnapshotSource {
    shared: Arc<Shared>,
}

/// A replica's claim on a slot's snapshot and on the log behind it, until it is dropped.
pub struct Reader {
    shared: Arc<Shared>,
    slot: SlotKey,
    id: u64,
    pin: Arc<LogPin>,
}

impl Reader {
    /// Why the log behind the snapshot is gone, if it is: see [`LogPin::lost`].
    pub fn lost(&self) -> Option<Arc<str>> {
        self.pin.lost()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.state.lock().leave(self.slot, self.id);
    }
}

impl State {
    /// A reader is done. A snapshot without readers goes; one in the making is looked at when it is made.
    fn leave(&mut self, slot: SlotKey, reader: u64) {
        let Some(entry) = self.slots.get_mut(&slot) else { return };
        if entry.readers.remove(&reader).is_some()
            && entry.readers.is_empty()
            && !matches!(entry.state, SnapshotState::Making)
        {
            self.slots.remove(&slot);
        }
    }
}

/// A slot's snapshot, for INFO.
#[derive(Clone, Debug)]
pub struct SnapshotNow {
    /// Database and slot.
    pub slot: (usize, usize),
    pub state: SnapshotState,
    /// Replicas registered.
    pub readers: usize,
    /// Since it is in this state.
    pub age: Duration,
}

impl SnapshotSource {
    /// Snapshots go to `dir` (`<dump-path>/sync`), which is emptied: what an earlier process left is of no use to anyone.
    pub fn new(dir: PathBuf, config: Arc<Config>) -> SnapshotSource {
        if let Err(e) = disk::remove_dir(Point::SnapshotRemoveOld, &dir) {
            tracing::warn!("could not remove old snapshots in {}: {e}", dir.display());
        }
        let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
        SnapshotSource { shared: Arc::new(Shared { dir, config, state: Mutex::default(), stop, made }) }
    }

    /// Registers a reader for the slot, and sees to it that there is a snapshot for it: the one that
    /// is there or being made, or a new one, made in the background. It contains record `has`, an index that the slot has reached. From
    /// here on until the reader is dropped the log behind its position is kept. `None` when the server stops.
    pub fn prepare(&self, slot: &Arc<Slot>, has: u64) -> Option<Reader> {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        if state.stopped {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        let entry = state.slots.entry(key_of(slot)).or_insert_with(Entry::new);
        let held = entry.pin.as_ref().filter(|pin| pin.lost().is_none());
        let is_usable = match &entry.state {
            SnapshotState::Making => true,
            SnapshotState::Ready(snapshot) if held.is_some() && snapshot.index() >= has && snapshot.fits(slot) => {
                snapshot.touch();
                true
            }
            _ => false,
        };
        if !is_usable {
            entry.pin = Some(slot.pin_log(slot.position().filenum));
        }
        let from = entry.pin.as_ref().map_or_else(|| slot.position().filenum, LogPin::filenum);
        let pin = Arc::new(slot.pin_log(from));
        entry.readers.insert(id, pin.clone());
        let reader = Reader { shared: self.shared.clone(), slot: key_of(slot), id, pin: pin.clone() };
        if is_usable {
            if matches!(entry.state, SnapshotState::Making) {
                entry.joined.push(pin);
                entry.least = entry.least.max(has);
            }
            return Some(reader);
        }
        entry.joined = vec![pin];
        entry.least = 0;
        entry.set(SnapshotState::Making);
        state.queue.push_back(slot.clone());
        if state.makers < MAKERS {
            let shared = self.shared.clone();
            state.threads.retain(|t| !t.is_finished());
            match std::thread::Builder::new().name("snapshot".into()).spawn(move || make_queued(&shared)) {
                Ok(thread) => {
                    state.threads.push(thread);
                    state.makers += 1;
                }
                Err(e) if state.makers == 0 => {
                    state.queue.clear();
                    entry.set(SnapshotState::Failed(format!("no thread to make it with: {e}").into()));
                }
                Err(_) => {}
            }
        }
        Some(reader)
    }

    /// What there is for a slot.
    pub fn get(&self, slot: &Slot) -> SnapshotState {
        let state = self.shared.state.lock();
        state.slots.get(&key_of(slot)).map_or(SnapshotState::None, |entry| entry.state.clone())
    }

    /// A reader that is busy with something else says that it still needs the slot's snapshot: that counts as a use.
    pub fn touch(&self, slot: &Slot) {
        if let SnapshotState::Ready(snapshot) = self.get(slot) {
            snapshot.touch();
        }
    }

    /// The slot's snapshot, if it is this one, must not be used any more. The next reader that asks gets a new one.
    pub(super) fn give_up(&self, slot: &Slot, uuid: &str, why: &str) {
        let mut state = self.shared.state.lock();
        let Some(entry) = state.slots.get_mut(&key_of(slot)) else { return };
        if matches!(&entry.state, SnapshotState::Ready(s) if s.uuid() == uuid) {
            tracing::warn!(slot = %slot, uuid, "snapshot given up: {why}");
            entry.set(SnapshotState::Failed(why.into()));
            entry.pin = None;
        }
    }

    /// Snapshots made since the start.
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }

    /// All that there is, in the order of the slots.
    pub fn list(&self) -> Vec<SnapshotNow> {
        let now = |(&slot, entry): (&SlotKey, &Entry)| SnapshotNow {
            slot,
            state: entry.state.clone(),
            readers: entry.readers.len(),
            age: entry.since.elapsed(),
        };
        let mut all: Vec<SnapshotNow> = self.shared.state.lock().slots.iter().map(now).collect();
        all.sort_by_key(|snapshot| snapshot.slot);
        all
    }

    /// Removes snapshots that nobody has used for `snapshot-ttl`. To be called every second or so.
    pub fn sweep(&self) {
        let ttl = self.shared.config.snapshot_ttl();
        self.shared.state.lock().slots.retain(|&(db, number), entry| {
            let goes = match &entry.state {
                // A second holder streams a file of it.
                SnapshotState::Ready(s) => Arc::strong_count(s) == 1 && s.is_idle_for(ttl),
                SnapshotState::Failed(_) | SnapshotState::None => entry.since.elapsed() >= ttl,
                SnapshotState::Making => false,
            };
            if goes && matches!(entry.state, SnapshotState::Ready(_)) {
                tracing::info!(slot = %format_args!("db{db}:{number}"), "snapshot removed: not used for snapshot-ttl");
            }
            !goes
        });
    }

    /// Makes no more snapshots, breaks off those being made, and drops all.
    pub fn stop(&self) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.stopped = true;
            self.shared.stop.store(true, Ordering::Relaxed);
            state.queue.clear();
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that makes snapshots panicked");
            }
        }
        self.shared.state.lock().slots.clear();
    }
}

impl Drop for SnapshotSource {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Entry {
    fn new() -> Entry {
        let (readers, joined) = (HashMap::new(), Vec::new());
        Entry { readers, state: SnapshotState::None, since: Instant::now(), pin: None, joined, least: 0 }
    }

    fn set(&mut self, state: SnapshotState) {
        self.state = state;
        self.since = Instant::now();
    }
}

/// Makes snapshots until none is asked for.
fn make_queued(shared: &Shared) {
    let origin = Origin::of(&shared.config);
    loop {
        let slot = {
            let mut state = shared.state.lock();
            let Some(slot) = state.queue.pop_front() else {
                state.makers -= 1;
                return;
            };
            if state.slots.get(&key_of(&slot)).is_none_or(|entry| entry.readers.is_empty()) {
                state.slots.remove(&key_of(&slot));
                continue;
            }
            slot
        };
        // Whatever becomes of it, its readers are told: a slot that is left as Making could not be synced any more.
        let make = AssertUnwindSafe(|| Snapshot::make(&slot, &shared.dir, &origin, &shared.stop));
        let made = catch_unwind(make).unwrap_or_else(|_| Err(Error::Panicked));
        let mut state = shared.state.lock();
        let Some(entry) = state.slots.get_mut(&key_of(&slot)).filter(|entry| !entry.readers.is_empty()) else {
            state.slots.remove(&key_of(&slot));
            continue;
        };
        let least = std::mem::take(&mut entry.least);
        if let Ok((snapshot, _)) = &made
            && snapshot.index() < least
        {
            // Its checkpoint was taken before somebody joined who has more. The next one is taken after.
            tracing::info!(slot = %slot, uuid = snapshot.uuid(), least, "snapshot discarded: a replica has more already");
            state.queue.push_back(slot);
            continue;
        }
        let joined = std::mem::take(&mut entry.joined);
        match made {
            Ok((snapshot, pin)) => {
                shared.made.fetch_add(1, Ordering::Relaxed);
                // Its log may have been replaced while it was made: that pin is right, whatever theirs were.
                joined.iter().for_each(|reader| reader.move_to(pin.filenum()));
                entry.pin = Some(pin);
                entry.set(SnapshotState::Ready(Arc::new(snapshot)));
            }
            Err(e) => {
                if !matches!(e, Error::Stopping) {
                    tracing::error!(slot = %slot, "no snapshot: {e}");
                }
                entry.pin = None;
                entry.set(SnapshotState::Failed(e.to_string().into()));
            }
        }
    }
}
