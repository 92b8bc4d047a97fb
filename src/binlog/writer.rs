//! Appending to a binlog. Hot path: one write a group, nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::file::{FILE_HEADER_LEN, encode_header, file_path};
use super::mark::{Mark, Place, lower_mark, place_of};
use super::{Draft, Error, MAX_BODY_LEN, Position};
use crate::disk::{self, Point};

/// Buffer kept between groups; a larger group's memory is given back.
const KEPT_BUFFER: usize = 1 << 20;

/// The one writer of a slot's binlog. Lives under the slot's commit lock.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    file: Arc<File>,
    path: PathBuf,
    tail: Position,
    max_file_size: u64,
    buf: Vec<u8>,
    broken: Option<String>,
    sync: Arc<SyncHandle>,
}

impl Writer {
    /// Begins a log in the empty or missing folder `dir` whose first record will come after `start`. Durable when it returns.
    pub fn create(dir: &Path, start: Position, max_file_size: u64) -> Result<Writer, Error> {
        disk::create_dir_all(Point::BinlogCreateDir, dir).map_err(Error::io(dir))?;
        // Its name is made durable with that of the first file.
        let mark = Mark::open(dir, place_of(&start))?;
        let file = create_file(dir, &start)?;
        if let Some(parent) = dir.parent() {
            disk::sync_dir(Point::BinlogSyncParent, parent).map_err(Error::io(parent))?;
        }
        Ok(Writer::new(dir, file, start, max_file_size, mark))
    }

