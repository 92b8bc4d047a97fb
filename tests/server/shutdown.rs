//! A clean stop while everything is going on: soon, with exit code 0, nothing acknowledged lost, and nothing for the next start to replay.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::{Conn, DEADLINE, Load, LoadOptions, Node, NodeOptions, Reply, fill, rng, wait_connected, wait_for};

/// What a stop may take, whatever clients do.
const SOON: Duration = Duration::from_secs(10);

/// Clients that do not leave by themselves: they wait, listen, do not read, or run what does not end.
fn obstinate(node: &Node) -> Vec<Conn> {
    node.conn().call(&["SET", "long", &"x".repeat(1_000_000)]).expect_ok();
    let started = |args: &[&str]| {
        let mut conn = node.conn();
        conn.push(args);
        conn.flush();
        conn
    };
    let mut stalled = node.conn();
    (0..200).for_each(|_| stalled.push(&["GET", "long"]));
    stalled.flush();
    let mut half = node.conn();
    half.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100\r\n");
    let mut multi = node.conn();
    multi.run("MULTI").expect_ok();
    multi.run("SET in-multi 1");
    vec![
        stalled,
        half,
        multi,
        started(&["BLPOP", "nothing", "0"]),
        started(&["SUBSCRIBE", "channel"]),
        started(&["MONITOR"]),
        started(&["WAIT", "9", "0"]),
        started(&["EVAL", "while true do end", "0"]),
        started(&["EVAL", "redis.call('SET', KEYS[1], 'half') while true do end", "1", "by-script"]),
        started(&["DEBUG", "SLEEP", "60"]),
    ]
}

/// Stops the node with `ask`, and checks what a clean stop promises.
#[track_caller]
fn stop_cleanly(node: &mut Node, ask: impl FnOnce(&Node)) {
    let pidfile = node.data_dir().join("haypile.pid");
    assert!(pidfile.exists(), "no pidfile");
    let began = Instant::now();
    ask(node);
    let status = node.wait_exit();
    let took = began.elapsed();
    println!("stopped in {took:?}");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took < SOON, "the stop took {took:?}");
    assert!(!pidfile.exists(), "the pidfile is still there");
    assert!(node.output().contains("all data flushed and synced"), "not all was flushed");
    let told = node.output().len();
    node.start_again();
    let start = node.output()[told..].to_string();
    assert!(start.contains("replayed=0") && !start.contains("replayed the binlog"), "the start replayed:\n{start}");
    assert!(node.run("INFO persistence").text().contains("binlog_replayed_records:0\r\n"));
}

#[test]
fn a_stop_in_the_middle_of_everything() {
    let options = || NodeOptions::new().set("databases", 2).set("slot-num", 2);
    let mut node = options().set("max-write-buffer-size", "1G").start();
    let replicas = [options().start(), options().start()];
    fill(&node, 1, "filler", 500, 20_000, &mut rng());
    replicas[0].slaveof(node.port());
    wait_connected(&replicas[0]);
    let load = Load::start(
        &node,
        LoadOptions { threads: 50, pipeline: 50, databases: 2, pace: Duration::ZERO, ..LoadOptions::default() },
    );
    load.wait_more(5000);
    let obstinate = obstinate(&node);
    wait_for("the clients to do what they do", DEADLINE, || {
        node.output().contains("slow script") || {
            let list = node.run("CLIENT LIST").text();
            ["cmd=blpop", "cmd=subscribe", "cmd=monitor", "cmd=wait", "cmd=debug"].iter().all(|cmd| list.contains(cmd))
                && list.matches("cmd=eval").count() == 2
        }
    });
    // A full sync and a save are under way.
    replicas[1].slaveof(node.port());
    node.run("BGSAVE");
    stop_cleanly(&mut node, |node| node.signal(Signal::SIGTERM));
    let acked = load.stop();
    acked.verify(&node);
    // What did not end has not happened.
    assert_eq!(node.run("EXISTS by-script in-multi k"), Reply::Int(0));
    for mut conn in obstinate {
        conn.read_to_end();
    }
    // The replicas find it again.
    for replica in &replicas {
        wait_connected(replica);
    }
}

/// All options of SHUTDOWN stop the same way, since nothing is left to be saved.
#[test]
fn shutdown_by_a_client() {
    let mut node = NodeOptions::new().set("databases", 2).set("slot-num", 1).start();
    for command in ["SHUTDOWN", "SHUTDOWN NOSAVE", "SHUTDOWN SAVE", "SHUTDOWN NOW FORCE"] {
        let prefix = command.replace(' ', "-");
        let load = Load::start(&node, LoadOptions { threads: 4, pipeline: 32, prefix, ..LoadOptions::default() });
        load.wait_more(500);
        let mut waiting = node.conn();
        waiting.push(&["BLPOP", "nothing", "0"]);
        waiting.flush();
        stop_cleanly(&mut node, |node| {
            let mut conn = node.conn();
            conn.send_raw(format!("{command}\r\n").as_bytes());
            assert_eq!(conn.read_to_end(), b"", "an answer to {command}");
        });
        let acked = load.stop();
        acked.verify(&node);
        waiting.read_to_end();
    }
    let mut conn = node.conn();
    assert_eq!(conn.run("SHUTDOWN ABORT"), Reply::error("ERR No shutdown in progress."));
    for wrong in ["SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW", "SHUTDOWN LATER"] {
        assert_eq!(conn.run(wrong), Reply::error("ERR syntax error"));
    }
}

/// A replica that is being written by its master stops as well, and goes on where it was.
#[test]
fn a_replica_stops_while_it_is_fed() {
    let options = || NodeOptions::new().set("databases", 1).set("slot-num", 2);
    let (master, mut replica) = (options().start(), options().start());
    replica.slaveof(master.port());
    wait_connected(&replica);
    let load =
        Load::start(&master, LoadOptions { threads: 4, pipeline: 32, pace: Duration::ZERO, ..LoadOptions::default() });
    load.wait_more(2000);
    let syncs = master.full_syncs();
    stop_cleanly(&mut replica, |replica| replica.signal(Signal::SIGTERM));
    load.wait_more(500);
    load.stop().verify(&master);
    crate::common::wait_synced(&master, &replica);
    assert_eq!(master.full_syncs(), syncs, "it needed a full sync");
}
