//! Checking what is not served: saves, snapshots, what a full sync has received, logs by themselves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;

use super::Scope;
use super::engine::{self, Placement};
use super::log::{self, Expected};
use super::report::{Finding, Report, Severity};
use crate::engine::Applied;
use crate::keyspace::inspect::UNKNOWN_END;
use crate::snapshot::inspect::{FileState, data_folder, file_checksum, read_info, received};
use crate::snapshot::{BadInfo, Info, LOG, MANIFEST, Manifest};
use crate::tools::Error;
use crate::tools::files::Log;

/// The folder of snapshots for replicas, below `dump-path`.
const FOR_REPLICAS: &str = "sync";
/// What the name of an unfinished save ends with.
const UNFINISHED: &str = ".tmp";
const BAD_SAVE: &str = "Do not restore from it: take another save";

/// Where a slot is in a folder of slots.
pub fn folder_of(dir: &Path, db: usize, slot: usize) -> PathBuf {
    dir.join(format!("db{db}/{slot}"))
}

/// The slots with a folder `dbD/N` in `dir`, in order; none where there is no such folder.
pub fn slots_in(dir: &Path) -> Result<Vec<(usize, usize)>, Error> {
    let mut slots = Vec::new();
    for (name, path) in folders_in(dir)? {
        let Some(db) = name.strip_prefix("db").and_then(|db| db.parse().ok()) else { continue };
        let numbers = folders_in(&path)?;
        slots.extend(numbers.into_iter().filter_map(|(name, _)| Some((db, name.parse().ok()?))));
    }
    slots.sort_unstable();
    Ok(slots)
}

/// The slots of a save; `None` if the folder is none.
pub fn slots_of(dir: &Path) -> Result<Option<Vec<(usize, usize)>>, Error> {
    let slots = slots_in(dir)?;
    let is_save = slots.iter().any(|&(db, slot)| folder_of(dir, db, slot).join("info").exists());
    Ok(is_save.then_some(slots))
}

