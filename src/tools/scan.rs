//! Going through one binlog file that may be damaged, torn at its end, or still being written by a server.

use std::fs;
use std::ops::ControlFlow;

use super::Error;
use super::files::LogFile;
use crate::binlog::{self, FILE_HEADER_LEN, Position, Record, RecordStream};

/// Bytes that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where they begin.
    pub offset: u64,
    pub why: String,
    /// Where the first whole record behind them begins.
    pub next: Option<u64>,
}

/// Bytes behind the last whole record of a log: a write under way, or one that a crash interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub offset: u64,
    pub bytes: u64,
    pub why: String,
}

/// What is met on the way.
pub enum Item<'a> {
    /// The header, and the position that it says the file begins at.
    Start(Position),
    /// A record, and the position before it.
    Record(Position, Record<'a>),
    Damage(&'a Damage),
}

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Scanned {
    /// Bytes, header and hole included.
    pub len: u64,
    pub start: Option<Position>,
    /// The end of the last record that was read.
    pub end: Option<Position>,
    pub torn: Option<Torn>,
    pub damages: u64,
}

/// Goes on with the next item, or ends.
pub type Step = Result<ControlFlow<()>, Error>;

/// Calls `f` with what is in the file, as it is now, until it breaks off. After damage it ends, or goes on with the next whole record
/// (`resync`).
pub fn scan(file: &LogFile, resync: bool, f: &mut dyn FnMut(Item<'_>) -> Step) -> Result<Scanned, Error> {
    let path = &file.path;
    let len = fs::metadata(path).map_err(Error::io(path))?.len();
    let mut found = Scanned { len, ..Scanned::default() };
    let opened = RecordStream::open_path(path).and_then(|stream| match file.filenum {
        Some(filenum) if stream.position().filenum != filenum => {
            let why = format!("its header says file {}", stream.position().filenum);
            Err(binlog::Error::Format { path: path.clone(), why })
        }
        _ => Ok(stream),
    });
    let mut stream = match opened {
        Ok(stream) => {
            found.start = Some(stream.position());
            if f(Item::Start(stream.position()))?.is_break() {
                return Ok(found);
            }
            stream
        }
        Err(e @ binlog::Error::Io { .. }) => return Err(e.into()),
        // The creation of a file that a crash cut short.
        Err(_) if file.is_last && len < FILE_HEADER_LEN => {
            let why = "the file's header is not whole".to_string();
            found.torn = Some(Torn { offset: 0, bytes: len, why });
            return Ok(found);
        }
        Err(e) => {
            let why = match e {
                binlog::Error::Format { why, .. } => why,
                binlog::Error::NotInLog { .. } => {
                    "the file ends before the place where its header says it begins".into()
                }
                other => other.to_string(),
            };
            let stream = RecordStream::open_headless(path, file.filenum.unwrap_or_default())?;
            let next = stream.as_ref().map(|stream| stream.position().offset);
            found.damages += 1;
            if f(Item::Damage(&Damage { offset: 0, why, next }))?.is_break() || !resync {
                return Ok(found);
            }
            let Some(stream) = stream else { return Ok(found) };
            stream
        }
    };
    loop {
        let before = stream.position();
        match stream.next_record() {
            Ok(Some(record)) => {
                let end = record.end;
                let step = f(Item::Record(before, record))?;
                found.end = Some(end);
                if step.is_break() {
                    return Ok(found);
                }
            }
            Ok(None) => {
                found.end = found.end.or(found.start);
                return Ok(found);
            }
            Err(binlog::Error::BadRecord { offset, why, .. }) => {
                let next = stream.resync()?;
                if next.is_none() && file.is_last {
                    found.torn = Some(Torn { offset, bytes: len - offset, why: why.into() });
                    found.end = found.end.or(found.start);
                    return Ok(found);
                }
                found.damages += 1;
                let step = f(Item::Damage(&Damage { offset, why: why.into(), next }))?;
                if step.is_break() || next.is_none() || !resync {
                    return Ok(found);
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}
