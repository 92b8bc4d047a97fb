//! What operators do with data on disk: compacting them, removing old logs, looking at what they take.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Error, Keyspace, Slot};
use crate::binlog;
use crate::disk::{self, Point};
use crate::engine::EngineSizes;

/// What a server's data take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of all engines together.
    pub engines: EngineSizes,
    /// Bytes of binlog files.
    pub logs: u64,
}

impl Slot {
    /// Rewrites the data on disk without what was deleted, replaced or has expired; with keys, the entries from the first to the last
    /// only, and the elements of all. Takes as long as reading and writing all of it.
    pub fn compact(&self, keys: Option<(&[u8], &[u8])>) -> Result<(), Error> {
        // What is dropped is judged by what is flushed.
        self.flush()?;
        let Some(store) = self.readable()? else { return Ok(()) };
        Ok(store.engine.compact(keys)?)
    }

    /// Removes the binlog files below number `below` that neither recovery nor a replica needs. Returns how many went.
    pub fn purge_below(&self, below: u32) -> Result<usize, Error> {
        let Some(store) = self.store().clone() else { return Ok(0) };
        let keep = below.min(self.flushed_filenum()).min(self.position().filenum);
        let mut removed = 0;
        for &filenum in binlog::list_files(store.log_dir())?.range(..keep).map(|(filenum, _)| filenum) {
            if !self.claim_to_purge(store.current.log, filenum, None) {
                break;
            }
            let path = binlog::file_path(store.log_dir(), filenum);
            disk::remove_file(Point::PurgeRemove, &path).map_err(Error::io(&path))?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Keyspace {
    /// Begins to compact these databases (as clients number them) slot by slot, [`Slot::compact`]. False if that is going on already.
    pub fn compact_in_background(self: &Arc<Self>, databases: &[usize], keys: Option<(Bytes, Bytes)>) -> bool {
        if self.compacting.swap(true, Ordering::AcqRel) {
            return false;
        }
        let slots: Vec<Arc<Slot>> = databases.iter().flat_map(|db| self.db(*db).slots().iter().cloned()).collect();
        let keyspace = self.clone();
        let run = move || {
            for slot in &slots {
                let range = keys.as_ref().map(|(first, last)| (&first[..], &last[..]));
                if let Err(e) = slot.compact(range) {
                    tracing::error!(slot = %slot, "the compaction did not finish: {e}");
                }
            }
            tracing::info!(slots = slots.len(), "compaction finished");
            keyspace.compacting.store(false, Ordering::Release);
        };
        let started = std::thread::Builder::new().name("compact".into()).spawn(run);
        if let Err(e) = &started {
            tracing::error!("no thread to compact in: {e}");
            self.compacting.store(false, Ordering::Release);
        }
        started.is_ok()
    }

    /// Whether a compaction that somebody asked for is going on.
    pub fn is_compacting(&self) -> bool {
        self.compacting.load(Ordering::Acquire)
    }

    /// What all data take on disk and in memory. Looks at every log folder.
    pub fn sizes(&self) -> Result<Sizes, Error> {
        let mut sizes = Sizes::default();
        for slot in self.all_slots() {
            let Some(store) = slot.store().clone() else { continue };
            sizes.engines.add(&store.engine.sizes()?);
            sizes.logs += binlog::list_files(store.log_dir())?.values().map(|file| file.size).sum::<u64>();
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::types::{hash, refill};
    use super::super::{Effect, KeyspaceOptions, Kind, Locked};
    use super::*;
    use crate::engine::EngineOptions;

    const ELEMENTS: usize = 100_000;
    /// Elements to a commit.
    const STEP: usize = 10_000;

    fn open(dir: &Path) -> Arc<Keyspace> {
        let engine = EngineOptions { write_buffer_size: 1 << 20, ..EngineOptions::default() };
        let keyspace = Keyspace::open(KeyspaceOptions {
            db_path: dir.join("db"),
            binlog_path: dir.join("binlog"),
            databases: 2,
            slots: 1,
            cache: 1 << 20,
            engine,
            binlog_file_size: Box::new(|| 64 << 20),
            sync_always: Box::new(|| false),
            term: 1,
            leading_from: Some(1),
        });
        Arc::new(keyspace.unwrap())
    }

    /// A hash of many fields at `key`.
    fn fill(keyspace: &Keyspace, key: &Bytes) {
        for step in 0..ELEMENTS / STEP {
            let mut tx = keyspace.transaction();
            assert_eq!(tx.lock([(0, &key[..])].into_iter(), true), Locked::Yes);
            tx.create_if_missing(0, key, Kind::Hash, 1).unwrap();
            let field = |n: usize| {
                let value = Bytes::from(format!("{:0100}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                (Bytes::from(format!("field:{n}")), hash::Field { value, expire_at: None })
            };
            for effect in refill::hash(key, (step * STEP..(step + 1) * STEP).map(field)) {
                tx.apply(0, effect, 1).unwrap();
            }
            tx.commit().unwrap();
        }
    }

    fn write(keyspace: &Keyspace, key: &Bytes, effect: Effect) {
        let mut tx = keyspace.transaction();
        assert_eq!(tx.lock([(0, &key[..])].into_iter(), true), Locked::Yes);
        // Later than what `fill` made.
        tx.apply(0, effect, 10).unwrap();
        tx.commit().unwrap();
    }

    #[test]
    fn a_large_value_goes_at_once_and_compaction_gives_its_space_back() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = open(dir.path());
        let (gone, kept) = (Bytes::from_static(b"gone"), Bytes::from_static(b"kept"));
        fill(&keyspace, &kept);
        keyspace.flush_all_engines().unwrap();
        keyspace.db(0).slots()[0].compact(None).unwrap();
        let one = keyspace.sizes().unwrap().engines.files;
        fill(&keyspace, &gone);
        keyspace.flush_all_engines().unwrap();
        keyspace.db(0).slots()[0].compact(None).unwrap();
        let two = keyspace.sizes().unwrap().engines.files;
        assert!(two > one / 2 * 3, "{one} bytes, then {two}");
        let before = keyspace.unflushed();
        write(&keyspace, &gone, Effect::Del { key: gone.clone() });
        assert!(keyspace.unflushed() - before < 1000, "one small record, whatever goes");
        assert!(keyspace.compact_in_background(&[0], None));
        while keyspace.is_compacting() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = keyspace.sizes().unwrap().engines.files;
        assert!(left < one / 10 * 11, "{one} bytes, then {two}, then {left}");
        let mut tx = keyspace.transaction();
        let (handle, mut reader) = tx.open(0, &kept, 1).unwrap().unwrap();
        let mut fields = 0;
        hash::each(&mut reader, &handle, 1, &mut |_, _| {
            fields += 1;
            true
        })
        .unwrap();
        assert_eq!(fields, ELEMENTS);
    }

    #[test]
    fn logs_are_purged_up_to_what_recovery_needs() {
        let dir = tempfile::tempdir().unwrap();
        let keyspace = open(dir.path());
        let key = Bytes::from_static(b"k");
        write(&keyspace, &key, Effect::Set { key: key.clone(), value: Bytes::from_static(b"v"), expire_at: None });
        let slot = &keyspace.db(0).slots()[0];
        assert_eq!(slot.purge_below(100).unwrap(), 0, "the only file is the current one");
        assert_eq!(keyspace.db(1).slots()[0].purge_below(100).unwrap(), 0);
    }
}
