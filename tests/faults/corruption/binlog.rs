//! Binlogs that are damaged at a start, and under a running server.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::common::{wait_caught_up, wait_connected, wait_synced};

/// Keys of each slot: several files of log.
const KEYS: usize = 300;

fn small_files() -> NodeOptions {
    two_slots().set("binlog-file-size", "8K")
}

/// Where the records of a file begin, and where the last one ends.
fn records(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).expect("a binlog");
    let mut at = u64::from_le_bytes(bytes[16..24].try_into().expect("8 bytes")) as usize;
    let mut starts = vec![at as u64];
    while at < bytes.len() {
        at += 36 + u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
        starts.push(at as u64);
    }
    starts
}

fn files(node: &Node, slot: usize) -> Vec<PathBuf> {
    let mut files = files_under(&log_dir(node, slot));
    // Beside them lies the mark of what is durable.
    files.retain(|path| name_of(path).starts_with("binlog."));
    files
}

/// What a damage comes to.
enum Then {
    /// All keys of slot 0 but so many at the end are there, and the slot takes writes.
    Lacks(usize),
    /// Slot 0 is read-only, with this file in the reason; what it serves is right.
    Fault(String),
}

/// A damage to the log of slot 0, whose files are given, with those of slot 1.
type Case = (&'static str, fn(&[PathBuf], &[PathBuf]) -> Then);

const CASES: &[Case] = &[
    ("one byte of the last record is missing", |files, _| {
        let last = files.last().expect("a file");
        cut(last, len_of(last) - 1);
        Then::Lacks(1)
    }),
    ("one byte of the last record is there", |files, _| {
        let last = files.last().expect("a file");
        let starts = records(last);
        cut(last, starts[starts.len() - 2] + 1);
        Then::Lacks(1)
    }),
    ("the last record was never written back", |files, _| {
        let last = files.last().expect("a file");
        let starts = records(last);
        let from = starts[starts.len() - 2];
        overwrite(last, from, &vec![0; (len_of(last) - from) as usize]);
        Then::Lacks(1)
    }),
    ("rubbish behind the last record", |files, _| {
        let last = files.last().expect("a file");
        overwrite(last, len_of(last), b"rubbish that is longer than the header of a record is");
        Then::Lacks(0)
    }),
    ("a bit of a value in the middle", |files, _| {
        let starts = records(&files[2]);
        flip(&files[2], starts[3] + 100);
        Then::Fault(format!("{}: offset {}", name_of(&files[2]), starts[3]))
    }),
    ("a bit of a record's header in the last file", |files, _| {
        let last = files.last().expect("a file");
        let starts = records(last);
        flip(last, starts[1] + 9);
        Then::Fault(format!("{}: offset {}", name_of(last), starts[1]))
    }),
    ("a record's length", |files, _| {
        let starts = records(&files[1]);
        overwrite(&files[1], starts[2], &[0xff, 0xff, 0xff, 0x3f]);
        Then::Fault(format!("{}: offset {}", name_of(&files[1]), starts[2]))
    }),
    ("the last record of a file that is not the last", |files, _| {
        let starts = records(&files[1]);
        let last = starts[starts.len() - 2];
        flip(&files[1], last + 50);
        Then::Fault(format!("{}: offset {last}", name_of(&files[1])))
    }),
    ("a file is missing", |files, _| {
        fs::remove_file(&files[2]).expect("removed");
        Then::Fault(name_of(&files[3]))
    }),
    ("the first file is missing", |files, _| {
        fs::remove_file(&files[0]).expect("removed");
        Then::Fault("begins with file 1".into())
    }),
    ("two files are swapped", |files, _| {
        let aside = files[1].with_extension("aside");
        fs::rename(&files[1], &aside).expect("renamed");
        fs::rename(&files[2], &files[1]).expect("renamed");
        fs::rename(&aside, &files[2]).expect("renamed");
        Then::Fault(format!("{}: its header says file 2", name_of(&files[1])))
    }),
    ("a header of zeros", |files, _| {
        overwrite(&files[2], 0, &[0; 64]);
        Then::Fault(name_of(&files[2]))
    }),
    ("the last file's header of zeros", |files, _| {
        let last = files.last().expect("a file");
        overwrite(last, 0, &[0; 64]);
        Then::Fault(name_of(last))
    }),
    ("a file that is not the last is cut at a record", |files, _| {
        let starts = records(&files[1]);
        cut(&files[1], starts[4]);
        Then::Fault(name_of(&files[2]))
    }),
    ("a file that is not the last is cut in a record", |files, _| {
        let starts = records(&files[1]);
        cut(&files[1], starts[4] + 20);
        Then::Fault(format!("{}: offset {}", name_of(&files[1]), starts[4]))
    }),
    ("a file of another slot", |files, others| {
        fs::copy(&others[2], &files[2]).expect("copied");
        Then::Fault(name_of(&files[2]))
    }),
    ("a file that is no binlog", |files, _| {
        fs::write(&files[2], "What is this?".repeat(100)).expect("written");
        Then::Fault(name_of(&files[2]))
    }),
];

#[test]
fn a_master_starts_on_a_damaged_log_without_a_lie() {
    let mut node = small_files().start();
    (0..2).for_each(|slot| write(&node, slot, 0..KEYS));
    node.kill9();
    let image = node.dir().join("image");
    copy_dir(&node.data_dir(), &image);
    for (what, damage) in CASES {
        println!("--- {what}");
        copy_dir(&image, &node.data_dir());
        let logs = [files(&node, 0), files(&node, 1)];
        assert!(logs[0].len() > 4, "{} files", logs[0].len());
        let then = damage(&logs[0], &logs[1]);
        let left = files(&node, 0);
        let output = node.output().len();
        node.start_again();
        let said = node.output()[output..].to_string();
        expect_all(&node, 1, 0..KEYS);
        expect_writable(&node, 1);
        match then {
            Then::Lacks(lost) => {
                assert_eq!(fault(&node), None);
                expect_all(&node, 0, 0..KEYS - lost);
                let mut conn = node.conn();
                (KEYS - lost..KEYS).for_each(|n| assert_eq!(get(&mut conn, 0, n), Reply::Nil));
                expect_writable(&node, 0);
                assert!(
                    said.contains("cutting a torn tail") && said.contains(&name_of(&left[left.len() - 1])),
                    "{said}"
                );
            }
            Then::Fault(reason) => {
                let shown = fault(&node).unwrap_or_else(|| panic!("{what}: no fault"));
                assert!(shown.starts_with("db0:0 ") && shown.contains(&reason), "{shown}\nshould contain: {reason}");
                assert!(said.contains(&reason), "the log: {said}");
                expect_refused(&node, 0, &reason);
                let mut conn = node.conn();
                let served = (0..KEYS).take_while(|n| !get(&mut conn, 0, *n).is_nil()).count();
                expect_all(&node, 0, 0..served);
                (served..KEYS).for_each(|n| assert_eq!(get(&mut conn, 0, n), Reply::Nil));
                assert_eq!(files(&node, 0), left, "nothing is deleted");
            }
        }
        node.kill9();
    }
}

#[test]
fn a_replica_with_a_damaged_log_takes_that_slot_whole_and_no_other() {
    let master = two_slots().start();
    (0..2).for_each(|slot| write(&master, slot, 0..50));
    let mut replica = two_slots().start();
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    // After the full sync: what the replica has to replay.
    (0..2).for_each(|slot| write(&master, slot, 50..KEYS));
    wait_caught_up(&master, &replica);
    replica.kill9();
    let log = files(&replica, 1).pop().expect("a file");
    flip(&log, records(&log)[20] + 60);
    replica.start_again();
    wait_full_syncs(&replica, 1);
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), 1);
    assert_eq!(fault(&replica), None);
    (0..2).for_each(|slot| expect_all(&replica, slot, 0..KEYS));
    replica.crash();
    wait_synced(&master, &replica);
    assert_eq!(replica.full_syncs(), 0, "it is healed for good");
}

