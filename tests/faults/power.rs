//! Power cuts: one run under load on a disk that remembers what was synced, cut at many points; a node is started on what each
//! cut leaves.

use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use super::history::{History, Writers, options};
use crate::common::{DEADLINE, Node, NodeOptions, PowerCut, Survivors, rng, wait_for};

/// Acknowledged writes of a run.
const WRITES: u64 = 4000;
/// Cuts of a run; `HAYPILE_TEST_CUTS` for more.
const CUTS: usize = 12;

fn cuts() -> usize {
    std::env::var("HAYPILE_TEST_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CUTS)
}

/// A node's run under load up to a SIGKILL: the trace and the writers' history.
fn run(node: &mut Node) -> (Vec<u8>, History) {
    let writers = Writers::start(node);
    wait_for("writes", DEADLINE, || writers.written() >= WRITES);
    node.kill9();
    (node.disk().trace(), writers.stop())
}

/// Moments to cut at, rising: half of them any, half of them when names change or something is synced.
fn moments(trace: &[u8], count: usize, rng: &mut StdRng) -> Vec<u64> {
    let all = PowerCut::moments(trace);
    let special: Vec<u64> = all.iter().filter(|(_, write)| !write).map(|(at, _)| *at).collect();
    let mut chosen: Vec<u64> = (0..count)
        .map(|nth| match nth % 2 {
            0 => all[rng.random_range(0..all.len())].0,
            _ => special[rng.random_range(0..special.len())],
        })
        .collect();
    chosen.sort_unstable();
    chosen
}

/// A node started on what a cut leaves. It must come up by itself, with no slot closed.
fn reopen(options: NodeOptions, cut: &PowerCut<'_>, survivors: Survivors, seed: u64) -> Node {
    let mut node = options.faulty_disk().prepare();
    cut.rebuild(&node.data_dir(), survivors, seed);
    node.start_again();
    node
}

fn expect_whole(node: &Node, history: &History, durable: Option<u64>, what: &str) {
    let info = node.run("INFO persistence").text();
    assert!(info.contains("slots_read_only:0\r\n"), "{what}: {info}");
    if let Err(why) = history.verify(node, durable) {
        panic!("{what}: {why}");
    }
}

/// Cuts a run of a master with this `sync` at many points.
fn cut_master(sync: &str) {
    let mut rng = rng();
    let mut node = options(sync).traced_disk().start();
    let (trace, history) = run(&mut node);
    // A killed process loses nothing, whatever `sync` says.
    let end = trace.len() as u64;
    node.start_again();
    expect_whole(&node, &history, Some(end), "after SIGKILL");
    drop(node);
    let mut cut = PowerCut::new(&trace);
    for (nth, at) in moments(&trace, cuts(), &mut rng).into_iter().enumerate() {
        cut.advance(at);
        let survivors = [
            Survivors::Random { block: 4096 },
            Survivors::Nothing,
            Survivors::Random { block: 512 },
            Survivors::Random { block: 4096 },
            Survivors::Everything,
        ][nth % 5];
        let seed = rng.random();
        let durable = (sync == "always").then_some(at);
        let what = format!("sync {sync}, cut at {at} of {end}, {survivors:?}, seed {seed}");
        println!("{what}");
        let mut node = reopen(options(sync), &cut, survivors, seed);
        expect_whole(&node, &history, durable, &what);
        if nth % 4 == 0 {
            // What recovery did is durable itself.
            node.run("SET after cut").expect_ok();
            let digest = node.digest();
            node.crash();
            assert_eq!(node.digest(), digest, "{what}: a second start finds the same");
        }
    }
}

#[test]
fn a_power_cut_with_sync_always_takes_nothing_acknowledged() {
    cut_master("always");
}

#[test]
fn a_power_cut_with_sync_everysec_leaves_a_prefix() {
    cut_master("everysec");
}

#[test]
fn a_power_cut_with_sync_no_leaves_a_prefix() {
    cut_master("no");
}

#[allow(dead_code)]
fn unused(_: &Path) {}
