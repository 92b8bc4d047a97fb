//! Chains, failover by hand, and a master that comes back with writes nobody else has.

use std::path::PathBuf;

use crate::common::{
    DEADLINE, Link, Load, LoadOptions, Node, Reply, fill, rng, wait_connected, wait_equal_digest, wait_for, wait_some,
    wait_synced,
};
use crate::small;

#[test]
fn a_chain_of_three() {
    let [a, mut b, c] = [small().start(), small().start(), small().start()];
    fill(&a, 0, "first", 300, 100, &mut rng());
    b.slaveof(a.port());
    c.slaveof(b.port());
    wait_synced(&a, &b);
    wait_synced(&b, &c);
    let load = Load::start(&a, LoadOptions { databases: 2, ..LoadOptions::default() });
    load.wait_more(1000);
    b.kill9();
    load.wait_more(500);
    b.start_again();
    wait_connected(&b);
    wait_connected(&c);
    load.wait_more(500);
    let acked = load.stop();
    wait_synced(&a, &b);
    wait_synced(&b, &c);
    wait_equal_digest(&a, &c);
    acked.verify(&c);
    assert_eq!(a.replication().number("connected_slaves"), 1);
    assert_eq!(b.replication().field("role"), "slave");
    assert_eq!(b.replication().number("connected_slaves"), 1);
    assert_eq!(c.run("SET k v"), Reply::error(crate::full_sync::READONLY));
}

/// A chain formed from its end: C follows B before B follows A, so B's full sync replaces
/// what C already had.
#[test]
fn a_chain_formed_from_its_end() {
    let [a, b, c] = [small().start(), small().start(), small().start()];
    a.run("SET from a").expect_ok();
    b.run("SET from b").expect_ok();
    c.slaveof(b.port());
    wait_synced(&b, &c);
    assert_eq!(c.run("GET from"), Reply::bulk("b"));
    b.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", a.port())).expect_ok();
    wait_synced(&a, &b);
    c.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", b.port())).expect_ok();
    wait_synced(&b, &c);
    assert_eq!(c.run("GET from"), Reply::bulk("a"));
    a.run("SET from again").expect_ok();
    wait_for("the write at the end of the chain", DEADLINE, || c.run("GET from") == Reply::bulk("again"));
}

/// A dies, B is promoted, C and then A follow B: nobody needs a full sync.
#[test]
fn failover_by_hand() {
    let [mut a, b, c] = [small().start(), small().start(), small().start()];
    fill(&a, 0, "first", 300, 100, &mut rng());
    b.slaveof(a.port());
    c.slaveof(a.port());
    wait_synced(&a, &b);
    wait_synced(&a, &c);
    let full = c.full_syncs();

    a.kill9();
    b.slaveof_no_one();
    assert_eq!(b.replication().field("role"), "master");
    b.run("SET after promotion").expect_ok();
    fill(&b, 1, "second", 300, 100, &mut rng());
    c.slaveof(b.port());
    wait_synced(&b, &c);
    assert_eq!(c.full_syncs(), full, "full syncs of C");
    assert_eq!(c.run("GET after"), Reply::bulk("promotion"));

    a.start_again();
    a.slaveof(b.port());
    wait_synced(&b, &a);
    assert_eq!(a.full_syncs(), 0, "full syncs of A");
    assert_eq!(a.run("SET k v"), Reply::error(crate::full_sync::READONLY));

    // And back again.
    b.run("SET k v2").expect_ok();
    wait_synced(&b, &a);
    wait_synced(&b, &c);
    a.slaveof_no_one();
    b.slaveof(a.port());
    c.slaveof(a.port());
    a.run("SET after return").expect_ok();
    wait_synced(&a, &b);
    wait_synced(&a, &c);
    assert_eq!((a.full_syncs(), b.full_syncs(), c.full_syncs()), (0, full, full));
}

