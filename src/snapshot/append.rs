//! Writing a file that is received, from its end on. Large files go past the system's page cache: what a full sync brings is not what clients
//! read next, and to find pages for it takes longer than to copy it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::disk::{self, Point};

/// Bytes that are gathered before they are written.
const GATHERED: usize = 1 << 20;
/// Of memory, lengths and offsets of what is written past the page cache: no disk wants more, bytes.
const ALIGNMENT: usize = 4096;

/// Appends to a file. What it has not written yet when it is dropped is lost.
pub(super) struct Appender {
    file: File,
    /// The same file, past the page cache; `None` where that is not worth it, or the file system cannot.
    direct: Option<File>,
    /// Bytes that are in the file.
    written: u64,
    /// Bytes that are gathered at most.
    most: usize,
    /// Room for them, and for aligning them.
    buffer: Vec<u8>,
    /// Where in the buffer they are.
    gathered: Range<usize>,
}

impl Appender {
    /// To the file at `path`, open as `file`, which has `len` bytes and is to have `size`.
    pub fn new(file: File, path: &Path, len: u64, size: u64) -> Appender {
        let missing = size.saturating_sub(len);
        let most = missing.min(GATHERED as u64) as usize;
        let mut direct = OpenOptions::new();
        direct.write(true).custom_flags((OFlag::O_DIRECT | OFlag::O_NOFOLLOW).bits());
        let direct = if most == GATHERED { direct.open(path).ok() } else { None };
        let buffer = vec![0; most + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Appender { file, direct, written: len, most, buffer, gathered: start..start }
    }

    /// Adds bytes. After an error some of them may be in the file.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // So many that the next ones begin at an aligned offset.
            let most = if self.direct.is_some() { self.most - self.misaligned() } else { self.most };
            if self.gathered.len() >= most {
                self.write()?;
                continue;
            }
            let taken = bytes.split_off(..bytes.len().min(most - self.gathered.len())).unwrap_or_default();
            let end = self.gathered.end + taken.len();
            self.buffer[self.gathered.end..end].copy_from_slice(taken);
            self.gathered.end = end;
        }
        Ok(())
    }

    /// By how many bytes the end of the file is behind an aligned offset.
    fn misaligned(&self) -> usize {
        (self.written % ALIGNMENT as u64) as usize
    }

    /// Writes what is gathered.
    pub fn write(&mut self) -> io::Result<()> {
        let mut bytes = &self.buffer[self.gathered.clone()];
        if self.misaligned() == 0
            && let Some(direct) = &self.direct
        {
            let (aligned, rest) = bytes.split_at(bytes.len() / ALIGNMENT * ALIGNMENT);
            match disk::write_all_at(Point::ReceiveWrite, direct, aligned, self.written) {
                Ok(()) => {
                    self.written += aligned.len() as u64;
                    bytes = rest;
                }
                // It wants more than others do: then as any file.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                Err(e) => return Err(e),
            }
        }
        if !bytes.is_empty() {
            disk::write_all_at(Point::ReceiveWrite, &self.file, bytes, self.written)?;
            self.written += bytes.len() as u64;
        }
        self.gathered.end = self.gathered.start;
        Ok(())
    }

    /// Writes what is gathered, and makes the file durable.
    pub fn finish(&mut self) -> io::Result<()> {
        self.write()?;
        disk::sync_all(Point::ReceiveSync, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Files of all kinds of lengths, received in parts of all kinds of lengths, with interruptions: they are what was sent.
    #[test]
    fn what_is_appended_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<u8> = (0..3 * GATHERED + 5000).map(|n| (n % 251) as u8).collect();
        let sizes = [0, 1, ALIGNMENT, GATHERED - 1, GATHERED, GATHERED + 1, 2 * GATHERED, all.len()];
        for (nth, size) in sizes.into_iter().enumerate() {
            for part in [777, ALIGNMENT, 65_536, GATHERED + 10] {
                let path = dir.path().join(format!("{nth}-{part}"));
                // Interrupted after a third.
                for end in [size / 3, size] {
                    let mut options = OpenOptions::new();
                    let file = options.read(true).write(true).create(true).truncate(false).open(&path).unwrap();
                    let len = file.metadata().unwrap().len() as usize;
                    let mut appender = Appender::new(file, &path, len as u64, size as u64);
                    all[len..end].chunks(part).for_each(|part| appender.append(part).unwrap());
                    if end == size {
                        appender.finish().unwrap()
                    } else {
                        appender.write().unwrap()
                    }
                    assert_eq!(fs::metadata(&path).unwrap().len() as usize, end);
                }
                assert!(fs::read(&path).unwrap() == all[..size], "{size} in parts of {part}");
            }
        }
    }

    #[test]
    fn a_file_system_that_cannot_is_written_as_any() {
        let shm = Path::new("/dev/shm");
        let dir = if shm.exists() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() };
        let path = dir.path().join("file");
        let all = vec![7; 2 * GATHERED + 1];
        let mut appender = Appender::new(File::create(&path).unwrap(), &path, 0, all.len() as u64);
        appender.append(&all).unwrap();
        appender.finish().unwrap();
        assert!(fs::read(&path).unwrap() == all);
    }
}
