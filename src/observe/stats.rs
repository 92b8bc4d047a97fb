//! Counters of the server. Adding to one is a relaxed atomic; connections add once a pipeline.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;
use tikv_jemalloc_ctl::{epoch, stats as jemalloc};

use crate::net::Tally;

/// Samples that a rate is the mean of: 1.6 s at one sample every 100 ms.
const SAMPLES: usize = 16;
/// Codes that error replies are counted by; those of further codes count as [`OTHER_CODES`].
const MAX_CODES: usize = 128;
/// The code under which replies are counted once there are too many codes.
const OTHER_CODES: &str = "ERRORSTATS_OVERFLOW";

/// A number that only grows, until CONFIG RESETSTAT.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// The counters of a server.
#[derive(Default)]
pub struct Stats {
    /// Connections accepted, the rejected ones included.
    pub connections_received: Counter,
    /// Connections refused because of `maxclients`.
    pub connections_rejected: Counter,
    /// Clients closed over `client-output-buffer-limit`.
    pub output_limit_disconnections: Counter,
    /// Clients closed over `client-query-buffer-limit`.
    pub query_limit_disconnections: Counter,
    /// Clients closed over `maxmemory-clients`.
    pub evicted_clients: Counter,
    /// Commands executed.
    pub commands: Counter,
    /// Bytes received from clients.
    pub net_in: Counter,
    /// Bytes sent to clients.
    pub net_out: Counter,
    /// Times something was read from a client.
    pub reads: Counter,
    /// Times something was written to a client.
    pub writes: Counter,
    /// Reads that found their key.
    pub keyspace_hits: Counter,
    /// Reads that did not.
    pub keyspace_misses: Counter,
    /// Keys deleted because their time had come.
    pub expired_keys: Counter,
    /// Fields of hashes, likewise.
    pub expired_fields: Counter,
    /// Refused passwords.
    pub auth_failures: Counter,
    /// Error replies by their code.
    pub errors: ErrorStats,
    used_memory: AtomicU64,
    peak_memory: AtomicU64,
    rates: Mutex<Rates>,
}

impl Stats {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a connection has counted.
    pub fn add_tally(&self, tally: Tally) {
        for (counter, amount) in
            [(&self.commands, tally.commands), (&self.keyspace_hits, tally.hits), (&self.keyspace_misses, tally.misses)]
        {
            if amount != 0 {
                counter.add(amount);
            }
        }
    }

    /// Counts one read from a client.
    pub fn read(&self, bytes: usize) {
        self.reads.add(1);
        self.net_in.add(bytes as u64);
    }

    /// Counts one write to a client.
    pub fn written(&self, bytes: usize) {
        self.writes.add(1);
        self.net_out.add(bytes as u64);
    }

    /// Takes a sample for the rates and the memory in use. To be called every 100 ms.
    pub fn sample(&self) {
        let mut rates = self.rates.lock();
        let now = Instant::now();
        let passed = rates.last.replace(now).map(|last| (now - last).as_secs_f64());
        let totals = [self.commands.get(), self.net_in.get(), self.net_out.get()];
        for (rate, total) in rates.all.iter_mut().zip(totals) {
            rate.sample(total, passed);
        }
        drop(rates);
        self.memory();
    }

    /// Commands a second, over the last 1.6 s.
    pub fn ops_per_second(&self) -> f64 {
        self.rates.lock().all[0].mean()
    }

    /// Bytes received and sent a second, over the last 1.6 s.
    pub fn bytes_per_second(&self) -> (f64, f64) {
        let rates = self.rates.lock();
        (rates.all[1].mean(), rates.all[2].mean())
    }

    /// The allocator's figures now, and the peak of those seen so far. `None` when the allocator does not tell.
    pub fn memory(&self) -> Option<Memory> {
        epoch::advance().ok()?;
        let allocated = jemalloc::allocated::read().ok()? as u64;
        self.used_memory.store(allocated, Relaxed);
        let peak = self.peak_memory.fetch_max(allocated, Relaxed).max(allocated);
        Some(Memory {
            allocated,
            peak,
            active: jemalloc::active::read().ok()? as u64,
            resident: jemalloc::resident::read().ok()? as u64,
        })
    }

