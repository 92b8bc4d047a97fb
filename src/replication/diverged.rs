//! When this node's log went another way than its master's: finding where they part, and saving what only this node has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::binlog::{self, ChunkReader, FILE_HEADER_LEN, Position, RecordStream, Writer, file_path, list_files};
use crate::disk::{self, Point};
use crate::keyspace::Slot;

/// Every so many records a position is remembered on the first pass over the log.
const SAMPLE_EVERY: u64 = 4096;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What the master says of one of our positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It has the same record there.
    Same,
    /// It has another, or none.
    Other,
    /// It no longer has that part of its log, and cannot tell.
    Unknown,
}

/// The ends of some records of a log: all of those after `from` up to `to`, every `every`-th.
pub(super) fn sample(
    log_dir: &Path,
    from: Option<Position>,
    to: u64,
    every: u64,
) -> Result<Vec<Position>, binlog::Error> {
    let mut found = Vec::new();
    for filenum in list_files(log_dir)?.into_keys().filter(|&n| from.is_none_or(|f| n >= f.filenum)) {
        let mut stream = match from {
            Some(from) if from.filenum == filenum => RecordStream::open(log_dir, from, None, false)?,
            _ => RecordStream::open_whole(log_dir, filenum, false)?,
        };
        if found.is_empty() && from.is_none() {
            found.push(stream.position());
        }
        while let Some(record) = stream.next_record()? {
            if record.end.index > to {
                return Ok(found);
            }
            if record.end.index % every == 0 || record.end.index == to {
                found.push(record.end);
            }
        }
    }
    Ok(found)
}

/// Positions of this log to ask the master about, coarsely.
pub(super) fn coarse(slot: &Slot) -> Result<Vec<Position>, binlog::Error> {
    match slot.store().clone() {
        Some(store) => sample(store.log_dir(), None, slot.position().index, SAMPLE_EVERY),
        None => Ok(Vec::new()),
    }
}

/// All positions after `from`, up to the next coarse one.
pub(super) fn fine(slot: &Slot, from: Position) -> Result<Vec<Position>, binlog::Error> {
    match slot.store().clone() {
        Some(store) => {
            let to = slot.position().index.min(from.index + SAMPLE_EVERY);
            sample(store.log_dir(), Some(from), to, 1)
        }
        None => Ok(Vec::new()),
    }
}

/// The end of the last record before those of `term`; `None` if the log begins with them.
pub(super) fn last_before(slot: &Slot, term: u32) -> Result<Option<Position>, binlog::Error> {
    let Some(store) = slot.store().clone() else { return Ok(None) };
    let all = sample(store.log_dir(), None, slot.position().index, 1)?;
    Ok(all.into_iter().take_while(|p| p.term < term).last())
}

/// The last of `positions` (in log order) that `probe` finds the same, by bisection: records after a different one all differ.
pub(super) async fn last_same<E, F: Future<Output = Result<Probe, E>>>(
    positions: &[Position],
    mut probe: impl FnMut(Position) -> F,
) -> Result<Option<Position>, E> {
    let (mut low, mut high) = (0, positions.len());
    let mut same = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match probe(positions[middle]).await? {
            Probe::Same => {
                same = Some(positions[middle]);
                low = middle + 1;
            }
            Probe::Unknown => low = middle + 1,
            Probe::Other => high = middle,
        }
    }
    Ok(same)
}

/// Copies the records after `common` (`None`: all that the log still has) into one new binlog file in `dir`. Durable when it returns.
/// `None` when there is no such record.
pub(super) fn save_tail(
    slot: &Arc<Slot>,
    dir: &Path,
    common: Option<Position>,
    now_ms: u64,
) -> Result<Option<PathBuf>, binlog::Error> {
    let Some(store) = slot.store().clone() else { return Ok(None) };
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| binlog::Error::Io { path, source }
    };
    let end = slot.position();
    let from = match (common, list_files(store.log_dir())?.into_keys().next()) {
        (Some(common), _) => common,
        (None, Some(first)) => RecordStream::open_whole(store.log_dir(), first, false)?.position(),
        (None, None) => return Ok(None),
    };
    if from.index >= end.index {
        return Ok(None);
    }
    let name = format!("db{}-{}-after-{}-{now_ms}", slot.db(), slot.number(), from.index);
    let building = dir.join(format!("{name}.tmp"));
    disk::remove_dir(Point::DivergedClear, &building).map_err(io(&building))?;
    let mut at = Position { filenum: 0, offset: FILE_HEADER_LEN, ..from };
    let mut writer = Writer::create(&building, at, u64::MAX)?;
    let mut reader = ChunkReader::open(store.log_dir(), from)?;
    while let Some(chunk) = reader.next_chunk(&end, CHUNK_BYTES, u64::MAX)? {
        at = Position { filenum: 0, offset: at.offset + chunk.bytes.len() as u64, ..chunk.end };
        writer.append_run(&chunk.bytes, at)?;
    }
    writer.sync_handle().sync(at.index).map_err(io(&building))?;
    let saved = dir.join(format!("{name}.binlog"));
    disk::rename(Point::DivergedRename, &file_path(&building, 0), &saved).map_err(io(&saved))?;
    disk::remove_dir(Point::DivergedRemove, &building).map_err(io(&building))?;
    disk::sync_dir(Point::DivergedSyncDir, dir).map_err(io(dir))?;
    Ok(Some(saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bisection_finds_where_logs_part() {
        let positions: Vec<Position> = (0..100).map(|index| Position { index, ..Position::START }).collect();
        for parted in 0..=100u64 {
            for known_from in 0..=parted {
                let probe = |p: Position| {
                    let answer = match p.index {
                        i if i >= parted => Probe::Other,
                        i if i < known_from => Probe::Unknown,
                        _ => Probe::Same,
                    };
                    std::future::ready(Ok::<_, ()>(answer))
                };
                let expected = (known_from < parted).then(|| positions[parted as usize - 1]);
                assert_eq!(last_same(&positions, probe).await, Ok(expected));
            }
        }
    }
}