/// Damages the log of slot 0 behind what a replica that is away has, in one of several ways; `damage` gets that log's files.
fn damage_under_a_running_master(damage: impl FnOnce(&[PathBuf])) {
    let mut master = small_files().start();
    (0..2).for_each(|slot| write(&master, slot, 0..20));
    let (mut away, near) = (small_files().start(), small_files().start());
    for replica in [&away, &near] {
        replica.slaveof(master.port());
        wait_synced(&master, replica);
    }
    away.kill9();
    (0..2).for_each(|slot| write(&master, slot, 20..KEYS));
    wait_synced(&master, &near);
    damage(&files(&master, 0));
    let near_before = near.full_syncs();
    away.start_again();
    wait_full_syncs(&away, 1);
    wait_synced(&master, &away);
    assert_eq!(away.full_syncs(), 1, "slot 0 alone");
    // Who had come past the damage goes on.
    wait_synced(&master, &near);
    assert_eq!(near.full_syncs(), near_before);
    let told = master.info("persistence").remove("slot_log_replaced").expect("slot_log_replaced");
    assert!(told.starts_with("db0:0 ") && told.contains("binlog.0000"), "{told}");
    assert!(master.output().contains("the binlog is damaged: "), "it is in the log");
    assert_eq!(fault(&master), None);
    let aside = only_dir(&master.data_dir().join("binlog/db0/0"), "damaged-");
    assert!(files_under(&aside).len() > 3, "the damaged log is kept");
    (0..2).for_each(|slot| write(&master, slot, KEYS..KEYS + 20));
    for replica in [&away, &near] {
        wait_synced(&master, replica);
    }
    // The damage plays no part any more.
    let digest = master.digest();
    master.crash();
    assert_eq!((master.digest(), fault(&master)), (digest, None));
    for replica in [&away, &near] {
        wait_synced(&master, replica);
    }
    assert_eq!((away.full_syncs(), near.full_syncs()), (1, near_before));
    (0..2).for_each(|slot| expect_all(&away, slot, 0..KEYS + 20));
}

