//! Nodes that follow each other in a circle: none is a master, and that is said instead of waited for.

use crate::common::{DEADLINE, Link, Node, Reply, wait_connected, wait_for, wait_synced};
use crate::small;

fn start() -> Node {
    small().set("repl-timeout", 2).start()
}

/// The reason that a node gives for not being connected.
fn reason(node: &Node) -> String {
    node.replication().field("master_link_error").to_string()
}

fn says_circle(node: &Node) -> bool {
    reason(node).contains("a circle of replicas")
}

#[track_caller]
fn wait_circle(nodes: &[&Node]) {
    wait_for("a node to say that it is a circle", DEADLINE, || nodes.iter().any(|node| says_circle(node)));
    let said = nodes.iter().find(|node| says_circle(node)).expect("one");
    println!("{}", reason(said));
    assert!(reason(said).contains("slaveof no one"), "what to type is not in it");
}

/// They share a history, so each would take the other for its master.
#[test]
fn two_that_follow_each_other() {
    let [a, b] = [start(), start()];
    a.run("SET k v").expect_ok();
    b.slaveof(a.port());
    wait_synced(&a, &b);
    a.slaveof(b.port());
    wait_circle(&[&a, &b]);
    assert_eq!(b.run("GET k"), Reply::bulk("v"));
    // Whoever is told to be the master is, and the other follows by itself.
    b.slaveof_no_one();
    b.run("SET k w").expect_ok();
    wait_connected(&a);
    wait_synced(&b, &a);
    assert_eq!((a.full_syncs(), a.run("GET k")), (0, Reply::bulk("w")));
}

#[test]
fn three_in_a_circle() {
    let [a, b, c] = [start(), start(), start()];
    a.run("SET k v").expect_ok();
    b.slaveof(a.port());
    wait_synced(&a, &b);
    c.slaveof(b.port());
    wait_synced(&b, &c);
    a.slaveof(c.port());
    wait_circle(&[&a]);
    // A chain is none.
    assert!(c.replication().is_connected(), "{}", c.replication().text);
    a.slaveof_no_one();
    a.run("SET k w").expect_ok();
    wait_synced(&a, &b);
    wait_synced(&b, &c);
    assert_eq!(b.full_syncs() + c.full_syncs(), 8, "only those that they began with");
}

/// The last links are closed while they are cut: each node is answered before it could be known. What the keepalives say shows it, or, where
/// nobody streams yet, the answers to TrySync.
#[test]
fn a_circle_closed_at_all_ends_at_once() {
    let [a, b, c] = [start(), start(), start()];
    let links = [Link::to(&a), Link::to(&b), Link::to(&c)];
    a.run("SET k v").expect_ok();
    for replica in [&b, &c] {
        replica.slaveof(a.port());
        wait_synced(&a, replica);
    }
    links.iter().for_each(Link::cut);
    a.slaveof(links[1].port());
    b.slaveof(links[2].port());
    c.slaveof(links[0].port());
    links.iter().for_each(Link::restore);
    wait_circle(&[&a, &b, &c]);
    c.slaveof_no_one();
    c.run("SET k w").expect_ok();
    wait_synced(&c, &b);
    wait_synced(&b, &a);
    assert_eq!(a.run("GET k"), Reply::bulk("w"));
}

/// Of new nodes none has a history: each waits for another to have one.
#[test]
fn a_circle_of_new_nodes_gives_a_reason() {
    let [a, b] = [start(), start()];
    let links = [Link::to(&a), Link::to(&b)];
    // Else the one that is told first may reach the other while that is still a master.
    links.iter().for_each(Link::cut);
    a.slaveof(links[1].port());
    b.slaveof(links[0].port());
    links.iter().for_each(Link::restore);
    let says_so = |node: &Node| reason(node).contains("no replication id");
    wait_for("reasons", DEADLINE, || says_so(&a) && says_so(&b));
    b.slaveof_no_one();
    b.run("SET k v").expect_ok();
    wait_synced(&b, &a);
}
