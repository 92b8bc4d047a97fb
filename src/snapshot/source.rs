//! The master's side of full syncs: makes snapshots of slots, shares each between the replicas that want one, and
//! removes them.
//!
//! A slot has one current snapshot at most. It stays while a registered reader may need it, and at most `snapshot-ttl` after
//! its last use; whoever streams a file holds the [`Snapshot`], whose folder goes with its last holder. While a snapshot lives, the
//! slot's log is pinned from a file at or before its position.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

use super::checkpoint::{self, Origin};
use super::listing::Listing;
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
    /// Of the slot's log.
    generation: u64,
    last_used: Mutex<Instant>,
    _pin: LogPin,
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

    /// Counts as a use.
    pub(super) fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    fn is_idle_for(&self, time: Duration) -> bool {
        self.last_used.lock().elapsed() >= time
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

    fn make(slot: &Slot, dir: &Path, origin: &Origin) -> Result<Snapshot, Error> {
        let began = Instant::now();
        for _ in 0..MAX_REPLACED {
            let generation = slot.published().generation;
            let pin = slot.pin_log(slot.position().filenum);
            let uuid = Uuid::new_v4().to_string();
            let folder = Folder(dir.join(format!("db{}-{}-{uuid}", slot.db(), slot.number())));
            let info = checkpoint::take(slot, &folder.0, origin)?;
            if slot.published().generation != generation {
                continue;
            }
            let listing = Listing::of_folder(uuid, &folder.0)?;
            if !info.empty {
                // After the listing: what is damaged later is no more what was listed.
                slot.verify_checkpoint(&folder.0.join(DATA))?;
            }
            tracing::info!(slot = %slot, position = %info.applied.position, uuid = listing.uuid, files = listing.files.len(),
                bytes = listing.bytes(), ms = began.elapsed().as_millis() as u64, "snapshot made");
            let last_used = Mutex::new(Instant::now());
            return Ok(Snapshot { folder, info, listing, generation, last_used, _pin: pin });
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
    readers: HashSet<String>,
    state: SnapshotState,
    /// When `state` was set.
    since: Instant,
}

#[derive(Default)]
struct State {
    slots: HashMap<SlotKey, Entry>,
    queue: VecDeque<Arc<Slot>>,
    makers: usize,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

struct Shared {
    dir: PathBuf,
    config: Arc<Config>,
    state: Mutex<State>,
}

/// The snapshots of a server.
pub struct SnapshotSource {
    shared: Arc<Shared>,
}

impl SnapshotSource {
    /// Snapshots go to `dir` (`<dump-path>/sync`), which is emptied: what an earlier process left is of no use to anyone.
    pub fn new(dir: PathBuf, config: Arc<Config>) -> SnapshotSource {
        if let Err(e) = disk::remove_dir(Point::SnapshotRemoveOld, &dir) {
            tracing::warn!("could not remove old snapshots in {}: {e}", dir.display());
        }
        SnapshotSource { shared: Arc::new(Shared { dir, config, state: Mutex::default() }) }
    }

    /// Registers `reader`, a replica, for the slot, and sees to it that there is a snapshot for it: the one that
    /// is there or being made, or a new one, made in the background. From here on until the snapshot goes the log
    /// behind its position is kept.
    pub fn prepare(&self, slot: &Arc<Slot>, reader: &str) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        if state.stopped {
            return;
        }
        let entry = state.slots.entry(key_of(slot)).or_insert_with(Entry::new);
        entry.readers.insert(reader.to_string());
        match &entry.state {
            SnapshotState::Making => return,
            SnapshotState::Ready(snapshot) if snapshot.fits(slot) => return snapshot.touch(),
            _ => {}
        }
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
    }

    /// What there is for a slot.
    pub fn get(&self, slot: &Slot) -> SnapshotState {
        let state = self.shared.state.lock();
        state.slots.get(&key_of(slot)).map_or(SnapshotState::None, |entry| entry.state.clone())
    }

    /// `reader` is done with its snapshot of the slot, or is gone. A snapshot without readers goes.
    pub fn release(&self, slot: &Slot, reader: &str) {
        let mut state = self.shared.state.lock();
        let Some(entry) = state.slots.get_mut(&key_of(slot)) else { return };
        entry.readers.remove(reader);
        // One in the making is looked at when it is made.
        if entry.readers.is_empty() && !matches!(entry.state, SnapshotState::Making) {
            state.slots.remove(&key_of(slot));
        }
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

    /// Makes no more snapshots, waits for those being made, and drops all.
    pub fn stop(&self) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.stopped = true;
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
        Entry { readers: HashSet::new(), state: SnapshotState::None, since: Instant::now() }
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
        let make = AssertUnwindSafe(|| Snapshot::make(&slot, &shared.dir, &origin));
        let made = catch_unwind(make).unwrap_or_else(|_| Err(Error::Panicked));
        let new = match made {
            Ok(snapshot) => SnapshotState::Ready(Arc::new(snapshot)),
            Err(e) => {
                tracing::error!(slot = %slot, "no snapshot: {e}");
                SnapshotState::Failed(e.to_string().into())
            }
        };
        let mut state = shared.state.lock();
        match state.slots.get_mut(&key_of(&slot)) {
            Some(entry) if !entry.readers.is_empty() => entry.set(new),
            _ => drop(state.slots.remove(&key_of(&slot))),
        }
    }
}
