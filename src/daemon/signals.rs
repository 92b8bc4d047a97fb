//! The signals a server listens to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT, by its name: stop cleanly.
    Shutdown(&'static str),
    /// SIGHUP: open the log file by its name again.
    ReopenLog,
}

/// The signals, taken over from the system from [`listen`](Self::listen) on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Begins to listen. Needs a tokio runtime.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. Cancel safe.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.terminate.recv() => Event::Shutdown("SIGTERM"),
            _ = self.interrupt.recv() => Event::Shutdown("SIGINT"),
            _ = self.hang_up.recv() => Event::ReopenLog,
        }
    }
}
