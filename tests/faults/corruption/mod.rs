//! Damaged files: found by checksum, told with file and offset, never served, and on a replica healed by a full sync of the slot alone.

mod binlog;
mod data;
mod state_files;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::common::node::files_under;
use crate::common::{Conn, DEADLINE, Node, NodeOptions, Reply, wait_for};

/// One database of two slots.
fn two_slots() -> NodeOptions {
    NodeOptions::new().set("databases", 1).set("slot-num", 2)
}

/// Hash tags whose keys live in slots 0 and 1 (of two): hash slots 3443 and 12182.
const TAGS: [&str; 2] = ["{user1000}", "{foo}"];
/// Bytes of a value.
const VALUE_LEN: usize = 150;

fn key(slot: usize, n: usize) -> String {
    format!("{}:{n:06}", TAGS[slot])
}

/// What a key holds: nothing that a compressor could shorten much, and another value for each.
fn value(slot: usize, n: usize) -> Vec<u8> {
    let mut state = (slot as u64 + 1) << 32 | (n as u64 + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'!' + (state % 90) as u8
    };
    (0..VALUE_LEN).map(|_| next()).collect()
}

/// Writes these keys of a slot, some at a time: what is sent together is together in the log.
fn write(node: &Node, slot: usize, keys: std::ops::Range<usize>) {
    const TOGETHER: usize = 20;
    let mut conn = node.conn();
    let all: Vec<usize> = keys.collect();
    for some in all.chunks(TOGETHER) {
        for n in some {
            conn.push(&[b"SET".as_slice(), key(slot, *n).as_bytes(), &value(slot, *n)]);
        }
        conn.flush();
        some.iter().for_each(|_| conn.read().expect_ok());
    }
}

fn get(conn: &mut Conn, slot: usize, n: usize) -> Reply {
    conn.call(&["GET", &key(slot, n)])
}

/// Panics unless the node holds these keys of a slot as they were written.
#[track_caller]
fn expect_all(node: &Node, slot: usize, keys: std::ops::Range<usize>) {
    let mut conn = node.conn();
    for n in keys {
        assert_eq!(get(&mut conn, slot, n), Reply::Bulk(value(slot, n)), "{}", key(slot, n));
    }
}

/// Panics unless writes to the slot are refused, with a reason that contains `reason`.
#[track_caller]
fn expect_refused(node: &Node, slot: usize, reason: &str) {
    let refused = node.conn().call(&["SET", &key(slot, 999_999), "x"]);
    let text = refused.error_text();
    assert!(text.starts_with("MISCONF") && text.contains(reason), "{text}\nshould contain: {reason}");
}

/// Panics unless the slot takes writes.
#[track_caller]
fn expect_writable(node: &Node, slot: usize) {
    node.conn().call(&["SET", &key(slot, 999_998), "x"]).expect_ok();
    node.conn().call(&["DEL", &key(slot, 999_998)]);
}

/// Waits until a replica has taken so many slots whole since its start.
#[track_caller]
fn wait_full_syncs(replica: &Node, count: u64) {
    wait_for("full syncs of slots", DEADLINE, || replica.full_syncs() >= count);
}

/// The fault that INFO persistence shows, if it shows one.
fn fault(node: &Node) -> Option<String> {
    node.info("persistence").remove("slot_fault")
}

fn engine_dir(node: &Node, slot: usize) -> PathBuf {
    only_dir(&node.data_dir().join(format!("db/db0/{slot}")), "engine-")
}

fn log_dir(node: &Node, slot: usize) -> PathBuf {
    only_dir(&node.data_dir().join(format!("binlog/db0/{slot}")), "log-")
}

/// The one folder in `dir` with this prefix.
#[track_caller]
fn only_dir(dir: &Path, prefix: &str) -> PathBuf {
    let found = dirs(dir, prefix);
    assert_eq!(found.len(), 1, "{prefix} in {}: {found:?}", dir.display());
    found[0].clone()
}

fn dirs(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|p| p.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).collect()
}

/// The largest table file of a slot's engine.
#[track_caller]
fn largest_table(node: &Node, slot: usize) -> PathBuf {
    let tables = files_under(&engine_dir(node, slot)).into_iter().filter(|p| p.extension().is_some_and(|e| e == "sst"));
    tables.max_by_key(|p| fs::metadata(p).map_or(0, |m| m.len())).expect("a table file")
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").len()
}

/// Changes one bit of a file.
fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("a file to damage");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x40], offset).expect("a byte");
}

/// Overwrites a part of a file.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file to damage");
    file.write_all_at(bytes, offset).expect("bytes");
}

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(len)).expect("a file to cut");
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Copies a folder, in the place of what is there.
fn copy_dir(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for file in files_under(from) {
        let target = to.join(file.strip_prefix(from).expect("a file under it"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(&file, &target).expect("a copy");
    }
}
