//! `haypile binlog dump`: the records of binlog files as commands.
//!
//! ```text
//! # db0:2  data/binlog/db0/2/log-000001/binlog.0000000000
//! 0:110 term 1 index 1  2026-01-31T23:59:59.123Z  46 bytes
//!     SET k v
//! ```

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::files::{self, Log, LogFile, SlotKey};
use super::lock::{self, Lock};
use super::scan::{Damage, Item, Torn, scan};
use super::select::Selection;
use super::text::{Shortened, Time, json_bytes, plural};
use super::{Error, Terminal, Verdict};
use crate::binlog::{Participant, Record, decode_body};

/// Bytes of an argument that are shown without `--full`.
const ARG_SHOWN: usize = 200;

/// Print the records of binlog files as commands
///
/// Each record with its position (FILE:OFFSET of its end, term, index), the time at which it was executed (UTC), its bytes and, for one
/// part of a write over several slots, the other parts; then its effects, one a line, as redis-cli would take them. Files saved under
/// diverged/ and files that a running server is writing can be read as well.
///
/// Exit code: 0, or 1 when a file cannot be read, or 2 when one is damaged.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Binlog files, or folders that hold some at any depth
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// One JSON object a record, each on a line of its own; arguments that are not UTF-8 are {"hex": "00ff"}
    #[arg(long)]
    json: bool,
    /// Show long arguments to their ends
    #[arg(long)]
    full: bool,
    /// Behind a damaged record go on with the next whole one
    #[arg(long)]
    resync: bool,
}

/// Prints the records.
pub fn run(args: &Args, terminal: &mut Terminal<'_>) -> Result<Verdict, Error> {
    let logs = files::find(&args.paths)?;
    let mut dump = Dump { args, shown: 0, verdict: Verdict::Sound, terminal };
    for log in &logs {
        if dump.log(log)?.is_break() {
            break;
        }
    }
    dump.terminal.out.flush()?;
    Ok(dump.verdict)
}

struct Dump<'d, 't> {
    args: &'d Args,
    /// Records.
    shown: u64,
    verdict: Verdict,
    terminal: &'d mut Terminal<'t>,
}

/// A record for tools.
#[derive(Serialize)]
struct JsonRecord<'a> {
    slot: Option<String>,
    file: &'a str,
    filenum: u32,
    /// Where it begins in the file.
    start: u64,
    /// Where it ends: its position.
    offset: u64,
    term: u32,
    index: u64,
    /// 16 hex digits.
    chain: String,
    /// Unix ms.
    time: u64,
    bytes: u64,
    participants: Vec<Value>,
    /// Effects in the record; those shown may be fewer.
    effect_count: usize,
    effects: Vec<Value>,
}

/// A record of which something is shown.
struct Shown<'a> {
    slot: Option<SlotKey>,
    file: &'a str,
    /// Where it begins.
    start: u64,
    record: &'a Record<'a>,
    participants: &'a [Participant],
    /// Effects in it.
    count: usize,
    /// Those that were asked for.
    effects: &'a [Vec<&'a [u8]>],
}

impl<'a> Shown<'a> {
    fn json(&self) -> JsonRecord<'a> {
        let end = self.record.end;
        let participant = |p: &Participant| json!({ "slot": format!("db{}:{}", p.db, p.slot), "index": p.index });
        let effect = |args: &Vec<&[u8]>| Value::from(args.iter().map(|arg| json_bytes(arg)).collect::<Vec<_>>());
        JsonRecord {
            slot: self.slot.map(|(db, slot)| format!("db{db}:{slot}")),
            file: self.file,
            filenum: end.filenum,
            start: self.start,
            offset: end.offset,
            term: end.term,
            index: end.index,
            chain: format!("{:016x}", end.chain),
            time: self.record.time,
            bytes: end.offset - self.start,
            participants: self.participants.iter().map(participant).collect(),
            effect_count: self.count,
            effects: self.effects.iter().map(effect).collect(),
        }
    }
}

