//! What a slot has on disk: generations of engine and binlog, and the file that says which ones are valid.
//!
//! ```text
//! <db-path>/db0/3/CURRENT              names the generations; replaced by rename, so always whole
//! <db-path>/db0/3/engine-000002/       a RocksDB
//! <binlog-path>/db0/3/log-000001/      binlog files
//! ```
//!
//! Taking a slot's data away or replacing it (FLUSHDB, a full sync) builds a new generation beside the
//! old one and then replaces CURRENT: a crash at any moment leaves the old or the new, never a mixture. Folders
//! that CURRENT does not name are leftovers and go when the slot is opened.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::binlog;
use crate::disk::{self, Point, Replace};

const CURRENT: &str = "CURRENT";
const HEADER: &str = "haypile slot 1";
const ENGINE_PREFIX: &str = "engine-";
const LOG_PREFIX: &str = "log-";
const DAMAGED_PREFIX: &str = "damaged-";

/// The folders of one slot.
#[derive(Debug)]
pub struct Layout {
    /// `<db-path>/db0/3`
    data: PathBuf,
    /// `<binlog-path>/db0/3`
    logs: PathBuf,
}

/// Which generations are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    pub engine: u64,
    pub log: u64,
}

impl Layout {
    /// Of a slot of a database on disk.
    pub fn new(db_path: &Path, binlog_path: &Path, db: usize, slot: usize) -> Layout {
        let sub = format!("db{db}/{slot}");
        Layout { data: db_path.join(&sub), logs: binlog_path.join(&sub) }
    }

    /// Where a generation of the engine is.
    pub fn engine_dir(&self, generation: u64) -> PathBuf {
        self.data.join(format!("{ENGINE_PREFIX}{generation:06}"))
    }

    /// Where a generation of the log is.
    pub fn log_dir(&self, generation: u64) -> PathBuf {
        self.logs.join(format!("{LOG_PREFIX}{generation:06}"))
    }

    /// `<db-path>/DATABASES`.
    pub fn databases_copy(&self) -> PathBuf {
        self.data.ancestors().nth(2).unwrap_or(&self.data).join("DATABASES")
    }

    /// Keeps a log that was replaced because it, or its engine, is damaged: under a name that the server never removes. Returns where.
    pub fn set_aside(&self, log: &Path, generation: u64) -> Result<PathBuf, Error> {
        let aside = self.logs.join(format!("{DAMAGED_PREFIX}{generation:06}"));
        disk::rename(Point::DivergedRename, log, &aside).map_err(Error::io(log))?;
        Ok(aside)
    }

    /// Removes the folders of these generations, which CURRENT must not name.
    pub fn remove(&self, generations: Current) -> Result<(), Error> {
        [self.engine_dir(generations.engine), self.log_dir(generations.log)]
            .iter()
            .try_for_each(|dir| disk::remove_dir(Point::GenerationRetire, dir).map_err(Error::io(dir)))
    }

    /// Generations that no folder has, named by CURRENT or not.
    pub fn unused(&self) -> Result<Current, Error> {
        let after_last = |found: Vec<(PathBuf, u64)>| found.into_iter().map(|(_, n)| n).max().unwrap_or(0) + 1;
        Ok(Current {
            engine: after_last(generations(&self.data, ENGINE_PREFIX)?),
            log: after_last(generations(&self.logs, LOG_PREFIX)?)
                .max(after_last(generations(&self.logs, DAMAGED_PREFIX)?)),
        })
    }

    /// Creates the slot's folders, durably.
    pub fn create_dirs(&self) -> Result<(), Error> {
        for dir in [&self.data, &self.logs] {
            disk::create_dir_all(Point::SlotCreateDir, dir).map_err(Error::io(dir))?;
            // The folder itself, its database's folder and that of all databases may be new, also when a killed process made them.
            for parent in dir.ancestors().skip(1).take(3).filter(|parent| !parent.as_os_str().is_empty()) {
                disk::sync_dir(Point::SlotSyncDir, parent).map_err(Error::io(parent))?;
            }
        }
        Ok(())
    }

    /// Makes `current` the valid generations. Durable when it returns.
    pub fn set_current(&self, current: Current) -> Result<(), Error> {
        // What it names first: names in one folder may come to the disk in any order.
        disk::sync_dir(Point::SlotSyncDir, &self.data).map_err(Error::io(&self.data))?;
        let text = format!("{HEADER}\nengine : {}\nbinlog : {}\n", current.engine, current.log);
        let path = self.data.join(CURRENT);
        disk::replace_file(&Replace::CURRENT, &path, text.as_bytes()).map_err(Error::io(&path))
    }

    /// Whether these are the valid generations for certain.
    pub fn is_current(&self, current: Current) -> bool {
        fs::read_to_string(self.data.join(CURRENT)).is_ok_and(|text| parse(&text) == Some(current))
    }

    /// The valid generations; `None` for a slot that was never written. Removes what a crash left behind.
    pub fn load_current(&self) -> Result<Option<Current>, Error> {
        let current = self.read_current()?;
        self.remove_others(current)?;
        Ok(current)
    }

