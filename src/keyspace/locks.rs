//! Key locks: a fixed table of stripes for the whole node. Hot path.
//!
//! A writer holds the stripes of its keys exclusively from before it reads until its records are committed; a reader holds
//! them shared while it reads. So what a command reads cannot change before it is committed, and a write over several keys
//! is seen whole or not at all.
//!
//! No deadlock: a thread waits for a stripe only while it holds none, or holds only lower ones. Who already holds
//! stripes of earlier commands tries, and on failure commits and lets go first.
//!
//! The locks of the node, in the order in which they are taken. Whoever waits for one holds only such as stand before it:
//!
//! 1. what the master is: `gate` and `node` of [`crate::replication::Manager`];
//! 2. maintenance locks of slots, in the order of the slots: flush, checkpoint, replacement of data ([`super::slot::Maintenance`]);
//! 3. stripes, rising: commands, and steps that need all keys ([`KeyLocks::lock_all`]);
//! 4. commit locks of slots, in the order of the slots;
//! 5. locks that are held for a few instructions: logs' sync handles, queues, pins, caches, tables of waiting and watching clients.
//!
//! An engine's own locks are under all of these. RocksDB's write stalls are waited for under 4 and end by its own flushes and compactions,
//! which take none of these. Who waits for the flusher ([`super::flush`]), which takes 2 and 4, holds 3 at most, and does not wait for
//! long. A command that comes to need
//! 2 while it holds 3 (FLUSHALL in EXEC or a script) is given up and run again with all of both ([`super::LockPlan`]).

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::FixedState;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Stripes of the table, 8 bytes each: enough that two turns, each of which holds some hundred keys, rarely meet.
const STRIPES: usize = 1 << 16;

/// How long a command waits for a stripe before it tells the runtime that its thread waits, so that other clients are served meanwhile.
pub(super) const SHORT_WAIT: Duration = Duration::from_millis(2);
/// How often a command that waits longer looks whether it should.
const PATIENCE: Duration = Duration::from_millis(50);

/// The table. One a node.
pub struct KeyLocks {
    stripes: Box<[RwLock<()>]>,
    hasher: FixedState,
    /// Commands that hold stripes for longer than others are expected to wait: scripts that do not end.
    overtime: AtomicUsize,
}

/// A held stripe; released when dropped.
#[allow(dead_code, reason = "held for its Drop")]
pub(super) enum StripeGuard<'k> {
    Shared(RwLockReadGuard<'k, ()>),
    Exclusive(RwLockWriteGuard<'k, ()>),
}

/// All stripes, held exclusively.
pub(super) struct AllStripes<'k> {
    _guards: Vec<RwLockWriteGuard<'k, ()>>,
}

impl Default for KeyLocks {
    fn default() -> Self {
        KeyLocks {
            stripes: (0..STRIPES).map(|_| RwLock::new(())).collect(),
            hasher: FixedState::default(),
            overtime: AtomicUsize::new(0),
        }
    }
}

impl KeyLocks {
    /// The stripe that guards a key in every database: which one the key is in may change (SWAPDB) until the stripe is held. Stripes are
    /// locked in rising order.
    pub(super) fn stripe(&self, key: &[u8]) -> usize {
        (self.hasher.hash_one(key) as usize) % STRIPES
    }

    pub(super) fn lock(&self, stripe: usize, exclusive: bool) -> StripeGuard<'_> {
        let lock = &self.stripes[stripe];
        if exclusive { StripeGuard::Exclusive(lock.write()) } else { StripeGuard::Shared(lock.read()) }
    }

    /// [`KeyLocks::lock`] for a client's command, which may have to wait for another's: `None` when that is not to be expected to end soon.
    pub(super) fn lock_patiently(&self, stripe: usize, exclusive: bool) -> Option<StripeGuard<'_>> {
        self.lock_within(stripe, exclusive, SHORT_WAIT).or_else(|| {
            while_waiting(|| {
                loop {
                    if let Some(guard) = self.lock_within(stripe, exclusive, PATIENCE) {
                        return Some(guard);
                    }
                    if self.is_overtime() {
                        return None;
                    }
                }
            })
        })
    }

    /// [`KeyLocks::lock`], `None` if it takes longer than `limit`.
    pub(super) fn lock_within(&self, stripe: usize, exclusive: bool, limit: Duration) -> Option<StripeGuard<'_>> {
        let lock = &self.stripes[stripe];
        if exclusive {
            lock.try_write_for(limit).map(StripeGuard::Exclusive)
        } else {
            lock.try_read_for(limit).map(StripeGuard::Shared)
        }
    }

    /// Somebody holds stripes for too long (`true`), or does no more.
    pub(super) fn set_overtime(&self, begins: bool) {
        if begins {
            self.overtime.fetch_add(1, Ordering::Relaxed);
        } else {
            self.overtime.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether somebody holds stripes for too long.
    pub(super) fn is_overtime(&self) -> bool {
        self.overtime.load(Ordering::Relaxed) > 0
    }

    pub(super) fn try_lock(&self, stripe: usize, exclusive: bool) -> Option<StripeGuard<'_>> {
        let lock = &self.stripes[stripe];
        if exclusive { lock.try_write().map(StripeGuard::Exclusive) } else { lock.try_read().map(StripeGuard::Shared) }
    }

    /// Waits until no command runs and keeps others from starting: for steps that change whole slots.
    pub(super) fn lock_all(&self) -> AllStripes<'_> {
        AllStripes { _guards: self.stripes.iter().map(|s| s.write()).collect() }
    }

    /// [`KeyLocks::lock_all`] for a client's command, as [`KeyLocks::lock_patiently`].
    pub(super) fn lock_all_patiently(&self) -> Option<AllStripes<'_>> {
        let mut guards = Vec::with_capacity(self.stripes.len());
        for stripe in 0..self.stripes.len() {
            match self.lock_patiently(stripe, true)? {
                StripeGuard::Exclusive(guard) => guards.push(guard),
                StripeGuard::Shared(_) => return None,
            }
        }
        Some(AllStripes { _guards: guards })
    }
}

/// Runs something that waits or takes long, and lets the tasks that its thread would run be run by others.
pub(crate) fn while_waiting<T>(f: impl FnOnce() -> T) -> T {
    let workers = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if workers { tokio::task::block_in_place(f) } else { f() }
}
