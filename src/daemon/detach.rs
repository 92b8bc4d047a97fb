//! Going to the background without forking: the process starts itself again as the daemon, in a session of its own,
//! and waits until that one is ready or has failed.
//!
//! The daemon's standard output leads to the waiting process until it is ready; one line on it says so. What it
//! writes to standard error until then is why it failed. Afterwards both lead nowhere.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use nix::unistd;

/// What the daemon writes to its standard output once it serves.
const READY: &str = "ready\n";

/// Why no daemon came up.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot start the daemon: {0}")]
    Io(#[from] io::Error),
    /// The daemon's own words.
    #[error("{0}")]
    Failed(String),
}

/// Starts this program again as a daemon: `flag` (which must make it call [`Detached::enter`]), then this process's
/// own arguments. Returns when the daemon is ready, or with its error once it has ended.
pub fn launch(flag: &str) -> Result<(), LaunchError> {
    let mut daemon = Command::new(std::env::current_exe()?)
        .arg(flag)
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Its errors are read meanwhile, so that many of them cannot stop it.
    let stderr = daemon.stderr.take();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            // What was read before an error is all there is to show.
            let _ = stderr.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut line = String::new();
    if let Some(stdout) = daemon.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line == READY {
        return Ok(());
    }
    let status = daemon.wait()?;
    let errors = errors.join().unwrap_or_default();
    Err(LaunchError::Failed(match errors.trim() {
        "" => format!("the daemon ended before it was ready ({status})"),
        errors => errors.strip_prefix("haypile: ").unwrap_or(errors).to_string(),
    }))
}

/// The daemon's side of [`launch`].
#[must_use = "the launching process waits for `ready`"]
pub struct Detached(());

impl Detached {
    /// Leaves the terminal: from here on this process leads a session of its own.
    pub fn enter() -> io::Result<Self> {
        unistd::setsid()?;
        Ok(Detached(()))
    }

    /// Tells the launching process that the server is ready, and lets go of its standard output and error.
    pub fn ready(self) -> io::Result<()> {
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let mut stdout = io::stdout();
        // The launching process may be gone (Ctrl-C); that is no reason to stop.
        let _ = stdout.write_all(READY.as_bytes()).and_then(|()| stdout.flush());
        unistd::dup2_stdout(&null)?;
        unistd::dup2_stderr(&null)?;
        Ok(())
    }
}