/// A switched-over master: everything drained first, roles swapped under the eyes of a
/// writer that moves along.
#[test]
fn switchover_with_everything_drained() {
    let [a, b] = [small().start(), small().start()];
    b.slaveof(a.port());
    wait_connected(&b);
    let load = Load::start(&a, LoadOptions { databases: 2, ..LoadOptions::default() });
    load.wait_more(1000);
    let acked = load.stop();
    wait_synced(&a, &b);
    b.slaveof_no_one();
    a.slaveof(b.port());
    let prefix = "moved".to_string();
    let load = Load::start(&b, LoadOptions { databases: 2, prefix, ..LoadOptions::default() });
    load.wait_more(1000);
    let moved = load.stop();
    wait_synced(&b, &a);
    for node in [&a, &b] {
        acked.verify(node);
        moved.verify(node);
    }
    assert_eq!(a.full_syncs(), 0);
}

/// A was cut off and wrote on; B was promoted and wrote too. When A follows B its own writes
/// give way, and are kept in files that INFO names.
#[test]
fn a_diverged_old_master() {
    let [a, b] = [small().start(), small().start()];
    let link = Link::to(&a);
    fill(&a, 0, "shared", 200, 100, &mut rng());
    b.slaveof(link.port());
    wait_synced(&a, &b);
    link.cut();
    let mut conn = a.conn();
    for i in 0..50 {
        conn.call(&["SET", &format!("only-a:{i}"), "lost to the others"]).expect_ok();
        conn.call(&["SET", &format!("shared{i}"), "of a"]).expect_ok();
    }
    b.slaveof_no_one();
    let mut conn = b.conn();
    for i in 0..200 {
        conn.call(&["SET", &format!("only-b:{i}"), "v"]).expect_ok();
        conn.call(&["SET", &format!("shared{i}"), "of b"]).expect_ok();
    }
    a.slaveof(b.port());
    wait_synced(&b, &a);
    assert_eq!(a.run("GET only-a:1"), Reply::Nil);
    assert_eq!(a.run("GET shared1"), Reply::bulk("of b"));
    expect_saved_tail(&a, &["db0:0", "db0:1"], b"only-a:");
    // Database 1 had no writes of A's own: its slots go on without a full sync.
    assert_eq!(a.full_syncs(), 2, "full syncs of A, one a diverged slot");
}

/// The same, but B wrote less than A: A's logs are longer than its new master's.
#[test]
fn a_diverged_old_master_that_is_ahead() {
    let [a, b] = [small().start(), small().start()];
    let link = Link::to(&a);
    b.slaveof(link.port());
    wait_synced(&a, &b);
    link.cut();
    fill(&a, 0, "only-a:", 300, 500, &mut rng());
    b.slaveof_no_one();
    b.run("SET only-b v").expect_ok();
    a.slaveof(b.port());
    wait_synced(&b, &a);
    assert_eq!(a.run("DBSIZE"), Reply::Int(1));
    expect_saved_tail(&a, &["db0:0", "db0:1"], b"only-a:");
}

/// Both wrote the same number of bytes: the logs end at equal offsets and differ.
#[test]
fn a_diverged_old_master_of_equal_length() {
    let [a, b] = [small().start(), small().start()];
    let link = Link::to(&a);
    a.run("SET shared v").expect_ok();
    b.slaveof(link.port());
    wait_synced(&a, &b);
    link.cut();
    b.slaveof_no_one();
    for i in 0..20 {
        a.run(&format!("SET key{i} of-a")).expect_ok();
        b.run(&format!("SET key{i} of-b")).expect_ok();
    }
    a.slaveof(b.port());
    wait_synced(&b, &a);
    assert_eq!(a.run("GET key7"), Reply::bulk("of-b"));
    expect_saved_tail(&a, &["db0:0", "db0:1"], b"of-a");
}

