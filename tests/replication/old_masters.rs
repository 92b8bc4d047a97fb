//! Masters that come back with writes that nobody else has: their own records are kept in files, every acknowledged one of
//! them, and their data become those of the new master.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use haypile::binlog::{self, RecordStream, decode_body};

use crate::common::node::files_under;
use crate::common::{Conn, DEADLINE, Link, Node, NodeOptions, Reply, wait_connected, wait_for, wait_synced};
use crate::small;

/// Files so small that what parts goes over several.
fn short_files() -> NodeOptions {
    small().set("binlog-file-size", "4K").set("repl-timeout", 2)
}

/// Writes `{prefix}:{n}` with rising n, to both databases in turn, until it is refused.
struct Writer {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(node: &Node, prefix: &str) -> Writer {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (acknowledged.clone(), stop.clone());
        let mut conn = node.conn();
        let prefix = prefix.to_string();
        let thread = thread::spawn(move || {
            let value = "v".repeat(100);
            for n in 0.. {
                if stopped.load(Ordering::SeqCst) || write(&mut conn, n, &prefix, &value).is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Writer { acknowledged, stop, thread }
    }

    fn wait_more(&self, writes: usize) {
        let goal = self.acknowledged.load(Ordering::SeqCst) + writes;
        wait_for("the writer to get on", DEADLINE, || self.acknowledged.load(Ordering::SeqCst) >= goal);
    }

    /// How many writes were acknowledged, once it has ended by itself.
    fn refused(self) -> usize {
        self.thread.join().expect("a writer");
        self.acknowledged.load(Ordering::SeqCst)
    }

    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.refused()
    }
}

fn write(conn: &mut Conn, n: usize, prefix: &str, value: &str) -> std::io::Result<()> {
    conn.try_call(&["SELECT", &(n % 2).to_string()])?;
    match conn.try_call(&["SET", &format!("{prefix}:{n}"), value])? {
        Reply::Simple(_) => Ok(()),
        refused => Err(std::io::Error::other(format!("{refused:?}"))),
    }
}

/// The keys that the records of a saved file set. Every record is checked; the file is a binlog like any other.
fn keys_in(tail: &Path) -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(tail, binlog::file_path(folder.path(), 0)).expect("a copy");
    let mut stream = RecordStream::open_whole(folder.path(), 0, true).expect("a binlog file");
    let mut keys = BTreeSet::new();
    while let Some(record) = stream.next_record().expect("whole records") {
        let (_, mut effects) = decode_body(record.body).expect("a body");
        let mut args = Vec::new();
        while effects.next_into(&mut args).expect("effects") {
            if args[0] == b"SET" {
                keys.insert(String::from_utf8_lossy(args[1]).into_owned());
            }
        }
    }
    keys
}

fn saved_tails(node: &Node) -> Vec<PathBuf> {
    files_under(&node.data_dir().join("diverged"))
}

/// Every acknowledged write of an old master is on its new one or in a saved file, none of which came later than it was said.
#[track_caller]
fn expect_nothing_lost(old: &Node, new: &Node, prefix: &str, acknowledged: usize) {
    let saved: BTreeSet<String> = saved_tails(old).iter().flat_map(|tail| keys_in(tail)).collect();
    let mut conn = new.conn();
    let mut lost = Vec::new();
    for n in 0..acknowledged {
        let key = format!("{prefix}:{n}");
        if !saved.contains(&key) {
            conn.select(n % 2);
            if conn.call(&["GET", &key]) == Reply::Nil {
                lost.push(n);
            }
        }
    }
    assert!(lost.is_empty(), "acknowledged and neither replicated nor saved, of {acknowledged}: {lost:?}");
    assert!(!saved.is_empty(), "nothing was saved");
}

/// A's files of what it wrote alone, as INFO and the log name them.
#[track_caller]
fn expect_named(node: &Node, slots: usize) {
    let seen = node.replication();
    let named = seen.groups("diverged_tail");
    assert_eq!(named.len(), slots, "{}", seen.text);
    let log = node.output();
    for (_, path) in named {
        assert!(Path::new(path).exists() || node.data_dir().join(path).exists(), "{path}");
        assert!(log.contains(path), "{path} is not in the log");
    }
}

/// A is cut off while it takes writes, and still takes them when it is told to follow B.
#[test]
fn cut_off_and_told_to_follow_under_load() {
    let [a, b, c] = [short_files().start(), short_files().start(), short_files().start()];
    let link = Link::to(&a);
    for replica in [&b, &c] {
        replica.slaveof(link.port());
        wait_connected(replica);
    }
    let on_a = Writer::start(&a, "a");
    on_a.wait_more(200);
    link.cut();
    on_a.wait_more(1000);
    b.slaveof_no_one();
    let full = c.full_syncs();
    let on_b = Writer::start(&b, "b");
    on_b.wait_more(200);
    c.slaveof(b.port());
    on_a.wait_more(100);
    a.slaveof(b.port());
    let acknowledged = on_a.refused();
    wait_connected(&a);
    on_b.wait_more(200);
    on_b.stop();
    wait_synced(&b, &a);
    expect_named(&a, 4);
    expect_nothing_lost(&a, &b, "a", acknowledged);
    assert_eq!(a.full_syncs(), 4, "one a slot");
    // C may have had records of A that B had not: then it has saved them, and taken those slots whole. Else it went on.
    wait_synced(&b, &c);
    let parted = c.replication().groups("diverged_tail").len() as u64;
    assert_eq!(c.full_syncs(), full + parted, "full syncs of C beyond what had parted");
}

/// A third node goes from the old master to the new one without a full sync when both have the same of the old one.
#[test]
fn the_others_go_on_from_where_they_are() {
    let [a, b, c] = [short_files().start(), short_files().start(), short_files().start()];
    let link = Link::to(&a);
    for replica in [&b, &c] {
        replica.slaveof(link.port());
        wait_connected(replica);
    }
    let on_a = Writer::start(&a, "shared");
    on_a.wait_more(300);
    on_a.stop();
    wait_synced(&a, &b);
    wait_synced(&a, &c);
    link.cut();
    let alone = Writer::start(&a, "a");
    alone.wait_more(500);
    b.slaveof_no_one();
    let full = c.full_syncs();
    c.slaveof(b.port());
    let on_b = Writer::start(&b, "b");
    on_b.wait_more(300);
    a.slaveof(b.port());
    let acknowledged = alone.refused();
    wait_connected(&a);
    on_b.stop();
    wait_synced(&b, &a);
    wait_synced(&b, &c);
    expect_nothing_lost(&a, &b, "a", acknowledged);
    assert_eq!(c.full_syncs(), full, "full syncs of C");
    assert!(saved_tails(&c).is_empty());
}

/// Killed instead of cut off, each of two in turn, twice.
#[test]
fn killed_twice_in_a_row() {
    let mut nodes = [short_files().start(), short_files().start()];
    nodes[1].slaveof(nodes[0].port());
    wait_connected(&nodes[1]);
    for round in 0..4 {
        let (old, new) = (round % 2, (round + 1) % 2);
        wait_synced(&nodes[old], &nodes[new]);
        // Its replica is gone before it writes on alone.
        nodes[new].kill9();
        let prefix = format!("round{round}");
        let alone = Writer::start(&nodes[old], &prefix);
        alone.wait_more(300);
        nodes[old].kill9();
        let acknowledged = alone.refused();
        nodes[new].start_again();
        nodes[new].slaveof_no_one();
        let writer = Writer::start(&nodes[new], &format!("new{round}"));
        writer.wait_more(300);
        let files = saved_tails(&nodes[old]).len();
        nodes[old].start_again();
        nodes[old].slaveof(nodes[new].port());
        wait_connected(&nodes[old]);
        writer.stop();
        wait_synced(&nodes[new], &nodes[old]);
        assert_eq!(saved_tails(&nodes[old]).len(), files + 4, "a file a slot and time");
        expect_nothing_lost(&nodes[old], &nodes[new], &prefix, acknowledged);
    }
}
