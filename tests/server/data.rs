//! Data across slots and databases: many keys in one command, big values, flushing, expiry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{Node, Reply, fill, random_bytes, rng, unix_ms};

#[test]
fn databases_are_apart() {
    let node = Node::start();
    let mut conn = node.conn();
    for db in 0..16 {
        conn.select(db);
        conn.call(&["SET", "k", &format!("in {db}")]).expect_ok();
    }
    for db in 0..16 {
        conn.select(db);
        assert_eq!(conn.run("GET k"), Reply::bulk(format!("in {db}")));
        assert_eq!(conn.run("DBSIZE"), Reply::Int(1));
    }
    assert_eq!(conn.run("SELECT 16"), Reply::error("ERR DB index is out of range"));
    assert_eq!(conn.run("SELECT -1"), Reply::error("ERR DB index is out of range"));
    assert_eq!(conn.run("GET k"), Reply::bulk("in 15"), "a refused SELECT changes nothing");
}

#[test]
fn a_value_of_twenty_megabytes() {
    const LEN: usize = 20 << 20;
    let value = random_bytes(&mut rng(), LEN);
    let mut node = Node::start();
    let mut conn = node.conn();
    conn.call(&[b"SET".as_slice(), b"big", &value]).expect_ok();
    assert_eq!(conn.run("STRLEN big"), Reply::Int(LEN as i64));
    assert!(conn.run("GET big").bytes() == value, "the value read is not the one written");
    assert_eq!(conn.run("APPEND big tail"), Reply::Int(LEN as i64 + 4));
    assert_eq!(conn.run("GETRANGE big -6 -1").bytes(), [&value[LEN - 2..], b"tail"].concat());
    node.crash();
    let kept = node.run("GET big");
    assert!(kept.bytes()[..LEN] == value && kept.bytes().ends_with(b"tail"), "after a crash");
}

#[test]
fn many_keys_over_all_slots() {
    let node = Node::start();
    let mut conn = node.conn();
    let keys: Vec<String> = (0..300).map(|i| format!("key{i}")).collect();
    let mut mset = vec!["MSET".to_string()];
    mset.extend(keys.iter().flat_map(|key| [key.clone(), format!("of {key}")]));
    conn.call(&mset).expect_ok();
    let with = |command: &str| {
        let mut args = vec![command.to_string()];
        args.extend(keys.iter().cloned());
        args
    };
    let expected: Vec<String> = keys.iter().map(|key| format!("of {key}")).collect();
    assert_eq!(conn.call(&with("MGET")), Reply::bulks(&expected));
    assert_eq!(conn.call(&with("EXISTS")), Reply::Int(300));
    assert_eq!(conn.run("MSETNX fresh 1 key7 2"), Reply::Int(0));
    assert_eq!(conn.run("EXISTS fresh"), Reply::Int(0), "MSETNX did half of its work");
    assert_eq!(conn.run("MSETNX fresh 1 fresher 2"), Reply::Int(1));
    assert_eq!(conn.call(&with("DEL")), Reply::Int(300));
    assert_eq!(conn.run("DBSIZE"), Reply::Int(2));
}

#[test]
fn rename_and_copy_between_slots() {
    let node = Node::start();
    let mut conn = node.conn();
    let at = unix_ms() as i64 + 1_000_000;
    for i in 0..40 {
        let (from, to, copy) = (format!("from{i}"), format!("to{i}"), format!("copy{i}"));
        conn.call(&["SET", &from, &format!("v{i}"), "PXAT", &at.to_string()]).expect_ok();
        conn.call(&["SET", &to, "old"]).expect_ok();
        assert_eq!(conn.call(&["RENAMENX", &from, &to]), Reply::Int(0));
        conn.call(&["RENAME", &from, &to]).expect_ok();
        assert_eq!(conn.call(&["GET", &from]), Reply::Nil);
        assert_eq!(conn.call(&["GET", &to]), Reply::bulk(format!("v{i}")));
        assert_eq!(conn.call(&["PEXPIRETIME", &to]), Reply::Int(at));
        assert_eq!(conn.call(&["COPY", &to, &copy]), Reply::Int(1));
        assert_eq!(conn.call(&["COPY", &to, &copy, "DB", "5"]), Reply::Int(1));
        assert_eq!(conn.call(&["PEXPIRETIME", &copy]), Reply::Int(at));
    }
    assert_eq!(conn.run("RENAME nothing x"), Reply::error("ERR no such key"));
    assert_eq!(conn.run("DBSIZE"), Reply::Int(80));
    conn.select(5);
    assert_eq!(conn.run("DBSIZE"), Reply::Int(40));
}

