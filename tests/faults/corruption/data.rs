//! Damaged files of the engines: table files, MANIFEST, CURRENT.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::common::{wait_connected, wait_some, wait_synced};

/// Keys of each slot: some dozens of blocks of a table file.
const KEYS: usize = 2000;

/// No entry is in memory but what RocksDB reads, and of that little.
fn options() -> NodeOptions {
    two_slots().set("cache", 0).set("block-cache", "1M")
}

/// A node with its keys in table files and out of memory.
fn filled() -> Node {
    let node = options().start();
    (0..2).for_each(|slot| write(&node, slot, 0..KEYS));
    node.run("DEBUG RELOAD").expect_ok();
    node
}

/// Flips a bit in the middle of the keys of a slot, and returns the file.
fn damage_keys(node: &Node, slot: usize) -> PathBuf {
    let table = largest_table(node, slot);
    flip(&table, len_of(&table) / 3);
    table
}

/// Reads all keys of a slot. Each is right, or an error that names the file: so many.
#[track_caller]
fn errors_of(node: &Node, slot: usize, table: &Path) -> usize {
    let mut conn = node.conn();
    let mut errors = 0;
    for n in 0..KEYS {
        match get(&mut conn, slot, n) {
            Reply::Error(text) => {
                assert!(text.contains(&name_of(table)) && text.contains("offset"), "{text}");
                errors += 1;
            }
            right => assert_eq!(right, Reply::Bulk(value(slot, n)), "{}", key(slot, n)),
        }
    }
    errors
}

#[test]
fn a_master_with_a_damaged_table_answers_what_it_can_and_nothing_wrong() {
    let node = filled();
    let table = damage_keys(&node, 0);
    assert_eq!(fault(&node), None, "nobody has looked");
    let errors = errors_of(&node, 0, &table);
    assert!((1..KEYS / 4).contains(&errors), "{errors} errors");
    let shown = fault(&node).expect("a fault");
    assert!(shown.starts_with("db0:0 ") && shown.contains(&name_of(&table)) && shown.contains("offset"), "{shown}");
    assert!(node.output().contains("data on disk are damaged"), "it is in the log");
    expect_refused(&node, 0, &name_of(&table));
    // A write of both slots is refused as a whole.
    let both = node.conn().call(&["MSET", &key(0, 0), "x", &key(1, 0), "x"]);
    assert!(both.error_text().starts_with("MISCONF"), "{both:?}");
    // What goes through all keys does not end early.
    for command in ["DBSIZE", "KEYS *", "DEBUG DIGEST", "SAVE", "RANDOMKEY", "FLUSHALL"] {
        match node.run(command) {
            Reply::Error(text) => assert!(text.contains(&name_of(&table)), "{command}: {text}"),
            // It looks at one place only.
            found if command == "RANDOMKEY" => assert!(!found.is_nil()),
            other => panic!("{command}: {other:?}"),
        }
    }
    let mut conn = node.conn();
    let (mut cursor, mut seen) = ("0".to_string(), 0);
    let broken = loop {
        match conn.call(&["SCAN", &cursor, "COUNT", "100"]) {
            Reply::Error(text) => break text,
            page => {
                cursor = page.items()[0].text();
                seen += page.items()[1].items().len();
                assert_ne!(cursor, "0", "SCAN came to an end with {seen} keys");
            }
        }
    };
    assert!(broken.contains(&name_of(&table)), "{broken}");
    assert_eq!(errors_of(&node, 1, &table), 0);
    expect_writable(&node, 1);
}

#[test]
fn a_damaged_collection_is_not_taken_for_a_shorter_one() {
    let node = options().start();
    let hash = key(0, 0);
    let mut conn = node.conn();
    for n in 0..KEYS {
        conn.push(&[b"HSET".as_slice(), hash.as_bytes(), n.to_string().as_bytes(), &value(0, n)]);
    }
    conn.flush();
    (0..KEYS).for_each(|_| assert_eq!(conn.read(), Reply::Int(1)));
    node.run("DEBUG RELOAD").expect_ok();
    let table = damage_keys(&node, 0);
    for command in ["HGETALL", "HVALS", "HKEYS", "DUMP"] {
        let reply = conn.call(&[command, &hash]);
        assert!(reply.error_text().contains(&name_of(&table)), "{command}: {reply:?}");
    }
    // The connection is in step: nothing of the replies was sent before the errors.
    assert_eq!(conn.call(&["HLEN", &hash]), Reply::Int(KEYS as i64));
    let mut errors = 0;
    for n in 0..KEYS {
        match conn.call(&["HGET", &hash, &n.to_string()]) {
            Reply::Error(_) => errors += 1,
            right => assert_eq!(right, Reply::Bulk(value(0, n)), "field {n}"),
        }
    }
    assert!((1..KEYS / 4).contains(&errors), "{errors} errors");
    let mut cursor = "0".to_string();
    loop {
        match conn.call(&["HSCAN", &hash, &cursor, "COUNT", "50"]) {
            Reply::Error(text) => break assert!(text.contains(&name_of(&table)), "{text}"),
            page => cursor = page.items()[0].text(),
        }
        assert_ne!(cursor, "0", "HSCAN came to an end");
    }
    // What would read it to write it is refused too, and leaves nothing behind.
    assert!(conn.call(&["COPY", &hash, &key(0, 1)]).is_error());
    assert_eq!(get(&mut conn, 0, 1), Reply::Nil);
}

