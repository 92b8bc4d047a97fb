//! Checking one log: every header, every record and its effects, the joins between the files, and how the engine's position lies in it.

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;

use super::report::{Finding, Report, Severity};
use super::{Scope, advice};
use crate::binlog::{FILE_HEADER_LEN, Participant, Position, Record, decode_body};
use crate::engine::Applied;
use crate::keyspace::inspect::{Multi, SlotKey, UNKNOWN_END, effects_of};
use crate::tools::files::{Log, LogFile, log_in};
use crate::tools::scan::{Damage, Item, Torn, scan};
use crate::tools::{Error, text};

/// What a log is to fit to.
pub struct Expected<'e> {
    pub scope: &'e Scope,
    pub slot: Option<SlotKey>,
    /// What the slot's engine contains.
    pub applied: Option<Applied>,
    /// Records of this term and later were written by this node as a master.
    pub leading_from: Option<u32>,
}

/// What a log told that concerns other slots' logs.
#[derive(Debug)]
pub struct Told {
    /// The last index, or [`UNKNOWN_END`].
    pub end: u64,
    /// Writes over several slots that a start has yet to replay.
    pub multis: Vec<Multi>,
}

/// Checks the log in `dir`.
pub fn check(dir: &Path, expected: &Expected<'_>, report: &mut Report<'_, '_>) -> Result<Told, Error> {
    let Some(log) = log_in(dir)? else {
        let finding = expected.scope.finding(Severity::Damage, dir, "the log has no files", advice::LOST);
        report.add(finding)?;
        return Ok(Told { end: UNKNOWN_END, multis: Vec::new() });
    };
    Checker::new(expected, &log, report).run()
}

/// Checks a file that is a log by itself.
pub fn check_saved(log: &Log, scope: &Scope, report: &mut Report<'_, '_>) -> Result<(), Error> {
    let expected = Expected { scope, slot: None, applied: None, leading_from: None };
    Checker::new(&expected, log, report).run().map(drop)
}

struct Checker<'c, 'r, 't> {
    expected: &'c Expected<'c>,
    log: &'c Log,
    report: &'c mut Report<'r, 't>,
    /// The first position of the log.
    first: Option<Position>,
    /// The end of what has been read.
    tail: Option<Position>,
    /// What the next file must continue; `None` where that is not known.
    joint: Option<Position>,
    /// Whether records were found to end exactly where the engine stands.
    applied_found: bool,
    /// Behind the engine's position: what a start replays.
    replayed: (u64, u64),
    /// Whether a start can replay the log to its end.
    broken: bool,
    multis: Vec<Multi>,
}

