//! Every step against the disk, made to fail or to be the last that the process does.
//!
//! [`points`] says under what work each step is met, [`rig`] and [`starts`] do that work and look afterwards, [`ledger`] holds what
//! was acknowledged. Several nodes at a time: `HAYPILE_FAILPOINTS=binlog::` strikes only at the points whose names contain that.

#[path = "../common/mod.rs"]
mod common;

mod arming;
mod ledger;
mod panics;
mod points;
mod rig;
mod starts;
mod two_logs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use points::{Fault, Scenario};
use rig::{CHAIN, Rig};

/// Chains of faults that run at one time.
const WORKERS: usize = 3;

/// A process is killed before and after each step, once for each kind of work that meets it.
#[test]
fn killed_at_every_step() {
    strike_all(points::kills(), true);
}

/// Each step fails, before it or after it, once for each kind of work that meets it.
#[test]
fn errors_at_every_step() {
    strike_all(points::errors(), false);
}

fn strike_all(faults: Vec<(Scenario, Fault)>, kills: bool) {
    let only = std::env::var("HAYPILE_FAILPOINTS").unwrap_or_default();
    let began = Instant::now();
    let mut rng = common::rng();
    let mut by_scenario: BTreeMap<Scenario, Vec<Fault>> = BTreeMap::new();
    for (scenario, fault) in faults.into_iter().filter(|(_, fault)| fault.name().contains(&only)) {
        by_scenario.entry(scenario).or_default().push(fault);
    }
    let points: BTreeSet<String> = by_scenario.values().flatten().map(Fault::name).collect();
    let struck: usize = by_scenario.values().map(Vec::len).sum();
    let chains = by_scenario.into_iter().flat_map(|(scenario, faults)| {
        let chains: Vec<_> = faults.chunks(CHAIN).map(|chain| (scenario, chain.to_vec())).collect();
        chains
    });
    let chains: VecDeque<_> = chains.map(|(scenario, chain)| (scenario, chain, rng.random::<u64>())).collect();
    let queue = Mutex::new(chains);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no panic under the lock").pop_front();
                    let Some((scenario, chain, seed)) = next else { return };
                    let strike = || strike_chain(scenario, &chain, kills, StdRng::seed_from_u64(seed));
                    // The other chains go on: one run shows all that is wrong.
                    if catch_unwind(strike).is_err() {
                        failed.lock().expect("no panic under the lock").push(scenario);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic under the lock");
    assert!(failed.is_empty(), "failed under {failed:?}; which faults they were stands above");
    let what = if kills { "kills" } else { "errors" };
    println!("{struck} {what} at {} failpoints in {} s", points.len(), began.elapsed().as_secs());
}

fn strike_chain(scenario: Scenario, chain: &[Fault], kills: bool, rng: StdRng) {
    if scenario == Scenario::FirstStart {
        for fault in chain {
            let _told = Told::of(scenario, fault);
            starts::first_start(fault, kills);
        }
        return;
    }
    let began = Instant::now();
    let mut rig = Rig::new(scenario, rng);
    for fault in chain {
        let told = Told::of(scenario, fault);
        match scenario {
            Scenario::Restart(leftover) => rig.restart(leftover, fault, kills),
            Scenario::Resume => rig.resume(fault, kills),
            _ if kills => rig.kill(fault),
            _ => rig.fail(fault),
        }
        drop(told);
    }
    rig.finish();
    println!("{scenario:?}: {} struck in {:.1} s", chain.len(), began.elapsed().as_secs_f32());
}

/// Says which fault it was when the test fails at it.
struct Told(String);

impl Told {
    fn of(scenario: Scenario, fault: &Fault) -> Told {
        Told(format!("{}={} under {scenario:?}", fault.name(), fault.action))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the fault: {}", self.0);
        }
    }
}
