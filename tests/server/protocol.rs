//! RESP as clients speak it: inline, RESP3, pipelines, fragments, and what is refused.

use std::io::Write;
use std::thread;

use redis::Commands;

use crate::common::resp::encode;
use crate::common::{Conn, Node, NodeOptions, RedisServer, Reply, redis_cli};

#[test]
fn inline_commands() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.send_raw(b"PING\r\n\r\nset a \"b c\\n\"\r\nGET a\nping 'x y'\r\n");
    assert_eq!(conn.read(), Reply::Simple("PONG".into()));
    conn.read().expect_ok();
    assert_eq!(conn.read(), Reply::bulk("b c\n"));
    assert_eq!(conn.read(), Reply::bulk("x y"));
}

#[test]
fn resp3_after_hello() {
    let node = Node::start();
    let mut conn = node.conn();
    assert_eq!(conn.run("GET nothing"), Reply::Nil);
    let hello = conn.run("HELLO 3");
    assert!(matches!(hello, Reply::Map(_)), "{hello:?}");
    assert_eq!(hello.field("proto"), &Reply::Int(3));
    assert_eq!(hello.field("role"), &Reply::bulk("master"));
    conn.push(&["GET", "nothing"]);
    conn.flush();
    assert_eq!(conn.read_raw(3), b"_\r\n");
    assert!(matches!(conn.run("CONFIG GET port"), Reply::Map(_)));
    let back = conn.run("HELLO 2");
    assert!(matches!(back, Reply::Array(_)), "{back:?}");
    let refused = conn.run("HELLO 4");
    assert_eq!(refused, Reply::error("NOPROTO unsupported protocol version"));
}

#[test]
fn a_pipeline_of_ten_thousand_commands() {
    const COMMANDS: usize = 10_000;
    let node = Node::start();
    let mut conn = node.conn();
    for i in 0..COMMANDS {
        conn.push(&["SET", &format!("k{i}"), &format!("{i}:{}", "x".repeat(1000))]);
    }
    conn.flush();
    for _ in 0..COMMANDS {
        conn.read().expect_ok();
    }
    assert_eq!(conn.run("DBSIZE"), Reply::Int(COMMANDS as i64));

    // 10 MB of replies to 300 KB of requests: sent by another thread, so that neither side
    // waits for the other.
    let mut writer = conn.writer();
    let sender = thread::spawn(move || {
        let mut out = Vec::new();
        for i in 0..COMMANDS {
            encode(&mut out, &["GET", &format!("k{i}")]);
        }
        writer.write_all(&out)
    });
    for i in 0..COMMANDS {
        let value = conn.read().text();
        assert!(value.starts_with(&format!("{i}:")), "reply {i} is {value:.20}");
    }
    sender.join().expect("the sender").expect("all sent");
}

/// Every command of a pipeline sees what those before it wrote, in order.
#[test]
fn a_pipeline_reads_its_own_writes() {
    let node = Node::start();
    let mut conn = node.conn();
    let commands: Vec<Vec<String>> = (1..=500)
        .flat_map(|i| {
            [
                vec!["INCR".into(), "n".into()],
                vec!["GET".into(), "n".into()],
                vec!["APPEND".into(), format!("log{}", i % 7), "x".into()],
            ]
        })
        .collect();
    let replies = conn.pipeline(&commands);
    for (i, three) in replies.chunks_exact(3).enumerate() {
        assert_eq!(three[0], Reply::Int(i as i64 + 1));
        assert_eq!(three[1], Reply::bulk((i + 1).to_string()));
        assert_eq!(three[2], Reply::Int(((i + 1) as i64).div_euclid(7) + i64::from((i + 1) % 7 > 0)));
    }
}

#[test]
fn an_error_in_a_pipeline_spoils_nothing_else() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("SET word abc").expect_ok();
    let lines = ["SET a 1", "INCR word", "NOSUCH x", "SET a", "INCR a", "GET a"];
    for line in lines {
        conn.push(&crate::common::resp::split_line(line));
    }
    conn.flush();
    let replies = conn.read_many(lines.len());
    replies[0].expect_ok();
    assert_eq!(replies[1], Reply::error("ERR value is not an integer or out of range"));
    assert!(replies[2].error_text().starts_with("ERR unknown command 'NOSUCH'"), "{:?}", replies[2]);
    assert_eq!(replies[3], Reply::error("ERR wrong number of arguments for 'set' command"));
    assert_eq!(replies[4..], [Reply::Int(2), Reply::bulk("2")]);
}

#[test]
fn a_command_in_single_bytes() {
    let node = Node::start();
    let mut conn = node.conn();
    let mut bytes = Vec::new();
    encode(&mut bytes, &["SET", "key", "a value"]);
    encode(&mut bytes, &["GET", "key"]);
    for byte in bytes {
        conn.send_raw(&[byte]);
    }
    conn.read().expect_ok();
    assert_eq!(conn.read(), Reply::bulk("a value"));
}

