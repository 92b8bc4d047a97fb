//! Going on where it stopped: crashes of either node under load, a link that breaks or
//! swallows everything, a log that was purged meanwhile.

use std::path::Path;

use crate::common::node::files_under;
use crate::common::{
    DEADLINE, Link, Load, LoadOptions, Node, Reply, fill, rng, wait_caught_up, wait_connected, wait_for, wait_synced,
};
use crate::small;

fn both_databases() -> LoadOptions {
    LoadOptions { databases: 2, ..LoadOptions::default() }
}

#[test]
fn writes_of_every_kind_arrive() {
    let master = small().start();
    let replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    let lines = [
        "MSET a 1 b 2 c 3 d 4 e 5",
        "INCRBYFLOAT a 1.5",
        "APPEND b xyz",
        "SETRANGE c 10 tail",
        "SETEX d 10000 v",
        "GETDEL e",
        "INCRBY counter 41",
        "INCR counter",
        "RENAME counter renamed",
        "COPY renamed copied",
        "COPY renamed copied DB 1",
        "EXPIRE renamed 5000",
        "PERSIST renamed",
        "GETEX copied EX 777",
        "MSETNX f 1 g 2",
        "DEL f nothing",
        "SET empty \"\"",
        "SET binary \"\\x00\\xff\\r\\n\"",
    ];
    let mut conn = master.conn();
    for line in lines {
        let reply = conn.run(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
    wait_synced(&master, &replica);
    for line in ["MGET a b c d e renamed copied g empty binary", "PEXPIRETIME copied", "TTL renamed"] {
        assert_eq!(replica.run(line), master.run(line), "{line}");
    }
    conn.select(1);
    conn.run("FLUSHDB").expect_ok();
    wait_synced(&master, &replica);
    conn.run("FLUSHALL").expect_ok();
    conn.run("SET after flush").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("DBSIZE"), Reply::Int(0));
}

#[test]
fn the_replica_dies_under_load() {
    let master = small().start();
    let mut replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    let load = Load::start(&master, both_databases());
    for _ in 0..3 {
        load.wait_more(1000);
        replica.kill9();
        load.wait_more(500);
        replica.start_again();
        wait_connected(&replica);
        assert_eq!(replica.full_syncs(), 0, "it had everything up to the crash");
    }
    load.wait_more(500);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&master);
    acked.verify(&replica);
}

#[test]
fn the_master_dies_under_load() {
    let mut master = small().start();
    let replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    let before = replica.full_syncs();
    let load = Load::start(&master, both_databases());
    for _ in 0..3 {
        load.wait_more(1000);
        master.kill9();
        master.start_again();
    }
    load.wait_more(500);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&master);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), before, "a restarted master goes on where it was");
}

#[test]
fn both_die_under_load() {
    let mut master = small().start();
    let mut replica = small().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    let load = Load::start(&master, both_databases());
    load.wait_more(1000);
    master.kill9();
    replica.kill9();
    replica.start_again();
    master.start_again();
    load.wait_more(500);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&master);
    acked.verify(&replica);
}

/// Both stop cleanly and start again: roles, master and positions are remembered.
#[test]
fn clean_restarts_remember_everything() {
    let mut master = small().start();
    let mut replica = small().start();
    fill(&master, 0, "k", 300, 100, &mut rng());
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    replica.restart();
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), 0);
    master.restart();
    master.run("SET again v").expect_ok();
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), 0);
    assert_eq!(replica.replication().number("master_port"), u64::from(master.port()));
}

#[test]
fn a_cut_link_needs_no_full_sync() {
    let master = small().start();
    let replica = small().start();
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_connected(&replica);
    let load = Load::start(&master, both_databases());
    load.wait_more(500);
    let (full, partial) = (replica.full_syncs(), replica.partial_syncs());
    let (sent_full, sent_partial) = (master.stat("sync_full"), master.stat("sync_partial_ok"));
    for _ in 0..3 {
        link.cut();
        load.wait_more(500);
        wait_for("the link to be seen as down", DEADLINE, || !replica.replication().is_connected());
        link.restore();
        wait_connected(&replica);
    }
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs of the replica");
    assert_eq!(master.stat("sync_full"), sent_full, "full syncs of the master");
    assert!(replica.partial_syncs() > partial, "partial syncs of the replica");
    assert!(master.stat("sync_partial_ok") > sent_partial, "partial syncs of the master");
}

