//! The binlog files that a file or folder on the command line means.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use crate::binlog::{list_files, parse_file_name};

/// How files saved under `diverged/` end.
const SAVED: &str = ".binlog";

/// A slot by database and number.
pub type SlotKey = (u64, u64);

/// One binlog file.
#[derive(Clone, Debug)]
pub struct LogFile {
    pub path: PathBuf,
    /// As its name says; `None` for a file saved under another one.
    pub filenum: Option<u32>,
    /// Whether no file of the same log follows it: it may end in a record that is not whole.
    pub is_last: bool,
}

/// Files of one log that follow each other.
#[derive(Clone, Debug)]
pub struct Log {
    /// The slot, as far as the folders' names tell.
    pub slot: Option<SlotKey>,
    /// The folder, as it was named.
    pub dir: PathBuf,
    pub files: Vec<LogFile>,
}

impl Log {
    /// `db0:3`, or the folder where that is not known.
    pub fn name(&self) -> String {
        self.slot.map_or_else(|| self.dir.display().to_string(), |(db, slot)| format!("db{db}:{slot}"))
    }
}

/// All binlog files that `paths` name or, if they are folders, hold at any depth; in the order of slots and file numbers.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Log>, Error> {
    let mut logs = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(Error::io(path))?;
        if meta.is_dir() {
            let before = logs.len();
            walk(path, &mut logs)?;
            if logs.len() == before {
                return Err(Error::Refused(format!(
                    "{}: no binlog file is in there; name a file, a slot's folder, or the binlog folder",
                    path.display()
                )));
            }
        } else {
            add_file(path, &mut logs)?;
        }
    }
    logs.sort_by(|a, b| (a.slot, &a.dir).cmp(&(b.slot, &b.dir)));
    Ok(logs)
}

fn add_file(path: &Path, logs: &mut Vec<Log>) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(filenum) = parse_file_name(&name) else {
        logs.push(saved(path, dir));
        return Ok(());
    };
    let is_last = list_files(dir)?.into_keys().next_back() == Some(filenum);
    let file = LogFile { path: path.to_path_buf(), filenum: Some(filenum), is_last };
    match logs.iter_mut().find(|log| log.dir == dir && log.files.iter().all(|file| file.filenum.is_some())) {
        Some(log) => {
            log.files.push(file);
            log.files.sort_by_key(|file| file.filenum);
            log.files.dedup_by_key(|file| file.filenum);
        }
        None => logs.push(Log { slot: slot_of(dir), dir: dir.to_path_buf(), files: vec![file] }),
    }
    Ok(())
}

/// A file that is a log by itself.
fn saved(path: &Path, dir: &Path) -> Log {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // `db0-3-after-150000-1769903999123.binlog`
    let mut parts = name.split('-');
    let slot =
        parts.next().and_then(|db| db.strip_prefix("db")?.parse().ok()).zip(parts.next().and_then(|n| n.parse().ok()));
    let file = LogFile { path: path.to_path_buf(), filenum: None, is_last: true };
    Log { slot, dir: dir.to_path_buf(), files: vec![file] }
}

fn walk(dir: &Path, logs: &mut Vec<Log>) -> Result<(), Error> {
    let mut folders = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        let kind = entry.file_type().map_err(Error::io(dir))?;
        let name = entry.file_name();
        if kind.is_dir() {
            folders.insert(name, entry.path());
        } else if name.to_string_lossy().ends_with(SAVED) {
            logs.push(saved(&entry.path(), dir));
        }
    }
    logs.extend(log_in(dir)?);
    folders.into_values().try_for_each(|folder| walk(&folder, logs))
}

/// The log whose files lie in `dir` itself.
pub fn log_in(dir: &Path) -> Result<Option<Log>, Error> {
    let files: Vec<u32> = list_files(dir)?.into_keys().collect();
    let Some(&last) = files.last() else { return Ok(None) };
    let file = |filenum: u32| LogFile {
        path: crate::binlog::file_path(dir, filenum),
        filenum: Some(filenum),
        is_last: filenum == last,
    };
    Ok(Some(Log { slot: slot_of(dir), dir: dir.to_path_buf(), files: files.into_iter().map(file).collect() }))
}

/// The slot of a log folder: `…/db0/3/log-000001`.
fn slot_of(dir: &Path) -> Option<SlotKey> {
    let dir = dir.canonicalize().ok()?;
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_string());
    name(&dir)?.strip_prefix("log-")?;
    let slot = dir.parent()?;
    let db = slot.parent()?;
    Some((name(db)?.strip_prefix("db")?.parse().ok()?, name(slot)?.parse().ok()?))
}
