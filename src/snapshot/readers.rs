//! The limit on files that a node fetches at one time, all slots together.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The limit is read again this often.
const RECHECK: Duration = Duration::from_secs(1);

/// Counts those that fetch a file. The limit may change while they do.
#[derive(Debug, Default)]
pub(super) struct Readers {
    active: Mutex<usize>,
    left: Notify,
}

/// One that fetches a file, until it is dropped.
pub(super) struct Reader<'a>(&'a Readers);

impl Readers {
    /// Waits until fewer than `limit` fetch.
    pub async fn enter(&self, limit: impl Fn() -> usize) -> Reader<'_> {
        loop {
            {
                let mut active = self.active.lock();
                if *active < limit().max(1) {
                    *active += 1;
                    return Reader(self);
                }
            }
            let _ = tokio::time::timeout(RECHECK, self.left.notified()).await;
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        *self.0.active.lock() -= 1;
        self.0.left.notify_one();
    }
}