/// A network that swallows packets: no end of a connection is told, only silence shows it.
#[test]
fn a_silent_link_is_noticed() {
    let master = small().start();
    let replica = small().start();
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_connected(&replica);
    master.run("SET k before").expect_ok();
    wait_synced(&master, &replica);
    let full = replica.full_syncs();
    link.stall();
    master.run("SET k meanwhile").expect_ok();
    wait_for("the replica to notice the silence", DEADLINE, || !replica.replication().is_connected());
    assert_eq!(replica.run("GET k"), Reply::bulk("before"));
    wait_for("the master to notice the silence", DEADLINE, || master.replication().number("connected_slaves") == 0);
    link.restore();
    wait_synced(&master, &replica);
    assert_eq!(replica.run("GET k"), Reply::bulk("meanwhile"));
    assert_eq!(replica.full_syncs(), full, "full syncs");
}

/// An idle link stays up: keepalives do it.
#[test]
fn a_quiet_master_keeps_its_replica() {
    let master = small().start();
    let replica = small().start();
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_connected(&replica);
    wait_caught_up(&master, &replica);
    let partial = replica.partial_syncs();
    let offset = crate::common::ports::REPLICATION;
    let (down, up) = (link.bytes_down(offset), link.bytes_up(offset));
    wait_for("traffic both ways without writes", DEADLINE, || {
        assert!(replica.replication().is_connected(), "an idle link was dropped");
        link.bytes_down(offset) > down + 100 && link.bytes_up(offset) > up
    });
    assert_eq!(replica.partial_syncs(), partial);
}

/// The oldest binlog file a node keeps of each slot, by the slot's folder.
fn oldest_logs(node: &Node) -> Vec<(String, u64)> {
    let mut oldest: Vec<(String, u64)> = Vec::new();
    for path in files_under(&node.data_dir().join(Path::new("binlog"))) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        let (Some(dir), Ok(number)) = (path.parent(), digits.parse::<u64>()) else {
            continue;
        };
        let dir = dir.display().to_string();
        match oldest.iter_mut().find(|(known, _)| *known == dir) {
            Some((_, least)) => *least = number.min(*least),
            None => oldest.push((dir, number)),
        }
    }
    oldest
}

#[test]
fn a_log_purged_meanwhile_means_a_full_sync() {
    let mut rng = rng();
    let options = || {
        small()
            .set("databases", 1)
            .set("binlog-file-size", "64K")
            .set("expire-logs-nums", 1)
            .set("write-buffer-size", "256K")
    };
    let master = options().start();
    let replica = options().start();
    let link = Link::to(&master);
    fill(&master, 0, "first", 100, 100, &mut rng);
    replica.slaveof(link.port());
    wait_synced(&master, &replica);
    let full = replica.full_syncs();
    link.cut();
    let newest = master.replication().positions().values().map(|(file, _)| *file).max();
    let newest = newest.expect("positions");
    let mut round = 0;
    wait_for("the files the replica needs to be purged", DEADLINE, || {
        fill(&master, 0, &format!("round{round}:"), 500, 500, &mut rng);
        round += 1;
        let oldest = oldest_logs(&master);
        !oldest.is_empty() && oldest.iter().all(|(_, file)| *file > newest)
    });
    link.restore();
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), full + 2, "one a slot");
    assert!(master.stat("sync_partial_err") >= 2, "the master said that the files are gone");
}

/// A master keeps the files that a replica it hears from still needs.
#[test]
fn a_slow_replica_is_not_purged_away() {
    let options = || {
        small()
            .set("databases", 1)
            .set("binlog-file-size", "64K")
            .set("expire-logs-nums", 1)
            .set("write-buffer-size", "256K")
    };
    let master = options().start();
    let replica = options().start();
    replica.slaveof(master.port());
    wait_connected(&replica);
    let full = replica.full_syncs();
    let load = LoadOptions {
        threads: 2,
        pipeline: 200,
        value_len: 1000,
        pace: std::time::Duration::ZERO,
        ..LoadOptions::default()
    };
    let load = Load::start(&master, load);
    load.wait_more(30_000);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs");
}
