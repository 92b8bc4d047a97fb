//! Power cuts: one run under load on a disk that remembers what was synced, cut at many points; a node is started on what each
//! cut leaves.

use rand::RngExt;
use rand::rngs::StdRng;

use super::history::{History, SLOTS, Writers, options, slot_of};
use crate::common::{DEADLINE, Node, NodeOptions, PowerCut, Survivors, rng, wait_for, wait_synced};

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

#[track_caller]
fn expect_open(node: &Node, what: &str) {
    let info = node.run("INFO persistence").text();
    assert!(info.contains("slots_read_only:0\r\n"), "{what}: {info}");
}

fn expect_whole(node: &Node, history: &History, durable: Option<u64>, what: &str) {
    expect_open(node, what);
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

/// What a replica has acknowledged is as durable as its own `sync` promises.
#[test]
fn a_power_cut_of_a_replica_takes_nothing_that_it_acknowledged() {
    let mut rng = rng();
    let mut master = options("everysec").start();
    let mut replica = options("always").traced_disk().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    let writers = Writers::through(&master, &replica);
    wait_for("writes", DEADLINE, || writers.written() >= WRITES / 4);
    master.kill9();
    let history = writers.stop();
    replica.kill9();
    let trace = replica.disk().trace();
    drop((master, replica));
    let mut cut = PowerCut::new(&trace);
    for at in moments(&trace, cuts() / 2, &mut rng) {
        cut.advance(at);
        let (survivors, seed) = (Survivors::Random { block: 4096 }, rng.random());
        let what = format!("replica, cut at {at} of {}, {survivors:?}, seed {seed}", trace.len());
        println!("{what}");
        let node = reopen(options("always"), &cut, survivors, seed);
        if let Err(why) = history.verify_slots(&node, Some(at)) {
            panic!("{what}: {why}");
        }
        expect_open(&node, &what);
    }
}

/// A full sync that a power cut ends leaves each slot its old data or the new.
#[test]
fn a_power_cut_in_a_full_sync_leaves_old_or_new() {
    const KEYS: usize = 300;
    let mut rng = rng();
    let set_all = |node: &Node, value: &str| {
        let mut conn = node.conn();
        let commands: Vec<Vec<String>> =
            (0..KEYS).map(|n| ["SET", &format!("k{n}"), value].map(String::from).to_vec()).collect();
        conn.pipeline(&commands).iter().for_each(|reply| reply.expect_ok());
    };
    let master = options("everysec").start();
    set_all(&master, "new");
    let mut replica = options("always").traced_disk().start();
    set_all(&replica, "old");
    let begin = replica.disk().now();
    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", master.port())).expect_ok();
    wait_synced(&master, &replica);
    replica.kill9();
    let trace = replica.disk().trace();
    // Nobody is to heal what is started on the cuts.
    drop((master, replica));
    let mut cut = PowerCut::new(&trace);
    let mut seen = [0, 0];
    let chosen = moments(&trace[begin as usize..], cuts(), &mut rng).into_iter().map(|at| at + begin);
    for at in chosen.chain([trace.len() as u64]) {
        cut.advance(at);
        let (survivors, seed) = (Survivors::Random { block: 4096 }, rng.random());
        let what = format!("full sync, cut at {at} of {begin} to {}, {survivors:?}, seed {seed}", trace.len());
        println!("{what}");
        let node = reopen(options("always"), &cut, survivors, seed);
        expect_open(&node, &what);
        let mut conn = node.conn();
        let mut by_slot: [Option<String>; SLOTS] = Default::default();
        for n in 0..KEYS {
            let key = format!("k{n}");
            let held = conn.call(&["GET", &key]).text();
            let known = by_slot[slot_of(&key)].get_or_insert(held.clone());
            assert_eq!(*known, held, "{what}: {key} is not of the same data as others of its slot");
        }
        for held in by_slot.iter().flatten() {
            seen[usize::from(held == "new")] += 1;
        }
    }
    assert!(seen[1] > 0, "the last cut shows the new data: {seen:?}");
}
