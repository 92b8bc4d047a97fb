//! `haypile binlog stat`: what binlog files hold, in numbers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use serde_json::json;

use super::distinct::Distinct;
use super::files::{self, Log, LogFile};
use super::scan::{Damage, Item, Torn, scan};
use super::select::key_of;
use super::text::{Quoted, Time, plural};
use super::{Error, Terminal, Verdict};
use crate::binlog::{FILE_HEADER_LEN, Position, Record, decode_body};

/// Names of effects that are told apart; what is beyond is counted together.
const MAX_NAMES: usize = 64;
/// Longer names are no names.
const MAX_NAME_LEN: usize = 16;
const OTHER: &str = "(other)";

/// Sum up what binlog files hold
///
/// For each file its positions, terms, time span, bytes, effects by name, different keys, the largest record, and whether it is sound;
/// then the same for each slot and for all.
///
/// Exit code: 0, or 1 when a file cannot be read, or 2 when one is damaged.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Binlog files, or folders that hold some at any depth
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// One JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the numbers.
pub fn run(args: &Args, terminal: &mut Terminal<'_>) -> Result<Verdict, Error> {
    let logs = files::find(&args.paths)?;
    let mut all = Numbers::default();
    let mut files = 0;
    let mut documents = Vec::new();
    for log in &logs {
        let mut of_log = Numbers::default();
        let mut of_files = Vec::new();
        if !args.json {
            writeln!(terminal.out, "{}  {}", log.name(), log.dir.display())?;
        }
        let mut tail: Option<Position> = None;
        for file in &log.files {
            let found = numbers_of(log, file, tail)?;
            tail = found.last;
            if args.json {
                of_files.push(json!({ "file": file.path.display().to_string(), "numbers": found.json() }));
            } else {
                let name = file.path.file_name().unwrap_or_default().to_string_lossy();
                writeln!(terminal.out, "  {name}  {}", found.state())?;
                found.print(terminal)?;
            }
            of_log.add(&found);
        }
        files += log.files.len();
        if args.json {
            documents.push(json!({ "slot": log.slot.map(|(db, slot)| format!("db{db}:{slot}")),
                "folder": log.dir.display().to_string(), "files": of_files, "total": of_log.json() }));
        } else if log.files.len() > 1 {
            writeln!(terminal.out, "  {} files  {}", log.files.len(), of_log.state())?;
            of_log.print(terminal)?;
        }
        all.add(&of_log);
    }
    if args.json {
        let document = json!({ "logs": documents, "total": all.json() });
        serde_json::to_writer_pretty(&mut *terminal.out, &document).map_err(std::io::Error::from)?;
        writeln!(terminal.out)?;
    } else if logs.len() > 1 {
        writeln!(terminal.out, "{} logs, {files} files  {}", logs.len(), all.state())?;
        all.print(terminal)?;
    }
    terminal.out.flush()?;
    Ok(if all.damages.is_empty() && all.more_damages == 0 { Verdict::Sound } else { Verdict::Damaged })
}

/// A record that stands out.
#[derive(Clone, Copy, Debug, Serialize)]
struct Largest {
    bytes: u64,
    filenum: u32,
    offset: u64,
    index: u64,
}

/// What files hold. Positions and terms are those of one log, and left out where several are summed up.
#[derive(Default)]
struct Numbers {
    first: Option<Position>,
    last: Option<Position>,
    /// Of several logs.
    mixed: bool,
    /// Lowest and highest.
    terms: Option<(u32, u32)>,
    /// Unix ms, earliest and latest.
    times: Option<(u64, u64)>,
    records: u64,
    bytes: u64,
    multi: u64,
    effects: BTreeMap<String, u64>,
    keys: Distinct,
    largest: Option<Largest>,
    torn: Option<Torn>,
    damages: Vec<Damage>,
    more_damages: u64,
}

/// Places of damage that are named; the others are counted.
const DAMAGES_NAMED: usize = 3;

