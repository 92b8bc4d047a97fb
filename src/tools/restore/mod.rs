//! `haypile restore`: a data folder from a save and, for a later point in time, binlogs.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `plan` | which records each slot's log is to have, so that all slots stand at one moment |
//!
//! The folder is built beside its place and takes it when it is whole and durable: an interrupted restore leaves nothing that could be
//! taken for a database. What is verified on the way: the save's MANIFEST, every file's checksum, every record that is copied, and
//! that each engine contains what the save says.

mod plan;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{BinaryBytes, HumanCount, ProgressBar};

use super::progress::byte_bar;
use super::text::{Time, plural};
use super::{Error, Terminal, Verdict};
use crate::binlog::{self, Position};
use crate::engine::{Engine, EngineOptions, Kept, Shared};
use crate::keyspace::{Current, Layout, NEVER_WRITTEN, write_slot_num};
use crate::replication::NodeState;
use crate::snapshot::inspect::{data_folder, file_checksum, read_info};
use crate::snapshot::{Info, MANIFEST, Manifest, SlotKey, folder_of};
use plan::{Plan, SlotPlan, Until};

/// What the folder is called until it is whole.
const UNFINISHED: &str = ".restoring";
/// The generations of a slot that begins anew.
const FIRST: Current = Current { engine: 1, log: 1 };

/// Make a data folder from a save of BGSAVE, as of the save or a later point in time
///
/// Without --binlog the folder stands where the save does: at one moment for all slots. With --binlog, the binlog folder of the node
/// that was saved (or a copy of it, or its data folder), everything that was written since goes in as well, up to --until. A write over
/// several slots is restored as a whole or not at all. The node begins a new history: replicas of it make a full sync.
///
/// Exit code: 0 when the folder is there, 1 when it could not be made, 2 when the save or the binlogs are damaged.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The save: a folder below dump-path, 20260131-235959
    save: PathBuf,
    /// The data folder to make; it must not be there yet, or be empty
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Binlogs that go on from the save: a binlog folder, or a data folder with one
    #[arg(long, value_name = "DIR")]
    binlog: Option<PathBuf>,
    /// Leave out what was executed later: a time (2026-01-31T23:59:59.123Z, '2026-01-31 23:59' (UTC), unix seconds or milliseconds),
    /// or the end of a record as `haypile binlog dump` shows it, with its slot: db0:3@12:4567
    #[arg(long, value_name = "TIME|POSITION")]
    until: Option<Until>,
}

/// Runs the tool.
pub fn run(args: &Args, terminal: &mut Terminal<'_>) -> Result<Verdict, Error> {
    let manifest = read_manifest(&args.save)?;
    let target = Target::prepare(&args.dir)?;
    let bar = byte_bar(terminal.shows_progress);
    let outcome = restore(args, &manifest, &target, &bar);
    bar.finish_and_clear();
    match outcome {
        Ok(plan) => {
            target.finish()?;
            summary(args, &manifest, &plan, terminal)?;
            Ok(Verdict::Sound)
        }
        Err(Failure::Damaged(what)) => {
            target.discard();
            writeln!(terminal.out, "DAMAGED: {what}; nothing was restored")?;
            Ok(Verdict::Damaged)
        }
        Err(Failure::Other(error)) => {
            target.discard();
            Err(error)
        }
    }
}

/// Why nothing was restored.
enum Failure {
    /// What there is to restore from is damaged.
    Damaged(String),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        match error.into() {
            Error::Binlog(e @ (binlog::Error::BadRecord { .. } | binlog::Error::Corrupt { .. })) => {
                Failure::Damaged(e.to_string())
            }
            other => Failure::Other(other),
        }
    }
}

fn read_manifest(save: &Path) -> Result<Manifest, Error> {
    let path = save.join(MANIFEST);
    match fs::read_to_string(&path) {
        Ok(text) => Manifest::parse(&text).map_err(|e| Error::Refused(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let why = "is no save: it has no MANIFEST (name the folder that BGSAVE made, such as dump/20260131-235959)";
            Err(Error::Refused(format!("{} {why}", save.display())))
        }
        Err(e) => Err(Error::io(&path)(e)),
    }
}

/// The folder that is made.
struct Target {
    dir: PathBuf,
    unfinished: PathBuf,
}

impl Target {
    fn prepare(dir: &Path) -> Result<Target, Error> {
        let dir = std::path::absolute(dir).map_err(Error::io(dir))?;
        match fs::read_dir(&dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Error::Refused(format!("{} is not empty: name a new folder", dir.display())));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&dir)(e)),
        }
        let mut name = dir.file_name().unwrap_or_default().to_os_string();
        name.push(UNFINISHED);
        let target = Target { unfinished: dir.with_file_name(name), dir };
        // An earlier try was interrupted.
        target.clear()?;
        fs::create_dir_all(&target.unfinished).map_err(Error::io(&target.unfinished))?;
        Ok(target)
    }

    fn clear(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(&self.unfinished)(e)),
            _ => Ok(()),
        }
    }

    /// Gives the folder its name. Durable when it returns.
    fn finish(&self) -> Result<(), Error> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        sync_tree(&self.unfinished)?;
        fs::rename(&self.unfinished, &self.dir).map_err(Error::io(&self.dir))?;
        sync(parent)
    }

    fn discard(&self) {
        // What stays is in nobody's way.
        drop(self.clear());
    }

    fn layout(&self, (db, number): SlotKey) -> Layout {
        Layout::new(&self.unfinished.join("db"), &self.unfinished.join("binlog"), db, number)
    }
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io(dir))
}