/// A diverged C follows B through A: divergence is found at every step of a chain.
#[test]
fn divergence_below_a_chain() {
    let [a, b, c] = [small().start(), small().start(), small().start()];
    let link = Link::to(&a);
    a.run("SET shared v").expect_ok();
    b.slaveof(link.port());
    c.slaveof(b.port());
    wait_synced(&a, &b);
    wait_synced(&b, &c);
    link.cut();
    b.slaveof_no_one();
    fill(&b, 0, "only-b:", 100, 100, &mut rng());
    wait_synced(&b, &c);
    fill(&a, 0, "only-a:", 200, 100, &mut rng());
    // B gives way to A; C, still following B, must end with A's data too.
    link.restore();
    b.slaveof(link.port());
    wait_synced(&a, &b);
    wait_for("the end of the chain to hold A's data", DEADLINE, || a.digest() == c.digest());
    wait_synced(&b, &c);
    expect_saved_tail(&b, &["db0:0", "db0:1"], b"only-b:");
}

/// INFO must name a file with what was saved of each of these slots; all together hold
/// `content`.
#[track_caller]
fn expect_saved_tail(node: &Node, slots: &[&str], content: &[u8]) {
    let mut bytes = Vec::new();
    for slot in slots {
        let path = wait_some("the saved tail in INFO", DEADLINE, || {
            let seen = node.replication();
            let tails = seen.groups("diverged_tail");
            let (_, path) = tails.into_iter().find(|(known, _)| known == slot)?;
            Some(PathBuf::from(path))
        });
        let path = node.data_dir().join(path);
        let tail = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!tail.is_empty(), "{} is empty", path.display());
        bytes.extend(tail);
    }
    let found = bytes.windows(content.len()).any(|window| window == content);
    assert!(found, "{} is not in the saved files", content.escape_ascii());
}

/// A was cut off and wrote more than B did after its promotion; then A follows C, B's replica, and nobody writes. A's position is beyond
/// what C has: only B can tell that this is not because C lags.
#[test]
fn a_diverged_old_master_at_the_end_of_a_chain() {
    for written_by_b in [0, 5] {
        let [a, b, c] = [small().start(), small().start(), small().start()];
        let link = Link::to(&a);
        a.run("SET shared v").expect_ok();
        b.slaveof(link.port());
        wait_synced(&a, &b);
        c.slaveof(b.port());
        wait_synced(&b, &c);
        link.cut();
        fill(&a, 0, "only-a:", 50, 100, &mut rng());
        b.slaveof_no_one();
        fill(&b, 0, "only-b:", written_by_b, 100, &mut rng());
        wait_synced(&b, &c);
        a.slaveof(c.port());
        wait_synced(&c, &a);
        assert_eq!(a.run("DBSIZE"), Reply::Int(1 + written_by_b as i64));
        expect_saved_tail(&a, &["db0:0", "db0:1"], b"only-a:");
    }
}

/// A replica gives nothing to others before its master has accepted what it has: C must not take over what only A, an old master that
/// cannot reach the new one, has.
#[test]
fn an_old_master_in_the_middle_of_a_chain() {
    let [a, b, c] = [small().start(), small().start(), small().start()];
    let link = Link::to(&a);
    a.run("SET shared v").expect_ok();
    b.slaveof(link.port());
    wait_synced(&a, &b);
    c.slaveof(b.port());
    wait_synced(&b, &c);
    link.cut();
    fill(&a, 0, "only-a:", 50, 100, &mut rng());
    b.slaveof_no_one();
    fill(&b, 0, "only-b:", 50, 100, &mut rng());
    wait_synced(&b, &c);
    let way_to_b = Link::to(&b);
    way_to_b.cut();
    a.slaveof(way_to_b.port());
    c.slaveof(a.port());
    wait_for("C to be told to wait", DEADLINE, || c.replication().text.contains("not ready for this position yet"));
    assert_eq!(c.run("DBSIZE"), Reply::Int(51), "C has what it had");
    way_to_b.restore();
    wait_synced(&b, &a);
    wait_synced(&a, &c);
    assert_eq!(c.run("DBSIZE"), Reply::Int(51));
    expect_saved_tail(&a, &["db0:0", "db0:1"], b"only-a:");
    assert_eq!(c.full_syncs(), 4, "C's first full syncs only, one a slot");
}
