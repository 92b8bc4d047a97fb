//! The session of the README by the book: two daemons, a million writes, `slaveof` typed by
//! hand, every slot Connected, equal data, and on after SIGKILL of either.

mod common;

use std::time::Instant;

use common::{Node, Reply, redis_benchmark, redis_cli, wait_caught_up, wait_connected, wait_for, wait_synced};

#[test]
fn the_session_by_the_book() {
    let mut a = Node::start();
    let mut b = Node::start();

    let clock = Instant::now();
    let args = "-t set -n 1000000 -r 1000000 -d 100 -P 16 -q";
    let report = redis_benchmark(a.port(), &args.split(' ').collect::<Vec<_>>());
    println!("{:?} {}", clock.elapsed(), report.rsplit('\r').next().unwrap_or_default().trim());
    let keys = a.run("DBSIZE").int();
    // A million draws out of a million numbers hit about 632,000 different ones.
    assert!((600_000..=660_000).contains(&keys), "{keys} keys");

    let master = a.port().to_string();
    let clock = Instant::now();
    assert_eq!(redis_cli(b.port(), &["slaveof", "127.0.0.1", &master]), "OK");
    let mut seen = String::new();
    wait_for("every slot to be Connected", common::DEADLINE, || {
        let now = b.replication();
        let states = now.field("db_repl_state");
        if states != seen {
            println!("{:?} {states}", clock.elapsed());
            seen = states.to_string();
        }
        now.is_connected()
    });
    println!("connected after {:?}", clock.elapsed());
    // Databases 0 to 15 with slots 0 to 3, as the default conf has them.
    assert_eq!(b.replication().states().len(), 64, "{}", b.replication().text);
    wait_synced(&a, &b);
    assert_eq!(b.run("DBSIZE").int(), keys);

    assert_eq!(redis_cli(a.port(), &["set", "k", "v"]), "OK");
    wait_for("k on the replica", common::DEADLINE, || redis_cli(b.port(), &["get", "k"]) == "v");

    b.kill9();
    assert_eq!(redis_cli(a.port(), &["set", "k", "while b is down"]), "OK");
    b.start_again();
    wait_connected(&b);
    wait_for("k after the replica's crash", common::DEADLINE, || b.run("GET k") == Reply::bulk("while b is down"));
    assert_eq!(b.full_syncs(), 0, "a crash of the replica needs no full sync");

    a.kill9();
    assert_eq!(redis_cli(b.port(), &["get", "k"]), "while b is down");
    a.start_again();
    wait_connected(&b);
    assert_eq!(redis_cli(a.port(), &["set", "k", "after a's crash"]), "OK");
    wait_for("k after the master's crash", common::DEADLINE, || b.run("GET k") == Reply::bulk("after a's crash"));
    wait_caught_up(&a, &b);
    wait_synced(&a, &b);
    assert_eq!(b.full_syncs(), 0, "a crash of the master needs no full sync");
}
