//! Commands that wait: who is served, in which order, and what ends a wait. All with lists.

use std::thread;

use rand::RngExt;

use crate::common::{Conn, DEADLINE, Node, NodeOptions, Reply, rng, wait_for};

/// Sends a command that will wait, and waits until `count` commands do.
#[track_caller]
fn begin(node: &Node, conn: &mut Conn, command: &str, count: usize) {
    send(conn, command);
    wait_blocked(node, count);
}

fn send(conn: &mut Conn, command: &str) {
    conn.push(&crate::common::resp::split_line(command));
    conn.flush();
}

fn blocked(node: &Node) -> usize {
    node.info("clients")["blocked_clients"].parse().expect("a number")
}

#[track_caller]
fn wait_blocked(node: &Node, count: usize) {
    wait_for(&format!("{count} waiting commands"), DEADLINE, || blocked(node) == count);
}

/// Connections whose commands wait, in this order.
#[track_caller]
fn waiting(node: &Node, commands: &[&str]) -> Vec<Conn> {
    let begin_one = |(nth, command): (usize, &&str)| {
        let mut conn = node.conn();
        begin(node, &mut conn, command, nth + 1);
        conn
    };
    commands.iter().enumerate().map(begin_one).collect()
}

fn pair(key: &str, element: &str) -> Reply {
    Reply::bulks(&[key, element])
}

#[test]
fn first_come_first_served() {
    let node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP l 0"; 5]);
    let mut conn = node.conn();
    assert_eq!(conn.run("RPUSH l 1 2 3"), Reply::Int(3));
    assert_eq!(conn.run("EXISTS l"), Reply::Int(0), "who pushes finds that the others were served");
    assert_eq!(blocked(&node), 2);
    conn.run("RPUSH l 4 5 6");
    for (waiter, element) in waiters.iter_mut().zip(["1", "2", "3", "4", "5"]) {
        assert_eq!(waiter.read(), pair("l", element));
    }
    assert_eq!(conn.run("LRANGE l 0 -1"), Reply::bulks(&["6"]));
    assert_eq!(blocked(&node), 0);
}

#[test]
fn several_keys() {
    let node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP a b c 0", "BRPOP c b 0", "BLPOP b b b 0", "BLMPOP 0 2 c a LEFT COUNT 3"]);
    let mut conn = node.conn();
    conn.run("RPUSH b 1");
    assert_eq!(waiters[0].read(), pair("b", "1"));
    conn.run("RPUSH a 1 2 3 4");
    assert_eq!(waiters[3].read(), Reply::Array(vec![Reply::bulk("a"), Reply::bulks(&["1", "2", "3"])]));
    conn.run("RPUSH c 1 2");
    assert_eq!(waiters[1].read(), pair("c", "2"));
    conn.run("RPUSH b 9");
    assert_eq!(waiters[2].read(), pair("b", "9"));
    assert_eq!(node.info("clients")["total_blocking_keys"], "0");
}

/// Who waits is served when all of a transaction is done, and keys in the order in which they were made.
#[test]
fn a_transaction_wakes_at_its_end() {
    let node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP x y z w 0", "BLPOP w z y x 0"]);
    let mut conn = node.conn();
    for command in ["MULTI", "RPUSH x 1", "DEL x", "RPUSH z 2", "SET w string", "RPUSH y 3", "LPUSH y 0", "EXEC"] {
        conn.run(command);
    }
    assert_eq!(waiters[0].read(), pair("y", "0"));
    assert_eq!(waiters[1].read(), pair("z", "2"));
    assert_eq!(conn.run("LRANGE y 0 -1"), Reply::bulks(&["3"]));

    let mut waiters = waiting(
        &node,
        &["BLMPOP 0 2 l1 l2 RIGHT", "BLMPOP 0 2 l1 l2 LEFT COUNT 9", "BLMPOP 0 2 l1 l2 RIGHT COUNT 9", "BLPOP l1 l2 0"],
    );
    for command in ["MULTI", "LPUSH l1 a b c", "LPUSH l2 1 2", "LPUSH l1 d", "LPUSH l2 3", "EXEC"] {
        conn.run(command);
    }
    let popped = |key: &str, elements: &[&str]| Reply::Array(vec![Reply::bulk(key), Reply::bulks(elements)]);
    assert_eq!(waiters[0].read(), popped("l1", &["a"]));
    assert_eq!(waiters[1].read(), popped("l1", &["d", "c", "b"]));
    assert_eq!(waiters[2].read(), popped("l2", &["1", "2", "3"]));
    assert_eq!(blocked(&node), 1);
}

