//! Damage of an engine's files: how it is told from other failures, remembered, and looked for.
//!
//! RocksDB checks the checksum of every block that it reads from a file, for a client as for a compaction, and names file and offset.
//! Nothing that fails the check is ever returned. What has failed once is remembered for as long as the engine is open: damage does
//! not heal, and a slot on damaged data must not be built upon ([`Engine::damage`]).

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rocksdb::{DB, ErrorKind, Options, ReadOptions, properties};

use super::batch::Family;
use super::{Engine, Error};

/// Entries between two looks at whether to stop.
const STOP_EVERY: u64 = 1 << 16;
/// Bytes that a check of a whole engine reads ahead.
const READ_AHEAD: usize = 2 << 20;
/// I/O errors (as `strerror` words them) that say that a file cannot be read any more. Others pass: too many open files, a full disk.
const LASTING: [&str; 3] = ["Input/output error", "No such file or directory", "Structure needs cleaning"];
/// What RocksDB calls a folder in which it finds no database.
const NO_DATABASE: &str = "does not exist (create_if_missing is false)";

/// The first damage that was met.
#[derive(Default)]
pub(super) struct Damage(OnceLock<Arc<String>>);

/// Whether RocksDB says that files are damaged or gone.
fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption => true,
        ErrorKind::IOError => LASTING.iter().any(|text| error.as_ref().contains(text)),
        _ => error.as_ref().contains(NO_DATABASE),
    }
}

impl Error {
    /// Whether it says that files are damaged or gone, or hold what no build has written.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::RocksDb { source, .. } => is_damage(source),
            Error::Malformed { .. } => true,
            Error::Io { .. } => false,
        }
    }
}

impl Engine {
    /// What is wrong with the engine's files, with file and offset as RocksDB names them, if a read or a compaction has found anything
    /// since it was opened. Wait-free.
    pub fn damage(&self) -> Option<&Arc<String>> {
        self.damage.0.get()
    }

    /// Makes an error of RocksDB's. All of them go through here, so that damage is remembered.
    pub(super) fn failure(&self) -> impl FnOnce(rocksdb::Error) -> Error + '_ {
        |source| {
            if is_damage(&source) {
                self.damage.0.get_or_init(|| {
                    tracing::error!(engine = %self.path.display(), "data on disk are damaged: {source}");
                    Arc::new(format!("data on disk are damaged: {source}"))
                });
            }
            Error::RocksDb { path: self.path.clone(), source }
        }
    }

    /// Finds out whether a flush or a compaction has failed for good since the engine was opened: those run in RocksDB's threads, which tell
    /// nobody.
    pub fn check_background(&self) -> Result<(), Error> {
        // RocksDB counts them with the default family.
        let failed = self.db.property_int_value(properties::BACKGROUND_ERRORS).map_err(self.failure())?;
        if failed.unwrap_or(0) == 0 {
            return Ok(());
        }
        // A database that has stopped for an error answers with it to every write, also to one of nothing.
        self.check()
    }

    /// Reads all that is on disk and checks it. Takes as long as that; `stop` ends it early, as if all were well.
    pub fn verify(&self, stop: &dyn Fn() -> bool) -> Result<(), Error> {
        verify(&self.db, stop).map_err(self.failure())
    }

    /// [`Engine::verify`] for a folder that is no open engine: a checkpoint.
    pub fn verify_folder(path: &Path, stop: &dyn Fn() -> bool) -> Result<(), Error> {
        let db = DB::open_cf_for_read_only(&Options::default(), path, Family::ALL.map(Family::name), false)
            .map_err(Error::rocksdb(path))?;
        verify(&db, stop).map_err(Error::rocksdb(path))
    }
}

