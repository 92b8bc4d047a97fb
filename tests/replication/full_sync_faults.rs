//! Full syncs that meet faults of network, process and operator: what is kept for them, for how long, and what becomes of it.

use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::common::link::{Fault, Wires};
use crate::common::node::files_under;
use crate::common::{
    DEADLINE, Link, Load, LoadOptions, Node, NodeOptions, Reply, fill, rng, wait_connected, wait_equal_digest,
    wait_for, wait_some, wait_synced,
};
use crate::small;

/// Bytes of a value, which no compressor shortens.
const VALUE: usize = 16 << 10;
/// Slots of [`small`].
const SLOTS: u64 = 4;

/// A master with so many MiB in its first database.
fn master_with(mib: usize, options: NodeOptions, rng: &mut StdRng) -> Node {
    let master = options.start();
    fill(&master, 0, "k", (mib << 20) / VALUE, VALUE, rng);
    master
}

fn throttled(rate: &str) -> NodeOptions {
    small().set("throttle-bytes-per-second", rate)
}

fn unthrottle(replica: &Node) {
    replica.run("CONFIG SET throttle-bytes-per-second 0").expect_ok();
}

/// Files of snapshots for replicas on a master.
fn snapshot_files(master: &Node) -> Vec<PathBuf> {
    files_under(&master.data_dir().join("dump/sync"))
}

/// What a replica has received and not yet put in place.
fn received_files(replica: &Node) -> Vec<PathBuf> {
    files_under(&replica.data_dir().join("dbsync"))
}

/// Waits until a replica has so many bytes of snapshots.
#[track_caller]
fn wait_received(replica: &Node, bytes: u64) {
    let len = |path: PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    wait_for("some of the snapshots", DEADLINE, || received_files(replica).into_iter().map(len).sum::<u64>() >= bytes);
}

/// Two replicas, then eight, that sync at once share one snapshot of each slot.
#[test]
fn replicas_that_sync_at_once_share_the_snapshots() {
    let mut rng = rng();
    let master = master_with(4, small(), &mut rng);
    let mut made = 0;
    for count in [2, 8] {
        let replicas: Vec<Node> = (0..count).map(|_| throttled("2M").start()).collect();
        for replica in &replicas {
            replica.slaveof(master.port());
        }
        let lines = wait_some("snapshots of all slots", DEADLINE, || {
            let info = master.replication().text;
            let ready: Vec<String> =
                info.lines().filter(|l| l.contains("_snapshot:state=ready")).map(String::from).collect();
            let all = ready.iter().filter(|l| l.contains(&format!("readers={count},"))).count();
            // A slot that is done already has fewer.
            (all > 0).then_some(ready)
        });
        println!("{lines:#?}");
        made += SLOTS;
        replicas.iter().for_each(unthrottle);
        for replica in &replicas {
            wait_synced(&master, replica);
            assert_eq!(replica.full_syncs(), SLOTS);
        }
        assert_eq!(master.stat("sync_snapshots"), made, "one a slot for all {count}");
        wait_for("the snapshots to go", DEADLINE, || snapshot_files(&master).is_empty());
    }
    assert_eq!(master.stat("sync_full"), 10 * SLOTS);
}

/// Whether a replica fetches snapshots of all slots.
fn fetches_all(replica: &Node) -> bool {
    replica.replication().states().iter().all(|(_, state)| *state == "WaitDBSync")
}

/// A master of two replicas that shared its first snapshots. One still fetches them; the other is in sync, and has got some keys since.
struct OldSnapshots {
    master: Node,
    slow: Node,
    link: Link,
    replica: Node,
    /// Database and name; the value is "seen".
    keys: Vec<(usize, String)>,
}

impl OldSnapshots {
    fn new() -> OldSnapshots {
        let mut rng = rng();
        let master = master_with(4, small(), &mut rng);
        fill(&master, 1, "other", (4 << 20) / VALUE, VALUE, &mut rng);
        let slow = throttled("128K").start();
        slow.slaveof(master.port());
        wait_for("the slow replica to fetch all slots", DEADLINE, || fetches_all(&slow));
        let link = Link::to(&master);
        let replica = small().start();
        replica.slaveof(link.port());
        wait_synced(&master, &replica);
        assert_eq!(master.stat("sync_snapshots"), SLOTS, "a replica that has nothing shares them");
        assert!(fetches_all(&slow), "the slow replica was not slow");
        let keys: Vec<(usize, String)> = (0..40).map(|n| (n % 2, format!("later{n}"))).collect();
        set_all(&master, &keys, "seen");
        wait_synced(&master, &replica);
        OldSnapshots { master, slow, link, replica, keys }
    }