impl<'c, 'r, 't> Checker<'c, 'r, 't> {
    fn new(expected: &'c Expected<'c>, log: &'c Log, report: &'c mut Report<'r, 't>) -> Self {
        Checker {
            expected,
            log,
            report,
            first: None,
            tail: None,
            joint: None,
            applied_found: false,
            replayed: (0, 0),
            broken: false,
            multis: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Told, Error> {
        for file in &self.log.files {
            self.file(file)?;
        }
        self.compare()?;
        let end = if self.broken { UNKNOWN_END } else { self.tail.map_or(0, |tail| tail.index) };
        Ok(Told { end, multis: self.multis })
    }

    fn add(&mut self, severity: Severity, path: &Path, offset: u64, what: String, advice: &str) -> Result<(), Error> {
        self.report.add(self.expected.scope.finding(severity, path, what, advice).at(offset))
    }

    /// Whether a start would read a place in the log: it begins at the engine's position, with the header of that file.
    fn is_replayed(&self, filenum: u32, offset: u64) -> bool {
        self.expected.applied.is_none_or(|applied| match offset {
            0 => filenum >= applied.position.filenum,
            _ => (filenum, offset) >= applied.position.place(),
        })
    }

    fn file(&mut self, file: &LogFile) -> Result<(), Error> {
        let filenum = file.filenum.unwrap_or_default();
        let before = self.tail;
        let mut is_followed = true;
        if let (Some(before), Some(filenum)) = (before, file.filenum)
            && before.filenum.checked_add(1) != Some(filenum)
        {
            let what = format!("file {} of the log is missing", before.filenum.wrapping_add(1));
            self.damage(file, 0, what, filenum)?;
            self.joint = None;
        }
        let mut done = 0;
        let scanned = scan(file, true, &mut |item| {
            match item {
                Item::Start(start) => {
                    self.report.skip(start.offset);
                    done = start.offset;
                    self.start(file, start)?;
                }
                Item::Record(before, record) => {
                    let len = record.end.offset - done.min(record.end.offset);
                    self.report.advance(len);
                    done = record.end.offset;
                    self.record(file, before, &record)?;
                }
                Item::Damage(Damage { offset, why, next }) => {
                    is_followed = next.is_some();
                    let next = next
                        .map_or_else(String::new, |next| format!(", with whole records after it from offset {next}"));
                    self.damage(file, *offset, format!("{why}{next}"), filenum)?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.report.totals.binlog_files += 1;
        let begins = scanned.start.map_or(0, |start| start.offset);
        self.report.advance(scanned.len.saturating_sub(done.max(begins)));
        if let Some(Torn { offset, bytes, why }) = scanned.torn {
            let s = text::plural(bytes);
            let what = format!("the last {bytes} byte{s} are no whole record ({why})");
            self.add(
                Severity::Warning,
                &file.path,
                offset,
                what,
                "A write was interrupted: the next start cuts them off",
            )?;
        }
        self.tail = scanned.end.or(self.tail);
        self.joint = scanned.end.filter(|_| is_followed);
        Ok(())
    }

    fn damage(&mut self, file: &LogFile, offset: u64, what: String, filenum: u32) -> Result<(), Error> {
        let replayed = self.is_replayed(filenum, offset);
        self.broken |= replayed;
        let advice = match replayed {
            // Without its slot nothing is known of who needs the log.
            _ if self.expected.slot.is_none() => advice::LOG_ALONE,
            true => advice::UNREPLAYABLE,
            false => advice::PASSED,
        };
        self.add(Severity::Damage, &file.path, offset, what, advice)
    }

    fn start(&mut self, file: &LogFile, start: Position) -> Result<(), Error> {
        if let Some(tail) = self.joint {
            let expected = Position { filenum: start.filenum, offset: FILE_HEADER_LEN, ..tail };
            if start != expected {
                let what =
                    format!("the file begins after index {}, the one before it ends with {}", start.index, tail.index);
                let what = if start.index == tail.index {
                    "the file does not continue the one before it".into()
                } else {
                    what
                };
                self.damage(file, 0, what, start.filenum)?;
            }
        }
        self.first = self.first.or(Some(start));
        self.tail = Some(start);
        self.pass(start);
        Ok(())
    }

    /// The engine may stand here.
    fn pass(&mut self, position: Position) {
        self.applied_found |= self.expected.applied.is_some_and(|applied| applied.position == position);
    }

    fn record(&mut self, file: &LogFile, before: Position, record: &Record<'_>) -> Result<(), Error> {
        let end = record.end;
        self.report.totals.records += 1;
        self.pass(end);
        self.tail = Some(end);
        if let Err(e) = effects_of(&Bytes::copy_from_slice(record.body)) {
            let what = format!("index {}: {e}", end.index);
            self.damage(file, before.offset, what, end.filenum)?;
        }
        let participants = decode_body(record.body).map(|(participants, _)| participants).unwrap_or_default();
        let own =
            |p: &Participant| self.expected.slot.is_none_or(|slot| slot == (p.db, p.slot)) && p.index == end.index;
        if !participants.is_empty() && !participants.iter().any(own) {
            let what = format!("index {} is part of a write over several slots that does not name it", end.index);
            self.damage(file, before.offset, what, end.filenum)?;
        }
        if self.expected.applied.is_some_and(|applied| end.index > applied.position.index) {
            self.replayed.0 += 1;
            self.replayed.1 += end.offset - before.offset;
            if !participants.is_empty() && self.expected.leading_from.is_some_and(|from| end.term >= from) {
                self.multis.push(Multi { before, index: end.index, participants });
            }
        }
        Ok(())
    }

    /// The engine's position against the log.
    fn compare(&mut self) -> Result<(), Error> {
        let (Some(applied), Some(first), Some(tail)) = (self.expected.applied, self.first, self.tail) else {
            return Ok(());
        };
        let (position, dir) = (applied.position, self.log.dir.clone());
        let scope = self.expected.scope;
        let finding = if self.applied_found {
            let (records, bytes) = self.replayed;
            if !self.broken {
                self.report.totals.replayed_records += records;
                self.report.totals.replayed_bytes += bytes;
            }
            return Ok(());
        } else if position.place() < first.place() {
            self.broken = true;
            let what = format!("the log begins at {first}, after the engine's position {position}");
            scope.finding(Severity::Damage, &dir, what, advice::GAP)
        } else if position.place() > tail.place() && !self.broken {
            let what = format!("the log ends at {tail}, before the engine's position {position}");
            scope.finding(Severity::Warning, &dir, what, advice::AHEAD)
        } else if self.broken {
            // Said already: the place was passed over.
            return Ok(());
        } else {
            self.broken = true;
            let what = format!(
                "no record of the log ends at the engine's position {position}: log and engine do not belong together"
            );
            scope.finding(Severity::Damage, &dir, what, advice::STRANGERS)
        };
        self.report.add(finding)
    }
}

impl Scope {
    /// A finding about the slot of this scope.
    pub fn finding(&self, severity: Severity, path: &Path, what: impl Into<String>, advice: &str) -> Finding {
        Finding::new(severity, self.name.as_deref(), path, what, advice)
    }
}
