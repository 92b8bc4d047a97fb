//! Masters that cannot be followed: a reason in INFO, the data untouched, the process alive,
//! and another try where that can help.

use crate::common::ports::PortBlock;
use crate::common::{
    DEADLINE, Link, Node, NodeOptions, RedisServer, Reply, wait_connected, wait_for, wait_link_error, wait_synced,
};
use crate::small;

/// A node with some data and its digest.
fn with_data(options: NodeOptions) -> (Node, String) {
    let node = options.start();
    let mut conn = node.conn();
    for i in 0..100 {
        conn.call(&["SET", &format!("k{i}"), "mine"]).expect_ok();
    }
    let digest = node.digest();
    (node, digest)
}

/// The replica must be alive, not connected, with its own data, and refuse writes.
#[track_caller]
fn expect_untouched(replica: &mut Node, digest: &str) {
    assert!(replica.is_alive());
    assert_eq!(replica.digest(), digest);
    assert_eq!(replica.run("GET k1"), Reply::bulk("mine"));
    let seen = replica.replication();
    assert_eq!(seen.field("role"), "slave");
    assert_eq!(seen.field("master_link_status"), "down");
    assert!(!seen.states().iter().any(|(_, state)| *state == "Connected"), "{}", seen.text);
}

#[test]
fn nobody_listens_until_somebody_does() {
    let (mut replica, digest) = with_data(small());
    let mut master = small().prepare();
    replica.slaveof(master.port());
    let reason = wait_link_error(&replica);
    println!("{reason}");
    expect_untouched(&mut replica, &digest);
    master.start_again();
    master.run("SET from master").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("GET from"), Reply::bulk("master"));
    assert_eq!(replica.replication().field("master_link_error"), "", "the reason is gone");
}

#[test]
fn a_host_that_does_not_exist() {
    let (mut replica, digest) = with_data(small());
    replica.run("SLAVEOF no-such-host.invalid 9221").expect_ok();
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
}

#[test]
fn a_redis_server() {
    let (mut replica, digest) = with_data(small());
    let redis = RedisServer::start();
    redis.conn().run("SET from redis").expect_ok();
    replica.slaveof(redis.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
    assert_eq!(redis.conn().run("GET from"), Reply::bulk("redis"));
}

/// Something listens on the replication port that speaks no gRPC at all.
#[test]
fn a_port_of_something_else() {
    let (mut replica, digest) = with_data(small());
    let ports = PortBlock::reserve();
    let listener = std::net::TcpListener::bind(("127.0.0.1", ports.port() + 2000)).expect("a port");
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        // A few connections get an answer in another protocol; then the port is closed.
        for stream in listener.incoming().take(2) {
            let _ = stream.and_then(|mut stream| stream.write_all(b"220 mail.example ESMTP\r\n"));
        }
    });
    replica.slaveof(ports.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
    wait_for("a second try", DEADLINE, || answering.is_finished());
    expect_untouched(&mut replica, &digest);
}