    /// The replica, told by `command` to follow the master, takes all data anew: it must show the keys before any record has followed.
    #[track_caller]
    fn expect_no_way_back(self, command: &str) {
        let OldSnapshots { master, slow, link, replica, keys } = self;
        let before = replica.full_syncs();
        replica.run("CONFIG SET throttle-bytes-per-second 1M").expect_ok();
        replica.run(&command.replace("PORT", &link.port().to_string())).expect_ok();
        wait_for("the replica to fetch all slots", DEADLINE, || fetches_all(&replica));
        link.inject(Fault::Stall, Wires::replication());
        unthrottle(&replica);
        wait_for("full syncs", DEADLINE, || replica.full_syncs() == before + SLOTS);
        let mut conn = replica.conn();
        for (db, key) in &keys {
            conn.select(*db);
            assert_eq!(conn.call(&["GET", key]), Reply::bulk("seen"), "{key} in db{db}");
        }
        link.restore();
        unthrottle(&slow);
        wait_synced(&master, &replica);
        wait_synced(&master, &slow);
    }
}

fn set_all(node: &Node, keys: &[(usize, String)], value: &str) {
    let mut conn = node.conn();
    for (db, key) in keys {
        conn.select(*db);
        conn.call(&["SET", key, value]).expect_ok();
    }
}

/// A snapshot that another replica still fetches is not for one that has more already: what its readers have seen stays, though it takes
/// all data anew.
#[test]
fn a_full_sync_takes_no_replica_back() {
    OldSnapshots::new().expect_no_way_back("SLAVEOF 127.0.0.1 PORT FORCE");
}

/// Of one whose log has gone another way, only what the master does not have.
#[test]
fn a_full_sync_takes_no_replica_further_back_than_to_the_last_common_record() {
    let old = OldSnapshots::new();
    old.replica.slaveof_no_one();
    let own: Vec<(usize, String)> = (0..40).map(|n| (n % 2, format!("own{n}"))).collect();
    set_all(&old.replica, &own, "v");
    old.expect_no_way_back("SLAVEOF 127.0.0.1 PORT");
}

/// A ← B, and C, which has more than B, is to take B's data anew: it waits until B has as much, or is the master itself.
#[test]
fn a_full_sync_from_a_replica_that_lags_waits_for_it() {
    let mut rng = rng();
    let a = master_with(1, small(), &mut rng);
    let [b, c] = [small().start(), small().start()];
    let link = Link::to(&a);
    b.slaveof(link.port());
    c.slaveof(a.port());
    let keys: Vec<String> = (0..20).map(|n| format!("later{n}")).collect();
    let all = |node: &Node, value: &Reply| keys.iter().all(|key| node.run(&format!("GET {key}")) == *value);
    for value in ["first", "second"] {
        wait_synced(&a, &b);
        wait_synced(&a, &c);
        link.cut();
        wait_for("B to lose its master", DEADLINE, || !b.replication().is_connected());
        keys.iter().for_each(|key| a.run(&format!("SET {key} {value}")).expect_ok());
        wait_synced(&a, &c);
        c.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", b.port())).expect_ok();
        wait_for("C to be told to wait", DEADLINE, || c.replication().text.contains("has yet to get as far as"));
        assert!(all(&c, &Reply::bulk(value)));
        if value == "first" {
            link.restore();
            wait_for("C to have B's data", DEADLINE, || {
                assert!(all(&c, &Reply::bulk(value)), "C went back");
                c.replication().is_connected()
            });
            c.slaveof(a.port());
        }
    }
    b.slaveof_no_one();
    wait_synced(&b, &c);
    assert!(all(&c, &Reply::bulk("first")));
}

