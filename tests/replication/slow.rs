//! Replicas that take slowly, nothing, or acknowledge nothing: the master's memory stays bounded, its clients do not notice.

use std::fs;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use haypile::binlog::Position;
use haypile::snapshot::proto::rsync_client::RsyncClient;
use haypile::snapshot::proto::{FileRequest, RsyncRequest, StatusCode, Type};
use nix::sys::signal::Signal;

use crate::common::link::{Fault, Link, Way, Wires};
use crate::common::ports::SNAPSHOT;
use crate::common::{
    DEADLINE, Load, LoadOptions, Node, NodeOptions, Reply, fill, rng, wait_connected, wait_for, wait_some, wait_synced,
};
use crate::fake::FakeReplica;
use crate::small;

/// One slot, and little memory but for what replicas take.
fn lean() -> NodeOptions {
    let one = NodeOptions::new().set("databases", 1).set("slot-num", 1).set("repl-timeout", 3);
    one.set("cache", 0).set("block-cache", "1M").set("write-buffer-size", "1M").set("max-write-buffer-size", "4M")
}

/// What the master says of its first replica's bytes on the way.
fn in_flight(master: &Node) -> u64 {
    master.replication().number("slave0_in_flight")
}

fn fake_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn large_values() -> LoadOptions {
    let pace = Duration::ZERO;
    LoadOptions { threads: 2, pipeline: 16, keys: 40, value_len: 64 << 10, pace, ..LoadOptions::default() }
}

#[test]
fn a_replica_that_takes_nothing_costs_no_more_than_the_limit() {
    let limit: u64 = 2 << 20;
    let master = lean().set("sync-window-bytes", limit).start();
    master.run("SET warm up").expect_ok();
    let fake = FakeReplica::join(&master, fake_port());
    let _stream = fake.stream(0, 0);
    let load = Load::start(&master, large_values());
    // So that what writing itself takes is in the first number.
    load.wait_more(500);
    let before = master.resident_memory();
    let mut most = 0;
    for _ in 0..20 {
        // 100 values of 64 KiB.
        load.wait_more(100);
        most = most.max(in_flight(&master));
    }
    let grown = master.resident_memory().saturating_sub(before);
    let acked = load.stop();
    // One message of a slot may go beyond the limit, by a record.
    assert!(most <= limit + (256 << 10) + (65 << 10), "{most} bytes on the way");
    assert!(grown < 64 << 20, "memory grew by {grown} bytes while some 125 MB were written");
    acked.verify(&master);
    wait_for("the master to give it up", DEADLINE, || master.replication().number("connected_slaves") == 0);
    assert!(!master.replication().text.contains("_in_flight"), "nothing is left of it");
}

#[test]
fn a_replica_that_reads_all_and_acknowledges_nothing_is_given_up() {
    let limit: u64 = 1 << 20;
    let master = lean().set("sync-window-bytes", limit).start();
    master.run("SET warm up").expect_ok();
    let fake = FakeReplica::join(&master, fake_port());
    let mut stream = fake.stream(0, 0);
    fill(&master, 0, "k", 4000, 1000, &mut rng());
    let mut came = 0;
    while let Some(message) = fake.next(&mut stream) {
        came += message.binlog.len() as u64;
        assert!(came <= limit + (256 << 10) + 2000, "{came} bytes came unacknowledged");
    }
    assert!(came > 0, "something was sent");
    assert_eq!(master.run("WAIT 1 1"), Reply::Int(0));
}

/// What was never sent cannot be acknowledged: it would unpin the log, and WAIT would lie.
#[test]
fn an_acknowledgement_of_what_was_not_sent_is_not_believed() {
    let master = lean().set("sync-window-size", 1).start();
    for i in 0..10 {
        master.run(&format!("SET k{i} v")).expect_ok();
    }
    let refusals = || master.output().matches("not believed").count();
    let wrong: [fn(Position) -> Position; 4] = [
        |p| Position { index: 1000, ..p },
        |p| Position { filenum: 7, ..p },
        |p| Position { offset: p.offset + (1 << 20), ..p },
        |p| Position { index: p.index - 1, ..p },
    ];
    for (nth, wrong) in wrong.into_iter().enumerate() {
        let fake = FakeReplica::join(&master, fake_port());
        let mut stream = fake.stream(0, 0);
        let first = wait_some("records", DEADLINE, || {
            let message = fake.next(&mut stream).expect("a message");
            (!message.binlog.is_empty()).then(|| Position::from(&message.binlog_offset))
        });
        assert_eq!(first.index, 1, "the window is one record");
        fake.ack(&stream, 0, 0, first);
        // Acknowledged: the second record is on its way.
        wait_some("the next record", DEADLINE, || {
            let message = fake.next(&mut stream).expect("a message");
            (!message.binlog.is_empty()).then_some(())
        });
        fake.ack(&stream, 0, 0, wrong(first));
        wait_for("the master to say that it is wrong", DEADLINE, || refusals() == nth + 1);
        let mut conn = master.conn();
        assert_eq!(conn.run("SET waited v"), Reply::ok());
        assert_eq!(conn.run("WAIT 1 1"), Reply::Int(0));
        wait_for("the stream to end", DEADLINE, || fake.next(&mut stream).is_none());
    }
}