/// Commands sent in one go are still one after the other to those who wait.
#[test]
fn a_pipeline_wakes_after_each_command() {
    let node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP l 0", "BLPOP l 0"]);
    let mut conn = node.conn();
    let commands = ["RPUSH l 1", "LLEN l", "RPUSH other 1", "RPUSH l 2 3", "DEL l", "LLEN l"];
    let commands: Vec<Vec<&str>> = commands.iter().map(|line| line.split(' ').collect()).collect();
    let replies = conn.pipeline(&commands);
    assert_eq!(replies, [1, 0, 1, 2, 1, 0].map(Reply::Int));
    assert_eq!(waiters[0].read(), pair("l", "1"));
    assert_eq!(waiters[1].read(), pair("l", "2"));
}

#[test]
fn chains() {
    let node = Node::start();
    let mut waiters = waiting(
        &node,
        &["BLPOP c 0", "BLMOVE b c LEFT RIGHT 0", "BLMOVE a b LEFT RIGHT 0", "BRPOPLPUSH self self 0", "BLPOP self 0"],
    );
    let mut conn = node.conn();
    conn.run("RPUSH a x");
    assert_eq!(conn.run("EXISTS a b c"), Reply::Int(0));
    assert_eq!(waiters[0].read(), pair("c", "x"));
    assert_eq!(waiters[1].read(), Reply::bulk("x"));
    assert_eq!(waiters[2].read(), Reply::bulk("x"));
    conn.run("RPUSH self y");
    assert_eq!(waiters[3].read(), Reply::bulk("y"));
    assert_eq!(waiters[4].read(), pair("self", "y"));

    // A circle comes to an end.
    let mut waiters = waiting(&node, &["BRPOPLPUSH one two 0", "BRPOPLPUSH two one 0"]);
    conn.run("RPUSH one z");
    assert_eq!((waiters[0].read(), waiters[1].read()), (Reply::bulk("z"), Reply::bulk("z")));
    assert_eq!(conn.run("LRANGE one 0 -1"), Reply::bulks(&["z"]));
}

/// Who is served finds keys expired that nobody has deleted yet: that they go may make others ready.
#[test]
fn expired_keys_met_while_serving() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("DEBUG SET-ACTIVE-EXPIRE 0").expect_ok();
    let mut waiters = waiting(&node, &["BLMOVE l m LEFT LEFT 0", "BLPOP a b 0", "BLPOP a other 0"]);
    for key in ["m", "a"] {
        conn.call(&["SET", key, "v", "PX", "20"]).expect_ok();
    }
    thread::sleep(std::time::Duration::from_millis(40));
    assert_eq!(conn.run("RPUSH l 1"), Reply::Int(1));
    assert_eq!(waiters[0].read(), Reply::bulk("1"));
    assert_eq!(conn.run("LRANGE m 0 -1"), Reply::bulks(&["1"]));
    assert_eq!(conn.run("RPUSH b 2"), Reply::Int(1));
    assert_eq!(waiters[1].read(), pair("b", "2"));
    assert_eq!(node.info("stats")["expired_keys"], "1", "the one that was not overwritten");
    assert_eq!(conn.run("RPUSH a 3"), Reply::Int(1));
    assert_eq!(waiters[2].read(), pair("a", "3"));
    assert_eq!(blocked(&node), 0);
}

