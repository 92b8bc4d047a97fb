//! SWAPDB: which database on disk a client's database is.
//!
//! Slots, their folders, logs and peers know databases by where they are on disk; clients by the number that SELECT takes. SWAPDB changes
//! nothing but the map between the two. The map is the state of one slot, the first of the first database on disk: its log has the
//! `SWAPDB` records, its engine the map as they have made it, so recovery, replicas and snapshots carry it like any other data.
//! The map changes while all key locks are held; who holds one sees it stand still.
//!
//! `<db-path>/DATABASES` is a copy of the map, for a start on which that engine cannot be read.
//!
//! A `SWAPDB` is durable before the locks are free again: no write to a swapped database can outlive it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::commit::SlotWrite;
use super::effect::Effect;
use super::slot::Slot;
use super::{Error, Keyspace};
use crate::binlog::{Draft, Position};
use crate::disk::{self, Replace};
use crate::engine::{Batch, Engine};

/// What the copy of the map begins with; then a database on disk for each that clients see.
const COPY_PREFIX: &str = "databases : ";

/// The map, both ways.
pub(super) struct DatabaseMap {
    on_disk: Box<[AtomicUsize]>,
    shown: Box<[AtomicUsize]>,
}

impl DatabaseMap {
    pub fn new(databases: usize) -> DatabaseMap {
        let own = || (0..databases).map(AtomicUsize::new).collect();
        DatabaseMap { on_disk: own(), shown: own() }
    }

    /// The place on disk of a client's database.
    pub fn on_disk(&self, shown: usize) -> usize {
        self.on_disk[shown].load(Ordering::Acquire)
    }

    /// What clients call a database on disk.
    pub fn shown(&self, on_disk: usize) -> usize {
        self.shown[on_disk].load(Ordering::Acquire)
    }

    fn set(&self, map: &[usize]) {
        for (shown, &on_disk) in map.iter().enumerate() {
            self.on_disk[shown].store(on_disk, Ordering::Release);
            self.shown[on_disk].store(shown, Ordering::Release);
        }
    }

    /// The map that an engine holds.
    pub fn read(&self, engine: &Engine) -> Result<Vec<usize>, Error> {
        let stored = engine.databases()?.unwrap_or_default();
        let bad = || Error::BadEffect("the map of databases does not fit the conf file's `databases`".into());
        let (numbers, []) = stored.as_chunks::<2>() else { return Err(bad()) };
        let mut map: Vec<usize> = (0..self.on_disk.len().max(numbers.len())).collect();
        for (shown, on_disk) in numbers.iter().enumerate() {
            map[shown] = usize::from(u16::from_le_bytes(*on_disk));
        }
        self.fit(map).ok_or_else(bad)
    }

    /// A map that was written, for the databases that there are; `None` if it is none.
    fn fit(&self, mut map: Vec<usize>) -> Option<Vec<usize>> {
        map.extend(map.len()..self.on_disk.len());
        // Databases that the conf file no longer has may only be where they always were.
        if map.iter().skip(self.on_disk.len()).enumerate().any(|(nth, &on_disk)| on_disk != self.on_disk.len() + nth) {
            return None;
        }
        map.truncate(self.on_disk.len());
        let mut sorted = map.clone();
        sorted.sort_unstable();
        sorted.iter().enumerate().all(|(nth, &n)| nth == n).then_some(map)
    }
}

/// How the map stands in an engine: for each database that clients see, its place on disk, u16 little-endian.
fn encode(map: &[usize]) -> Bytes {
    map.iter().flat_map(|&on_disk| (on_disk as u16).to_le_bytes()).collect()
}

impl Slot {
    /// The map as an engine of this slot has it, with two databases swapped.
    fn swapped(&self, engine: &Engine, a: usize, b: usize) -> Result<Vec<usize>, Error> {
        let mut map = self.env.databases.read(engine)?;
        if a >= map.len() || b >= map.len() || !self.is_first() {
            return Err(Error::BadEffect(format!("SWAPDB {a} {b} in the log of {self}")));
        }
        map.swap(a, b);
        Ok(map)
    }

