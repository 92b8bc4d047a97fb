//! Replacing a slot's data as a whole: its first store, FLUSHDB, a full sync, and the end. Each builds a new generation beside the old
//! one ([`super::store`]) and swaps when nothing can fail any more but the swap itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Error;
use super::commit::{SlotWrite, append_multi, lock_commits};
use super::effect::Effect;
use super::slot::{Committer, Maintenance, STOPPING, Slot, SlotEnv, Store};
use super::store::{Current, move_dir};
use crate::binlog::{Draft, Position, Writer};
use crate::disk::{self, Point};
use crate::engine::{Applied, Batch, Engine, Kept};

impl Slot {
    /// FLUSHDB of these slots (in order), all or none across a crash: one record each, which name each other. Readers of the old engines finish
    /// on them. The caller holds the maintenance locks of (at least) these slots, and after them all key locks. Slots that were never written are left alone.
    pub(super) fn flush_data(slots: &[&Slot], _maintenance: &Maintenance<'_>, time: u64) -> Result<(), Error> {
        let slots: Vec<&Slot> = slots.iter().copied().filter(|slot| slot.store.load().is_some()).collect();
        let mut held = lock_commits(slots.iter().map(|slot| {
            let mut draft = Draft::new(time);
            Effect::Flush.encode(draft.effects());
            (*slot, SlotWrite { drafts: vec![draft], batch: Batch::default() })
        }));
        let ends = append_multi(&mut held)?;
        // Each slot waits for the disk a few times: let them wait together.
        std::thread::scope(|scope| {
            let mut threads = Vec::with_capacity(held.len());
            for ((slot, c, _), end) in held.iter_mut().zip(ends) {
                let (slot, c) = (*slot, &mut **c);
                threads.push(scope.spawn(move || slot.swap_for_empty(c, end, time)));
            }
            let join = |t: std::thread::ScopedJoinHandle<'_, Result<(), Error>>| match t.join() {
                Ok(result) => result,
                Err(_) => Err(Error::BadEffect("a flushing thread panicked".into())),
            };
            // All of them are waited for, and the first error told.
            threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
        })
    }

    /// FLUSHDB received from a master as the record `run` that ends at `end`. `lock_all` takes the key locks.
    pub(super) fn flush_data_run<G>(
        &self,
        run: &[u8],
        end: Position,
        time: u64,
        lock_all: impl FnOnce() -> G,
    ) -> Result<(), Error> {
        let _maintenance = self.maintenance.lock();
        let _all = lock_all();
        let mut c = self.commit.lock();
        let (_, writer) = self.writable(&mut c)?;
        writer.append_run(run, end).map_err(|e| self.not_appended(&c, e))?;
        self.swap_for_empty(&mut c, end, time)
    }

    /// The second half of a FLUSHDB whose record ends at `end`: an empty engine in the place of the present one.
    fn swap_for_empty(&self, c: &mut Committer, end: Position, time: u64) -> Result<(), Error> {
        c.time = c.time.max(time);
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        let Some(store) = self.store.load_full() else { return Err(self.close_for_writes("no store")) };
        let replaced = || {
            let current = Current { engine: self.layout.unused()?.engine, ..store.current };
            // No part of the database.
            let kept = store.engine.kept()?;
            let engine = self.create_engine(current, Applied { position: end, time: c.time }, &kept)?;
            self.layout.set_current(current)?;
            Ok((engine, current))
        };
        let (engine, current) = replaced().map_err(|e: Error| {
            self.close_for_writes(format!("logged FLUSHDB, but the engine was not replaced: {e}"))
        })?;
        self.store.store(Some(Arc::new(Store { engine: Arc::new(engine), current, log_dir: store.log_dir.clone() })));
        self.env.cache.renew(&self.cache_id);
        self.replaced();
        self.engine_flushed_to(end, self.unflushed());
        self.publish(end);
        retire(&self.env, store, false);
        Ok(())
    }

    /// FLUSHDB found in the log at recovery, where the engine has no readers yet. `libraries`: those that it is to hold, if they are not the
    /// engine's.
    pub(super) fn recover_flush(&self, applied: Applied, libraries: Option<Bytes>) -> Result<Arc<Store>, Error> {
        let Some(store) = self.store.load_full() else {
            return Err(Error::BadEffect("flush of a slot without a store".into()));
        };
        let current = Current { engine: self.layout.unused()?.engine, ..store.current };
        let mut kept = store.engine.kept()?;
        kept.libraries = libraries.unwrap_or(kept.libraries);
        let engine = self.create_engine(current, applied, &kept)?;
        self.layout.set_current(current)?;
        let new = Arc::new(Store { engine: Arc::new(engine), current, log_dir: store.log_dir.clone() });
        self.store.store(Some(new.clone()));
        retire(&self.env, store, false);
        Ok(new)
    }

    fn replaced(&self) {
        self.unqueued.forget();
        if let Some(observer) = self.env.observer.get() {
            observer.replaced(self.shown_db());
        }
    }

    /// `kept`: what the engine before it held and no flush takes.
    fn create_engine(&self, current: Current, applied: Applied, kept: &Kept) -> Result<Engine, Error> {
        let dir = self.layout.engine_dir(current.engine);
        disk::remove_dir(Point::EngineClear, &dir).map_err(Error::io(&dir))?;
        Ok(Engine::create(&dir, &self.env.engine, applied, kept)?)
    }

    /// Replaces data and log by a received checkpoint (`Some(folder)`), which must contain exactly `applied`, or by nothing
    /// (`None`, for a slot its master never wrote). `all_locked` takes the key locks once everything that can
    /// fail or take long is done. The old data are served until then; on an error they stay.
    pub(super) fn install<G>(
        &self,
        received: Option<&Path>,
        applied: Applied,
        all_locked: impl FnOnce() -> G,
    ) -> Result<(), Error> {
        let _maintenance = self.maintenance.lock();
        self.layout.create_dirs()?;
        let old = self.store.load_full();
        let current = self.layout.unused()?;
        let built = self.build(current, received, applied).and_then(|(engine, log_dir, writer)| {
            let libraries = engine.libraries()?;
            if self.is_first() {
                // Refused now rather than when it is in place.
                self.env.databases.read(&engine)?;
            }
            Ok((engine, log_dir, writer, libraries))
        });
        let (engine, log_dir, writer, libraries) = built.inspect_err(|_| self.discard(current))?;
        let store = Arc::new(Store { engine: Arc::new(engine), current, log_dir });

        let all = all_locked();
        let mut c = self.commit.lock();
        self.layout.set_current(current).map_err(|e| self.close_for_writes(e))?;
        self.store.store(Some(store));
        self.env.cache.renew(&self.cache_id);
        self.replaced();
        if self.is_first() {
            self.load_databases().map_err(|e| self.close_for_writes(e))?;
            self.libraries_changed(&libraries);
        }
        self.env.newest_record.fetch_max(applied.time, Ordering::Relaxed);
        self.env.versions_up_to(applied.time);
        self.sync.store(Some(writer.sync_handle()));
        *c = Committer { writer: Some(writer), time: applied.time };
        self.engine_flushed_to(applied.position, self.unflushed());
        self.fault.store(None);
        self.publish(applied.position);
        drop((c, all));
        if let Some(old) = old {
            retire(&self.env, old, true);
        }
        Ok(())
    }

    /// A new generation beside the present one: the received engine, or an empty one, and a log that begins after `applied`.
    fn build(
        &self,
        current: Current,
        received: Option<&Path>,
        applied: Applied,
    ) -> Result<(Engine, PathBuf, Writer), Error> {
        let engine = match received {
            Some(folder) => {
                let dir = self.layout.engine_dir(current.engine);
                move_dir(folder, &dir)?;
                // The folder and its name are durable before CURRENT can say so.
                for moved in [Some(&*dir), dir.parent()].into_iter().flatten() {
                    disk::sync_dir(Point::InstallSyncDir, moved).map_err(Error::io(moved))?;
                }
                let (engine, inside) = Engine::open(&dir, &self.env.engine)?;
                if inside != applied {
                    let why = format!("contains {}, its info says {}", inside.position, applied.position);
                    return Err(Error::damaged(&dir, why));
                }
                engine
            }
            None => self.create_engine(current, applied, &Kept::default())?,
        };
        let log_dir = self.layout.log_dir(current.log);
        let writer = Writer::create(&log_dir, applied.position, (self.env.binlog_file_size)())?;
        Ok((engine, log_dir, writer))
    }

    /// Removes what a generation that failed to be built has left, so that tries do not add up. CURRENT must not name it.
    fn discard(&self, current: Current) {
        for dir in [self.layout.engine_dir(current.engine), self.layout.log_dir(current.log)] {
            if let Err(e) = disk::remove_dir(Point::GenerationDiscard, &dir) {
                tracing::warn!("could not remove {}: {e}; it goes at the next start", dir.display());
            }
        }
    }

    pub(super) fn set_store(&self, engine: Engine, current: Current) -> Arc<Store> {
        let store = Arc::new(Store { engine: Arc::new(engine), current, log_dir: self.layout.log_dir(current.log) });
        self.store.store(Some(store.clone()));
        store
    }

    /// Closes log and engine, for good: the slot reads as empty and takes no writes. Waits for readers of the engine, up to `patience`;
    /// false if some are left, and the engine is closed when they are done.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let _maintenance = self.maintenance.lock();
        let mut c = self.commit.lock();
        self.fault.store(Some(Arc::new(STOPPING.into())));
        c.writer = None;
        let Some(store) = self.store.swap(None) else { return true };
        store.engine.stop_background_work();
        let until = Instant::now() + patience;
        while store.has_readers() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(RETIRE_POLL);
        }
        true
    }

    /// Points the store at another log folder, at recovery.
    pub(super) fn replace_log(&self, current: Current, log_dir: PathBuf) {
        self.store.rcu(|old| {
            old.as_ref().map(|old| Arc::new(Store { engine: old.engine.clone(), current, log_dir: log_dir.clone() }))
        });
    }

    /// The first write: folders, engine, log, and last the file that makes them valid.
    pub(super) fn create_store(&self) -> Result<Writer, Error> {
        self.layout.create_dirs()?;
        let current = self.layout.unused()?;
        let applied = Applied { position: Position::START, time: 0 };
        let (engine, _, writer) = self.build(current, None, applied).inspect_err(|_| self.discard(current))?;
        self.layout.set_current(current)?;
        self.sync.store(Some(writer.sync_handle()));
        self.set_store(engine, current);
        Ok(writer)
    }
}

/// How often an engine that is to be closed is looked at for readers.
pub(super) const RETIRE_POLL: Duration = Duration::from_millis(10);

/// Lets go of a replaced generation: its folders go when its last reader is done.
fn retire(env: &Arc<SlotEnv>, store: Arc<Store>, with_log: bool) {
    let own_env = env.clone();
    let wait = move || {
        store.engine.stop_background_work();
        while store.has_readers() {
            std::thread::sleep(RETIRE_POLL);
        }
        let mut dirs = vec![store.engine.path().to_path_buf()];
        dirs.extend(with_log.then(|| store.log_dir.clone()));
        drop(store);
        for dir in dirs {
            if let Err(e) = disk::remove_dir(Point::GenerationRetire, &dir) {
                tracing::warn!("could not remove {}: {e}; it goes at the next start", dir.display());
            }
        }
        own_env.retiring.fetch_sub(1, Ordering::AcqRel);
    };
    env.retiring.fetch_add(1, Ordering::AcqRel);
    if let Err(e) = std::thread::Builder::new().name("retire".into()).spawn(wait) {
        env.retiring.fetch_sub(1, Ordering::AcqRel);
        tracing::warn!("no thread to remove a replaced engine: {e}; it goes at the next start");
    }
}
