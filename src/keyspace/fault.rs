//! Slots that must not be built upon any more, and what is still done with them.
//!
//! | what is wrong | reads | writes | until |
//! | --- | --- | --- | --- |
//! | log or engine failed at a write or sync; the log cannot be replayed | go on | refused | a restart that recovers the slot |
//! | the disk is full ([`Slot::no_space`]) | go on | tried, refused with MISCONF | there is room: it goes on by itself |
//! | a file of the engine is damaged | go on, an error where they meet the damage | refused | other data take their place |
//! | the engine cannot be opened | refused | refused | other data take their place |
//! | a file of the log is damaged, the engine is whole | go on | go on | at once: a new log begins at the log's end |
//!
//! On a replica a full sync of the slot brings other data. What is damaged never goes to another node: neither records nor snapshots.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::slot::{STOPPING, Slot, Store};
use super::store::Current;
use super::{Error, Keyspace};
use crate::binlog::{self, Writer};
use crate::engine::Engine;

/// Why a slot takes no writes.
pub(super) enum Fault {
    ReadOnly(Arc<String>),
    /// It has no open engine, and cannot be read either. `remains`: what is on disk of it.
    Lost {
        reason: Arc<String>,
        remains: Option<Current>,
    },
}

impl Fault {
    fn reason(&self) -> &Arc<String> {
        match self {
            Fault::ReadOnly(reason) | Fault::Lost { reason, .. } => reason,
        }
    }

    pub fn remains(&self) -> Option<Current> {
        match self {
            Fault::ReadOnly(_) => None,
            Fault::Lost { remains, .. } => *remains,
        }
    }
}

impl Slot {
    /// Why the slot takes no writes, if it does not.
    pub fn fault(&self) -> Option<Arc<String>> {
        match &*self.fault.load() {
            Some(fault) => Some(fault.reason().clone()),
            None => self.damage(),
        }
    }

    /// What is wrong with the engine's files, if anything was found. It goes with the engine.
    pub fn damage(&self) -> Option<Arc<String>> {
        self.store.load().as_ref().and_then(|store| store.engine.damage().cloned())
    }

    /// Makes the slot refuse writes from now on.
    pub(super) fn close_for_writes(&self, cause: impl std::fmt::Display) -> Error {
        let reason = cause.to_string();
        tracing::error!(slot = %self, "slot is read-only from now on: {reason}");
        self.fault.store(Some(Arc::new(Fault::ReadOnly(Arc::new(reason.clone())))));
        Error::ReadOnly { slot: self.to_string(), reason }
    }

    /// The engine lacks what the log has: no more writes, until [`Slot::catch_up`].
    pub(super) fn fall_behind(&self, cause: &Error) -> Error {
        let error = self
            .close_for_writes(format!("the engine lacks what was logged, until there is room on the disk: {cause}"));
        self.behind.store(self.fault.load_full());
        error
    }

    /// Lets nobody write from now on, because the server stops. What is being committed is when this returns.
    pub(super) fn refuse_writes(&self) {
        let _commit = self.commit.lock();
        let stopping = || Arc::new(Fault::ReadOnly(Arc::new(STOPPING.into())));
        self.fault.rcu(|fault| Some(fault.clone().unwrap_or_else(stopping)));
    }

    /// Why the slot can neither take writes nor flush for now, if the disk is full. It goes on by itself.
    pub fn no_space(&self) -> Option<Arc<String>> {
        self.no_space.load_full()
    }

    /// Takes note of an error that says that the disk is full, and words it so; with `done` also of a success, which shows that there
    /// is room.
    pub(super) fn room_for<T>(&self, result: Result<T, Error>, done: bool) -> Result<T, Error> {
        match result {
            Err(e) if e.is_disk_full() => {
                let cause = match e {
                    Error::DiskFull { cause, .. } => cause,
                    e => e.to_string(),
                };
                if self.no_space.swap(Some(Arc::new(cause.clone()))).is_none() {
                    tracing::error!(slot = %self, "the disk is full, writes are refused until there is room: {cause}");
                }
                Err(Error::DiskFull { slot: self.to_string(), cause })
            }
            Ok(value) => {
                if done && self.no_space.load().is_some() && self.no_space.swap(None).is_some() {
                    tracing::info!(slot = %self, "there is room on the disk again");
                }
                Ok(value)
            }
            Err(e) => Err(e),
        }
    }

    /// The slot has no engine that can be read, for good: it is not to be taken for an empty one.
    pub(super) fn lose(&self, cause: impl std::fmt::Display, remains: Option<Current>) {
        self.fault.store(Some(Arc::new(Fault::Lost { reason: Arc::new(cause.to_string()), remains })));
    }

