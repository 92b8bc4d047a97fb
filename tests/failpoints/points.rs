//! Which faults there are, and under what work each is met.

use haypile::disk::{Point, Step};

/// What is going on when a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// A node starts on an empty folder.
    FirstStart,
    /// A database is written first.
    FirstWrite,
    /// Writes to a master: logs and memtables turn over, files are purged.
    Load,
    /// The same with `sync : always`.
    Always,
    /// FLUSHDB again and again.
    Flush,
    /// BGSAVE again and again.
    Bgsave,
    /// BGSAVE while another database is written first.
    GrowingSave,
    /// BGSAVE where there is a save from long ago.
    OldSave,
    /// CONFIG REWRITE again and again.
    Rewrite,
    /// The master's side of full syncs.
    MasterSync,
    /// Writes that a replica follows.
    ReplicaLoad,
    /// FLUSHDB that a replica follows.
    ReplicaFlush,
    /// The replica's side of full syncs.
    FullSync,
    /// A replica that was promoted and follows its master again.
    Diverged,
    /// A node starts after a crash that left something.
    Restart(Leftover),
    /// A replica goes on with a full sync after a crash, in a folder that was tampered with.
    Resume,
}

impl Scenario {
    /// Whether a replica follows the node.
    pub fn has_replica(self) -> bool {
        self.strikes_replica() || matches!(self, Scenario::Load | Scenario::Flush | Scenario::MasterSync)
    }

    /// Whether faults strike the replica.
    pub fn strikes_replica(self) -> bool {
        use Scenario::{Diverged, FullSync, ReplicaFlush, ReplicaLoad, Resume};
        matches!(self, ReplicaLoad | ReplicaFlush | FullSync | Diverged | Resume)
    }

    /// Whether the scenario's own commands meet the fault; otherwise it is met in the background, and tried again there.
    pub fn tells(self) -> bool {
        use Scenario::{Always, Bgsave, FirstWrite, Flush, OldSave, Rewrite};
        matches!(self, FirstWrite | Always | Flush | Bgsave | OldSave | Rewrite)
    }
}

/// What a crash left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// Log that is not in the engine.
    UnflushedLog,
    /// Half a group of records.
    TornTail,
    /// The next binlog file, without a record.
    EmptyFile,
    /// A write over two slots in the log of one.
    TornMulti,
    /// The same, in a binlog file of its own.
    TornMultiRolled,
    /// A log that ends before the engine.
    ShortLog,
    /// A generation of an engine that CURRENT does not name.
    Generation,
    /// A FLUSHDB that is in the log only.
    LoggedFlush,
    /// A save that was not finished.
    Save,
}

/// Where each step is met. A new point does not compile without a line here.
pub fn scenarios(point: Point) -> &'static [Scenario] {
    use Leftover::*;
    use Scenario::*;
    match point {
        Point::BinlogCreateDir | Point::BinlogSyncParent => &[FirstWrite, FullSync],
        Point::BinlogCreate
        | Point::BinlogHeader
        | Point::BinlogExtend
        | Point::BinlogSyncHeader
        | Point::BinlogSyncDir => &[Load, FirstWrite, FullSync, ReplicaLoad],
        Point::BinlogAppend => &[Load, Always, ReplicaLoad, Flush],
        Point::BinlogUndo => &[Load, ReplicaLoad],
        Point::BinlogUndoSync => &[Load, Flush],
        Point::BinlogMarkCreate => &[FirstWrite, FullSync, Restart(UnflushedLog)],
        Point::BinlogMark => &[Load, Always, FirstWrite, ReplicaLoad, Restart(UnflushedLog)],
        Point::BinlogMarkSync => &[FirstWrite, FullSync],
        Point::BinlogRollSync => &[Load, ReplicaLoad],
        Point::BinlogRollRemove => &[Load],
        Point::BinlogSync => &[Load, Always],
        Point::BinlogRecoverRemove => &[Restart(EmptyFile)],
        Point::BinlogResumeTruncate => &[Restart(TornTail), Restart(TornMulti)],
        Point::BinlogResumeSync => &[Restart(UnflushedLog)],
        Point::RecoverCutRemove | Point::RecoverCutSyncDir => &[Restart(TornMultiRolled)],
        Point::RecoverNewLogClear | Point::RecoverOldLogRemove => &[Restart(ShortLog)],
        Point::SlotCreateDir | Point::SlotSyncDir => &[FirstWrite, FullSync],
        Point::SlotRemoveLeftover => &[Restart(Generation)],
        Point::CurrentWrite | Point::CurrentSync | Point::CurrentRename | Point::CurrentSyncDir => {
            &[FirstWrite, Flush, FullSync, ReplicaFlush, Restart(LoggedFlush), Restart(ShortLog)]
        }
        Point::LayoutWrite
        | Point::LayoutSync
        | Point::LayoutRename
        | Point::LayoutSyncDir
        | Point::LayoutCreateDir => &[FirstStart],
        Point::EngineClear => &[Flush, FirstWrite, ReplicaFlush],
        Point::EngineCreate | Point::EngineFlush => &[FirstWrite, Flush, Restart(LoggedFlush)],
        Point::EngineOpen => &[FullSync, Restart(UnflushedLog)],
        Point::EngineWrite => &[Load, ReplicaLoad, Restart(UnflushedLog)],
        Point::EngineBeginFlush | Point::EngineFinishFlush => &[Load, ReplicaLoad, Bgsave],
        Point::EngineCheckpoint => &[Bgsave, MasterSync],
        Point::GenerationDiscard => &[FullSync],
        Point::GenerationRetire => &[Flush, FullSync],
        Point::InstallRename
        | Point::InstallCreateDir
        | Point::InstallCopy
        | Point::InstallSync
        | Point::InstallSyncDir
        | Point::InstallRemove => &[FullSync],
        Point::PurgeRemove => &[Load],
        Point::SnapshotCreateDir
        | Point::SnapshotInfoWrite
        | Point::SnapshotInfoSync
        | Point::SnapshotInfoRename
        | Point::SnapshotInfoSyncDir => &[Bgsave, MasterSync],
        Point::SnapshotRemove => &[MasterSync],
        Point::SnapshotRemoveOld => &[Restart(UnflushedLog)],
        Point::LogCopyCreateDir
        | Point::LogCopyCreate
        | Point::LogCopyExtend
        | Point::LogCopyWrite
        | Point::LogCopySync
        | Point::LogCopySyncDir
        | Point::ManifestWrite
        | Point::ManifestSync
        | Point::ManifestRename
        | Point::ManifestSyncDir => &[Bgsave],
        Point::BgsaveForget => &[GrowingSave],
        Point::BgsaveExpireRename | Point::BgsaveExpire => &[OldSave],
        Point::BgsaveCreateDir
        | Point::BgsaveSyncDb
        | Point::BgsaveSyncDir
        | Point::BgsaveRename
        | Point::BgsaveSyncParent
        | Point::BgsaveDiscard => &[Bgsave],
        Point::BgsaveRemoveUnfinished => &[Restart(Save)],
        Point::ReceiveCreateDir
        | Point::ReceiveListingWrite
        | Point::ReceiveListingSync
        | Point::ReceiveListingRename
        | Point::ReceiveListingSyncDir
        | Point::ReceiveOpen
        | Point::ReceiveWrite
        | Point::ReceiveSync
        | Point::ReceiveSyncDir
        | Point::ReceiveDiscard => &[FullSync],
        Point::ReceiveRemoveOther | Point::ReceiveRemoveWrong => &[Resume],
        Point::DivergedClear | Point::DivergedRename | Point::DivergedRemove | Point::DivergedSyncDir => &[Diverged],
        Point::NodeWrite | Point::NodeSync | Point::NodeRename | Point::NodeSyncDir => &[FirstStart, FullSync],
        Point::ConfWrite | Point::ConfSync | Point::ConfRename | Point::ConfSyncDir | Point::ConfPermissions => {
            &[Rewrite]
        }
    }
}

