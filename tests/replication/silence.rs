//! Links that are cut, fall silent, or are open at one end only: noticed on both sides, and gone on from without a full sync.

use std::time::Duration;

use rand::RngExt;

use crate::common::link::{Fault, Kind, Link, Schedule, Way, Wires};
use crate::common::{DEADLINE, Load, LoadOptions, Node, rng, wait_connected, wait_for, wait_synced};
use crate::small;

fn pair() -> (Node, Node, Link) {
    let watchful = || small().set("repl-timeout", 2);
    let (master, replica) = (watchful().start(), watchful().start());
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_connected(&replica);
    (master, replica, link)
}

fn both_databases() -> LoadOptions {
    LoadOptions { databases: 2, ..LoadOptions::default() }
}

fn is_forgotten(master: &Node) -> bool {
    master.replication().number("connected_slaves") == 0
}

/// Cut for so long that the master has forgotten its replica, and all it kept for it.
#[test]
fn a_cut_longer_than_the_keepalive() {
    let (master, replica, link) = pair();
    let full = replica.full_syncs();
    let load = Load::start(&master, both_databases());
    for _ in 0..2 {
        link.cut();
        wait_for("the master to forget its replica", DEADLINE, || is_forgotten(&master));
        load.wait_more(500);
        link.restore();
        wait_connected(&replica);
    }
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs");
}

/// One direction goes dead while the other one works, in each way that this can happen; then all works again.
#[test]
fn half_open_connections() {
    let (master, replica, link) = pair();
    let (full, mut joined) = (replica.full_syncs(), replica.partial_syncs());
    let load = Load::start(&master, both_databases());
    for fault in [Fault::Stall, Fault::HalfClose] {
        for way in [Way::Up, Way::Down] {
            link.inject(fault, Wires::replication().only(way));
            if fault == Fault::Stall {
                let what = format!("the replica to notice {fault:?} {way:?}");
                wait_for(&what, DEADLINE, || !replica.replication().is_connected());
                wait_for("the master to notice it", DEADLINE, || is_forgotten(&master));
            }
            link.restore();
            wait_for("the replica to join again", DEADLINE, || replica.partial_syncs() > joined);
            wait_connected(&replica);
            joined = replica.partial_syncs();
            load.wait_more(200);
        }
    }
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs");
}

/// Twenty seconds of faults from a seed, in the end nothing is lost and nothing was taken whole.
#[test]
fn twenty_seconds_of_a_bad_network() {
    let (master, replica, link) = pair();
    let full = replica.full_syncs();
    let load = Load::start(&master, both_databases());
    let kinds = [Kind::Cut, Kind::Cut, Kind::Delay, Kind::Throttle, Kind::Stall, Kind::HalfClose];
    let schedule = Schedule::of(&kinds, rng().random(), Duration::from_secs(20));
    link.play(schedule).wait();
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&master);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs");
}