/// A script that holds a key of a waiting command holds up that command, and nobody else.
#[test]
fn a_long_script_holds_up_only_who_waits_for_its_keys() {
    let node = NodeOptions::new().set("busy-reply-threshold", 100).start();
    let mut waiters = waiting(&node, &["BLMOVE l m LEFT LEFT 0", "BLPOP l 0", "BLPOP other 0"]);
    let mut script = node.conn();
    script.push(&["EVAL", "while true do end", "1", "m"]);
    script.flush();
    wait_for("the script holds its key", DEADLINE, || node.conn().run("GET m").is_error());
    let mut conn = node.conn();
    assert_eq!(conn.run("RPUSH l 1 2"), Reply::Int(2));
    assert_eq!(conn.run("RPUSH other 3"), Reply::Int(1));
    assert_eq!(waiters[2].read(), pair("other", "3"));
    assert_eq!(conn.run("LRANGE l 0 -1"), Reply::bulks(&["1", "2"]), "nobody is served before who came first");
    conn.run("SCRIPT KILL").expect_ok();
    assert_eq!(waiters[0].read(), Reply::bulk("1"));
    assert_eq!(waiters[1].read(), pair("l", "2"));
    assert_eq!(conn.run("LRANGE m 0 -1"), Reply::bulks(&["1"]));
}

#[test]
fn wrong_types() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("SET string v");
    let mut waiters = waiting(&node, &["BLMOVE l string LEFT LEFT 0", "BLPOP l other 0"]);
    // What is no list does not end the wait.
    conn.run("SET l v");
    conn.run("SET other v");
    assert_eq!(blocked(&node), 2);
    conn.run("DEL l");
    conn.run("RPUSH l 1");
    assert!(waiters[0].read().error_text().starts_with("WRONGTYPE"));
    assert_eq!(waiters[1].read(), pair("l", "1"), "what the first could not move is the next one's");
}

#[test]
fn keys_that_come_from_elsewhere() {
    let node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP l 0", "BLPOP l 0"]);
    let mut conn = node.conn();
    conn.run("RPUSH from 1");
    conn.run("LMOVE from l LEFT LEFT");
    assert_eq!(waiters[0].read(), pair("l", "1"));
    conn.select(3);
    conn.run("RPUSH l 2");
    assert_eq!(blocked(&node), 1, "another database's key is another one");
    conn.select(0);
    conn.run("FLUSHALL");
    assert_eq!(blocked(&node), 1);
    conn.run("RPUSH l 3");
    assert_eq!(waiters[1].read(), pair("l", "3"));

    for (element, command) in [
        ("4", "RENAME source l"),
        ("5", "COPY source l"),
        ("6", "SORT source STORE l"),
        ("7", "MOVE l 0"),
        ("8", "RESTORE l 0"),
    ] {
        let mut waiters = waiting(&node, &["BLPOP l 0"]);
        match command {
            "MOVE l 0" => {
                conn.select(3);
                conn.run("DEL l");
                conn.run("RPUSH l 7");
                conn.run(command);
                conn.select(0);
            }
            "RESTORE l 0" => {
                conn.run("RPUSH dumped 8");
                let payload = conn.run("DUMP dumped");
                conn.call(&[b"RESTORE".as_slice(), b"l", b"0", payload.bytes()]).expect_ok();
            }
            _ => {
                conn.run("DEL source");
                conn.call(&["RPUSH", "source", element]);
                conn.run(command);
            }
        }
        assert_eq!(waiters[0].read(), pair("l", element), "{command}");
    }
}

#[test]
fn timeouts() {
    let node = Node::start();
    let mut conn = node.conn();
    let start = std::time::Instant::now();
    assert_eq!(conn.run("BLPOP l 0.2"), Reply::NilArray);
    assert!(start.elapsed().as_millis() >= 200);
    assert_eq!(conn.run("BLMOVE l l LEFT LEFT 0.001"), Reply::NilArray);
    assert_eq!(blocked(&node), 0);
    conn.run("RPUSH l 1");
    assert_eq!(conn.run("LLEN l"), Reply::Int(1), "nobody waits for it any more");
    conn.run("HELLO 3");
    assert_eq!(conn.run("BLPOP none 0.001"), Reply::Nil);
}