    /// A SWAPDB found in the log at recovery: what is to be in the engine.
    pub(super) fn recover_swap(&self, engine: &Engine, a: usize, b: usize) -> Result<Bytes, Error> {
        Ok(encode(&self.swapped(engine, a, b)?))
    }

    /// Takes the map over from the engine. All key locks are held, or nobody else is there yet.
    pub(super) fn load_databases(&self) -> Result<(), Error> {
        let map = match self.store.load_full() {
            Some(store) => match self.env.databases.read(&store.engine) {
                Err(_) if store.engine.damage().is_some() => self.copied_databases()?,
                read => read?,
            },
            None if self.check_never_written().is_ok() => (0..self.env.databases.on_disk.len()).collect(),
            None => self.copied_databases()?,
        };
        let changed: Vec<usize> = map
            .iter()
            .enumerate()
            .filter(|(shown, d)| self.env.databases.on_disk(*shown) != **d)
            .map(|(s, _)| s)
            .collect();
        self.env.databases.set(&map);
        if let Err(e) = self.copy_databases(&map) {
            tracing::error!("no copy of the map of databases: {e}");
        }
        if let Some(observer) = self.env.observer.get() {
            changed.into_iter().for_each(|shown| observer.replaced(shown));
        }
        Ok(())
    }

    /// The map as it was last taken over, for when the engine that holds it cannot be read: without it the keys of one database would be taken
    /// for those of another.
    fn copied_databases(&self) -> Result<Vec<usize>, Error> {
        let path = self.layout.databases_copy();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok((0..self.env.databases.on_disk.len()).collect());
            }
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let numbers = text.strip_prefix(COPY_PREFIX).and_then(|rest| rest.strip_suffix('\n'));
        let map: Option<Vec<usize>> = numbers.and_then(|n| n.split(' ').map(|n| n.parse().ok()).collect());
        map.and_then(|map| self.env.databases.fit(map)).ok_or_else(|| Error::damaged(&path, "malformed"))
    }

    /// Writes the copy where it says something else. Databases that were never swapped have none.
    fn copy_databases(&self, map: &[usize]) -> Result<(), Error> {
        let path = self.layout.databases_copy();
        let is_plain = map.iter().enumerate().all(|(nth, &on_disk)| nth == on_disk);
        let numbers: Vec<String> = map.iter().map(usize::to_string).collect();
        let text = format!("{COPY_PREFIX}{}\n", numbers.join(" "));
        match std::fs::read_to_string(&path) {
            Ok(known) if known == text => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && is_plain => return Ok(()),
            _ => {}
        }
        disk::replace_file(&Replace::LAYOUT, &path, text.as_bytes()).map_err(Error::io(&path))
    }

    /// SWAPDB of this node or (`run`: record and its end) of its master. All key locks are held.
    pub(super) fn swap_databases(
        &self,
        a: usize,
        b: usize,
        time: u64,
        run: Option<(&[u8], Position)>,
    ) -> Result<(), Error> {
        let store = self.store_for_writing(run.is_none())?;
        let map = self.swapped(&store.engine, a, b)?;
        let mut batch = Batch::default();
        batch.databases(&encode(&map));
        let end = match run {
            Some((run, end)) => {
                self.commit_run(run, end, batch, time)?;
                end
            }
            None => {
                let mut draft = Draft::new(time);
                Effect::SwapDb { a, b }.encode(draft.effects());
                self.commit(SlotWrite { drafts: vec![draft], batch })?
            }
        };
        self.load_databases()?;
        self.sync_to(end.index)
    }
}

impl Keyspace {
    /// What clients call the first database on disk.
    pub(super) fn first_database(&self) -> usize {
        self.env.databases.shown(0)
    }

    /// Lets two of the clients' databases trade places, with all key locks held. Durable when it returns.
    pub(super) fn swap_db_locked(&self, a: usize, b: usize, now: u64) -> Result<(), Error> {
        match self.databases.first().and_then(|first| first.slots.first()) {
            Some(slot) if a != b => slot.swap_databases(a, b, now, None),
            _ => Ok(()),
        }
    }
}
