//! Saves and what is restored from them: at the moment of the save, at later ones, and never from what is damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use crate::common::node::temp_dir;
use crate::common::{DEADLINE, Node, assert_sound, haypile, unix_ms, wait_for};
use crate::folders::{bgsave, files, flip, options, saves, write};

/// Runs `haypile restore` into a new folder; exit code, output and the folder.
fn restore(save: &Path, more: &[&str]) -> (i32, String, PathBuf, TempDir) {
    let parent = temp_dir();
    let dir = parent.path().join("restored");
    let mut args = vec!["restore".into(), save.as_os_str().to_owned(), "--dir".into(), dir.as_os_str().to_owned()];
    args.extend(more.iter().map(Into::into));
    let args: Vec<&std::ffi::OsStr> = args.iter().map(AsRef::as_ref).collect();
    let (code, out, err) = haypile(&args);
    (code, format!("{out}{err}"), dir, parent)
}

/// A server on a restored folder, which is sound before.
fn serve(save: &Path, more: &[&str]) -> Node {
    let (code, out, dir, _parent) = restore(save, more);
    assert_eq!(code, 0, "{out}");
    assert_sound(&dir);
    let mut node = options().prepare();
    fs::remove_dir(node.data_dir()).expect("an empty folder");
    fs::rename(dir, node.data_dir()).expect("a rename");
    node.start_again();
    node
}

/// Lets a millisecond pass, so that what was done before can be told from what is done after.
fn moment() -> u64 {
    let now = unix_ms();
    wait_for("the next millisecond", DEADLINE, || unix_ms() > now + 1);
    now
}

#[test]
fn a_save_is_restored_as_it_was() {
    let node = options().start();
    write(&node);
    let digest = node.digest();
    bgsave(&node);
    node.run("FLUSHALL").expect_ok();
    let restored = serve(&saves(&node.data_dir())[0], &[]);
    assert_eq!(restored.digest(), digest);
    assert_eq!(restored.run("FCALL f 0").int(), 1);
    restored.run("SET new 1").expect_ok();
}

#[test]
fn any_later_moment_is_restored() {
    let node = options().start();
    write(&node);
    bgsave(&node);
    let mut conn = node.conn();
    let mut moments = Vec::new();
    for stage in 0..4 {
        conn.select(0);
        conn.run(&format!("MSET one s{stage} two s{stage} three s{stage} four s{stage}")).expect_ok();
        conn.run(&format!("RPUSH list {stage}")).int();
        conn.run(&format!("HSET hash stage {stage}")).int();
        // A database that the save knows nothing of, and one flush.
        conn.select(1);
        conn.run(&format!("SET stage{stage} {}", "x".repeat(300))).expect_ok();
        if stage == 2 {
            conn.run("FLUSHDB").expect_ok();
        }
        moments.push((moment(), node.digest()));
    }
    let save = &saves(&node.data_dir())[0];
    let binlog = node.data_dir().join("binlog").display().to_string();
    for (time, digest) in &moments {
        let restored = serve(save, &["--binlog", &binlog, "--until", &time.to_string()]);
        assert_eq!(restored.digest(), *digest, "at {time}");
    }
    let data = node.data_dir().display().to_string();
    assert_eq!(serve(save, &["--binlog", &data]).digest(), moments[3].1, "all there is, of a data folder");
}

#[test]
fn a_position_is_a_moment_too() {
    let node = options().start();
    write(&node);
    bgsave(&node);
    node.run("SET {a}1 before").expect_ok();
    moment();
    node.run("SET {b}1 before").expect_ok();
    moment();
    let slot = node.run("CLUSTER KEYSLOT {a}").int() * 2 / 16384;
    let positions = node.replication().positions().get(&*format!("db0:{slot}")).copied();
    let (filenum, offset) = positions.expect("the slot's position");
    moment();
    node.run("SET {a}1 after").expect_ok();
    node.run("SET {b}1 after").expect_ok();
    let data = node.data_dir().display().to_string();
    let save = &saves(&node.data_dir())[0];
    let until = format!("db0:{slot}@{filenum}:{offset}");
    let restored = serve(save, &["--binlog", &data, "--until", &until]);
    assert_eq!(restored.run("GET {a}1").text(), "before");
    let (code, out, dir, _parent) =
        restore(save, &["--binlog", &data, "--until", &format!("db0:{slot}@{filenum}:{}", offset - 1)]);
    assert!(code == 1 && out.contains("no record") && !dir.exists(), "{out}");
}