#[test]
fn client_unblock() {
    let node = Node::start();
    let mut conn = node.conn();
    let mut waiter = node.conn();
    let id = waiter.run("CLIENT ID").int();
    assert_eq!(conn.run(&format!("CLIENT UNBLOCK {id}")), Reply::Int(0));
    for (how, expected) in [
        ("", Reply::NilArray),
        ("timeout", Reply::NilArray),
        ("ERROR", Reply::error("UNBLOCKED client unblocked via CLIENT UNBLOCK")),
    ] {
        begin(&node, &mut waiter, "BLPOP l 0", 1);
        let list = conn.run("CLIENT LIST").text();
        let line = list.lines().find(|line| line.starts_with(&format!("id={id} "))).expect("a line");
        assert!(line.contains(" flags=b ") && line.contains(" cmd=blpop "), "{line}");
        // In one go: what is pushed after it is not the unblocked client's.
        let unblock = format!("CLIENT UNBLOCK {id} {how}");
        let unblock = unblock.split_whitespace().collect();
        assert_eq!(
            conn.pipeline(&[unblock, vec!["RPUSH", "l", "1"], vec!["LLEN", "l"], vec!["DEL", "l"]]),
            [1; 4].map(Reply::Int)
        );
        assert_eq!(blocked(&node), 0);
        assert_eq!(waiter.read(), expected);
    }
    assert_eq!(node.info("errorstats")["errorstat_UNBLOCKED"], "count=1");
}

/// A client that is gone takes nothing with it.
#[test]
fn clients_that_leave() {
    let node = Node::start();
    let mut conn = node.conn();
    drop(waiting(&node, &["BLPOP l 0", "BLMOVE l m LEFT LEFT 0"]));
    wait_blocked(&node, 0);
    conn.run("RPUSH l 1");
    assert_eq!(conn.run("LPOP l"), Reply::bulk("1"));

    let mut killed = node.conn();
    let id = killed.run("CLIENT ID").int();
    begin(&node, &mut killed, "BLPOP l 0", 1);
    let kill = format!("CLIENT KILL ID {id}");
    let replies = conn.pipeline(&[kill.split(' ').collect(), vec!["RPUSH", "l", "1"], vec!["LPOP", "l"]]);
    assert_eq!(replies, [Reply::Int(1), Reply::Int(1), Reply::bulk("1")]);
    assert_eq!(killed.read_to_end(), b"");
    assert_eq!(node.info("clients")["total_blocking_keys"], "0");
}

#[test]
fn what_is_sent_after_it_waits_too() {
    let node = Node::start();
    let mut waiter = node.conn();
    for command in ["BLPOP a 0", "BLPOP b 0", "PING"] {
        send(&mut waiter, command);
    }
    wait_blocked(&node, 1);
    let mut conn = node.conn();
    conn.run("RPUSH b 2");
    assert_eq!(conn.run("LLEN b"), Reply::Int(1), "the second command has not begun");
    conn.run("RPUSH a 1");
    assert_eq!(waiter.read(), pair("a", "1"));
    assert_eq!(waiter.read(), pair("b", "2"));
    assert_eq!(waiter.read(), Reply::Simple("PONG".into()));

    // It answers what came before it at once.
    waiter.push(&["SET", "k", "v"]);
    waiter.push(&["BLPOP", "a", "0"]);
    waiter.flush();
    waiter.read().expect_ok();
    wait_blocked(&node, 1);
}

#[test]
fn a_transaction_does_not_wait() {
    let node = Node::start();
    let mut conn = node.conn();
    for command in ["MULTI", "BLPOP l 0", "RPUSH l 1 2", "BLPOP l 0", "BLMOVE none l LEFT LEFT 0"] {
        conn.run(command);
    }
    let replies = conn.run("EXEC");
    assert_eq!(replies, Reply::Array(vec![Reply::NilArray, Reply::Int(2), pair("l", "1"), Reply::Nil]));
}

/// A waiting command counts once, and only the time for which it ran.
#[test]
fn statistics() {
    let node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP l 0", "BLPOP l 0"]);
    node.run("RPUSH other 1");
    node.run("RPUSH l 1 2");
    waiters.iter_mut().for_each(|waiter| drop(waiter.read()));
    assert!(waiters[0].run("BLPOP l 0.001").is_nil());
    let stats = node.info("commandstats")["cmdstat_blpop"].clone();
    assert!(stats.starts_with("calls=2,"), "{stats}");
}

#[test]
fn a_new_replica_does_not_wait_to_write() {
    let (node, master) = (Node::start(), Node::start());
    let mut waiters = waiting(&node, &["BLPOP l 0", "BLMOVE l m LEFT LEFT 0"]);
    node.slaveof(master.port());
    for waiter in &mut waiters {
        assert_eq!(
            waiter.read(),
            Reply::error(
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
            )
        );
    }
    assert!(waiters[0].run("BLPOP l 0").error_text().starts_with("READONLY"));
}