#[test]
fn a_compaction_that_meets_damage_closes_the_slot() {
    let node = filled();
    // A second file over the same keys.
    write(&node, 0, 0..KEYS);
    node.run("DEBUG RELOAD").expect_ok();
    let table = damage_keys(&node, 0);
    node.run("COMPACT");
    let shown = wait_some("a fault", DEADLINE, || fault(&node));
    assert!(shown.contains(&name_of(&table)), "{shown}");
    expect_refused(&node, 0, &name_of(&table));
    errors_of(&node, 0, &table);
    expect_writable(&node, 1);
}

#[test]
fn damaged_data_go_to_no_replica() {
    let master = filled();
    let old = options().start();
    old.slaveof(master.port());
    wait_synced(&master, &old);
    let table = damage_keys(&master, 0);
    // Nobody has read it: the snapshot must not be given unseen.
    let new = options().start();
    new.slaveof(master.port());
    let reason = wait_some("a reason", DEADLINE, || {
        let replication = new.replication();
        let reason =
            replication.text.lines().find(|line| line.starts_with("db0:0_repl")).unwrap_or_default().to_string();
        reason.contains(&name_of(&table)).then_some(reason)
    });
    assert!(reason.contains("damaged") || reason.contains("Corruption"), "{reason}");
    wait_for("slot 1 to be connected", DEADLINE, || {
        let replication = new.replication();
        replication.states().iter().any(|(slot, state)| (*slot, *state) == ("db0:1", "Connected"))
    });
    assert_eq!(new.full_syncs(), 1);
    assert!(fault(&master).expect("a fault").contains(&name_of(&table)));
    // The replica that was there before keeps what it has, and is the one to promote.
    (0..2).for_each(|slot| expect_all(&old, slot, 0..KEYS));
    old.slaveof_no_one();
    (0..2).for_each(|slot| expect_writable(&old, slot));
    // The damaged node as its replica: slot 0 heals, slot 1 goes on.
    master.slaveof(old.port());
    wait_full_syncs(&master, 1);
    wait_synced(&old, &master);
    assert_eq!(master.full_syncs(), 1);
    assert_eq!(fault(&master), None);
    (0..2).for_each(|slot| expect_all(&master, slot, 0..KEYS));
}

#[test]
fn a_running_replica_heals_its_damaged_slot_alone() {
    let master = filled();
    let replica = options().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), 2);
    let partial = replica.partial_syncs();
    replica.run("DEBUG RELOAD").expect_ok();
    let damaged = engine_dir(&replica, 1);
    let table = damage_keys(&replica, 1);
    // Whatever is read until it is healed is right or an error.
    wait_for("a full sync of the damaged slot", DEADLINE, || {
        errors_of(&replica, 1, &table);
        replica.full_syncs() == 3
    });
    wait_synced(&master, &replica);
    assert_eq!((replica.full_syncs(), replica.partial_syncs()), (3, partial + 1), "the other slot is not disturbed");
    assert_eq!(fault(&replica), None);
    assert!(replica.output().contains("data on disk are damaged"));
    wait_for("the damaged engine to go", DEADLINE, || !damaged.exists());
    write(&master, 1, KEYS..KEYS + 10);
    wait_synced(&master, &replica);
    expect_all(&replica, 1, 0..KEYS + 10);
}

