//! Every step by which data get to the disk or leave it, by name. The one table of them.

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a file or folder, or opens a file for writing.
    Create,
    /// Adds bytes to a file: may end after some of them.
    Write,
    /// Changes a file's length or permissions.
    Change,
    /// Makes a file or the entries of a folder durable.
    Sync,
    /// Gives a file or folder another name.
    Rename,
    /// Removes a file or a folder with what is in it.
    Remove,
    /// Makes RocksDB write: a batch, a flush, a checkpoint.
    Engine,
}

macro_rules! points {
    ($($(#[doc = $about:literal])+ $point:ident: $step:ident = $name:literal;)+) => {
        /// A step against the disk.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[doc = $about])+ $point,)+
        }

        impl Point {
            /// What the step does.
            pub const fn step(self) -> Step {
                match self {
                    $(Point::$point => Step::$step,)+
                }
            }
        }

        #[cfg(feature = "failpoints")]
        impl Point {
            /// All of them, in the order of the table.
            pub const ALL: &[Point] = &[$(Point::$point,)+];

            /// Where in the code it is, `binlog::append`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)+
                }
            }

            /// The name of the failpoint that is passed before the step.
            pub(super) const fn before(self) -> &'static str {
                match self {
                    $(Point::$point => concat!($name, "::before"),)+
                }
            }

            /// The name of the failpoint that is passed after it.
            pub(super) const fn after(self) -> &'static str {
                match self {
                    $(Point::$point => concat!($name, "::after"),)+
                }
            }
        }
    };
}

