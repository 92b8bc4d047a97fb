//! Binlogs: the files that recovery reads, and the runs that a master sends.

use std::fs;
use std::path::Path;

use super::{Answer, Fuzz, answer, answer_of};
use crate::binlog::{
    ChunkReader, Draft, Error, FILE_HEADER_LEN, Participant, Position, RecordStream, RunDecoder, Writer, file_path,
    list_files, locate, put_effect, recover,
};

const RECORDS: u32 = 40;
/// Small, so that there are several files.
const FILE_SIZE: u64 = 900;

fn draft(n: u32) -> Draft {
    let mut draft = Draft::new(1_700_000_000_000 + u64::from(n));
    put_effect(draft.effects(), &[b"SET", format!("key{n}").as_bytes(), &vec![b'v'; n as usize % 40]]);
    if n.is_multiple_of(5) {
        draft.set_participants(&[0, 1].map(|slot| Participant { db: 0, slot, index: u64::from(n) + 1 }));
    }
    draft
}

/// A log as its writer leaves it, and the ends of its records.
fn write(dir: &Path) -> Vec<Position> {
    let mut writer = Writer::create(dir, Position::START, FILE_SIZE).unwrap();
    (0..RECORDS).map(|n| writer.append([&draft(n)].into_iter(), 1 + n / 15).unwrap()).collect()
}

/// The files, one behind the other, each with its number and length before it.
fn pack(dir: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for filenum in list_files(dir).unwrap().into_keys() {
        let bytes = fs::read(file_path(dir, filenum)).unwrap();
        out.push(filenum as u8);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

fn unpack(mut input: &[u8], dir: &Path) {
    while let Some((head, rest)) = input.split_first_chunk::<5>() {
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (bytes, rest) = rest.split_at(len.min(rest.len()));
        fs::write(file_path(dir, u32::from(head[0])), bytes).unwrap();
        input = rest;
    }
}

#[test]
fn log_files() {
    let source = tempfile::tempdir().unwrap();
    let ends = write(source.path());
    let middle = ends[RECORDS as usize / 2];
    let check = |input: &[u8]| -> Answer {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        unpack(input, dir.path());
        let mut answers = Vec::new();
        for from in [Position::START, middle] {
            let mut got = Vec::new();
            let result = recover(dir.path(), from, |record| {
                got.push(record.end);
                Ok::<(), Error>(())
            });
            // Whatever happened to the files: what is replayed is what was written, from the first record on.
            let written = ends.iter().skip_while(|end| from.index >= end.index);
            assert!(got.iter().eq(written.take(got.len())), "replayed {got:?}");
            if let Ok(found) = &result {
                assert_eq!(found.tail.index, got.last().map_or(from.index, |end| end.index));
            }
            answers.push(answer_of(&result, |found| found.records as usize));
        }
        // The sender's reader stops at the end it is given, or fails.
        let known =
            |end: &Position| ends.contains(end) || (end.offset == FILE_HEADER_LEN && end.index <= u64::from(RECORDS));
        if let Ok(mut reader) = ChunkReader::open(dir.path(), middle) {
            let mut chunks = 0;
            while let Ok(Some(chunk)) = reader.next_chunk(ends.last().unwrap(), 200, 10) {
                assert!(known(&chunk.end), "{chunk:?}");
                chunks += 1;
            }
            answers.push(chunks);
        }
        for filenum in list_files(dir.path()).unwrap().into_keys() {
            let _ = locate(dir.path(), filenum, middle.offset);
            if let Ok(mut stream) = RecordStream::open_whole(dir.path(), filenum, true) {
                while let Ok(Some(_)) = stream.next_record() {}
            }
        }
        answer(answers)
    };
    Fuzz::new("log_files", vec![pack(source.path())]).tokens(["HAYPBLOG"]).run(check);
}

#[test]
fn log_runs() {
    let mut run = Vec::new();
    let mut end = Position::START;
    let mut ends = Vec::new();
    for n in 0..RECORDS {
        draft(n).encode(1 + n / 15, &mut end, &mut run);
        ends.push(end);
    }
    Fuzz::new("log_runs", vec![run]).run(|input| {
        let decoded: Vec<_> = RunDecoder::new(input, Position::START).collect();
        let good: Vec<Position> = decoded.iter().map_while(|r| r.as_ref().ok().map(|r| r.end)).collect();
        assert!(good.iter().eq(ends.iter().take(good.len())), "decoded {good:?}");
        assert!(decoded.len() <= good.len() + 1, "went on after an error");
        answer((good.len(), decoded.last().and_then(|r| r.as_ref().err().map(ToString::to_string)).is_some()))
    });
}
