//! Full syncs that meet damaged files: snapshots on the master, receive folders on the replica.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;

use crate::common::node::files_under;
use crate::common::{DEADLINE, Node, NodeOptions, Reply, fill, rng, wait_for, wait_some, wait_synced};
use crate::small;

const VALUE: usize = 16 << 10;

fn one_slot() -> NodeOptions {
    NodeOptions::new().set("databases", 1).set("slot-num", 1)
}

fn master_with(mib: usize, options: NodeOptions, rng: &mut StdRng) -> Node {
    let master = options.start();
    fill(&master, 0, "k", (mib << 20) / VALUE, VALUE, rng);
    master
}

/// A replica that fetches one file after the other, the largest first.
fn slow_replica() -> Node {
    let replica = one_slot().set("throttle-bytes-per-second", "1M").set("max-rsync-parallel-num", 1).start();
    replica.run("SET own before").expect_ok();
    replica
}

fn unthrottle(replica: &Node) {
    replica.run("CONFIG SET throttle-bytes-per-second 0").expect_ok();
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn received(replica: &Node) -> u64 {
    files_under(&replica.data_dir().join("dbsync")).iter().map(|path| size(path)).sum()
}

/// Changes a byte of a file in place, or changes it back.
fn flip(path: &Path, offset: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).expect("a file to damage");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).expect("a place");
    file.read_exact(&mut byte).expect("a byte");
    file.seek(SeekFrom::Start(offset)).expect("a place");
    file.write_all(&[!byte[0]]).expect("a changed byte");
}

/// Puts a file in the place of another that may still be open, as a new file.
fn put(path: &Path, contents: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, contents).expect("a new file");
    fs::rename(&new, path).expect("in its place");
}

/// Whatever happens to a file of the snapshot while it is sent is noticed; the replica serves its old data meanwhile, and ends with the
/// new.
#[test]
fn a_snapshot_that_changes_under_the_transfer_is_noticed() {
    type Damage = (&'static str, fn(&Path), &'static str);
    let damages: [Damage; 4] = [
        ("removed", |path| fs::remove_file(path).expect("a file to remove"), "No such file"),
        ("shorter", |path| put(path, &fs::read(path).expect("it")[1..]), "bytes, "),
        (
            "changed",
            |path| {
                let mut bytes = fs::read(path).expect("it");
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                put(path, &bytes);
            },
            "offset 0: the bytes up to",
        ),
        (
            "a link",
            |path| {
                fs::remove_file(path).expect("a file to remove");
                symlink("/etc/hostname", path).expect("a link");
            },
            "symbolic link",
        ),
    ];
    let mut rng = rng();
    let master = master_with(2, one_slot(), &mut rng);
    for (what, damage, said) in damages {
        let replica = slow_replica();
        replica.slaveof(master.port());
        wait_for("the middle of the transfer", DEADLINE, || received(&replica) > 256 << 10);
        let files = files_under(&master.data_dir().join("dump/sync"));
        let manifest = files.iter().find(|path| path.to_string_lossy().contains("MANIFEST")).expect("a MANIFEST");
        damage(manifest);
        unthrottle(&replica);
        let found = wait_some("the damage to be found", DEADLINE, || {
            let log = master.output();
            let mut found = log.lines().filter(|l| l.contains("a snapshot was damaged after it was listed"));
            found.find(|l| l.contains(&*manifest.to_string_lossy())).map(String::from)
        });
        assert!(found.contains(said), "{what}: {found}");
        wait_synced(&master, &replica);
        assert_eq!(replica.run("GET own"), Reply::Nil, "{what}");
        assert!(replica.output().contains("is damaged"), "{what}: {}", replica.output());
    }
}