    /// Goes on after `tail`, the end that recovery found. What follows it in its file is cut off.
    pub fn resume(dir: &Path, tail: Position, max_file_size: u64) -> Result<Writer, Error> {
        let path = file_path(dir, tail.filenum);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io(&path))?;
        lower_mark(dir, &tail)?;
        if file.metadata().map_err(Error::io(&path))?.len() > tail.offset {
            disk::set_len(Point::BinlogResumeTruncate, &file, tail.offset).map_err(Error::io(&path))?;
        }
        // What a killed process left may be in the page cache only; from here on it counts as durable.
        disk::sync_all(Point::BinlogResumeSync, &file).map_err(Error::io(&path))?;
        let mark = Mark::open(dir, place_of(&tail))?;
        Ok(Writer::new(dir, file, tail, max_file_size, mark))
    }

    fn new(dir: &Path, file: File, tail: Position, max_file_size: u64, mark: Mark) -> Writer {
        let file = Arc::new(file);
        Writer {
            dir: dir.to_path_buf(),
            path: file_path(dir, tail.filenum),
            sync: Arc::new(SyncHandle::new(file.clone(), &tail, mark)),
            file,
            tail,
            max_file_size,
            buf: Vec::new(),
            broken: None,
        }
    }

    /// The end of the last record.
    pub fn tail(&self) -> Position {
        self.tail
    }

    /// The handle by which other threads make the log durable.
    pub fn sync_handle(&self) -> Arc<SyncHandle> {
        self.sync.clone()
    }

    /// Appends records as one write. All of them or, on an error, none.
    pub fn append<'a>(&mut self, drafts: impl Iterator<Item = &'a Draft>, term: u32) -> Result<Position, Error> {
        self.check()?;
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        let mut end = self.tail;
        for draft in drafts {
            if draft.encoded_len() > MAX_BODY_LEN as usize {
                self.buf = buf;
                return Err(Error::TooLarge { bytes: draft.encoded_len() });
            }
            draft.encode(term.max(end.term), &mut end, &mut buf);
        }
        let result = self.append_encoded(&buf, end);
        if buf.capacity() <= KEPT_BUFFER {
            self.buf = buf;
        }
        result
    }

    fn append_encoded(&mut self, buf: &[u8], mut end: Position) -> Result<Position, Error> {
        if self.tail.offset > FILE_HEADER_LEN && end.offset > self.max_file_size {
            let start = Position { filenum: self.tail.filenum + 1, offset: FILE_HEADER_LEN, ..self.tail };
            self.roll(start)?;
            end = Position { filenum: start.filenum, offset: start.offset + buf.len() as u64, ..end };
        }
        self.write(buf, end)
    }

    /// Appends a run of whole records received from a master, already decoded and found to continue this log
    /// and to end at `end`. Rolls to the next file where the master did.
    pub fn append_run(&mut self, run: &[u8], end: Position) -> Result<Position, Error> {
        self.check()?;
        let start = end.offset.checked_sub(run.len() as u64);
        if end.filenum == self.tail.filenum && start == Some(self.tail.offset) {
            self.write(run, end)
        } else if self.tail.filenum.checked_add(1) == Some(end.filenum) && start == Some(FILE_HEADER_LEN) {
            self.roll(Position { filenum: end.filenum, offset: FILE_HEADER_LEN, ..self.tail })?;
            self.write(run, end)
        } else {
            Err(Error::Discontinuous {
                filenum: self.tail.filenum,
                offset: self.tail.offset,
                why: "the run starts elsewhere",
            })
        }
    }

    fn write(&mut self, bytes: &[u8], end: Position) -> Result<Position, Error> {
        if let Err(e) = disk::write_all_at(Point::BinlogAppend, &self.file, bytes, end.offset - bytes.len() as u64) {
            self.undo(&e);
            return Err(Error::io(&self.path)(e));
        }
        self.tail = end;
        self.sync.appended(&end);
        Ok(end)
    }

    /// Takes back the records after `before`, an end that this writer had, because something else that belongs to the write has
    /// failed (`cause`). Nobody has been told of them. Durable: a power cut must not bring a part of a write back.
    pub fn take_back(&mut self, before: Position, cause: &dyn std::fmt::Display) {
        let to = if before.filenum == self.tail.filenum {
            before
        } else {
            Position { filenum: self.tail.filenum, offset: FILE_HEADER_LEN, ..before }
        };
        self.tail = to;
        let undone = self.sync.taken_back(&to).and_then(|()| {
            disk::set_len(Point::BinlogUndo, &self.file, to.offset)?;
            disk::sync_data(Point::BinlogUndoSync, &self.file)
        });
        if let Err(e) = undone {
            self.broken = Some(format!("{}: {cause}, and taking the write back failed: {e}", self.path.display()));
        }
    }

    /// The size beyond which a file is followed by a new one, bytes.
    pub fn set_max_file_size(&mut self, bytes: u64) {
        self.max_file_size = bytes;
    }

    /// Takes back what a failed write may have left behind the tail.
    fn undo(&mut self, cause: &io::Error) {
        if let Err(e) = disk::set_len(Point::BinlogUndo, &self.file, self.tail.offset) {
            self.broken = Some(format!("{}: {cause}, and cutting it back failed: {e}", self.path.display()));
        }
    }

    /// Goes on in a new file that begins at `start`.
    fn roll(&mut self, start: Position) -> Result<(), Error> {
        // First the finished file: a power cut must not leave the next one without its end.
        disk::sync_data(Point::BinlogRollSync, &self.file).map_err(Error::io(&self.path))?;
        let file = create_file(&self.dir, &start).inspect_err(|_| {
            // A file left here would contradict what is appended to the present one. Should it stay, it holds no record, and
            // recovery passes over it.
            let _ = disk::remove_file(Point::BinlogRollRemove, &file_path(&self.dir, start.filenum));
        })?;
        let file = Arc::new(file);
        self.sync.rolled(file.clone(), place_of(&self.tail));
        self.path = file_path(&self.dir, start.filenum);
        self.file = file;
        self.tail = start;
        Ok(())
    }

    /// Why nothing can be appended any more: a failed write could not be undone.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn check(&self) -> Result<(), Error> {
        match self.broken() {
            Some(why) => Err(Error::Broken(why.to_string())),
            None => Ok(()),
        }
    }
}

/// Makes the log in `dir` durable as it is, up to its end `tail`. Files before the last were made so when the next was begun.
pub fn make_durable(dir: &Path, tail: &Position) -> Result<(), Error> {
    let path = file_path(dir, tail.filenum);
    let file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
    disk::sync_data(Point::BinlogResumeSync, &file).map_err(Error::io(&path))
}

