//! The history itself: it must see what it is there to see.

use crate::common::{Conn, DEADLINE, History, HistoryOptions, Node, NodeOptions, rng, wait_for};

/// What somebody else does to a key of a type: a write lost, applied twice, in part, or out of nowhere.
const TAMPERINGS: [(&str, &str); 9] = [
    ("string", "DEL"),
    ("string", "APPEND x"),
    ("string", "PEXPIREAT 99999999999999"),
    ("list", "RPUSH again"),
    ("list", "LPOP"),
    ("set", "SADD unheard-of"),
    ("hash", "HINCRBY unheard-of 1"),
    ("zset", "ZINCRBY 1 unheard-of"),
    ("stream", "XADD 999999999-0 f v"),
];

fn node() -> Node {
    NodeOptions::new().set("databases", 3).set("slot-num", 2).start()
}

fn history(node: &Node) -> History {
    let options = HistoryOptions { clients: 2, ..HistoryOptions::default() };
    History::start(node.port(), &[node.port()], &options, &mut rng())
}

/// Does it to some key of the type that stays for long.
fn tamper(node: &Node, kind: &str, line: &str) {
    let mut conn: Conn = node.conn();
    for db in 0..2 {
        conn.select(db);
        for key in conn.run(&format!("SCAN 0 COUNT 100000 TYPE {kind}")).items()[1].texts() {
            if conn.run(&format!("PEXPIRETIME {key}")).int() == -1 {
                let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
                let done = conn.run(&format!("{command} {key} {rest}"));
                assert!(!done.is_error(), "{line} of {key}: {done:?}");
                return;
            }
        }
    }
    panic!("no key of type {kind}");
}

#[test]
fn a_difference_is_seen_at_the_end() {
    for (kind, line) in TAMPERINGS {
        let node = node();
        let history = history(&node);
        history.wait_more(1500);
        let outcome = history.stop();
        outcome.wait_expired();
        outcome.verify(&node);
        tamper(&node, kind, line);
        let seen = outcome.difference(node.port()).expect("an answer").expect("a difference");
        assert!(seen.contains("1 things are wrong") || line == "DEL" && seen.contains("2 things"), "{line}: {seen}");
    }
    let (node, other) = (node(), node());
    let history = history(&node);
    history.wait_more(200);
    let outcome = history.stop();
    node.run("SET stray v").expect_ok();
    assert!(outcome.difference(node.port()).expect("an answer").is_some(), "a key that nobody wrote");
    assert!(outcome.difference(other.port()).expect("an answer").is_some(), "an empty node");
}

#[test]
fn a_difference_is_seen_while_it_goes_on() {
    for (kind, line) in TAMPERINGS {
        let mut node = node();
        let history = history(&node);
        history.wait_more(1500);
        history.pause(true);
        wait_for("the clients to pause", DEADLINE, || history.is_paused());
        tamper(&node, kind, line);
        node.crash();
        history.pause(false);
        wait_for("a violation", DEADLINE, || history.violation().is_some());
        let seen = history.violation().unwrap_or_default();
        // A reader may be first.
        let told = seen.contains("must be:") && seen.contains("history of h") || seen.contains("seen half");
        assert!(told, "{line}: {seen}");
    }
}