#[test]
fn itself() {
    let (mut replica, digest) = with_data(small());
    replica.slaveof(replica.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
    replica.slaveof_no_one();
    replica.run("SET k1 yours").expect_ok();
}

/// The node's own address in disguise: through a proxy, so only the run id tells.
#[test]
fn itself_by_another_address() {
    let (mut replica, digest) = with_data(small());
    let link = Link::to(&replica);
    replica.slaveof(link.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
}

#[test]
fn a_wrong_masterauth_mended_later() {
    let master = small().set("requirepass", "secret").start();
    master.run("SET from master").expect_ok();
    let (mut replica, digest) = with_data(small().set("masterauth", "wrong"));
    replica.slaveof(master.port());
    let reason = wait_link_error(&replica);
    println!("{reason}");
    assert!(!reason.contains("secret") && !reason.contains("wrong"), "a password in: {reason}");
    expect_untouched(&mut replica, &digest);
    replica.run("CONFIG SET masterauth secret").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("GET from"), Reply::bulk("master"));
}

#[test]
fn no_masterauth_at_all() {
    let master = small().set("requirepass", "secret").start();
    let (mut replica, digest) = with_data(small());
    replica.slaveof(master.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
    assert_eq!(master.replication().number("connected_slaves"), 0);
}

#[test]
fn another_number_of_databases() {
    let master = small().start();
    let (mut replica, digest) = with_data(small().set("databases", 3));
    replica.slaveof(master.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
}

#[test]
fn another_number_of_slots() {
    let master = small().start();
    let (mut replica, digest) = with_data(small().set("slot-num", 3));
    replica.slaveof(master.port());
    println!("{}", wait_link_error(&replica));
    expect_untouched(&mut replica, &digest);
}

/// A node that has followed one master does not lose its data to an unrelated one, unless it
/// is told to with `force`; the reason says so.
#[test]
fn a_master_of_another_history() {
    let first = small().start();
    first.run("SET k1 mine").expect_ok();
    let mut replica = small().start();
    replica.slaveof(first.port());
    wait_synced(&first, &replica);
    let digest = replica.digest();

    let second = small().start();
    second.run("SET from second").expect_ok();
    let other = small().start();
    other.slaveof(second.port());
    wait_synced(&second, &other);
    replica.slaveof(second.port());
    let reason = wait_link_error(&replica);
    println!("{reason}");
    assert!(reason.to_lowercase().contains("force"), "what to type is not in: {reason}");
    expect_untouched(&mut replica, &digest);

    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", second.port())).expect_ok();
    wait_synced(&second, &replica);
    assert_eq!(replica.run("GET from"), Reply::bulk("second"));
    replica.slaveof_no_one();
    replica.run("SET now master").expect_ok();
}

/// `slaveof no one` in the middle of trying ends the trying.
#[test]
fn giving_up_on_a_master_that_is_not_there() {
    let (replica, digest) = with_data(small());
    let nobody = PortBlock::reserve();
    replica.slaveof(nobody.port());
    wait_link_error(&replica);
    replica.slaveof_no_one();
    let seen = replica.replication();
    assert_eq!(seen.field("role"), "master");
    assert_eq!(seen.field("master_link_error"), "");
    assert_eq!(replica.digest(), digest);
    replica.run("SET k1 yours").expect_ok();
}

/// A master given in the conf is followed from the start.
#[test]
fn a_master_given_on_the_command_line() {
    let master = small().start();
    master.run("SET from master").expect_ok();
    let replica = small().set("slaveof", format!("127.0.0.1:{}", master.port())).start();
    wait_connected(&replica);
    wait_synced(&master, &replica);
}

#[test]
fn a_master_without_enough_replicas_refuses_writes() {
    let (master, mut replica) = (small().set("min-replicas-to-write", 1).start(), small().start());
    let refused = Reply::error("NOREPLICAS Not enough good replicas to write.");
    assert_eq!(master.run("SET a 1"), refused);
    replica.slaveof(master.port());
    wait_connected(&replica);
    wait_for("a write is taken", DEADLINE, || master.run("SET a 1") != refused);
    wait_synced(&master, &replica);
    replica.kill9();
    master.run("CONFIG SET min-replicas-max-lag 1").expect_ok();
    wait_for("a write is refused", DEADLINE, || master.run("SET a 2") == refused);
    assert_eq!(master.run("GET a"), Reply::bulk("1"));
    master.run("CONFIG SET min-replicas-to-write 0").expect_ok();
    master.run("SET a 2").expect_ok();
}

#[test]
fn a_replica_without_its_master_may_be_told_not_to_answer() {
    let (replica, _) = with_data(small().set("slave-serve-stale-data", "no"));
    let master = small().start();
    let stale = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
    replica.slaveof(master.port());
    wait_connected(&replica);
    wait_for("the data", DEADLINE, || !replica.run("GET k1").is_error());
    drop(master);
    wait_for("a refusal", DEADLINE, || replica.run("GET k1") == Reply::error(stale));
    assert!(!replica.run("INFO replication").is_error());
    replica.run("CONFIG SET replica-serve-stale-data yes").expect_ok();
    assert!(!replica.run("GET k1").is_error());
}