/// Keys of one MSET lie in several slots; a reader must not see half of it.
#[test]
fn readers_see_a_write_of_several_slots_whole() {
    let node = Node::start();
    let keys = ["a", "b", "c", "d", "e", "f"];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2 {
            let (mut conn, stop) = (node.conn(), &stop);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let value = format!("{writer}:{round}");
                    let mut mset = vec!["MSET"];
                    mset.extend(keys.iter().flat_map(|key| [*key, &value]));
                    conn.call(&mset).expect_ok();
                }
            });
        }
        let stopped = Stop(&stop);
        let mut conn = node.conn();
        let mut mget = vec!["MGET"];
        mget.extend(keys);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3000 {
            let held = conn.call(&mget);
            let first = &held.items()[0];
            assert!(held.items().iter().all(|item| item == first), "half a write: {held:?}");
            seen.insert(format!("{first:?}"));
        }
        drop(stopped);
        println!("{} different states seen", seen.len());
    });
}

/// Stops the writers, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn flushing() {
    let mut rng = rng();
    let mut node = Node::start();
    for db in [0, 3, 9] {
        fill(&node, db, "k", 500, 20, &mut rng);
    }
    let mut conn = node.conn();
    let sizes = |node: &Node| {
        let mut conn = node.conn();
        [0, 3, 9].map(|db| {
            conn.select(db);
            conn.run("DBSIZE").int()
        })
    };
    conn.select(3);
    conn.run("FLUSHDB").expect_ok();
    assert_eq!(sizes(&node), [500, 0, 500]);
    assert_eq!(conn.run("GET k1"), Reply::Nil);
    conn.run("SET k1 again").expect_ok();
    node.crash();
    assert_eq!(sizes(&node), [500, 1, 500], "FLUSHDB after a crash");
    node.run("FLUSHALL").expect_ok();
    assert_eq!(sizes(&node), [0, 0, 0]);
    assert_eq!(node.run("KEYS *"), Reply::Array(vec![]));
    node.run("SET k1 new").expect_ok();
    node.crash();
    assert_eq!(sizes(&node), [1, 0, 0], "FLUSHALL after a crash");
    assert_eq!(node.run("GET k1"), Reply::bulk("new"));
}

/// A key is there when a read ends before its time and gone when a read begins after it.
/// Server and test share a clock, so this holds however slow the machine is.
#[test]
fn expiry_is_exact_to_the_millisecond() {
    let node = Node::start();
    let mut conn = node.conn();
    for round in 0..20 {
        let key = format!("k{round}");
        let at = unix_ms() + 60 + round * 7;
        conn.call(&["SET", &key, "v", "PXAT", &at.to_string()]).expect_ok();
        loop {
            let began = unix_ms();
            let held = conn.call(&["GET", &key]);
            let ended = unix_ms();
            if held.is_nil() {
                assert!(ended >= at, "gone {} ms early", at - ended);
                break;
            }
            assert!(began <= at, "still there {} ms late", began - at);
        }
        assert_eq!(conn.call(&["EXISTS", &key]), Reply::Int(0));
        assert_eq!(conn.call(&["PTTL", &key]), Reply::Int(-2));
        assert_eq!(conn.call(&["INCR", &key]), Reply::Int(1), "an expired key starts anew");
        assert_eq!(conn.call(&["PTTL", &key]), Reply::Int(-1));
    }
}
