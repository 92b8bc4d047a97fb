//! What took long: LATENCY, INFO latencystats; and DEBUG, which makes it so.

use crate::common::{Node, NodeOptions, Reply};

#[test]
fn slow_commands_become_events() {
    let node = NodeOptions::new().set("latency-monitor-threshold", 100).start();
    let mut conn = node.conn();
    conn.run("PING");
    assert_eq!(conn.run("LATENCY LATEST"), Reply::Array(vec![]));
    conn.run("DEBUG SLEEP 0.15").expect_ok();
    let latest = conn.run("LATENCY LATEST");
    let [event] = latest.items() else { panic!("{latest:?}") };
    let [name, at, ms, max] = event.items() else { panic!("{event:?}") };
    assert_eq!((name.text().as_str(), ms), ("command", max));
    assert!((150..5000).contains(&ms.int()), "{ms:?}");
    let history = conn.run("LATENCY HISTORY command");
    assert_eq!(history.items()[0].items(), [at.clone(), ms.clone()]);
    assert!(conn.run("LATENCY GRAPH command").text().starts_with("command - high "));
    assert!(conn.run("LATENCY DOCTOR").text().contains("command: 1 seconds"));
    assert_eq!(conn.run("LATENCY RESET fast-command"), Reply::Int(0));
    assert_eq!(conn.run("LATENCY RESET"), Reply::Int(1));
    assert_eq!(conn.run("LATENCY HISTORY command"), Reply::Array(vec![]));
    conn.run("CONFIG SET latency-monitor-threshold 0").expect_ok();
    assert!(conn.run("LATENCY DOCTOR").text().contains("latency-monitor-threshold is 0"));
}

#[test]
fn calls_are_counted_by_the_time_they_took() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("CONFIG RESETSTAT").expect_ok();
    conn.run("SET a 1").expect_ok();
    conn.run("SET a 2").expect_ok();
    conn.run("GET a");
    conn.run("CLIENT ID");
    conn.run("DEBUG SLEEP 0.05").expect_ok();
    let calls = |reply: &Reply, nth: usize| reply.items()[nth].field("calls").int();
    let histogram = conn.run("LATENCY HISTOGRAM get nonsense set");
    assert_eq!((histogram.items().len(), calls(&histogram, 1), calls(&histogram, 3)), (4, 1, 2));
    let client = conn.run("LATENCY HISTOGRAM client");
    assert_eq!((client.items()[0].text().as_str(), calls(&client, 1)), ("client|id", 1));
    let info = node.info("latencystats");
    let sleep = &info["latency_percentiles_usec_debug"];
    let p50: f64 = sleep.split(&['=', ','][..]).nth(1).unwrap().parse().unwrap();
    assert!(sleep.starts_with("p50=") && sleep.contains(",p99.9=") && p50 >= 50_000.0, "{sleep}");
    conn.run("CONFIG SET latency-tracking no").expect_ok();
    conn.run("CONFIG RESETSTAT").expect_ok();
    conn.run("SET a 3").expect_ok();
    assert_eq!(conn.run("LATENCY HISTOGRAM set"), Reply::Array(vec![]));
}

#[test]
fn debug_is_for_whom_it_is_allowed() {
    let node = NodeOptions::new().set("enable-debug-command", "no").start();
    assert!(node.run("DEBUG HELP").error_text().starts_with("ERR DEBUG command not allowed."));
    assert!(node.run("CONFIG SET enable-debug-command yes").is_error());
}

#[test]
fn a_reload_reads_from_disk_what_was_written() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("SET a 1").expect_ok();
    conn.run("SET b 2 PX 1000000").expect_ok();
    let before = conn.run("DEBUG DIGEST");
    conn.run("DEBUG RELOAD").expect_ok();
    assert_eq!((conn.run("GET a"), conn.run("DEBUG DIGEST")), (Reply::bulk("1"), before));
    conn.run("SAVE").expect_ok();
    assert_eq!(conn.run("BGREWRITEAOF"), Reply::Simple("Background append only file rewriting started".into()));
    conn.run("COPY a c");
    assert_eq!(conn.run("DEBUG DIGEST-VALUE a"), conn.run("DEBUG DIGEST-VALUE c"));
    assert_ne!(conn.run("DEBUG DIGEST-VALUE a"), conn.run("DEBUG DIGEST-VALUE b"));
}
