//! Key locks: a fixed table of stripes for the whole node. Hot path.
//!
//! A writer holds the stripes of its keys exclusively from before it reads until its records are committed; a reader holds
//! them shared while it reads. So what a command reads cannot change before it is committed, and a write over several keys
//! is seen whole or not at all.
//!
//! No deadlock: a thread waits for a stripe only while it holds none, or holds only lower ones. Who already holds
//! stripes of earlier commands tries, and on failure commits and lets go first.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Stripes of the table: enough that two of a few hundred running commands rarely meet.
const STRIPES: usize = 4096;

/// The table. One a node.
pub struct KeyLocks {
    stripes: Box<[RwLock<()>]>,
    hasher: FixedState,
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
        KeyLocks { stripes: (0..STRIPES).map(|_| RwLock::new(())).collect(), hasher: FixedState::default() }
    }
}

impl KeyLocks {
    /// The stripe that guards a key of a database. Stripes are locked in rising order.
    pub(super) fn stripe(&self, db: usize, key: &[u8]) -> usize {
        (self.hasher.hash_one((db, key)) as usize) % STRIPES
    }

    pub(super) fn lock(&self, stripe: usize, exclusive: bool) -> StripeGuard<'_> {
        let lock = &self.stripes[stripe];
        if exclusive { StripeGuard::Exclusive(lock.write()) } else { StripeGuard::Shared(lock.read()) }
    }

    pub(super) fn try_lock(&self, stripe: usize, exclusive: bool) -> Option<StripeGuard<'_>> {
        let lock = &self.stripes[stripe];
        if exclusive { lock.try_write().map(StripeGuard::Exclusive) } else { lock.try_read().map(StripeGuard::Shared) }
    }

    /// Waits until no command runs and keeps others from starting: for steps that change whole slots.
    pub(super) fn lock_all(&self) -> AllStripes<'_> {
        AllStripes { _guards: self.stripes.iter().map(|s| s.write()).collect() }
    }
}
