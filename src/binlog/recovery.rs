//! Opening a log after a stop of any kind: replay from a position, cut a torn tail, tell it from corruption.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::file::{file_path, list_files, open_file};
use super::mark::{Marked, place_of};
use super::reader::RecordStream;
use super::record::{RECORD_HEADER_LEN, Record, looks_like_record};
use super::{Error, FILE_HEADER_LEN, Position};
use crate::disk::{self, Point};

/// A good record behind a bad one has an index at most this far ahead.
pub(super) const HORIZON: u64 = 1 << 32;

/// What [`recover`] found.
#[derive(Debug)]
pub struct Recovered {
    /// The end of the last whole record: where the writer goes on.
    pub tail: Position,
    /// Records replayed.
    pub records: u64,
    /// Bytes replayed.
    pub bytes: u64,
    /// What is to be cut off behind the tail, if anything.
    pub torn: Option<TornTail>,
}

/// Bytes after the last whole record: a write that a crash interrupted.
#[derive(Debug)]
pub struct TornTail {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: u64,
    pub why: &'static str,
    /// Whole records among them: a power cut left what was not durable out of order.
    pub dropped: u64,
}

/// Replays the log in `dir` from `from`, the engine's position, to its end.
///
/// Nothing is changed on disk but for a last file without a record, which a crash in the middle of a roll or a failed
/// roll leaves and which is removed. [`super::Writer::resume`] with the tail cuts the torn bytes off.
/// [`Error::NotInLog`] when the log ends before `from`, or is bad there (a power cut took records that the engine already
/// held). [`Error::Corrupt`] when a bad record has good ones behind it, but for records that a power cut took before they were
/// durable (`mark`): those are torn, with all that is behind them. [`Error::Shortened`] when durable records are missing.
pub fn recover<E: From<Error>>(
    dir: &Path,
    from: Position,
    mut apply: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<Recovered, E> {
    let mut files: Vec<u32> = list_files(dir)?.into_keys().filter(|&n| n >= from.filenum).collect();
    if let Some(&last) = files.last()
        && last > from.filenum
        && holds_nothing(dir, last)?
    {
        // Should it stay, the writer puts its own in its place, and the next recovery passes over it again.
        let _ = disk::remove_file(Point::BinlogRecoverRemove, &file_path(dir, last));
        files.pop();
    }
    let marked = Marked::load(dir);
    let not_in_log = || match marked.filter(|marked| marked.place > place_of(&from)) {
        Some(marked) => shortened(dir, from, marked),
        None => Error::NotInLog { path: dir.to_path_buf(), filenum: from.filenum, offset: from.offset },
    };
    match files.first() {
        None => return Err(not_in_log().into()),
        Some(&first) if first != from.filenum => {
            let why = format!("the log begins with file {first}, after the engine's position in file {}", from.filenum);
            return Err(Error::Format { path: dir.to_path_buf(), why }.into());
        }
        Some(_) => {}
    }
    let unsynced = marked.filter(Marked::is_of_another_boot).map(|marked| marked.place);
    if unsynced.is_some_and(|durable| durable < place_of(&from)) && !reaches(dir, &files_from(dir, unsynced)?, from) {
        return Err(not_in_log().into());
    }
    let mut found = Recovered { tail: from, records: 0, bytes: 0, torn: None };
    for (nth, &filenum) in files.iter().enumerate() {
        let is_last = nth + 1 == files.len();
        if nth > 0 {
            let expected = Position { filenum: found.tail.filenum + 1, offset: FILE_HEADER_LEN, ..found.tail };
            let (_, start, path) = open_file(dir, filenum)?;
            if start != expected {
                return Err(Error::Format { path, why: "does not continue the file before it".into() }.into());
            }
            found.tail = start;
        }
        let mut stream = RecordStream::open(dir, found.tail, None, true).map_err(|e| match e {
            Error::NotInLog { .. } => not_in_log(),
            e => e,
        })?;
        loop {
            match stream.next_record() {
                Ok(Some(record)) => {
                    found.records += 1;
                    found.bytes += record.end.offset - found.tail.offset;
                    found.tail = record.end;
                    apply(record)?;
                }
                Ok(None) => break,
                Err(Error::BadRecord { path, offset, why }) => {
                    let rest = read_from(&path, offset)?;
                    // A file that has a successor was synced before that was begun.
                    let may_lack = is_last && unsynced.is_some_and(|durable| durable <= (filenum, offset));
                    match find_record(&rest, found.tail.index) {
                        Some(ahead) if !may_lack => {
                            return Err(Error::Corrupt { path, offset, why, next: offset + ahead }.into());
                        }
                        _ if !is_last => return Err(Error::BadRecord { path, offset, why }.into()),
                        _ => {}
                    }
                    let dropped = count_records(&rest, found.tail.index);
                    found.torn = Some(TornTail { path, offset, bytes: rest.len() as u64, why, dropped });
                    break;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }
    // A file that holds nothing, and is gone for that, is not missed.
    let next = (found.tail.filenum + 1, FILE_HEADER_LEN);
    match marked {
        Some(marked) if marked.place > place_of(&found.tail) && marked.place != next => {
            Err(shortened(dir, found.tail, marked).into())
        }
        _ => Ok(found),
    }
}

fn shortened(dir: &Path, tail: Position, marked: Marked) -> Error {
    let (filenum, offset) = marked.place;
    Error::Shortened { path: dir.to_path_buf(), tail, filenum, offset }
}

/// The files from the one on that the mark is in, as far as they are there.
fn files_from(dir: &Path, marked: Option<(u32, u64)>) -> Result<Vec<u32>, Error> {
    Ok(list_files(dir)?.into_keys().filter(|n| marked.is_none_or(|(first, _)| *n >= first)).collect())
}

/// Whether these files hold every record up to `to`: the engine may have been written back further than the log.
fn reaches(dir: &Path, files: &[u32], to: Position) -> bool {
    let read = |filenum: u32| -> Result<bool, Error> {
        let mut stream = RecordStream::open_whole(dir, filenum, true)?;
        while filenum < to.filenum || stream.position().offset < to.offset {
            if stream.next_record()?.is_none() {
                break;
            }
        }
        Ok(filenum < to.filenum || stream.position() == to)
    };
    files.iter().take_while(|filenum| **filenum <= to.filenum).all(|filenum| matches!(read(*filenum), Ok(true)))
}

/// Whether the file ends with its header, or before: nothing was written to it yet.
fn holds_nothing(dir: &Path, filenum: u32) -> Result<bool, Error> {
    let path = file_path(dir, filenum);
    Ok(fs::metadata(&path).map_err(Error::io(&path))?.len() <= FILE_HEADER_LEN)
}

fn read_from(path: &Path, offset: u64) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut file = fs::File::open(path)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset))?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        Ok(rest)
    };
    read().map_err(Error::io(path))
}

