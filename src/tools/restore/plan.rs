//! Which records each slot's log is to have.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Failure;
use crate::binlog::{FILE_HEADER_LEN, Position, Record, decode_body, locate};
use crate::keyspace::inspect::{self, Multi, torn_writes};
use crate::snapshot::{Info, LOG, Manifest, SlotKey, folder_of, inspect::read_info};
use crate::tools::Error;
use crate::tools::files::{Log, log_in};
use crate::tools::scan::{Item, scan};
use crate::tools::text::{Time, parse_time};

/// Up to where something is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Records executed at this time (unix ms) or before.
    Time(u64),
    /// A slot's records up to the one that ends at this file and offset, and those of other slots up to its time.
    Position { slot: SlotKey, filenum: u32, offset: u64 },
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Until, String> {
        let position = |text: &str| {
            let (slot, place) = text.split_once('@')?;
            let (db, number) = slot.strip_prefix("db")?.split_once(':')?;
            let (filenum, offset) = place.split_once(':')?;
            let slot = (db.parse().ok()?, number.parse().ok()?);
            Some(Until::Position { slot, filenum: filenum.parse().ok()?, offset: offset.parse().ok()? })
        };
        match position(text) {
            Some(until) => Ok(until),
            None => parse_time(text).map(Until::Time).map_err(|e| format!("{e}; or a position, db0:3@12:4567")),
        }
    }
}

/// What is restored of a slot.
#[derive(Debug)]
pub struct SlotPlan {
    pub slot: SlotKey,
    /// Whether the save has it: otherwise it was first written later.
    pub saved: bool,
    /// What the engine contains.
    pub from: Position,
    /// Where the log ends.
    pub to: Position,
    /// The folder of the log with the records in between.
    pub log: Option<PathBuf>,
}

impl SlotPlan {
    /// `db0:3`
    pub fn name(&self) -> String {
        format!("db{}:{}", self.slot.0, self.slot.1)
    }
}

/// What is restored.
#[derive(Debug)]
pub struct Plan {
    pub slots: Vec<SlotPlan>,
    /// Where logs were cut because of writes that not all of their slots have.
    pub torn: Vec<(SlotKey, Position)>,
    /// Time of the newest record behind the engines, unix ms.
    pub newest: Option<u64>,
}

/// What was read of a slot's log.
struct Read {
    plan: SlotPlan,
    /// Ends of the records with their times.
    records: Vec<(Position, u64)>,
    multis: Vec<Multi>,
}

impl Plan {
    /// Reads the logs and decides.
    pub fn make(
        manifest: &Manifest,
        save: &Path,
        binlogs: Option<&Path>,
        until: Option<&Until>,
    ) -> Result<Plan, Failure> {
        let sources = sources(manifest, save, binlogs)?;
        let until_time = match until {
            None => None,
            Some(Until::Time(time)) => Some(*time),
            Some(&Until::Position { slot, filenum, offset }) => {
                let source = sources.iter().find(|source| source.slot == slot);
                Some(time_of(source, slot, (filenum, offset))?)
            }
        };
        if let Some(until) = until_time {
            for source in sources.iter().filter(|source| source.saved) {
                let folder = folder_of(save, source.slot);
                let info = read_info(&folder).map_err(Error::io(&folder))?;
                let newest =
                    info.as_deref().and_then(|text| Info::parse(text).ok()).map_or(0, |info| info.applied.time);
                if newest > until {
                    let why = format!(
                        "the save has writes of {} already (in {}): an earlier save is needed for {}",
                        Time(newest),
                        source.name(),
                        Time(until)
                    );
                    return Err(Error::Refused(why).into());
                }
            }
        }
        let mut read = Vec::new();
        for source in sources {
            let place = match until {
                Some(&Until::Position { slot, filenum, offset }) if slot == source.slot => Some((filenum, offset)),
                _ => None,
            };
            let time = if place.is_some() { None } else { until_time };
            read.push(read_log(source, place, time)?);
        }
        Ok(Plan::of(read))
    }

