//! How long things take: the events of LATENCY, and a histogram of the calls of each command.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::OnceLock,
    time::Duration,
};

use histogram::{AtomicHistogram, Histogram};
use parking_lot::Mutex;

/// Samples kept of an event.
const MAX_SAMPLES: usize = 160;
/// Each power of two of nanoseconds has 2^7 buckets, as in Redis: an error of less than 0.8 %.
const GROUPING_POWER: u8 = 7;
/// Longer calls, over a minute, count as the longest.
const MAX_POWER: u8 = 36;

/// The event of commands that may take long.
pub const COMMAND: &str = "command";
/// The event of commands that should not.
pub const FAST_COMMAND: &str = "fast-command";
/// The event of looking for keys whose time has come.
pub const EXPIRE_CYCLE: &str = "expire-cycle";

/// Events that took `latency-monitor-threshold` or longer. Callers compare first, so that nothing is locked otherwise.
#[derive(Default)]
pub struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, Event>>,
}

#[derive(Default)]
struct Event {
    /// Oldest first, one a second.
    samples: VecDeque<Sample>,
    max: u64,
}

/// The longest time of an event within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Unix time in s.
    pub at: u64,
    /// Milliseconds.
    pub ms: u64,
}

/// An event in LATENCY LATEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    pub event: &'static str,
    pub last: Sample,
    /// The longest since the last reset, ms.
    pub max: u64,
}

impl LatencyMonitor {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters an event that ended at `at` (Unix s).
    pub fn record(&self, event: &'static str, at: u64, took: Duration) {
        let ms = took.as_millis() as u64;
        let mut events = self.events.lock();
        let event = events.entry(event).or_default();
        event.max = event.max.max(ms);
        match event.samples.back_mut() {
            Some(last) if last.at == at => last.ms = last.ms.max(ms),
            _ => event.samples.push_back(Sample { at, ms }),
        }
        if event.samples.len() > MAX_SAMPLES {
            event.samples.pop_front();
        }
    }

    /// Each event with its last sample.
    pub fn latest(&self) -> Vec<Latest> {
        let events = self.events.lock();
        let latest =
            |(event, seen): (&&'static str, &Event)| Some(Latest { event, last: *seen.samples.back()?, max: seen.max });
        events.iter().filter_map(latest).collect()
    }

    /// The samples of an event, oldest first; none of one that was not seen.
    pub fn history(&self, event: &str) -> Vec<Sample> {
        self.events.lock().get(event).map(|event| event.samples.iter().copied().collect()).unwrap_or_default()
    }

    /// The longest time of an event since the last reset, ms; none of one that was not seen.
    pub fn max(&self, event: &str) -> Option<u64> {
        self.events.lock().get(event).map(|event| event.max)
    }

    /// Forgets those events of which `which` is true, and counts them.
    pub fn reset(&self, which: impl Fn(&str) -> bool) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|event, _| !which(event));
        before - events.len()
    }
}

/// How long the calls of one command took. Adding is one relaxed atomic; the first one allocates 30 KB.
#[derive(Default)]
pub struct CallTimes(OnceLock<Option<AtomicHistogram>>);

impl CallTimes {
    /// Counts a call.
    pub fn add(&self, took: Duration) {
        let histogram = self.0.get_or_init(|| AtomicHistogram::new(GROUPING_POWER, MAX_POWER).ok());
        if let Some(histogram) = histogram {
            // In range: it is cut to it.
            let _ = histogram.increment((took.as_nanos() as u64).min((1 << MAX_POWER) - 1));
        }
    }

    /// Forgets all calls.
    pub fn reset(&self) {
        if let Some(Some(histogram)) = self.0.get() {
            histogram.drain();
        }
    }

    /// The calls up to now; `None` if there were none.
    pub fn distribution(&self) -> Option<Distribution> {
        let snapshot = self.0.get()?.as_ref()?.load();
        let calls = snapshot.iter().map(|bucket| bucket.count()).sum();
        (calls > 0).then_some(Distribution { snapshot, calls })
    }
}

/// Calls by the time they took.
pub struct Distribution {
    snapshot: Histogram,
    /// How many there were.
    pub calls: u64,
}

impl Distribution {
    /// The time that `percent` of the calls did not exceed, in microseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let wanted = (percent / 100.0 * self.calls as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.snapshot.iter().find(|bucket| {
            seen += bucket.count();
            seen >= wanted
        });
        bucket.map_or(0.0, |bucket| bucket.end() as f64 / 1000.0)
    }

    /// Pairs of a bound in microseconds, each about twice the one before, and the number of calls that took no longer.
    /// Bounds that add no calls are left out.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut pairs: Vec<(u64, u64)> = Vec::new();
        let (mut power, mut seen) = (10, 0);
        for bucket in self.snapshot.iter().filter(|bucket| bucket.count() > 0) {
            while bucket.end() > bound(power) {
                power += 1;
            }
            seen += bucket.count();
            let micros = bound(power) / 1000;
            match pairs.last_mut() {
                Some(last) if last.0 == micros => last.1 = seen,
                _ => pairs.push((micros, seen)),
            }
        }
        pairs
    }
}

/// The end of the bucket that begins at 2^`power` ns: the bounds of Redis's LATENCY HISTOGRAM (1, 2, 4, 8, 16, 33, 66 µs…).
fn bound(power: u32) -> u64 {
    (1u64 << power) + (1u64 << (power - u32::from(GROUPING_POWER))) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_the_longest_of_a_second() {
        let monitor = LatencyMonitor::new();
        for (at, ms) in [(1, 300), (1, 200), (2, 250)] {
            monitor.record(COMMAND, at, Duration::from_millis(ms));
        }
        assert_eq!(monitor.history(COMMAND), [Sample { at: 1, ms: 300 }, Sample { at: 2, ms: 250 }]);
        assert_eq!(monitor.latest(), [Latest { event: COMMAND, last: Sample { at: 2, ms: 250 }, max: 300 }]);
        for at in 0..2 * MAX_SAMPLES as u64 {
            monitor.record(FAST_COMMAND, at, Duration::ZERO);
        }
        assert_eq!(monitor.history(FAST_COMMAND).len(), MAX_SAMPLES);
        assert_eq!(monitor.reset(|event| event == "nothing"), 0);
        assert_eq!(monitor.reset(|_| true), 2);
        assert!(monitor.latest().is_empty() && monitor.history(COMMAND).is_empty());
    }

    #[test]
    fn percentiles_of_calls() {
        let times = CallTimes::default();
        assert!(times.distribution().is_none());
        for micros in 1..=1000 {
            times.add(Duration::from_micros(micros));
        }
        let distribution = times.distribution().unwrap();
        assert_eq!(distribution.calls, 1000);
        for (percent, micros) in [(0.0, 1.0), (50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let found = distribution.percentile(percent);
            assert!(found >= micros && found < micros * 1.01, "p{percent} is {found}");
        }
        times.reset();
        assert!(times.distribution().is_none());
        times.add(Duration::from_secs(1 << 20));
        assert_eq!(times.distribution().unwrap().calls, 1);
    }

    #[test]
    fn bounds_are_redis_s() {
        let times = CallTimes::default();
        for (micros, calls) in [(1, 3), (30, 2), (60, 1), (500, 1)] {
            (0..calls).for_each(|_| times.add(Duration::from_micros(micros)));
        }
        assert_eq!(times.distribution().unwrap().cumulative(), [(1, 3), (33, 5), (66, 6), (528, 7)]);
    }
}