/// Where in `bytes`, after its first byte, a whole record stands that must come after `index`.
fn find_record(bytes: &[u8], index: u64) -> Option<u64> {
    (1..bytes.len().saturating_sub(RECORD_HEADER_LEN))
        .find(|&at| looks_like_record(&bytes[at..], index, HORIZON))
        .map(|at| at as u64)
}

/// How many whole records stand in `bytes` that must come after `index`.
fn count_records(mut bytes: &[u8], index: u64) -> u64 {
    let mut count = 0;
    while let Some(at) = find_record(bytes, index) {
        count += 1;
        bytes = &bytes[at as usize..];
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Writer, put_effect};
    use super::*;

    fn draft(n: u32) -> Draft {
        let mut draft = Draft::new(u64::from(n));
        put_effect(draft.effects(), &[b"SET", format!("key{n}").as_bytes(), &vec![b'x'; n as usize % 50]]);
        draft
    }

    fn write(dir: &Path, records: u32, max_file_size: u64) -> Vec<Position> {
        let mut writer = Writer::create(dir, Position::START, max_file_size).unwrap();
        (0..records).map(|n| writer.append([&draft(n)].into_iter(), 1).unwrap()).collect()
    }

    fn recovered(dir: &Path, from: Position) -> Result<Recovered, Error> {
        recover(dir, from, |_| Ok::<(), Error>(()))
    }

    #[test]
    fn replays_from_any_position_over_files() {
        let dir = tempfile::tempdir().unwrap();
        let positions = write(dir.path(), 100, 1000);
        assert!(positions[99].filenum > 3);
        for (nth, from) in positions.iter().enumerate() {
            let mut next = nth as u64 + 2;
            let found = recover(dir.path(), *from, |r| {
                assert_eq!(r.end.index, next);
                next += 1;
                Ok::<(), Error>(())
            });
            let found = found.unwrap();
            assert_eq!((found.tail, found.records), (positions[99], 99 - nth as u64));
        }
    }

    #[test]
    fn a_tail_torn_at_any_byte_recovers_to_the_record_before() {
        let dir = tempfile::tempdir().unwrap();
        let positions = write(dir.path(), 5, 1 << 20);
        let path = file_path(dir.path(), 0);
        let whole = fs::read(&path).unwrap();
        for cut in positions[3].offset..positions[4].offset {
            fs::write(&path, &whole[..cut as usize]).unwrap();
            let found = recovered(dir.path(), Position::START).unwrap();
            assert_eq!(found.tail, positions[3], "cut at {cut}");
            assert_eq!(found.torn.is_some(), cut > positions[3].offset);
            let mut writer = Writer::resume(dir.path(), found.tail, 1 << 20).unwrap();
            writer.append([&draft(77)].into_iter(), 1).unwrap();
            assert!(recovered(dir.path(), Position::START).unwrap().torn.is_none());
        }
        // A tail of the right length that was never written: zeros.
        let mut zeros = whole.clone();
        zeros[positions[3].offset as usize..].fill(0);
        fs::write(&path, &zeros).unwrap();
        assert_eq!(recovered(dir.path(), Position::START).unwrap().tail, positions[3]);
    }

    #[test]
    fn corruption_in_the_middle_is_no_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let positions = write(dir.path(), 5, 1 << 20);
        let path = file_path(dir.path(), 0);
        let whole = fs::read(&path).unwrap();
        for at in positions[1].offset..positions[2].offset {
            let mut bad = whole.clone();
            bad[at as usize] ^= 1;
            fs::write(&path, &bad).unwrap();
            match recovered(dir.path(), Position::START) {
                Err(Error::Corrupt { offset, next, .. }) => {
                    assert_eq!((offset, next), (positions[1].offset, positions[2].offset));
                }
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }

    /// The mark as it would be had the machine been started anew since.
    fn after_another_boot(dir: &Path) {
        let path = dir.join("SYNCED");
        let mut bytes = fs::read(&path).unwrap();
        bytes[24] ^= 1;
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..40]);
        bytes[40..].copy_from_slice(&sum.to_le_bytes());
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced_in_any_order_and_nothing_else() {
        for (bad, synced) in [(1, 1), (1, 2), (2, 1), (3, 3)] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::create(dir.path(), Position::START, 1 << 20).unwrap();
            let mut positions = Vec::new();
            for n in 0..6 {
                positions.push(writer.append([&draft(n)].into_iter(), 1).unwrap());
                if n == synced {
                    writer.sync_handle().sync(u64::from(n) + 1).unwrap();
                }
            }
            let path = file_path(dir.path(), 0);
            let mut bytes = fs::read(&path).unwrap();
            // The record after `positions[bad]` never came to the disk.
            bytes[positions[bad].offset as usize..positions[bad + 1].offset as usize].fill(0);
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(recovered(dir.path(), Position::START), Err(Error::Corrupt { .. })), "no power was lost");
            after_another_boot(dir.path());
            let found = recovered(dir.path(), Position::START);
            if bad < synced as usize {
                assert!(matches!(found, Err(Error::Corrupt { .. })), "it was synced");
                continue;
            }
            let found = found.unwrap();
            assert_eq!(found.tail, positions[bad]);
            assert_eq!(found.torn.as_ref().map(|torn| torn.dropped), Some(4 - bad as u64));
            // Once cut, it is a log like any other.
            let mut writer = Writer::resume(dir.path(), found.tail, 1 << 20).unwrap();
            let end = writer.append([&draft(77)].into_iter(), 1).unwrap();
            assert_eq!(recovered(dir.path(), Position::START).unwrap().tail, end);
        }
    }

    #[test]
    fn a_log_that_lacks_what_was_synced_is_not_taken_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), Position::START, 1 << 20).unwrap();
        let positions: Vec<_> = (0..5).map(|n| writer.append([&draft(n)].into_iter(), 1).unwrap()).collect();
        writer.sync_handle().sync(5).unwrap();
        let file = fs::OpenOptions::new().write(true).open(file_path(dir.path(), 0)).unwrap();
        file.set_len(positions[3].offset).unwrap();
        for from in [Position::START, positions[3]] {
            assert!(matches!(recovered(dir.path(), from), Err(Error::Shortened { .. })));
        }
        // What its own writer takes back is not missed.
        file.set_len(positions[4].offset).unwrap();
        writer.take_back(positions[2], &"a test");
        assert_eq!(recovered(dir.path(), Position::START).unwrap().tail, positions[2]);
    }

    #[test]
    fn an_engine_ahead_of_a_log_with_a_hole_is_the_truth() {
        let dir = tempfile::tempdir().unwrap();
        let positions = write(dir.path(), 6, 1 << 20);
        let path = file_path(dir.path(), 0);
        let mut bytes = fs::read(&path).unwrap();
        bytes[positions[1].offset as usize..positions[2].offset as usize].fill(0);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(recovered(dir.path(), positions[3]).unwrap().tail, positions[5], "what is before is not read");
        after_another_boot(dir.path());
        assert!(matches!(recovered(dir.path(), positions[3]), Err(Error::NotInLog { .. })));
        assert_eq!(recovered(dir.path(), positions[0]).unwrap().tail, positions[1]);
    }

    #[test]
    fn a_roll_cut_short_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let positions = write(dir.path(), 5, 1 << 20);
        let stale =
            super::super::file::encode_header(&Position { filenum: 1, offset: FILE_HEADER_LEN, ..positions[2] });
        for left in [&[0; 10][..], &stale[..]] {
            fs::write(file_path(dir.path(), 1), left).unwrap();
            assert_eq!(recovered(dir.path(), Position::START).unwrap().tail, positions[4]);
            assert!(!file_path(dir.path(), 1).exists());
        }
    }

    #[test]
    fn a_log_that_ends_before_the_engine_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let positions = write(dir.path(), 5, 1 << 20);
        let file = fs::OpenOptions::new().write(true).open(file_path(dir.path(), 0)).unwrap();
        file.set_len(positions[2].offset).unwrap();
        assert!(matches!(recovered(dir.path(), positions[4]), Err(Error::NotInLog { .. })));
    }
}
