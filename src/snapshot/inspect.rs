//! Looking at snapshots and receive folders without changing them: for tools.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::listing::hash_file;
use super::{BadListing, Checksum, DATA, FileEntry, INFO, Listing};

/// How much of a file in a receive folder is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    Missing,
    /// So many bytes of it.
    Partial(u64),
    Whole,
    /// It has its full length, but not the contents that were listed; or it is longer.
    Wrong,
}

/// A full sync on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub listing: Listing,
    /// In the order of the listing.
    pub states: Vec<FileState>,
    /// Bytes that are there.
    pub bytes: u64,
}

impl Received {
    /// Files of which this is said, by the listing.
    pub fn files(&self, state: FileState) -> impl Iterator<Item = &FileEntry> {
        self.listing.files.iter().zip(&self.states).filter(move |(_, is)| **is == state).map(|(file, _)| file)
    }
}

/// The engine's folder in a snapshot's folder.
pub fn data_folder(snapshot: &Path) -> PathBuf {
    snapshot.join(DATA)
}

/// Size and checksum of a file.
pub fn file_checksum(path: &Path) -> io::Result<(u64, Checksum)> {
    hash_file(path)
}

/// The text of a snapshot's `info`; `None` if there is none.
pub fn read_info(snapshot: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(snapshot.join(INFO)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a receive folder holds; `None` if it has no listing. Reads all that is there.
pub fn received(folder: &Path) -> io::Result<Option<Result<Received, BadListing>>> {
    let text = match fs::read_to_string(folder.join(super::folder::LISTING)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(Some(Err(BadListing::Form))),
        Err(e) => return Err(e),
    };
    let listing = match Listing::parse(&text) {
        Ok(listing) => listing,
        Err(e) => return Ok(Some(Err(e))),
    };
    let mut received = Received { states: Vec::with_capacity(listing.files.len()), bytes: 0, listing };
    for file in &received.listing.files {
        let path = file.path_in(folder);
        let state = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => FileState::Missing,
            Err(e) => return Err(e),
            Ok(meta) => {
                received.bytes += meta.len();
                match meta.len() {
                    len if len < file.size => FileState::Partial(len),
                    len if len == file.size && hash_file(&path)? == (file.size, file.checksum) => FileState::Whole,
                    _ => FileState::Wrong,
                }
            }
        };
        received.states.push(state);
    }
    Ok(Some(Ok(received)))
}
