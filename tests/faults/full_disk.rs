//! A disk that fills up under a running server: writes are refused, reads go on, nothing is torn, and all goes on by itself when there
//! is room again.

use rand::rngs::StdRng;

use crate::common::{
    Conn, DEADLINE, Load, LoadOptions, Node, NodeOptions, Reply, fill, random_bytes, rng, wait_for, wait_link_error,
    wait_some, wait_synced,
};

/// A value's length.
const LEN: usize = 2000;

fn small() -> NodeOptions {
    NodeOptions::new()
        .set("databases", 2)
        .set("slot-num", 2)
        .set("write-buffer-size", "256K")
        .set("max-write-buffer-size", "1M")
        .set("binlog-file-size", "128K")
        .set("expire-logs-nums", 2)
        .faulty_disk()
}

fn persistence(node: &Node) -> String {
    node.run("INFO persistence").text()
}

/// The error is the one for a full disk, and says so.
#[track_caller]
fn expect_full(reply: &Reply) {
    let text = match reply {
        Reply::Error(text) => text,
        other => panic!("taken, without room: {other:?}"),
    };
    assert!(text.starts_with("MISCONF") && text.contains("No space left on device"), "{text}");
}

/// A slot was refused for lack of room and none is closed.
#[track_caller]
fn expect_told(node: &Node) {
    let info = persistence(node);
    assert!(info.contains("slot_disk_full:db0:") && info.contains("slots_read_only:0\r\n"), "{info}");
}

#[track_caller]
fn expect_well(node: &Node) {
    wait_for("no slot without room", DEADLINE, || persistence(node).contains("slots_disk_full:0\r\n"));
    assert!(persistence(node).contains("slots_read_only:0\r\n"), "{}", persistence(node));
}

#[test]
fn writes_are_refused_and_resume_and_reads_go_on() {
    let mut node = small().set("sync", "always").start();
    let mut conn = node.conn();
    conn.run("MSET {a}1 one {b}2 two {c}n 5").expect_ok();
    let digest = node.digest();
    node.disk().set_room(Some(0));
    for refused in [
        "SET {a}1 other",
        "MSET {a}1 other {b}2 other {c}n 7",
        "INCR {c}n",
        "RENAME {a}1 {b}9",
        "DEL {a}1",
        "LPUSH {a}list x",
        "FLUSHDB",
        "FLUSHALL",
        "SWAPDB 0 1",
        "EVAL redis.call('set','{a}1','x') 1 {a}1",
    ] {
        match refused.strip_prefix("EVAL ") {
            Some(_) => expect_full(&conn.call(&["EVAL", "return redis.call('SET', KEYS[1], 'other')", "1", "{a}1"])),
            None => expect_full(&conn.run(refused)),
        }
    }
    // A slot that was never written has not even folders.
    conn.select(1);
    expect_full(&conn.run("SET {a}1 first"));
    conn.select(0);
    assert_eq!(conn.run("MGET {a}1 {b}2 {c}n"), Reply::bulks(&["one", "two", "5"]));
    assert_eq!(node.digest(), digest);
    expect_told(&node);
    // A short write of the first bytes of a record is undone.
    node.disk().set_room(Some(20));
    expect_full(&conn.run("SET {a}1 other"));
    node.disk().set_room(None);
    conn.run("MSET {a}1 new {b}2 new {c}n 6").expect_ok();
    conn.run("INCR {c}n");
    node.crash();
    assert_eq!(node.run("MGET {a}1 {b}2 {c}n"), Reply::bulks(&["new", "new", "7"]));
    assert_eq!(node.run("DBSIZE"), Reply::Int(3));
    expect_well(&node);
}

/// Fills a disk with little room through one connection, until writes are refused; the keys that were acknowledged.
fn fill_up(node: &Node, rng: &mut StdRng) -> Vec<(String, Vec<u8>)> {
    let mut conn = node.conn();
    let mut held = Vec::new();
    for nth in 0.. {
        let (key, value) = (format!("fill{nth}"), random_bytes(rng, LEN));
        match conn.call(&[b"SET", key.as_bytes(), &value]) {
            Reply::Simple(_) => held.push((key, value)),
            refused => {
                expect_full(&refused);
                return held;
            }
        }
    }
    held
}

fn expect_held(node: &Node, held: &[(String, Vec<u8>)]) {
    let mut conn = node.conn();
    for (key, value) in held {
        assert_eq!(conn.call(&["GET", key]), Reply::bulk(value), "{key}");
    }
}

