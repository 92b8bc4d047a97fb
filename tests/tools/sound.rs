//! What is sound is found sound, and left as it is.

use std::fs;
use std::path::Path;

use crate::common::{DEADLINE, Node, NodeOptions, assert_sound, fill, haypile, rng, wait_for, wait_synced};
use crate::folders::{bgsave, engine_dir, image, killed, options, saves, write};

fn check(path: &Path) -> (i32, String, String) {
    haypile(&["check".as_ref(), path.as_os_str()])
}

/// The number under `totals` in `check --json`.
fn totals(path: &Path) -> serde_json::Value {
    let (_, out, _) = haypile(&["check".as_ref(), "--json".as_ref(), path.as_os_str()]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(document["sound"], true, "{out}");
    document["totals"].clone()
}

#[test]
fn a_killed_servers_folder_is_sound_and_stays_as_it_is() {
    let data = killed();
    let before = image(data.path());
    let (code, out, err) = check(data.path());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("\nthe next start replays 4") && out.ends_with("\nsound\n"), "{out}");
    let (folders, save) = (data.path(), saves(data.path()).remove(0));
    for part in [
        folders.join("binlog"),
        folders.join("binlog/db0/1"),
        folders.join("db/db0/0"),
        engine_dir(folders, 0, 0),
        folders.join("dump"),
        save.clone(),
        save.join("db0/1"),
    ] {
        assert_sound(&part);
    }
    assert!(image(data.path()) == before, "something changed");
    assert!(totals(&save)["keys"].as_u64() > Some(10));
}

#[test]
fn a_clean_end_leaves_nothing_to_replay() {
    let mut node = options().start();
    write(&node);
    assert!(node.terminate().success());
    let (code, out, err) = check(&node.data_dir());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("\nsound\n"), "{out}");
}

#[test]
fn paths_from_a_conf_file() {
    let mut node = options().set("db-path", "../elsewhere/db").set("binlog-path", "../elsewhere/binlog").start();
    write(&node);
    assert!(node.terminate().success());
    let conf = node.dir().join("other.conf");
    fs::write(&conf, "db-path : ../elsewhere/db\nbinlog-path : ../elsewhere/binlog\n").expect("a conf file");
    let data = node.data_dir();
    let (code, out, err) = haypile(&["check".as_ref(), data.as_os_str(), "--conf".as_ref(), conf.as_os_str()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("2 slots"), "{out}");
}

#[test]
fn not_while_a_server_runs() {
    let node = options().start();
    write(&node);
    bgsave(&node);
    for part in ["", "db/db0/0", "binlog"] {
        let (code, out, err) = check(&node.data_dir().join(part));
        assert_eq!((code, out.as_str()), (1, ""), "{part}: {err}");
        assert!(err.contains(&format!("(process {})", node.pid())) && err.contains("shutdown"), "{err}");
    }
    assert_sound(&saves(&node.data_dir())[0]);
    // What is no such folder is said to be none.
    let (code, _, err) = check(&node.dir().join("no-such-folder"));
    assert!(code == 1 && err.contains("no-such-folder"), "{err}");
    let (code, _, err) = check(&node.conf_path());
    assert!(code == 1 && err.contains("not a folder"), "{err}");
    let empty = node.dir().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let (code, _, err) = check(&empty);
    assert!(code == 1 && err.contains("neither a data folder"), "{err}");
    assert_eq!(haypile(&["check"]).0, 1, "a wrong command line");
    assert_eq!(haypile(&["check", "--help"]).0, 0);
}

/// A log that begins in the middle, what a full sync was interrupted in, functions, swapped databases.
#[test]
fn a_replicas_folder() {
    let mut rng = rng();
    let mut master = options().set("binlog-file-size", "100M").start();
    write(&master);
    fill(&master, 0, "filler", 300, 4000, &mut rng);
    master.run("SWAPDB 0 1").expect_ok();
    let mut replica = options().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    write(&master);
    wait_synced(&master, &replica);
    assert!(replica.terminate().success());
    assert_sound(&replica.data_dir());
    // The hole is passed over.
    let log = replica.data_dir().join("binlog/db0");
    let (code, out, err) = haypile(&["binlog".as_ref(), "stat".as_ref(), log.as_os_str()]);
    assert!(code == 0 && err.is_empty() && !out.contains("positions 0:64"), "{out}");

    // Killed in the middle of a full sync.
    let mut other = options().set("throttle-bytes-per-second", "100K").start();
    other.slaveof(master.port());
    let listing = other.data_dir().join("dbsync/db0/0/LISTING");
    let second = other.data_dir().join("dbsync/db0/1/LISTING");
    wait_for("a full sync to begin", DEADLINE, || listing.exists() || second.exists());
    other.kill9();
    let (code, out, err) = check(&other.data_dir());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("a full sync on its way in") && out.contains("takes its master's data whole"), "{out}");
    for listing in [&listing, &second].into_iter().filter(|listing| listing.exists()) {
        fs::write(listing, "haypile listing 1\n").expect("a write");
    }
    let (code, out, _) = check(&other.data_dir());
    assert!(code == 0 && out.contains("listing of a full sync cannot be used"), "{out}");
    assert!(master.terminate().success());
    assert_sound(&master.data_dir());
}

/// What was deleted and not yet dropped is no damage, before and after the compaction that drops it.
#[test]
fn expired_and_deleted_collections() {
    let mut node = NodeOptions::new().set("databases", 1).set("slot-num", 1).start();
    write(&node);
    let mut conn = node.conn();
    for kind in ["SADD s:{n} 1 2 3", "ZADD z:{n} 1 a 2 b", "HSET h:{n} f v g w", "RPUSH l:{n} a b"] {
        for n in 0..20 {
            let line = kind.replace("{n}", &n.to_string());
            conn.run(&line).int();
            let key = line.split(' ').nth(1).expect("a key").to_string();
            if n % 2 == 0 {
                conn.call(&["DEL", &key]).int();
            } else {
                conn.call(&["PEXPIRE", &key, "1"]).int();
            }
        }
    }
    drop(conn);
    assert!(node.terminate().success());
    let orphans = |node: &Node| totals(&node.data_dir())["orphans"].as_u64();
    assert!(orphans(&node) > Some(50), "{:?}", orphans(&node));
    node.start_again();
    wait_for("the expired keys to go", DEADLINE, || node.run("DBSIZE").int() < 20);
    assert!(node.terminate().success());
    assert_sound(&node.data_dir());
}