/// Makes the names in a folder and the folders below it durable.
fn sync_tree(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        if entry.file_type().map_err(Error::io(dir))?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync(dir)
}

fn restore(args: &Args, manifest: &Manifest, target: &Target, bar: &ProgressBar) -> Result<Plan, Failure> {
    bar.set_message("reading binlogs");
    let plan = Plan::make(manifest, &args.save, args.binlog.as_deref(), args.until.as_ref())?;
    bar.set_length(manifest.bytes() + plan.bytes());
    for slot in &plan.slots {
        bar.set_message(slot.name());
        match slot.saved {
            true => copy_engine(&args.save, manifest, slot, target, bar)?,
            false => make_engine(slot, target)?,
        }
        copy_log(slot, target, bar)?;
        let layout = target.layout(slot.slot);
        layout.set_current(FIRST)?;
    }
    let db_path = target.unfinished.join("db");
    fs::create_dir_all(&db_path).map_err(Error::io(&db_path))?;
    write_slot_num(&db_path, manifest.slot_num)?;

    // A history of its own: what this node writes can be told from what the saved one wrote since.
    let mut node = NodeState::load(&target.unfinished, None).map_err(|e| Error::Refused(e.to_string()))?;
    node.term = plan.slots.iter().map(|slot| slot.to.term).max().unwrap_or(0) + 1;
    node.leading_from = Some(node.term);
    node.save().map_err(|e| Error::Refused(e.to_string()))?;
    Ok(plan)
}

/// Copies what the save has of a slot's engine, and verifies it.
fn copy_engine(
    save: &Path,
    manifest: &Manifest,
    slot: &SlotPlan,
    target: &Target,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let engine = target.layout(slot.slot).engine_dir(FIRST.engine);
    fs::create_dir_all(&engine).map_err(Error::io(&engine))?;
    let source = folder_of(save, slot.slot);
    let prefix = format!("db{}/{}/", slot.slot.0, slot.slot.1);
    for file in manifest.files.iter().filter(|file| file.name.starts_with(&prefix)) {
        let from = save.join(&file.name);
        let is_data = from.parent() == Some(&data_folder(&source));
        let damaged = |why: &str| Failure::Damaged(format!("{}: {why}", from.display()));
        let to = match is_data {
            true => engine.join(from.file_name().unwrap_or_default()),
            false => from.clone(),
        };
        if is_data {
            match fs::copy(&from, &to) {
                Ok(_) => File::open(&to).and_then(|file| file.sync_all()).map_err(Error::io(&to))?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged("is missing")),
                Err(e) => return Err(Error::io(&from)(e).into()),
            }
        }
        // Of the copy: what came to be there is what is meant to be.
        let (size, checksum) = match file_checksum(&to) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged("is missing")),
            found => found.map_err(Error::io(&to))?,
        };
        if (size, checksum) != (file.size, file.checksum) {
            return Err(damaged("is not what MANIFEST says it was (size or checksum)"));
        }
        bar.inc(size);
    }
    let info = read_info(&source).map_err(Error::io(&source))?;
    let info = info.as_deref().map(Info::parse).transpose().ok().flatten();
    let inside = Engine::applied_in(&engine).map_err(|e| Failure::Damaged(e.to_string()))?;
    if info.is_none_or(|info| info.applied != inside) || inside.position != slot.from {
        return Err(Failure::Damaged(format!("{}: the engine does not contain what MANIFEST says", source.display())));
    }
    Ok(())
}

/// The engine of a slot that was first written after the save.
fn make_engine(slot: &SlotPlan, target: &Target) -> Result<(), Failure> {
    let dir = target.layout(slot.slot).engine_dir(FIRST.engine);
    fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    let shared = Arc::new(Shared::new(EngineOptions::default()));
    Engine::create(&dir, &shared, NEVER_WRITTEN, &Kept::default())?;
    Ok(())
}

fn copy_log(slot: &SlotPlan, target: &Target, bar: &ProgressBar) -> Result<(), Failure> {
    let dir = target.layout(slot.slot).log_dir(FIRST.log);
    match &slot.log {
        Some(log) if slot.to != slot.from => {
            binlog::copy_records(log, slot.from, slot.to, &dir, &mut |bytes| bar.inc(bytes))?;
        }
        _ => binlog::begin_log(&dir, slot.from)?,
    }
    Ok(())
}

fn summary(args: &Args, manifest: &Manifest, plan: &Plan, terminal: &mut Terminal<'_>) -> Result<(), Error> {
    let records: u64 = plan.slots.iter().map(|slot| slot.to.index - slot.from.index).sum();
    let (slots, dir) = (plan.slots.len() as u64, args.dir.display());
    let out = &mut terminal.out;
    writeln!(
        out,
        "{dir}: {slots} slot{} with {} of data, and {} record{} that the first start replays",
        plural(slots),
        BinaryBytes(manifest.bytes()),
        HumanCount(records),
        plural(records),
    )?;
    match plan.newest {
        Some(time) => writeln!(out, "the last write in it was executed at {}", Time(time))?,
        None => writeln!(out, "it stands where the save does, at {}", Time(manifest.taken))?,
    }
    for (slot, cut) in &plan.torn {
        let Position { filenum, offset, .. } = cut;
        writeln!(
            out,
            "db{}:{} ends at {filenum}:{offset}, before a write over several slots that not all of them have",
            slot.0, slot.1
        )?;
    }
    writeln!(
        out,
        "start it with: haypile --dir {dir} --set slot-num={} --set databases={} (or your conf file; paths at their defaults)",
        manifest.slot_num, manifest.databases
    )?;
    Ok(())
}