    /// For a slot without a store: an error unless there never was one.
    pub(super) fn check_never_written(&self) -> Result<(), Error> {
        match &*self.fault.load() {
            Some(fault) if matches!(**fault, Fault::Lost { .. }) => {
                Err(Error::Unreadable { slot: self.to_string(), reason: fault.reason().to_string() })
            }
            _ => Ok(()),
        }
    }

    /// The open store; `None` for a slot that was never written.
    pub(super) fn readable(&self) -> Result<Option<Arc<Store>>, Error> {
        let store = self.store.load_full();
        if store.is_none() {
            self.check_never_written()?;
        }
        Ok(store)
    }

    /// Checks every block of a checkpoint of this slot. Where one is damaged so may be the engine, whose files it shares: then all of that is
    /// read, too, and remembers what it finds. Takes as long as reading the data; `stop` ends it early, as if all were well.
    pub fn verify_checkpoint(&self, dir: &Path, stop: &dyn Fn() -> bool) -> Result<(), Error> {
        let checked = Engine::verify_folder(dir, stop);
        if let Err(e) = &checked
            && e.is_damage()
            && let Some(store) = self.readable()?
        {
            store.engine.verify(stop)?;
        }
        Ok(checked?)
    }

    /// Where the log was damaged when it was last replaced because of that, since the start.
    pub fn log_damage(&self) -> Option<Arc<String>> {
        self.log_damage.load_full()
    }

    /// A reader of the log of `generation` has found it damaged. Everything that was in it is in the engine: that is made durable,
    /// and the log begins anew at its end, as that of a replica does after a full sync. So no recovery will need the damaged file, and who
    /// lacks records of the old log takes a full sync. The old log is moved aside, for the operator to look at.
    ///
    /// False if `found` is no damage, or the log is another one by now: then the reader had better try again.
    pub fn replace_damaged_log(&self, found: &binlog::Error, generation: u64) -> Result<bool, Error> {
        let _maintenance = self.maintenance.lock();
        let Some(store) = self.store.load_full().filter(|store| store.current.log == generation) else {
            return Ok(false);
        };
        if !is_damage(found, &store)? {
            return Ok(false);
        }
        if let Some(reason) = self.fault() {
            return Err(Error::ReadOnly { slot: self.to_string(), reason: reason.to_string() });
        }
        tracing::error!(slot = %self, "the binlog is damaged: {found}");
        // Most of the work, while commits go on.
        self.flush_in_maintenance()?;
        let mut c = self.commit.lock();
        self.env.sync_logs();
        let applied = store.engine.flush()?;
        let current = Current { log: self.layout.unused()?.log, ..store.current };
        let dir = self.layout.log_dir(current.log);
        let writer = Writer::create(&dir, applied.position, (self.env.binlog_file_size)())?;
        self.layout.set_current(current).map_err(|e| self.close_for_writes(e))?;
        let old = store.log_dir.clone();
        self.sync.store(Some(writer.sync_handle()));
        c.writer = Some(writer);
        self.replace_log(current, dir);
        self.engine_flushed_to(applied.position, self.unflushed());
        self.publish(applied.position);
        drop(c);
        let kept = match self.layout.set_aside(&old, generation) {
            Ok(aside) => format!("the old one is in {}", aside.display()),
            Err(e) => format!("the old one could not be kept: {e}"),
        };
        let report = format!("{found}; a new log begins at {}, {kept}", applied.position);
        tracing::warn!(slot = %self, "{report}");
        self.log_damage.store(Some(Arc::new(report)));
        Ok(true)
    }
}

/// Whether an error of a reader tells of a damaged log, and not of one that was purged under it or of something that passes.
fn is_damage(found: &binlog::Error, store: &Store) -> Result<bool, Error> {
    Ok(match found {
        binlog::Error::BadRecord { .. } | binlog::Error::Corrupt { .. } | binlog::Error::Format { .. } => true,
        // A file is shorter than it was when the position was found in it.
        binlog::Error::NotInLog { .. } => true,
        binlog::Error::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
            // Purging takes the oldest.
            let missing = path.file_name().and_then(|name| binlog::parse_file_name(name.to_str()?));
            let first = binlog::list_files(store.log_dir())?.into_keys().next();
            missing.is_some_and(|missing| first.is_none_or(|first| first < missing))
        }
        binlog::Error::Io { source, .. } => source.raw_os_error() == Some(nix::errno::Errno::EIO as i32),
        _ => false,
    })
}

impl Keyspace {
    /// Looks for damage that RocksDB's threads have met. To be called every second or so.
    pub(super) fn check_engines(&self) {
        for slot in self.all_slots().filter(|slot| slot.fault().is_none()) {
            let store = slot.store().clone();
            // What it finds the engine remembers.
            if let Some(Err(e)) = store.map(|store| store.engine.check_background()) {
                tracing::debug!(slot = %slot, "{e}");
            }
        }
    }
}
