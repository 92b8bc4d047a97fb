//! What a node commits after it has answered OK to SLAVEOF: nothing of a client.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{Conn, DEADLINE, NodeOptions, Reply, wait_for};

/// Rounds of becoming a replica and a master again.
const ROUNDS: usize = 8;

/// One exchange of a client that writes all the time.
type Step = fn(&mut Conn) -> Vec<Reply>;

/// Keys of all slots, in pipelines.
fn pipeline(conn: &mut Conn) -> Vec<Reply> {
    (0..50).for_each(|n| conn.push(&["INCR", &format!("counter:{n}")]));
    conn.flush();
    (0..50).map(|_| conn.read()).collect()
}

fn many_slots(conn: &mut Conn) -> Vec<Reply> {
    vec![conn.run("MSET one 1 two 2 three 3 four 4 five 5"), conn.run("RENAME one {other}one")]
}

fn transaction(conn: &mut Conn) -> Vec<Reply> {
    for command in ["MULTI", "INCR in:multi", "RPUSH multi:list x", "LTRIM multi:list 0 10", "EXEC"] {
        conn.push(&command.split(' ').collect::<Vec<_>>());
    }
    conn.flush();
    let replies: Vec<Reply> = (0..5).map(|_| conn.read()).collect();
    vec![replies[4].clone()]
}

fn script(conn: &mut Conn) -> Vec<Reply> {
    let body = "for i = 1, 200 do redis.call('SET', KEYS[1] .. i, i) end redis.call('INCR', 'undeclared') return 1";
    vec![conn.call(&["EVAL", body, "1", "script:"])]
}

/// Serves those who wait in [`waiter`].
fn pusher(conn: &mut Conn) -> Vec<Reply> {
    vec![conn.run("RPUSH {wait}:from x")]
}

fn waiter(conn: &mut Conn) -> Vec<Reply> {
    vec![conn.run("BLMOVE {wait}:from {wait}:to LEFT RIGHT 0.05"), conn.run("LTRIM {wait}:to 0 5")]
}

/// Keys for the expirer to delete.
fn expiring(conn: &mut Conn) -> Vec<Reply> {
    (0..50).for_each(|n| conn.push(&["SET", &format!("short:{n}"), "x", "PX", "1"]));
    conn.flush();
    (0..50).map(|_| conn.read()).collect()
}

fn flush(conn: &mut Conn) -> Vec<Reply> {
    conn.select(3);
    vec![conn.run("SET in3 x"), conn.run("FLUSHDB"), conn.run("SWAPDB 4 5")]
}

const CLIENTS: [Step; 8] = [pipeline, many_slots, transaction, script, pusher, waiter, expiring, flush];

#[test]
fn a_node_that_has_become_a_replica_commits_nothing_of_its_clients() {
    let node = NodeOptions::new().set("databases", 6).set("slot-num", 4).start();
    let port = node.port();
    let stop = AtomicBool::new(false);
    let refused: [AtomicU64; CLIENTS.len()] = Default::default();
    let done: [AtomicU64; CLIENTS.len()] = Default::default();
    thread::scope(|scope| {
        for (nth, step) in CLIENTS.into_iter().enumerate() {
            let (stop, refused, done) = (&stop, &refused[nth], &done[nth]);
            scope.spawn(move || {
                let mut conn = Conn::to(port);
                while !stop.load(Ordering::SeqCst) {
                    let replies = step(&mut conn);
                    let is_refused = |reply: &Reply| {
                        matches!(reply, Reply::Error(text)
                            if ["READONLY", "EXECABORT", "UNBLOCKED", "ERR"].iter().any(|code| text.starts_with(code)))
                    };
                    let counter = if replies.iter().any(is_refused) { refused } else { done };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let stopper = Stop(&stop);
        let all_beyond = |counters: &[AtomicU64], least: u64| {
            let before: Vec<u64> = counters.iter().map(|c| c.load(Ordering::SeqCst)).collect();
            wait_for("every client to get on", DEADLINE, || {
                counters.iter().zip(&before).all(|(c, before)| c.load(Ordering::SeqCst) >= before + least)
            });
        };
        for _ in 0..ROUNDS {
            all_beyond(&done, 2);
            // Nobody is there: no record comes from elsewhere.
            node.slaveof(1);
            let end = node.replication().positions().iter().map(|(s, p)| (s.to_string(), *p)).collect::<Vec<_>>();
            all_beyond(&refused, 3);
            let later = node.replication().positions().iter().map(|(s, p)| (s.to_string(), *p)).collect::<Vec<_>>();
            assert_eq!(end, later);
            node.slaveof_no_one();
        }
        drop(stopper);
    });
}

/// Ends the clients, also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
