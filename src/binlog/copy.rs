//! Copying a part of a log, as a log of its own that begins in the middle: for saves, and for what is restored from them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::file::{FILE_HEADER_LEN, encode_header, file_path, open_file};
use super::{Error, Position};
use crate::disk::{self, Point};

/// Bytes copied at a time.
const BUFFER: usize = 256 << 10;

/// Copies the records of the log in `from_dir` from the end of one record, `from`, up to the end of another, `to`, into the new folder
/// `to_dir`, where they have the same file numbers and offsets. Durable when it returns, but for the folder's name in its parent.
/// Calls `copied` with the bytes of each step. Does not look at the records.
pub fn copy_records(
    from_dir: &Path,
    from: Position,
    to: Position,
    to_dir: &Path,
    copied: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    disk::create_dir_all(Point::LogCopyCreateDir, to_dir).map_err(Error::io(to_dir))?;
    for filenum in from.filenum..=to.filenum {
        let (mut source, start, source_path) = open_file(from_dir, filenum)?;
        let first = filenum == from.filenum;
        let start = if first { from } else { start };
        let end = match filenum == to.filenum {
            true => to.offset,
            false => source.metadata().map_err(Error::io(&source_path))?.len(),
        };
        let path = file_path(to_dir, filenum);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let mut target = disk::open(Point::LogCopyCreate, &options, &path).map_err(Error::io(&path))?;
        let header = encode_header(&start);
        disk::write_all(Point::LogCopyWrite, &mut target, &header).map_err(Error::io(&path))?;
        // What is before the first record is a hole.
        disk::set_len(Point::LogCopyExtend, &target, start.offset).map_err(Error::io(&path))?;
        target.seek(SeekFrom::Start(start.offset)).map_err(Error::io(&path))?;
        source.seek(SeekFrom::Start(start.offset)).map_err(Error::io(&source_path))?;
        let wanted = end.saturating_sub(start.offset);
        let found = copy_bytes(&mut source, &mut target, wanted, copied).map_err(Error::io(&path))?;
        if found < wanted {
            return Err(Error::NotInLog { path: source_path, filenum, offset: end });
        }
        disk::sync_all(Point::LogCopySync, &target).map_err(Error::io(&path))?;
    }
    disk::sync_dir(Point::LogCopySyncDir, to_dir).map_err(Error::io(to_dir))
}

/// Makes a log in the new folder `dir` that has no record yet and begins after `start`. Durable as [`copy_records`].
pub fn begin_log(dir: &Path, start: Position) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = file_path(dir, start.filenum);
    let make = || -> io::Result<()> {
        fs::write(&path, encode_header(&start))?;
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(start.offset.max(FILE_HEADER_LEN))?;
        file.sync_all()?;
        File::open(dir)?.sync_all()
    };
    make().map_err(Error::io(&path))
}

fn copy_bytes(source: &mut File, target: &mut File, count: u64, copied: &mut dyn FnMut(u64)) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut source = source.take(count);
    let mut total = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                disk::write_all(Point::LogCopyWrite, target, &buffer[..read])?;
                total += read as u64;
                copied(read as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Draft, Writer, put_effect, recover};
    use super::*;

    #[test]
    fn a_part_of_a_log_is_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, part) = (dir.path().join("whole"), dir.path().join("part"));
        let mut writer = Writer::create(&whole, Position::START, 500).unwrap();
        let mut ends = vec![Position::START];
        for n in 0..50u32 {
            let mut draft = Draft::new(u64::from(n));
            put_effect(draft.effects(), &[b"SET", &n.to_be_bytes(), b"value"]);
            ends.push(writer.append([&draft].into_iter(), 1).unwrap());
        }
        for (from, to) in [(0, 50), (3, 4), (7, 33), (20, 20), (49, 50)] {
            let (from, to) = (ends[from], ends[to]);
            copy_records(&whole, from, to, &part, &mut |_| {}).unwrap();
            let found = recover(&part, from, |_| Ok::<(), Error>(())).unwrap();
            assert_eq!((found.tail, found.torn.is_none()), (to, true));
            Writer::resume(&part, to, 500).unwrap();
            fs::remove_dir_all(&part).unwrap();
        }
        begin_log(&part, ends[10]).unwrap();
        assert_eq!(recover(&part, ends[10], |_| Ok::<(), Error>(())).unwrap().tail, ends[10]);
    }
}
