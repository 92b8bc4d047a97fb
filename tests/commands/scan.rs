//! SCAN: every key once, cursors that may be used again, filters.

use std::collections::BTreeSet;

use crate::common::{Conn, Node, Reply, fill, rng};

/// One call; the next cursor and the keys.
fn scan(conn: &mut Conn, cursor: &str, options: &str) -> (String, Vec<String>) {
    let reply = conn.run(&format!("SCAN {cursor} {options}"));
    let [next, keys] = reply.items() else { panic!("not a SCAN reply: {reply:?}") };
    (next.text(), keys.texts())
}

/// A whole iteration; asserts that no key comes twice.
fn scan_all(conn: &mut Conn, options: &str) -> BTreeSet<String> {
    let (mut cursor, mut seen) = ("0".to_string(), BTreeSet::new());
    loop {
        let (next, keys) = scan(conn, &cursor, options);
        for key in keys {
            assert!(seen.insert(key.clone()), "{key} came twice");
        }
        if next == "0" {
            return seen;
        }
        cursor = next;
    }
}

fn names(prefix: &str, range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|i| format!("{prefix}{i}")).collect()
}

#[test]
fn every_key_once() {
    let node = Node::start();
    fill(&node, 0, "k", 1000, 8, &mut rng());
    fill(&node, 0, "other:", 500, 8, &mut rng());
    fill(&node, 7, "elsewhere", 10, 8, &mut rng());
    let mut conn = node.conn();
    let all: BTreeSet<String> = names("k", 0..1000).union(&names("other:", 0..500)).cloned().collect();
    for options in ["", "COUNT 1", "COUNT 7", "COUNT 499", "COUNT 1500", "COUNT 100000", "MATCH *", "TYPE string"] {
        assert!(scan_all(&mut conn, options) == all, "SCAN {options}");
    }
    for (options, expected) in [
        ("MATCH k*", names("k", 0..1000)),
        ("match other:* count 50", names("other:", 0..500)),
        ("COUNT 3 MATCH other:1?", names("other:", 10..20)),
        ("MATCH *7 TYPE STRING MATCH k7", names("k", 7..8)),
        ("MATCH nothing*", BTreeSet::new()),
        ("MATCH l*", BTreeSet::new()),
        ("TYPE hash", BTreeSet::new()),
        ("TYPE nonsense", BTreeSet::new()),
    ] {
        assert_eq!(scan_all(&mut conn, options), expected, "SCAN {options}");
    }
    conn.select(7);
    assert_eq!(scan_all(&mut conn, "COUNT 4"), names("elsewhere", 0..10));
    conn.select(8);
    assert_eq!(scan(&mut conn, "0", ""), ("0".into(), vec![]));
}

#[test]
fn count_bounds_what_is_looked_at() {
    let node = Node::start();
    fill(&node, 0, "k", 100, 8, &mut rng());
    let mut conn = node.conn();
    assert_eq!(scan(&mut conn, "0", "").1.len(), 10);
    assert_eq!(scan(&mut conn, "0", "COUNT 25").1.len(), 25);
    let (next, keys) = scan(&mut conn, "0", "COUNT 25 MATCH *x");
    assert!(next != "0" && keys.is_empty(), "it went on to look for a match");
    let (next, keys) = scan(&mut conn, "0", "COUNT 100");
    assert_eq!((next.as_str(), keys.len()), ("0", 100), "the end is known when it is reached");
}

#[test]
fn a_cursor_may_be_used_again() {
    let node = Node::start();
    fill(&node, 0, "k", 100, 8, &mut rng());
    let mut conn = node.conn();
    let (cursor, first) = scan(&mut conn, "0", "COUNT 30");
    let (next, second) = scan(&mut conn, &cursor, "COUNT 30");
    let (_, again) = scan(&mut node.conn(), &cursor, "COUNT 30");
    assert_eq!(second, again, "another connection, the same cursor");
    let (_, third) = scan(&mut conn, &next, "COUNT 100");
    let all: BTreeSet<_> = [first, second, third].concat().into_iter().collect();
    assert_eq!(all, names("k", 0..100));
}

#[test]
fn keys_that_stay_are_seen_while_others_come_and_go() {
    let node = Node::start();
    fill(&node, 0, "stays", 300, 8, &mut rng());
    fill(&node, 0, "goes", 300, 8, &mut rng());
    let mut conn = node.conn();
    let (mut cursor, mut seen, mut step) = ("0".to_string(), Vec::new(), 0);
    loop {
        let (next, keys) = scan(&mut conn, &cursor, "COUNT 13");
        // The cursor's own key may be among the deleted.
        keys.iter().filter(|key| key.starts_with("goes")).for_each(|key| {
            conn.call(&["DEL", key]);
        });
        conn.call(&["SET", &format!("new{step}"), "v"]).expect_ok();
        conn.call(&["DEL", &format!("goes{}", step * 7 % 300)]);
        step += 1;
        seen.extend(keys);
        if next == "0" {
            break;
        }
        cursor = next;
    }
    let stayed: Vec<_> = seen.iter().filter(|key| key.starts_with("stays")).cloned().collect();
    assert_eq!(stayed.len(), 300, "each of them once");
    assert_eq!(stayed.into_iter().collect::<BTreeSet<_>>(), names("stays", 0..300));
}

#[test]
fn refusals() {
    let mut node = Node::start();
    fill(&node, 0, "k", 100, 8, &mut rng());
    let mut conn = node.conn();
    for (line, error) in [
        ("SCAN", "ERR wrong number of arguments for 'scan' command"),
        ("SCAN x", "ERR invalid cursor"),
        ("SCAN \" 0\"", "ERR invalid cursor"),
        ("SCAN 18446744073709551616", "ERR invalid cursor"),
        ("SCAN x FOO", "ERR invalid cursor"),
        ("SCAN 12345", "ERR invalid cursor"),
        ("SCAN 0 FOO", "ERR syntax error"),
        ("SCAN 0 FOO 1", "ERR syntax error"),
        ("SCAN 0 MATCH", "ERR syntax error"),
        ("SCAN 0 COUNT 0", "ERR syntax error"),
        ("SCAN 0 COUNT -5", "ERR syntax error"),
        ("SCAN 0 COUNT x", "ERR value is not an integer or out of range"),
    ] {
        assert_eq!(conn.run(line), Reply::error(error), "{line}");
    }
    let (cursor, _) = scan(&mut conn, "0", "");
    conn.select(1);
    let elsewhere = conn.run(&format!("SCAN {cursor}"));
    assert_eq!(elsewhere, Reply::error("ERR invalid cursor"), "a cursor of another database");
    node.restart();
    let after = node.run(&format!("SCAN {cursor}"));
    assert_eq!(after, Reply::error("ERR invalid cursor"), "a cursor from before a restart");
}