/// Broken input gets byte for byte the answer redis-server gives, then the connection ends.
#[test]
fn protocol_errors_are_redis_own() {
    let node = Node::start();
    let redis = RedisServer::start();
    let long_inline = vec![b'a'; 66 << 10];
    let inputs: Vec<&[u8]> = vec![
        b"*x\r\n",
        b"*3000000000\r\n",
        b"*-1\r\nPING\r\n",
        b"*0\r\nPING\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n$abc\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n$9999999999\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*q\r\n",
        b"SET a \"open\r\n",
        b"SET a \"b\"c\r\n",
        b"PING\r\n*1\r\n:1\r\n",
        b"\r\n\r\nPING\r\n",
        b"*1\r\n$4\r\nPI",
        b"*99999999999999999999\r\n",
        b"*1\r\n$4\r\nPINGxxPING\r\n",
        &long_inline,
    ];
    for input in inputs {
        let answers = [node.port(), redis.port()].map(|port| {
            let mut conn = Conn::to(port);
            conn.send_raw(input);
            conn.close_write();
            conn.read_to_end().escape_ascii().to_string()
        });
        let shown = &input[..input.len().min(60)];
        assert_eq!(answers[0], answers[1], "haypile / redis on {}", shown.escape_ascii());
    }
    assert_eq!(node.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn passwords() {
    let node = NodeOptions::new().set("requirepass", "open sesame").start();
    let mut conn = Conn::to(node.port());
    assert_eq!(conn.run("GET k"), Reply::error("NOAUTH Authentication required."));
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(conn.run("AUTH nonsense"), Reply::error(wrong));
    assert_eq!(conn.run("GET k"), Reply::error("NOAUTH Authentication required."));
    conn.run("AUTH default \"open sesame\"").expect_ok();
    assert_eq!(conn.run("GET k"), Reply::Nil);
    let mut conn = Conn::to(node.port());
    let hello = conn.run("HELLO 3 AUTH default \"open sesame\"");
    assert_eq!(hello.field("proto"), &Reply::Int(3));
}

#[test]
fn quit_answers_and_closes() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.send_raw(b"*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(conn.read_to_end(), b"+OK\r\n");
}

#[test]
fn redis_cli_at_work() {
    let node = Node::start();
    let cli = |args: &[&str]| redis_cli(node.port(), args);
    assert_eq!(cli(&["set", "k", "v"]), "OK");
    assert_eq!(cli(&["get", "k"]), "v");
    assert_eq!(cli(&["-n", "3", "incr", "counter"]), "1");
    assert_eq!(cli(&["-3", "get", "nothing"]), "");
    assert_eq!(cli(&["--scan"]), "k");
    assert!(cli(&["info", "server"]).contains("tcp_port:"));
    assert!(cli(&["config", "get", "databases"]).contains("16"));
    assert!(cli(&["command", "docs", "get"]).contains("summary"));
    assert!(cli(&["nosuch"]).starts_with("ERR unknown command 'nosuch'"));
}

#[test]
fn the_redis_crate_at_work() {
    let node = Node::start();
    let mut redis = node.redis();
    let _: () = redis.set("a", 41).expect("SET");
    assert_eq!(redis.incr::<_, _, i64>("a", 1).expect("INCR"), 42);
    let both: (i64, Option<String>) = redis.mget(&["a", "b"]).expect("MGET");
    assert_eq!(both, (42, None));
    let piped: (String, bool, i64) = redis::pipe()
        .cmd("SET")
        .arg("b")
        .arg("x")
        .cmd("EXPIRE")
        .arg("b")
        .arg(100)
        .cmd("TTL")
        .arg("b")
        .query(&mut redis)
        .expect("a pipeline");
    assert_eq!((piped.0.as_str(), piped.1), ("OK", true));
    assert!((99..=100).contains(&piped.2), "{}", piped.2);
    let mut keys: Vec<String> = redis.scan().expect("SCAN").map(|key| key.expect("a key")).collect();
    keys.sort();
    assert_eq!(keys, ["a", "b"]);
}

#[test]
fn replies_can_be_stopped() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.send_raw(b"CLIENT REPLY OFF\r\nPING a\r\nNONSENSE\r\nSET k v\r\nDEBUG SLEEP 0\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nPING b\r\n");
    assert_eq!(conn.read_many(2), [Reply::ok(), Reply::bulk("b")]);
    conn.send_raw(b"CLIENT REPLY SKIP\r\nPING c\r\nPING d\r\nCLIENT REPLY SKIP\r\nGET\r\nGET k\r\n");
    assert_eq!(conn.read_many(2), [Reply::bulk("d"), Reply::bulk("v")]);
    conn.send_raw(b"CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nCLIENT REPLY nonsense\r\n");
    assert_eq!(conn.read_many(2), [Reply::ok(), Reply::error("ERR syntax error")]);
    conn.send_raw(b"CLIENT REPLY OFF\r\nRESET\r\nPING e\r\n");
    assert_eq!(conn.read_many(2), [Reply::Simple("RESET".into()), Reply::bulk("e")]);
}
