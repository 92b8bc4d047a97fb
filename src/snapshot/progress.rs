//! How far a transfer is, for INFO.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Listing;

/// Counters of one transfer, written by it and read by anybody.
#[derive(Debug, Default)]
pub struct Progress {
    files_done: AtomicU64,
    files_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    bytes_fetched: AtomicU64,
    begun: Mutex<Option<Begun>>,
}

#[derive(Debug)]
struct Begun {
    uuid: String,
    at: Instant,
}

/// What [`Progress`] says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressNow {
    pub files_done: u64,
    pub files_total: u64,
    /// Bytes that are there, those kept from earlier tries included.
    pub bytes_done: u64,
    pub bytes_total: u64,
    /// Bytes that came over the network.
    pub bytes_fetched: u64,
    /// Bytes fetched a second since the first listing came.
    pub bytes_per_second: u64,
    /// At that rate; `None` before anything was fetched.
    pub seconds_left: Option<u64>,
    /// Seconds since the first listing came.
    pub seconds: u64,
    /// The snapshot; empty until its listing has come.
    pub snapshot_uuid: String,
}

impl Progress {
    /// Reads all counters.
    pub fn now(&self) -> ProgressNow {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let begun = self.begun.lock();
        let (uuid, elapsed) =
            begun.as_ref().map_or((String::new(), 0.0), |b| (b.uuid.clone(), b.at.elapsed().as_secs_f64()));
        let (bytes_done, bytes_total, bytes_fetched) =
            (read(&self.bytes_done), read(&self.bytes_total), read(&self.bytes_fetched));
        let bytes_per_second = if elapsed > 0.0 { (bytes_fetched as f64 / elapsed) as u64 } else { 0 };
        ProgressNow {
            files_done: read(&self.files_done),
            files_total: read(&self.files_total),
            bytes_done,
            bytes_total,
            bytes_fetched,
            bytes_per_second,
            seconds_left: bytes_total.saturating_sub(bytes_done).checked_div(bytes_per_second),
            seconds: elapsed as u64,
            snapshot_uuid: uuid,
        }
    }

    /// A listing has come; what is there of it will be counted anew.
    pub(super) fn begin(&self, listing: &Listing) {
        self.files_done.store(0, Ordering::Relaxed);
        self.bytes_done.store(0, Ordering::Relaxed);
        self.files_total.store(listing.files.len() as u64, Ordering::Relaxed);
        self.bytes_total.store(listing.bytes(), Ordering::Relaxed);
        let mut begun = self.begun.lock();
        let at = begun.as_ref().map_or_else(Instant::now, |b| b.at);
        *begun = Some(Begun { uuid: listing.uuid.clone(), at });
    }

    pub(super) fn kept(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.bytes_fetched.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were there turned out to be damaged.
    pub(super) fn lost(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn file_done(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_fetched(&self) -> u64 {
        self.bytes_fetched.load(Ordering::Relaxed)
    }
}
