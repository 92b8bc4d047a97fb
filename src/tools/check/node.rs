//! Checking a data folder: what is in which of its folders, and what concerns several slots.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::report::{Finding, Report, Severity};
use super::slot::{self, Slot};
use super::{Scope, save, tree_size};
use crate::config::Config;
use crate::keyspace::inspect::{Multi, SlotKey, torn_writes};
use crate::replication::{NodeState, NodeStateError};
use crate::tools::{Error, files, text};

/// The settings of the node in `dir`: the paths of its folders.
pub fn config(dir: &Path, conf: Option<&Path>) -> Result<Config, Error> {
    let dir = dir.to_str().ok_or_else(|| Error::Refused(format!("{}: the name is not UTF-8", dir.display())))?;
    Ok(Config::load(conf, &[("dir".to_string(), dir.to_string())])?)
}

/// Checks the data folder `dir`.
pub fn check(dir: &Path, config: &Config, dumps: bool, report: &mut Report<'_, '_>) -> Result<(), Error> {
    let (db_path, binlog_path) = (shown(dir, &config.db_path()), shown(dir, &config.binlog_path()));
    let (dump_path, sync_path) = (shown(dir, &config.dump_path()), shown(dir, &config.db_sync_path()));
    report.expect(tree_size(&db_path) + tree_size(&binlog_path) + tree_size(&dir.join("diverged")));
    report.expect(if dumps { tree_size(&dump_path) } else { 0 });
    let node = node_state(dir, report)?;
    let slots_per_database = layout(&db_path, report)?;
    let leading_from = node.as_ref().and_then(|node| node.leading_from);
    let mut slots: BTreeSet<(usize, usize)> = save::slots_in(&db_path)?.into_iter().collect();
    slots.extend(save::slots_in(&binlog_path)?);
    let mut told: Vec<(SlotKey, u64, Vec<Multi>)> = Vec::new();
    for (db, number) in slots {
        let slot =
            Slot { db_path: &db_path, binlog_path: &binlog_path, db, number, slots: slots_per_database, leading_from };
        if let (Some(found), Ok(db), Ok(number)) = (slot::check(&slot, report)?, db.try_into(), number.try_into()) {
            told.push(((db, number), found.end, found.multis));
        }
    }
    torn(&told, &binlog_path, report)?;
    for &(db, number) in node.iter().flat_map(|node| &node.full_sync) {
        let scope = Scope::of_slot(db, number);
        let what =
            "the slot takes its master's data whole before anything else: a full sync was begun and has not ended";
        report.add(scope.finding(Severity::Note, &dir.join("NODE"), what, ""))?;
    }
    save::check_receive_folders(&sync_path, report)?;
    if dumps {
        save::check_dumps(&dump_path, report)?;
    }
    let diverged = dir.join("diverged");
    if diverged.is_dir() {
        match files::find(&[diverged]) {
            Ok(logs) => save::check_logs(&logs, report)?,
            // None there.
            Err(Error::Refused(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The path as below the folder's name on the command line, if it lies there.
fn shown(dir: &Path, path: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_default();
    path.strip_prefix(&absolute).map_or_else(|_| path.to_path_buf(), |rest| dir.join(rest))
}

fn node_state(dir: &Path, report: &mut Report<'_, '_>) -> Result<Option<NodeState>, Error> {
    let path = dir.join("NODE");
    match NodeState::read(dir) {
        Ok(Some(node)) => Ok(Some(node)),
        Ok(None) => {
            let what = "the node does not remember its term, master and history";
            let advice = "The next start begins a new history: its replicas need slaveof HOST PORT force";
            report.add(Finding::new(Severity::Warning, None, &path, what, advice))?;
            Ok(None)
        }
        Err(NodeStateError::Io { path, source }) if source.kind() != io::ErrorKind::InvalidData => {
            Err(Error::io(&path)(source))
        }
        Err(e) => {
            let what = match e {
                NodeStateError::Malformed { line, .. } => format!("malformed line \"{}\"", line.escape_debug()),
                NodeStateError::Io { source, .. } => source.to_string(),
            };
            let advice = "The server will not start: restore the file from a copy, or remove it; \
                then it begins a new history and its replicas need slaveof HOST PORT force";
            report.add(Finding::new(Severity::Damage, None, &path, what, advice))?;
            Ok(None)
        }
    }
}

/// Slots a database, as LAYOUT says.
fn layout(db_path: &Path, report: &mut Report<'_, '_>) -> Result<Option<usize>, Error> {
    let path = db_path.join("LAYOUT");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let what = "missing: which slot a key belongs to is not known";
            let advice = "Start with the slot-num that the data were written with, which writes it anew";
            return report.add(Finding::new(Severity::Damage, None, &path, what, advice)).map(|()| None);
        }
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let slots = text.strip_prefix("slot-num : ").and_then(|n| n.strip_suffix('\n')?.parse().ok()).filter(|n| *n > 0);
    if slots.is_none() {
        let what = format!("malformed: \"{}\"", text.escape_debug());
        let advice = "The server will not start: write into it one line, \"slot-num : N\", with the N of the conf file";
        report.add(Finding::new(Severity::Damage, None, &path, what, advice))?;
    }
    Ok(slots)
}

/// Writes over several slots that a start would take back.
fn torn(told: &[(SlotKey, u64, Vec<Multi>)], binlog_path: &Path, report: &mut Report<'_, '_>) -> Result<(), Error> {
    let ends: HashMap<SlotKey, u64> = told.iter().map(|(slot, end, _)| (*slot, *end)).collect();
    let multis: Vec<(SlotKey, &[Multi])> = told.iter().map(|(slot, _, multis)| (*slot, multis.as_slice())).collect();
    let mut cuts: Vec<_> = torn_writes(&multis, ends.clone()).into_iter().collect();
    cuts.sort_by_key(|(slot, _)| *slot);
    for ((db, number), cut) in cuts {
        let scope = Scope::of_slot(db.into(), number.into());
        let records = ends.get(&(db, number)).map_or(0, |end| end.saturating_sub(cut.index));
        let s = text::plural(records);
        let what = format!(
            "the last {records} record{s}, after {cut}, belong to a write over several slots that not all of them have"
        );
        let path = binlog_path.join(format!("db{db}/{number}"));
        let advice = "A crash interrupted it and nobody was told that it succeeded: the next start takes it back";
        report.add(scope.finding(Severity::Warning, &path, what, advice))?;
    }
    Ok(())
}

/// A slot's folder below a data folder, by itself.
pub struct SlotFolder {
    pub db_path: PathBuf,
    pub binlog_path: PathBuf,
    /// `db0/3`
    pub sub: PathBuf,
    db: usize,
    number: usize,
}

impl SlotFolder {
    /// `<db-path>/db0/3`, if `dir` is that. The log is looked for where the default paths have it.
    pub fn of(dir: &Path) -> Option<SlotFolder> {
        let text = fs::read_to_string(dir.join("CURRENT")).ok()?;
        if !text.starts_with("haypile slot ") {
            return None;
        }
        let dir = dir.canonicalize().ok()?;
        let number = dir.file_name()?.to_str()?.to_string();
        let database = dir.parent()?.file_name()?.to_str()?.to_string();
        let db_path = dir.parent()?.parent()?;
        Some(SlotFolder {
            db: database.strip_prefix("db")?.parse().ok()?,
            sub: Path::new(&database).join(&number),
            number: number.parse().ok()?,
            db_path: db_path.to_path_buf(),
            binlog_path: db_path.parent()?.join("binlog"),
        })
    }
}

/// Checks one slot. What needs the logs of others is not.
pub fn check_slot_alone(folder: &SlotFolder, report: &mut Report<'_, '_>) -> Result<(), Error> {
    let slots = layout(&folder.db_path, report)?;
    let SlotFolder { db_path, binlog_path, db, number, .. } = folder;
    let slot = Slot { db_path, binlog_path, db: *db, number: *number, slots, leading_from: None };
    slot::check(&slot, report).map(drop)
}
