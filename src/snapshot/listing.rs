//! The listing of a snapshot: its files, with size and checksum. What a replica may ask for, and what it must end up with.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::proto::{FileInfo, MetaResponse};
use super::{DATA, Error, INFO, MESSAGE_LEN};

const HEADER: &str = "haypile listing 1";
const MAX_NAME_LEN: usize = 255;
/// Bytes read at once when a file is hashed.
const HASH_BUFFER: usize = 1 << 20;
/// Threads that hash one snapshot's files.
const HASH_THREADS: usize = 2;

/// XXH3 of 128 bits; written as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checksum(u128);

impl Checksum {
    /// The checksum of some bytes.
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum(xxh3_128(bytes))
    }

    pub(super) fn of_hasher(hasher: &Xxh3) -> Checksum {
        Checksum(hasher.digest128())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = BadListing;

    fn from_str(text: &str) -> Result<Checksum, BadListing> {
        let hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        value.map(Checksum).ok_or_else(|| BadListing::Checksum(text.escape_debug().to_string()))
    }
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// A plain file name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub checksum: Checksum,
}

impl FileEntry {
    /// Where the file is in a snapshot's folder, or in a receive folder.
    pub(super) fn path_in(&self, folder: &Path) -> PathBuf {
        if self.name == INFO { folder.join(INFO) } else { folder.join(DATA).join(&self.name) }
    }
}

/// All files of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Which snapshot.
    pub uuid: String,
    /// In the order of their names; `info` is one of them.
    pub files: Vec<FileEntry>,
}

/// A listing that must not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadListing {
    #[error("not a listing of this version")]
    Form,
    #[error("\"{0}\" is no plain file name")]
    Name(String),
    #[error("\"{0}\" is listed twice")]
    Twice(String),
    #[error("\"{0}\" is no checksum")]
    Checksum(String),
    #[error("\"{0}\" is no snapshot's name")]
    Uuid(String),
    #[error("there is no info file in it")]
    NoInfo,
    #[error("more bytes than can be")]
    TooLarge,
}

