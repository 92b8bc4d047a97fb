//! Which binlog files may go: none that recovery needs, none that somebody has pinned, and of the rest those beyond the
//! configured number or age.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{Error, Slot};
use crate::binlog;
use crate::disk::{self, Point};

/// Binlog files that readers of the log still need.
#[derive(Default)]
pub(super) struct Pins {
    next: AtomicU64,
    pins: Arc<Mutex<HashMap<u64, u32>>>,
}

impl Pins {
    fn lowest(&self) -> Option<u32> {
        self.pins.lock().values().copied().min()
    }
}

/// Keeps the files from a number on from being purged, until it is dropped.
#[derive(Debug)]
pub struct LogPin {
    id: u64,
    pins: Arc<Mutex<HashMap<u64, u32>>>,
}

impl LogPin {
    /// Files below `filenum` are no longer needed.
    pub fn advance(&self, filenum: u32) {
        if let Some(pinned) = self.pins.lock().get_mut(&self.id) {
            *pinned = filenum.max(*pinned);
        }
    }
}

impl Drop for LogPin {
    fn drop(&mut self) {
        self.pins.lock().remove(&self.id);
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
    /// Keeps the files from `filenum` on until the pin is dropped.
    pub fn pin_log(&self, filenum: u32) -> LogPin {
        let id = self.pins.next.fetch_add(1, Ordering::Relaxed);
        self.pins.pins.lock().insert(id, filenum);
        LogPin { id, pins: self.pins.pins.clone() }
    }

    /// The lowest file number that purging must keep: what recovery needs, and what is pinned.
    pub fn safe_to_purge_below(&self) -> u32 {
        let needed = self.flushed_filenum();
        self.pins.lowest().map_or(needed, |pinned| pinned.min(needed))
    }

    /// Removes the oldest files that the policy does not keep. Returns how many went.
    pub(super) fn purge(&self, policy: &PurgePolicy) -> Result<usize, Error> {
        let Some(store) = self.store().clone() else { return Ok(0) };
        let files = binlog::list_files(store.log_dir())?;
        let current = self.position().filenum;
        let (needed, safe) = (self.flushed_filenum().min(current), self.safe_to_purge_below());
        let mut total: u64 = files.values().map(|f| f.size).sum();
        let mut left = files.len();
        let mut removed = 0;
        for (&filenum, file) in &files {
            let age = SystemTime::now().duration_since(file.modified).unwrap_or_default();
            let too_many = policy.max_files > 0 && left > policy.max_files;
            let too_old = !policy.max_age.is_zero() && age > policy.max_age;
            let too_big = total > policy.max_pinned_bytes;
            let goes = filenum < needed && if filenum < safe { too_many || too_old || too_big } else { too_big };
            if !goes {
                break;
            }
            if filenum >= safe {
                tracing::warn!(slot = %self, filenum, total, "purging a binlog file that a replica still needs: over binlog-max-pinned-size");
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
