//! A history: clients that write all kinds of data while faults happen, know what was acknowledged, and check it.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `value` | what a key holds, and a model of the commands that change it |
//! | `family` | keys that one client changes together: what is certain, what is pending, what a failover may undo |
//! | `workload` | the families of a client and its next operations |
//! | `writer` | the client's thread |
//! | `reader` | readers that check, while it goes on, that nothing goes back and nothing is seen half |
//! | `check` | reading families off a node; the final judgement |
//!
//! Each key has one owner, which never has two connections in use. So after every break the owner can look at what is there, and it must
//! be exactly what was acknowledged and some first part of what was in flight; and at the end each key must hold one known value,
//! on every node. A write that was lost, applied twice, applied in part, or applied after it was refused shows up as a difference.
//!
//! The clients connect to the nodes directly: a connection breaks only when the process at its other end ends (then nothing sent
//! on it can be carried out later), or when the client itself closes it with nothing in flight. Links are cut between nodes.
//!
//! **Failovers.** A switchover with everything drained loses nothing. A promotion of a replica that may lack something is an *epoch*:
//! each family then is as it was after some first part of its operations, at least those confirmed by WAIT, slot by slot (so a write of several
//! slots may be half there: docs/binlog.md); its owner takes that for the truth and goes on.

pub mod check;
mod family;
mod reader;
mod value;
mod workload;
mod writer;

pub use check::Outcome;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{DEADLINE, Reply, wait_for};
use reader::{Reader, Watched};
use writer::Writer;

/// What the clients do.
#[derive(Clone)]
pub struct HistoryOptions {
    /// Clients that write; every other one pipelines.
    pub clients: usize,
    /// Databases that all use. One more, the next, is flushed now and then.
    pub databases: usize,
    /// Pause after each batch.
    pub pace: Duration,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// Whether there are replicas: the clients keep what a failover may undo, and ask for confirmation.
    pub replicas: bool,
}

impl Default for HistoryOptions {
    fn default() -> HistoryOptions {
        HistoryOptions { clients: 6, databases: 2, pace: Duration::from_millis(2), prefix: "h".into(), replicas: false }
    }
}

/// The node that takes the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub port: u16,
    /// Promotions so far that may have lost something.
    pub epoch: u64,
}

/// What the threads share.
struct Shared {
    target: Mutex<Target>,
    /// The epoch in which all replicas follow the master.
    settled: AtomicU64,
    /// Which replicas count now, and how many have to confirm a write; `None` while that is not clear.
    confirm: Mutex<(u64, Option<usize>)>,
    pause: AtomicBool,
    idle: AtomicUsize,
    stop: AtomicBool,
    done: AtomicBool,
    acknowledged: AtomicU64,
    confirmed: AtomicU64,
    violations: Mutex<Vec<String>>,
}

impl Shared {
    fn target(&self) -> Target {
        *self.target.lock()
    }

    fn confirmable(&self) -> Option<(u64, usize)> {
        let (version, replicas) = *self.confirm.lock();
        replicas.map(|replicas| (version, replicas))
    }

    fn violated(&self, text: String) {
        self.violations.lock().push(text);
    }

    fn is_violated(&self) -> bool {
        !self.violations.lock().is_empty()
    }
}

/// A running history; dropped, it stops.
pub struct History {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Writer>>,
    readers: Vec<JoinHandle<()>>,
}

impl History {
    /// Starts the clients against the node at `master`, and a reader at each of the ports.
    pub fn start(master: u16, readers: &[u16], options: &HistoryOptions, rng: &mut StdRng) -> History {
        let shared = Arc::new(Shared {
            target: Mutex::new(Target { port: master, epoch: 0 }),
            settled: AtomicU64::new(0),
            confirm: Mutex::default(),
            pause: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            done: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            violations: Mutex::default(),
        });
        let mut watched = Vec::new();
        let mut writers = Vec::new();
        for client in 0..options.clients {
            let mut rng = StdRng::seed_from_u64(rng.random());
            let sources = workload::sources(client, options, &mut rng);
            watched.extend(sources.iter().filter_map(Watched::of));
            let pipeline = if client % 2 == 0 { 24 } else { 1 };
            let (shared, pace) = (shared.clone(), options.pace);
            let writer = Writer { sources, rng, shared, pipeline, pace, lost: Vec::new() };
            writers.push(writer);
        }
        let watched = Arc::new(watched);
        let readers = readers.iter().map(|port| {
            let reader = Reader { port: *port, shared: shared.clone(), watched: watched.clone() };
            thread::spawn(move || reader.run())
        });
        let readers = readers.collect();
        let writers = writers.into_iter().map(|writer| thread::spawn(move || writer.run())).collect();
        History { shared, writers, readers }
    }

    /// Operations acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// What a client or reader has found wrong so far.
    pub fn violation(&self) -> Option<String> {
        self.shared.violations.lock().first().cloned()
    }

    /// Panics if a client or reader has found something wrong.
    #[track_caller]
    pub fn check(&self) {
        if let Some(text) = self.violation() {
            panic!("{text}");
        }
        assert!(!self.writers.iter().any(JoinHandle::is_finished), "a client ended");
        assert!(!self.readers.iter().any(JoinHandle::is_finished), "a reader ended");
    }

    /// Waits until this many more operations are acknowledged.
    #[track_caller]
    pub fn wait_more(&self, operations: u64) {
        let goal = self.acknowledged() + operations;
        wait_for("the clients to get on", DEADLINE, || {
            self.check();
            self.acknowledged() >= goal
        });
    }

    /// Lets the clients pause, or go on.
    pub fn pause(&self, pause: bool) {
        self.shared.pause.store(pause, Ordering::SeqCst);
    }

    /// Whether all clients have paused, with nothing in flight.
    pub fn is_paused(&self) -> bool {
        self.shared.pause.load(Ordering::SeqCst) && self.shared.idle.load(Ordering::SeqCst) == self.writers.len()
    }

    /// The node that takes the writes from now on. `lossy`: it may lack some of what was acknowledged and not confirmed.
    pub fn retarget(&self, port: u16, lossy: bool) {
        let mut target = self.shared.target.lock();
        *target = Target { port, epoch: target.epoch + u64::from(lossy) };
    }

    /// All replicas follow the present master: from here on nothing may go back on them either.
    pub fn settled(&self) {
        let epoch = self.shared.target().epoch;
        self.shared.settled.store(epoch, Ordering::SeqCst);
    }

    /// A write is confirmed when so many replicas have it; `None`: nothing is, until further notice. A WAIT that is under way counts
    /// for nothing.
    pub fn confirm_by(&self, replicas: Option<usize>) {
        let mut confirm = self.shared.confirm.lock();
        *confirm = (confirm.0 + 1, replicas);
    }

    /// Stops the clients; what every node must hold. The master must be up.
    #[track_caller]
    pub fn stop(mut self) -> Outcome {
        self.shared.pause.store(false, Ordering::SeqCst);
        self.shared.stop.store(true, Ordering::SeqCst);
        let writers = self.writers.drain(..).map(|writer| writer.join().expect("a client that did not fail"));
        let writers = writers.collect();
        self.shared.done.store(true, Ordering::SeqCst);
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader that did not fail"));
        if let Some(text) = self.violation() {
            panic!("{text}");
        }
        Outcome::of(writers, self.acknowledged(), self.shared.confirmed.load(Ordering::Relaxed))
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.shared.violated("stopped".into());
        self.shared.done.store(true, Ordering::SeqCst);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}
