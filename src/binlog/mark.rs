//! The low-water mark of a log: up to where it was durable for certain. It tells, after a power cut, what the disk never promised to
//! hold from what was damaged.
//!
//! A file `SYNCED` beside the log's files, 48 bytes, little-endian: `HAYPSYNC`, version (4), filenum (4), offset (8), the kernel's boot
//! id (16, zeros where there is none), XXH3-64 of the 40 bytes before (8). It is overwritten in place after each successful
//! fdatasync of the log, and not synced itself: an old mark only claims less. Therefore it never falls by itself:
//! whoever cuts the log back below it lowers it first, durably.
//!
//! What the boot id is for: while the same kernel runs, its page cache stands between a dead process and the disk, and all that was
//! written is there whether it was synced or not. Only after another boot may what lies behind the mark be missing, in any order.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::{Error, Position};
use crate::disk::{self, Point};

const NAME: &str = "SYNCED";
const MAGIC: &[u8; 8] = b"HAYPSYNC";
const VERSION: u32 = 1;
const LEN: usize = 48;
const CHECKED_LEN: usize = 40;
/// Where the running kernel says which of its runs this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A place in a log: file number and offset.
pub(super) type Place = (u32, u64);

pub(super) fn place_of(position: &Position) -> Place {
    (position.filenum, position.offset)
}

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    /// The log was durable up to here.
    pub place: Place,
    /// Nil if it is not known.
    boot: Uuid,
}

impl Marked {
    /// The mark of the log in `dir`; `None` where there is none that can be read: by an older version, or a damaged one. That claims nothing.
    pub fn load(dir: &Path) -> Option<Marked> {
        let bytes: [u8; LEN] = fs::read(dir.join(NAME)).ok()?.try_into().ok()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..8] != MAGIC[..]
            || number(8) != VERSION
            || xxh3_64(&bytes[..CHECKED_LEN]).to_le_bytes() != bytes[40..]
        {
            return None;
        }
        let offset = u64::from(number(16)) | u64::from(number(20)) << 32;
        Some(Marked { place: (number(12), offset), boot: Uuid::from_slice(&bytes[24..40]).ok()? })
    }

    fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.place.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.place.1.to_le_bytes());
        bytes[24..40].copy_from_slice(self.boot.as_bytes());
        let sum = xxh3_64(&bytes[..CHECKED_LEN]);
        bytes[CHECKED_LEN..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Whether the machine was started anew since: what is behind the mark may be missing, in any order. False where that is not known.
    pub fn is_of_another_boot(&self) -> bool {
        let now = boot_id();
        !self.boot.is_nil() && !now.is_nil() && self.boot != now
    }
}

fn boot_id() -> Uuid {
    let text = fs::read_to_string(BOOT_ID).unwrap_or_default();
    Uuid::try_parse(text.trim()).unwrap_or_default()
}

/// The mark of a log that is being written.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    path: PathBuf,
    marked: Marked,
}

impl Mark {
    /// The mark of the log in `dir`, which is durable up to `place`. Durable when it returns, but, where the log is new, for its name.
    pub fn open(dir: &Path, place: Place) -> Result<Mark, Error> {
        let path = dir.join(NAME);
        let before = Marked::load(dir);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(before.is_none());
        let file = disk::open(Point::BinlogMarkCreate, &options, &path).map_err(Error::io(&path))?;
        let mut mark = Mark { file, path, marked: Marked { place, boot: boot_id() } };
        // An old one that claims less may stay; one that claims more must not.
        let stays = before.is_some_and(|before| before.place <= place);
        mark.put(place, !stays).map_err(Error::io(&mark.path))?;
        Ok(mark)
    }

    /// The log is durable up to `place`. Should the mark not be written, the old one stays, and claims less.
    pub fn advance(&mut self, place: Place) {
        if place > self.marked.place {
            let _ = self.put(place, false);
        }
    }

    /// The log is about to be cut back to `place`. Durable when it returns.
    pub fn lower(&mut self, place: Place) -> io::Result<()> {
        if place < self.marked.place { self.put(place, true) } else { Ok(()) }
    }

    fn put(&mut self, place: Place, durably: bool) -> io::Result<()> {
        let marked = Marked { place, ..self.marked };
        disk::write_all_at(Point::BinlogMark, &self.file, &marked.encode(), 0)?;
        self.marked = marked;
        if durably { disk::sync_all(Point::BinlogMarkSync, &self.file) } else { Ok(()) }
    }
}

/// The log in `dir`, which nobody writes yet, is about to be cut back to `to`: [`Mark::lower`]. The boot id stays, since the log is still
/// as that boot has left it.
pub fn lower_mark(dir: &Path, to: &Position) -> Result<(), Error> {
    let Some(marked) = Marked::load(dir) else { return Ok(()) };
    let path = dir.join(NAME);
    let lowered =
        || Mark { file: OpenOptions::new().write(true).open(&path)?, path: path.clone(), marked }.lower(place_of(to));
    lowered().map_err(Error::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_what_was_written_and_a_damaged_one_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marked::load(dir.path()), None);
        let mut mark = Mark::open(dir.path(), (3, 64)).unwrap();
        let load = || Marked::load(dir.path());
        assert_eq!(load().unwrap().place, (3, 64));
        mark.advance((3, 1 << 40));
        mark.advance((3, 100));
        assert_eq!(load().unwrap().place, (3, 1 << 40), "it does not fall by itself");
        mark.lower((2, 7)).unwrap();
        assert_eq!(load().unwrap().place, (2, 7));
        assert!(!load().unwrap().is_of_another_boot());
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        let mut other = load().unwrap();
        other.boot = Uuid::from_u128(1);
        fs::write(&path, other.encode()).unwrap();
        assert!(load().unwrap().is_of_another_boot());
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(load(), None, "byte {at}");
        }
        fs::write(&path, &whole[..LEN - 1]).unwrap();
        assert_eq!(load(), None);
        Mark::open(dir.path(), (1, 64)).unwrap();
        assert_eq!(load().unwrap().place, (1, 64));
    }
}
