//! Daemon manners: going to the background, the pidfile, log files, signals, the limit of open files.
//!
//! These act on the process as a whole, so only the binary uses them; a [`Server`](crate::server::Server) started by
//! a test needs none, and only asks how many files it may open.

mod detach;
pub mod limits;
mod log_file;
mod logging;
mod pidfile;
mod signals;

pub use detach::{Detached, LaunchError, launch};
pub use limits::{OpenFilesError, raise_open_files};
pub use logging::Logging;
pub use pidfile::PidFile;
pub use signals::{Event, Signals};
