//! The replica's side of a full sync: fetches a slot's snapshot, again and again where it must, until it is whole.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tonic::transport::Channel;

use super::fetch::{Failure, Transfer};
use super::readers::Readers;
use super::throttle::Throttle;
use super::{Progress, ReceiveError, SlotKey, key_of};
use crate::config::Config;
use crate::disk::{self, Point};
use crate::engine::Applied;
use crate::keyspace::Slot;

/// Tries in a row that bring nothing before a transfer is given up.
const MAX_TRIES: u32 = 10;
/// Files that arrive whole but damaged, and snapshots replaced by others, before a transfer is given up.
const MAX_RESTARTS: u32 = 5;
/// Between tries: doubles from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Receives snapshots; one per node, which shares the limits of its conf file among all transfers.
pub struct Receiver {
    pub(super) config: Arc<Config>,
    pub(super) readers: Readers,
    pub(super) throttle: Throttle,
    /// One transfer a slot at a time: held until the last write of an aborted one is done.
    busy: Mutex<HashMap<SlotKey, Arc<AsyncMutex<()>>>>,
}

/// Where snapshots come from.
#[derive(Clone, Debug)]
pub struct Master {
    /// To port P + 10001. Windows of several MiB and frames of 256 KiB and more make it fast.
    pub channel: Channel,
    /// From the reply to MetaSync.
    pub token: String,
    /// For the log.
    pub name: String,
}

/// A snapshot that is here, whole, verified and durable.
#[derive(Debug)]
pub struct Received {
    /// The engine's folder; `None` when the master's slot was never written.
    pub data: Option<PathBuf>,
    /// What the snapshot contains.
    pub applied: Applied,
    /// Bytes that came over the network, those of failed tries included.
    pub bytes_fetched: u64,
    /// Bytes of the snapshot.
    pub bytes_total: u64,
    pub elapsed: Duration,
    /// Keeps other transfers of the slot from its receive folder until this is dropped, after the data were taken from there.
    _busy: Arc<Transfer>,
}

impl Receiver {
    /// Limits and folder are those of `config`, read each time.
    pub fn new(config: Arc<Config>) -> Receiver {
        Receiver { config, readers: Readers::default(), throttle: Throttle::new(), busy: Mutex::default() }
    }

    /// Receives the snapshot that DBSync has made the master prepare. A transfer that breaks is resumed; what an earlier
    /// one left, also one of an earlier process, is used where it provably belongs to this snapshot. On an error what is there stays for
    /// the next call. Dropping the future stops the transfer at the next message.
    pub async fn receive(
        self: &Arc<Self>,
        master: &Master,
        slot: &Slot,
        progress: &Arc<Progress>,
    ) -> Result<Received, ReceiveError> {
        let busy = self.busy.lock().entry(key_of(slot)).or_default().clone();
        let busy = busy.lock_owned().await;
        let began = Instant::now();
        let fetched_before = progress.bytes_fetched();
        let (transfer, _stop) =
            Transfer::new(self.clone(), master.clone(), slot, folder_of(&self.config, slot), progress.clone(), busy);
        let (mut tries, mut restarts) = (0, 0);
        loop {
            let fetched = progress.bytes_fetched();
            let cause = match transfer.attempt().await {
                Ok((applied, data)) => {
                    let received = Received {
                        data,
                        applied,
                        bytes_fetched: progress.bytes_fetched() - fetched_before,
                        bytes_total: progress.now().bytes_total,
                        elapsed: began.elapsed(),
                        _busy: transfer.clone(),
                    };
                    tracing::info!(slot = %slot, master = master.name, position = %applied.position, bytes = received.bytes_total,
                        fetched = received.bytes_fetched, ms = received.elapsed.as_millis() as u64, "snapshot received");
                    return Ok(received);
                }
                Err(Failure::Fatal(e)) => return Err(e),
                Err(Failure::Restart(cause)) => {
                    restarts += 1;
                    cause
                }
                Err(Failure::Broken(cause)) => {
                    tries = if progress.bytes_fetched() > fetched { 1 } else { tries + 1 };
                    cause
                }
            };
            tracing::warn!(slot = %slot, master = master.name, "the transfer of the snapshot broke: {cause}");
            let (slot, master) = (slot.to_string(), master.name.clone());
            if restarts >= MAX_RESTARTS {
                return Err(ReceiveError::NeverWhole { slot, master, times: restarts, cause });
            }
            if tries >= MAX_TRIES {
                return Err(ReceiveError::GivenUp { slot, master, tries, cause });
            }
            let factor = 1 << tries.saturating_sub(1).min(8);
            tokio::time::sleep((BACKOFF.0 * factor).min(BACKOFF.1)).await;
        }
    }

    /// Removes what earlier transfers of the slot left, unless it is `needed`, when no transfer of the slot runs any more.
    pub async fn discard_unless(&self, slot: &Slot, needed: impl FnOnce() -> bool) {
        let path = folder_of(&self.config, slot);
        if std::fs::symlink_metadata(&path).is_err() {
            return;
        }
        let busy = self.busy.lock().entry(key_of(slot)).or_default().clone();
        let _busy = busy.lock().await;
        if needed() {
            return;
        }
        match tokio::task::block_in_place(|| discard(&self.config, slot)) {
            Ok(()) => tracing::info!(slot = %slot, "removed what had been received of a snapshot that is not needed"),
            Err(e) => tracing::warn!(slot = %slot, "{e}"),
        }
    }
}

/// Where a slot's snapshot is received: `<db-sync-path>/db0/3`.
fn folder_of(config: &Config, slot: &Slot) -> PathBuf {
    config.db_sync_path().join(format!("db{}/{}", slot.db(), slot.number()))
}

/// Removes a slot's receive folder: after its data were installed, or when the slot will not be synced after all. No transfer of the
/// slot may run. Blocks.
pub fn discard(config: &Config, slot: &Slot) -> Result<(), ReceiveError> {
    let path = folder_of(config, slot);
    let is_folder = std::fs::symlink_metadata(&path).map_or(true, |meta| meta.is_dir());
    let removed = match is_folder {
        true => disk::remove_dir(Point::ReceiveDiscard, &path),
        false => disk::remove_file(Point::ReceiveDiscard, &path),
    };
    removed.map_err(|source| ReceiveError::Io { slot: slot.to_string(), path, source })
}
