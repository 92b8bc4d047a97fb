//! Full sync: the snapshot transfer, under load, interrupted, and what clients see meanwhile.

use std::path::Path;

use rand::rngs::StdRng;

use crate::common::node::files_under;
use crate::common::{
    DEADLINE, Link, Load, LoadOptions, Node, NodeOptions, Reply, fill, rng, wait_connected, wait_for, wait_synced,
};
use crate::small;

/// Values that no compressor shortens, so that a snapshot is as large as its data.
const VALUE: usize = 16 << 10;
const VALUES: usize = 2000;
/// Bytes of all values of [`filled_master`].
const DATA: u64 = (VALUE * VALUES) as u64;
/// A throttle that makes its transfer take some seconds.
const SLOW: &str = "6M";

/// A master with [`DATA`] bytes in two databases.
fn filled_master(rng: &mut StdRng) -> Node {
    let master = small().start();
    fill(&master, 0, "zero:", VALUES / 2, VALUE, rng);
    fill(&master, 1, "one:", VALUES / 2, VALUE, rng);
    master
}

fn slow_replica() -> Node {
    small().set("throttle-bytes-per-second", SLOW).start()
}

/// Waits until the transfer is well under way and not nearly done.
#[track_caller]
fn wait_middle(link: &Link) {
    wait_for("the middle of the transfer", DEADLINE, || link.snapshot_bytes() > DATA / 3);
}

#[test]
fn all_databases_and_slots() {
    let mut rng = rng();
    let master = Node::start();
    for db in 0..16 {
        fill(&master, db, &format!("db{db}:"), 50, 100, &mut rng);
    }
    master.run("SET expiring v EX 100000").expect_ok();
    let replica = Node::start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    assert_eq!(replica.replication().states().len(), 64);
    assert_eq!(replica.run("PEXPIRETIME expiring"), master.run("PEXPIRETIME expiring"));
    assert_eq!(replica.full_syncs(), 64, "one a slot");
    assert_eq!(master.stat("sync_full"), 64, "one a slot");
}

#[test]
fn an_empty_master_empties_its_replica() {
    let master = small().start();
    let replica = small().start();
    replica.run("SET old v").expect_ok();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    assert_eq!(replica.run("DBSIZE"), Reply::Int(0));
    master.run("SET k v").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("GET k"), Reply::bulk("v"));
}

/// Who waits on a replica is served with what a full sync brings.
#[test]
fn waiting_readers_are_served() {
    let master = small().start();
    master.run("XADD s 1-0 f v");
    let replica = small().start();
    let mut reader = replica.conn();
    reader.push(&["XREAD", "BLOCK", "0", "STREAMS", "s", "0"]);
    reader.flush();
    wait_for("the reader waits", DEADLINE, || replica.info("clients")["blocked_clients"] == "1");
    replica.slaveof(master.port());
    assert_eq!(reader.read(), master.run("XREAD STREAMS s 0"));
    wait_synced(&master, &replica);
}

#[test]
fn writes_running_during_it() {
    let mut rng = rng();
    let master = filled_master(&mut rng);
    let load = Load::start(&master, LoadOptions { databases: 2, ..LoadOptions::default() });
    load.wait_more(500);
    let replica = slow_replica();
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_middle(&link);
    load.wait_more(2000);
    wait_connected(&replica);
    load.wait_more(1000);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&master);
    acked.verify(&replica);
}

#[test]
fn several_replicas_at_once() {
    let mut rng = rng();
    let master = filled_master(&mut rng);
    let load = Load::start(&master, LoadOptions { databases: 2, ..LoadOptions::default() });
    let replicas: Vec<Node> = (0..3).map(|_| small().start()).collect();
    for replica in &replicas {
        replica.slaveof(master.port());
    }
    for replica in &replicas {
        wait_connected(replica);
    }
    load.wait_more(500);
    let acked = load.stop();
    for replica in &replicas {
        wait_synced(&master, replica);
        acked.verify(replica);
    }
    assert_eq!(master.replication().number("connected_slaves"), 3);
}

