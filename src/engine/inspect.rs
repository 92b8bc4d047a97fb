//! Looking into an engine that no server runs on, without changing anything in its folder: for tools.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use rocksdb::{DB, Options, ReadOptions, properties};

use super::batch::Family;
use super::element::OpenDb;
use super::{APPLIED_KEY, DATABASES_KEY, Engine, Entry, Error, LIBRARIES_KEY, Shared, Space};

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Next,
    /// With the first key at or after this one.
    Seek(Vec<u8>),
}

/// What an engine takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// Table files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Keys in all families, by RocksDB's estimate.
    pub estimated_keys: u64,
}

impl Engine {
    /// Opens an engine for reading only: every table file must be there, in its size and with a sound index. Data blocks are verified
    /// when they are read. What is not understood in it is left to the caller to find.
    pub fn open_read_only(path: &Path, shared: &Arc<Shared>) -> Result<Engine, Error> {
        let db_options = shared.db_options(false);
        let present = DB::list_cf(&Options::default(), path).map_err(Error::rocksdb(path))?;
        if let Some(unknown) = present.iter().find(|name| Family::ALL.iter().all(|family| family.name() != *name)) {
            let what = format!("holds the column family \"{unknown}\", which this build does not know");
            return Err(Error::Malformed { path: path.to_path_buf(), what });
        }
        let flushed_time = Arc::new(AtomicU64::new(0));
        // A folder of an earlier version has fewer.
        let families = Family::ALL.into_iter().filter(|family| present.iter().any(|name| name == family.name()));
        let families = families.map(|family| {
            let options = shared.family_options(family, &flushed_time, &OpenDb::default());
            (family.name(), options)
        });
        let db = DB::open_cf_with_opts_for_read_only(&db_options, path, families, false);
        let db = Arc::new(db.map_err(Error::rocksdb(path))?);
        Ok(Engine::of(db, path, flushed_time, shared))
    }

    /// What it takes on disk.
    pub fn on_disk(&self) -> Result<OnDisk, Error> {
        let files = self.db.live_files().map_err(Error::rocksdb(&self.path))?;
        let mut found = OnDisk { files: files.len() as u64, ..OnDisk::default() };
        found.bytes = files.iter().map(|file| file.size as u64).sum();
        for family in Family::ALL.iter().filter_map(|family| self.db.cf_handle(family.name())) {
            let keys = self.db.property_int_value_cf(family, properties::ESTIMATE_NUM_KEYS);
            found.estimated_keys += keys.map_err(Error::rocksdb(&self.path))?.unwrap_or(0);
        }
        Ok(found)
    }

    /// Calls `f` with all keys and their entries in the order of the keys; `None` where an entry is malformed.
    pub fn inspect_entries(&self, f: &mut dyn FnMut(&[u8], Option<Entry>)) -> Result<(), Error> {
        self.inspect(Family::Meta, &mut |key, value| {
            f(key, Entry::decode(value));
            Step::Next
        })
    }

    /// Calls `f` with the keys of all elements of a space, in their order, and goes on where it says.
    pub fn inspect_elements(&self, space: Space, f: &mut dyn FnMut(&[u8]) -> Step) -> Result<(), Error> {
        self.inspect(space.into(), &mut |key, _| f(key))
    }

    /// Keys that the slot holds about itself and that this build does not know.
    pub fn unknown_system_keys(&self) -> Result<Vec<Bytes>, Error> {
        let mut unknown = Vec::new();
        self.inspect(Family::System, &mut |key, _| {
            if ![APPLIED_KEY, DATABASES_KEY, LIBRARIES_KEY].contains(&key) {
                unknown.push(Bytes::copy_from_slice(key));
            }
            Step::Next
        })?;
        Ok(unknown)
    }

    fn inspect(&self, family: Family, f: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), Error> {
        // A folder of an earlier version has fewer families.
        let Some(family) = self.db.cf_handle(family.name()) else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_verify_checksums(true);
        let mut iter = self.db.raw_iterator_cf_opt(family, options);
        iter.seek_to_first();
        while let Some((key, value)) = iter.item() {
            match f(key, value) {
                Step::Next => iter.next(),
                Step::Seek(key) => iter.seek(key),
            }
        }
        iter.status().map_err(Error::rocksdb(&self.path))
    }
}