/// A way to damage the files of an engine at rest so that it cannot be opened.
type Spoil = (&'static str, fn(&Node));

fn manifest(node: &Node) -> PathBuf {
    let files = files_under(&engine_dir(node, 0));
    files.into_iter().find(|p| name_of(p).starts_with("MANIFEST")).expect("a MANIFEST")
}

const SPOILS: &[Spoil] = &[
    ("no MANIFEST", |node| fs::remove_file(manifest(node)).expect("removed")),
    ("an empty MANIFEST", |node| cut(&manifest(node), 0)),
    ("a flipped MANIFEST", |node| flip(&manifest(node), 20)),
    ("a CURRENT of rubbish", |node| {
        fs::write(engine_dir(node, 0).join("CURRENT"), "rubbish").expect("written");
    }),
    ("no CURRENT", |node| fs::remove_file(engine_dir(node, 0).join("CURRENT")).expect("removed")),
    ("a table without its footer", |node| {
        let table = largest_table(node, 0);
        cut(&table, len_of(&table) - 10);
    }),
    ("a table with a flipped footer", |node| {
        let table = largest_table(node, 0);
        flip(&table, len_of(&table) - 4);
    }),
    ("no folder", |node| fs::remove_dir_all(engine_dir(node, 0)).expect("removed")),
];

#[test]
fn a_master_starts_without_a_slot_that_cannot_be_opened() {
    let mut node = filled();
    let mut other = options().start();
    other.slaveof(node.port());
    wait_synced(&node, &other);
    assert!(other.terminate().success() && node.terminate().success());
    let image = node.dir().join("image");
    copy_dir(&node.data_dir(), &image);
    for (what, spoil) in SPOILS {
        println!("--- {what}");
        copy_dir(&image, &node.data_dir());
        spoil(&node);
        node.start_again();
        let shown = fault(&node).unwrap_or_else(|| panic!("no fault: {what}"));
        assert!(shown.starts_with("db0:0 ") && shown.contains("engine-"), "{shown}");
        expect_refused(&node, 0, "engine-");
        let mut conn = node.conn();
        for refused in [
            get(&mut conn, 0, 1),
            get(&mut conn, 0, KEYS + 1),
            conn.call(&["EXISTS", &key(0, 1)]),
            conn.call(&["LRANGE", &key(0, 1), "0", "-1"]),
            conn.run("DBSIZE"),
            conn.run("KEYS *"),
            conn.run("SAVE"),
            conn.run("FLUSHALL"),
            conn.run("DEBUG DIGEST"),
        ] {
            assert!(refused.error_text().contains("engine-"), "{refused:?}");
        }
        expect_all(&node, 1, 0..KEYS);
        expect_writable(&node, 1);
        assert!(node.terminate().success());
    }
    // Its replica keeps what it has, until it is promoted; then it gives the lost slot back.
    node.start_again();
    other.start_again();
    wait_for("slot 1 to be connected", DEADLINE, || {
        let replication = other.replication();
        replication.states().iter().any(|(slot, state)| (*slot, *state) == ("db0:1", "Connected"))
    });
    expect_all(&other, 0, 0..KEYS);
    other.slaveof_no_one();
    node.slaveof(other.port());
    wait_full_syncs(&node, 1);
    wait_connected(&node);
    assert_eq!(fault(&node), None);
    expect_all(&node, 0, 0..KEYS);
    only_dir(&node.data_dir().join("db/db0/0"), "engine-");
    // It was a master: what its log says, which could not be looked through, is kept.
    only_dir(&node.data_dir().join("binlog/db0/0"), "damaged-");
}

/// The first slot holds the map of databases for the whole node.
#[test]
fn without_the_first_slot_databases_are_not_mistaken_for_each_other() {
    let mut node = options().set("databases", 2).start();
    let mut conn = node.conn();
    for db in 0..2 {
        conn.select(db);
        (0..2).for_each(|slot| conn.call(&["SET", &key(slot, 0), &format!("written to {db}")]).expect_ok());
    }
    conn.run("SWAPDB 0 1").expect_ok();
    assert!(node.terminate().success());
    // Of the first database on disk, which clients call 1 now.
    cut(&manifest(&node), 0);
    node.start_again();
    let mut conn = node.conn();
    conn.select(0);
    (0..2).for_each(|slot| assert_eq!(get(&mut conn, slot, 0), Reply::bulk("written to 1")));
    conn.select(1);
    assert!(get(&mut conn, 0, 0).error_text().starts_with("MISCONF"));
    assert_eq!(get(&mut conn, 1, 0), Reply::bulk("written to 0"));
    assert!(conn.run("SWAPDB 0 1").error_text().starts_with("MISCONF"));
}

#[test]
fn a_replica_heals_a_slot_that_cannot_be_opened() {
    let master = filled();
    let mut replica = options().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    for (what, spoil) in [SPOILS[1], SPOILS[7]] {
        println!("--- {what}");
        assert!(replica.terminate().success());
        spoil(&replica);
        replica.start_again();
        wait_full_syncs(&replica, 1);
        wait_synced(&master, &replica);
        assert_eq!((replica.full_syncs(), fault(&replica)), (1, None));
        (0..2).for_each(|slot| expect_all(&replica, slot, 0..KEYS));
        only_dir(&replica.data_dir().join("db/db0/0"), "engine-");
        only_dir(&replica.data_dir().join("binlog/db0/0"), "log-");
    }
}