/// SIGKILL of the replica in the middle: it goes on where it was.
#[test]
fn the_replica_dies_in_the_middle() {
    // HTTP/2's window lets a master send up to 16 MiB that the throttled replica has not taken yet, and that a crash
    // loses: the data must be much more.
    const ALL: u64 = 2 * DATA;
    let mut rng = rng();
    let master = filled_master(&mut rng);
    fill(&master, 0, "more:", VALUES, VALUE, &mut rng);
    let link = Link::to(&master);
    let mut replica = small().set("throttle-bytes-per-second", "12M").start();
    replica.slaveof(link.port());
    wait_for("the middle of the transfer", DEADLINE, || link.snapshot_bytes() > ALL * 5 / 8);
    replica.kill9();
    let first = link.snapshot_bytes();
    assert!(!leftovers(&replica).is_empty(), "the transfer was over: {first} of {ALL} bytes");

    replica.set_option("throttle-bytes-per-second", 0);
    replica.start_again();
    wait_synced(&master, &replica);
    let all = link.snapshot_bytes();
    let again = all.saturating_sub(ALL);
    println!("{first} bytes before the crash, {} after, {again} of them again", all - first);
    assert!(again < ALL / 3, "{again} of {ALL} bytes were fetched again");
    assert!(leftovers(&replica).is_empty(), "received files stay behind: {:?}", leftovers(&replica));
}

/// SIGKILL of the master in the middle: the replica waits for it and ends with its data.
#[test]
fn the_master_dies_in_the_middle() {
    let mut rng = rng();
    let mut master = filled_master(&mut rng);
    let link = Link::to(&master);
    let mut replica = slow_replica();
    replica.run("SET own before").expect_ok();
    replica.slaveof(link.port());
    wait_middle(&link);
    master.kill9();
    assert!(replica.is_alive());
    assert!(!replica.replication().is_connected());
    assert_ne!(replica.run("GET own"), Reply::bulk("wrong"), "reads go on");
    replica.run("CONFIG SET throttle-bytes-per-second 0").expect_ok();
    master.start_again();
    master.run("SET after crash").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("GET own"), Reply::Nil);
    assert_eq!(replica.run("GET after"), Reply::bulk("crash"));
}

/// The link breaks several times in the middle of the transfer.
#[test]
fn the_link_breaks_in_the_middle() {
    let mut rng = rng();
    let master = filled_master(&mut rng);
    let link = Link::to(&master);
    let replica = slow_replica();
    replica.slaveof(link.port());
    for part in 1..=3 {
        wait_for("some more of the transfer", DEADLINE, || link.snapshot_bytes() > DATA / 6 * part);
        link.cut();
        link.restore();
    }
    replica.run("CONFIG SET throttle-bytes-per-second 0").expect_ok();
    wait_synced(&master, &replica);
    let again = link.snapshot_bytes().saturating_sub(DATA);
    assert!(again < DATA, "{again} of {DATA} bytes were fetched again");
}

/// A replica serves its old data until the new is whole, refuses writes, and shows each key
/// either as it was or as it is on the master.
#[test]
fn reads_during_it_see_old_or_new() {
    let mut rng = rng();
    let master = filled_master(&mut rng);
    let replica = slow_replica();
    let keys: Vec<String> = (0..200).map(|i| format!("shared{i}")).collect();
    for node in [&master, &replica] {
        let value = if std::ptr::eq(node, &master) { "new" } else { "old" };
        let mut conn = node.conn();
        for key in &keys {
            conn.call(&["SET", key, value]).expect_ok();
        }
    }
    let link = Link::to(&master);
    replica.slaveof(link.port());
    let mut conn = replica.conn();
    let mut mget = vec!["MGET".to_string()];
    mget.extend(keys.iter().cloned());
    let mut swapped = vec![false; keys.len()];
    let mut old_seen_in_the_middle = false;
    wait_for("the new data", DEADLINE, || {
        let middle = link.snapshot_bytes() > DATA / 10;
        let held = conn.call(&mget);
        for ((held, key), swapped) in held.items().iter().zip(&keys).zip(&mut swapped) {
            match held.text().as_str() {
                "new" => *swapped = true,
                "old" => {
                    assert!(!*swapped, "{key} is old again");
                    old_seen_in_the_middle |= middle;
                }
                other => panic!("{key} is {other}"),
            }
        }
        let refused = conn.run("SET shared1 mine");
        assert_eq!(refused, Reply::error(READONLY));
        swapped.iter().all(|swapped| *swapped)
    });
    assert!(old_seen_in_the_middle, "the old data was gone before the new was there");
    wait_synced(&master, &replica);
}

