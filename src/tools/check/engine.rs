//! Checking one engine: every block's checksum, every key, every element, and that the elements are those of a collection.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::report::{Finding, Report, Severity};
use super::{Scope, advice};
use crate::engine::element::{owner, prefix};
use crate::engine::inspect::Step;
use crate::engine::{Applied, Engine, EngineOptions, Entry, Kind, Shared, Space};
use crate::keyspace::inspect::{may_be_pruned, verify_collection};
use crate::keyspace::slot_of;
use crate::tools::{Error, text};

/// Bytes of blocks that are kept in memory; what is read once needs none.
const BLOCK_CACHE: usize = 32 << 20;
/// Table files kept open: a large slot has more than a process may open.
const OPEN_FILES: i32 = 256;

/// Which keys may be in an engine.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub slot: usize,
    pub slots: usize,
    /// The slot that holds what belongs to the node.
    pub is_first: bool,
}

/// Checks the engine in `dir`; what it contains, where it says so.
pub fn check(
    dir: &Path,
    placement: Option<Placement>,
    scope: &Scope,
    report: &mut Report<'_, '_>,
) -> Result<Option<Applied>, Error> {
    let options = EngineOptions { block_cache: BLOCK_CACHE, max_open_files: OPEN_FILES, ..EngineOptions::default() };
    let shared = Arc::new(Shared::new(options));
    let engine = match Engine::open_read_only(dir, &shared) {
        Ok(engine) => engine,
        Err(e) => {
            report.add(scope.finding(
                Severity::Damage,
                dir,
                format!("the engine cannot be opened: {e}"),
                advice::ENGINE,
            ))?;
            return Ok(None);
        }
    };
    let applied = match engine.applied() {
        Ok(applied) => Some(applied),
        Err(e) => {
            report.add(scope.finding(Severity::Damage, dir, e.to_string(), advice::ENGINE))?;
            None
        }
    };
    let on_disk = engine.on_disk()?;
    let mut checker = Checker {
        engine: &engine,
        dir,
        placement,
        scope,
        applied,
        share: on_disk.bytes / on_disk.estimated_keys.max(1),
        left: on_disk.bytes,
        report,
        failed: None,
    };
    checker.system()?;
    checker.entries()?;
    for space in [Space::Data, Space::Score] {
        checker.elements(space)?;
    }
    let left = checker.left;
    report.advance(left);
    Ok(applied)
}

struct Checker<'c, 'r, 't> {
    engine: &'c Engine,
    dir: &'c Path,
    placement: Option<Placement>,
    scope: &'c Scope,
    applied: Option<Applied>,
    /// Bytes on disk a key or element, about; and those not yet counted as read.
    share: u64,
    left: u64,
    report: &'c mut Report<'r, 't>,
    /// Saying a finding failed.
    failed: Option<Error>,
}

