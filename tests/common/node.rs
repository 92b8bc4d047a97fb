//! One haypile process: its folder, its ports, its log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::faulty_disk::{self, FaultyDisk};
use super::ports::PortBlock;
use super::tools::wait_exit;
use super::{Conn, DEADLINE, Reply, wait_for};

/// The program under test.
pub const HAYPILE: &str = env!("CARGO_BIN_EXE_haypile");

/// How much of each log file a failed test shows, in bytes.
const LOG_SHOWN: usize = 24 << 10;

/// The repository's own conf file.
pub fn shipped_conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/haypile.conf")
}

/// The library that shifts a program's clock, compiled into `dir` unless it is there.
fn clock_shift_library(dir: &Path) -> PathBuf {
    let library = dir.join("clock_shift.so");
    if !library.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/clock_shift.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
        assert!(cc.status().expect("a C compiler").success(), "the clock library compiles");
    }
    library
}

/// A new folder under the system's temporary folder.
pub fn temp_dir() -> TempDir {
    let mut dir = tempfile::Builder::new().prefix("haypile-test-").tempdir().expect("a temporary folder");
    dir.disable_cleanup(std::env::var_os("HAYPILE_TEST_KEEP").is_some());
    dir
}

/// How a node is started.
#[derive(Clone, Default)]
pub struct NodeOptions {
    settings: Vec<(String, String)>,
    conf: Option<String>,
    clock_shift: i64,
    disk: Option<Disk>,
}

/// What is recorded of a [`FaultyDisk`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Untraced,
    Traced,
}

impl NodeOptions {
    pub fn new() -> NodeOptions {
        NodeOptions::default()
    }

    /// Passes `--set key=value`; a later value of the same key takes its place.
    pub fn set(mut self, key: &str, value: impl ToString) -> NodeOptions {
        self.put(key, value.to_string());
        self
    }

    /// Uses this text as the conf file instead of a copy of the repository's.
    pub fn conf(mut self, text: &str) -> NodeOptions {
        self.conf = Some(text.into());
        self
    }

    /// Lets the node's wall clock be so many seconds ahead.
    pub fn clock_shift(mut self, seconds: i64) -> NodeOptions {
        self.clock_shift = seconds;
        self
    }

    /// Puts a [`FaultyDisk`] under the data folder.
    pub fn faulty_disk(mut self) -> NodeOptions {
        self.disk = Some(Disk::Untraced);
        self
    }

    /// The same, which also records all that happens there.
    pub fn traced_disk(mut self) -> NodeOptions {
        self.disk = Some(Disk::Traced);
        self
    }

    /// A running node.
    #[track_caller]
    pub fn start(self) -> Node {
        let mut node = self.prepare();
        node.start_again();
        node
    }

    /// A node with its folder, conf file and ports, not yet started.
    #[track_caller]
    pub fn prepare(self) -> Node {
        let dir = temp_dir();
        let conf = match &self.conf {
            Some(text) => text.clone(),
            None => fs::read_to_string(shipped_conf()).expect("the repository's conf file"),
        };
        fs::create_dir(dir.path().join("data")).expect("a data folder");
        fs::write(dir.path().join("haypile.conf"), conf).expect("a conf file");
        Node { child: None, options: self, ports: PortBlock::reserve(), dir }
    }

    fn put(&mut self, key: &str, value: String) {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.into(), value));
    }
}

/// A haypile process, or the place where one was and may be again. Dropping it kills the
/// process and removes the folder; when the test has failed it prints the logs first.
pub struct Node {
    child: Option<Child>,
    options: NodeOptions,
    ports: PortBlock,
    dir: TempDir,
}

impl Node {
    /// A running node on the repository's conf file.
    #[track_caller]
    pub fn start() -> Node {
        NodeOptions::new().start()
    }

    /// A running node with some settings of its own.
    #[track_caller]
    pub fn with(settings: &[(&str, &str)]) -> Node {
        let set = |options: NodeOptions, (key, value): &(&str, &str)| options.set(key, value);
        settings.iter().fold(NodeOptions::new(), set).start()
    }

    /// P, where clients connect.
    pub fn port(&self) -> u16 {
        self.ports.port()
    }

    /// The folder of data, `--dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The disk under the data folder, of a node that was given one.
    pub fn disk(&self) -> FaultyDisk {
        FaultyDisk::new(self.dir(), &self.data_dir())
    }

    /// The node's own copy of the conf file.
    pub fn conf_path(&self) -> PathBuf {
        self.dir.path().join("haypile.conf")
    }