#[test]
fn a_save_under_load_holds_whole_writes_only() {
    let node = options().set("binlog-file-size", "64K").start();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (port, stop) = (node.port(), stop.clone());
            std::thread::spawn(move || {
                let mut conn = crate::common::Conn::to(port);
                let mut number = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let pairs: String = (0..6).map(|key| format!(" w{writer}:{key} {number}")).collect();
                    conn.run(&format!("MSET{pairs}")).expect_ok();
                }
                number
            })
        })
        .collect();
    for _ in 0..3 {
        bgsave(&node);
    }
    stop.store(true, Ordering::Relaxed);
    let written: Vec<u64> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    for save in saves(&node.data_dir()) {
        let restored = serve(&save, &[]);
        for (writer, written) in written.iter().enumerate() {
            let keys: String = (0..6).map(|key| format!(" w{writer}:{key}")).collect();
            let values = format!("{:?}", restored.run(&format!("MGET{keys}")).items());
            let first = restored.run(&format!("GET w{writer}:0"));
            let all_same = restored.run(&format!("MGET{keys}")).items().iter().all(|value| *value == first);
            assert!(all_same, "a part of a write of {written}: {values}");
        }
    }
}

#[test]
fn nothing_is_restored_from_what_is_damaged() {
    let node = options().start();
    write(&node);
    bgsave(&node);
    let save = saves(&node.data_dir()).remove(0);
    let sst = files(&save.join("db0/0/data"), ".sst").remove(0);
    let good = fs::read(&sst).expect("a file");
    // Hard links to what the server uses.
    fs::remove_file(&sst).expect("a removal");
    fs::write(&sst, &good).expect("a file");
    assert_eq!(restore(&save, &[]).0, 0);

    flip(&sst, good.len() / 2);
    let (code, out, dir, _parent) = restore(&save, &[]);
    assert!(code == 2 && out.contains("DAMAGED") && out.contains(".sst"), "{out}");
    assert!(!dir.exists() && !dir.with_file_name("restored.restoring").exists());
    fs::remove_file(&sst).expect("a removal");
    let (code, out, ..) = restore(&save, &[]);
    assert!(code == 2 && out.contains("is missing"), "{out}");
    fs::write(&sst, &good).expect("a file");

    let manifest = fs::read(save.join("MANIFEST")).expect("a manifest");
    flip(&save.join("MANIFEST"), manifest.len() / 2);
    let (code, out, ..) = restore(&save, &[]);
    assert!(code == 1 && out.contains("MANIFEST"), "{out}");
    fs::remove_file(save.join("MANIFEST")).expect("a removal");
    let (code, out, ..) = restore(&save, &[]);
    assert!(code == 1 && out.contains("is no save"), "{out}");
    fs::write(save.join("MANIFEST"), &manifest).expect("a manifest");

    let (code, out, ..) = restore(&save, &["--until", "2001-01-01"]);
    assert!(code == 1 && out.contains("an earlier save is needed"), "{out}");
    let (code, out, ..) = restore(&save, &["--binlog", "/nowhere"]);
    assert!(code == 1 && out.contains("/nowhere"), "{out}");
    let (code, _, dir, _parent) = restore(&save, &[]);
    assert_eq!(code, 0);
    let (again, out, _) = haypile(&["restore".as_ref(), save.as_os_str(), "--dir".as_ref(), dir.as_os_str()]);
    assert!(again == 1, "{out}");
}

#[test]
fn damage_in_a_binlog_is_found() {
    let node = options().start();
    write(&node);
    bgsave(&node);
    for n in 0..60 {
        node.run(&format!("SET k{n} {}", "x".repeat(50))).expect_ok();
    }
    let save = saves(&node.data_dir()).remove(0);
    let parent = temp_dir();
    let copy = parent.path().join("binlog");
    crate::folders::copy_into(&node.data_dir().join("binlog"), &copy);
    let binlog = copy.display().to_string();
    assert_eq!(restore(&save, &["--binlog", &binlog]).0, 0);
    let log = fs::read_dir(copy.join("db0/1")).expect("a folder").next().expect("a log").expect("a log").path();
    let all = files(&log, "binlog.");
    flip(&all[all.len() - 2], 200);
    let (code, out, dir, _parent) = restore(&save, &["--binlog", &binlog]);
    assert!(code == 2 && out.contains("offset") && !dir.exists(), "{out}");
}
