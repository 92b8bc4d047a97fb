//! Faults at every step against the disk, for tests: built with the feature `failpoints` only.
//!
//! Each [`Point`] is passed as `<name>::before` and, if the step went well, as `<name>::after`. At each an action in the syntax of the
//! `fail` crate can be armed, by the environment variable `FAILPOINTS` (`name=action;name=action`) at the start, or at run time by
//! `DEBUG FAILPOINT <name> <action>`. `3*off->1*kill` lets three pass and ends the process at the fourth. Beside the actions of `fail`:
//!
//! | action | what happens |
//! | --- | --- |
//! | `eio` | the step fails with EIO; what an error after the step means, the caller cannot know |
//! | `enospc` | it fails with ENOSPC |
//! | `exdev` | it fails with EXDEV, as a rename to another file system does |
//! | `short` | a write leaves half of its bytes and fails with EIO; any other step fails with EIO |
//! | `torn` | a write leaves half of its bytes, and the process is killed; at any other step it is killed |
//! | `kill` | the process is killed (SIGKILL): nothing is flushed, nothing is said |

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Point;

const ENVIRONMENT: &str = "FAILPOINTS";

/// How often a fault struck before and after each point, in the order of [`Point::ALL`].
static STRUCK: [[AtomicU64; 2]; Point::ALL.len()] = [const { [const { AtomicU64::new(0) }; 2] }; Point::ALL.len()];

/// What an armed action does.
#[derive(Clone, Copy)]
enum Fault {
    Error(Errno),
    Short,
    Torn,
    Kill,
}

impl Fault {
    const NAMES: [(&str, Fault); 6] = [
        ("eio", Fault::Error(Errno::EIO)),
        ("enospc", Fault::Error(Errno::ENOSPC)),
        ("exdev", Fault::Error(Errno::EXDEV)),
        ("short", Fault::Short),
        ("torn", Fault::Torn),
        ("kill", Fault::Kill),
    ];

    fn named(name: &str) -> Option<Fault> {
        Fault::NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault)
    }

    fn is_partial(self) -> bool {
        matches!(self, Fault::Short | Fault::Torn)
    }

    fn strike(self) -> io::Error {
        match self {
            Fault::Error(errno) => errno.into(),
            Fault::Short => Errno::EIO.into(),
            Fault::Torn | Fault::Kill => {
                let _ = kill(Pid::this(), Signal::SIGKILL);
                // No thread goes on after that, this one least of all.
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

pub(super) fn before(point: Point) -> io::Result<()> {
    fired(point, point.before(), 0).map_or(Ok(()), |fault| Err(fault.strike()))
}

pub(super) fn before_write(
    point: Point,
    bytes: &[u8],
    write: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let Some(fault) = fired(point, point.before(), 0) else { return Ok(()) };
    if fault.is_partial() {
        write(&bytes[..bytes.len() / 2])?;
    }
    Err(fault.strike())
}

pub(super) fn after(point: Point) -> io::Result<()> {
    fired(point, point.after(), 1).map_or(Ok(()), |fault| Err(fault.strike()))
}

fn fired(point: Point, name: &str, side: usize) -> Option<Fault> {
    let armed = || -> Option<Fault> {
        fail::fail_point!(name, |fault| {
            Some(fault.and_then(|name| Fault::named(&name)).unwrap_or(Fault::Error(Errno::EIO)))
        });
        None
    };
    let fault = armed()?;
    STRUCK[point as usize][side].fetch_add(1, Ordering::Relaxed);
    Some(fault)
}

/// Arms what the environment variable `FAILPOINTS` says; without one, nothing.
pub fn arm_from_environment() -> Result<(), String> {
    let Ok(all) = std::env::var(ENVIRONMENT) else { return Ok(()) };
    for one in all.split(';').map(str::trim).filter(|one| !one.is_empty()) {
        let (name, action) = one.split_once('=').ok_or_else(|| format!("{ENVIRONMENT}: no action in \"{one}\""))?;
        arm(name.trim(), action.trim()).map_err(|e| format!("{ENVIRONMENT}: {e}"))?;
    }
    Ok(())
}

/// Arms a failpoint from now on; `off` disarms it.
pub fn arm(name: &str, action: &str) -> Result<(), String> {
    find(name).ok_or_else(|| format!("no failpoint \"{name}\""))?;
    let tasks: Vec<String> = action.split("->").map(|task| spelled_out(task.trim())).collect();
    fail::cfg(name, &tasks.join("->"))
}

/// `1*kill` as `fail` knows it, `1*return(kill)`.
fn spelled_out(task: &str) -> String {
    let at = task.rfind(['*', '%']).map_or(0, |at| at + 1);
    let (count, action) = task.split_at(at);
    match Fault::named(action) {
        Some(_) => format!("{count}return({action})"),
        None => task.to_string(),
    }
}

/// How often a fault struck there since the process began; `None` for a name that is no failpoint's.
pub fn struck(name: &str) -> Option<u64> {
    find(name).map(|(point, side)| STRUCK[point as usize][side].load(Ordering::Relaxed))
}

fn find(name: &str) -> Option<(Point, usize)> {
    let sides = |point: &Point| [(point.before(), (*point, 0)), (point.after(), (*point, 1))];
    Point::ALL.iter().flat_map(sides).find(|(known, _)| *known == name).map(|(_, found)| found)
}
