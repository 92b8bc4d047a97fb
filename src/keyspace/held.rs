//! The stripes that a transaction holds. Hot path: asked for each key.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::locks::StripeGuard;

/// Beyond so many stripes they are found by a table.
const SCANNED: usize = 128;
const FILTER_WORDS: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Held<'k> {
    guards: Vec<(usize, StripeGuard<'k>)>,
    /// Stripes that may be held: most that are asked for are not.
    filter: [u64; FILTER_WORDS],
    /// Where each one is, while they are many.
    places: HashMap<usize, usize, FixedState>,
}

impl<'k> Held<'k> {
    pub fn is_empty(&self) -> bool {
        self.guards.is_empty()
    }

    pub fn len(&self) -> usize {
        self.guards.len()
    }

    /// The guard of a stripe, if it is held.
    pub fn get(&self, stripe: usize) -> Option<&StripeGuard<'k>> {
        let (word, bit) = place(stripe);
        if self.filter[word] & bit == 0 {
            return None;
        }
        if self.guards.len() <= SCANNED {
            return self.guards.iter().find(|(held, _)| *held == stripe).map(|(_, guard)| guard);
        }
        self.places.get(&stripe).and_then(|&at| self.guards.get(at)).map(|(_, guard)| guard)
    }

    /// Adds one that is not held.
    pub fn push(&mut self, stripe: usize, guard: StripeGuard<'k>) {
        let (word, bit) = place(stripe);
        self.filter[word] |= bit;
        self.guards.push((stripe, guard));
        if self.guards.len() > SCANNED {
            self.find_places();
        }
    }

    /// Lets go of all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.guards.truncate(len);
        self.places.retain(|_, at| *at < len);
    }

    /// Lets go of what is only shared.
    pub fn let_go_of_shared(&mut self) {
        let before = self.guards.len();
        self.guards.retain(|(_, guard)| matches!(guard, StripeGuard::Exclusive(_)));
        if self.guards.len() != before {
            self.places.clear();
            if self.guards.len() > SCANNED {
                self.find_places();
            }
        }
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.guards.clear();
        self.places.clear();
        self.filter = [0; FILTER_WORDS];
    }

    /// The places of those that have none yet, which are the last ones.
    fn find_places(&mut self) {
        for at in self.places.len()..self.guards.len() {
            self.places.insert(self.guards[at].0, at);
        }
    }
}

fn place(stripe: usize) -> (usize, u64) {
    (stripe / 64 % FILTER_WORDS, 1 << (stripe % 64))
}

#[cfg(test)]
mod tests {
    use super::super::locks::KeyLocks;
    use super::*;

    #[test]
    fn few_and_many_are_found() {
        let locks = KeyLocks::default();
        let mut held = Held::default();
        let is_held = |held: &Held<'_>, stripe| held.get(stripe).is_some();
        for stripe in 0..1000 {
            // Every third one only shared.
            held.push(stripe * 7, locks.lock(stripe * 7, stripe % 3 != 0));
        }
        (0..7000).for_each(|stripe| assert_eq!(is_held(&held, stripe), stripe % 7 == 0, "{stripe}"));
        held.truncate(500);
        (0..7000).for_each(|stripe| assert_eq!(is_held(&held, stripe), stripe % 7 == 0 && stripe < 3500, "{stripe}"));
        held.let_go_of_shared();
        (0..7000).for_each(|stripe| {
            assert_eq!(is_held(&held, stripe), stripe % 7 == 0 && stripe < 3500 && stripe % 21 != 0, "{stripe}");
        });
        held.truncate(20);
        assert_eq!(held.len(), 20);
        held.push(3500, locks.lock(3500, true));
        assert!(is_held(&held, 3500) && is_held(&held, 7) && !is_held(&held, 3493));
        held.clear();
        assert!(held.is_empty() && !is_held(&held, 7));
        assert!(locks.try_lock(7, true).is_some());
    }
}
