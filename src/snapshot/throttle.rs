//! The limit on bytes a second that a node fetches in full syncs, all slots together.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Unused allowance is kept for so long.
const BURST: Duration = Duration::from_millis(100);
/// The rate is read again this often.
const RECHECK: Duration = Duration::from_millis(100);

/// Shared by all that fetch: each waits its turn, in the order in which they asked.
#[derive(Debug)]
pub(super) struct Throttle(Mutex<Bucket>);

/// Bytes asked for so far, and bytes allowed so far.
#[derive(Debug)]
struct Bucket {
    asked: f64,
    allowed: f64,
    at: Instant,
}

impl Bucket {
    fn new(at: Instant) -> Bucket {
        Bucket { asked: 0.0, allowed: 0.0, at }
    }

    /// Allows what `rate`, bytes a second, gives up to `now`.
    fn advance(&mut self, now: Instant, rate: f64) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.allowed = (self.allowed + elapsed * rate).min(self.asked + rate * BURST.as_secs_f64());
    }

    /// The number of bytes that must have been allowed before these may pass.
    fn ask(&mut self, bytes: u64) -> f64 {
        self.asked += bytes as f64;
        self.asked
    }
}

impl Throttle {
    pub fn new() -> Throttle {
        Throttle(Mutex::new(Bucket::new(Instant::now())))
    }

    /// Waits until `bytes` more may pass. `rate` is read again while waiting; 0 = no limit.
    pub async fn take(&self, bytes: u64, rate: impl Fn() -> u64) {
        let turn = match rate() {
            0 => return,
            now => {
                let mut bucket = self.0.lock();
                bucket.advance(Instant::now(), now as f64);
                bucket.ask(bytes)
            }
        };
        loop {
            let rate = rate() as f64;
            let missing = {
                let mut bucket = self.0.lock();
                if rate == 0.0 {
                    bucket.allowed = bucket.allowed.max(turn);
                } else {
                    bucket.advance(Instant::now(), rate);
                }
                turn - bucket.allowed
            };
            if missing <= 0.0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs_f64((missing / rate).min(RECHECK.as_secs_f64()))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_passes_than_rate_and_burst_allow() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let rate = 1000.0;
        let first = bucket.ask(500);
        bucket.advance(start + Duration::from_millis(400), rate);
        assert!(first > bucket.allowed);
        bucket.advance(start + Duration::from_millis(500), rate);
        assert!(first <= bucket.allowed);
        // An idle hour allows no more than a burst.
        bucket.advance(start + Duration::from_secs(3600), rate);
        let burst = bucket.ask(100);
        assert!(burst <= bucket.allowed);
        let next = bucket.ask(100);
        assert!((next - bucket.allowed - 100.0).abs() < 1e-6);
        // First come, first served.
        assert!(burst < next);
    }

    #[tokio::test]
    async fn the_rate_is_kept_and_read_again() {
        let throttle = Throttle::new();
        let began = Instant::now();
        for _ in 0..4 {
            throttle.take(50_000, || 1_000_000).await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(95), "{took:?}");
        // A wait of an hour ends when the limit is lifted.
        let rate = std::sync::atomic::AtomicU64::new(1);
        let lift = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            rate.store(0, std::sync::atomic::Ordering::Relaxed);
        };
        let wait = throttle.take(1 << 40, || rate.load(std::sync::atomic::Ordering::Relaxed));
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(lift, wait) }).await.unwrap();
    }
}
