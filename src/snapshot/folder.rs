//! The receive folder of a slot: what an earlier transfer left, what of it can be kept, and files that grow.
//!
//! ```text
//! <db-sync-path>/db0/3/LISTING     the listing of the snapshot that is being received
//! <db-sync-path>/db0/3/info        as on the master
//! <db-sync-path>/db0/3/data/       the engine's files; one that is shorter than listed is not whole yet
//! ```
//!
//! A file here is a prefix of the file of that name, size and checksum in LISTING, or damaged; which of the two is
//! found out when it is whole. All functions block.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use xxhash_rust::xxh3::Xxh3;

use super::append::Appender;
use super::listing::hash_into;
use super::{DATA, FileEntry, INFO, Listing};
use crate::disk::{self, Point, Replace};

pub(super) const LISTING: &str = "LISTING";
/// A longer LISTING is none of ours, bytes.
const MAX_LISTING_LEN: u64 = 256 << 20;

/// An I/O error with its path.
#[derive(Debug)]
pub(super) struct FolderError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl FolderError {
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
        move |source| FolderError { path: path.to_path_buf(), source }
    }
}

/// The receive folder of one slot.
#[derive(Debug)]
pub(super) struct ReceiveFolder(PathBuf);

impl ReceiveFolder {
    pub fn new(path: PathBuf) -> ReceiveFolder {
        ReceiveFolder(path)
    }

    pub fn data(&self) -> PathBuf {
        self.0.join(DATA)
    }

    pub fn path_of(&self, file: &FileEntry) -> PathBuf {
        file.path_in(&self.0)
    }

    /// Makes the folder one for `listing`: keeps files, whole or not, that an earlier listing describes in the same way,
    /// and removes all others. Whatever was put in their places by somebody else is removed too, and never followed elsewhere.
    pub fn begin(&self, listing: &Listing) -> Result<(), FolderError> {
        let data = self.data();
        if let Some(of_db) = self.0.parent() {
            own_dir(of_db, true).map_err(FolderError::at(of_db))?;
        }
        for dir in [&self.0, &data] {
            own_dir(dir, false).map_err(FolderError::at(dir))?;
        }
        let path = self.0.join(LISTING);
        let old = old_listing(&path);
        let keep = |name: &str, len: u64| {
            let new = listing.file(name);
            new.is_some_and(|file| len <= file.size) && new == old.as_ref().and_then(|old| old.file(name))
        };
        let is_file = |meta: &fs::Metadata| meta.is_file().then_some(meta.len());
        remove_others(&data, |name, meta| name != INFO && is_file(meta).is_some_and(|len| keep(name, len)))?;
        remove_others(&self.0, |name, meta| match name {
            DATA => meta.is_dir(),
            LISTING => meta.is_file(),
            INFO => is_file(meta).is_some_and(|len| keep(name, len)),
            _ => false,
        })?;
        if old.as_ref() != Some(listing) {
            disk::replace_file(&Replace::LISTING, &path, listing.encode().as_bytes())
                .map_err(FolderError::at(&path))?;
        }
        Ok(())
    }

    /// Makes the folder's entries durable, and reads `info`. To be called when all files are whole.
    pub fn finish(&self) -> Result<String, FolderError> {
        for dir in [&self.data(), &self.0] {
            disk::sync_dir(Point::ReceiveSyncDir, dir).map_err(FolderError::at(dir))?;
        }
        let path = self.0.join(INFO);
        fs::read_to_string(&path).map_err(FolderError::at(&path))
    }
}

/// Makes `dir` a folder of our own: a file or link of that name goes, but for a link to a folder where the operator `may_link`.
fn own_dir(dir: &Path, may_link: bool) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_dir() || (may_link && fs::metadata(dir).is_ok_and(|target| target.is_dir())) => {
            return Ok(());
        }
        Ok(_) => {
            tracing::warn!("{} is not the folder that it should be: removed", dir.display());
            disk::remove_file(Point::ReceiveRemoveOther, dir)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    disk::create_dir_all(Point::ReceiveCreateDir, dir)
}