impl Dump<'_, '_> {
    fn log(&mut self, log: &Log) -> Result<ControlFlow<()>, Error> {
        for file in &log.files {
            if file.filenum.is_some_and(|filenum| !self.args.selection.wants_file(filenum)) {
                continue;
            }
            if self.file(log, file)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn file(&mut self, log: &Log, file: &LogFile) -> Result<ControlFlow<()>, Error> {
        let name = file.path.display().to_string();
        // Said before the first record that is shown.
        let mut headline = (!self.args.json).then(|| match log.slot {
            Some((db, slot)) => format!("# db{db}:{slot}  {name}"),
            None => format!("# {name}"),
        });
        let mut full = false;
        let scanned = scan(file, self.args.resync, &mut |item| {
            match item {
                Item::Start(_) => {}
                Item::Record(before, record) => match self.args.selection.wants_record(&record) {
                    ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
                    ControlFlow::Continue(false) => {}
                    ControlFlow::Continue(true) => {
                        if self.shown >= self.args.selection.limit() {
                            full = true;
                            return Ok(ControlFlow::Break(()));
                        }
                        self.record(log, &name, before.offset, &record, &mut headline)?;
                    }
                },
                Item::Damage(damage) => self.damage(&name, damage)?,
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(torn) = &scanned.torn {
            self.torn(file, &name, torn)?;
        }
        if scanned.damages > 0 {
            self.verdict = Verdict::Damaged;
        }
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn record(
        &mut self,
        log: &Log,
        file: &str,
        start: u64,
        record: &Record<'_>,
        headline: &mut Option<String>,
    ) -> Result<(), Error> {
        let Some((participants, mut effects)) = decode_body(record.body) else {
            return self.malformed(file, start);
        };
        let (mut args, mut chosen, mut count) = (Vec::new(), Vec::new(), 0usize);
        loop {
            match effects.next_into(&mut args) {
                Some(true) => {
                    count += 1;
                    if self.args.selection.wants_effect(&args) {
                        chosen.push(args.clone());
                    }
                }
                Some(false) => break,
                None => return self.malformed(file, start),
            }
        }
        if chosen.is_empty() && self.args.selection.by_key() {
            return Ok(());
        }
        self.shown += 1;
        let shown = Shown { slot: log.slot, file, start, record, participants: &participants, count, effects: &chosen };
        if self.args.json {
            return self.json_line(&shown.json());
        }
        if let Some(headline) = headline.take() {
            writeln!(self.terminal.out, "{headline}")?;
        }
        let end = record.end;
        let bytes = end.offset - start;
        write!(
            self.terminal.out,
            "{}:{} term {} index {}  {}  {bytes} byte{}",
            end.filenum,
            end.offset,
            end.term,
            end.index,
            Time(record.time),
            plural(bytes),
        )?;
        if chosen.len() < count {
            write!(self.terminal.out, "  {} of {count} effects", chosen.len())?;
        }
        let own = |p: &Participant| p.index == end.index && log.slot == Some((p.db.into(), p.slot.into()));
        for (nth, other) in participants.iter().filter(|p| !own(p)).enumerate() {
            let word = if nth == 0 { "  with" } else { "," };
            write!(self.terminal.out, "{word} db{}:{} index {}", other.db, other.slot, other.index)?;
        }
        writeln!(self.terminal.out)?;
        let max = if self.args.full { usize::MAX } else { ARG_SHOWN };
        for effect in chosen {
            write!(self.terminal.out, "   ")?;
            for bytes in effect {
                write!(self.terminal.out, " {}", Shortened { bytes, max })?;
            }
            writeln!(self.terminal.out)?;
        }
        Ok(())
    }

    fn json_line(&mut self, line: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.terminal.out, line).map_err(std::io::Error::from)?;
        Ok(writeln!(self.terminal.out)?)
    }

    /// The checksum is right, so this is what was written.
    fn malformed(&mut self, file: &str, offset: u64) -> Result<(), Error> {
        self.verdict = Verdict::Damaged;
        let why = "the record is whole, but this build does not understand its body".into();
        self.damage(file, &Damage { offset, why, next: None })
    }

    fn damage(&mut self, file: &str, damage: &Damage) -> Result<(), Error> {
        let Damage { offset, why, next } = damage;
        if self.args.json {
            return self.json_line(&json!({ "damage": { "file": file, "offset": offset, "why": why, "next": next } }));
        }
        self.terminal.out.flush()?;
        let follows = match next {
            Some(next) if self.args.resync => format!("; going on with the whole record at offset {next}"),
            Some(next) => format!("; whole records follow from offset {next}: --resync shows them"),
            None => String::new(),
        };
        Ok(writeln!(self.terminal.err, "haypile: {file}: offset {offset}: damaged: {why}{follows}")?)
    }

    /// No damage: a server may be writing at this moment, and what a crash left is cut off at the next start.
    fn torn(&mut self, file: &LogFile, name: &str, torn: &Torn) -> Result<(), Error> {
        let Torn { offset, bytes, why } = torn;
        if self.args.json {
            return self.json_line(&json!({ "torn": { "file": name, "offset": offset, "bytes": bytes, "why": why } }));
        }
        let running = match lock::data_folder_of(&file.path) {
            Some(dir) => matches!(lock::take(&dir)?, Lock::Held { .. }),
            None => false,
        };
        if running {
            return Ok(());
        }
        self.terminal.out.flush()?;
        let s = plural(*bytes);
        Ok(writeln!(
            self.terminal.err,
            "haypile: {name}: offset {offset}: the last {bytes} byte{s} are no whole record ({why}): a write that was interrupted; \
             the next start cuts them off"
        )?)
    }
}
