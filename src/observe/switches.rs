//! What DEBUG switches on and off for a whole server.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Set by DEBUG, for tests; all as in normal operation at the start. Reading is one relaxed load.
pub struct Switches {
    active_expire: AtomicBool,
    deny_scripts: AtomicBool,
    cron: AtomicBool,
}

impl Default for Switches {
    fn default() -> Self {
        let on = || AtomicBool::new(true);
        Switches { active_expire: on(), deny_scripts: on(), cron: on() }
    }
}

impl Switches {
    /// Whether expired keys are looked for and deleted in the background (DEBUG SET-ACTIVE-EXPIRE).
    pub fn active_expire(&self) -> bool {
        self.active_expire.load(Relaxed)
    }

    /// Whether commands flagged so are refused to scripts (DEBUG SET-DISABLE-DENY-SCRIPTS turns it off).
    pub fn deny_scripts(&self) -> bool {
        self.deny_scripts.load(Relaxed)
    }

    /// Whether chores that Redis's cron does, as trimming the table of CLIENT TRACKING, are done (DEBUG PAUSE-CRON).
    pub fn cron(&self) -> bool {
        self.cron.load(Relaxed)
    }

    /// See [`active_expire`](Self::active_expire).
    pub fn set_active_expire(&self, on: bool) {
        self.active_expire.store(on, Relaxed);
    }

    /// See [`deny_scripts`](Self::deny_scripts).
    pub fn set_deny_scripts(&self, on: bool) {
        self.deny_scripts.store(on, Relaxed);
    }

    /// See [`cron`](Self::cron).
    pub fn set_cron(&self, on: bool) {
        self.cron.store(on, Relaxed);
    }
}
