//! Bytes that change on the way, on any port and in any direction: refused and asked for again, never believed.

use std::io::Write;
use std::net::TcpStream;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::common::link::{Fault, Link, Way, Wires};
use crate::common::{
    DEADLINE, Load, LoadOptions, Node, NodeOptions, fill, rng, wait_connected, wait_equal_digest, wait_for, wait_synced,
};
use crate::fake::FakeReplica;
use crate::small;
use tonic::Code;

fn watchful() -> NodeOptions {
    small().set("repl-timeout", 2)
}

fn pair() -> (Node, Node, Link) {
    let (master, replica) = (watchful().start(), watchful().start());
    let link = Link::to(&master);
    (master, replica, link)
}

/// Under load, at a rate: in whatever message or frame it happens, the replica ends with its master's data, and
/// nothing makes it take them whole.
#[test]
fn flips_on_the_replication_port() {
    let (master, replica, link) = pair();
    replica.slaveof(link.port());
    wait_connected(&replica);
    let (full, given) = (replica.full_syncs(), master.stat("sync_full"));
    let load = Load::start(&master, LoadOptions { databases: 2, ..LoadOptions::default() });
    for (way, one_in) in [(Way::Down, 200_000), (Way::Up, 30_000)] {
        let (flips, goal) = (link.flips(), link.flips() + 6);
        link.inject(Fault::FlipRate { one_in }, Wires::replication().only(way));
        wait_for("bytes to be changed", DEADLINE, || link.flips() >= goal);
        link.restore();
        wait_connected(&replica);
        println!("{way:?}: {} bytes changed", link.flips() - flips);
    }
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!((replica.full_syncs(), master.stat("sync_full")), (full, given), "full syncs");
    assert!(!replica.replication().text.contains("diverged_tail"), "nothing parted");
}

/// One byte anywhere in what is said when a connection begins: MetaSync, TrySync, the first records.
#[test]
fn one_byte_of_a_conversation() {
    let (master, replica, link) = pair();
    let mut rng = rng();
    fill(&master, 0, "k", 50, 100, &mut rng);
    replica.slaveof(link.port());
    wait_synced(&master, &replica);
    let full = replica.full_syncs();
    let load = Load::start(&master, LoadOptions { databases: 2, ..LoadOptions::default() });
    for _ in 0..8 {
        let way = if rng.random() { Way::Up } else { Way::Down };
        let after = rng.random_range(0..2500);
        println!("byte {after} {way:?}");
        link.cut();
        let goal = link.flips() + 1;
        link.inject(Fault::FlipAt { after }, Wires::replication().only(way));
        link.restore_cut();
        wait_for("the byte to be changed", DEADLINE, || link.flips() >= goal);
    }
    wait_connected(&replica);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs");
    assert!(!replica.replication().text.contains("diverged_tail"), "nothing parted");
}

/// Every byte of every call in turn: position, token, slot, address. None is believed, and nothing is registered or forgotten by it.
#[test]
fn every_byte_of_every_call() {
    let master = watchful().set("repl-timeout", 60).start();
    master.run("SET k v").expect_ok();
    let fake = FakeReplica::join(&master, 1);
    let before = (master.stat("sync_partial_ok"), master.stat("sync_partial_err"), master.stat("sync_full"));
    let answers = fake.damaged_calls(0, 0);
    assert!(answers.len() > 300, "{} bytes", answers.len());
    let believed: Vec<_> = answers.iter().filter(|(_, code)| *code != Code::DataLoss).collect();
    assert!(believed.is_empty(), "{believed:?}");
    let after = (master.stat("sync_partial_ok"), master.stat("sync_partial_err"), master.stat("sync_full"));
    assert_eq!(after, before);
    assert_eq!(master.replication().number("connected_slaves"), 1);
}

#[test]
fn flips_in_a_full_sync() {
    let (master, replica, link) = pair();
    let mut rng = rng();
    fill(&master, 0, "k", 300, 40_000, &mut rng);
    link.inject(Fault::FlipRate { one_in: 2_000_000 }, Wires::snapshot().only(Way::Down));
    link.inject(Fault::FlipAt { after: rng.random_range(0..2000) }, Wires::snapshot().only(Way::Up));
    link.inject(Fault::FlipAt { after: rng.random_range(0..4_000_000) }, Wires::snapshot().only(Way::Down));
    replica.slaveof(link.port());
    wait_for("both bytes to be changed", DEADLINE, || link.flips() >= 2);
    wait_synced(&master, &replica);
    println!("{} bytes changed", link.flips());
}

/// Nothing protects what a client sends; whatever a master makes of it, its replica has the same.
#[test]
fn flips_on_the_client_port() {
    let (master, replica, link) = pair();
    replica.slaveof(master.port());
    wait_connected(&replica);
    let mut rng = rng();
    link.inject(Fault::FlipRate { one_in: 300 }, Wires::port(0));
    let goal = link.flips() + 300;
    while link.flips() < goal {
        write_through(&link, &mut rng);
    }
    link.restore();
    wait_synced(&master, &replica);
    wait_equal_digest(&master, &replica);
}

/// Some commands whose replies nobody reads.
fn write_through(link: &Link, rng: &mut StdRng) {
    let mut stream = TcpStream::connect(("127.0.0.1", link.port())).expect("a connection");
    for _ in 0..20 {
        let (key, value) = (rng.random_range(0..1000), rng.random_range(0..1_000_000));
        let command = format!("*3\r\n$3\r\nSET\r\n$4\r\n{key:04}\r\n$6\r\n{value:06}\r\n");
        if stream.write_all(command.as_bytes()).is_err() {
            return;
        }
    }
}
