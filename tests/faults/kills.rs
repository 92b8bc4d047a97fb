//! One node, killed again and again under load: each time it opens by itself and has every acknowledged write.

use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::common::{History, HistoryOptions, Node, NodeOptions, rng};

/// Kills in the plain test; scripts/torture.sh --kills raises it.
const KILLS: usize = 25;

/// How many kills are asked for.
fn kills() -> usize {
    std::env::var("HAYPILE_TORTURE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

#[test]
fn sigkill_again_and_again_with_sync_everysec() {
    kill_again_and_again("everysec");
}

#[test]
fn sigkill_again_and_again_with_sync_no() {
    kill_again_and_again("no");
}

/// The clients compare all their keys after every start, so each start is checked in full.
fn kill_again_and_again(sync: &str) {
    let mut rng = rng();
    let small = NodeOptions::new().set("databases", 3).set("slot-num", 2).set("sync", sync);
    // Logs roll and are purged, memtables are flushed all the time: the kill hits these too.
    let small = small.set("binlog-file-size", "256K").set("expire-logs-nums", 2).set("write-buffer-size", "256K");
    let mut node: Node = small.set("max-write-buffer-size", "1M").start();
    let history = History::start(node.port(), &[node.port()], &HistoryOptions::default(), &mut rng);
    let (mut longest, mut all) = (Duration::ZERO, Duration::ZERO);
    let count = kills();
    for kill in 1..=count {
        thread::sleep(Duration::from_millis(rng.random_range(5..250)));
        history.check();
        node.kill9();
        node.spawn();
        // Now and then the next kill comes while it starts.
        if rng.random_range(0..5) == 0 {
            thread::sleep(Duration::from_millis(rng.random_range(0..100)));
            node.kill9();
            node.spawn();
        }
        let start = Instant::now();
        node.wait_answer();
        longest = longest.max(start.elapsed());
        all += start.elapsed();
        // Something must have been written between two kills.
        history.wait_more(50);
        if kill % 100 == 0 {
            println!("{kill} kills, {} operations acknowledged", history.acknowledged());
        }
    }
    let outcome = history.stop();
    outcome.wait_expired();
    outcome.verify(&node);
    let digest = node.digest();
    node.crash();
    outcome.verify(&node);
    assert_eq!(node.digest(), digest, "the digest after one more crash, at rest");
    let (operations, mean) = (outcome.acknowledged, all / count.max(1) as u32);
    println!("sync {sync}: {count} kills, {operations} operations, back after {mean:.0?}, at most {longest:.0?}");
}
