//! Finding the next whole record behind damage, without reading the rest of the file into memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Error;
use super::record::{Header, RECORD_HEADER_LEN};
use super::recovery::HORIZON;

/// Bytes looked at at once.
const WINDOW: usize = 1 << 20;

/// A whole record whose predecessor is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it begins.
    pub offset: u64,
    pub index: u64,
}

/// The first whole record that begins at or after `from` and ends before or at `limit`, and whose index is above `index`: what a
/// recovery takes for one as well.
pub(super) fn find_record(file: &File, path: &Path, from: u64, limit: u64, index: u64) -> Result<Option<Found>, Error> {
    let mut window = vec![0; WINDOW];
    let mut start = from;
    while start + RECORD_HEADER_LEN as u64 <= limit {
        let len = usize::try_from(limit - start).unwrap_or(usize::MAX).min(WINDOW);
        let bytes = &mut window[..len];
        file.read_exact_at(bytes, start).map_err(Error::io(path))?;
        let candidates = len - RECORD_HEADER_LEN + 1;
        for at in 0..candidates {
            let Ok(header) = Header::parse(&bytes[at..]) else { continue };
            if !header.may_come_after(index, HORIZON) {
                continue;
            }
            let offset = start + at as u64;
            let body = offset + RECORD_HEADER_LEN as u64;
            if body + u64::from(header.len) <= limit
                && checksum(file, body, u64::from(header.len)).map_err(Error::io(path))? == header.body_crc
            {
                return Ok(Some(Found { offset, index: header.index }));
            }
        }
        start += candidates as u64;
    }
    Ok(None)
}

/// CRC-32 of `len` bytes of a file.
fn checksum(file: &File, from: u64, len: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; WINDOW.min(usize::try_from(len).unwrap_or(WINDOW))];
    let mut done = 0;
    while done < len {
        let part = buffer.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
        file.read_exact_at(&mut buffer[..part], from + done)?;
        hasher.update(&buffer[..part]);
        done += part as u64;
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Draft, Position, RecordStream, Writer, file_path, put_effect};
    use super::*;

    /// Records of sizes around and above the window, one of them damaged: the next one is found, and those behind it are read.
    #[test]
    fn goes_on_behind_damage() {
        let sizes = [10, WINDOW - 40, 3 * WINDOW, 7, WINDOW, 1];
        for bad in 0..sizes.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::create(dir.path(), Position::START, u64::MAX).unwrap();
            let ends = sizes.map(|size| {
                let mut draft = Draft::new(1);
                put_effect(draft.effects(), &[b"SET", b"k", &vec![b'x'; size]]);
                writer.append([&draft].into_iter(), 1).unwrap()
            });
            let path = file_path(dir.path(), 0);
            let mut bytes = fs::read(&path).unwrap();
            bytes[ends[bad].offset as usize - 1] ^= 1;
            fs::write(&path, bytes).unwrap();
            let mut stream = RecordStream::open_path(&path).unwrap();
            let mut read = Vec::new();
            loop {
                match stream.next_record() {
                    Ok(Some(record)) => read.push(record.end),
                    Ok(None) => break,
                    Err(Error::BadRecord { .. }) => {
                        let found = stream.resync().unwrap();
                        assert_eq!(found, (bad + 1 < sizes.len()).then(|| ends[bad].offset));
                        if found.is_none() {
                            break;
                        }
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            let expected: Vec<_> = ends.iter().filter(|end| **end != ends[bad]).copied().collect();
            assert_eq!(read, expected);
        }
    }
}
