//! How many bytes of a slot's log may be on their way to a replica: what bounds a master's memory, and keeps a slow link alive.
//!
//! A stream begins with a small window of unacknowledged bytes. It grows while acknowledgements come promptly, up to
//! `sync-window-bytes` for all slots of the replica together, and shrinks when they take long: on a slow link the queue before it
//! must not become so long that keepalives come too late. Every slot may always have one message on its way, so none
//! waits for another one's acknowledgements.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where a window begins, bytes.
const FIRST_WINDOW: u64 = 64 << 10;
/// It is never smaller.
const LEAST_WINDOW: u64 = 4 << 10;
/// An acknowledgement is prompt within this part of `repl-timeout`.
const PROMPT: u32 = 16;
/// It takes long beyond this part.
const LONG: u32 = 4;

/// See the module.
pub(super) struct Pace {
    window: u64,
    flights: VecDeque<Flight>,
    bytes: u64,
    /// Of all streams to the replica.
    total: Arc<AtomicU64>,
    /// When the window was last made smaller: what was sent before says nothing of what it is now.
    shrunk: Option<Instant>,
}

/// A message that was sent and is not acknowledged.
struct Flight {
    index: u64,
    bytes: u64,
    sent: Instant,
    /// Whether it used the window, so that its fate says something of it.
    filled: bool,
}

impl Pace {
    /// Nothing is on its way yet. `total` counts for all streams to the replica.
    pub fn new(total: Arc<AtomicU64>) -> Pace {
        Pace { window: FIRST_WINDOW, flights: VecDeque::new(), bytes: 0, total, shrunk: None }
    }

    /// Bytes that the next message may have: 0 to wait for acknowledgements. `limit`: for all streams to the replica.
    pub fn room(&self, limit: u64) -> u64 {
        if self.flights.is_empty() {
            return self.window;
        }
        let left = limit.saturating_sub(self.total.load(Ordering::Relaxed)).min(self.window.saturating_sub(self.bytes));
        // No crumbs: they would cost a message each.
        if left < self.window / 4 { 0 } else { left }
    }

    /// Records up to `index` were sent.
    pub fn sent(&mut self, index: u64, bytes: u64, now: Instant) {
        self.bytes += bytes;
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.flights.push_back(Flight { index, bytes, sent: now, filled: self.bytes >= self.window / 2 });
    }

    /// Records up to `index` were acknowledged. `timeout`: the silence that ends a stream; `limit` as in [`Pace::room`].
    pub fn acked(&mut self, index: u64, now: Instant, timeout: Duration, limit: u64) {
        while self.flights.front().is_some_and(|flight| flight.index <= index) {
            let Some(flight) = self.flights.pop_front() else { return };
            self.bytes -= flight.bytes;
            self.total.fetch_sub(flight.bytes, Ordering::Relaxed);
            let took = now.saturating_duration_since(flight.sent);
            if took > timeout / LONG {
                if self.shrunk.is_none_or(|at| flight.sent >= at) {
                    self.window = (self.window / 2).max(LEAST_WINDOW);
                    self.shrunk = Some(now);
                }
            } else if took <= timeout / PROMPT && flight.filled {
                self.window = (self.window + flight.bytes).min(limit.max(LEAST_WINDOW));
            }
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);
    const LIMIT: u64 = 16 << 20;

    /// Runs a stream over a link of `rate` bytes a second for `length`; the longest time that an acknowledgement took, and the bytes
    /// acknowledged.
    fn simulate(rate: u64, length: Duration) -> (Duration, u64) {
        let mut pace = Pace::new(Arc::default());
        let begin = Instant::now();
        let (mut now, mut link_free, mut index, mut acked) = (begin, begin, 0, 0);
        let mut longest = Duration::ZERO;
        let mut on_the_way: VecDeque<(Instant, Instant, u64, u64)> = VecDeque::new();
        while now < begin + length {
            let room = pace.room(LIMIT);
            if room > 0 {
                let bytes = room.min(256 << 10);
                index += 1;
                pace.sent(index, bytes, now);
                link_free = link_free.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
                on_the_way.push_back((now, link_free, index, bytes));
                continue;
            }
            let (sent, arrives, last, bytes) = on_the_way.pop_front().unwrap();
            now = now.max(arrives);
            longest = longest.max(now - sent);
            acked += bytes;
            pace.acked(last, now, TIMEOUT, LIMIT);
        }
        (longest, acked)
    }

    #[test]
    fn a_fast_link_is_filled_and_a_slow_one_not_choked() {
        for rate in [20_000u64, 100_000, 1_000_000, 100_000_000] {
            let length = Duration::from_secs(120);
            let (longest, bytes) = simulate(rate, length);
            assert!(longest < TIMEOUT / 2, "{rate} B/s: {longest:?}");
            let possible = rate * length.as_secs();
            assert!(bytes > possible / 2, "{rate} B/s: {bytes} of {possible} bytes");
        }
    }

    #[test]
    fn the_limit_is_for_all_streams_but_each_may_send_something() {
        let total = Arc::new(AtomicU64::new(0));
        let now = Instant::now();
        let mut streams: Vec<Pace> = (0..8).map(|_| Pace::new(total.clone())).collect();
        for pace in &mut streams {
            for index in 0.. {
                match pace.room(100 << 10) {
                    0 => break,
                    room => pace.sent(index, room, now),
                }
            }
        }
        assert!(streams.iter().all(|pace| !pace.flights.is_empty()));
        assert!(total.load(Ordering::Relaxed) <= (100 << 10) + 8 * FIRST_WINDOW);
        streams.remove(0).acked(u64::MAX, now, TIMEOUT, LIMIT);
        streams.clear();
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
