//! What many connections write at once.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::common::{DEADLINE, Node, NodeOptions, Reply, rng, wait_for};
use rand::RngExt;

const WRITERS: usize = 16;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(String::from).collect()
}

/// Connections that write the same few keys for so many rounds each; `line` says what comes with each write.
fn write_hot(node: &Node, rounds: usize, line: impl Fn(usize) -> Option<String> + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut conn = node.conn();
                let mut last = 0;
                for round in 0..rounds {
                    let mut commands = vec![words("INCR counter"), words("HINCRBY hash field 1")];
                    commands.push(words("RPUSH list x"));
                    commands.extend(line(round).map(|line| words(&line)));
                    commands.push(words("INCR counter"));
                    let replies = conn.pipeline(&commands);
                    let [first, second] = [replies[0].int(), replies[commands.len() - 1].int()];
                    assert!(last < first && first < second, "{last} {first} {second}");
                    last = second;
                }
            });
        }
    });
}

#[test]
fn every_write_counts_once() {
    const ROUNDS: usize = 400;
    let node = NodeOptions::new().set("thread-num", 4).start();
    // Now and then something that cannot be done together with others, or waits for somebody, or is no write.
    let others = [
        "EVAL return{redis.call('INCR',KEYS[1])} 1 scripted",
        "BLMOVE list moved LEFT RIGHT 1",
        "MGET counter scripted other",
        "MSET one 1 two 2 three 3 four 4",
        "SORT list BY nosort",
        "LRANGE list 0 -1",
        "NONSENSE",
    ];
    write_hot(&node, ROUNDS, |round| (round % 8 < others.len()).then(|| others[round % 8].to_string()));
    let (all, rounds) = ((WRITERS * ROUNDS) as i64, ROUNDS as i64);
    let mut conn = node.conn();
    assert_eq!(conn.run("GET counter"), Reply::bulk((2 * all).to_string()));
    assert_eq!(conn.run("HGET hash field"), Reply::bulk(all.to_string()));
    assert_eq!(conn.run("GET scripted"), Reply::bulk((all / 8).to_string()));
    assert_eq!(conn.run("LLEN list").int() + conn.run("LLEN moved").int(), all);
    assert_eq!(conn.run("LLEN moved").int(), WRITERS as i64 * rounds / 8);
}

/// A script that holds one of the keys stands in the way of those who write it, not of those who write the others.
#[test]
fn who_waits_for_a_script_keeps_nobody_else() {
    let node = NodeOptions::new().set("thread-num", 4).set("busy-reply-threshold", 50).start();
    write_hot(&node, 200, |_| None);
    let (stop, written) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let writer = |key: &'static str| {
            let (node, stop, written) = (&node, &stop, &written);
            move || {
                let mut conn = node.conn();
                while !stop.load(Ordering::Relaxed) {
                    let replies = conn.pipeline(&[words("INCR counter"), words(&format!("INCR {key}"))]);
                    // A commit that waits for the disk may hold a key for so long that it is taken for the script's.
                    let busy = |reply: &Reply| reply.is_error() && reply.error_text().starts_with("BUSY");
                    assert!(replies.iter().all(|reply| busy(reply) || !reply.is_error()), "{replies:?}");
                    written.fetch_add(i64::from(key != "held" && !busy(&replies[1])), Ordering::Relaxed);
                }
            }
        };
        (0..WRITERS).for_each(|_| drop(scope.spawn(writer("free"))));
        wait_for("writes", DEADLINE, || written.load(Ordering::Relaxed) > 1000);
        // Somebody waits for a list, to move what comes to a key that the script holds too.
        let mut mover = node.conn();
        mover.push(&["BLMOVE", "list2", "moved", "LEFT", "LEFT", "0"]);
        mover.flush();
        wait_for("a blocked client", DEADLINE, || node.info("clients")["blocked_clients"] == "1");
        let mut scripter = node.conn();
        scripter.push(&["EVAL", "redis.call('GET', KEYS[1]); while true do end", "2", "held", "moved"]);
        scripter.flush();
        wait_for("the script", DEADLINE, || is_running(&node));
        // These come to stand in line behind it, among the others.
        (0..4).for_each(|_| drop(scope.spawn(writer("held"))));
        let pusher = scope.spawn(|| {
            let mut conn = node.conn();
            let hot = || (0..100).map(|_| words("INCR counter")).collect::<Vec<_>>();
            (0..20).for_each(|_| drop(conn.pipeline(&hot())));
            conn.pipeline(&[hot(), vec![words("RPUSH list2 x")]].concat()).pop()
        });
        for _ in 0..3 {
            let before = written.load(Ordering::Relaxed);
            wait_for("more writes", DEADLINE, || written.load(Ordering::Relaxed) > before + 1000);
        }
        assert!(is_running(&node));
        node.run("SCRIPT KILL").expect_ok();
        assert!(scripter.read().is_error());
        assert_eq!(mover.read(), Reply::bulk("x"));
        assert_eq!(pusher.join().expect("the pusher's end"), Some(Reply::Int(1)));
        drop(stops);
    });
    let free = node.run("GET free").text().parse::<i64>().unwrap();
    assert_eq!(free, written.load(Ordering::Relaxed));
}

/// Whether a script runs that holds the key.
fn is_running(node: &Node) -> bool {
    node.run("EVAL return{redis.call('GET',KEYS[1])} 1 held").is_error()
}

/// Has the writers stop when it goes, also when a check has failed.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is acknowledged while a hot key is written survives the death of the process.
#[test]
fn what_is_acknowledged_is_there_after_a_kill() {
    let mut rng = rng();
    let mut node = NodeOptions::new().set("thread-num", 4).start();
    let acknowledged = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut conn = node.conn();
                let line = words("INCR counter");
                while let Ok(Reply::Int(count)) = conn.try_call(&line) {
                    acknowledged.fetch_max(count, Ordering::Relaxed);
                }
            });
        }
        let enough = rng.random_range(5000..20_000);
        wait_for("writes", DEADLINE, || acknowledged.load(Ordering::Relaxed) > enough);
        node.signal(nix::sys::signal::Signal::SIGKILL);
    });
    node.wait_exit();
    node.start_again();
    let found = node.run("GET counter").text().parse::<i64>().unwrap();
    assert!(found >= acknowledged.load(Ordering::Relaxed), "{found} of {acknowledged:?}");
}