/// The engine, too, stops when a flush finds no room, and goes on without a restart.
#[test]
fn an_engine_that_could_not_be_flushed_goes_on_when_there_is_room() {
    let mut rng = rng();
    let mut node = small().start();
    for room in [700 << 10, 1500 << 10] {
        node.disk().set_room(Some(room));
        let held = fill_up(&node, &mut rng);
        expect_told(&node);
        // Something that is not flushed yet, unless the engine has stopped already; then nothing is left for the engine.
        node.disk().set_room(Some(4 << 10));
        node.run("SET small v");
        node.disk().set_room(Some(0));
        let stopped = || {
            // Flushes all slots.
            node.run("DEBUG LOADAOF");
            persistence(&node).lines().any(|l| l.starts_with("slot_disk_full:") && l.contains("/db/"))
        };
        wait_for("a flush that finds no room", DEADLINE, stopped);
        expect_held(&node, &held);
        expect_full(&node.run("SET x y"));
        assert!(persistence(&node).contains("slots_read_only:0\r\n"));
        node.disk().set_room(None);
        let mut conn = node.conn();
        let all = ["MSET", "a", "1", "b", "2", "c", "3", "d", "4"];
        wait_for("writes to resume", DEADLINE, || matches!(conn.call(&all), Reply::Simple(_)));
        expect_well(&node);
        expect_held(&node, &held);
        let digest = node.digest();
        node.crash();
        assert_eq!(node.digest(), digest);
    }
}

/// Under load of many clients, with room that comes and goes: everything acknowledged is there, nothing refused is half there.
#[test]
fn a_disk_that_fills_again_and_again_under_load() {
    let mut node = small().start();
    let load = Load::start(&node, LoadOptions { threads: 3, value_len: 1000, databases: 2, ..LoadOptions::default() });
    for round in 0..3 {
        load.wait_more(300);
        node.disk().set_room(Some(200_000 * (round + 1)));
        wait_for("a full disk", DEADLINE, || !persistence(&node).contains("slots_disk_full:0\r\n"));
        assert!(persistence(&node).contains("slots_read_only:0\r\n"), "{}", persistence(&node));
        node.disk().set_room(None);
    }
    load.wait_more(300);
    let acked = load.stop();
    acked.verify(&node);
    expect_well(&node);
    let digest = node.digest();
    node.crash();
    acked.verify(&node);
    assert_eq!(node.digest(), digest);
}

#[test]
fn a_save_and_a_change_of_roles_find_no_room() {
    let mut rng = rng();
    let node = small().start();
    fill(&node, 0, "k", 200, LEN, &mut rng);
    let digest = node.digest();
    node.disk().set_room(Some(0));
    let said = node.run("BGSAVE");
    assert!(!said.is_error(), "{said:?}");
    wait_for("the save to fail", DEADLINE, || persistence(&node).contains("rdb_last_bgsave_status:err\r\n"));
    assert!(persistence(&node).contains("No space left on device"), "{}", persistence(&node));
    let left = std::fs::read_dir(node.data_dir().join("dump")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what a failed save leaves");
    let said = node.run("SLAVEOF 127.0.0.1 1");
    assert!(said.error_text().contains("No space left on device"), "{said:?}");
    assert_eq!(node.replication().field("role"), "master");
    assert!(!node.data_dir().join("NODE.tmp").exists());
    node.disk().set_room(None);
    let save = || node.run("BGSAVE").is_error() || persistence(&node).contains("rdb_last_bgsave_status:ok\r\n");
    wait_for("a save", DEADLINE, save);
    assert_eq!(node.digest(), digest);
}

#[test]
fn a_replica_without_room_goes_on_without_a_full_sync() {
    let mut rng = rng();
    // A replica that is away pins nothing.
    let (master, mut replica) = (small().set("expire-logs-nums", 1000).start(), small().start());
    replica.slaveof(master.port());
    fill(&master, 0, "k", 100, LEN, &mut rng);
    wait_synced(&master, &replica);
    let full_syncs = replica.full_syncs();
    // First the log, then the engine finds none.
    for room in [0, 700 << 10] {
        replica.disk().set_room(Some(room));
        fill(&master, 0, &format!("more{room}"), 600, LEN, &mut rng);
        wait_for("the reason", DEADLINE, || wait_link_error(&replica).contains("No space left on device"));
        assert!(persistence(&replica).contains("slots_read_only:0\r\n"), "{}", persistence(&replica));
        assert!(!replica.run("GET k1").is_nil(), "reads go on");
        replica.disk().set_room(None);
        wait_synced(&master, &replica);
    }
    assert_eq!(replica.full_syncs(), full_syncs);
    let digest = replica.digest();
    replica.crash();
    assert_eq!(replica.digest(), digest);
}

#[test]
fn a_replica_whose_disk_fills_in_a_full_sync_keeps_its_old_data() {
    let mut rng = rng();
    let (master, replica) = (small().start(), small().start());
    fill(&master, 0, "new", 1500, LEN, &mut rng);
    fill(&replica, 0, "old", 100, 100, &mut rng);
    let old = replica.digest();
    replica.disk().set_room(Some(500 << 10));
    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", master.port())).expect_ok();
    let reason = wait_some("a reason", DEADLINE, || {
        let text = replica.replication().text;
        text.contains("No space left on device").then_some(text)
    });
    println!("{reason}");
    assert_eq!(replica.digest(), old);
    replica.disk().set_room(Some(0));
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(replica.digest(), old);
    let mut conn = Conn::to(replica.port());
    assert_eq!(conn.run("DBSIZE"), Reply::Int(100));
    replica.disk().set_room(None);
    wait_synced(&master, &replica);
    assert_eq!(replica.run("DBSIZE"), Reply::Int(1500));
}