/// The master writes faster than the replica loads, and would purge its log at once: one full sync is enough all the same.
#[test]
fn one_full_sync_is_enough_however_fast_the_master_writes() {
    let mut rng = rng();
    let turning =
        |o: NodeOptions| o.set("binlog-file-size", "256K").set("expire-logs-nums", 1).set("write-buffer-size", "512K");
    let master = master_with(8, turning(small()), &mut rng);
    let load = LoadOptions { databases: 2, value_len: 4000, pace: Duration::ZERO, ..LoadOptions::default() };
    let load = Load::start(&master, load);
    let replica = turning(throttled("3M")).start();
    replica.slaveof(master.port());
    wait_received(&replica, 2 << 20);
    let turned = |n: u64| {
        let before = master.replication().positions().values().map(|p| p.0).min().unwrap_or(0);
        wait_for("the log to turn over", DEADLINE, || {
            let now = master.replication().positions().values().map(|p| p.0).min().unwrap_or(0);
            now >= before + n
        });
    };
    turned(6);
    wait_connected(&replica);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!((replica.full_syncs(), replica.partial_syncs()), (SLOTS, SLOTS));
    assert_eq!(master.stat("sync_dropped"), 0);
    // Nothing of it is kept any longer than needed: not once the engines have been flushed, as they are for a snapshot.
    master.run("SAVE").expect_ok();
    wait_for("the logs to be purged", DEADLINE, || {
        files_under(&master.data_dir().join("binlog")).len() as u64 <= 2 * SLOTS
    });
}

/// What is kept for a replica has a limit. Beyond it the replica is dropped, both sides say why, and it tries again ever more rarely.
#[test]
fn over_the_cap_a_replica_is_dropped_and_both_sides_say_why() {
    const CAP: u64 = 2 << 20;
    let mut rng = rng();
    let options = small().set("binlog-file-size", "256K").set("write-buffer-size", "512K").set("expire-logs-nums", 1);
    let master = master_with(8, options.set("binlog-max-pinned-size", CAP), &mut rng);
    // Slow enough for any machine: it would take half a minute.
    let replica = throttled("256K").start();
    replica.run("SET own before").expect_ok();
    replica.slaveof(master.port());
    wait_received(&replica, 256 << 10);
    let load = LoadOptions { value_len: 8000, pace: Duration::ZERO, ..LoadOptions::default() };
    let load = Load::start(&master, load);
    let dropped = wait_some("a dropped replica", DEADLINE, || {
        let dropped = master.replication().field("slave0_dropped").to_string();
        (!dropped.is_empty()).then_some(dropped)
    });
    assert!(dropped.contains("over binlog-max-pinned-size"), "{dropped}");
    let reason = wait_some("the reason on the replica", DEADLINE, || {
        let info = replica.replication().text;
        let line = info.lines().find(|l| l.contains("full_syncs_in_vain=") && l.contains("binlog-max-pinned-size"));
        line.map(String::from)
    });
    println!("{dropped}\n{reason}");
    // Again and again in vain, but ever more rarely, and with no more log than the cap and what is written between two looks at it.
    wait_for("a longer pause", DEADLINE, || {
        let used: u64 = files_under(&master.data_dir().join("binlog/db0/0"))
            .into_iter()
            .map(|path| std::fs::metadata(path).map_or(0, |meta| meta.len()))
            .sum();
        assert!(used < 32 * CAP, "{used} bytes of log");
        replica.replication().text.contains("next_try_seconds=")
    });
    assert_eq!(replica.run("GET own"), Reply::bulk("before"));
    assert!(master.stat("sync_dropped") > 0);
    let acked = load.stop();
    unthrottle(&replica);
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(master.replication().field("slave0_dropped"), "");
}

/// A replica that leaves unpins at once; what it had received goes too.
#[test]
fn a_replica_that_leaves_in_the_middle_keeps_nothing() {
    let mut rng = rng();
    let master = master_with(4, small().set("binlog-file-size", "256K").set("expire-logs-nums", 1), &mut rng);
    let replica = throttled("1M").start();
    replica.run("SET own before").expect_ok();
    let before = replica.digest();
    replica.slaveof(master.port());
    wait_received(&replica, 1 << 20);
    assert!(!snapshot_files(&master).is_empty());
    replica.slaveof_no_one();
    wait_for("the snapshots to go", DEADLINE, || snapshot_files(&master).is_empty());
    assert!(!master.replication().text.contains("_snapshot:"), "{}", master.replication().text);
    wait_for("what was received to go", DEADLINE, || received_files(&replica).is_empty());
    assert_eq!(replica.digest(), before);
    let log = master.output();
    assert!(log.contains("replica left") && !log.contains("dropped"), "it was not told, but found out: {log}");
    // The same with one database only.
    replica.slaveof(master.port());
    wait_received(&replica, 1 << 20);
    replica.run("DBSLAVEOF db0 NO ONE").expect_ok();
    wait_for("its snapshots to go", DEADLINE, || !master.replication().text.contains("db0:0_snapshot:"));
    replica.run("DBSLAVEOF db0").expect_ok();
    unthrottle(&replica);
    wait_synced(&master, &replica);
}