fn numbers_of(log: &Log, file: &LogFile, before: Option<Position>) -> Result<Numbers, Error> {
    let mut found = Numbers::default();
    let database = log.slot.map_or(0, |(db, _)| db);
    let scanned = scan(file, true, &mut |item| {
        match item {
            Item::Start(start) => {
                let expected =
                    before.map(|end| Position { filenum: end.filenum.wrapping_add(1), offset: FILE_HEADER_LEN, ..end });
                if expected.is_some_and(|expected| expected != start) {
                    let why = "the file does not continue the one before it".into();
                    found.damage(Damage { offset: 0, why, next: Some(start.offset) });
                }
            }
            Item::Record(before, record) => found.record(database, before, &record),
            Item::Damage(damage) => found.damage(damage.clone()),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    (found.first, found.last, found.torn) = (scanned.start, scanned.end, scanned.torn);
    Ok(found)
}

impl Numbers {
    fn damage(&mut self, damage: Damage) {
        if self.damages.len() < DAMAGES_NAMED { self.damages.push(damage) } else { self.more_damages += 1 }
    }

    fn record(&mut self, database: u64, before: Position, record: &Record<'_>) {
        let end = record.end;
        let bytes = end.offset - before.offset;
        self.records += 1;
        self.bytes += bytes;
        self.terms = span(self.terms, (end.term, end.term));
        self.times = span(self.times, (record.time, record.time));
        if self.largest.is_none_or(|largest| bytes > largest.bytes) {
            self.largest = Some(Largest { bytes, filenum: end.filenum, offset: end.offset, index: end.index });
        }
        let malformed = || Damage {
            offset: before.offset,
            why: "the record is whole, but this build does not understand its body".into(),
            next: Some(end.offset),
        };
        let Some((participants, mut effects)) = decode_body(record.body) else { return self.damage(malformed()) };
        self.multi += u64::from(!participants.is_empty());
        let mut args = Vec::new();
        loop {
            match effects.next_into(&mut args) {
                Some(true) => self.effect(database, &args),
                Some(false) => return,
                None => return self.damage(malformed()),
            }
        }
    }

    fn effect(&mut self, database: u64, args: &[&[u8]]) {
        if let Some(key) = key_of(args) {
            self.keys.add(database, key);
        }
        let name = args.first().copied().unwrap_or_default();
        let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME_LEN);
        let name = name.filter(|name| self.effects.len() < MAX_NAMES || self.effects.contains_key(*name));
        let name = name.unwrap_or(OTHER);
        match self.effects.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.effects.insert(name.to_string(), 1)),
        }
    }

    fn add(&mut self, other: &Numbers) {
        let continues = self.last.is_none_or(|last| other.first.is_some_and(|first| first.index == last.index));
        self.mixed |= other.mixed || (self.records > 0 && !continues);
        self.first = self.first.or(other.first);
        self.last = other.last.or(self.last);
        self.terms = other.terms.map_or(self.terms, |terms| span(self.terms, terms));
        self.times = other.times.map_or(self.times, |times| span(self.times, times));
        self.records += other.records;
        self.bytes += other.bytes;
        self.multi += other.multi;
        other.effects.iter().for_each(|(name, count)| *self.effects.entry(name.clone()).or_default() += count);
        self.keys.merge(&other.keys);
        self.largest = [self.largest, other.largest].into_iter().flatten().max_by_key(|largest| largest.bytes);
        self.torn = self.torn.take().or(other.torn.clone());
        other.damages.iter().for_each(|damage| self.damage(damage.clone()));
        self.more_damages += other.more_damages;
    }

    /// `sound`, or what is not.
    fn state(&self) -> String {
        let mut parts = Vec::new();
        for Damage { offset, why, next } in &self.damages {
            let next = next.map_or_else(String::new, |next| format!(", whole records follow from {next}"));
            parts.push(format!("DAMAGED at offset {offset}: {why}{next}"));
        }
        if self.more_damages > 0 {
            parts.push(format!("and at {} more places", self.more_damages));
        }
        if let Some(Torn { offset, bytes, why }) = &self.torn {
            parts.push(format!(
                "ends in {bytes} byte{} that are no whole record, at offset {offset} ({why})",
                plural(*bytes)
            ));
        }
        if parts.is_empty() { "sound".into() } else { parts.join("; ") }
    }

    /// Records a second, over the time between the first and the last.
    fn rate(&self) -> Option<f64> {
        let (first, last) = self.times?;
        (last > first).then(|| self.records as f64 * 1000.0 / (last - first) as f64)
    }

    fn print(&self, terminal: &mut Terminal<'_>) -> Result<(), Error> {
        let mut line = |name: &str, text: String| writeln!(terminal.out, "    {name:<10}{text}");
        if let (Some(first), Some(last), false) = (self.first, self.last, self.mixed) {
            let place = |p: Position| format!("{}:{} (index {})", p.filenum, p.offset, p.index);
            line("positions", format!("{} … {}", place(first), place(last)))?;
        }
        match self.terms {
            Some((low, high)) if low == high => line("term", low.to_string())?,
            Some((low, high)) => line("terms", format!("{low} … {high}"))?,
            None => return Ok(line("records", "none".into())?),
        }
        if let Some((first, last)) = self.times {
            let rate = self.rate().map_or_else(String::new, |rate| format!(", {} records/s", HumanCount(rate as u64)));
            let seconds = (last - first) as f64 / 1000.0;
            line("time", format!("{} … {} ({seconds:.3} s{rate})", Time(first), Time(last)))?;
        }
        let multi = match self.multi {
            0 => String::new(),
            multi => format!(", {} of them parts of writes over several slots", HumanCount(multi)),
        };
        line("records", format!("{}, {}{multi}", HumanCount(self.records), HumanBytes(self.bytes)))?;
        if let Some(Largest { bytes, filenum, offset, index }) = self.largest {
            line("largest", format!("{bytes} bytes, at {filenum}:{offset} (index {index})"))?;
        }
        let mut effects: Vec<_> = self.effects.iter().collect();
        effects.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let effects: Vec<String> = effects
            .iter()
            .map(|(name, count)| format!("{} {}", Quoted(name.as_bytes()), HumanCount(**count)))
            .collect();
        line("effects", effects.join(", "))?;
        let keys = self.keys.count();
        line("keys", format!("{}{}", if keys.exact { "" } else { "about " }, HumanCount(keys.keys)))?;
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let position =
            |p: Position| json!({ "filenum": p.filenum, "offset": p.offset, "term": p.term, "index": p.index });
        let keys = self.keys.count();
        let damages = self.damages.iter().map(|d| json!({ "offset": d.offset, "why": d.why, "next": d.next }));
        json!({
            "first": self.first.filter(|_| !self.mixed).map(position),
            "last": self.last.filter(|_| !self.mixed).map(position),
            "terms": self.terms.map(|(low, high)| [low, high]),
            "times": self.times.map(|(first, last)| [first, last]),
            "records_per_second": self.rate(),
            "records": self.records,
            "bytes": self.bytes,
            "multi_slot_records": self.multi,
            "effects": self.effects,
            "keys": keys.keys,
            "keys_exact": keys.exact,
            "largest": self.largest,
            "torn": self.torn.as_ref().map(|t| json!({ "offset": t.offset, "bytes": t.bytes, "why": t.why })),
            "damages": damages.collect::<Vec<_>>(),
            "more_damages": self.more_damages,
        })
    }
}

fn span<T: Ord + Copy>(known: Option<(T, T)>, new: (T, T)) -> Option<(T, T)> {
    Some(known.map_or(new, |(low, high)| (low.min(new.0), high.max(new.1))))
}
