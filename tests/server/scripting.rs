//! Scripts among other clients: what they hold up, how they are ended, what is left of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Conn, DEADLINE, Node, NodeOptions, Reply, wait_for};

const LOOP: &str = "while true do end";
const QUICK: Duration = Duration::from_secs(2);

/// A node on which scripts count as slow after 200 ms.
fn node() -> Node {
    NodeOptions::new().set("busy-reply-threshold", 200).start()
}

/// Sends a script and does not wait for its reply.
fn begin(node: &Node, args: &[&str]) -> Conn {
    let mut conn = node.conn();
    conn.push(args);
    conn.flush();
    conn
}

fn wait_until_held(node: &Node, key: &str) {
    wait_for("the script holds its key", DEADLINE, || node.conn().call(&["GET", key]).is_error());
}

#[test]
fn a_long_script_holds_up_only_who_needs_its_keys() {
    let node = node();
    let mut conn = node.conn();
    conn.run("SET k 1").expect_ok();
    conn.run("SET other 2").expect_ok();
    assert_eq!(conn.run("SCRIPT KILL"), Reply::error("NOTBUSY No scripts in execution right now."));
    let mut script = begin(&node, &["EVAL", LOOP, "1", "k"]);
    wait_until_held(&node, "k");
    let began = Instant::now();
    assert_eq!(conn.run("PING").text(), "PONG");
    assert_eq!(conn.run("GET other"), Reply::bulk("2"));
    conn.run("SET other 3").expect_ok();
    assert_eq!(conn.call(&["EVAL", "return redis.call('get', 'other')", "0"]), Reply::bulk("3"));
    assert!(began.elapsed() < QUICK, "others go on");
    let busy = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    assert_eq!(conn.run("GET k"), Reply::error(busy));
    assert_eq!(conn.call(&["EVAL", "return redis.call('get', 'k')", "0"]), Reply::error(busy));
    assert_eq!(conn.run("MSET other 4 k 4"), Reply::error(busy));
    assert_eq!(conn.run("FUNCTION KILL"), Reply::error(busy));
    conn.run("SCRIPT KILL").expect_ok();
    assert!(script.read().error_text().starts_with("ERR Script killed by user with SCRIPT KILL..."));
    wait_for("the key is free", DEADLINE, || conn.run("GET k") == Reply::bulk("1"));
    assert_eq!(conn.run("GET other"), Reply::bulk("3"));
    assert_eq!(script.run("PING").text(), "PONG");
}

#[test]
fn functions_are_killed_by_their_own_command() {
    let node = node();
    let mut conn = node.conn();
    let code = "#!lua name=l\nredis.register_function('f', function() while true do end end)";
    assert_eq!(conn.call(&["FUNCTION", "LOAD", code]), Reply::bulk("l"));
    conn.run("SET k 1").expect_ok();
    let mut call = begin(&node, &["FCALL", "f", "1", "k"]);
    wait_until_held(&node, "k");
    let busy = "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";
    assert_eq!(conn.run("GET k"), Reply::error(busy));
    let stats = conn.run("FUNCTION STATS");
    let running = stats.field("running_script");
    assert_eq!(running.field("name"), &Reply::bulk("f"));
    assert_eq!(running.field("command").texts(), ["FCALL", "f", "1", "k"]);
    assert!(running.field("duration_ms").int() >= 200);
    assert_eq!(conn.run("SCRIPT KILL"), Reply::error(busy));
    conn.run("FUNCTION KILL").expect_ok();
    assert!(call.read().error_text().contains("killed by user"));
    wait_for("the key is free", DEADLINE, || conn.run("GET k") == Reply::bulk("1"));
}

#[test]
fn what_has_written_runs_to_its_end() {
    let node = node();
    let mut conn = node.conn();
    conn.run("SET go 0").expect_ok();
    let code = "redis.call('set', KEYS[1], 'written') for i = 1, 3e8 do end return redis.call('get', KEYS[1])";
    let mut script = begin(&node, &["EVAL", code, "1", "k"]);
    wait_until_held(&node, "k");
    assert!(conn.run("SCRIPT KILL").error_text().starts_with("UNKILLABLE Sorry the script already executed write"));
    assert_eq!(script.read(), Reply::bulk("written"));
    assert_eq!(conn.run("GET k"), Reply::bulk("written"));
}

/// A key whose time comes while a script holds it is not deleted beneath that.
#[test]
fn a_key_that_expires_while_a_script_holds_it() {
    let mut node = node();
    let mut conn = node.conn();
    conn.run("SET k v PX 400").expect_ok();
    let code = "redis.call('persist', KEYS[1]) for i = 1, 3e8 do end return redis.call('get', KEYS[1])";
    let mut script = begin(&node, &["EVAL", code, "1", "k"]);
    assert_eq!(script.read(), Reply::bulk("v"));
    assert_eq!(conn.run("GET k"), Reply::bulk("v"));
    assert_eq!(node.info("stats")["expired_keys"], "0");
    let digest = node.digest();
    node.crash();
    assert_eq!(node.run("GET k"), Reply::bulk("v"));
    assert_eq!(node.digest(), digest);
}