impl Listing {
    /// Lists and hashes the snapshot in `folder`, until `stop`. Also returns what is needed to find out later where a file was damaged.
    pub(super) fn of_folder(
        uuid: String,
        folder: &Path,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<(Listing, Pieces), Error> {
        let mut names = vec![INFO.to_string()];
        let data = folder.join(DATA);
        match fs::read_dir(&data) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry.map_err(Error::io(&data))?;
                    let name = entry.file_name();
                    if entry.file_type().map_err(Error::io(&data))?.is_file() && !is_leftover(&name.to_string_lossy()) {
                        names.push(name.to_string_lossy().into_owned());
                    }
                }
            }
            // The slot had never been written.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&data)(e)),
        }
        let files = Mutex::new((Vec::with_capacity(names.len()), Pieces::default()));
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), Error> {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut file = FileEntry { name: name.clone(), size: 0, checksum: Checksum(0) };
                let path = file.path_in(folder);
                let hashed = hash_pieces(&path, stop).map_err(Error::io(&path))?.ok_or(Error::Stopping)?;
                (file.size, file.checksum) = (hashed.size, hashed.checksum);
                let mut files = files.lock();
                files.0.push(file);
                files.1.0.insert(name.clone(), hashed.pieces);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..HASH_THREADS.min(names.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            helpers.into_iter().map(|h| h.join().unwrap_or(Err(Error::Stopping))).fold(own, Result::and)
        })?;
        let (files, pieces) = files.into_inner();
        let listing = Listing::checked(uuid, files);
        Ok((listing.map_err(|source| Error::BadListing { path: folder.to_path_buf(), source })?, pieces))
    }

    fn checked(uuid: String, mut files: Vec<FileEntry>) -> Result<Listing, BadListing> {
        if uuid.is_empty() || uuid.len() > MAX_NAME_LEN || !uuid.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadListing::Uuid(uuid.escape_debug().to_string()));
        }
        let mut names = HashSet::with_capacity(files.len());
        for file in &files {
            check_name(&file.name)?;
            if !names.insert(file.name.as_str()) {
                return Err(BadListing::Twice(file.name.clone()));
            }
        }
        if !names.contains(INFO) {
            return Err(BadListing::NoInfo);
        }
        files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size)).ok_or(BadListing::TooLarge)?;
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Listing { uuid, files })
    }

    /// The listing in a reply to Meta. A name that could lead out of the receive folder is refused.
    pub fn from_reply(uuid: String, reply: &MetaResponse) -> Result<Listing, BadListing> {
        let file =
            |f: &FileInfo| Ok(FileEntry { name: f.filename.clone(), size: f.size, checksum: f.checksum.parse()? });
        Listing::checked(uuid, reply.files.iter().map(file).collect::<Result<_, _>>()?)
    }

    /// The reply to Meta.
    pub fn to_reply(&self) -> MetaResponse {
        let info =
            |f: &FileEntry| FileInfo { filename: f.name.clone(), size: f.size, checksum: f.checksum.to_string() };
        MetaResponse {
            filenames: self.files.iter().map(|f| f.name.clone()).collect(),
            files: self.files.iter().map(info).collect(),
        }
    }

    /// The form on disk: `checksum size name` lines between a header and the number of files.
    pub fn encode(&self) -> String {
        let mut out = format!("{HEADER}\nsnapshot : {}\n", self.uuid);
        for file in &self.files {
            out.push_str(&format!("{} {} {}\n", file.checksum, file.size, file.name));
        }
        out.push_str(&format!("files : {}\n", self.files.len()));
        out
    }

    /// Undoes [`Listing::encode`]; anything that it would not have written is refused.
    pub fn parse(text: &str) -> Result<Listing, BadListing> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(BadListing::Form);
        }
        let uuid = lines.next().and_then(|l| l.strip_prefix("snapshot : ")).ok_or(BadListing::Form)?;
        let mut files = Vec::new();
        for line in lines.take_while(|l| !l.starts_with("files : ")) {
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().ok_or(BadListing::Form);
            let (checksum, size, name) = (part()?, part()?, part()?);
            files.push(FileEntry {
                name: name.to_string(),
                size: size.parse().map_err(|_| BadListing::Form)?,
                checksum: checksum.parse()?,
            });
        }
        let listing = Listing::checked(uuid.to_string(), files)?;
        if listing.encode() == text { Ok(listing) } else { Err(BadListing::Form) }
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        let at = self.files.binary_search_by(|f| f.name.as_str().cmp(name)).ok()?;
        self.files.get(at)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Whether there are files of an engine.
    pub fn has_data(&self) -> bool {
        self.files.len() > 1
    }
}

/// What opening an engine leaves beside its data.
fn is_leftover(name: &str) -> bool {
    name == "LOG" || name == "LOCK" || name.starts_with("LOG.old")
}

/// Refuses what is not the name of a file in a folder: the name joined to a folder must stay in it.
fn check_name(name: &str) -> Result<(), BadListing> {
    let plain = !name.is_empty()
        && name.len() <= MAX_NAME_LEN
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c == '\\' || c.is_control());
    if plain { Ok(()) } else { Err(BadListing::Name(name.escape_debug().to_string())) }
}

/// Checksums (XXH3-64) of the pieces that the files of a snapshot are sent in: the whole file's checksum says that a file was damaged
/// after it was listed, these say where, before anything is sent. 8 bytes for 256 KiB.
#[derive(Debug, Default)]
pub(super) struct Pieces(HashMap<String, Box<[u64]>>);

impl Pieces {
    /// Whether the piece of a file that begins at `offset`, a multiple of [`MESSAGE_LEN`], is as it was listed.
    pub fn matches(&self, name: &str, offset: u64, piece: &[u8]) -> bool {
        let listed = self.0.get(name).and_then(|pieces| pieces.get((offset / MESSAGE_LEN as u64) as usize));
        listed.is_some_and(|listed| *listed == xxh3_64(piece))
    }
}

/// A file as it is listed.
struct Hashed {
    size: u64,
    checksum: Checksum,
    pieces: Box<[u64]>,
}

