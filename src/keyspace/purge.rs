//! Which binlog files may go: none that recovery needs, none that somebody has pinned, and of the rest those beyond the
//! configured number or age.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{Error, Slot};
use crate::binlog;
use crate::disk::{self, Point};

/// Binlog files that readers of the log still need.
#[derive(Default)]
pub(super) struct Pins {
    shared: Arc<Mutex<PinTable>>,
}

#[derive(Debug, Default)]
struct PinTable {
    next: u64,
    pins: HashMap<u64, Pinned>,
    /// The log generation that was purged last, and the number below which its files are gone or about to go. Set before the first of
    /// them is removed, and looked at when a file is pinned: a pin either keeps its file or knows that it does not.
    gone: (u64, u32),
}

#[derive(Debug)]
struct Pinned {
    filenum: u32,
    lost: Option<Arc<str>>,
}

impl PinTable {
    fn lowest(&self) -> Option<u32> {
        self.pins.values().filter(|pin| pin.lost.is_none()).map(|pin| pin.filenum).min()
    }

    /// Announces that the files below `below` go. Pins on them are lost because of `why`; returns how many were not before.
    fn give_up(&mut self, generation: u64, below: u32, why: &str) -> usize {
        self.gone = if self.gone.0 == generation { (generation, below.max(self.gone.1)) } else { (generation, below) };
        let hit = self.pins.values_mut().filter(|pin| pin.lost.is_none() && pin.filenum < below);
        let why: Arc<str> = why.into();
        hit.map(|pin| pin.lost = Some(why.clone())).count()
    }
}

/// Keeps the files from a number on from being purged, until it is dropped or lost.
#[derive(Debug)]
pub struct LogPin {
    id: u64,
    shared: Arc<Mutex<PinTable>>,
}

impl LogPin {
    /// Files below `filenum` are no longer needed.
    pub fn advance(&self, filenum: u32) {
        if let Some(pin) = self.shared.lock().pins.get_mut(&self.id) {
            pin.filenum = filenum.max(pin.filenum);
        }
    }

    /// Keeps the files from `filenum` on instead, which another pin must be keeping meanwhile.
    pub fn move_to(&self, filenum: u32) {
        if let Some(pin) = self.shared.lock().pins.get_mut(&self.id) {
            pin.filenum = filenum;
        }
    }

    /// The lowest file that it keeps.
    pub fn filenum(&self) -> u32 {
        self.shared.lock().pins.get(&self.id).map_or(0, |pin| pin.filenum)
    }

    /// Why files that it was to keep are gone, if they are: the log had grown beyond `binlog-max-pinned-size`, or they were gone
    /// before.
    pub fn lost(&self) -> Option<Arc<str>> {
        self.shared.lock().pins.get(&self.id).and_then(|pin| pin.lost.clone())
    }
}

impl Drop for LogPin {
    fn drop(&mut self) {
        self.shared.lock().pins.remove(&self.id);
    }
}

/// What the conf file says about keeping files.
#[derive(Clone, Copy, Debug)]
pub struct PurgePolicy {
    /// Files kept of each slot (`expire-logs-nums`); 0 = no limit.
    pub max_files: usize,
    /// Age at which a file goes (`expire-logs-days`); zero = no limit.
    pub max_age: Duration,
    /// Bytes of log a slot may have before even pinned files go (`binlog-max-pinned-size`).
    pub max_pinned_bytes: u64,
}

impl Slot {
    /// Keeps the files from `filenum` on until the pin is dropped. It is lost at once if they are gone already.
    pub fn pin_log(&self, filenum: u32) -> LogPin {
        let generation = self.published().generation;
        let mut table = self.pins.shared.lock();
        let id = table.next;
        table.next += 1;
        let gone = table.gone.0 == generation && filenum < table.gone.1;
        let lost = gone.then(|| Arc::from("the records after its position are purged already"));
        table.pins.insert(id, Pinned { filenum, lost });
        LogPin { id, shared: self.pins.shared.clone() }
    }

    /// The lowest file number that purging must keep: what recovery needs, and what is pinned.
    pub fn safe_to_purge_below(&self) -> u32 {
        let needed = self.flushed_filenum();
        self.pins.shared.lock().lowest().map_or(needed, |pinned| pinned.min(needed))
    }

    /// Whether the files of this log up to `filenum` may go: nobody has them pinned, or `over_cap` says why that no longer counts. From
    /// here on nobody can pin them.
    pub(super) fn claim_to_purge(&self, generation: u64, filenum: u32, over_cap: Option<&str>) -> bool {
        let mut table = self.pins.shared.lock();
        let free = table.lowest().is_none_or(|pinned| filenum < pinned);
        if !free && over_cap.is_none() {
            return false;
        }
        let lost = table.give_up(generation, filenum + 1, over_cap.unwrap_or_default());
        drop(table);
        if lost > 0 {
            tracing::warn!(slot = %self, filenum, pins = lost, "purging binlog files that a replica still needs: {}", over_cap.unwrap_or_default());
        }
        true
    }

    /// Removes the oldest files that the policy does not keep. Returns how many went.
    pub(super) fn purge(&self, policy: &PurgePolicy) -> Result<usize, Error> {
        let Some(store) = self.store().clone() else { return Ok(0) };
        let files = binlog::list_files(store.log_dir())?;
        let current = self.position().filenum;
        let needed = self.flushed_filenum().min(current);
        let mut total: u64 = files.values().map(|f| f.size).sum();
        let mut left = files.len();
        let mut removed = 0;
        for (&filenum, file) in files.range(..needed) {
            let age = SystemTime::now().duration_since(file.modified).unwrap_or_default();
            let too_many = policy.max_files > 0 && left > policy.max_files;
            let too_old = !policy.max_age.is_zero() && age > policy.max_age;
            let over_cap = (total > policy.max_pinned_bytes).then(|| {
                format!(
                    "the log of {self} had grown to {total} bytes, over binlog-max-pinned-size ({} bytes)",
                    policy.max_pinned_bytes
                )
            });
            let expired = too_many || too_old || over_cap.is_some();
            if !expired || !self.claim_to_purge(store.current.log, filenum, over_cap.as_deref()) {
                break;
            }
            let path = binlog::file_path(store.log_dir(), filenum);
            disk::remove_file(Point::PurgeRemove, &path).map_err(Error::io(&path))?;
            total -= file.size;
            left -= 1;
            removed += 1;
        }
        if removed > 0 {
            tracing::debug!(slot = %self, removed, "purged binlog files");
        }
        Ok(removed)
    }
}
