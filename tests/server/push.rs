//! What is sent to clients unasked: messages, notifications, invalidations, MONITOR; and expired keys, which go by themselves.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Conn, Node, Reply};

fn push(parts: &[&str]) -> Reply {
    Reply::Push(parts.iter().map(Reply::bulk).collect())
}

/// The value of a field of INFO.
fn info(conn: &mut Conn, field: &str) -> String {
    let text = conn.run("INFO everything").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("INFO has no {field}"))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn channels_and_patterns_in_both_protocols() {
    let node = Node::start();
    let (mut two, mut three, mut sender) = (node.conn(), node.conn(), node.conn());
    three.run("HELLO 3");
    two.push(&["SUBSCRIBE", "a", "b"]);
    two.flush();
    assert_eq!(two.read(), Reply::Array(vec![Reply::bulk("subscribe"), Reply::bulk("a"), Reply::Int(1)]));
    assert_eq!(two.read(), Reply::Array(vec![Reply::bulk("subscribe"), Reply::bulk("b"), Reply::Int(2)]));
    let confirmed = Reply::Push(vec![Reply::bulk("psubscribe"), Reply::bulk("?"), Reply::Int(1)]);
    assert_eq!(three.run("PSUBSCRIBE ?"), confirmed);
    assert_eq!(sender.run("PUBLISH a hello"), Reply::Int(2));
    assert_eq!(sender.run("PUBLISH aa nobody"), Reply::Int(0));
    assert_eq!(two.read(), Reply::bulks(&["message", "a", "hello"]));
    assert_eq!(three.read(), push(&["pmessage", "?", "a", "hello"]));

    assert_eq!(
        two.run("GET k").error_text(),
        "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
    );
    assert_eq!(two.run("PING"), Reply::bulks(&["pong", ""]));
    assert_eq!(three.run("PING"), Reply::Simple("PONG".into()));
    assert_eq!(sender.run("PUBSUB NUMSUB a b c").texts_or_ints(), ["a", "1", "b", "1", "c", "0"]);
    assert_eq!(sender.run("PUBSUB NUMPAT"), Reply::Int(1));
    assert_eq!(two.run("RESET"), Reply::Simple("RESET".into()));
    assert_eq!(sender.run("PUBLISH a x"), Reply::Int(1));
    drop(three);
    eventually("the subscription ends with the connection", || sender.run("PUBLISH a x") == Reply::Int(0));
}

#[test]
fn shard_channels_are_apart() {
    let node = Node::start();
    let (mut listener, mut sender) = (node.conn(), node.conn());
    listener.run("HELLO 3");
    listener.run("SSUBSCRIBE a");
    assert_eq!(sender.run("PUBLISH a x"), Reply::Int(0));
    assert_eq!(sender.run("SPUBLISH a x"), Reply::Int(1));
    assert_eq!(listener.read(), push(&["smessage", "a", "x"]));
    assert_eq!(sender.run("PUBSUB SHARDCHANNELS"), Reply::bulks(&["a"]));
    assert_eq!(
        listener.run("SUNSUBSCRIBE"),
        Reply::Push(vec![Reply::bulk("sunsubscribe"), Reply::bulk("a"), Reply::Int(0)])
    );
}

#[test]
fn ones_own_messages_follow_the_reply() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("HELLO 3");
    conn.run("SUBSCRIBE c");
    for command in [&["MULTI"][..], &["SET", "k", "v"], &["PUBLISH", "c", "1"], &["PUBLISH", "c", "2"], &["EXEC"]] {
        conn.push(command);
    }
    conn.push(&["PUBLISH", "c", "3"]);
    conn.push(&["PING"]);
    conn.flush();
    conn.read().expect_ok();
    conn.read_many(3);
    assert_eq!(conn.read(), Reply::Array(vec![Reply::ok(), Reply::Int(1), Reply::Int(1)]));
    assert_eq!(conn.read(), push(&["message", "c", "1"]));
    assert_eq!(conn.read(), push(&["message", "c", "2"]));
    assert_eq!(conn.read(), Reply::Int(1));
    assert_eq!(conn.read(), push(&["message", "c", "3"]));
    assert_eq!(conn.read(), Reply::Simple("PONG".into()));
}