/// One that is killed and one that the network swallows cannot say that they leave: the silence does. One that is only slow says that it
/// is there, though it takes nothing for longer than that.
#[test]
fn what_is_kept_for_a_silent_replica_goes_after_the_keepalive() {
    let mut rng = rng();
    let master = master_with(4, small(), &mut rng);
    let [mut killed, swallowed] = [(); 2].map(|()| throttled("1M").start());
    let slow = throttled("4K").start();
    let link = Link::to(&master);
    killed.slaveof(master.port());
    slow.slaveof(master.port());
    swallowed.slaveof(link.port());
    wait_received(&killed, 1 << 20);
    wait_received(&swallowed, 1 << 20);
    killed.kill9();
    link.stall();
    wait_for("both to be dropped", DEADLINE, || master.replication().number("connected_slaves") <= 1);
    let left = master.replication();
    assert!(left.field("slave0").contains(&format!("port={},", slow.port())), "{}", left.text);
    for slot in ["db0:0", "db0:1"] {
        assert!(left.text.contains(&format!("{slot}_snapshot:state=ready,readers=1,")), "{}", left.text);
    }
    slow.slaveof_no_one();
    wait_for("the snapshots to go", DEADLINE, || snapshot_files(&master).is_empty());
    assert!(!master.replication().text.contains("_snapshot:"));
    // Both go on where they were.
    link.restore();
    unthrottle(&swallowed);
    killed.set_option("throttle-bytes-per-second", 0);
    killed.start_again();
    wait_synced(&master, &killed);
    wait_synced(&master, &swallowed);
}

/// A snapshot that nobody has used for `snapshot-ttl` goes; the replica starts over with another. What a crash of the master leaves goes
/// when it starts.
#[test]
fn a_snapshot_gone_by_its_ttl_is_made_anew() {
    let mut rng = rng();
    // More than is on the way when the link is cut.
    let mut master = master_with(24, small().set("snapshot-ttl", 1), &mut rng);
    let link = Link::to(&master);
    let replica = throttled("1M").start();
    replica.run("SET own before").expect_ok();
    replica.slaveof(link.port());
    wait_received(&replica, 1 << 20);
    let made = master.stat("sync_snapshots");
    link.cut();
    wait_for("the snapshots to go", DEADLINE, || snapshot_files(&master).is_empty());
    assert_eq!(replica.run("GET own"), Reply::bulk("before"));
    master.run("SET new v").expect_ok();
    link.restore();
    wait_for("new snapshots", DEADLINE, || master.stat("sync_snapshots") > made);
    // A crash leaves folders, which go at the next start.
    wait_for("files of snapshots", DEADLINE, || !snapshot_files(&master).is_empty());
    link.cut();
    master.kill9();
    assert!(!snapshot_files(&master).is_empty());
    master.start_again();
    assert!(snapshot_files(&master).is_empty(), "{:?}", snapshot_files(&master));
    link.restore();
    unthrottle(&replica);
    wait_synced(&master, &replica);
}

/// SIGKILL of replica or master at any moment of full syncs: a slot that is Connected has its master's data, whole.
#[test]
fn killed_at_any_moment() {
    const ROUNDS: usize = 10;
    let mut rng = rng();
    let mut master = master_with(3, small(), &mut rng);
    let mut replica = throttled("4M").start();
    // A key in each slot, which both have.
    let keys: Vec<String> = (0..40).map(|n| format!("mark{n}")).collect();
    let slot_of = |node: &Node, key: &str| node.run(&format!("CLUSTER KEYSLOT {key}")).int() as u64 * 2 / 16384;
    let places: Vec<u64> = keys.iter().map(|key| slot_of(&replica, key)).collect();
    for (node, value) in [(&master, "new"), (&replica, "old")] {
        keys.iter().for_each(|key| node.run(&format!("SET {key} {value}")).expect_ok());
    }
    replica.slaveof(master.port());
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(rng.random_range(0..500)));
        let node = if round % 3 == 2 { &mut master } else { &mut replica };
        node.kill9();
        node.start_again();
        // Connected is looked at first: what is so once stays so.
        let seen = replica.replication();
        for (key, place) in keys.iter().zip(&places) {
            let slot = format!("db0:{place}");
            let connected = seen.states().contains(&(slot.as_str(), "Connected"));
            let value = replica.run(&format!("GET {key}")).text();
            assert!(value == "new" || (value == "old" && !connected), "{key} is {value}, {}", seen.text);
        }
    }
    unthrottle(&replica);
    wait_synced(&master, &replica);
    assert!(received_files(&replica).is_empty(), "{:?}", received_files(&replica));
}

