//! Checking one slot of a data folder: its generations, its engine, its log.

use std::path::{Path, PathBuf};

use super::engine::{self, Placement};
use super::log::{self, Expected, Told};
use super::report::{Report, Severity};
use super::{Scope, advice};
use crate::keyspace::{self, Layout};
use crate::tools::Error;

/// Where a slot is, and what is known of the node.
pub struct Slot<'s> {
    pub db_path: &'s Path,
    pub binlog_path: &'s Path,
    pub db: usize,
    pub number: usize,
    /// Slots a database, where known.
    pub slots: Option<usize>,
    pub leading_from: Option<u32>,
}

impl Slot<'_> {
    fn sub(&self) -> PathBuf {
        Path::new(&format!("db{}", self.db)).join(self.number.to_string())
    }
}

/// Checks a slot; `None` for one without data.
pub fn check(slot: &Slot<'_>, report: &mut Report<'_, '_>) -> Result<Option<Told>, Error> {
    let scope = Scope::of_slot(slot.db, slot.number);
    report.begin(scope.name.as_deref().unwrap_or_default());
    let data = slot.db_path.join(slot.sub());
    let layout = Layout::new(slot.db_path, slot.binlog_path, slot.db, slot.number);
    if let Some(slots) = slot.slots.filter(|slots| slot.number >= *slots) {
        let what = format!("there are {slots} slots: the server does not look into this folder");
        report.add(scope.finding(Severity::Damage, &data, what, advice::LOST))?;
    }
    let current = match layout.read_current() {
        Ok(current) => current,
        Err(e @ keyspace::Error::Damaged { .. }) => {
            report.add(scope.finding(Severity::Damage, &data.join("CURRENT"), reason(&e), "The server will not start: \
                restore the slot's folders from a save, or move both away and take the slot from another node by a full sync"))?;
            return Ok(Some(Told { end: keyspace::inspect::UNKNOWN_END, multis: Vec::new() }));
        }
        Err(e) => return Err(e.into()),
    };
    for unused in layout.unused_folders(current)? {
        let what = "a generation that is not in use, left by a crash";
        report.add(scope.finding(Severity::Note, &unused, what, "The next start removes it"))?;
    }
    let Some(current) = current else { return Ok(None) };
    report.totals.slots += 1;
    let (engine_dir, log_dir) = (layout.engine_dir(current.engine), layout.log_dir(current.log));
    let is_first = (slot.db, slot.number) == (0, 0);
    let placement = slot.slots.map(|slots| Placement { slot: slot.number, slots, is_first });
    let applied = match engine_dir.is_dir() {
        true => engine::check(&engine_dir, placement, &scope, report)?,
        false => {
            report.add(scope.finding(Severity::Damage, &engine_dir, "the engine is missing", advice::LOST))?;
            None
        }
    };
    if !log_dir.is_dir() {
        report.add(scope.finding(Severity::Damage, &log_dir, "the log is missing", advice::LOST))?;
        return Ok(Some(Told { end: keyspace::inspect::UNKNOWN_END, multis: Vec::new() }));
    }
    let key = u16::try_from(slot.db).ok().zip(u16::try_from(slot.number).ok());
    let expected = Expected { scope: &scope, slot: key, applied, leading_from: slot.leading_from };
    log::check(&log_dir, &expected, report).map(Some)
}

/// An error without the path that stands before it in the line.
pub fn reason(error: &keyspace::Error) -> String {
    match error {
        keyspace::Error::Damaged { why, .. } => why.clone(),
        other => other.to_string(),
    }
}
