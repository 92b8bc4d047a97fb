//! The log file: opened at the first line, renamed to `haypile.log.1` when it is full, opened anew when asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The current log file's name in the log folder.
const NAME: &str = "haypile.log";

/// A log file that rotates by size.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    open: Option<File>,
    /// Bytes in the open file.
    size: u64,
    /// Bytes a file may hold; a longer line gets a file to itself.
    max_size: u64,
    /// Older files kept: `haypile.log.1` is the newest of them.
    keep: u32,
}

impl LogFile {
    /// A log file in `folder`. Nothing is touched until [`open`](Self::open) or the first line.
    pub(super) fn new(folder: &Path, max_size: u64, keep: u32) -> Self {
        LogFile { path: folder.join(NAME), open: None, size: 0, max_size, keep }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, and makes its folder, unless it is open.
    pub(super) fn open(&mut self) -> io::Result<&mut File> {
        match &mut self.open {
            Some(file) => Ok(file),
            none => {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.size = file.metadata()?.len();
                Ok(none.insert(file))
            }
        }
    }

    /// Opens the file by its name again, after it was renamed or removed from outside. When that fails, the file
    /// that was open goes on.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let old = (self.open.take(), self.size);
        let reopened = self.open().map(drop);
        if reopened.is_err() {
            (self.open, self.size) = old;
        }
        reopened
    }

    /// Appends `line`, in a new file when this one is full.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.open()?;
        if self.size > 0 && self.size.saturating_add(line.len() as u64) > self.max_size && self.rotate().is_err() {
            // A log that cannot be rotated goes on in its old file; the next try is a full file away.
            self.size = 0;
        }
        self.open()?.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        }
        for number in (0..self.keep).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.reopen()
    }

    /// The file's `number`th predecessor; 0 is the file itself.
    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 { self.path.clone() } else { self.path.with_file_name(format!("{NAME}.{number}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(dir: &Path) -> Vec<(String, String)> {
        let read =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect();
        files.sort();
        files
    }

    fn files(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    #[test]
    fn keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::new(dir.path(), 4, 2);
        assert_eq!(contents(dir.path()), []);
        for line in ["a\n", "b\n", "c\n", "a long one\n", "d\n", "e\n", "f\n"] {
            log.write_line(line.as_bytes()).unwrap();
        }
        let expected = [("haypile.log", "f\n"), ("haypile.log.1", "d\ne\n"), ("haypile.log.2", "a long one\n")];
        assert_eq!(contents(dir.path()), files(&expected));
    }

    #[test]
    fn counts_what_an_earlier_process_wrote() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "old\n").unwrap();
        LogFile::new(dir.path(), 5, 0).write_line(b"new\n").unwrap();
        assert_eq!(contents(dir.path()), files(&[("haypile.log", "new\n")]));
    }

    #[test]
    fn reopens_after_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::new(&dir.path().join("log"), 1000, 2);
        log.write_line(b"a\n").unwrap();
        let moved = dir.path().join("log/moved");
        fs::rename(log.path(), &moved).unwrap();
        log.write_line(b"b\n").unwrap();
        log.reopen().unwrap();
        log.write_line(b"c\n").unwrap();
        assert_eq!(fs::read_to_string(moved).unwrap(), "a\nb\n");
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "c\n");
    }

    #[test]
    fn a_gap_among_the_old_files_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::new(dir.path(), 2, 3);
        for line in ["a\n", "b\n", "c\n"] {
            log.write_line(line.as_bytes()).unwrap();
        }
        fs::remove_file(dir.path().join("haypile.log.1")).unwrap();
        log.write_line(b"d\n").unwrap();
        let expected = [("haypile.log", "d\n"), ("haypile.log.1", "c\n"), ("haypile.log.3", "a\n")];
        assert_eq!(contents(dir.path()), files(&expected));
    }
}
