//! CLIENT PAUSE: holds back the commands of clients for a time.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is held back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PauseKind {
    /// Nothing.
    None,
    /// Commands that write or publish.
    Write,
    /// All commands.
    All,
}

/// The state of CLIENT PAUSE.
#[derive(Default)]
pub struct Pause {
    kind: AtomicU8,
    until: Mutex<Option<Instant>>,
    changed: Notify,
    held: AtomicUsize,
}

impl Pause {
    /// What is held back now: one relaxed load while there is no pause.
    pub fn kind(&self) -> PauseKind {
        let kind = match self.kind.load(Relaxed) {
            0 => return PauseKind::None,
            1 => PauseKind::Write,
            _ => PauseKind::All,
        };
        let mut until = self.until.lock();
        if until.is_some_and(|until| Instant::now() < until) {
            return kind;
        }
        *until = None;
        self.kind.store(PauseKind::None as u8, Relaxed);
        PauseKind::None
    }

    /// Holds commands back for a time. A pause that is in force becomes neither weaker nor shorter.
    pub fn begin(&self, kind: PauseKind, time: Duration) {
        let kind = kind.max(self.kind());
        let mut until = self.until.lock();
        // A pause that is longer than the clock can tell is one for a year.
        let end = Instant::now().checked_add(time).unwrap_or_else(|| Instant::now() + Duration::from_secs(31_536_000));
        *until = Some(until.map_or(end, |until| until.max(end)));
        self.kind.store(kind as u8, Relaxed);
    }

    /// Ends the pause.
    pub fn end(&self) {
        *self.until.lock() = None;
        self.kind.store(PauseKind::None as u8, Relaxed);
        self.changed.notify_waiters();
    }

    /// Clients whose command is held back.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Counts a client as held back, for as long as the result lives.
    pub fn hold(&self) -> Held<'_> {
        self.held.fetch_add(1, Relaxed);
        Held(self)
    }

    /// Waits until the pause ends or weakens.
    pub async fn ended(&self) {
        let changed = self.changed.notified();
        let until = *self.until.lock();
        if let Some(until) = until {
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}

/// A client whose command is held back.
pub struct Held<'p>(&'p Pause);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}
