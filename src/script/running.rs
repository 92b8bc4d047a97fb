//! The scripts that run: what FUNCTION STATS shows, what makes the server BUSY, what SCRIPT KILL ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

/// What kind of script it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptKind {
    /// Of EVAL, ended by SCRIPT KILL.
    Eval,
    /// Of FCALL, ended by FUNCTION KILL.
    Function,
}

impl ScriptKind {
    /// What other commands are told while a slow script of this kind runs.
    pub const fn busy_error(self) -> &'static str {
        match self {
            ScriptKind::Eval => {
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
            }
            ScriptKind::Function => {
                "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
            }
        }
    }
}

/// How a script was called.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The whole command, for FUNCTION STATS.
    pub command: Vec<Bytes>,
    /// Time after which the script counts as slow and may be killed; `None`: never slow, always to be killed.
    pub busy_after: Option<Duration>,
    /// Whether it comes from the master, and so must run to its end.
    pub from_master: bool,
}

/// A script that runs.
#[derive(Debug)]
pub struct Run {
    /// What kind it is.
    pub kind: ScriptKind,
    /// The digest of an EVAL script, the name of a function.
    pub name: String,
    /// How it was called.
    pub invocation: Invocation,
    started: Instant,
    slow: AtomicBool,
    wrote: AtomicBool,
    killed: AtomicBool,
}

impl Run {
    /// How long it has been running.
    pub fn duration(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes that it has run a command that writes: it can be killed no more.
    pub fn set_wrote(&self) {
        self.wrote.store(true, Relaxed);
    }

    /// Whether it was told to end.
    pub(super) fn killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    fn killable_now(&self) -> bool {
        self.invocation.busy_after.is_none() || self.slow.load(Relaxed)
    }
}

/// Is told that a script has become slow (`true`), and that one that was has ended.
pub type SlowObserver = Box<dyn Fn(bool) + Send + Sync>;

/// All scripts that run.
#[derive(Default)]
pub(super) struct Running {
    runs: Mutex<Vec<Arc<Run>>>,
    stopped: AtomicBool,
    slow: AtomicUsize,
    observer: OnceLock<SlowObserver>,
}

impl Running {
    pub fn start(&self, kind: ScriptKind, name: &str, invocation: Invocation) -> Arc<Run> {
        let run = Arc::new(Run {
            kind,
            name: name.to_owned(),
            invocation,
            started: Instant::now(),
            slow: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            killed: AtomicBool::new(false),
        });
        let mut runs = self.runs.lock();
        run.killed.store(self.stopped.load(Relaxed), Relaxed);
        runs.push(Arc::clone(&run));
        drop(runs);
        run
    }

    pub fn end(&self, run: &Arc<Run>) {
        self.runs.lock().retain(|other| !Arc::ptr_eq(other, run));
        if run.slow.load(Relaxed) {
            self.slow.fetch_sub(1, Relaxed);
            self.tell(false);
        }
    }

    /// Sets who is told of slow scripts, once.
    pub fn observe(&self, observer: SlowObserver) {
        self.observer.get_or_init(|| observer);
    }

    fn tell(&self, slow: bool) {
        if let Some(observer) = self.observer.get() {
            observer(slow);
        }
    }

    /// Looks whether `run` has become slow. Called by its own thread only.
    pub fn tick(&self, run: &Run) {
        let Some(limit) = run.invocation.busy_after else { return };
        if run.duration() >= limit && !run.slow.swap(true, Relaxed) {
            self.slow.fetch_add(1, Relaxed);
            self.tell(true);
            let command = match run.kind {
                ScriptKind::Eval => "SCRIPT KILL",
                ScriptKind::Function => "FUNCTION KILL",
            };
            tracing::warn!(name = %run.name, after = ?run.duration(), "slow script; {command} ends it");
        }
    }

    /// The kind of a slow script that runs.
    pub fn busy(&self) -> Option<ScriptKind> {
        if self.slow.load(Relaxed) == 0 {
            return None;
        }
        self.runs.lock().iter().find(|run| run.slow.load(Relaxed)).map(|run| run.kind)
    }

    /// The script of this kind that has been running longest.
    pub fn longest(&self, kind: ScriptKind) -> Option<Arc<Run>> {
        self.runs.lock().iter().find(|run| run.kind == kind).cloned()
    }

    /// Ends all scripts, and those that begin from now on.
    pub fn stop(&self) {
        let runs = self.runs.lock();
        self.stopped.store(true, Relaxed);
        runs.iter().for_each(|run| run.killed.store(true, Relaxed));
    }

    pub fn kill(&self, kind: ScriptKind) -> Result<(), &'static str> {
        let runs = self.runs.lock();
        let mut candidates = runs.iter().filter(|run| run.killable_now()).peekable();
        if candidates.peek().is_none() {
            return Err("NOTBUSY No scripts in execution right now.");
        }
        let (of_kind, others): (Vec<_>, Vec<_>) = candidates.partition(|run| run.kind == kind);
        let ends = |run: &&&Arc<Run>| !run.invocation.from_master && !run.wrote.load(Relaxed);
        let mut ended = false;
        for run in of_kind.iter().filter(ends) {
            run.killed.store(true, Relaxed);
            ended = true;
        }
        if ended {
            return Ok(());
        }
        let all = || of_kind.iter().chain(&others);
        if all().any(|run| run.invocation.from_master) {
            return Err(
                "UNKILLABLE The busy script was sent by a master instance in the context of replication and cannot be killed.",
            );
        }
        if all().any(|run| run.wrote.load(Relaxed)) {
            return Err(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
                 script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
            );
        }
        Err(match kind {
            ScriptKind::Eval => ScriptKind::Function,
            ScriptKind::Function => ScriptKind::Eval,
        }
        .busy_error())
    }
}