/// Faults elsewhere that are needed for a step to be taken at all.
pub fn companions(point: Point) -> &'static [(&'static str, &'static str)] {
    match point {
        Point::BinlogUndo => &[("binlog::append::before", "1*short")],
        // Some of the writes over two slots fail in the second.
        Point::BinlogUndoSync => &[("binlog::append::before", "30%eio")],
        Point::BinlogRollRemove => &[("binlog::header::before", "1*short")],
        Point::GenerationDiscard => &[("install::rename::before", "1*enospc")],
        Point::InstallCreateDir | Point::InstallCopy | Point::InstallSync | Point::InstallRemove => {
            &[("install::rename::before", "exdev")]
        }
        // Time for a write in between.
        Point::BgsaveForget => &[("snapshot::create_dir::before", "sleep(100)")],
        Point::BgsaveDiscard => &[("bgsave::rename::before", "1*eio")],
        _ => &[],
    }
}

/// A fault to be struck.
#[derive(Clone, Debug)]
pub struct Fault {
    pub point: Point,
    pub after: bool,
    /// In the syntax of `haypile::disk::failpoints`.
    pub action: &'static str,
}

impl Fault {
    /// The failpoint.
    pub fn name(&self) -> String {
        format!("{}::{}", self.point.name(), if self.after { "after" } else { "before" })
    }

    /// Whether somebody must be told. What could not be removed is tried again at the next start; a mark that was not moved on
    /// claims less.
    pub fn must_be_told(&self) -> bool {
        self.point.step() != Step::Remove && !matches!(self.point, Point::BgsaveExpireRename | Point::BinlogMark)
    }
}

/// A kill before and after every step, in each of its scenarios.
pub fn kills() -> Vec<(Scenario, Fault)> {
    all(|point, after| match (point.step(), after) {
        // With half of it on disk.
        (Step::Write, false) => &["torn"],
        _ => &["kill"],
    })
}

/// Errors at every step. A disk that is full stays so for a while.
pub fn errors() -> Vec<(Scenario, Fault)> {
    all(|point, after| match (point.step(), after) {
        (Step::Write, false) => &["1*short", "enospc"],
        (Step::Remove | Step::Sync, false) => &["1*eio"],
        (_, false) => &["enospc"],
        (_, true) => &["1*eio"],
    })
}

fn all(actions: impl Fn(Point, bool) -> &'static [&'static str]) -> Vec<(Scenario, Fault)> {
    let mut faults = Vec::new();
    for &point in Point::ALL {
        for after in [false, true] {
            for &action in actions(point, after) {
                faults.extend(scenarios(point).iter().map(|&met| (met, Fault { point, after, action })));
            }
        }
    }
    faults
}
