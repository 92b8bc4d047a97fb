//! Faults that strike while a node starts: on an empty folder, or after a crash that left something to be put in order.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use super::common::node::files_under;
use super::common::{Conn, DEADLINE, Node, Reply, wait_for, wait_some};
use super::points::{Fault, Leftover};
use super::rig::{BOTH_SLOTS, Rig, options};

/// A process with failpoints armed from its first step on; killed when dropped.
struct Faulty<'n> {
    node: &'n Node,
    child: Child,
}

/// What became of a start.
enum Started {
    Ended(ExitStatus),
    Serves,
}

impl Faulty<'_> {
    fn start<'n>(node: &'n Node, fault: &Fault) -> Faulty<'n> {
        let output = node.dir().join("output.log");
        let output = File::options().create(true).append(true).open(output).expect("a file for the output");
        let mut command = node.command();
        command.env("FAILPOINTS", format!("{}={}", fault.name(), fault.action));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        Faulty { node, child: command.spawn().expect("the server starts") }
    }

    /// Waits until it ended or answers.
    fn wait(&mut self) -> Started {
        let port = self.node.port();
        wait_some("the server to end or to answer", DEADLINE, || {
            if let Some(status) = self.child.try_wait().expect("a child to wait for") {
                return Some(Started::Ended(status));
            }
            let pong = Conn::try_to(port).and_then(|mut conn| conn.try_call(&["PING"])).ok()?;
            (pong == Reply::Simple("PONG".into())).then_some(Started::Serves)
        })
    }

    fn wait_killed(&mut self, fault: &Fault) {
        let ended = |child: &mut Child| child.try_wait().expect("a child to wait for");
        let what = format!("{} to be reached", fault.name());
        let status = wait_some(&what, DEADLINE, || ended(&mut self.child));
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    /// It met an error: it has ended and says so, or it serves what it can. `check` is for the latter.
    fn wait_failed(&mut self, fault: &Fault, check: impl FnOnce()) {
        match self.wait() {
            Started::Ended(status) => {
                assert!(status.code().is_some_and(|code| code != 0), "it met an error and ended with {status}");
                assert!(self.node.output().contains("haypile: "), "it ended without a word");
            }
            Started::Serves => {
                let mut conn = Conn::to(self.node.port());
                wait_for(&format!("{} to be reached", fault.name()), DEADLINE, || {
                    conn.call(&["DEBUG", "FAILPOINT", &fault.name()]).int() > 0
                });
                check();
            }
        }
    }
}

impl Drop for Faulty<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A first start that ends in a fault, and one more.
pub fn first_start(fault: &Fault, kills: bool) {
    let mut node = options(2).prepare();
    {
        let mut faulty = Faulty::start(&node, fault);
        if kills {
            faulty.wait_killed(fault);
        } else {
            faulty.wait_failed(fault, || ());
        }
    }
    node.start_again();
    node.run("SET k v").expect_ok();
    node.crash();
    assert_eq!(node.run("GET k"), Reply::bulk("v"));
}

impl Rig {
    /// A crash that leaves `leftover`, a start that ends in a fault, and one more.
    pub fn restart(&mut self, leftover: Leftover, fault: &Fault, kills: bool) {
        let mut writers = Some(self.writers());
        if let Some(writers) = &writers {
            writers.wait_answers(20);
        }
        let mut ledger = None;
        if !matches!(leftover, Leftover::TornTail | Leftover::EmptyFile) {
            // What is left behind is of this test's own writes.
            ledger = writers.take().map(|writers| writers.stop());
        }
        self.leave(leftover);
        let ledger = match (ledger, writers) {
            (Some(ledger), _) => ledger,
            (None, Some(writers)) => writers.stop(),
            (None, None) => unreachable!("one of the two"),
        };
        {
            let mut faulty = Faulty::start(&self.master, fault);
            if kills {
                faulty.wait_killed(fault);
            } else {
                faulty.wait_failed(fault, || ledger.verify_readable(&self.master));
            }
        }
        self.master.start_again();
        match leftover {
            Leftover::TornMulti | Leftover::TornMultiRolled => {
                let held = self.master.run("MGET a b c d e f");
                let first = &held.items()[0];
                assert!(held.items().iter().all(|item| item == first), "half there: {held:?}");
            }
            Leftover::LoggedFlush | Leftover::Generation => {
                let mut conn = self.master.conn();
                conn.select(1);
                assert_eq!(conn.run("DBSIZE"), Reply::Int(0), "FLUSHDB is in the log");
            }
            Leftover::Save => {
                let left = files_under(&self.master.data_dir().join("dump"));
                assert!(!left.iter().any(|path| path.to_string_lossy().contains(".tmp/")), "{left:?}");
            }
            _ => {}
        }
        self.settle(ledger);
    }

