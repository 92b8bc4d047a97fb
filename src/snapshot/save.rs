//! Making one save: checkpoints of all slots, and the part of each log that brings them to one moment.
//!
//! The checkpoints are taken one after the other while the node is written to. Then, with the commit locks of all slots held for that
//! instant, the ends of all logs are noted, and each slot's records between its checkpoint and there are copied beside it. A write over
//! several slots is committed under the locks of all of them, so a save has all of it or nothing (on a replica, which receives the
//! slots one by one, a part may be missing).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::checkpoint::{self, Origin};
use super::listing::hash_file;
use super::{DATA, Error, FileEntry, Info, LOG, MANIFEST, Manifest, SavedSlot, SlotKey, key_of};
use crate::binlog;
use crate::disk::{self, Point, Replace};
use crate::keyspace::{Keyspace, LogEnd, LogPin, Slot};

/// How often the data of slots may be replaced while they are saved.
const MAX_ROUNDS: u32 = 5;

/// A slot's checkpoint.
struct Taken {
    info: Info,
    /// Of the slot's log.
    generation: u64,
    /// Keeps the log behind it.
    _pin: LogPin,
}

/// Fills the new folder `folder`. Durable when it returns, but for the folder's name in its parent. Ends early when `stop` is set.
pub(super) fn fill(keyspace: &Keyspace, folder: &Path, origin: &Origin, stop: &AtomicBool) -> Result<(), Error> {
    let stopped = || if stop.load(Ordering::Relaxed) { Err(Error::Stopping) } else { Ok(()) };
    disk::create_dir_all(Point::BgsaveCreateDir, folder).map_err(Error::io(folder))?;
    let mut taken = BTreeMap::new();
    let ends = take_all(keyspace, folder, origin, &mut taken, &stopped)?;
    // All of it was executed before this.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;

    let mut slots = Vec::new();
    for end in &ends {
        stopped()?;
        let key = key_of(&end.slot);
        let Some(Taken { info, .. }) = taken.get(&key) else { continue };
        let (from, to) = (info.applied.position, end.published.position);
        if from != to {
            let log = folder_of(folder, key).join(LOG);
            binlog::copy_records(end.store.log_dir(), from, to, &log, &mut |_| {}).map_err(Error::Binlog)?;
        }
        slots.push(SavedSlot { slot: key, from, to });
    }
    // Nothing of the logs is needed any more.
    taken.clear();

    let mut files = Vec::new();
    for &SavedSlot { slot, .. } in &slots {
        let dir = folder_of(folder, slot);
        list(folder, &dir, &mut files, &stopped)?;
        // A save that cannot be read is none. After the checksums were taken: what is damaged from now on does not match them.
        let served = keyspace.db_on_disk(slot.0).slots().get(slot.1);
        served.map_or(Ok(()), |slot| slot.verify_checkpoint(&dir.join(DATA), &|| stop.load(Ordering::Relaxed)))?;
        stopped()?;
        disk::sync_dir(Point::BgsaveSyncDb, &dir).map_err(Error::io(&dir))?;
        let parent = dir.parent().unwrap_or(folder);
        disk::sync_dir(Point::BgsaveSyncDb, parent).map_err(Error::io(parent))?;
    }
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest {
        taken: now,
        node: format!("{}:{}", origin.host, origin.port),
        version: env!("CARGO_PKG_VERSION").into(),
        slot_num: keyspace.slots_per_database(),
        databases: keyspace.databases(),
        slots,
        files,
    };
    let path = folder.join(MANIFEST);
    disk::replace_file(&Replace::MANIFEST, &path, manifest.encode().as_bytes()).map_err(Error::io(&path))?;
    disk::sync_dir(Point::BgsaveSyncDir, folder).map_err(Error::io(folder))
}

/// Takes the checkpoints of all slots that were ever written, and the ends of all logs at one moment after that.
fn take_all(
    keyspace: &Keyspace,
    folder: &Path,
    origin: &Origin,
    taken: &mut BTreeMap<SlotKey, Taken>,
    stopped: &dyn Fn() -> Result<(), Error>,
) -> Result<Vec<LogEnd>, Error> {
    for _ in 0..MAX_ROUNDS {
        // One that has data which cannot be read is not passed over.
        for slot in keyspace.all_slots().filter(|slot| slot.store().is_some() || slot.fault().is_some()) {
            if let Entry::Vacant(place) = taken.entry(key_of(slot)) {
                stopped()?;
                place.insert(take(slot, folder, origin)?);
            }
        }
        let ends = keyspace.log_ends();
        let mut all = true;
        for end in &ends {
            let key = key_of(&end.slot);
            // A slot that was written first since, or took its master's data: the log does not go on from the checkpoint.
            if taken.get(&key).is_none_or(|taken| taken.generation != end.published.generation) {
                all = false;
                taken.remove(&key);
            }
        }
        if all {
            return Ok(ends);
        }
    }
    Err(Error::Replaced { slot: "the keyspace".into() })
}

fn take(slot: &Arc<Slot>, folder: &Path, origin: &Origin) -> Result<Taken, Error> {
    let dir = folder_of(folder, key_of(slot));
    // Of a checkpoint whose log was replaced.
    disk::remove_dir(Point::BgsaveForget, &dir).map_err(Error::io(&dir))?;
    let generation = slot.published().generation;
    let pin = slot.pin_log(slot.position().filenum);
    let info = checkpoint::take(slot, &dir, origin)?;
    Ok(Taken { info, generation, _pin: pin })
}

/// Where a slot is in a save.
pub fn folder_of(save: &Path, (db, number): SlotKey) -> PathBuf {
    save.join(format!("db{db}")).join(number.to_string())
}

/// Adds the files below `dir`, by their paths below `save`.
fn list(
    save: &Path,
    dir: &Path,
    files: &mut Vec<FileEntry>,
    stopped: &dyn Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let path = entry.path();
        if entry.file_type().map_err(Error::io(&path))?.is_dir() {
            list(save, &path, files, stopped)?;
            continue;
        }
        stopped()?;
        let (size, checksum) = hash_file(&path).map_err(Error::io(&path))?;
        let name = path.strip_prefix(save).unwrap_or(&path).to_string_lossy().into_owned();
        files.push(FileEntry { name, size, checksum });
    }
    Ok(())
}
