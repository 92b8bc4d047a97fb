//! Taking one slot's snapshot: the engine's checkpoint and the `info` file beside it.

use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{DATA, Error, INFO, Info};
use crate::config::Config;
use crate::disk::{self, Point, Replace};
use crate::engine::Engine;
use crate::keyspace::{self, NEVER_WRITTEN, Slot};

/// The node that snapshots are taken on, as their `info` files name it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// What the conf file says: the address announced, or else the first that is listened on.
    pub fn of(config: &Config) -> Origin {
        let host = match &*config.announce_ip() {
            "" => config.bind().first().map(ToString::to_string).unwrap_or_default(),
            announced => announced.replace(char::is_control, ""),
        };
        Origin { host, port: if config.announce_port() == 0 { config.port() } else { config.announce_port() } }
    }
}

/// Takes a snapshot of a slot into the new folder `folder`: `data/`, hard links to the engine's files where the file system
/// allows, and `info`. Durable when it returns, but for the folder's own entry in its parent. Blocks.
pub(super) fn take(slot: &Slot, folder: &Path, origin: &Origin) -> Result<Info, Error> {
    let began = Instant::now();
    let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    disk::create_dir_all(Point::SnapshotCreateDir, folder).map_err(Error::io(folder))?;
    let applied = slot.checkpoint(&folder.join(DATA))?;
    let info = Info {
        slot: slot.to_string(),
        taken,
        seconds: began.elapsed().as_secs(),
        host: origin.host.clone(),
        port: origin.port,
        applied: applied.unwrap_or(NEVER_WRITTEN),
        empty: applied.is_none(),
    };
    let path = folder.join(INFO);
    disk::replace_file(&Replace::SNAPSHOT_INFO, &path, info.encode().as_bytes()).map_err(Error::io(&path))?;
    Ok(info)
}

/// Reads all of the snapshot in `folder` that [`take`] put there: an error names file and offset of what is damaged. Blocks as long
/// as that takes, or until `stop`.
pub(super) fn verify(folder: &Path, stop: &dyn Fn() -> bool) -> Result<(), Error> {
    let data = folder.join(DATA);
    if data.exists() {
        Engine::verify(&data, stop).map_err(keyspace::Error::from)?;
    }
    if stop() { Err(Error::Stopping) } else { Ok(()) }
}
