//! All kinds of faults at once on three nodes under load, round after round with a fresh cluster each, until the time is over.
//!
//! `HAYPILE_TORTURE_SECONDS` says for how long; scripts/torture.sh sets it.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::cluster::{Cluster, NODES};
use super::nemesis::{Counts, Nemesis};
use crate::common::node::files_under;
use crate::common::{History, HistoryOptions, NodeOptions, seed, wait_equal_digest, wait_synced};

/// Of the plain test.
const SECONDS: u64 = 20;
/// Harm in one round; a little more time goes into healing and checking.
const ROUND: Duration = Duration::from_secs(25);

#[test]
fn torture() {
    let seconds = std::env::var("HAYPILE_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let length = Duration::from_secs(seconds);
    let first = seed();
    let (begun, mut all, mut operations) = (Instant::now(), Counts::default(), 0);
    for round in 0u64.. {
        let left = length.saturating_sub(begun.elapsed());
        if left.is_zero() {
            println!(
                "{round} rounds, {operations} operations acknowledged, {all}: nothing lost, nothing half, nothing twice"
            );
            return;
        }
        // The first round of seed S is that of S, so that any round can be repeated as the first one.
        let seed = first.wrapping_add(round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        println!("round {round}: HAYPILE_TEST_SEED={seed}");
        let (counts, acknowledged) = self::round(seed, left.min(ROUND));
        all += counts;
        operations += acknowledged;
    }
}

/// Of `expire-logs-nums`: no binlog file is purged in a round.
const KEEP_ALL: &str = "100000";

/// Settings that make everything that happens rarely happen often; other ones in each round.
fn options(databases: usize, rng: &mut StdRng) -> NodeOptions {
    let mut pick = |values: &[&str]| values.choose(rng).expect("a value").to_string();
    NodeOptions::new()
        .set("databases", databases)
        .set("slot-num", pick(&["1", "2", "3", "5"]))
        .set("sync", pick(&["no", "everysec", "everysec", "always"]))
        .set("binlog-file-size", pick(&["32K", "128K", "1M"]))
        .set("expire-logs-nums", pick(&["1", "3", KEEP_ALL, KEEP_ALL]))
        .set("write-buffer-size", pick(&["64K", "256K", "1M"]))
        .set("max-write-buffer-size", pick(&["1M", "4M", "16M"]))
        .set("cache", pick(&["0", "64K", "1M", "64M"]))
        .set("sync-window-size", pick(&["20", "500", "9000"]))
        .set("max-rsync-parallel-num", pick(&["1", "4"]))
        .set("throttle-bytes-per-second", pick(&["0", "0", "2M"]))
}

fn round(seed: u64, length: Duration) -> (Counts, u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let databases = rng.random_range(1..4);
    // One more is for FLUSHDB.
    let mut cluster = Cluster::start(&options(databases + 1, &mut rng));
    let ports: Vec<u16> = (0..NODES).map(|node| cluster.port(node)).collect();
    let workload = HistoryOptions { databases, replicas: true, ..HistoryOptions::default() };
    let history = History::start(ports[0], &ports, &workload, &mut rng);
    let deeds = Nemesis::new(&mut cluster, &history, rng).run(length);
    let counts = deeds.counts;
    let outcome = history.stop();
    outcome.wait_expired();

    let master = &cluster.members[cluster.master].node;
    outcome.verify(master);
    // From the master outwards: in a chain the second before the third.
    let mut order = cluster.followers(cluster.master);
    order.extend(order.clone().into_iter().flat_map(|node| cluster.followers(node)));
    assert_eq!(order.len(), NODES - 1);
    for node in order {
        let Some(upstream) = cluster.upstream(node) else { unreachable!("a replica") };
        let (node, upstream) = (&cluster.members[node].node, &cluster.members[upstream].node);
        wait_synced(upstream, node);
        wait_equal_digest(master, node);
        outcome.verify(node);
    }
    // What an old master has purged, with nobody left who needs it, it cannot save.
    if master.option("expire-logs-nums") == Some(KEEP_ALL) {
        expect_saved(&cluster, &outcome.lost);
    }

    // All that they hold is on their disks.
    let digest = master.digest();
    cluster.members.iter_mut().for_each(|member| member.node.kill9());
    cluster.members.iter_mut().for_each(|member| member.node.start_again());
    for member in &cluster.members {
        assert_eq!(member.node.digest(), digest, "node {} after one more SIGKILL, at rest", member.node.port());
    }
    println!(
        "  {counts}\n  {} operations acknowledged, {} confirmations, {} acknowledged and lost by failovers",
        outcome.acknowledged,
        outcome.confirmed,
        outcome.lost.len()
    );
    (counts, outcome.acknowledged)
}

/// What a failover lost must stand in a file that the old master saved.
#[track_caller]
fn expect_saved(cluster: &Cluster, lost: &[String]) {
    if lost.is_empty() {
        return;
    }
    let folders = cluster.members.iter().map(|member| member.node.data_dir().join("diverged"));
    let files: Vec<_> = folders.flat_map(|folder| files_under(&folder)).collect();
    let saved: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).expect("a saved tail")).collect();
    let missing = |stamp: &&String| memchr::memmem::find(&saved, stamp.as_bytes()).is_none();
    let missing: Vec<&String> = lost.iter().filter(missing).take(10).collect();
    assert!(missing.is_empty(), "acknowledged, lost by a failover, and in none of {files:?}: {missing:?} …");
}
