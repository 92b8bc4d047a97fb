//! The harness of the black-box tests: real processes over real sockets.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `ports` | blocks of free ports that no other test process uses |
//! | `node` | [`Node`]: one haypile process with its folder, ports and log |
//! | `redis_server` | [`RedisServer`]: one redis-server process, to compare with |
//! | `resp` | [`Conn`], a thin RESP client, and [`Reply`] |
//! | `tools` | redis-cli, redis-benchmark and other programs under a deadline |
//! | `fuzz` | mutated inputs, for the library's tests too |
//! | `faulty_disk` | [`FaultyDisk`]: a disk that can be full, fail and lose power |
//! | `power_cut` | [`PowerCut`]: what a power cut at some moment leaves of it |
//! | `link` | [`Link`]: a faulty network between nodes: cuts, stalls, delays, throttles, flips bytes, half-closes; by hand or from a seed |
//! | `load` | [`Load`]: writers that remember what was acknowledged |
//! | `history` | [`History`]: clients that write all types of data under faults, and check every key exactly |
//! | `sync` | what the replication tests ask and wait for |
//!
//! Nothing here sleeps for a fixed time to let something happen: [`wait_for`] polls a
//! condition. [`DEADLINE`] is a guard against hanging, far above what anything takes.
//!
//! Set `HAYPILE_TEST_SEED` to repeat a run, `HAYPILE_TEST_KEEP` to keep the folders.

// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code, unused_imports)]

pub mod faulty_disk;
pub mod fuzz;
pub mod history;
pub mod link;
pub mod load;
pub mod node;
pub mod ports;
pub mod power_cut;
pub mod redis_server;
pub mod resp;
pub mod sync;
pub mod tools;

pub use faulty_disk::FaultyDisk;
pub use history::{History, HistoryOptions};
pub use link::Link;
pub use load::{Acked, Load, LoadOptions};
pub use node::{Node, NodeOptions};
pub use power_cut::{PowerCut, Survivors};
pub use redis_server::RedisServer;
pub use resp::{Conn, Reply};
pub use sync::{Replication, wait_caught_up, wait_connected, wait_equal_digest, wait_link_error, wait_synced};
pub use tools::{assert_sound, haypile, redis_benchmark, redis_cli, run_program};

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// How long a test waits for anything before it counts as a failure.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(15);

/// Polls `condition` until it holds; panics with `what` when `deadline` passes first.
#[track_caller]
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_some(what, deadline, || condition().then_some(()));
}

/// Polls `probe` until it gives a value; panics with `what` when `deadline` passes first.
#[track_caller]
pub fn wait_some<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < deadline, "waited {:?} in vain for {what}", start.elapsed());
        std::thread::sleep(POLL);
    }
}

/// The seed of a test: `HAYPILE_TEST_SEED`, or a fresh one.
pub fn seed() -> u64 {
    let given = std::env::var("HAYPILE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| rand::rng().random::<u64>())
}

/// The random numbers of one test, from [`seed`], which is printed, so that a failed test shows it.
pub fn rng() -> StdRng {
    let seed = seed();
    println!("seed: HAYPILE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// `len` random bytes: nothing a compressor could shorten.
pub fn random_bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Writes `count` keys `{prefix}0`… with random values of `len` bytes each into `db`.
pub fn fill(node: &Node, db: usize, prefix: &str, count: usize, len: usize, rng: &mut StdRng) {
    let mut conn = node.conn();
    conn.select(db);
    let batch = (1 << 20) / (len + 64) + 1;
    for from in (0..count).step_by(batch) {
        let keys = from..count.min(from + batch);
        for i in keys.clone() {
            let value = random_bytes(rng, len);
            conn.push(&[b"SET".as_slice(), format!("{prefix}{i}").as_bytes(), &value]);
        }
        conn.flush();
        for _ in keys {
            conn.read().expect_ok();
        }
    }
}

/// The wall clock in milliseconds since 1970, as the server counts expiry.
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("a clock after 1970").as_millis() as u64
}
