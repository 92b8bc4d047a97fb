//! What operators ask a server: clients, limits, INFO, CONFIG, COMMAND, the slow log, BGSAVE.

use std::thread;
use std::time::Duration;

use crate::common::{Conn, DEADLINE, Node, NodeOptions, RedisServer, Reply, unix_ms, wait_for, wait_some};

#[test]
fn one_client_too_many_is_told_so() {
    let node = NodeOptions::new().set("maxclients", 2).start();
    // Until the harness's own connection is gone, one of these may be refused.
    let connect = || {
        wait_some("a place for a client", DEADLINE, || {
            let mut conn = Conn::try_to(node.port()).ok()?;
            let pong = conn.try_call(&["PING"]).ok()?;
            (!pong.is_error()).then_some(conn)
        })
    };
    let mut held = [connect(), connect()];
    let mut third = Conn::to(node.port());
    assert_eq!(third.read_to_end(), b"-ERR max number of clients reached\r\n");
    for conn in &mut held {
        assert_eq!(conn.run("PING"), Reply::Simple("PONG".into()));
    }
    held[0].run("CONFIG SET maxclients 3").expect_ok();
    connect();
}

#[test]
fn idle_clients_are_disconnected() {
    let node = NodeOptions::new().set("timeout", 1).start();
    let mut idle = node.conn();
    assert_eq!(idle.run("PING"), Reply::Simple("PONG".into()));
    assert_eq!(idle.read_to_end(), b"");
    assert_eq!(node.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn clients_are_listed_named_and_killed() {
    let node = Node::start();
    let (mut one, mut two) = (node.conn(), node.conn());
    one.run("CLIENT SETNAME one").expect_ok();
    assert_eq!(one.run("CLIENT GETNAME"), Reply::bulk("one"));
    two.select(3);
    let (first, second) = (one.run("CLIENT ID").int(), two.run("CLIENT ID").int());
    assert!(first < second, "{first} {second}");
    let list = one.run("CLIENT LIST").text();
    let line = |id: i64| list.lines().find(|line| line.starts_with(&format!("id={id} ")));
    assert!(line(first).is_some_and(|line| line.contains(" name=one ")), "{list}");
    assert!(line(second).is_some_and(|line| line.contains(" db=3 ")), "{list}");
    assert!(one.run("CLIENT INFO").text().starts_with(&format!("id={first} ")));
    let spaces = "ERR Client names cannot contain spaces, newlines or special characters.";
    assert_eq!(one.run("CLIENT SETNAME \"a b\""), Reply::error(spaces));
    assert_eq!(one.run(&format!("CLIENT KILL ID {second}")), Reply::Int(1));
    assert_eq!(two.read_to_end(), b"");
    assert_eq!(one.run(&format!("CLIENT KILL ID {second}")), Reply::Int(0));
    assert_eq!(one.run("CLIENT KILL 1.2.3.4:5"), Reply::error("ERR No such client"));
    one.run("RESET");
    assert_eq!(one.run("CLIENT GETNAME"), Reply::Nil);
}

#[test]
fn info_counts() {
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("SET a 1").expect_ok();
    conn.run("SET b 1 PX 1000000").expect_ok();
    conn.run("GET a");
    conn.run("GET nothing");
    assert!(conn.run("INCR").is_error());
    let stats = node.info("stats");
    assert_eq!((stats["keyspace_hits"].as_str(), stats["keyspace_misses"].as_str()), ("1", "1"));
    let commands = node.info("commandstats");
    assert!(commands["cmdstat_set"].starts_with("calls=2,"), "{}", commands["cmdstat_set"]);
    assert!(commands["cmdstat_incr"].contains("rejected_calls=1"), "{}", commands["cmdstat_incr"]);
    let errors = node.info("errorstats");
    assert_eq!(errors["errorstat_ERR"], "count=1");
    let server = node.info("server");
    assert_eq!(server["tcp_port"], node.port().to_string());
    assert_eq!(server["process_id"], node.pid().to_string());
    wait_for("the keyspace to be counted", DEADLINE, || {
        node.info("keyspace").get("db0").is_some_and(|db| db.starts_with("keys=2,expires=1,"))
    });
    for section in ["server", "clients", "memory", "persistence", "stats", "replication", "cpu"] {
        assert!(!node.info(section).is_empty(), "INFO {section}");
    }
    conn.run("CONFIG RESETSTAT").expect_ok();
    assert_eq!(node.info("stats")["keyspace_hits"], "0");
    assert!(!node.info("commandstats").contains_key("cmdstat_set"));
}

#[test]
fn config_set_is_all_or_nothing() {
    let node = Node::start();
    let refused = node.run("CONFIG SET timeout 50 maxclients many");
    assert!(refused.error_text().starts_with("ERR CONFIG SET failed"), "{refused:?}");
    assert_eq!(node.run("CONFIG GET timeout").field("timeout"), &Reply::bulk("0"));
    assert!(node.run("CONFIG SET databases 3").is_error(), "it needs a restart");
    let unknown = "ERR Unknown option or number of arguments for CONFIG SET - 'nonsense'";
    assert_eq!(node.run("CONFIG SET nonsense 1"), Reply::error(unknown));
    node.run("CONFIG SET timeout 50 slowlog-max-len 7").expect_ok();
    let both = node.run("CONFIG GET timeout slowlog-*");
    assert_eq!(both.field("timeout"), &Reply::bulk("50"));
    assert_eq!(both.field("slowlog-max-len"), &Reply::bulk("7"));
    let alias = node.run("CONFIG GET replica-read-only");
    assert_eq!(alias.field("replica-read-only"), &Reply::bulk("yes"));
}

/// Clients ask COMMAND for key positions: they must be Redis's.
#[test]
fn command_getkeys_is_redis_own() {
    let node = Node::start();
    let redis = RedisServer::start();
    let lines = [
        "COMMAND GETKEYS GET a",
        "COMMAND GETKEYS MSET a 1 b 2 c 3",
        "COMMAND GETKEYS DEL a b c",
        "COMMAND GETKEYS RENAME a b",
        "COMMAND GETKEYS LCS a b IDX",
        "COMMAND GETKEYS PING",
        "COMMAND GETKEYS NOSUCH a",
        "COMMAND GETKEYS GET",
    ];
    for line in lines {
        assert_eq!(node.run(line), redis.conn().run(line), "{line}");
    }
    let count = node.run("COMMAND COUNT").int();
    assert_eq!(node.run("COMMAND").items().len() as i64, count);
    assert!(node.run("COMMAND LIST").texts().contains(&"get".to_string()));
    for name in ["get", "mset", "set", "del", "rename"] {
        let info = |conn: &mut Conn| conn.run(&format!("COMMAND INFO {name}")).items()[0].items().to_vec();
        let (ours, theirs) = (info(&mut node.conn()), info(&mut redis.conn()));
        // Name, arity; first key, last key, step.
        assert_eq!(ours[..2], theirs[..2], "{name}");
        assert_eq!(ours[3..6], theirs[3..6], "{name}");
    }
}

#[test]
fn the_slow_log() {
    let node = NodeOptions::new().set("slowlog-log-slower-than", 0).start();
    let mut conn = node.conn();
    conn.run("SLOWLOG RESET").expect_ok();
    conn.run("SET k v").expect_ok();
    let entries = conn.run("SLOWLOG GET 10");
    let logged = entries.items().iter().any(|entry| entry.items()[3] == Reply::bulks(&["SET", "k", "v"]));
    assert!(logged, "{entries:?}");
    assert!(conn.run("SLOWLOG LEN").int() >= 2);
    conn.run("CONFIG SET slowlog-log-slower-than -1").expect_ok();
    conn.run("SLOWLOG RESET").expect_ok();
    assert_eq!(conn.run("SLOWLOG LEN"), Reply::Int(0));
}

#[test]
fn time_and_lastsave_and_bgsave() {
    let node = Node::start();
    node.run("SET k v").expect_ok();
    let before = unix_ms() / 1000;
    let now: u64 = node.run("TIME").texts()[0].parse().expect("seconds");
    assert!((before..=unix_ms() / 1000).contains(&now), "{now}");
    assert_eq!(node.run("BGSAVE"), Reply::Simple("Background saving started".into()));
    wait_for("the save", DEADLINE, || {
        let saved = node.run("LASTSAVE").int() as u64;
        saved >= before && node.info("persistence")["rdb_bgsave_in_progress"] == "0"
    });
    assert_eq!(node.info("persistence")["rdb_last_bgsave_status"], "ok");
}

/// One client's long command holds up nobody else.
#[test]
fn a_long_command_holds_up_nobody() {
    let node = NodeOptions::new().set("thread-num", 1).start();
    let mut slow = node.conn();
    slow.push(&["DEBUG", "SLEEP", "3"]);
    slow.flush();
    let answered = thread::scope(|scope| {
        let waiting = scope.spawn(|| slow.read().expect_ok());
        let mut answered = 0;
        while !waiting.is_finished() {
            assert_eq!(node.run("PING"), Reply::Simple("PONG".into()));
            answered += 1;
            thread::sleep(Duration::from_millis(10));
        }
        answered
    });
    assert!(answered >= 5, "{answered} PINGs were answered during DEBUG SLEEP");
}