    /// Cuts what not all slots have.
    fn of(read: Vec<Read>) -> Plan {
        let key = |slot: SlotKey| (slot.0 as u16, slot.1 as u16);
        let ends: HashMap<inspect::SlotKey, u64> = read.iter().map(|r| (key(r.plan.slot), r.plan.to.index)).collect();
        let multis: Vec<_> = read.iter().map(|r| (key(r.plan.slot), r.multis.as_slice())).collect();
        let cuts = torn_writes(&multis, ends);
        let mut plan = Plan { slots: Vec::new(), torn: Vec::new(), newest: None };
        for mut slot in read {
            if let Some(&cut) = cuts.get(&key(slot.plan.slot)) {
                slot.plan.to = cut;
                plan.torn.push((slot.plan.slot, cut));
            }
            let kept = slot.records.iter().filter(|(end, _)| end.index <= slot.plan.to.index);
            plan.newest = plan.newest.max(kept.map(|(_, time)| *time).max());
            plan.slots.push(slot.plan);
        }
        plan
    }

    /// Bytes of log to be copied, about.
    pub fn bytes(&self) -> u64 {
        let of_slot = |slot: &SlotPlan| {
            let mut bytes = slot.to.offset.saturating_sub(slot.from.offset);
            if let (Some(log), true) = (&slot.log, slot.to.filenum > slot.from.filenum) {
                let size = |filenum| fs::metadata(crate::binlog::file_path(log, filenum)).map_or(0, |meta| meta.len());
                bytes = slot.to.offset + (slot.from.filenum..slot.to.filenum).map(size).sum::<u64>();
            }
            bytes
        };
        self.slots.iter().map(of_slot).sum()
    }
}

/// Each slot with the folder of the log that goes on from the save.
fn sources(manifest: &Manifest, save: &Path, binlogs: Option<&Path>) -> Result<Vec<SlotPlan>, Failure> {
    let mut sources = Vec::new();
    for saved in &manifest.slots {
        let log = match binlogs {
            Some(binlogs) => Some(log_with(binlogs, saved.slot, saved.from)?),
            None => Some(folder_of(save, saved.slot).join(LOG)).filter(|log| log.is_dir()),
        };
        if log.is_none() && saved.from != saved.to {
            let folder = folder_of(save, saved.slot);
            return Err(Failure::Damaged(format!("{}: the log that MANIFEST names is missing", folder.display())));
        }
        // In the save itself the log has to reach as far as it says; elsewhere it goes on for as long as it does.
        sources.push(SlotPlan { slot: saved.slot, saved: true, from: saved.from, to: saved.to, log });
    }
    if let Some(binlogs) = binlogs {
        let root = root_of(binlogs);
        for db in 0..manifest.databases {
            for number in 0..manifest.slot_num {
                let known = manifest.slots.iter().any(|saved| saved.slot == (db, number));
                let folder = root.join(format!("db{db}/{number}"));
                if !known && folder.is_dir() {
                    let log = log_with(binlogs, (db, number), Position::START)?;
                    let (from, to) = (Position::START, Position::START);
                    sources.push(SlotPlan { slot: (db, number), saved: false, from, to, log: Some(log) });
                }
            }
        }
    }
    Ok(sources)
}

/// The folder of binlogs in what was named.
fn root_of(binlogs: &Path) -> PathBuf {
    let inside = binlogs.join("binlog");
    if inside.is_dir() { inside } else { binlogs.to_path_buf() }
}

/// The slot's log in which `from` is the end of a record.
fn log_with(binlogs: &Path, slot: SlotKey, from: Position) -> Result<PathBuf, Error> {
    let folder = root_of(binlogs).join(format!("db{}/{}", slot.0, slot.1));
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let why = format!("{} has no binlog of db{}:{}", binlogs.display(), slot.0, slot.1);
            return Err(Error::Refused(why));
        }
        Err(e) => return Err(Error::io(&folder)(e)),
    };
    // The newest generation first: a log is replaced as a whole by a full sync.
    let mut logs: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    logs.sort();
    for log in logs.into_iter().rev() {
        if locate(&log, from.filenum, from.offset).is_ok_and(|found| found == Some(from)) {
            return Ok(log);
        }
    }
    Err(Error::Refused(format!(
        "{}: no log there goes on from {from}, where the save ends: it was purged, or belongs to another node or time",
        folder.display()
    )))
}

