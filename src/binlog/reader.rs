//! Reading a binlog: record by record, or in chunks of whole records for a replica.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::file::{open_file, open_path};
use super::record::{Flaw, Record};
use super::salvage;
use super::{Error, FILE_HEADER_LEN, Position};

/// Bytes read from a file at once.
const READ_AHEAD: usize = 1 << 20;
/// The same for a replica: there is a reader for every slot of every replica.
const CHUNK_READ_AHEAD: usize = 256 << 10;

/// The records of one file from a position on, up to a limit.
#[derive(Debug)]
pub struct RecordStream {
    file: File,
    path: PathBuf,
    buf: Vec<u8>,
    /// Where in `buf` the next record starts.
    at: usize,
    position: Position,
    limit: u64,
    verify_body: bool,
    /// Whether `position.chain` is what the next record's chain must continue.
    chained: bool,
    read_ahead: usize,
}

impl RecordStream {
    /// Reads file `from.filenum` from `from` on. `limit` is the offset to stop at, `None` for the file's end as it is now.
    /// `verify_body` checks each body's checksum too; header and chain always are.
    pub fn open(dir: &Path, from: Position, limit: Option<u64>, verify_body: bool) -> Result<RecordStream, Error> {
        let (file, start, path) = open_file(dir, from.filenum)?;
        if from.offset < start.offset {
            return Err(Error::NotInLog { path, filenum: from.filenum, offset: from.offset });
        }
        RecordStream::new(file, path, from, limit, verify_body)
    }

    /// Reads a whole file.
    pub fn open_whole(dir: &Path, filenum: u32, verify_body: bool) -> Result<RecordStream, Error> {
        let (file, start, path) = open_file(dir, filenum)?;
        RecordStream::new(file, path, start, None, verify_body)
    }

    /// Reads a whole file that may have any name, as one saved under `diverged/` has. Bodies are verified.
    pub fn open_path(path: &Path) -> Result<RecordStream, Error> {
        let (file, start) = open_path(path)?;
        RecordStream::new(file, path.to_path_buf(), start, None, true)
    }

    /// Reads a file whose header cannot be read, as file `filenum`, from the first whole record on that can be found; `None` when
    /// there is none. Bodies are verified.
    pub fn open_headless(path: &Path, filenum: u32) -> Result<Option<RecordStream>, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let start = Position { filenum, offset: 0, ..Position::START };
        let mut stream = RecordStream::new(file, path.to_path_buf(), start, None, true)?;
        Ok(stream.resync()?.map(|_| stream))
    }

    /// After [`Error::BadRecord`]: goes on with the first whole record behind the bad one, and returns where that begins; `None`
    /// when there is none. That it continues what came before it cannot be checked; what follows it is checked against it.
    pub fn resync(&mut self) -> Result<Option<u64>, Error> {
        let after = self.position;
        let Some(found) = salvage::find_record(&self.file, &self.path, after.offset + 1, self.limit, after.index)?
        else {
            return Ok(None);
        };
        self.buf.clear();
        self.at = 0;
        self.position = Position { offset: found.offset, term: 0, index: found.index - 1, chain: 0, ..after };
        self.chained = false;
        Ok(Some(found.offset))
    }

    fn new(
        file: File,
        path: PathBuf,
        position: Position,
        limit: Option<u64>,
        verify_body: bool,
    ) -> Result<Self, Error> {
        let len = file.metadata().map_err(Error::io(&path))?.len();
        if len < position.offset {
            return Err(Error::NotInLog { path, filenum: position.filenum, offset: position.offset });
        }
        let limit = limit.unwrap_or(len).min(len);
        Ok(RecordStream {
            file,
            path,
            buf: Vec::new(),
            at: 0,
            position,
            limit,
            verify_body,
            chained: true,
            read_ahead: READ_AHEAD,
        })
    }

    /// The end of the last record returned.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads up to a later limit from now on.
    fn extend_limit(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// The next record; `None` at the limit. [`Error::BadRecord`] where the bytes before the limit are no whole record.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Error> {
        if self.position.offset >= self.limit {
            return Ok(None);
        }
        loop {
            // Parsed twice on success: the borrow checker cannot see that the first borrow ends with `Short`.
            let chained = self.chained;
            let next = Record::parse_after(&self.buf[self.at..], &self.position, chained, self.verify_body);
            match next.map(|r| r.end) {
                Ok(end) => {
                    let from = self.at;
                    let after = self.position;
                    self.chained = true;
                    self.at += (end.offset - after.offset) as usize;
                    self.position = end;
                    return match Record::parse_after(&self.buf[from..], &after, chained, false) {
                        Ok(record) => Ok(Some(record)),
                        Err(_) => Err(self.bad("unstable bytes")),
                    };
                }
                Err(Flaw::Short(need)) => self.fill(need)?,
                Err(Flaw::Bad(why)) => return Err(self.bad(why)),
            }
        }
    }

    fn bad(&self, why: &'static str) -> Error {
        Error::BadRecord { path: self.path.clone(), offset: self.position.offset, why }
    }

    /// Makes `need` bytes from the next record's start available.
    fn fill(&mut self, need: usize) -> Result<(), Error> {
        let left = self.limit - self.position.offset;
        if need as u64 > left {
            return Err(self.bad("cut off"));
        }
        self.buf.drain(..self.at);
        self.at = 0;
        let have = self.buf.len();
        let want = need.max(self.read_ahead.min(usize::try_from(left).unwrap_or(self.read_ahead)));
        // A large record must not hold its memory for as long as the stream lives.
        self.buf.shrink_to(want.max(self.read_ahead));
        self.buf.resize(want, 0);
        let from = self.position.offset + have as u64;
        if let Err(e) = self.file.read_exact_at(&mut self.buf[have..], from) {
            self.buf.truncate(have);
            // Somebody has cut the file while it was read.
            let is_cut = e.kind() == std::io::ErrorKind::UnexpectedEof;
            return Err(if is_cut { self.bad("cut off") } else { Error::io(&self.path)(e) });
        }
        Ok(())
    }
}

