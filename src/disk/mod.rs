//! Every step by which data get to the disk or leave it: writes, syncs, renames, removals, new folders, RocksDB's writes.
//!
//! A step has a [`Point`] in one table. Built with the feature `failpoints` each can be made to fail, or to be the last that the
//! process does ([`failpoints`]); otherwise the points are nothing at all. Reading, logs for the operator and the pidfile are not
//! in here.

#[cfg(feature = "failpoints")]
pub mod failpoints;
#[cfg(not(feature = "failpoints"))]
#[path = "no_failpoints.rs"]
mod failpoints;
mod points;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

pub use points::{Point, Replace, Step};

/// A step whose errors are of the caller's kind, which `refused` makes of what a failpoint says.
pub fn step<T, E>(point: Point, refused: impl Fn(io::Error) -> E, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    failpoints::before(point).map_err(&refused)?;
    let done = run()?;
    failpoints::after(point).map_err(&refused)?;
    Ok(done)
}

fn io_step<T>(point: Point, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    step(point, |e| e, run)
}

fn write_step(point: Point, bytes: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    failpoints::before_write(point, bytes, &mut write)?;
    write(bytes)?;
    failpoints::after(point)
}

/// Opens a file, or makes it.
pub fn open(point: Point, options: &OpenOptions, path: &Path) -> io::Result<File> {
    io_step(point, || options.open(path))
}

/// Writes all bytes at the file's cursor. After an error some of them may be there.
pub fn write_all(point: Point, file: &mut File, bytes: &[u8]) -> io::Result<()> {
    write_step(point, bytes, |bytes| file.write_all(bytes))
}

/// Writes all bytes at `offset`. After an error some of them may be there.
pub fn write_all_at(point: Point, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_step(point, bytes, |bytes| file.write_all_at(bytes, offset))
}

/// Copies a file. After an error some of it may be there.
pub fn copy(point: Point, from: &Path, to: &Path) -> io::Result<()> {
    io_step(point, || fs::copy(from, to).map(drop))
}

/// Cuts or extends a file.
pub fn set_len(point: Point, file: &File, len: u64) -> io::Result<()> {
    io_step(point, || file.set_len(len))
}

/// Changes a file's permissions.
pub fn set_permissions(point: Point, path: &Path, permissions: Permissions) -> io::Result<()> {
    io_step(point, || fs::set_permissions(path, permissions))
}

/// Makes a file's bytes durable, and of its metadata what is needed to read them (fdatasync).
pub fn sync_data(point: Point, file: &File) -> io::Result<()> {
    io_step(point, || file.sync_data())
}

/// Makes a file durable (fsync).
pub fn sync_all(point: Point, file: &File) -> io::Result<()> {
    io_step(point, || file.sync_all())
}

/// Makes the entries of `dir` (created, renamed or removed files) durable.
pub fn sync_dir(point: Point, dir: &Path) -> io::Result<()> {
    io_step(point, || File::open(dir)?.sync_all())
}

/// Makes a folder and those above it, and their names durable; one that is there is no error, and its name not looked after.
pub fn create_dir_all(point: Point, dir: &Path) -> io::Result<()> {
    io_step(point, || make_dirs(dir))
}

/// [`create_dir_all`] for folders that are made once in the life of a server.
pub fn make_dirs(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    fs::create_dir_all(dir)?;
    missing.iter().filter_map(|made| made.parent()).try_for_each(|parent| match parent.as_os_str().is_empty() {
        true => File::open(".")?.sync_all(),
        false => File::open(parent)?.sync_all(),
    })
}

/// Gives a file or folder another name, atomically. Not durable by itself.
pub fn rename(point: Point, from: &Path, to: &Path) -> io::Result<()> {
    io_step(point, || fs::rename(from, to))
}

/// Removes a file.
pub fn remove_file(point: Point, path: &Path) -> io::Result<()> {
    io_step(point, || fs::remove_file(path))
}

/// Removes a folder and what is in it; a folder that is not there is no error.
pub fn remove_dir(point: Point, dir: &Path) -> io::Result<()> {
    io_step(point, || match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    })
}

/// Replaces `path` by `contents`, all or nothing: written beside it, synced, renamed over it, and
/// the rename made durable. A crash leaves the old file or the new one.
pub fn replace_file(points: &Replace, path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    let mut file = File::create(&tmp)?;
    write_all(points.write, &mut file, contents)?;
    sync_all(points.sync, &file)?;
    drop(file);
    rename(points.rename, &tmp, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(points.sync_dir, parent),
        _ => sync_dir(points.sync_dir, Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_file_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        replace_file(&Replace::NODE, &path, b"one").unwrap();
        replace_file(&Replace::NODE, &path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