impl Checker<'_, '_, '_> {
    fn say(&mut self, finding: Finding) {
        if self.failed.is_none() {
            self.failed = self.report.add(finding).err();
        }
    }

    fn damage(&mut self, key: Option<&[u8]>, what: impl Into<String>) {
        let finding = self.scope.finding(Severity::Damage, self.dir, what, advice::ENCODING);
        self.say(key.into_iter().fold(finding, Finding::of_key));
    }

    fn read(&mut self, items: u64) {
        let bytes = self.share.saturating_mul(items).min(self.left);
        self.left -= bytes;
        self.report.advance(bytes);
    }

    /// An iteration that broke off: RocksDB names file and offset of a bad block.
    fn ended(&mut self, ended: Result<(), impl Into<Error>>, what: &str) -> Result<(), Error> {
        if let Err(e) = ended {
            let what = format!("{what}: {}", e.into());
            self.say(self.scope.finding(Severity::Damage, self.dir, what, advice::ENGINE));
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn system(&mut self) -> Result<(), Error> {
        let engine = self.engine;
        let kept = engine.kept().and_then(|kept| Ok((kept, engine.unknown_system_keys()?)));
        let (kept, unknown) = match kept {
            Ok(found) => found,
            Err(e) => return self.ended(Err(e), "what the slot knows about itself cannot be read"),
        };
        for key in unknown {
            let what = format!("holds {} about itself, which this build does not know", text::Quoted(&key));
            self.say(self.scope.finding(Severity::Warning, self.dir, what, ""));
        }
        if let Some(map) = &kept.databases {
            let (numbers, rest) = map.as_chunks::<2>();
            let mut places: Vec<u16> = numbers.iter().map(|n| u16::from_le_bytes(*n)).collect();
            places.sort_unstable();
            if !rest.is_empty() || places.iter().enumerate().any(|(nth, place)| nth != usize::from(*place)) {
                self.damage(None, "the map of swapped databases is malformed");
            }
        }
        let of_node = kept.databases.is_some() || !kept.libraries.is_empty();
        if of_node && self.placement.is_some_and(|placement| !placement.is_first) {
            self.damage(None, "holds functions or the map of databases, which only slot 0 of db0 may");
        }
        self.ended(Ok::<(), Error>(()), "")
    }

    fn entries(&mut self) -> Result<(), Error> {
        let engine = self.engine;
        let ended = engine.inspect_entries(&mut |key, entry| {
            self.report.totals.keys += 1;
            self.read(1);
            self.entry(key, entry);
        });
        self.ended(ended, "the keys cannot be read to their end")
    }

    fn entry(&mut self, key: &[u8], entry: Option<Entry>) {
        if let Some(Placement { slot, slots, .. }) = self.placement
            && slot_of(key, slots) != slot
        {
            self.damage(Some(key), format!("the key belongs to slot {}", slot_of(key, slots)));
        }
        let Some(entry) = entry else { return self.damage(Some(key), "the entry is malformed") };
        if !entry.has_elements() {
            return;
        }
        let pruned = self.applied.is_none_or(|applied| may_be_pruned(&entry, &applied));
        let owned = Bytes::copy_from_slice(key);
        let engine = self.engine;
        match verify_collection(engine, &owned, &entry, pruned, &mut |flaw| self.damage(Some(key), flaw)) {
            Ok(elements) => {
                self.report.totals.elements += elements;
                self.read(elements);
            }
            Err(e) => self.damage(Some(key), format!("the elements cannot be read: {e}")),
        }
    }

    /// Elements that no entry names. Those of collections were read with these.
    fn elements(&mut self, space: Space) -> Result<(), Error> {
        let engine = self.engine;
        // Key and version of the last one that is nobody's.
        let mut orphan = Vec::new();
        let ended = engine.inspect_elements(space, &mut |element| {
            let Some((key, version)) = owner(element) else {
                self.damage(
                    None,
                    format!("the key of an element is malformed: {}", text::Shortened { bytes: element, max: 64 }),
                );
                return Step::Next;
            };
            let own = prefix(key, version, 0);
            if own != orphan {
                match engine.get(key) {
                    Ok(Some(entry)) if entry.as_collection().is_some_and(|found| found.version == version) => {
                        if space == Space::Score && !matches!(entry.kind, Kind::Hash | Kind::Zset) {
                            self.damage(
                                Some(key),
                                format!("a {} has elements in the order of scores", entry.kind.name()),
                            );
                        }
                        // What nobody ever wrote must not send us back.
                        let next = version.checked_add(1).map(|next| prefix(key, next, 0));
                        return next.map_or(Step::Next, Step::Seek);
                    }
                    // A bad entry was reported with the entries: whose its elements are cannot be told.
                    Ok(_) | Err(_) => orphan = own,
                }
            }
            self.report.totals.orphans += 1;
            self.read(1);
            Step::Next
        });
        self.ended(ended, "the elements cannot be read to their end")
    }
}
