//! The manners of a daemon: background, pid file, signals, log files, conf rewriting, memory.

use std::fs;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::node::{files_under, shipped_conf};
use crate::common::{Conn, DEADLINE, Load, LoadOptions, Node, NodeOptions, Reply, run_program, wait_for, wait_some};

/// Bytes an idle server on the default conf may hold.
const IDLE_MEMORY: u64 = 60 << 20;

#[test]
fn an_idle_server_is_small() {
    let start = Instant::now();
    let node = Node::start();
    println!("answered after {:?}, holds {} KiB", start.elapsed(), node.resident_memory() >> 10);
    assert!(node.resident_memory() < IDLE_MEMORY, "{} bytes", node.resident_memory());
}

#[test]
fn sigterm_under_load_is_a_clean_stop() {
    let mut node = Node::start();
    let load = Load::start(&node, LoadOptions { databases: 3, ..LoadOptions::default() });
    load.wait_more(2000);
    let status = node.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    node.start_again();
    load.wait_more(1000);
    load.stop().verify(&node);
}

#[test]
fn sigint_is_a_clean_stop() {
    let mut node = Node::start();
    node.run("SET k v").expect_ok();
    let digest = node.digest();
    node.signal(Signal::SIGINT);
    assert_eq!(node.wait_exit().code(), Some(0));
    node.start_again();
    assert_eq!(node.run("GET k"), Reply::bulk("v"));
    assert_eq!(node.digest(), digest);
}

#[test]
fn shutdown_is_a_clean_stop() {
    let mut node = Node::start();
    let mut conn = node.conn();
    conn.run("SET k v").expect_ok();
    conn.push(&["SHUTDOWN"]);
    conn.flush();
    assert_eq!(conn.read_to_end(), b"", "SHUTDOWN answers only when it fails");
    assert_eq!(node.wait_exit().code(), Some(0));
    node.start_again();
    assert_eq!(node.run("GET k"), Reply::bulk("v"));
}

/// A server that went to the background: no child of ours.
struct Daemon {
    pid: i32,
    dir: String,
}

impl Daemon {
    /// Whether the process is there and is the one that was started.
    fn is_alive(&self) -> bool {
        let command = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&self.dir)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn daemonize_and_pidfile() {
    let node = NodeOptions::new().set("daemonize", "yes").prepare();
    let pidfile = node.dir().join("server.pid");
    let mut command = node.command();
    command.args(["--set", &format!("pidfile={}", pidfile.display())]);
    command.args(["--set", &format!("log-path={}", node.dir().join("log").display())]);
    let output = run_program(&mut command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);

    let pid = wait_some("a pid file", DEADLINE, || fs::read_to_string(&pidfile).ok()?.trim().parse::<i32>().ok());
    let daemon = Daemon { pid, dir: node.dir().display().to_string() };
    wait_for("the daemon to answer", DEADLINE, || {
        Conn::try_to(node.port()).and_then(|mut conn| conn.try_call(&["PING"])).is_ok()
    });
    assert!(daemon.is_alive(), "the pid file names another process");
    assert_eq!(node.info("server")["process_id"], pid.to_string());
    node.run("SET k v").expect_ok();

    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("SIGTERM");
    wait_for("the daemon to end", DEADLINE, || !daemon.is_alive());
    assert!(!pidfile.exists(), "the pid file stays behind");
}

#[test]
fn sighup_reopens_the_log() {
    let mut options = NodeOptions::new();
    let logs = crate::common::node::temp_dir();
    options = options.set("log-path", logs.path().display());
    let node = options.start();
    let log = wait_some("a log file", DEADLINE, || files_under(logs.path()).into_iter().next());
    let moved = logs.path().join("moved-away");
    fs::rename(&log, &moved).expect("to move the log");
    node.signal(Signal::SIGHUP);
    wait_for("a new log file", DEADLINE, || log.exists());
    assert_eq!(node.run("PING"), Reply::Simple("PONG".into()));
}

#[test]
fn config_rewrite_keeps_comments_and_lasts() {
    let conf = "# first comment\ntimeout : 300\n\n# about clients\nmaxclients : 500\n";
    let mut node = NodeOptions::new().conf(conf).start();
    node.run("CONFIG SET timeout 77").expect_ok();
    node.run("CONFIG SET slowlog-max-len 33").expect_ok();
    node.run("CONFIG REWRITE").expect_ok();
    let written = fs::read_to_string(node.conf_path()).expect("the conf");
    for line in ["# first comment", "timeout : 77", "# about clients", "maxclients : 500"] {
        assert!(written.lines().any(|known| known.trim() == line), "{line:?} in:\n{written}");
    }
    node.restart();
    assert_eq!(node.run("CONFIG GET timeout").field("timeout"), &Reply::bulk("77"));
    let kept = node.run("CONFIG GET slowlog-max-len");
    assert_eq!(kept.field("slowlog-max-len"), &Reply::bulk("33"));
}

#[test]
fn the_shipped_conf_holds_the_defaults() {
    assert!(shipped_conf().is_file());
    let shipped = Node::start();
    let empty = NodeOptions::new().conf("").start();
    let differ = ["port", "dir", "config-file", "pidfile"];
    let settings = |node: &Node| -> Vec<(String, String)> {
        let all = node.run("CONFIG GET *").texts();
        let pairs = all.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        pairs
            .filter(|(key, value)| {
                let own = value.contains(&*node.dir().to_string_lossy());
                !own && !differ.contains(&key.as_str())
            })
            .collect()
    };
    assert_eq!(settings(&shipped), settings(&empty));
}
