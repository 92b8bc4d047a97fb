//! The auxiliary thread: takes what tasks report and polls everything that may be due, every 100 ms or when woken. It decides; the
//! talking and the file work are the tasks'.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Manager;
use super::replica::Report;

/// How often it looks without being woken.
const TICK: Duration = Duration::from_millis(100);
/// How often silent replicas and old snapshots are looked for.
const SWEEP: Duration = Duration::from_secs(1);

pub(super) fn spawn(manager: Arc<Manager>, inbox: Receiver<Report>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("auxiliary".into()).spawn(move || {
        // What it starts, it starts on the runtime.
        let _runtime = manager.runtime.enter();
        run(&manager, &inbox);
    })
}

fn run(manager: &Arc<Manager>, inbox: &Receiver<Report>) {
    let mut swept = Instant::now();
    loop {
        let first = inbox.recv_timeout(TICK).ok();
        let mut replica = manager.replica.lock();
        for report in first.into_iter().chain(inbox.try_iter()) {
            match report {
                Report::Meta { epoch, result } => replica.meta_answered(manager, epoch, result),
                Report::Slot { id, ticket, outcome } => replica.task_done(manager, id, ticket, outcome),
                Report::Unusable { token } => replica.unusable(&token),
                Report::Wake => {}
                Report::Stop => return,
            }
        }
        replica.poll(manager);
        drop(replica);
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            let swept = manager.replicas.sweep(manager.config.repl_timeout());
            for address in swept.silent {
                tracing::warn!(replica = %address, "not heard from: dropped");
            }
            for (address, (db, number)) in swept.unclaimed {
                tracing::warn!(slot = %format_args!("db{db}:{number}"), replica = %address, "no longer works on this slot: dropped");
            }
            for (address, (db, number), why) in swept.lost {
                tracing::warn!(slot = %format_args!("db{db}:{number}"), replica = %address, "dropped, it needs a full sync: {why}");
            }
            manager.snapshots.sweep();
        }
    }
}