    /// The folder that holds conf, data and logs; removed with the node.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process id; panics when the node is down.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running node").id()
    }

    /// Changes a setting for the next start.
    pub fn set_option(&mut self, key: &str, value: impl ToString) {
        self.options.put(key, value.to_string());
    }

    /// The command that starts this node.
    pub fn command(&self) -> Command {
        let mut command = Command::new(HAYPILE);
        command.arg(self.conf_path());
        command.args(["--port", &self.port().to_string(), "--dir"]).arg(self.data_dir());
        let mut preloaded = Vec::new();
        if self.options.clock_shift != 0 {
            preloaded.push(clock_shift_library(self.dir()));
            command.env("CLOCK_SHIFT_SECONDS", self.options.clock_shift.to_string());
        }
        if let Some(disk) = self.options.disk {
            preloaded.push(faulty_disk::library());
            self.disk().attach(&mut command, disk == Disk::Traced);
        }
        if !preloaded.is_empty() {
            let paths: Vec<_> = preloaded.iter().map(|path| path.to_string_lossy()).collect();
            command.env("LD_PRELOAD", paths.join(":"));
        }
        for (key, value) in &self.options.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command
    }

    /// Starts the process and waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_answer();
    }

    /// Starts the process, and does not wait for it.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(self.output_path()).expect("a file for the output");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        self.child = Some(child);
    }

    /// Waits until a started process answers.
    #[track_caller]
    pub fn wait_answer(&mut self) {
        wait_for("the server to answer", DEADLINE, || self.answers());
    }

    /// Whether a started process answers; panics when it has ended.
    #[track_caller]
    pub fn answers(&mut self) -> bool {
        if let Some(status) = self.exited() {
            panic!("the server ended while starting: {status}");
        }
        let pong = Conn::try_to(self.port()).and_then(|mut conn| conn.try_call(&["PING"]));
        pong.is_ok_and(|reply| !format!("{reply:?}").starts_with("-LOADING"))
    }

    /// SIGKILL, and waits until the process is gone.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running node");
        child.kill().expect("SIGKILL");
        child.wait().expect("the process to be gone");
    }

    /// SIGTERM, and waits for the exit status.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// Clean stop and start on the same folder and ports.
    #[track_caller]
    pub fn restart(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "a clean stop ended with {status}");
        self.start_again();
    }

    /// SIGKILL and start on the same folder and ports.
    #[track_caller]
    pub fn crash(&mut self) {
        self.kill9();
        self.start_again();
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("a running node");
        let status = wait_exit(child, "the server to end", DEADLINE);
        self.child = None;
        status
    }

    /// Sends a signal to the process.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("the signal is sent");
    }

    /// Whether the process is there.
    pub fn is_alive(&mut self) -> bool {
        self.child.is_some() && self.exited().is_none()
    }

    /// The exit status of a process that has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("a child to wait for")
    }

    /// A new connection, authenticated with the node's `requirepass` when it has one.
    #[track_caller]
    pub fn conn(&self) -> Conn {
        let mut conn = Conn::to(self.port());
        if let Some(password) = self.option("requirepass") {
            conn.call(&["AUTH", password]).expect_ok();
        }
        conn
    }

    /// The value given with `--set`, if any.
    pub fn option(&self, key: &str) -> Option<&str> {
        let mut settings = self.options.settings.iter();
        settings.find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// One command on a connection of its own; see [`Conn::run`].
    #[track_caller]
    pub fn run(&self, line: &str) -> Reply {
        self.conn().run(line)
    }

    /// A connection of the `redis` crate.
    #[track_caller]
    pub fn redis(&self) -> redis::Connection {
        let auth = self.option("requirepass").map(|p| format!(":{p}@")).unwrap_or_default();
        let url = format!("redis://{auth}127.0.0.1:{}/", self.port());
        let client = redis::Client::open(url).expect("a client");
        client.get_connection().expect("a connection")
    }

    /// What the process printed, over all its starts.
    pub fn output(&self) -> String {
        read_lossy(&self.output_path())
    }

    fn output_path(&self) -> PathBuf {
        self.dir.path().join("output.log")
    }

    /// Resident memory in bytes.
    pub fn resident_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kilobytes = line.split_whitespace().nth(1).expect("a number");
        kilobytes.parse::<u64>().expect("a number") << 10
    }

    /// The node's log files, its output first.
    fn logs(&self) -> Vec<PathBuf> {
        let mut logs = vec![self.output_path()];
        for path in files_under(&self.data_dir()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("haypile") && name.contains("log") {
                logs.push(path);
            }
        }
        logs
    }

    fn show_logs(&self) {
        for path in self.logs() {
            let text = read_lossy(&path);
            let mut from = text.len().saturating_sub(LOG_SHOWN);
            while !text.is_char_boundary(from) {
                from += 1;
            }
            eprintln!("--- node {}: {}\n{}", self.port(), path.display(), &text[from..]);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Every file under a folder, at any depth, sorted; nothing when the folder is not there.
pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => files.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    files.sort();
    files
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