/// What an earlier transfer wrote down; `None` if that cannot be read, which proves nothing about the files beside it.
fn old_listing(path: &Path) -> Option<Listing> {
    let options = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let read = || -> io::Result<Option<Listing>> {
        let mut file = OpenOptions::new().read(true).custom_flags(options.bits()).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > MAX_LISTING_LEN {
            return Ok(None);
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(Listing::parse(&text).ok())
    };
    match read() {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => {
            tracing::warn!("{}: {e}; what was received before is not used", path.display());
            None
        }
    }
}

/// Removes what is in `dir` but for what `keep` says is to stay. A file that has another name elsewhere goes: what is written here must
/// not end up there.
fn remove_others(dir: &Path, keep: impl Fn(&str, &fs::Metadata) -> bool) -> Result<(), FolderError> {
    for entry in fs::read_dir(dir).map_err(FolderError::at(dir))? {
        let entry = entry.map_err(FolderError::at(dir))?;
        let path = entry.path();
        let meta = entry.metadata().map_err(FolderError::at(&path))?;
        let is_own = meta.is_dir() || meta.nlink() == 1;
        if !(is_own && entry.file_name().to_str().is_some_and(|name| keep(name, &meta))) {
            let removed = match meta.is_dir() {
                true => disk::remove_dir(Point::ReceiveRemoveOther, &path),
                false => disk::remove_file(Point::ReceiveRemoveOther, &path),
            };
            removed.map_err(FolderError::at(&path))?;
        }
    }
    Ok(())
}

/// A file that is being received: written at its end, with the hash of all that is in it.
pub(super) struct PartialFile {
    pub end: Appender,
    pub hasher: Xxh3,
    pub len: u64,
}

impl PartialFile {
    /// Opens or creates the file and hashes what is there, until `stop`.
    pub fn open(path: &Path, entry: &FileEntry, stop: &dyn Fn() -> bool) -> io::Result<PartialFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mut file = disk::open(Point::ReceiveOpen, &options, path)?;
        let found = file.metadata()?.len();
        if found > entry.size {
            // [`ReceiveFolder::begin`] has removed those, and nothing here writes beyond the end.
            return Err(io::Error::other(format!("{found} bytes, and {} are listed", entry.size)));
        }
        let mut hasher = Xxh3::new();
        let len = if found > 0 { hash_into(&mut hasher, &mut file, entry.size, stop)? } else { 0 };
        let end = Appender::new(file, path, len, entry.size);
        Ok(PartialFile { end, hasher, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Checksum;

    fn listing(uuid: &str, files: &[(&str, &[u8])]) -> Listing {
        let mut text = format!("haypile listing 1\nsnapshot : {uuid}\n");
        for (name, contents) in files {
            text.push_str(&format!("{} {} {name}\n", Checksum::of(contents), contents.len()));
        }
        Listing::parse(&format!("{text}files : {}\n", files.len())).unwrap()
    }

    #[test]
    fn only_what_is_provably_the_same_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = ReceiveFolder::new(dir.path().join("db0/3"));
        let files: [(&str, &[u8]); 4] =
            [("000001.sst", b"aaaa"), ("000002.sst", b"bbbb"), ("000003.sst", b"cccc"), ("info", b"i")];
        let first = listing("one", &files);
        folder.begin(&first).unwrap();
        let write = |name: &str, contents: &[u8]| fs::write(folder.data().join(name), contents).unwrap();
        write("000001.sst", b"aaaa");
        write("000002.sst", b"bb");
        write("000003.sst", b"cccc");
        write("stray", b"x");
        write("info", b"i");
        fs::create_dir(folder.data().join("sub")).unwrap();
        fs::write(folder.0.join("info"), b"i").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.0.join("link")).unwrap();
        // The same snapshot again: whole and partial files stay.
        folder.begin(&first).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.data()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["000001.sst", "000002.sst", "000003.sst"]);
        assert!(folder.0.join("info").exists() && !folder.0.join("link").exists());
        // Another: what has the same name but not the same contents goes.
        let second = listing("two", &[("000001.sst", b"aaaa"), ("000003.sst", b"CCCC"), ("info", b"j")]);
        folder.begin(&second).unwrap();
        let names: Vec<_> = fs::read_dir(folder.data()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["000001.sst"]);
        assert!(!folder.0.join("info").exists());
        assert_eq!(Listing::parse(&fs::read_to_string(folder.0.join(LISTING)).unwrap()), Ok(second.clone()));
        // A lost listing proves nothing.
        fs::write(folder.0.join(LISTING), b"haypile listing 1\n").unwrap();
        folder.begin(&second).unwrap();
        assert_eq!(fs::read_dir(folder.data()).unwrap().count(), 0);
    }
}