/// Calls `f` with the records behind `from` and the positions before them, until it breaks off. Damage is an error; a torn tail ends it.
fn each_record(
    log: &Path,
    from: Position,
    f: &mut dyn FnMut(Position, &Record<'_>) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let Some(Log { mut files, .. }) = log_in(log)? else { return Ok(()) };
    files.retain(|file| file.filenum.is_some_and(|filenum| filenum >= from.filenum));
    let mut at = from;
    let mut failure = None;
    let mut done = false;
    for (nth, file) in files.iter().enumerate() {
        let path = file.path.display();
        let found = scan(file, false, &mut |item| {
            Ok(match item {
                Item::Start(start) => {
                    let expected = Position { filenum: at.filenum + 1, offset: FILE_HEADER_LEN, ..at };
                    if nth > 0 && start != expected {
                        failure = Some(Failure::Damaged(format!("{path} does not continue the file before it")));
                        return Ok(ControlFlow::Break(()));
                    }
                    if nth > 0 {
                        at = start;
                    }
                    ControlFlow::Continue(())
                }
                Item::Record(_, record) if record.end.index <= from.index => ControlFlow::Continue(()),
                Item::Record(before, record) => {
                    at = record.end;
                    let step = f(before, &record);
                    done = step.is_break();
                    step
                }
                Item::Damage(damage) => {
                    failure = Some(Failure::Damaged(format!("{path}: {} at offset {}", damage.why, damage.offset)));
                    ControlFlow::Break(())
                }
            })
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if done || found.torn.is_some() {
            break;
        }
    }
    Ok(())
}

/// The time of the record of this slot that ends at this place.
fn time_of(source: Option<&SlotPlan>, slot: SlotKey, place: (u32, u64)) -> Result<u64, Failure> {
    let mut time = None;
    if let Some(SlotPlan { log: Some(log), from, .. }) = source {
        each_record(log, *from, &mut |_, record| {
            if record.end.place() == place {
                time = Some(record.time);
            }
            if record.end.place() >= place { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    let why = || {
        let place = format!("db{}:{}@{}:{}", slot.0, slot.1, place.0, place.1);
        Error::Refused(format!("no record behind the save ends at {place}: `haypile binlog dump` shows where they end"))
    };
    Ok(time.ok_or_else(why)?)
}

/// Reads a slot's log up to a place and a time.
fn read_log(mut plan: SlotPlan, place: Option<(u32, u64)>, time: Option<u64>) -> Result<Read, Failure> {
    let (mut records, mut multis) = (Vec::new(), Vec::new());
    // The logs of a save end where it says.
    let saved_end = if plan.saved { Some(plan.to) } else { None };
    let mut to = plan.from;
    if let Some(log) = &plan.log {
        each_record(log, plan.from, &mut |before, record| {
            if place.is_some_and(|place| record.end.place() > place) || time.is_some_and(|until| record.time > until) {
                return ControlFlow::Break(());
            }
            to = record.end;
            records.push((record.end, record.time));
            let participants = decode_body(record.body).map(|(participants, _)| participants).unwrap_or_default();
            if !participants.is_empty() {
                multis.push(Multi { before, index: record.end.index, participants });
            }
            ControlFlow::Continue(())
        })?;
    }
    let limited = place.is_some() || time.is_some();
    if let Some(saved_end) = saved_end
        && !limited
        && to.index < saved_end.index
    {
        let why = format!("{}: the log ends at {to}, before {saved_end}, where the save does", plan.name());
        return Err(Failure::Damaged(why));
    }
    plan.to = to;
    Ok(Read { plan, records, multis })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_time_or_a_position() {
        assert_eq!("1700000000".parse(), Ok(Until::Time(1_700_000_000_000)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Until::Time(1000)));
        assert_eq!("db2:7@3:4096".parse(), Ok(Until::Position { slot: (2, 7), filenum: 3, offset: 4096 }));
        for bad in ["", "db0@1:2", "db0:1@2", "3:4096", "tomorrow"] {
            assert!(bad.parse::<Until>().is_err(), "{bad}");
        }
    }
}