#[test]
fn many_scripts_on_keys_that_they_do_not_declare() {
    const CLIENTS: usize = 8;
    const EACH: usize = 100;
    let node = Node::start();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let node = &node;
            scope.spawn(move || {
                let mut conn = node.conn();
                // Some declare one of the keys, some none; they take them in different orders.
                let script = if client % 2 == 0 {
                    "redis.call('incr', 'a') redis.call('incr', 'b') redis.call('incr', 'c') return 1"
                } else {
                    "redis.call('incr', 'c') redis.call('incr', 'a') redis.call('incr', 'b') return 1"
                };
                for _ in 0..EACH {
                    let reply = match client % 3 {
                        0 => conn.call(&["EVAL", script, "0"]),
                        1 => conn.call(&["EVAL", script, "1", "b"]),
                        _ => conn.call(&["EVAL", script, "2", "c", "a"]),
                    };
                    assert_eq!(reply, Reply::Int(1));
                }
            });
        }
        let node = &node;
        scope.spawn(move || {
            let mut conn = node.conn();
            for _ in 0..EACH {
                let values = conn.run("MGET a b c");
                assert!(values.items().iter().all(|value| value == &values.items()[0]), "{values:?}");
            }
        });
    });
    let total = (CLIENTS * EACH).to_string();
    assert_eq!(node.run("MGET a b c"), Reply::bulks(&[&total, &total, &total]));
}

/// Transfers between accounts in different slots: after each crash none is half done, and none that was answered is lost.
#[test]
fn scripts_are_whole_after_a_crash() {
    const ACCOUNTS: usize = 8;
    let mut node = Node::start();
    let mut conn = node.conn();
    for account in 0..ACCOUNTS {
        conn.call(&["SET", &format!("account{account}"), "1000"]).expect_ok();
    }
    let transfer = "redis.call('decrby', KEYS[1], ARGV[1]) redis.call('incrby', KEYS[2], ARGV[1]) \
                    return redis.call('incr', 'transfers')";
    let (answered, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    for _ in 0..3 {
        let port = node.port();
        let before = answered.load(Ordering::Relaxed);
        stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            for client in 0..4 {
                let (answered, stop) = (&answered, &stop);
                scope.spawn(move || {
                    let Ok(mut conn) = Conn::try_to(port) else { return };
                    for round in 0.. {
                        let from = format!("account{}", (client + round) % ACCOUNTS);
                        let to = format!("account{}", (client * 3 + round * 5 + 1) % ACCOUNTS);
                        let Ok(reply) = conn.try_call(&["EVAL", transfer, "2", &from, &to, "7"]) else { return };
                        let Reply::Int(count) = reply else { return };
                        answered.fetch_max(count as u64, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            wait_for("transfers", DEADLINE, || answered.load(Ordering::Relaxed) > before + 200);
            node.kill9();
            stop.store(true, Ordering::Relaxed);
        });
        node.start_again();
        let mut conn = node.conn();
        let sum: i64 = (0..ACCOUNTS)
            .map(|account| conn.call(&["GET", &format!("account{account}")]).text().parse::<i64>().unwrap())
            .sum();
        assert_eq!(sum, 1000 * ACCOUNTS as i64);
        let transfers: u64 = conn.run("GET transfers").text().parse().unwrap();
        assert!(transfers >= answered.load(Ordering::Relaxed), "{transfers}");
    }
}

#[test]
fn functions_are_kept() {
    let mut node = Node::start();
    let code = "#!lua name=l\nredis.register_function('f', function(keys) return redis.call('incr', keys[1]) end)";
    let mut conn = node.conn();
    assert_eq!(conn.call(&["FUNCTION", "LOAD", code]), Reply::bulk("l"));
    conn.run("FLUSHALL").expect_ok();
    assert_eq!(conn.run("FCALL f 1 n"), Reply::Int(1));
    let digest = node.digest();
    node.crash();
    assert_eq!(node.digest(), digest);
    assert_eq!(node.run("FCALL f 1 n"), Reply::Int(2));
    node.run("FLUSHALL").expect_ok();
    node.restart();
    assert_eq!(node.run("FCALL f 1 n"), Reply::Int(1));
    let dump = node.conn().call(&["FUNCTION", "DUMP"]);
    node.run("FUNCTION FLUSH").expect_ok();
    node.crash();
    assert_eq!(node.run("FCALL f 1 n"), Reply::error("ERR Function not found"));
    node.conn().call(&[b"FUNCTION", b"RESTORE".as_slice(), dump.bytes()]).expect_ok();
    node.run("FLUSHDB").expect_ok();
    node.crash();
    assert_eq!(node.run("FCALL f 1 n"), Reply::Int(1));
}