/// An iterator over everything reads, and so checks, every data block.
fn verify(db: &DB, stop: &dyn Fn() -> bool) -> Result<(), rocksdb::Error> {
    let mut entries = 0u64;
    for family in Family::ALL {
        let Some(family) = db.cf_handle(family.name()) else { continue };
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(READ_AHEAD);
        let mut iter = db.raw_iterator_cf_opt(family, options);
        iter.seek_to_first();
        while iter.valid() {
            entries += 1;
            if entries.is_multiple_of(STOP_EVERY) && stop() {
                return Ok(());
            }
            iter.next();
        }
        iter.status()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    use bytes::Bytes;

    use super::super::{Applied, Batch, EngineOptions, Entry, EntryVisitor, Kept, Shared};
    use super::*;
    use crate::binlog::Position;

    const KEYS: u64 = 2000;

    fn key(n: u64) -> Vec<u8> {
        format!("key{n:08}").into_bytes()
    }

    fn value(n: u64) -> Bytes {
        Bytes::from(format!("{:050}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn applied(index: u64) -> Applied {
        Applied { position: Position { index, ..Position::START }, time: index }
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(EngineOptions { block_cache: 1 << 20, recent: 0, ..EngineOptions::default() }))
    }

    /// An engine with its keys in one flushed file each time `fill` is called.
    fn fill(engine: &Engine, index: u64) {
        let mut batch = Batch::default();
        for n in 0..KEYS {
            batch.entry(&key(n), Some(&Entry::string(value(n), None)));
        }
        engine.write(batch, applied(index)).unwrap();
        engine.flush().unwrap();
    }

    /// The largest table file: that of the keys.
    fn table(dir: &Path) -> PathBuf {
        let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        let tables = files.filter(|p| p.extension().is_some_and(|e| e == "sst"));
        tables.max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap()
    }

    fn flip(path: &Path, offset: u64) {
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_never_a_wrong_or_missing_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let engine = Engine::create(&path, &shared(), applied(0), &Kept::default()).unwrap();
        fill(&engine, 1);
        engine.verify(&|| false).unwrap();
        assert!(engine.damage().is_none());
        let table = table(&path);
        let len = fs::metadata(&table).unwrap().len();
        flip(&table, len / 3);
        let (mut right, mut errors) = (0, 0);
        for n in 0..KEYS {
            match engine.get(&key(n)) {
                Ok(Some(entry)) => {
                    assert_eq!(entry.value, value(n));
                    right += 1;
                }
                Ok(None) => panic!("key {n} is missing"),
                Err(e) => {
                    assert!(e.is_damage() && e.to_string().contains("offset"), "{e}");
                    assert!(e.to_string().contains(table.file_name().unwrap().to_str().unwrap()), "{e}");
                    errors += 1;
                }
            }
        }
        assert!(right > 0 && errors > 0, "{right} right, {errors} errors");
        let mut seen = 0;
        let all = |_: &[u8], _| {
            seen += 1;
            Ok(true)
        };
        assert!(engine.scan(None, &mut { all }).is_err(), "a scan ended early without an error after {seen} keys");
        assert!(engine.scan_back(None, &mut |_, _| Ok(true)).is_err());
        assert!(engine.verify(&|| false).is_err());
        assert!(engine.damage().unwrap().contains("damaged"));
    }

    #[test]
    fn what_is_buffered_is_not_taken_for_what_damage_hides() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let engine = Engine::create(&path, &shared(), applied(0), &Kept::default()).unwrap();
        fill(&engine, 1);
        let table = table(&path);
        let len = fs::metadata(&table).unwrap().len();
        // The first blocks and, before the filter and the index, the last ones.
        [100, len / 3].into_iter().for_each(|offset| flip(&table, offset));
        let mut batch = Batch::default();
        let (in_the_middle, value) = (key(KEYS / 2), Entry::string(value(1), None));
        batch.entry(&in_the_middle, Some(&value));
        engine.write(batch, applied(2)).unwrap();
        let read = |scan: &dyn Fn(EntryVisitor<'_>) -> Result<(), Error>| {
            let mut first = None;
            let result = scan(&mut |key, _| {
                first = Some(key.to_vec());
                Ok(false)
            });
            result.map(|()| first)
        };
        assert!(read(&|f| engine.scan(None, f)).is_err());
        assert!(engine.damage().is_some());
        assert!(read(&|f| engine.scan_back(Some(&in_the_middle), f)).is_ok_and(|first| first == Some(in_the_middle)));
    }

    #[test]
    fn the_ends_of_damaged_data_are_not_taken_for_no_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let engine = Engine::create(&path, &shared(), applied(0), &Kept::default()).unwrap();
        fill(&engine, 1);
        flip(&table(&path), 100);
        assert!(engine.key_range().is_err());
    }

    #[test]
    fn a_compaction_that_meets_damage_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let engine = Engine::create(&path, &shared(), applied(0), &Kept::default()).unwrap();
        fill(&engine, 1);
        flip(&table(&path), 1000);
        fill(&engine, 2);
        engine.check_background().unwrap();
        assert!(engine.compact(None).is_err());
        assert!(engine.damage().is_some());
    }

    #[test]
    fn damaged_files_of_a_checkpoint_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("engine"), dir.path().join("copy"));
        let engine = Engine::create(&path, &shared(), applied(0), &Kept::default()).unwrap();
        fill(&engine, 1);
        engine.checkpoint(&copy).unwrap();
        Engine::verify_folder(&copy, &|| false).unwrap();
        flip(&table(&copy), 1000);
        assert!(Engine::verify_folder(&copy, &|| false).is_err_and(|e| e.is_damage()));
    }

    #[test]
    fn no_damaged_folder_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (path, shared) = (dir.path().join("engine"), shared());
        let engine = Engine::create(&path, &shared, applied(0), &Kept::default()).unwrap();
        fill(&engine, 1);
        drop(engine);
        let manifest = fs::read_dir(&path).unwrap().map(|e| e.unwrap().path());
        let manifest = { manifest }.find(|p| p.to_string_lossy().contains("MANIFEST")).unwrap();
        let table = table(&path);
        for (file, damaged) in [
            (path.join("CURRENT"), b"MANIFEST-999999\n".to_vec()),
            (path.join("CURRENT"), b"rubbish".to_vec()),
            (path.join("CURRENT"), Vec::new()),
            (manifest.clone(), fs::read(&manifest).unwrap().iter().map(|b| b ^ 1).collect()),
            (manifest, Vec::new()),
            (table.clone(), fs::read(&table).unwrap()[..100].to_vec()),
        ] {
            let good = fs::read(&file).unwrap();
            fs::write(&file, &damaged).unwrap();
            let error = Engine::open(&path, &shared).err().unwrap_or_else(|| panic!("{} was accepted", file.display()));
            assert!(error.is_damage(), "{}: {error}", file.display());
            fs::write(&file, good).unwrap();
        }
        assert_eq!(Engine::open(&path, &shared).unwrap().1, applied(1));
        fs::remove_file(&table).unwrap();
        assert!(Engine::open(&path, &shared).is_err_and(|e| e.is_damage()), "a table is missing");
        fs::remove_dir_all(&path).unwrap();
        assert!(Engine::open(&path, &shared).is_err_and(|e| e.is_damage()), "all is missing");
    }

    #[test]
    fn a_flush_that_cannot_write_ends_with_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        let engine = Engine::create(&path, &shared(), applied(0), &Kept::default()).unwrap();
        let mut batch = Batch::default();
        batch.entry(b"k", Some(&Entry::string(value(1), None)));
        engine.write(batch, applied(1)).unwrap();
        // New files have no place to be.
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let flushed = engine.begin_flush().and_then(|flush| engine.finish_flush(flush));
        assert!(flushed.is_err_and(|e| e.to_string().contains("engine")));
    }
}