#[test]
fn a_subscriber_that_does_not_read_is_closed() {
    let node = Node::with(&[("client-output-buffer-limit", "pubsub 1mb 0 0")]);
    let (mut deaf, mut sender) = (node.conn(), node.conn());
    deaf.run("SUBSCRIBE c");
    let message = "x".repeat(100_000);
    let mut sent = 0;
    eventually("it is closed", || {
        sent += 1;
        sender.call(&["PUBLISH", "c", &message]) == Reply::Int(0)
    });
    // What the system buffers, and the limit.
    assert!(sent < 400, "{sent} messages of 100 KB");
}

#[test]
fn events_of_keys() {
    let node = Node::with(&[("notify-keyspace-events", "KEA")]);
    let (mut listener, mut conn) = (node.conn(), node.conn());
    listener.run("HELLO 3");
    listener.run("PSUBSCRIBE __key*__:*");
    let mut expect = |line: &str, events: &[&str]| {
        conn.run(line);
        for event in events {
            let (name, key) = event.split_once(' ').unwrap();
            let pattern = "__key*__:*";
            assert_eq!(listener.read(), push(&["pmessage", pattern, &format!("__keyspace@0__:{key}"), name]), "{line}");
            assert_eq!(listener.read(), push(&["pmessage", pattern, &format!("__keyevent@0__:{name}"), key]), "{line}");
        }
    };
    expect("SET k v EX 100", &["set k", "expire k"]);
    expect("APPEND k x", &["append k"]);
    expect("SETRANGE k 0 y", &["setrange k"]);
    expect("PERSIST k", &["persist k"]);
    expect("RENAME k n", &["rename_from k", "rename_to n"]);
    expect("INCR c", &["incrby c"]);
    expect("MSET a 1 b 2", &["set a", "set b"]);
    expect("COPY a d", &["copy_to d"]);
    expect("SETBIT bits 3 1", &["setbit bits"]);
    expect("DEL a b nothing", &["del a", "del b"]);
    expect("PEXPIRE c -1", &["del c"]);
    expect("SET e v PX 20", &["set e", "expire e", "expired e"]);
    expect("GETDEL n", &["del n"]);
}

#[test]
fn expired_keys_go_by_themselves() {
    let node = Node::start();
    let mut conn = node.conn();
    for i in 0..500 {
        conn.push(&["SET", &format!("k{i}"), "v", "PX", "50"]);
    }
    conn.push(&["SET", "stays", "v", "EX", "1000"]);
    conn.flush();
    conn.read_many(501);
    eventually("they are deleted", || info(&mut conn, "expired_keys") == "500");
    assert_eq!(conn.run("DBSIZE"), Reply::Int(1));

    // Found when they are read where nobody looks for them.
    conn.run("DEBUG SET-ACTIVE-EXPIRE 0").expect_ok();
    conn.run("SET k v PX 1");
    thread::sleep(Duration::from_millis(10));
    assert_eq!(conn.run("DBSIZE"), Reply::Int(2));
    assert_eq!(conn.run("GET k"), Reply::Nil);
    assert_eq!(conn.run("DBSIZE"), Reply::Int(1));
    assert_eq!(info(&mut conn, "expired_keys"), "501");
}

#[test]
fn what_expires_around_a_restart_goes_too() {
    let mut node = Node::start();
    let mut conn = node.conn();
    conn.run("DEBUG SET-ACTIVE-EXPIRE 0").expect_ok();
    for i in 0..300 {
        conn.run(&format!("SET gone{i} v PX 1"));
        conn.run(&format!("SET soon{i} v PX 1500"));
    }
    node.restart();
    let mut conn = node.conn();
    eventually("they are swept", || info(&mut conn, "expired_keys") == "600");
}

