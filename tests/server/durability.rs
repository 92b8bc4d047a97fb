//! What a crash must not take: every acknowledged write, and writes of several keys whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{Conn, DEADLINE, Load, LoadOptions, Node, NodeOptions, Reply, fill, rng, wait_for};

/// Crashes a node three times under load and looks for every acknowledged write.
fn crash_under_load(options: NodeOptions, load: LoadOptions) {
    let mut node = options.start();
    let load = Load::start(&node, load);
    for _ in 0..3 {
        load.wait_more(1500);
        node.kill9();
        node.start_again();
    }
    load.wait_more(200);
    let acked = load.stop();
    acked.verify(&node);
    let digest = node.digest();
    node.crash();
    acked.verify(&node);
    assert_eq!(node.digest(), digest, "the digest after one more crash, at rest");
}

#[test]
fn sigkill_under_load_with_sync_everysec() {
    crash_under_load(NodeOptions::new().set("sync", "everysec"), LoadOptions::default());
}

#[test]
fn sigkill_under_load_with_sync_always() {
    let load = LoadOptions { threads: 4, databases: 2, ..LoadOptions::default() };
    crash_under_load(NodeOptions::new().set("sync", "always"), load);
}

#[test]
fn sigkill_under_load_with_sync_no() {
    crash_under_load(NodeOptions::new().set("sync", "no"), LoadOptions::default());
}

/// Small files and small buffers: the crash hits flushes, new log files and purges too.
#[test]
fn sigkill_while_files_turn_over() {
    let options =
        NodeOptions::new().set("binlog-file-size", "64K").set("expire-logs-nums", 2).set("write-buffer-size", "1M");
    let load = LoadOptions { pipeline: 64, value_len: 2000, databases: 2, ..LoadOptions::default() };
    crash_under_load(options, load);
}

/// MSET over several slots: after a crash all of its keys hold it or none does.
#[test]
fn a_write_of_several_slots_is_whole_after_a_crash() {
    let mut node = Node::start();
    let port = node.port();
    let keys: Vec<String> = (0..8).map(|i| format!("part{i}")).collect();
    let stop = AtomicBool::new(false);
    let acknowledged = AtomicU64::new(0);
    let args = |value: u64| {
        let mut args = vec!["MSET".to_string()];
        args.extend(keys.iter().flat_map(|key| [key.clone(), value.to_string()]));
        args
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 1;
            while !stop.load(Ordering::SeqCst) {
                let Ok(mut conn) = Conn::try_to(port) else {
                    continue;
                };
                while !stop.load(Ordering::SeqCst) {
                    if !matches!(conn.try_call(&args(next)), Ok(Reply::Simple(_))) {
                        break;
                    }
                    acknowledged.store(next, Ordering::SeqCst);
                    next += 1;
                }
                // What broke off may have happened: its number is not used again.
                next += 1;
            }
        });
        let stopper = Stop(&stop);
        for _ in 0..5 {
            let goal = acknowledged.load(Ordering::SeqCst) + 300;
            wait_for("writes", DEADLINE, || acknowledged.load(Ordering::SeqCst) >= goal);
            node.kill9();
            let least = acknowledged.load(Ordering::SeqCst);
            node.start_again();
            let mut mget = vec!["MGET".to_string()];
            mget.extend(keys.iter().cloned());
            let held = node.conn().call(&mget);
            let first = held.items()[0].clone();
            assert!(held.items().iter().all(|item| *item == first), "torn: {held:?}");
            let number: u64 = first.text().parse().expect("a number");
            assert!(number >= least, "{number} is there, {least} was acknowledged");
        }
        drop(stopper);
    });
}

/// Ends a loop in another thread, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn databases_and_expiry_survive_stop_and_crash() {
    let mut rng = rng();
    let mut node = Node::start();
    for db in [0, 1, 7, 15] {
        fill(&node, db, &format!("in{db}:"), 200, 50, &mut rng);
    }
    let at = crate::common::unix_ms() + 3_600_000;
    node.run(&format!("SET lasting v PXAT {at}")).expect_ok();
    let digest = node.digest();
    node.restart();
    assert_eq!(node.digest(), digest, "after a clean stop");
    node.crash();
    assert_eq!(node.digest(), digest, "after a crash");
    assert_eq!(node.run("PEXPIRETIME lasting"), Reply::Int(at as i64));
    let mut conn = node.conn();
    for (db, size) in [(0, 201), (1, 200), (2, 0), (7, 200), (15, 200)] {
        conn.select(db);
        assert_eq!(conn.run("DBSIZE"), Reply::Int(size), "db{db}");
    }
}