/// Whether the folder is a `dump-path` with saves.
pub fn holds_saves(dir: &Path) -> Result<bool, Error> {
    for (_, path) in folders_in(dir)? {
        if slots_of(&path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn folders_in(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(dir)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(dir))?;
        if entry.file_type().map_err(Error::io(dir))?.is_dir() {
            found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Checks the saves below `dump-path`.
pub fn check_dumps(dump_path: &Path, report: &mut Report<'_, '_>) -> Result<(), Error> {
    for (name, path) in folders_in(dump_path)? {
        if name == FOR_REPLICAS {
            for (_, left) in folders_in(&path)? {
                let what = "a snapshot for a replica, left by a crash";
                report.add(Finding::new(Severity::Note, None, &left, what, "The next start removes it"))?;
            }
        } else if name.ends_with(UNFINISHED) {
            let what = "a save that was not finished";
            report.add(Finding::new(Severity::Note, None, &path, what, "The next start removes it"))?;
        } else {
            let slots = slots_in(&path)?;
            check_save(&path, &slots, report)?;
        }
    }
    Ok(())
}

/// Checks one save: its MANIFEST, every file by its checksum, and what is in the slots.
pub fn check_save(save: &Path, slots: &[(usize, usize)], report: &mut Report<'_, '_>) -> Result<(), Error> {
    let manifest = read_manifest(save, report)?;
    let slot_num = manifest.as_ref().map(|manifest| manifest.slot_num);
    for &(db, slot) in slots {
        let folder = folder_of(save, db, slot);
        check_snapshot(&folder, Some((db, slot)), slot_num, report)?;
    }
    let Some(manifest) = manifest else { return Ok(()) };
    let finding =
        |slot: Option<&str>, path: &Path, what: &str| Finding::new(Severity::Damage, slot, path, what, BAD_SAVE);
    for file in &manifest.files {
        let path = save.join(&file.name);
        match file_checksum(&path) {
            Ok(found) if found == (file.size, file.checksum) => {}
            Ok(_) => report.add(finding(None, &path, "not what MANIFEST says it was (size or checksum)"))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => report.add(finding(None, &path, "missing"))?,
            Err(e) => return Err(Error::io(&path)(e)),
        }
    }
    for saved in &manifest.slots {
        let (db, number) = saved.slot;
        let scope = Scope::of_slot(db, number);
        let log = folder_of(save, db, number).join(LOG);
        if saved.from == saved.to {
            continue;
        }
        if !log.is_dir() {
            report.add(scope.finding(Severity::Damage, &log, "missing", BAD_SAVE))?;
            continue;
        }
        let expected = Expected { scope: &scope, slot: None, applied: None, leading_from: None };
        let told = log::check(&log, &expected, report)?;
        if told.end != saved.to.index && told.end != UNKNOWN_END {
            let what = format!("the log ends with index {}, MANIFEST says {}", told.end, saved.to.index);
            report.add(scope.finding(Severity::Damage, &log, what, BAD_SAVE))?;
        }
    }
    Ok(())
}

fn read_manifest(save: &Path, report: &mut Report<'_, '_>) -> Result<Option<Manifest>, Error> {
    let path = save.join(MANIFEST);
    let what = match fs::read_to_string(&path) {
        Ok(text) => match Manifest::parse(&text) {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(e) => e.to_string(),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => "missing: what belongs to the save is not known".into(),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => "not a text".into(),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    report.add(Finding::new(Severity::Damage, None, &path, what, BAD_SAVE))?;
    Ok(None)
}

/// Checks the snapshot of one slot, which is to be this one. `slot_num`: how many slots its database has, where that is known.
pub fn check_snapshot(
    folder: &Path,
    slot: Option<(usize, usize)>,
    slot_num: Option<usize>,
    report: &mut Report<'_, '_>,
) -> Result<(), Error> {
    let mut scope = slot.map_or_else(Scope::default, |(db, slot)| Scope::of_slot(db, slot));
    report.begin(&folder.display().to_string());
    report.totals.saved_slots += 1;
    let path = folder.join("info");
    let bad = |what: String| scope.finding(Severity::Damage, &path, what, BAD_SAVE);
    let info = match read_info(folder) {
        Ok(Some(text)) => Info::parse(&text).map_err(|e: BadInfo| bad(e.to_string())),
        Ok(None) => Err(bad("missing: it is not known what the save contains".into())),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(bad("not a text".into())),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let info = match info {
        Ok(info) => Some(info),
        Err(finding) => {
            report.add(finding)?;
            None
        }
    };
    if let (Some(info), Some(name)) = (&info, &scope.name)
        && info.slot != *name
    {
        report.add(scope.finding(Severity::Damage, &path, format!("it is of slot {}", info.slot), BAD_SAVE))?;
    }
    scope.name = scope.name.or(info.as_ref().map(|info| info.slot.clone()));
    if info.as_ref().is_some_and(|info| info.empty) {
        return Ok(());
    }
    let data = data_folder(folder);
    let placement = slot.zip(slot_num).map(|((db, number), slots)| Placement {
        slot: number,
        slots,
        is_first: (db, number) == (0, 0),
    });
    let inside = engine::check(&data, placement, &scope, report)?;
    if let (Some(Info { applied, .. }), Some(inside)) = (info, inside)
        && applied != inside
    {
        let said = |applied: Applied| applied.position;
        let what = format!("its info says it contains the log up to {}, it does up to {}", said(applied), said(inside));
        report.add(scope.finding(Severity::Damage, &data, what, BAD_SAVE))?;
    }
    Ok(())
}

/// Looks at what full syncs have received so far. Nothing of it is served.
pub fn check_receive_folders(sync_path: &Path, report: &mut Report<'_, '_>) -> Result<(), Error> {
    for (db, slot) in slots_in(sync_path)? {
        let (scope, folder) = (Scope::of_slot(db, slot), folder_of(sync_path, db, slot));
        let finding = match received(&folder).map_err(Error::io(&folder))? {
            None => scope.finding(Severity::Note, &folder, "a full sync that has received nothing yet", ""),
            Some(Err(e)) => {
                let what = format!("the listing of a full sync cannot be used: {e}");
                scope.finding(Severity::Warning, &folder, what, "Nothing of it is served; the full sync begins anew")
            }
            Some(Ok(found)) => {
                for file in found.files(FileState::Wrong) {
                    let what = format!("{} has been received damaged", file.name);
                    report.add(scope.finding(
                        Severity::Warning,
                        &folder,
                        what,
                        "Nothing of it is served; it is fetched again",
                    ))?;
                }
                let what = format!(
                    "a full sync on its way in: {} of {} files, {} of {}",
                    found.files(FileState::Whole).count(),
                    found.listing.files.len(),
                    BinaryBytes(found.bytes),
                    BinaryBytes(found.listing.bytes())
                );
                scope.finding(Severity::Note, &folder, what, "")
            }
        };
        report.add(finding)?;
    }
    Ok(())
}

/// Checks logs without their engines.
pub fn check_logs(logs: &[Log], report: &mut Report<'_, '_>) -> Result<(), Error> {
    for found in logs {
        let scope = Scope { name: found.slot.map(|(db, slot)| format!("db{db}:{slot}")) };
        report.begin(&found.name());
        log::check_saved(found, &scope, report)?;
    }
    Ok(())
}
