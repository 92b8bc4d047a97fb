//! EXEC: when it is refused, what its commands may wait for, and how long its reply may be.

use crate::common::{Node, Reply};

fn queue(conn: &mut crate::common::Conn, commands: &[&str]) {
    conn.run("MULTI").expect_ok();
    for command in commands {
        assert_eq!(conn.run(command), Reply::Simple("QUEUED".into()), "{command}");
    }
}

/// A transaction that was queued on a master is not executed once the node is a replica: its log is the master's.
#[test]
fn exec_on_a_new_replica() {
    let (node, master) = (Node::start(), Node::start());
    let (mut writer, mut reader) = (node.conn(), node.conn());
    queue(&mut writer, &["GET k", "SET k 1"]);
    queue(&mut reader, &["GET k"]);
    node.slaveof(master.port());
    let refusal = writer.run("EXEC");
    assert!(refusal.error_text().starts_with("EXECABORT Transaction discarded because of: READONLY "), "{refusal:?}");
    assert_eq!(reader.run("EXEC"), Reply::Array(vec![Reply::Nil]));
    assert!(node.run("GET k").is_nil());
    assert!(writer.run("EXEC").error_text().starts_with("ERR EXEC without MULTI"));
}

/// What waits for others runs with no keys held, and what follows it in EXEC by the node's new role.
#[test]
fn commands_that_wait_for_others() {
    let (node, master) = (Node::start(), Node::start());
    let mut conn = node.conn();
    queue(&mut conn, &["SET k 1", "DEBUG RELOAD", "APPEND k 2", "GET k", "DEBUG LOADAOF", "DEL k"]);
    let Reply::Array(replies) = conn.run("EXEC") else { panic!("no array") };
    assert_eq!(replies[2..4], [Reply::Int(2), Reply::bulk("12")]);
    assert_eq!(replies[5], Reply::Int(1));
    queue(
        &mut conn,
        &["SET k 1", &format!("REPLICAOF 127.0.0.1 {}", master.port()), "SET k 2", "REPLICAOF NO ONE", "GET k"],
    );
    let Reply::Array(replies) = conn.run("EXEC") else { panic!("no array") };
    assert!(replies[2].error_text().starts_with("READONLY"), "{replies:?}");
    for refused in ["SAVE", "SHUTDOWN"] {
        conn.run("MULTI").expect_ok();
        assert_eq!(conn.run(refused), Reply::error("ERR Command not allowed inside a transaction"));
        assert!(conn.run("EXEC").error_text().starts_with("EXECABORT "));
    }
}

/// What a command takes away is answered whatever its size.
#[test]
fn replies_beyond_the_limit() {
    let node = Node::with(&[("max-reply-size", "1M")]);
    let mut conn = node.conn();
    let value = "v".repeat(700_000);
    let push = format!("RPUSH l {value} {value}");
    conn.run(&push);
    assert!(conn.run("LRANGE l 0 -1").error_text().contains("max-reply-size"));
    let popped = |reply: Reply| matches!(reply, Reply::Array(items) if items.len() == 2);
    assert!(popped(conn.run("LPOP l 2")));
    conn.run(&push);
    queue(&mut conn, &["LRANGE l 0 -1", "LPOP l 2", "PING"]);
    let Reply::Array(mut replies) = conn.run("EXEC") else { panic!("no array") };
    assert_eq!(replies.pop(), Some(Reply::Simple("PONG".into())));
    assert!(popped(replies.remove(1)));
    assert!(replies[0].error_text().contains("max-reply-size"));
}
