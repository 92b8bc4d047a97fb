//! Binlog files: names, headers, listings.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64;

use super::{Error, Position};

/// Bytes of a file's header; the first record of a file that was begun by its writer starts here.
pub const FILE_HEADER_LEN: u64 = 64;

const MAGIC: &[u8; 8] = b"HAYPBLOG";
const VERSION: u32 = 1;
const PREFIX: &str = "binlog.";
/// Bytes of the header that its checksum covers.
const CHECKED_LEN: usize = 56;

/// What is known of a file without reading its records.
#[derive(Clone, Copy, Debug)]
pub struct FileInfo {
    /// Bytes, the hole before the first record included.
    pub size: u64,
    pub modified: SystemTime,
}

/// Where file `filenum` of the log in `dir` is.
pub fn file_path(dir: &Path, filenum: u32) -> PathBuf {
    dir.join(format!("{PREFIX}{filenum:010}"))
}

/// The file number in a file's name, if it is a binlog's.
pub fn parse_file_name(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The files of the log in `dir`, by number.
pub fn list_files(dir: &Path) -> Result<BTreeMap<u32, FileInfo>, Error> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        if let Some(filenum) = entry.file_name().to_str().and_then(parse_file_name) {
            let path = entry.path();
            let meta = entry.metadata().map_err(Error::io(&path))?;
            let modified = meta.modified().map_err(Error::io(&path))?;
            files.insert(filenum, FileInfo { size: meta.len(), modified });
        }
    }
    Ok(files)
}

/// Whether any file of the log in `dir` holds bytes of a record. A file whose creation was cut short holds none.
pub fn holds_records(dir: &Path) -> Result<bool, Error> {
    for (filenum, file) in list_files(dir)? {
        if file.size > FILE_HEADER_LEN && file.size > open_file(dir, filenum)?.1.offset {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The header of a file whose first record comes after `start` (file number and offset being this file's).
pub(super) fn encode_header(start: &Position) -> [u8; FILE_HEADER_LEN as usize] {
    let mut h = [0; FILE_HEADER_LEN as usize];
    h[0..8].copy_from_slice(MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_le_bytes());
    h[12..12 + Position::ENCODED_LEN].copy_from_slice(&start.encode());
    let sum = xxh3_64(&h[..CHECKED_LEN]);
    h[CHECKED_LEN..].copy_from_slice(&sum.to_le_bytes());
    h
}

/// Opens a file for reading and returns the position before its first record.
pub(super) fn open_file(dir: &Path, filenum: u32) -> Result<(File, Position, PathBuf), Error> {
    let path = file_path(dir, filenum);
    let file = File::open(&path).map_err(Error::io(&path))?;
    let start = read_header(&file, &path)?;
    if start.filenum != filenum {
        return Err(Error::Format { path, why: format!("its header says file {}", start.filenum) });
    }
    Ok((file, start, path))
}

/// Opens a file of any name for reading and returns the position before its first record.
pub(super) fn open_path(path: &Path) -> Result<(File, Position), Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let start = read_header(&file, path)?;
    Ok((file, start))
}

fn read_header(file: &File, path: &Path) -> Result<Position, Error> {
    let format = |why: &str| Error::Format { path: path.to_path_buf(), why: why.to_string() };
    let mut h = [0; FILE_HEADER_LEN as usize];
    file.read_exact_at(&mut h, 0).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => format("too short for a binlog header"),
        _ => Error::io(path)(e),
    })?;
    if h[0..8] != MAGIC[..] {
        return Err(format("not a binlog (bad magic)"));
    }
    let version = u32::from_le_bytes([h[8], h[9], h[10], h[11]]);
    if version != VERSION {
        return Err(format(&format!("binlog version {version}, this build knows {VERSION}")));
    }
    if xxh3_64(&h[..CHECKED_LEN]).to_le_bytes() != h[CHECKED_LEN..] {
        return Err(format("header checksum mismatch"));
    }
    match Position::decode(&h[12..12 + Position::ENCODED_LEN]) {
        Some(start) if start.offset >= FILE_HEADER_LEN => Ok(start),
        _ => Err(format("impossible start offset in the header")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let path = file_path(Path::new("d"), 42);
        assert_eq!(path, Path::new("d/binlog.0000000042"));
        assert_eq!(parse_file_name("binlog.0000000042"), Some(42));
        for bad in
            ["binlog.42", "binlog.", "binlog.+000000042", "binlog.00000000042", "write2file0", "binlog.9999999999"]
        {
            assert_eq!(parse_file_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn headers_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let start = Position { filenum: 3, offset: 100, term: 2, index: 9, chain: 77 };
        let path = file_path(dir.path(), 3);
        let good = encode_header(&start);
        fs::write(&path, good).unwrap();
        assert_eq!(open_file(dir.path(), 3).unwrap().1, start);
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            fs::write(&path, bad).unwrap();
            assert!(open_file(dir.path(), 3).is_err(), "byte {at}");
        }
        fs::write(&path, &good[..63]).unwrap();
        assert!(open_file(dir.path(), 3).is_err());
    }
}