pub const READONLY: &str = "READONLY You can't write against a read only replica.";

#[test]
fn a_replica_refuses_writes_until_told_otherwise() {
    let master = small().start();
    let replica = small().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    let writes = ["SET k v", "DEL k", "MSET a 1 b 2", "INCR n", "EXPIRE k 10", "FLUSHALL", "FLUSHDB"];
    for write in writes {
        assert_eq!(replica.run(write), Reply::error(READONLY), "{write}");
    }
    assert_eq!(replica.run("GET k"), Reply::Nil);
    replica.slaveof_no_one();
    replica.run("SET k v").expect_ok();
    assert_eq!(replica.run("ROLE").items()[0], Reply::bulk("master"));
}

/// Expiry comes from the master: a replica shows an expired key as gone, and both agree on
/// the digest after the time has come.
#[test]
fn expiry_on_both_sides() {
    let master = small().start();
    let replica = small().start();
    let at = crate::common::unix_ms() + 1500;
    let mut conn = master.conn();
    for i in 0..100 {
        conn.call(&["SET", &format!("before{i}"), "v", "PXAT", &(at + i).to_string()]).expect_ok();
    }
    replica.slaveof(master.port());
    wait_connected(&replica);
    for i in 0..100 {
        conn.call(&["SET", &format!("after{i}"), "v", "PXAT", &(at + i).to_string()]);
    }
    conn.run("SET stays v").expect_ok();
    wait_for("the keys to expire", DEADLINE, || master.run("DBSIZE") == Reply::Int(1));
    wait_synced(&master, &replica);
    for node in [&master, &replica] {
        assert_eq!(node.run("KEYS *"), Reply::bulks(&["stays"]));
    }
}

/// `slaveof … force` takes everything anew.
#[test]
fn force_takes_everything_anew() {
    let mut rng = rng();
    let master = small().start();
    fill(&master, 0, "k", 100, 100, &mut rng);
    let replica = small().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    let before = replica.full_syncs();
    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", master.port())).expect_ok();
    wait_for("full syncs", DEADLINE, || replica.full_syncs() == before + 4);
    wait_synced(&master, &replica);
}

/// Small memtables and log files on the master: flushes, purges and the snapshot meet.
#[test]
fn while_files_turn_over() {
    let options = |slow: bool| -> NodeOptions {
        let options =
            small().set("binlog-file-size", "256K").set("expire-logs-nums", 1).set("write-buffer-size", "512K");
        if slow { options.set("throttle-bytes-per-second", "3M") } else { options }
    };
    let mut rng = rng();
    let master = options(false).start();
    fill(&master, 0, "big", 800, VALUE, &mut rng);
    let load = LoadOptions { databases: 2, value_len: 1000, ..LoadOptions::default() };
    let load = Load::start(&master, load);
    load.wait_more(500);
    let replica = options(true).start();
    replica.slaveof(master.port());
    load.wait_more(4000);
    wait_connected(&replica);
    load.wait_more(1000);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
}

/// Files in the folder where a replica receives snapshots.
fn leftovers(replica: &Node) -> Vec<std::path::PathBuf> {
    files_under(&replica.data_dir().join(Path::new("dbsync")))
}