/// Size and checksum of a file.
pub(super) fn hash_file(path: &Path) -> io::Result<(u64, Checksum)> {
    let mut hasher = Xxh3::new();
    let size = hash_into(&mut hasher, &mut File::open(path)?, u64::MAX, &|| false)?;
    Ok((size, Checksum::of_hasher(&hasher)))
}

/// The same, and the checksums of its pieces; `None` when told to stop.
fn hash_pieces(path: &Path, stop: &dyn Fn() -> bool) -> io::Result<Option<Hashed>> {
    let mut file = File::open(path)?;
    let mut piece = Vec::with_capacity(MESSAGE_LEN);
    let (mut hasher, mut pieces, mut size) = (Xxh3::new(), Vec::new(), 0);
    loop {
        if stop() {
            return Ok(None);
        }
        piece.clear();
        let read = file.by_ref().take(MESSAGE_LEN as u64).read_to_end(&mut piece)?;
        if read == 0 {
            return Ok(Some(Hashed { size, checksum: Checksum::of_hasher(&hasher), pieces: pieces.into() }));
        }
        hasher.update(&piece);
        pieces.push(xxh3_64(&piece));
        size += read as u64;
    }
}

/// Hashes the next `limit` bytes of a file, or up to its end or until `stop`. Returns how many.
pub(super) fn hash_into(hasher: &mut Xxh3, file: &mut File, limit: u64, stop: &dyn Fn() -> bool) -> io::Result<u64> {
    let mut buffer = vec![0; HASH_BUFFER];
    let mut file = file.take(limit);
    let mut total = 0;
    while !stop() {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listing(names: &[&str]) -> Result<Listing, BadListing> {
        let file = |name: &&str| FileEntry { name: name.to_string(), size: 7, checksum: Checksum::of(b"x") };
        Listing::checked("uuid".into(), names.iter().map(file).collect())
    }

    proptest! {
        #[test]
        fn round_trips(names in proptest::collection::hash_set("[a-zA-Z0-9._ -]{3,20}", 0..20), size in 0u64..1 << 40) {
            let checksum = Checksum::of(&size.to_le_bytes());
            let names = names.into_iter().filter(|n| n != INFO).chain([INFO.to_string()]);
            let files: Vec<_> = names.map(|name| FileEntry { name, size, checksum }).collect();
            let listing = Listing::checked("some-uuid".into(), files).unwrap();
            prop_assert_eq!(Listing::parse(&listing.encode()), Ok(listing.clone()));
            prop_assert_eq!(Listing::from_reply("some-uuid".into(), &listing.to_reply()), Ok(listing));
        }

        #[test]
        fn what_is_cut_short_is_refused(cut in 1usize..300) {
            let text = listing(&["CURRENT", "000001.sst", INFO]).unwrap().encode();
            prop_assert!(Listing::parse(&text[..text.len().saturating_sub(cut)]).is_err());
        }

        #[test]
        fn other_text_is_refused(text in "\\PC{0,200}") {
            prop_assert!(Listing::parse(&text).is_err());
            prop_assert!(text.parse::<Checksum>().is_err() || text.len() == 32);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(256);
        for name in ["", ".", "..", "/etc/passwd", "a/b", "../x", "a\0b", "a\nb", "a\\b", &long] {
            assert!(matches!(listing(&[INFO, name]), Err(BadListing::Name(_))), "{name:?}");
        }
        assert!(listing(&[INFO, "..x", "MANIFEST-000004", "a b"]).is_ok());
        assert_eq!(listing(&["CURRENT"]), Err(BadListing::NoInfo));
        assert_eq!(listing(&[INFO, "a", "a"]), Err(BadListing::Twice("a".into())));
    }

    #[test]
    fn checksums_are_xxh3() {
        // XXH3_128bits of nothing, seed 0.
        assert_eq!(Checksum::of(b"").to_string(), "99aa06d3014798d86001c324468d497f");
        assert!("99AA06D3014798D86001C324468D497F".parse::<Checksum>().is_err());
    }
}