/// The position at `offset` of file `filenum`, if a record ends there (or the file's first begins there).
/// [`Error::NotInLog`] when the file begins later: what was there is not in this log.
pub fn locate(dir: &Path, filenum: u32, offset: u64) -> Result<Option<Position>, Error> {
    let mut stream = RecordStream::open_whole(dir, filenum, false)?;
    if offset < stream.position().offset {
        return Err(Error::NotInLog { path: stream.path, filenum, offset });
    }
    while stream.position().offset < offset {
        if stream.next_record()?.is_none() {
            break;
        }
    }
    Ok((stream.position().offset == offset).then(|| stream.position()))
}

/// Whole records that follow each other in one file.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub bytes: Bytes,
    /// The end of the last record.
    pub end: Position,
}

/// Follows a log that is being written, across files, in chunks of whole records, each checked whole: a damaged one is not handed out.
#[derive(Debug)]
pub struct ChunkReader {
    dir: PathBuf,
    stream: RecordStream,
}

impl ChunkReader {
    /// Starts after `from`, which must be the end of a record of this log.
    pub fn open(dir: &Path, from: Position) -> Result<ChunkReader, Error> {
        // Bodies too: what is damaged must not go to a replica, whose own check would only make it ask for the same again.
        let mut stream = RecordStream::open(dir, from, Some(from.offset), true)?;
        stream.read_ahead = CHUNK_READ_AHEAD;
        Ok(ChunkReader { dir: dir.to_path_buf(), stream })
    }

    /// The end of the last chunk.
    pub fn position(&self) -> Position {
        self.stream.position()
    }

    /// The next records up to `published`, the log's end: at least one, at most `max_records`, and no more than about `max_bytes`
    /// (more if the first record is larger). `None` when there is nothing new.
    pub fn next_chunk(
        &mut self,
        published: &Position,
        max_bytes: usize,
        max_records: u64,
    ) -> Result<Option<Chunk>, Error> {
        if self.position().index >= published.index || max_records == 0 {
            return Ok(None);
        }
        let chunk = self.read_chunk(published, max_bytes, max_records);
        if self.stream.at == self.stream.buf.len() {
            // Many slots stream and most have nothing new: only those in the middle of something hold memory.
            (self.stream.buf, self.stream.at) = (Vec::new(), 0);
        }
        chunk
    }

    fn read_chunk(&mut self, published: &Position, max_bytes: usize, max_records: u64) -> Result<Option<Chunk>, Error> {
        loop {
            let position = self.position();
            let here = position.filenum == published.filenum;
            let limit = if here { published.offset } else { self.file_len()? };
            self.stream.extend_limit(limit);
            if position.offset < self.stream.limit {
                return self.take(max_bytes, max_records).map(Some);
            }
            if here {
                return Err(Error::NotInLog {
                    path: self.stream.path.clone(),
                    filenum: position.filenum,
                    offset: position.offset,
                });
            }
            self.next_file()?;
        }
    }

    fn take(&mut self, max_bytes: usize, max_records: u64) -> Result<Chunk, Error> {
        let first = self.position();
        let mut bytes = Vec::new();
        while (self.position().index - first.index) < max_records {
            let before = self.stream.position;
            let Some(record) = self.stream.next_record()? else { break };
            let len = (record.end.offset - before.offset) as usize;
            let end = self.stream.at;
            bytes.extend_from_slice(&self.stream.buf[end - len..end]);
            if bytes.len() >= max_bytes {
                break;
            }
        }
        Ok(Chunk { bytes: Bytes::from(bytes), end: self.position() })
    }

    fn file_len(&self) -> Result<u64, Error> {
        Ok(self.stream.file.metadata().map_err(Error::io(&self.stream.path))?.len())
    }

    /// Steps from the end of a finished file to the next.
    fn next_file(&mut self) -> Result<(), Error> {
        let at = self.position();
        let start = Position { filenum: at.filenum + 1, offset: FILE_HEADER_LEN, ..at };
        let (file, found, path) = open_file(&self.dir, start.filenum)?;
        if found != start {
            return Err(Error::Format { path, why: "does not continue the file before it".into() });
        }
        self.stream = RecordStream::new(file, path, start, Some(start.offset), true)?;
        self.stream.read_ahead = CHUNK_READ_AHEAD;
        Ok(())
    }
}