/// A file that is not taken holds no thread of its master, and a replica may have no more than 64 open.
#[test]
fn files_that_nobody_takes_starve_nobody() {
    // What takes the files says nothing else, and threads that wait for work go after 10 s: it must not be given up.
    let master = lean().set("repl-timeout", 3600).start();
    // Files of several MB, so that a stream of one fills all that is between master and replica.
    fill(&master, 0, "k", 400, 64 << 10, &mut rng());
    let fake = FakeReplica::join(&master, fake_port());
    fake.db_sync(0, 0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = format!("http://127.0.0.1:{}", master.port() + SNAPSHOT);
    // So much that no stream keeps another one from its share of the connection.
    let endpoint = tonic::transport::Endpoint::from_shared(address).expect("an address");
    let endpoint = endpoint.initial_connection_window_size(64 << 20).initial_stream_window_size(64 << 10);
    let channel = runtime.block_on(endpoint.connect()).expect("a connection");
    let client = || RsyncClient::new(channel.clone()).max_decoding_message_size(16 << 20);
    let request = |file_req: Option<FileRequest>| RsyncRequest {
        r#type: if file_req.is_some() { Type::KRsyncFile } else { Type::KRsyncMeta }.into(),
        reader_index: 0,
        db_name: "db0".into(),
        slot_id: 0,
        file_req,
        token: Some(fake.token.clone()),
        snapshot_uuid: None,
    };
    let listing = wait_some("a snapshot", DEADLINE, || {
        let reply = runtime.block_on(client().meta(request(None))).expect("a reply").into_inner();
        (reply.code() == StatusCode::KOk).then_some(reply.meta_resp).flatten()
    });
    let largest = listing.files.iter().max_by_key(|file| file.size).expect("files");
    assert!(largest.size > 3 << 20, "{} bytes", largest.size);
    let threads = || fs::read_dir(format!("/proc/{}/task", master.pid())).expect("threads").count();
    let before = threads();
    let wanted = || FileRequest { filename: largest.filename.clone(), count: 0, offset: 0 };
    let mut streams: Vec<_> = (0..64)
        .map(|_| runtime.block_on(client().file(request(Some(wanted())))).expect("a stream").into_inner())
        .collect();
    for stream in &mut streams {
        runtime.block_on(stream.message()).expect("a message").expect("the first one");
    }
    let refused = runtime.block_on(client().file(request(Some(wanted())))).expect_err("one too many");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    wait_for("the reading to be over", DEADLINE, || threads() < before + 32);

    let replica = lean().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), 1);
    drop(streams);
    let again = || runtime.block_on(client().file(request(Some(wanted())))).is_ok();
    wait_for("those that left to be forgotten", DEADLINE, again);
}

/// A stopped process: its kernel still answers for it.
#[test]
fn a_replica_that_stands_still() {
    let (master, replica) = (small().set("repl-timeout", 2).start(), small().set("repl-timeout", 2).start());
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    let full = replica.full_syncs();
    let load = Load::start(&master, LoadOptions { databases: 2, ..LoadOptions::default() });
    load.wait_more(500);
    replica.signal(Signal::SIGSTOP);
    wait_for("the master to give it up", DEADLINE, || {
        load.wait_more(100);
        master.replication().number("connected_slaves") == 0
    });
    load.wait_more(500);
    replica.signal(Signal::SIGCONT);
    load.wait_more(500);
    let acked = load.stop();
    wait_synced(&master, &replica);
    acked.verify(&replica);
    assert_eq!(replica.full_syncs(), full, "full syncs");
}

/// A link slower than its writers: what waits must not choke the keepalives, or it would be given up again and again.
#[test]
fn a_slow_link_stays_up() {
    let (master, replica) = (lean().start(), lean().start());
    let link = Link::to(&master);
    replica.slaveof(link.port());
    wait_synced(&master, &replica);
    let joined = replica.partial_syncs();
    link.inject(Fault::Throttle { bytes_per_second: 300_000 }, Wires::replication().only(Way::Down));
    // Some 9 s of that link, three times as long as a silence may be.
    fill(&master, 0, "k", 2700, 1000, &mut rng());
    wait_connected(&replica);
    wait_synced(&master, &replica);
    assert_eq!(replica.partial_syncs(), joined, "it was given up on the way");
    assert!(link.bytes_down(crate::common::ports::REPLICATION) > 2_700_000);
}