#[test]
fn tracked_keys_are_invalidated() {
    let node = Node::start();
    let (mut reader, mut writer) = (node.conn(), node.conn());
    reader.run("HELLO 3");
    reader.run("CLIENT TRACKING ON").expect_ok();
    writer.run("MSET a 1 b 2");
    reader.run("MGET a b");
    assert_eq!(info(&mut writer, "tracking_total_keys"), "2");
    writer.run("SET c 1");
    writer.run("SET b 3");
    let invalid = |keys: &[&str]| Reply::Push(vec![Reply::bulk("invalidate"), Reply::bulks(keys)]);
    assert_eq!(reader.read(), invalid(&["b"]));
    // Once only: it has not been read again.
    writer.run("SET b 4");
    // One's own change follows the reply; what is read after it stays valid.
    reader.push(&["SET", "a", "5"]);
    reader.push(&["GET", "a"]);
    reader.flush();
    let replies = reader.read_many(3);
    assert!(replies.contains(&invalid(&["a"])) && replies.contains(&Reply::bulk("5")), "{replies:?}");
    writer.run("FLUSHALL");
    assert_eq!(reader.read(), Reply::Push(vec![Reply::bulk("invalidate"), Reply::Nil]));

    reader.run("CLIENT TRACKING OFF").expect_ok();
    reader.run("CLIENT TRACKING ON BCAST PREFIX x: PREFIX y: NOLOOP").expect_ok();
    reader.run("SET x:own 1").expect_ok();
    writer.run("MSET x:1 1 z:1 1 x:2 1");
    assert_eq!(reader.read(), invalid(&["x:1", "x:2"]));
    assert_eq!(reader.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn monitor_shows_commands_and_hides_passwords() {
    let node = Node::start();
    let (mut monitor, mut conn) = (node.conn(), node.conn());
    monitor.run("MONITOR").expect_ok();
    conn.run("HELLO 2 AUTH default secret");
    conn.run("CONFIG GET port");
    for line in ["MULTI", "SET k \"a b\"", "EXEC"] {
        conn.run(line);
    }
    let mut line = || {
        let text = monitor.read().text();
        text.split_once("] ").unwrap().1.to_owned()
    };
    assert_eq!(line(), r#""HELLO" "2" "AUTH" "(redacted)" "(redacted)""#);
    assert_eq!(line(), r#""MULTI""#);
    assert_eq!(line(), r#""SET" "k" "a b""#);
    assert_eq!(line(), r#""EXEC""#);
}

#[test]
fn a_pause_holds_writes_back() {
    let node = Node::start();
    let (mut admin, mut writer) = (node.conn(), node.conn());
    admin.run("CLIENT PAUSE 100000 WRITE").expect_ok();
    writer.push(&["SET", "k", "v"]);
    writer.push(&["GET", "k"]);
    writer.flush();
    eventually("the writer waits", || info(&mut admin, "blocked_clients") == "1");
    assert_eq!(admin.run("GET k"), Reply::Nil);
    admin.run("CLIENT UNPAUSE").expect_ok();
    assert_eq!(writer.read_many(2), [Reply::ok(), Reply::bulk("v")]);
    let began = Instant::now();
    admin.run("CLIENT PAUSE 200").expect_ok();
    assert_eq!(writer.run("PING"), Reply::Simple("PONG".into()));
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[test]
fn silenced_replies() {
    let node = Node::start();
    let mut conn = node.conn();
    for line in
        ["CLIENT REPLY SKIP", "SET a 1", "GET a", "CLIENT REPLY OFF", "SET a 2", "NOSUCH", "CLIENT REPLY ON", "GET a"]
    {
        conn.push(&line.split(' ').collect::<Vec<_>>());
    }
    conn.flush();
    assert_eq!(conn.read_many(3), [Reply::bulk("1"), Reply::ok(), Reply::bulk("2")]);
}

trait Texts {
    fn texts_or_ints(&self) -> Vec<String>;
}

impl Texts for Reply {
    fn texts_or_ints(&self) -> Vec<String> {
        let text = |reply: &Reply| match reply {
            Reply::Int(number) => number.to_string(),
            other => other.text(),
        };
        self.items().iter().map(text).collect()
    }
}
