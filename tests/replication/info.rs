//! What INFO replication, ROLE and DBSLAVEOF show and do on both sides.

use crate::common::{DEADLINE, Link, Reply, fill, rng, wait_caught_up, wait_connected, wait_for, wait_synced};
use crate::small;

#[test]
fn both_sides_of_a_connected_pair() {
    let master = small().start();
    let replica = small().start();
    fill(&master, 0, "k", 100, 100, &mut rng());
    let alone = master.replication();
    assert_eq!(alone.field("role"), "master");
    assert_eq!(alone.field("connected_slaves"), "0");

    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    let seen = replica.replication();
    assert_eq!(seen.field("role"), "slave");
    assert_eq!(seen.field("master_host"), "127.0.0.1");
    assert_eq!(seen.number("master_port"), u64::from(master.port()));
    assert_eq!(seen.field("master_link_status"), "up");
    assert_eq!(seen.field("slave_read_only"), "1");
    let slots: Vec<&str> = seen.states().iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, ["db0:0", "db0:1", "db1:0", "db1:1"]);

    let seen = master.replication();
    assert_eq!(seen.field("connected_slaves"), "1");
    let slave = seen.field("slave0");
    for part in ["ip=127.0.0.1", &format!("port={}", replica.port()), "state=online", "offset=", "lag="] {
        assert!(slave.contains(part), "{part} in {slave}");
    }
    assert_eq!(seen.positions().len(), 4, "{}", seen.text);
    let id = seen.field("master_replid");
    assert!(id.len() >= 40 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(replica.replication().field("master_replid"), id);

    let role = master.run("ROLE");
    assert_eq!(role.items()[0], Reply::bulk("master"));
    let of_replica = role.items()[2].items()[0].texts();
    assert_eq!(of_replica[..2], ["127.0.0.1".to_string(), replica.port().to_string()]);
    let role = replica.run("ROLE");
    assert_eq!(
        role.items()[..3],
        [Reply::bulk("slave"), Reply::bulk("127.0.0.1"), Reply::Int(i64::from(master.port())),]
    );
    assert_eq!(role.items()[3], Reply::bulk("connected"));
}

/// The offset of `slave0` follows the master's own.
#[test]
fn a_master_sees_its_replica_catch_up() {
    let master = small().start();
    let replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    fill(&master, 0, "k", 1000, 100, &mut rng());
    wait_for("the replica's offset to be the master's", DEADLINE, || {
        let seen = master.replication();
        let offset = seen.field("slave0").split(',').find_map(|part| part.strip_prefix("offset="));
        seen.number("master_repl_offset") > 0 && offset == Some(seen.field("master_repl_offset"))
    });
}

/// A replica that goes away leaves the master's list.
#[test]
fn a_replica_that_leaves() {
    let master = small().start();
    let replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    replica.slaveof_no_one();
    wait_for("the master's list to be empty", DEADLINE, || master.replication().number("connected_slaves") == 0);
    assert_eq!(master.replication().field("role"), "master");
    replica.run("SET k v").expect_ok();
    assert_eq!(master.run("GET k"), Reply::Nil);
}

/// DBSLAVEOF takes one database out and in again.
#[test]
fn one_database_taken_out() {
    let master = small().start();
    let replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    replica.run("DBSLAVEOF db1 no one").expect_ok();
    wait_for("its slots to be taken out", DEADLINE, || {
        let seen = replica.replication();
        let of = |db: &str| -> Vec<String> {
            let states = seen.states();
            let of_db = states.iter().filter(|(slot, _)| slot.starts_with(db));
            of_db.map(|(_, state)| state.to_string()).collect()
        };
        of("db1:").iter().all(|state| state == "DBNoConnect") && of("db0:").iter().all(|state| state == "Connected")
    });
    let (mut on_master, mut on_replica) = (master.conn(), replica.conn());
    on_master.run("SET k zero").expect_ok();
    on_master.select(1);
    on_master.run("SET k one").expect_ok();
    wait_for("the other database to go on", DEADLINE, || on_replica.run("GET k") == Reply::bulk("zero"));
    on_replica.select(1);
    assert_eq!(on_replica.run("GET k"), Reply::Nil);
    replica.run("DBSLAVEOF db1").expect_ok();
    wait_connected(&replica);
    wait_caught_up(&master, &replica);
    assert_eq!(on_replica.run("GET k"), Reply::bulk("one"));
}

/// While a full sync runs, INFO shows its progress.
#[test]
fn progress_of_a_full_sync() {
    let master = small().start();
    fill(&master, 0, "k", 400, 16 << 10, &mut rng());
    let replica = small().set("throttle-bytes-per-second", "2M").start();
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_for("a slot that waits for its snapshot", DEADLINE, || {
        let seen = replica.replication();
        seen.states().iter().any(|(_, state)| *state == "WaitDBSync")
    });
    let seen = replica.replication();
    println!("{}", seen.text);
    assert_eq!(seen.field("master_link_status"), "down");
    assert_eq!(seen.field("master_sync_in_progress"), "1");
    replica.run("CONFIG SET throttle-bytes-per-second 0").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.replication().field("master_sync_in_progress"), "0");
}
