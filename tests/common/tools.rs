//! redis-cli, redis-benchmark and other programs, run under a deadline.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use super::node::HAYPILE;
use super::wait_some;

/// Guard for a whole program run; a benchmark of a million commands takes a small part of it.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(600);

/// Runs `redis-cli -p port args…`; its output without the last newline.
#[track_caller]
pub fn redis_cli(port: u16, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).args(args);
    succeed(&mut command)
}

/// Runs `redis-benchmark -p port args…`; its output.
#[track_caller]
pub fn redis_benchmark(port: u16, args: &[&str]) -> String {
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &port.to_string()]).args(args);
    succeed(&mut command)
}

/// Runs `haypile args…`: exit code, what it printed, and what it said on standard error.
#[track_caller]
pub fn haypile<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> (i32, String, String) {
    let output = run_program(Command::new(HAYPILE).args(args));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

/// `haypile check` of a folder on which no server runs finds nothing damaged.
#[track_caller]
pub fn assert_sound(folder: &Path) {
    let (code, out, err) = haypile(&["check".as_ref(), folder.as_os_str()]);
    assert!(code == 0 && err.is_empty(), "{}: exit code {code}\n{out}\n{err}", folder.display());
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = run_program(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// Runs a program to its end and collects what it printed.
#[track_caller]
pub fn run_program(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Running(child.unwrap_or_else(|e| panic!("{command:?}: {e}")));
    let stdout = collect(child.0.stdout.take());
    let stderr = collect(child.0.stderr.take());
    let status = wait_exit(&mut child.0, &format!("{command:?} to end"), PROGRAM_DEADLINE);
    let join = |reader: thread::JoinHandle<Vec<u8>>| reader.join().expect("a reader");
    Output { status, stdout: join(stdout), stderr: join(stderr) }
}

/// Waits until a child process has ended; panics with `what` after `deadline`.
#[track_caller]
pub fn wait_exit(child: &mut Child, what: &str, deadline: Duration) -> ExitStatus {
    wait_some(what, deadline, || child.try_wait().expect("a child to wait for"))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("a pipe");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Kills the program when the wait for it panics.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