#[test]
fn a_server_stops_though_clients_wait() {
    let mut node = Node::start();
    let mut waiters = waiting(&node, &["BLPOP l 0", "BLPOP l 1000"]);
    let start = std::time::Instant::now();
    assert!(node.terminate().success());
    assert!(start.elapsed().as_secs() < 8, "it waited for them");
    assert_eq!(waiters[0].read_to_end(), b"");
    node.start_again();
    assert_eq!(node.run("RPUSH l 1"), Reply::Int(1));
}

/// What served clients were told is there after a crash, also where every write waits for the disk.
#[test]
fn what_was_served_is_durable() {
    let mut node = Node::with(&[("sync", "always")]);
    let mut waiters = waiting(&node, &["BLMOVE l m LEFT RIGHT 0", "BLPOP l 0"]);
    node.run("RPUSH l 1 2 3");
    assert_eq!((waiters[0].read(), waiters[1].read()), (Reply::bulk("1"), pair("l", "2")));
    node.crash();
    let mut conn = node.conn();
    assert_eq!(conn.run("LRANGE m 0 -1"), Reply::bulks(&["1"]));
    assert_eq!(conn.run("LRANGE l 0 -1"), Reply::bulks(&["3"]));
}

/// Many who push, take, move and give up at the same time: every element comes out exactly once.
#[test]
fn nothing_is_lost_or_taken_twice() {
    const TAKERS: usize = 8;
    const PUSHERS: usize = 4;
    const EACH: usize = 500;
    let node = Node::start();
    let takers: Vec<_> = (0..TAKERS)
        .map(|nth| {
            let mut conn = node.conn();
            let mut rng = rng();
            thread::spawn(move || {
                let mut taken = Vec::new();
                loop {
                    let timeout = ["0", "0", "0.001", "0.01"][rng.random_range(0..4)];
                    let reply = match (nth, rng.random_range(0..3)) {
                        (0, _) => conn.call(&["BLMOVE", "a", "b", "LEFT", "RIGHT", timeout]),
                        (_, 0) => conn.call(&["BRPOP", "b", "a", timeout]),
                        (_, 1) => conn.call(&["BLPOP", "a", timeout]),
                        _ => conn.call(&["BLPOP", "b", "a", timeout]),
                    };
                    match reply {
                        Reply::Array(items) if items[1] == Reply::bulk("end") => return taken,
                        Reply::Array(items) => taken.push(items[1].text()),
                        Reply::Bulk(moved) if moved == b"end" => return taken,
                        _ => {}
                    }
                }
            })
        })
        .collect();
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|nth| {
            let mut conn = node.conn();
            let mut rng = rng();
            thread::spawn(move || {
                for n in 0..EACH {
                    let key = ["a", "b"][rng.random_range(0..2)];
                    let element = format!("{nth}:{n}");
                    match rng.random_range(0..3) {
                        0 => drop(conn.pipeline(&[vec!["RPUSH", key, &element], vec!["PING"]])),
                        1 => drop(conn.pipeline(&[vec!["MULTI"], vec!["LPUSH", key, &element], vec!["EXEC"]])),
                        _ => drop(conn.call(&["RPUSH", key, &element])),
                    }
                }
            })
        })
        .collect();
    pushers.into_iter().for_each(|pusher| pusher.join().expect("a pusher"));
    let mut conn = node.conn();
    wait_for("the lists to be empty", DEADLINE, || conn.run("EXISTS a b") == Reply::Int(0));
    let mut alive: Vec<_> = takers;
    let mut taken = Vec::new();
    wait_for("the takers to end", DEADLINE, || {
        conn.run("RPUSH a end");
        for _ in 0..alive.len() {
            let taker = alive.remove(0);
            if taker.is_finished() {
                taken.extend(taker.join().expect("a taker"));
            } else {
                alive.push(taker);
            }
        }
        alive.is_empty()
    });
    taken.sort();
    let mut expected: Vec<String> = (0..PUSHERS).flat_map(|nth| (0..EACH).map(move |n| format!("{nth}:{n}"))).collect();
    expected.sort();
    assert_eq!(taken, expected);
    assert_eq!(blocked(&node), 0);
}
