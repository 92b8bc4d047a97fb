//! A disk that can be full, fail, and lose power, under a whole process: the server's own code and RocksDB's alike.
//!
//! `faulty_disk.c`, loaded before the C library, stands between the process and the kernel for all files under the data folder.
//! [`FaultyDisk`] gives it orders while the process runs: so many bytes of room, I/O errors for some files, another boot id. It
//! appends every change to a trace, from which [`PowerCut`](super::PowerCut) rebuilds what a power cut at any point of it would have left.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::RngExt;

/// Which operations fail.
pub const WRITES: u32 = 1;
pub const SYNCS: u32 = 2;
pub const READS: u32 = 4;

/// Room without a limit.
const NO_LIMIT: i64 = -1;
/// Bytes of the file by which orders are given.
const CONTROL_LEN: usize = 256;

/// The disk under a node's data folder.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    /// Where orders, trace and boot id are.
    dir: PathBuf,
    root: PathBuf,
}

impl FaultyDisk {
    /// The disk under `root`, a folder without symbolic links in its path; its own files are in `dir`, outside of it.
    pub fn new(dir: &Path, root: &Path) -> FaultyDisk {
        let root = root.canonicalize().expect("a folder for the data");
        let disk = FaultyDisk { dir: dir.to_path_buf(), root };
        if !disk.control().exists() {
            fs::write(disk.control(), [0; CONTROL_LEN]).expect("a file for orders");
            disk.set_room(None);
            disk.reboot();
        }
        disk
    }

    /// Puts the disk under the process that `command` starts.
    pub fn attach(&self, command: &mut Command, traced: bool) {
        command.env("FAULTY_DISK_ROOT", &self.root);
        command.env("FAULTY_DISK_CONTROL", self.control());
        command.env("FAULTY_DISK_BOOT_ID", self.boot_id());
        if traced {
            command.env("FAULTY_DISK_TRACE", self.trace_path());
        }
    }

    /// So many bytes more can be written (`None`: as many as there are). What overwrites is free.
    pub fn set_room(&self, bytes: Option<u64>) {
        let room = bytes.map_or(NO_LIMIT, |bytes| bytes as i64);
        self.order(0, &room.to_ne_bytes());
    }

    /// These operations ([`WRITES`] …) give EIO on files whose path contains `part`.
    pub fn fail(&self, operations: u32, part: &str) {
        self.order(8, &0u32.to_ne_bytes());
        self.order(12, &[part.as_bytes(), b"\0"].concat());
        self.order(8, &operations.to_ne_bytes());
    }

    /// No more I/O errors.
    pub fn heal(&self) {
        self.order(8, &0u32.to_ne_bytes());
    }

    /// The next start of the process is after a start of the machine: it finds another boot id.
    pub fn reboot(&self) {
        let id: u128 = rand::rng().random();
        let text = format!("{id:032x}");
        let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
        fs::write(self.boot_id(), format!("{}\n", parts.join("-"))).expect("a boot id");
    }

    /// The trace's length now. Whatever a client has been told by now is before it.
    pub fn now(&self) -> u64 {
        fs::metadata(self.trace_path()).map_or(0, |meta| meta.len())
    }

    /// What the trace says.
    pub fn trace(&self) -> Vec<u8> {
        fs::read(self.trace_path()).expect("a trace")
    }

    fn order(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(self.control()).expect("the file of orders");
        file.write_all_at(bytes, at).expect("an order");
    }

    fn control(&self) -> PathBuf {
        self.dir.join("disk.control")
    }

    fn boot_id(&self) -> PathBuf {
        self.dir.join("disk.boot_id")
    }

    fn trace_path(&self) -> PathBuf {
        self.dir.join("disk.trace")
    }
}

/// The library, compiled once for its source.
pub fn library() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/faulty_disk.c");
    let meta = fs::metadata(&source).expect("the source of the faulty disk");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = dir.join(format!("faulty_disk-{}-{}.so", meta.len(), meta.mtime()));
    if !library.exists() {
        // Under a name of its own first: another test process may be at it too.
        let building = tempfile::NamedTempFile::new_in(dir).expect("a file to compile to");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(building.path()).arg(&source);
        assert!(cc.status().expect("a C compiler").success(), "the faulty disk compiles");
        building.persist(&library).expect("the library");
    }
    library
}