/// Creates the file that begins at `start`, its header and its name durable. A file that a crash or a
/// failed roll left there holds no record and is replaced.
fn create_file(dir: &Path, start: &Position) -> Result<File, Error> {
    let path = file_path(dir, start.filenum);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = disk::open(Point::BinlogCreate, &options, &path).map_err(Error::io(&path))?;
    disk::write_all(Point::BinlogHeader, &mut file, &encode_header(start))
        .and_then(|()| disk::set_len(Point::BinlogExtend, &file, start.offset))
        .and_then(|()| disk::sync_all(Point::BinlogSyncHeader, &file))
        .and_then(|()| disk::sync_dir(Point::BinlogSyncDir, dir))
        .map_err(Error::io(&path))?;
    Ok(file)
}

/// Makes appended records durable, from any thread and without the commit lock.
#[derive(Debug)]
pub struct SyncHandle {
    /// Files with records not yet synced, the one being written last.
    files: Mutex<Vec<Arc<File>>>,
    /// Held during a sync, so that one sync serves all who wait for it.
    syncing: Mutex<()>,
    /// The log's end.
    end: Mutex<Place>,
    /// Index of the last record. Changes with `end`, under its lock.
    appended: AtomicU64,
    durable: AtomicU64,
    /// A sync has failed: the kernel tells so once, and may have dropped what was to be written.
    failed: AtomicBool,
    mark: Mutex<Mark>,
}

impl SyncHandle {
    fn new(file: Arc<File>, durable: &Position, mark: Mark) -> SyncHandle {
        SyncHandle {
            files: Mutex::new(vec![file]),
            syncing: Mutex::new(()),
            end: Mutex::new(place_of(durable)),
            appended: AtomicU64::new(durable.index),
            durable: AtomicU64::new(durable.index),
            failed: AtomicBool::new(false),
            mark: Mutex::new(mark),
        }
    }

    fn appended(&self, to: &Position) {
        let mut end = self.end.lock();
        *end = place_of(to);
        self.appended.store(to.index, Ordering::Release);
    }

    /// Records after `to` are no more; others will take their numbers. The mark does not claim them when this returns.
    fn taken_back(&self, to: &Position) -> io::Result<()> {
        let _turn = self.syncing.lock();
        self.appended(to);
        self.durable.fetch_min(to.index, Ordering::AcqRel);
        self.mark.lock().lower(place_of(to))
    }

    /// The log goes on in `file`; the one before it, which ends at `end`, is durable.
    fn rolled(&self, file: Arc<File>, end: Place) {
        self.files.lock().push(file);
        self.mark.lock().advance(end);
    }

    /// Whether something was appended since the last sync.
    pub fn is_dirty(&self) -> bool {
        self.durable.load(Ordering::Acquire) < self.appended.load(Ordering::Acquire)
    }

    /// Returns when every record up to `index` is on stable storage (fdatasync). Threads that wait at the same time
    /// share one sync.
    pub fn sync(&self, index: u64) -> io::Result<()> {
        if self.durable.load(Ordering::Acquire) >= index {
            return Ok(());
        }
        let _turn = self.syncing.lock();
        if self.durable.load(Ordering::Acquire) >= index {
            return Ok(());
        }
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of this log failed"));
        }
        // Read before the sync: all up to here has been written to one of `files`.
        let (covered, place) = {
            let end = self.end.lock();
            (self.appended.load(Ordering::Acquire), *end)
        };
        let files = self.files.lock().clone();
        for file in &files {
            disk::sync_data(Point::BinlogSync, file).inspect_err(|_| self.failed.store(true, Ordering::Release))?;
        }
        // All but the last are finished and now durable.
        self.files.lock().drain(..files.len() - 1);
        self.durable.fetch_max(covered, Ordering::AcqRel);
        self.mark.lock().advance(place);
        Ok(())
    }

    /// The index of the last record appended.
    pub fn appended_index(&self) -> u64 {
        self.appended.load(Ordering::Acquire)
    }
}