points! {
    /// The folder of a log that begins.
    BinlogCreateDir: Create = "binlog::create_dir";
    /// The entry of that folder in its parent.
    BinlogSyncParent: Sync = "binlog::sync_parent";
    /// The next file of a log.
    BinlogCreate: Create = "binlog::create";
    /// Its header.
    BinlogHeader: Write = "binlog::header";
    /// The hole between the header and the first record of a log that begins in the middle of a file.
    BinlogExtend: Change = "binlog::extend";
    /// The new file with its header.
    BinlogSyncHeader: Sync = "binlog::sync_header";
    /// The new file's name.
    BinlogSyncDir: Sync = "binlog::sync_dir";
    /// Records of one group.
    BinlogAppend: Write = "binlog::append";
    /// What a failed append, or a write that failed in another slot's log, has left behind the end.
    BinlogUndo: Change = "binlog::undo";
    /// That a write was taken back, so that it does not come again in some slots' logs.
    BinlogUndoSync: Sync = "binlog::undo::sync";
    /// A file that is finished, before the next one is begun.
    BinlogRollSync: Sync = "binlog::roll::sync";
    /// A next file that could not be made whole.
    BinlogRollRemove: Remove = "binlog::roll::remove";
    /// The log, for those who wait for their records to be durable.
    BinlogSync: Sync = "binlog::sync";
    /// The file that says up to where a log is durable.
    BinlogMarkCreate: Create = "binlog::mark::create";
    /// What it says.
    BinlogMark: Write = "binlog::mark::write";
    /// That, where it says less than before.
    BinlogMarkSync: Sync = "binlog::mark::sync";
    /// At a start: a last file that holds no record.
    BinlogRecoverRemove: Remove = "binlog::recover::remove";
    /// At a start: what is behind the last whole record.
    BinlogResumeTruncate: Change = "binlog::resume::truncate";
    /// At a start: what a killed process may have left in the page cache.
    BinlogResumeSync: Sync = "binlog::resume::sync";

    /// At a start: files behind a write over several slots that is taken back.
    RecoverCutRemove: Remove = "recover::cut::remove";
    /// The names of those that are left.
    RecoverCutSyncDir: Sync = "recover::cut::sync_dir";
    /// At a start: room for a log that begins at the engine's position.
    RecoverNewLogClear: Remove = "recover::new_log::clear";
    /// The log that ended before it.
    RecoverOldLogRemove: Remove = "recover::old_log::remove";

    /// The folders of a slot that is written first.
    SlotCreateDir: Create = "slot::create_dir";
    /// Their names.
    SlotSyncDir: Sync = "slot::sync_dir";
    /// At a start: generations that CURRENT does not name.
    SlotRemoveLeftover: Remove = "slot::remove_leftover";
    /// Which generations of a slot are valid, beside the old CURRENT.
    CurrentWrite: Write = "current::write";
    /// The same, durable.
    CurrentSync: Sync = "current::sync";
    /// The new CURRENT in the place of the old one: here the slot's data are replaced.
    CurrentRename: Rename = "current::rename";
    /// The same, durable.
    CurrentSyncDir: Sync = "current::sync_dir";
    /// How many slots the data are spread over, beside the old LAYOUT.
    LayoutWrite: Write = "layout::write";
    /// The same, durable.
    LayoutSync: Sync = "layout::sync";
    /// The new LAYOUT in the place of the old one.
    LayoutRename: Rename = "layout::rename";
    /// The same, durable.
    LayoutSyncDir: Sync = "layout::sync_dir";
    /// The folder of all data.
    LayoutCreateDir: Create = "layout::create_dir";

    /// Room for a new generation of a slot's engine.
    EngineClear: Remove = "engine::clear";
    /// A new engine.
    EngineCreate: Engine = "engine::create";
    /// An engine that exists.
    EngineOpen: Engine = "engine::open";
    /// A batch to an engine's write buffer.
    EngineWrite: Engine = "engine::write";
    /// A write buffer to files: the beginning.
    EngineBeginFlush: Engine = "engine::begin_flush";
    /// The end.
    EngineFinishFlush: Engine = "engine::finish_flush";
    /// The write buffer of a new engine to files.
    EngineFlush: Engine = "engine::flush";
    /// Hard links to the engine's files in a new folder.
    EngineCheckpoint: Engine = "engine::checkpoint";
    /// A generation that could not be made whole.
    GenerationDiscard: Remove = "generation::discard";
    /// A generation that was replaced and has no more readers.
    GenerationRetire: Remove = "generation::retire";

    /// A received engine to the place where it is used.
    InstallRename: Rename = "install::rename";
    /// The same over two file systems: the new folder.
    InstallCreateDir: Create = "install::create_dir";
    /// Each of its files.
    InstallCopy: Write = "install::copy";
    /// The same, durable.
    InstallSync: Sync = "install::sync";
    /// The names of the files in the place where they are used, and its own.
    InstallSyncDir: Sync = "install::sync_dir";
    /// The folder that was copied.
    InstallRemove: Remove = "install::remove";

    /// Files of a log that nobody needs.
    PurgeRemove: Remove = "purge::remove";

    /// The folder of a slot's snapshot.
    SnapshotCreateDir: Create = "snapshot::create_dir";
    /// What the snapshot contains, its `info` file.
    SnapshotInfoWrite: Write = "snapshot::info::write";
    /// The same, durable.
    SnapshotInfoSync: Sync = "snapshot::info::sync";
    /// Under its name.
    SnapshotInfoRename: Rename = "snapshot::info::rename";
    /// The same, durable.
    SnapshotInfoSyncDir: Sync = "snapshot::info::sync_dir";
    /// A snapshot that is no longer needed.
    SnapshotRemove: Remove = "snapshot::remove";
    /// At a start: snapshots of an earlier process.
    SnapshotRemoveOld: Remove = "snapshot::remove_old";

    /// The folder of a part of a log that is copied.
    LogCopyCreateDir: Create = "log_copy::create_dir";
    /// A file of it.
    LogCopyCreate: Create = "log_copy::create";
    /// The place before its first record.
    LogCopyExtend: Change = "log_copy::extend";
    /// Its header and its records.
    LogCopyWrite: Write = "log_copy::write";
    /// The same, durable.
    LogCopySync: Sync = "log_copy::sync";
    /// The names of the files.
    LogCopySyncDir: Sync = "log_copy::sync_dir";

    /// The folder of a save.
    BgsaveCreateDir: Create = "bgsave::create_dir";
    /// The slots in a database's folder.
    BgsaveSyncDb: Sync = "bgsave::sync_db";
    /// The databases in the save's folder.
    BgsaveSyncDir: Sync = "bgsave::sync_dir";
    /// Room for a slot in a save: a checkpoint of it whose log was replaced meanwhile.
    BgsaveForget: Remove = "bgsave::forget";
    /// What the save contains, its MANIFEST.
    ManifestWrite: Write = "manifest::write";
    /// The same, durable.
    ManifestSync: Sync = "manifest::sync";
    /// Under its name.
    ManifestRename: Rename = "manifest::rename";
    /// The same, durable.
    ManifestSyncDir: Sync = "manifest::sync_dir";
    /// The finished save to its name.
    BgsaveRename: Rename = "bgsave::rename";
    /// The same, durable.
    BgsaveSyncParent: Sync = "bgsave::sync_parent";
    /// A save that is older than `dump-expire`, to the name of an unfinished one.
    BgsaveExpireRename: Rename = "bgsave::expire_rename";
    /// The same, with what is in it.
    BgsaveExpire: Remove = "bgsave::expire";
    /// A save that failed.
    BgsaveDiscard: Remove = "bgsave::discard";
    /// At a start: a save that an earlier process did not finish.
    BgsaveRemoveUnfinished: Remove = "bgsave::remove_unfinished";

    /// The receive folder of a slot.
    ReceiveCreateDir: Create = "receive::create_dir";
    /// What is in it of another snapshot.
    ReceiveRemoveOther: Remove = "receive::remove_other";
    /// The listing of what is to come, beside the old one.
    ReceiveListingWrite: Write = "receive::listing::write";
    /// The same, durable.
    ReceiveListingSync: Sync = "receive::listing::sync";
    /// In the place of the old one.
    ReceiveListingRename: Rename = "receive::listing::rename";
    /// The same, durable.
    ReceiveListingSyncDir: Sync = "receive::listing::sync_dir";
    /// A file, new or to go on with.
    ReceiveOpen: Create = "receive::open";
    /// A part of a file.
    ReceiveWrite: Write = "receive::write";
    /// A file that is whole and right.
    ReceiveSync: Sync = "receive::sync";
    /// A file that is whole and wrong.
    ReceiveRemoveWrong: Remove = "receive::remove_wrong";
    /// The names of all files.
    ReceiveSyncDir: Sync = "receive::sync_dir";
    /// The folder, after its data were taken.
    ReceiveDiscard: Remove = "receive::discard";

    /// Room for records that only this node has.
    DivergedClear: Remove = "diverged::clear";
    /// The file with them, or a log that is kept because it is damaged, to its name.
    DivergedRename: Rename = "diverged::rename";
    /// The folder that it was made in.
    DivergedRemove: Remove = "diverged::remove";
    /// The name, durable.
    DivergedSyncDir: Sync = "diverged::sync_dir";

    /// Term, master and what is to be synced, beside the old state.
    NodeWrite: Write = "node::write";
    /// The same, durable.
    NodeSync: Sync = "node::sync";
    /// In the place of the old state.
    NodeRename: Rename = "node::rename";
    /// The same, durable.
    NodeSyncDir: Sync = "node::sync_dir";

    /// The conf file as CONFIG REWRITE makes it, beside the old one.
    ConfWrite: Write = "conf::write";
    /// The same, durable.
    ConfSync: Sync = "conf::sync";
    /// In the place of the old one.
    ConfRename: Rename = "conf::rename";
    /// The same, durable.
    ConfSyncDir: Sync = "conf::sync_dir";
    /// The permissions of the old one.
    ConfPermissions: Change = "conf::permissions";
}