    /// Bytes of memory in use, as of the last sample.
    pub fn used_memory(&self) -> u64 {
        self.used_memory.load(Relaxed)
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for counter in [
            &self.connections_received,
            &self.connections_rejected,
            &self.output_limit_disconnections,
            &self.query_limit_disconnections,
            &self.evicted_clients,
            &self.commands,
            &self.net_in,
            &self.net_out,
            &self.reads,
            &self.writes,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.expired_keys,
            &self.expired_fields,
            &self.auth_failures,
        ] {
            counter.reset();
        }
        self.errors.reset();
        self.peak_memory.store(0, Relaxed);
        *self.rates.lock() = Rates::default();
    }
}

/// Bytes of memory, as the allocator counts them.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Asked for by the program and not given back.
    pub allocated: u64,
    /// The most of that seen since the start or CONFIG RESETSTAT.
    pub peak: u64,
    /// In pages that hold allocations.
    pub active: u64,
    /// In pages that the allocator has mapped and not returned.
    pub resident: u64,
}

#[derive(Default)]
struct Rates {
    last: Option<Instant>,
    /// Commands, bytes in, bytes out.
    all: [Rate; 3],
}

/// A counter's growth a second.
#[derive(Default)]
struct Rate {
    total: u64,
    samples: [f64; SAMPLES],
    next: usize,
}

impl Rate {
    fn sample(&mut self, total: u64, passed: Option<f64>) {
        let grown = total.saturating_sub(self.total) as f64;
        self.total = total;
        if let Some(seconds) = passed.filter(|seconds| *seconds > 0.0) {
            self.samples[self.next] = grown / seconds;
            self.next = (self.next + 1) % SAMPLES;
        }
    }

    fn mean(&self) -> f64 {
        self.samples.iter().sum::<f64>() / SAMPLES as f64
    }
}

/// Error replies, counted by their code.
#[derive(Default)]
pub struct ErrorStats {
    total: Counter,
    by_code: Mutex<BTreeMap<String, u64>>,
}

impl ErrorStats {
    /// Counts `times` replies with this text, whose first word is the code.
    pub fn count(&self, text: &str, times: u64) {
        self.total.add(times);
        let code = text.split(' ').next().unwrap_or_default();
        let mut by_code = self.by_code.lock();
        if let Some(count) = by_code.get_mut(code) {
            *count += times;
            return;
        }
        let code = if by_code.len() < MAX_CODES { code } else { OTHER_CODES };
        *by_code.entry(code.to_owned()).or_default() += times;
    }

    /// All error replies.
    pub fn total(&self) -> u64 {
        self.total.get()
    }

    /// Codes and counts, sorted by code.
    pub fn by_code(&self) -> Vec<(String, u64)> {
        self.by_code.lock().iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    fn reset(&self) {
        self.total.reset();
        self.by_code.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_by_code() {
        let stats = Stats::new();
        stats.errors.count("ERR syntax error", 1);
        stats.errors.count("ERR no such key", 2);
        stats.errors.count("WRONGTYPE Operation", 1);
        assert_eq!(stats.errors.total(), 4);
        assert_eq!(stats.errors.by_code(), [("ERR".to_owned(), 3), ("WRONGTYPE".to_owned(), 1)]);
        for code in 0..2 * MAX_CODES {
            stats.errors.count(&format!("CODE{code} text"), 1);
        }
        assert!(stats.errors.by_code().len() <= MAX_CODES + 1);
        stats.reset();
        assert_eq!(stats.errors.total(), 0);
    }

    #[test]
    fn rates_are_means_over_the_window() {
        let mut rate = Rate::default();
        rate.sample(1000, None);
        for sample in 1..=SAMPLES as u64 {
            rate.sample(1000 + sample * 10, Some(0.1));
        }
        assert!((rate.mean() - 100.0).abs() < 1e-9);
    }
}