    /// Leaves the master down, with something to be put in order.
    fn leave(&mut self, leftover: Leftover) {
        match leftover {
            Leftover::UnflushedLog => self.master.kill9(),
            Leftover::TornTail => self.die_at("binlog::append::before", "torn", &[]),
            Leftover::EmptyFile => self.die_at("binlog::create::after", "kill", &[]),
            Leftover::TornMulti => self.tear_mset(10),
            // Two such records do not go into one file.
            Leftover::TornMultiRolled => self.tear_mset(20_000),
            Leftover::ShortLog => {
                self.master.run("DEBUG LOADAOF").expect_ok();
                self.master.kill9();
                let logs = files_under(&self.master.data_dir().join("binlog/db0"));
                for slot in ["/0/", "/1/"] {
                    let is_file = |path: &str| path.contains(slot) && path.contains("/binlog.");
                    let last = logs.iter().rfind(|path| is_file(&path.to_string_lossy()));
                    let file = File::options().write(true).open(last.expect("a log")).expect("a log");
                    file.set_len(64).expect("a shorter log");
                }
                // Nothing says how far the log was durable: the disk has lied.
                for other in logs.iter().filter(|path| !path.to_string_lossy().contains("/binlog.")) {
                    fs::remove_file(other).expect("a file beside the log");
                }
            }
            Leftover::Generation => self.die_in_flush("current::write::before"),
            Leftover::LoggedFlush => self.die_in_flush("engine::clear::before"),
            Leftover::Save => self.die_at("bgsave::rename::before", "kill", &["BGSAVE"]),
        }
    }

    /// Dies when an MSET with values of `len` bytes is in the first slot's log.
    fn tear_mset(&mut self, len: usize) {
        let [old, new] = ["x", "y"].map(|byte| byte.repeat(len));
        let mset = |value| {
            let pairs = BOTH_SLOTS.iter().flat_map(|key| [*key, value]);
            ["MSET"].into_iter().chain(pairs).collect::<Vec<&str>>()
        };
        self.master.conn().call(&mset(&old)).expect_ok();
        self.die_at("binlog::append::before", "1*off->1*kill", &mset(&new));
    }

    fn die_in_flush(&mut self, point: &str) {
        let mut conn = self.master.conn();
        conn.select(1);
        conn.run("MSET a 1 b 1 c 1 d 1 e 1 f 1").expect_ok();
        conn.call(&["DEBUG", "FAILPOINT", point, "kill"]).expect_ok();
        assert!(conn.try_call(&["FLUSHDB"]).is_err(), "{point} was not reached");
        self.master.wait_exit();
    }

    /// Kills the master at a point, to which `command` leads, or the writers do.
    fn die_at(&mut self, point: &str, action: &str, command: &[&str]) {
        let mut conn = self.master.conn();
        // It may be dead before it answers.
        let _ = conn.try_call(&["DEBUG", "FAILPOINT", point, action]);
        if !command.is_empty() {
            let _ = conn.try_call(command);
        }
        self.master.wait_exit();
    }

    /// A full sync that a crash interrupts; the receive folder is tampered with; the node that goes on meets a fault.
    pub fn resume(&mut self, fault: &Fault, kills: bool) {
        let writers = self.writers();
        writers.wait_answers(20);
        let ledger = writers.stop();
        let force = format!("SLAVEOF 127.0.0.1 {} FORCE", self.master.port());
        let replica = self.victim();
        replica.run("DEBUG FAILPOINT receive::sync::before kill").expect_ok();
        replica.run(&force);
        replica.wait_exit();
        let received: Vec<PathBuf> = files_under(&replica.data_dir().join("dbsync"));
        for path in received.iter().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("data"))) {
            let mut bytes = fs::read(path).expect("a received file");
            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            fs::write(path, bytes).expect("a received file");
        }
        for listing in received.iter().filter(|path| path.ends_with("LISTING")) {
            fs::write(listing.with_file_name("data").join("other"), "other").expect("a file in the receive folder");
        }
        {
            let mut faulty = Faulty::start(replica, fault);
            if kills {
                faulty.wait_killed(fault);
            } else {
                faulty.wait_failed(fault, || ());
            }
        }
        replica.start_again();
        self.settle(ledger);
    }
}