/// The steps of [`super::replace_file`].
#[derive(Clone, Copy, Debug)]
pub struct Replace {
    pub write: Point,
    pub sync: Point,
    pub rename: Point,
    pub sync_dir: Point,
}

macro_rules! replacements {
    ($($name:ident: $write:ident, $sync:ident, $rename:ident, $sync_dir:ident;)+) => {
        impl Replace {
            $(pub const $name: Replace = Replace {
                write: Point::$write,
                sync: Point::$sync,
                rename: Point::$rename,
                sync_dir: Point::$sync_dir,
            };)+
        }
    };
}

replacements! {
    CURRENT: CurrentWrite, CurrentSync, CurrentRename, CurrentSyncDir;
    LAYOUT: LayoutWrite, LayoutSync, LayoutRename, LayoutSyncDir;
    SNAPSHOT_INFO: SnapshotInfoWrite, SnapshotInfoSync, SnapshotInfoRename, SnapshotInfoSyncDir;
    MANIFEST: ManifestWrite, ManifestSync, ManifestRename, ManifestSyncDir;
    LISTING: ReceiveListingWrite, ReceiveListingSync, ReceiveListingRename, ReceiveListingSyncDir;
    NODE: NodeWrite, NodeSync, NodeRename, NodeSyncDir;
    CONF: ConfWrite, ConfSync, ConfRename, ConfSyncDir;
}
