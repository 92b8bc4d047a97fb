//! Replacing a slot's data as a whole: its first store, FLUSHDB, a full sync, and the end. Each builds a new generation beside the old
//! one ([`super::store`]) and swaps when nothing can fail any more but the swap itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Error;
use super::commit::{Appended, HeldCommit, NotApplied, SlotWrite, append_multi, lock_commits, take_back};
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
        let written = |slot: &&Slot| slot.store.load().is_some() || slot.fault().is_some();
        let slots: Vec<&Slot> = slots.iter().copied().filter(written).collect();
        let mut held = lock_commits(slots.iter().map(|slot| {
            let mut draft = Draft::new(time);
            Effect::Flush.encode(draft.effects());
            (*slot, SlotWrite { drafts: vec![draft], batch: Batch::default() })
        }));
        let all = (0..held.len()).map(|part| (part, 0)).collect();
        let appended = append_multi(&mut held, &[all])?;
        // The new engines are durable at once, and stand for all that was written before: no part of that may still be lost elsewhere.
        if let Some((first, ..)) = held.first() {
            first.env.sync_logs();
        }
        // Whose log could not be synced is closed. Then the flush is left to recovery, which looks at all logs.
        if let Some(failed) = held.iter().find_map(|(slot, ..)| slot.fault()) {
            let why = format!("logged FLUSHDB, but another slot: {failed}");
            let close = |(slot, ..): &HeldCommit<'_>| slot.close_for_writes(&why);
            return held.iter().map(close).next_back().map_or(Ok(()), Err);
        }
        // Each slot waits for the disk a few times: let them wait together.
        let swapped: Vec<Result<(), NotApplied>> = std::thread::scope(|scope| {
            let mut threads = Vec::with_capacity(held.len());
            for ((slot, c, _), Appended { end, .. }) in held.iter_mut().zip(&appended) {
                let (slot, c, end) = (*slot, &mut **c, *end);
                threads.push(scope.spawn(move || slot.swap_for_empty(c, end, time)));
            }
            let panicked = |_| Err(NotApplied::Closed(Error::BadEffect("a flushing thread panicked".into())));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        let no_room = |result: &Result<(), NotApplied>| matches!(result, Err(NotApplied::NoSpace(_)));
        if swapped.iter().all(no_room) {
            // It has happened nowhere.
            let Some(Err(NotApplied::NoSpace(e))) = swapped.into_iter().next() else { return Ok(()) };
            take_back(&mut held, &appended, &e);
            return held.first().map_or(Ok(()), |(slot, ..)| slot.room_for(Err(e), false));
        }
        let mut result = Ok(());
        for ((slot, ..), swapped) in held.iter().zip(swapped) {
            match swapped {
                Ok(()) => {}
                Err(NotApplied::NoSpace(e)) => result = Err(slot.fall_behind(&e)),
                Err(NotApplied::Closed(e)) => result = Err(e),
            }
        }
        result
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
        let before = self.writable(&mut c).map(|(_, writer)| writer.tail());
        let appended = before.and_then(|before| self.append_run(&mut c, run, end).map(|()| before));
        let before = self.room_for(appended, false)?;
        self.sync_to(end.index)?;
        let swapped = self.swap_for_empty(&mut c, end, time).map_err(|e| match e {
            NotApplied::NoSpace(e) => {
                self.take_back(&mut c, before, &e);
                e
            }
            NotApplied::Closed(e) => e,
        });
        self.room_for(swapped, true)
    }

    /// The second half of a FLUSHDB whose record ends at `end`: an empty engine in the place of the present one.
    fn swap_for_empty(&self, c: &mut Committer, end: Position, time: u64) -> Result<(), NotApplied> {
        c.time = c.time.max(time);
        self.env.newest_record.fetch_max(time, Ordering::Relaxed);
        let Some(store) = self.store.load_full() else {
            return Err(NotApplied::Closed(self.close_for_writes("no store")));
        };
        let replaced = || {
            let current = Current { engine: self.layout.unused()?.engine, ..store.current };
            // No part of the database.
            let kept = store.engine.kept()?;
            let made = self.create_engine(current, Applied { position: end, time: c.time }, &kept);
            let engine = made.inspect_err(|_| self.discard_engine(current))?;
            self.switch(store.current, current).inspect_err(|_| self.discard_engine(current))?;
            Ok((engine, current))
        };
        let (engine, current) = replaced().map_err(|e: Error| match e.is_disk_full() {
            true => NotApplied::NoSpace(e),
            false => {
                let why = format!("logged FLUSHDB, but the engine was not replaced: {e}");
                NotApplied::Closed(self.close_for_writes(why))
            }
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

    /// Makes `to` the valid generations in the place of `from`. [`Error::DiskFull`] when it is certain that `from` are valid as before.
    fn switch(&self, from: Current, to: Current) -> Result<(), Error> {
        self.layout.set_current(to).map_err(|e| match self.layout.is_current(from) {
            true => e,
            false => Error::BadEffect(format!("{e}, and nobody knows which data are valid")),
        })
    }

    pub(super) fn replaced(&self) {
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
    /// fail or take long is done. The old data are served until then; on an error they stay. With `keep_log` the old log is set aside, and
    /// where is returned.
    pub(super) fn install<G>(
        &self,
        received: Option<&Path>,
        applied: Applied,
        keep_log: bool,
        all_locked: impl FnOnce() -> G,
    ) -> Result<Option<PathBuf>, Error> {
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
        if let Err(e) = self.layout.set_current(current) {
            if !old.as_ref().is_some_and(|old| self.layout.is_current(old.current)) {
                return Err(self.close_for_writes(e));
            }
            drop((store, writer));
            self.discard(current);
            return self.room_for(Err(e), false);
        }
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
        let fault = self.fault.swap(None);
        self.log_damage.store(None);
        self.publish(applied.position);
        drop((c, all));
        let remains = fault.and_then(|fault| fault.remains());
        let replaced = old.as_ref().map(|old| old.current).or(remains).filter(|_| keep_log);
        let kept = replaced.map(|replaced| self.layout.set_aside(&self.layout.log_dir(replaced.log), replaced.log));
        let kept = kept.transpose().unwrap_or_else(|e| {
            tracing::error!(slot = %self, "the log that is replaced could not be kept: {e}");
            None
        });
        if let Some(old) = old {
            retire(&self.env, old, kept.is_none());
        } else if let Some(remains) = remains
            && let Err(e) = self.layout.remove(remains)
        {
            tracing::warn!(slot = %self, "{e}; it goes at the next start");
        }
        Ok(kept)
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
        self.discard_dirs(&[self.layout.engine_dir(current.engine), self.layout.log_dir(current.log)]);
    }

    /// [`Slot::discard`] of an engine that would have gone on with the present log.
    fn discard_engine(&self, current: Current) {
        if !self.layout.is_current(current) {
            self.discard_dirs(&[self.layout.engine_dir(current.engine)]);
        }
    }

    fn discard_dirs(&self, dirs: &[PathBuf]) {
        for dir in dirs {
            if let Err(e) = disk::remove_dir(Point::GenerationDiscard, dir) {
                tracing::warn!("could not remove {}: {e}; it goes at the next start", dir.display());
            }
        }
    }

    pub(super) fn set_store(&self, engine: Engine, current: Current) -> Arc<Store> {
        let store = Arc::new(Store { engine: Arc::new(engine), current, log_dir: self.layout.log_dir(current.log) });
        self.store.store(Some(store.clone()));
        store
    }

    /// Closes log and engine, for good: the slot can neither be read nor written. Waits for readers of the engine, up to `patience`;
    /// false if some are left, and the engine is closed when they are done.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let _maintenance = self.maintenance.lock();
        let mut c = self.commit.lock();
        self.lose(STOPPING, None);
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