#[test]
fn a_record_damaged_under_a_running_master_goes_to_no_replica() {
    damage_under_a_running_master(|files| {
        let starts = records(&files[2]);
        flip(&files[2], starts[3] + 100);
    });
}

#[test]
fn the_file_being_written_loses_its_header_under_a_running_master() {
    damage_under_a_running_master(|files| overwrite(files.last().expect("a file"), 0, &[0; 64]));
}

#[test]
fn a_file_goes_missing_under_a_running_master() {
    damage_under_a_running_master(|files| fs::remove_file(&files[2]).expect("removed"));
}

#[test]
fn the_file_being_written_is_cut_under_a_running_master() {
    damage_under_a_running_master(|files| {
        let last = files.last().expect("a file");
        cut(last, records(last)[1]);
    });
}

/// What only it has, and cannot be read to its end, is kept as it is.
#[test]
fn an_old_master_with_a_damaged_tail_follows_and_loses_nothing() {
    let (old, new) = (two_slots().start(), two_slots().start());
    write(&old, 0, 0..20);
    new.slaveof(old.port());
    wait_synced(&old, &new);
    new.slaveof_no_one();
    write(&old, 0, 20..60);
    write(&new, 1, 0..20);
    let log = files(&old, 0).pop().expect("a file");
    let starts = records(&log);
    flip(&log, starts[starts.len() - 5] + 60);
    let damaged = fs::read(&log).expect("the log");
    old.slaveof(new.port());
    wait_full_syncs(&old, 1);
    wait_synced(&new, &old);
    assert_eq!(fault(&old), None);
    let kept = files_under(&only_dir(&old.data_dir().join("binlog/db0/0"), "damaged-"));
    assert_eq!(fs::read(&kept[kept.len() - 1]).expect("the kept log"), damaged);
}

/// A replica of a replica whose log is damaged.
#[test]
fn a_chain_with_a_damaged_link_holds() {
    let master = two_slots().start();
    write(&master, 0, 0..20);
    let (middle, mut last) = (two_slots().start(), two_slots().start());
    middle.slaveof(master.port());
    wait_synced(&master, &middle);
    last.slaveof(middle.port());
    wait_synced(&middle, &last);
    last.kill9();
    write(&master, 0, 20..KEYS);
    wait_synced(&master, &middle);
    let log = files(&middle, 0).pop().expect("a file");
    flip(&log, records(&log)[5] + 40);
    last.start_again();
    wait_full_syncs(&last, 1);
    wait_synced(&master, &last);
    assert_eq!((middle.full_syncs(), last.full_syncs()), (2, 1));
    write(&master, 0, KEYS..KEYS + 20);
    wait_synced(&master, &last);
    wait_connected(&middle);
    expect_all(&last, 0, 0..KEYS + 20);
}
