//! Folders that a real server wrote, with everything in them that can be; made once, copied for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::common::node::temp_dir;
use crate::common::{DEADLINE, Node, NodeOptions, unix_ms, wait_for};

pub const SLOTS: usize = 2;

/// Something of every type, expiries, a collection that was deleted, binary keys, writes over both slots.
pub const WRITES: &[&str] = &[
    "MSET one 1 two 2 three 3 four 4",
    "SET \"bin\\x00\\xffary\" \"va\\\"l\\nue \\xfe\"",
    "SET soon v PX 1",
    "SET later v EX 100000",
    "HSET hash f1 v1 f2 v2 f3 v3",
    "HEXPIRE hash 100000 FIELDS 2 f1 f2",
    "HEXPIRE hash 200000 FIELDS 1 f2",
    "RPUSH list a b c d e",
    "LPUSH list z",
    "LPOP list",
    "SADD set m1 m2 m3",
    "ZADD zset 1 a -2.5 b 3 c 3 d",
    "ZINCRBY zset 5 a",
    "XADD stream 1-1 f v",
    "XADD stream 2-1 f v g w",
    "XADD stream 3-1 f v",
    "XDEL stream 2-1",
    "XGROUP CREATE stream group 0",
    "XREADGROUP GROUP group alice COUNT 1 STREAMS stream >",
    "XREADGROUP GROUP group bob COUNT 1 STREAMS stream >",
    "SETRANGE chunked 70000 end",
    "APPEND chunked more",
    "SADD gone 1 2 3",
    "DEL gone",
    "EVAL \"redis.call('set', KEYS[1], 1) redis.call('incr', KEYS[1])\" 1 scripted",
    "FUNCTION LOAD REPLACE \"#!lua name=lib\\nredis.register_function('f', function() return 1 end)\"",
];

/// Settings under which a log of a few records has several files.
pub fn options() -> NodeOptions {
    NodeOptions::new()
        .set("databases", 2)
        .set("slot-num", SLOTS)
        .set("binlog-file-size", "1K")
        .set("expire-logs-nums", 1000)
}

/// A data folder of a server that was stopped once, went on writing, and was killed; with a save in it.
pub fn killed() -> TempDir {
    // In memory: what is static is not cleaned up.
    static MADE: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    let folder = temp_dir();
    for (path, bytes) in MADE.get_or_init(make_killed) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    folder
}

fn make_killed() -> Vec<(PathBuf, Vec<u8>)> {
    let mut node = options().start();
    write(&node);
    bgsave(&node);
    node.restart();
    let mut conn = node.conn();
    conn.select(1);
    conn.run("SET other database").expect_ok();
    for n in 0..40 {
        conn.select(0);
        conn.run(&format!("SET after{n} {}", "x".repeat(60))).expect_ok();
    }
    conn.run("SADD set m4").int();
    conn.run("MSET one 10 two 20 three 30 four 40").expect_ok();
    node.kill9();
    let data = node.data_dir();
    let below = |path: PathBuf| path.strip_prefix(&data).expect("a file of the folder").to_path_buf();
    image(&data).into_iter().map(|(path, bytes)| (below(path), bytes)).collect()
}

/// Runs [`WRITES`].
pub fn write(node: &Node) {
    let mut conn = node.conn();
    for line in WRITES {
        let reply = conn.run(line);
        assert!(!reply.is_error(), "{line}: {reply:?}");
    }
    let until = unix_ms() + 5;
    wait_for("a key to expire", DEADLINE, || unix_ms() > until);
}

pub fn bgsave(node: &Node) {
    let before = saves(&node.data_dir()).len();
    node.run("BGSAVE");
    wait_for("the save", DEADLINE, || saves(&node.data_dir()).len() > before);
}

/// The finished saves of a data folder.
pub fn saves(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("dump")).into_iter().flatten().flatten();
    let mut saves: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    saves.retain(|path| !path.ends_with("sync") && path.extension().is_none());
    saves.sort();
    saves
}

pub fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// The folder of the log in use.
pub fn log_dir(data: &Path, db: usize, slot: usize) -> PathBuf {
    only_folder(&data.join(format!("binlog/db{db}/{slot}")))
}

/// The folder of the engine in use.
pub fn engine_dir(data: &Path, db: usize, slot: usize) -> PathBuf {
    only_folder(&data.join(format!("db/db{db}/{slot}")))
}

#[track_caller]
fn only_folder(dir: &Path) -> PathBuf {
    let folders: Vec<PathBuf> =
        fs::read_dir(dir).expect("a folder").flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

/// Files of a folder with this ending or beginning of their names, in order.
pub fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).expect("a folder").flatten().map(|e| e.path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)));
    files.sort();
    files
}

/// Inverts a byte.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 0xff;
    fs::write(path, bytes).expect("a write");
}

/// Every file with its contents, to see whether anything changed.
pub fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = crate::common::node::files_under(dir);
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}
