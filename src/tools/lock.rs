//! Whether a server runs on a data folder: it holds `<dir>/LOCK`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Error;

/// The state of a data folder's LOCK.
#[derive(Debug)]
pub enum Lock {
    /// There is none: a copy, or a folder that no server ran on.
    Missing,
    /// Taken; no server can start on the folder until it is dropped.
    Taken { _held: Flock<File> },
    /// A server holds it: its process id, if it says so.
    Held { pid: Option<String> },
}

/// Tries to take the LOCK of the data folder `dir`, without changing it.
pub fn take(dir: &Path) -> Result<Lock, Error> {
    let path = dir.join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Lock::Missing),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(held) => Ok(Lock::Taken { _held: held }),
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            Ok(Lock::Held { pid: known.then(|| pid.trim().to_string()) })
        }
        Err((_, errno)) => Err(Error::io(&path)(errno.into())),
    }
}

/// The data folder that a path lies in or is: the nearest folder above with a LOCK or NODE file of a server.
pub fn data_folder_of(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let is_data = |dir: &&Path| dir.join("NODE").is_file() || (dir.join("LOCK").is_file() && dir.join("db").is_dir());
    path.ancestors().find(is_data).map(Path::to_path_buf)
}
