//! Background work on slots: making logs durable every second, flushing engines, purging binlog files, deleting what has expired.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::purge::PurgePolicy;
use super::{Error, Keyspace, Slot};

/// How often logs are synced with `sync : everysec`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How often binlog files are looked at for purging.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

/// What the threads ask the conf file for, each time anew.
pub struct HousekeepingOptions {
    /// Whether logs are to be synced every second.
    pub sync_every_second: Box<dyn Fn() -> bool + Send>,
    pub purge_policy: Box<dyn Fn() -> PurgePolicy + Send>,
    /// Bytes of unflushed log over all slots beyond which slots are flushed.
    pub max_unflushed: Box<dyn Fn() -> u64 + Send>,
}

/// The running threads; stopped and joined by [`Housekeeping::stop`].
pub struct Housekeeping {
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Housekeeping {
    /// Starts the threads.
    pub fn start(keyspace: &Arc<Keyspace>, options: HousekeepingOptions) -> std::io::Result<Housekeeping> {
        let HousekeepingOptions { sync_every_second, purge_policy, max_unflushed } = options;
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let syncer = {
            let (keyspace, stopped) = (keyspace.clone(), stopped.clone());
            move || sync_loop(&keyspace, &stopped, &sync_every_second)
        };
        let expirer = {
            let (keyspace, stopped) = (keyspace.clone(), stopped.clone());
            move || super::expire::run(&keyspace, &stopped)
        };
        let flusher = {
            let keyspace = keyspace.clone();
            move || flush_loop(&keyspace, &stopped, &purge_policy, &max_unflushed)
        };
        Ok(Housekeeping {
            stop: Some(stop),
            threads: vec![
                std::thread::Builder::new().name("sync".into()).spawn(syncer)?,
                std::thread::Builder::new().name("flush".into()).spawn(flusher)?,
                std::thread::Builder::new().name("expire".into()).spawn(expirer)?,
            ],
        })
    }

    /// Stops the threads and waits for them.
    pub fn stop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a housekeeping thread panicked");
            }
        }
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop();
    }
}

fn sync_loop(keyspace: &Keyspace, stopped: &Receiver<()>, every_second: &dyn Fn() -> bool) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SYNC_INTERVAL) {
        if every_second() {
            keyspace.sync_logs();
        }
    }
}

fn flush_loop(
    keyspace: &Keyspace,
    stopped: &Receiver<()>,
    policy: &dyn Fn() -> PurgePolicy,
    max_unflushed: &dyn Fn() -> u64,
) {
    let mut purged = Instant::now();
    let mut wait = PURGE_INTERVAL;
    loop {
        keyspace.env.flusher.runs(max_unflushed());
        crossbeam_channel::select! {
            recv(keyspace.flush_requests) -> _ => {}
            recv(stopped) -> _ => {
                keyspace.env.flusher.stops();
                return;
            }
            default(wait) => {}
        }
        // What came meanwhile is next, but the rest must have its turn, however much is written.
        let done = keyspace.flush_what_is_due(&mut report);
        wait = if done { PURGE_INTERVAL } else { Duration::ZERO };
        if purged.elapsed() >= PURGE_INTERVAL {
            purged = Instant::now();
            keyspace.catch_up();
            keyspace.flush_what_is_stuck(&mut |slot, result| {
                // What it is has been said.
                if let Err(e) = result {
                    tracing::debug!(slot = %slot, "still not flushed: {e}");
                }
            });
            let policy = policy();
            keyspace.all_slots().for_each(|slot| report(slot, slot.purge(&policy).map(drop)));
            keyspace.check_engines();
        }
    }
}

fn report(slot: &Slot, result: Result<(), Error>) {
    // That the disk is full the slot has said already; it is tried again every second.
    if let Err(e) = result
        && !e.is_disk_full()
    {
        tracing::error!(slot = %slot, "{e}");
    }
}
