//! What a check has found, said as it is found, and how far it is.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::tools::progress::byte_bar;
use crate::tools::{Error, Terminal};

/// Findings that are said of one slot; what is beyond is counted.
const MAX_SAID: u64 = 50;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to be done.
    Note,
    /// Nothing is damaged, but something will happen that the operator may not expect.
    Warning,
    /// Data are lost, or not what they should be.
    Damage,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Damage => "DAMAGE",
        })
    }
}

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// `db0:3`; nothing where it is about the node.
    pub slot: Option<String>,
    /// A file or folder.
    pub path: String,
    /// Where in the file.
    pub offset: Option<u64>,
    /// Which key, as redis-cli shows it.
    pub key: Option<String>,
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Finding {
    /// About a file or folder.
    pub fn new(severity: Severity, slot: Option<&str>, path: &Path, what: impl Into<String>, advice: &str) -> Finding {
        Finding {
            severity,
            slot: slot.map(str::to_string),
            path: path.display().to_string(),
            offset: None,
            key: None,
            what: what.into(),
            advice: advice.to_string(),
        }
    }

    pub fn at(self, offset: u64) -> Finding {
        Finding { offset: Some(offset), ..self }
    }

    pub fn of_key(self, key: &[u8]) -> Finding {
        Finding { key: Some(crate::tools::text::Quoted(key).to_string()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<7} {}", self.severity, self.slot.as_deref().unwrap_or("-"), self.path)?;
        if let Some(offset) = self.offset {
            write!(f, " offset {offset}")?;
        }
        if let Some(key) = &self.key {
            write!(f, " key {key}")?;
        }
        write!(f, ": {}", self.what)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, ". {}", self.advice) }
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// Slots with data.
    pub slots: u64,
    /// Snapshots of slots, in saves.
    pub saved_slots: u64,
    pub keys: u64,
    pub elements: u64,
    /// Elements of collections that are no more, which compaction has yet to drop.
    pub orphans: u64,
    pub binlog_files: u64,
    pub records: u64,
    /// Those that the engines do not hold yet.
    pub replayed_records: u64,
    pub replayed_bytes: u64,
    /// Bytes of binlogs and table files.
    pub bytes: u64,
}

/// Collects findings.
pub struct Report<'r, 't> {
    terminal: &'r mut Terminal<'t>,
    json: bool,
    bar: ProgressBar,
    began: Instant,
    pub totals: Totals,
    findings: Vec<Finding>,
    /// Said, by slot.
    said: HashMap<Option<String>, u64>,
    pub damages: u64,
    pub warnings: u64,
    pub notes: u64,
    unsaid: u64,
}

impl<'r, 't> Report<'r, 't> {
    /// A report that says findings at once, or as JSON at the end.
    pub fn new(terminal: &'r mut Terminal<'t>, json: bool) -> Report<'r, 't> {
        let bar = byte_bar(terminal.shows_progress);
        Report {
            terminal,
            json,
            bar,
            began: Instant::now(),
            totals: Totals::default(),
            findings: Vec::new(),
            said: HashMap::new(),
            damages: 0,
            warnings: 0,
            notes: 0,
            unsaid: 0,
        }
    }

    /// There are so many bytes more to be read.
    pub fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// So many of them need not be read.
    pub fn skip(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So many bytes have been read.
    pub fn advance(&mut self, bytes: u64) {
        self.totals.bytes += bytes;
        self.bar.inc(bytes);
    }

    /// What is being looked at.
    pub fn begin(&self, what: &str) {
        self.bar.set_message(what.to_string());
    }

    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) -> Result<(), Error> {
        match finding.severity {
            Severity::Damage => self.damages += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => self.notes += 1,
        }
        let said = self.said.entry(finding.slot.clone()).or_default();
        *said += 1;
        if *said > MAX_SAID {
            self.unsaid += 1;
            return Ok(());
        }
        if self.json {
            self.findings.push(finding);
            return Ok(());
        }
        let out = &mut self.terminal.out;
        Ok(self.bar.suspend(|| writeln!(out, "{finding}").and_then(|()| out.flush()))?)
    }

    /// Says the end.
    pub fn finish(self, checked: &Path) -> Result<(), Error> {
        self.bar.finish_and_clear();
        let seconds = self.began.elapsed().as_secs_f64();
        if self.json {
            let document = serde_json::json!({
                "checked": checked.display().to_string(),
                "sound": self.damages == 0,
                "damages": self.damages, "warnings": self.warnings, "notes": self.notes,
                "findings": self.findings, "findings_not_listed": self.unsaid,
                "totals": self.totals, "seconds": seconds,
            });
            serde_json::to_writer_pretty(&mut *self.terminal.out, &document).map_err(std::io::Error::from)?;
            return Ok(writeln!(self.terminal.out)?);
        }
        if self.unsaid > 0 {
            writeln!(self.terminal.out, "{} more findings are not shown", self.unsaid)?;
        }
        let Totals { slots, saved_slots, keys, elements, orphans, binlog_files, records, bytes, .. } = self.totals;
        let count = indicatif::HumanCount;
        let s = crate::tools::text::plural;
        writeln!(
            self.terminal.out,
            "{}: {} slot{}{} with {} key{} and {} element{}, {} record{} in {} binlog file{}, {} in {:.1?}",
            checked.display(),
            count(slots),
            s(slots),
            if saved_slots == 0 { String::new() } else { format!(" and {} in saves", count(saved_slots)) },
            count(keys),
            s(keys),
            count(elements),
            s(elements),
            count(records),
            s(records),
            count(binlog_files),
            s(binlog_files),
            indicatif::BinaryBytes(bytes),
            Duration::from_secs_f64(seconds),
        )?;
        if orphans > 0 {
            let (are, s) = (if orphans == 1 { "is" } else { "are" }, s(orphans));
            writeln!(
                self.terminal.out,
                "{} element{s} {are} left of deleted collections, for compaction to drop",
                count(orphans)
            )?;
        }
        if self.totals.replayed_records > 0 {
            let Totals { replayed_records, replayed_bytes, .. } = self.totals;
            let (records, s) = (count(replayed_records), s(replayed_records));
            writeln!(
                self.terminal.out,
                "the next start replays {records} record{s} ({})",
                indicatif::BinaryBytes(replayed_bytes)
            )?;
        }
        let others: Vec<String> = [(self.warnings, "warning"), (self.notes, "note")]
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| format!("{n} {word}{}", s(*n)))
            .collect();
        let others = if others.is_empty() { String::new() } else { format!(" ({})", others.join(", ")) };
        match self.damages {
            0 => writeln!(self.terminal.out, "sound{others}")?,
            n => writeln!(self.terminal.out, "DAMAGED: {n} finding{}{others}", s(n))?,
        }
        Ok(())
    }
}