/// A replica killed in a full sync that was forced on it has a log that its master would accept. It syncs in full all the same.
#[test]
fn a_full_sync_begun_is_finished_after_a_crash() {
    let mut rng = rng();
    let master = master_with(3, small(), &mut rng);
    let mut replica = small().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    replica.run("CONFIG SET throttle-bytes-per-second 1M").expect_ok();
    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", master.port())).expect_ok();
    wait_received(&replica, 512 << 10);
    replica.kill9();
    let node = std::fs::read_to_string(replica.data_dir().join("NODE")).expect("NODE");
    let slots: Vec<&str> = node.lines().filter_map(|l| l.strip_prefix("full-sync : ")).collect();
    println!("{slots:?}");
    let left = slots.iter().flat_map(|l| l.split_whitespace()).count() as u64;
    assert!(left > 0, "the transfer was over: {node}");
    replica.start_again();
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), left);
}

/// FLUSHDB, SWAPDB and writes in the middle.
#[test]
fn the_master_is_flushed_and_swapped_in_the_middle() {
    let mut rng = rng();
    let master = master_with(3, small(), &mut rng);
    fill(&master, 1, "other", 50, 100, &mut rng);
    let replica = throttled("1M").start();
    replica.slaveof(master.port());
    wait_received(&replica, 512 << 10);
    let mut conn = master.conn();
    conn.run("SWAPDB 0 1").expect_ok();
    conn.run("SET swapped v").expect_ok();
    conn.select(1);
    conn.run("SET before flush").expect_ok();
    conn.run("FLUSHDB").expect_ok();
    conn.run("SET after flush").expect_ok();
    unthrottle(&replica);
    wait_synced(&master, &replica);
    for node in [&master, &replica] {
        let mut conn = node.conn();
        assert_eq!((conn.run("GET swapped"), conn.run("DBSIZE")), (Reply::bulk("v"), Reply::Int(51)));
        conn.select(1);
        assert_eq!(conn.run("KEYS *"), Reply::bulks(&["after"]));
    }
}

/// Another master in the middle: nothing of the first is left.
#[test]
fn another_master_in_the_middle() {
    let mut rng = rng();
    let [first, second] = [(); 2].map(|()| master_with(3, small(), &mut rng));
    first.run("SET whose first").expect_ok();
    second.run("SET whose second").expect_ok();
    let replica = throttled("1M").start();
    replica.slaveof(first.port());
    wait_received(&replica, 512 << 10);
    // It has taken the first one's history over.
    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", second.port())).expect_ok();
    unthrottle(&replica);
    wait_synced(&second, &replica);
    assert_eq!(replica.run("GET whose"), Reply::bulk("second"));
    wait_for("the first one's snapshots to go", DEADLINE, || snapshot_files(&first).is_empty());
}

/// A ← B ← C: while B takes A's data anew, C serves what it has, and follows again afterwards.
#[test]
fn a_full_sync_in_the_middle_of_a_chain() {
    let mut rng = rng();
    let a = master_with(3, small(), &mut rng);
    let [b, c] = [small().start(), small().start()];
    b.slaveof(a.port());
    c.slaveof(b.port());
    wait_synced(&a, &b);
    wait_synced(&b, &c);
    b.run("CONFIG SET throttle-bytes-per-second 1M").expect_ok();
    b.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", a.port())).expect_ok();
    wait_received(&b, 512 << 10);
    let load = Load::start(&a, LoadOptions { databases: 2, ..LoadOptions::default() });
    load.wait_more(500);
    // Neither has lost anything meanwhile.
    let whole = a.run("GET k1");
    for node in [&b, &c] {
        assert_eq!(node.run("GET k1"), whole);
    }
    load.wait_more(500);
    unthrottle(&b);
    wait_connected(&b);
    wait_connected(&c);
    let acked = load.stop();
    wait_synced(&a, &b);
    wait_synced(&b, &c);
    wait_equal_digest(&a, &c);
    acked.verify(&c);
}