    /// [`Layout::load_current`], changing nothing.
    pub fn read_current(&self) -> Result<Option<Current>, Error> {
        let path = self.data.join(CURRENT);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(parse(&text).ok_or_else(|| Error::damaged(&path, "malformed"))?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.refuse_orphans()?;
                Ok(None)
            }
            Err(e) => Err(Error::io(&path)(e)),
        }
    }

    /// The folders that `current` does not name: what a crash left, and the next start removes.
    pub fn unused_folders(&self, current: Option<Current>) -> Result<Vec<PathBuf>, Error> {
        let engines =
            generations(&self.data, ENGINE_PREFIX)?.into_iter().map(|found| (found, current.map(|c| c.engine)));
        let logs = generations(&self.logs, LOG_PREFIX)?.into_iter().map(|found| (found, current.map(|c| c.log)));
        let unused = engines.chain(logs).filter(|((_, generation), named)| *named != Some(*generation));
        Ok(unused.map(|((dir, _), _)| dir).collect())
    }

    /// Without CURRENT there can only be what the interrupted creation of a slot leaves: a log without records. Anything else
    /// means that CURRENT was lost, and deleting what is there could delete the only copy.
    fn refuse_orphans(&self) -> Result<(), Error> {
        for (dir, _) in generations(&self.logs, LOG_PREFIX)? {
            if binlog::holds_records(&dir)? {
                let why =
                    format!("is missing, but {} holds records; refusing to take the slot for empty", dir.display());
                return Err(Error::damaged(&self.data.join(CURRENT), why));
            }
        }
        Ok(())
    }

    fn remove_others(&self, current: Option<Current>) -> Result<(), Error> {
        let remove = |dir: &PathBuf| disk::remove_dir(Point::SlotRemoveLeftover, dir).map_err(Error::io(dir));
        self.unused_folders(current)?.iter().try_for_each(remove)
    }
}

pub(crate) fn parse(text: &str) -> Option<Current> {
    let mut lines = text.lines();
    if lines.next()? != HEADER {
        return None;
    }
    let engine = lines.next()?.strip_prefix("engine : ")?.parse().ok()?;
    let log = lines.next()?.strip_prefix("binlog : ")?.parse().ok()?;
    Some(Current { engine, log })
}

/// The folders in `dir` with this prefix and a number; none if there is no such folder.
fn generations(dir: &Path, prefix: &str) -> Result<Vec<(PathBuf, u64)>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(dir)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(dir))?;
        let name = entry.file_name();
        if let Some(n) = name.to_str().and_then(|n| n.strip_prefix(prefix)).and_then(|n| n.parse().ok()) {
            found.push((entry.path(), n));
        }
    }
    Ok(found)
}

/// Moves a folder to a place that may be on another file system. Not durable by itself.
pub(super) fn move_dir(from: &Path, to: &Path) -> Result<(), Error> {
    match disk::rename(Point::InstallRename, from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other.map_err(Error::io(from)),
    }
    disk::create_dir_all(Point::InstallCreateDir, to).map_err(Error::io(to))?;
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        let entry = entry.map_err(Error::io(from))?;
        let target = to.join(entry.file_name());
        disk::copy(Point::InstallCopy, &entry.path(), &target).map_err(Error::io(&target))?;
        fs::File::open(&target).and_then(|f| disk::sync_all(Point::InstallSync, &f)).map_err(Error::io(&target))?;
    }
    disk::remove_dir(Point::InstallRemove, from).map_err(Error::io(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::{Draft, Position, Writer};

    #[test]
    fn leftovers_go_and_lost_data_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("db"), &dir.path().join("binlog"), 0, 3);
        assert_eq!(layout.load_current().unwrap(), None);
        layout.create_dirs().unwrap();
        fs::create_dir(layout.engine_dir(1)).unwrap();
        assert_eq!(layout.load_current().unwrap(), None);
        assert!(!layout.engine_dir(1).exists());

        fs::create_dir(layout.engine_dir(1)).unwrap();
        fs::create_dir(layout.engine_dir(2)).unwrap();
        fs::create_dir(layout.log_dir(1)).unwrap();
        let current = Current { engine: 2, log: 1 };
        layout.set_current(current).unwrap();
        assert_eq!(layout.load_current().unwrap(), Some(current));
        assert!(!layout.engine_dir(1).exists() && layout.engine_dir(2).exists() && layout.log_dir(1).exists());

        // A log that was begun in the middle of a master's, and holds nothing yet: what the kill of a first full sync leaves.
        fs::remove_file(layout.data.join(CURRENT)).unwrap();
        let start = Position { filenum: 7, offset: 5000, term: 1, index: 9, chain: 3 };
        let mut writer = Writer::create(&layout.log_dir(2), start, u64::MAX).unwrap();
        assert_eq!(layout.load_current().unwrap(), None);

        let mut writer_again = Writer::create(&layout.log_dir(2), start, u64::MAX).unwrap();
        std::mem::swap(&mut writer, &mut writer_again);
        writer.append([&Draft::new(1)].into_iter(), 1).unwrap();
        assert!(layout.load_current().is_err());
        fs::write(layout.data.join(CURRENT), "haypile slot 2\n").unwrap();
        assert!(layout.load_current().is_err());
    }
}
