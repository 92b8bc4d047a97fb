//! `haypile check`: whether a data folder, a save, or a part of one is sound.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `report` | findings, totals, progress |
//! | `node` | a data folder: what is in which of its folders |
//! | `slot` | one slot: its generations, its engine, its log |
//! | `log` | one log: files, records, effects |
//! | `engine` | one engine: blocks, keys, elements |
//! | `save` | snapshots, saves, and what a full sync has received |

mod engine;
mod log;
mod node;
mod report;
mod save;
mod slot;

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, Terminal, Verdict, files, lock};
use lock::Lock;
use report::Report;

/// Check a data folder, a save, a slot or a binlog folder
///
/// Reads everything: every record of the binlogs with its effects and their joins, every block, key and element of the engines, how
/// engine and log of each slot fit together, saves, and what a full sync has received. Changes nothing. A server must not run on the
/// folder, and none can start on it meanwhile. One line a finding: severity, slot, place, what it is, what to do.
///
/// Exit code: 0 when all is sound, or 1 when it could not be checked, or 2 when something is damaged.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A server's data folder; a folder that BGSAVE made; a slot's folder; a folder of binlogs
    dir: PathBuf,
    /// The conf file that says where db-path, binlog-path and so on of the data folder are
    #[arg(long, value_name = "CONF")]
    conf: Option<PathBuf>,
    /// Leave out the saves under dump-path
    #[arg(long)]
    no_dumps: bool,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// What findings have in common.
#[derive(Clone, Debug, Default)]
struct Scope {
    /// `db0:3`
    name: Option<String>,
}

impl Scope {
    fn of_slot(db: usize, slot: usize) -> Scope {
        Scope { name: Some(format!("db{db}:{slot}")) }
    }
}

/// What to do about findings.
mod advice {
    pub const LOST: &str =
        "Something was removed by hand: restore a save, or take the slot from another node by a full sync";
    pub const UNREPLAYABLE: &str = "The next start serves what is before it and makes the slot read-only: \
        promote a replica and follow it, or restore a save";
    pub const PASSED: &str = "The slot's data hold these records already; a replica or a restore that still needs them cannot have them: \
        take a save (BGSAVE) once the server runs";
    pub const LOG_ALONE: &str = "Whether a server still needs these records, the check of its data folder says";
    pub const GAP: &str =
        "Log files were removed by hand: the next start makes the slot read-only; promote a replica, or restore a save";
    pub const AHEAD: &str = "A power cut, or a snapshot restored by hand: the next start begins a new log at the engine's position; \
        replicas beyond it need a full sync";
    pub const STRANGERS: &str = "They were copied from different places or times: restore both from one save, \
        or take the slot from another node by a full sync";
    pub const ENGINE: &str = "The slot's data cannot be trusted: take them from another node by a full sync (slaveof HOST PORT force), \
        or restore a save";
    pub const ENCODING: &str = "Take the slot from another node by a full sync, or restore a save; if the disk is sound, \
        this is a defect worth a report";
}

/// Checks what `args` name.
pub fn run(args: &Args, terminal: &mut Terminal<'_>) -> Result<Verdict, Error> {
    let dir = &args.dir;
    if !fs::metadata(dir).map_err(Error::io(dir))?.is_dir() {
        return Err(Error::Refused(format!(
            "{}: not a folder; haypile binlog stat looks at single files",
            dir.display()
        )));
    }
    let mut report = Report::new(terminal, args.json);
    let target = target(args)?;
    // Held to the end.
    let _lock = match lock::data_folder_of(dir) {
        Some(data) if !matches!(target, Target::Save(_) | Target::Saves | Target::Snapshot) => Some(locked(&data)?),
        _ => None,
    };
    match target {
        Target::Node(config) => node::check(dir, &config, !args.no_dumps, &mut report)?,
        Target::Slot(found) => {
            report.expect(tree_size(&found.db_path.join(&found.sub)) + tree_size(&found.binlog_path.join(&found.sub)));
            node::check_slot_alone(&found, &mut report)?;
        }
        Target::Save(slots) => {
            report.expect(tree_size(dir));
            save::check_save(dir, &slots, &mut report)?;
        }
        Target::Saves => {
            report.expect(tree_size(dir));
            save::check_dumps(dir, &mut report)?;
        }
        Target::Snapshot => {
            report.expect(tree_size(dir));
            save::check_snapshot(dir, None, None, &mut report)?;
        }
        Target::Engine => {
            report.expect(tree_size(dir));
            report.totals.slots += 1;
            engine::check(dir, None, &Scope::default(), &mut report)?;
        }
        Target::Logs(logs) => {
            report.expect(tree_size(dir));
            save::check_logs(&logs, &mut report)?;
        }
    }
    let verdict = if report.damages > 0 { Verdict::Damaged } else { Verdict::Sound };
    report.finish(dir)?;
    Ok(verdict)
}

/// What a folder is.
enum Target {
    Node(Box<crate::config::Config>),
    Slot(node::SlotFolder),
    /// A BGSAVE, with its slots.
    Save(Vec<(usize, usize)>),
    /// A `dump-path` with several.
    Saves,
    /// One slot of one.
    Snapshot,
    /// A RocksDB by itself.
    Engine,
    Logs(Vec<files::Log>),
}

fn target(args: &Args) -> Result<Target, Error> {
    let dir = &args.dir;
    let has = |name: &str| dir.join(name).exists();
    if args.conf.is_some() || has("NODE") || has("db") || has("binlog") && has("LOCK") {
        return Ok(Target::Node(Box::new(node::config(dir, args.conf.as_deref())?)));
    }
    if let Some(slot) = node::SlotFolder::of(dir) {
        return Ok(Target::Slot(slot));
    }
    if has("info") {
        return Ok(Target::Snapshot);
    }
    if has("CURRENT") {
        return Ok(Target::Engine);
    }
    if let Some(slots) = save::slots_of(dir)? {
        return Ok(Target::Save(slots));
    }
    if save::holds_saves(dir)? {
        return Ok(Target::Saves);
    }
    let nothing = || {
        format!(
            "{}: neither a data folder, a save, a slot's folder nor a folder of binlogs; with db-path and the others elsewhere, \
             name the conf file: haypile check DIR --conf FILE",
            dir.display()
        )
    };
    files::find(std::slice::from_ref(dir)).map(Target::Logs).map_err(|e| match e {
        Error::Refused(_) => Error::Refused(nothing()),
        other => other,
    })
}

/// Keeps servers from starting on the data folder, or says which one runs.
fn locked(data: &Path) -> Result<Lock, Error> {
    match lock::take(data)? {
        Lock::Held { pid } => {
            let process = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            Err(Error::Refused(format!(
                "{}: a server{process} is running on this folder, its files are changing; stop it (redis-cli shutdown) and check again, \
                 or save (redis-cli bgsave) and check the save under dump/",
                data.display()
            )))
        }
        free => Ok(free),
    }
}

/// Bytes of all files in a folder; what cannot be looked at counts nothing.
fn tree_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => tree_size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