/// A damaged block in a table file of the master: found when the snapshot is made, since nobody must get it with a checksum that fits.
#[test]
fn a_damaged_table_file_is_not_passed_on() {
    let mut rng = rng();
    let mut master = master_with(2, one_slot(), &mut rng);
    master.restart();
    let tables = || {
        let mut tables = files_under(&master.data_dir().join("db"));
        tables.retain(|path| path.extension().is_some_and(|e| e == "sst"));
        tables
    };
    let table: PathBuf = tables().into_iter().max_by_key(|path| size(path)).expect("a table file");
    let at = size(&table) / 2;
    flip(&table, at);
    let replica = one_slot().start();
    replica.run("SET own before").expect_ok();
    replica.slaveof(master.port());
    let reason = wait_some("a reason", DEADLINE, || {
        let reason = replica.replication().field("master_link_error").to_string();
        reason.contains("checksum mismatch").then_some(reason)
    });
    println!("{reason}");
    let name = table.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(reason.contains(&name) && reason.contains("offset "), "{reason}");
    // Found when the snapshot was made, or by a compaction before.
    let log = master.output();
    assert!(log.contains("no snapshot: ") || log.contains("data on disk are damaged"), "{log}");
    assert_eq!((replica.full_syncs(), replica.run("GET own")), (0, Reply::bulk("before")));
    // A save of it would be none.
    master.run("BGSAVE");
    wait_for("BGSAVE to fail", DEADLINE, || master.info("persistence")["rdb_last_bgsave_status"] == "err");
    flip(&table, at);
    // A slot that has met damage gives nothing away until it is opened anew.
    master.restart();
    wait_synced(&master, &replica);
    master.run("BGSAVE");
    wait_for("BGSAVE to succeed", DEADLINE, || master.info("persistence")["rdb_last_bgsave_status"] == "ok");
}

/// Whatever lies in the receive folders when a full sync begins: nothing of it is taken for data, and nothing outside is touched.
#[test]
fn planted_receive_folders_are_not_trusted() {
    let mut rng = rng();
    let master = master_with(2, small(), &mut rng);
    let replica = small().start();
    replica.run("SET own before").expect_ok();
    let precious = replica.dir().join("precious");
    fs::create_dir_all(precious.join("data")).expect("a folder");
    for file in ["LISTING", "info", "data/000009.sst", "data/keep"] {
        fs::write(precious.join(file), "precious").expect("a file");
    }
    let folders = replica.data_dir().join("dbsync");
    fs::create_dir_all(folders.join("db0/0/data")).expect("a folder");
    // Half a table file beside a listing of another master, a file that has a second name, a folder where a file should be.
    let listing = "haypile listing 1\nsnapshot : other\n99aa06d3014798d86001c324468d497f 100 000009.sst\n\
                   99aa06d3014798d86001c324468d497f 9 info\nfiles : 2\n";
    fs::write(folders.join("db0/0/LISTING"), listing).expect("a listing");
    fs::write(folders.join("db0/0/data/000009.sst"), "half").expect("a file");
    fs::hard_link(precious.join("data/keep"), folders.join("db0/0/data/CURRENT")).expect("a second name");
    fs::create_dir_all(folders.join("db0/0/data/000011.sst/deep")).expect("a folder");
    symlink(&precious, folders.join("db0/1")).expect("a link");
    fs::write(folders.join("db1"), "a file").expect("a file");
    replica.slaveof(master.port());
    wait_synced(&master, &replica);
    assert_eq!(replica.run("GET own"), Reply::Nil);
    // The same under a node that is down, with what cannot be read as a listing.
    replica.run("CONFIG SET throttle-bytes-per-second 512K").expect_ok();
    let mut replica = replica;
    replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", master.port())).expect_ok();
    wait_for("the middle of the transfer", DEADLINE, || received(&replica) > 256 << 10);
    replica.kill9();
    let listings = files_under(&folders).into_iter().filter(|path| path.ends_with("LISTING"));
    for (nth, path) in listings.enumerate() {
        fs::remove_file(&path).expect("a listing to remove");
        match nth % 3 {
            0 => fs::create_dir(&path).expect("a folder"),
            1 => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo"),
            _ => symlink("/dev/zero", &path).expect("a link"),
        }
    }
    replica.start_again();
    wait_synced(&master, &replica);
    // Folders of slots that need no full sync go at a start.
    replica.kill9();
    fs::create_dir_all(folders.join("db0/1/data")).expect("a folder");
    fs::write(folders.join("db0/1/data/CURRENT"), "MANIFEST-000001\n").expect("a file");
    replica.start_again();
    wait_for("the leftover to go", DEADLINE, || !folders.join("db0/1").exists());
    wait_synced(&master, &replica);
    let kept: Vec<_> = files_under(&precious).into_iter().map(|p| fs::read_to_string(p).expect("a file")).collect();
    assert_eq!(kept, ["precious"; 4]);
}
