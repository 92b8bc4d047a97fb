//! BGSAVE: snapshots of all slots that were ever written, into a folder of their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

use super::checkpoint::{self, Origin};
use super::{Error, key_of};
use crate::fsutil::{remove_dir, sync_dir};
use crate::keyspace::Keyspace;

/// Marks a folder that is being written.
const UNFINISHED: &str = ".tmp";

/// The saves of a server: one at a time, on a thread.
pub struct Bgsave {
    dir: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    /// Told when a save ends.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    running_since: Option<Instant>,
    /// Unix time, seconds.
    last_save: u64,
    /// [`Keyspace::changes`] when the last save began that succeeded.
    saved_changes: u64,
    last: Option<Outcome>,
}

struct Outcome {
    seconds: u64,
    /// The folder, or why there is none.
    result: Result<PathBuf, Error>,
}

/// Why a save was not begun.
#[derive(Debug, thiserror::Error)]
pub enum BgsaveError {
    #[error("Background save already in progress")]
    AlreadyRunning,
    #[error("no thread to save with: {0}")]
    Thread(#[from] io::Error),
}

impl Bgsave {
    /// Saves go to folders in `dir` (`<dump-path>`). Removes what an interrupted save of an earlier process left there. Until the first
    /// save the time of the last one is now.
    pub fn new(dir: PathBuf) -> Bgsave {
        remove_unfinished(&dir);
        let shared =
            Shared { state: Mutex::new(State { last_save: unix_now(), ..State::default() }), ..Shared::default() };
        Bgsave { dir, shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// Begins a save; returns at once. How it ended is in the log and in [`Bgsave::info`].
    pub fn start(&self, keyspace: Arc<Keyspace>, origin: Origin) -> Result<(), BgsaveError> {
        let mut thread = self.thread.lock();
        {
            let mut state = self.shared.state.lock();
            if state.running_since.is_some() {
                return Err(BgsaveError::AlreadyRunning);
            }
            state.running_since = Some(Instant::now());
        }
        let (shared, dir) = (self.shared.clone(), self.dir.clone());
        let run = move || {
            let began = Instant::now();
            let changes = keyspace.changes();
            let result = save(&keyspace, &dir, &origin, &shared.stop);
            match &result {
                Ok(path) => tracing::info!(path = %path.display(), ms = began.elapsed().as_millis() as u64, "saved"),
                Err(e) => tracing::error!("BGSAVE failed: {e}"),
            }
            let mut state = shared.state.lock();
            if result.is_ok() {
                (state.last_save, state.saved_changes) = (unix_now(), changes);
            }
            state.running_since = None;
            state.last = Some(Outcome { seconds: began.elapsed().as_secs(), result });
            shared.ended.notify_all();
        };
        match std::thread::Builder::new().name("bgsave".into()).spawn(run) {
            Ok(started) => {
                *thread = Some(started);
                Ok(())
            }
            Err(e) => {
                self.shared.state.lock().running_since = None;
                Err(e.into())
            }
        }
    }

    /// Waits for the save that runs, if one does, and says why the last one failed, if it did. May take long.
    pub fn wait(&self) -> Result<(), String> {
        let mut state = self.shared.state.lock();
        self.shared.ended.wait_while(&mut state, |state| state.running_since.is_some());
        match &state.last {
            Some(Outcome { result: Err(e), .. }) => Err(e.to_string()),
            _ => Ok(()),
        }
    }

    /// Unix time, in seconds, of the last save that succeeded; before the first, of the server's start.
    pub fn last_save(&self) -> u64 {
        self.shared.state.lock().last_save
    }

    /// Whether a save is running.
    pub fn in_progress(&self) -> bool {
        self.shared.state.lock().running_since.is_some()
    }

    /// Fields of INFO persistence, under Redis's names where Redis has them. `changes` is [`Keyspace::changes`].
    pub fn info(&self, changes: u64, out: &mut String) {
        let state = self.shared.state.lock();
        let or_never = |seconds: Option<u64>| seconds.map_or("-1".to_string(), |s| s.to_string());
        let failed = matches!(&state.last, Some(Outcome { result: Err(_), .. }));
        let mut field = |name: &str, value: &str| {
            for part in [name, ":", value, "\r\n"] {
                out.push_str(part);
            }
        };
        field("loading", "0");
        field("rdb_changes_since_last_save", &changes.saturating_sub(state.saved_changes).to_string());
        field("rdb_bgsave_in_progress", if state.running_since.is_some() { "1" } else { "0" });
        field("rdb_last_save_time", &state.last_save.to_string());
        field("rdb_last_bgsave_status", if failed { "err" } else { "ok" });
        field("rdb_last_bgsave_time_sec", &or_never(state.last.as_ref().map(|last| last.seconds)));
        field("rdb_current_bgsave_time_sec", &or_never(state.running_since.map(|at| at.elapsed().as_secs())));
        match state.last.as_ref().map(|last| &last.result) {
            Some(Ok(path)) => field("bgsave_path", &path.display().to_string()),
            Some(Err(e)) => field("bgsave_error", &e.to_string().replace(['\r', '\n'], " ")),
            None => {}
        }
    }

    /// Ends a running save after the slot it is at, and waits for that.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread of BGSAVE panicked");
        }
    }
}

impl Drop for Bgsave {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Saves into a folder of its own, which gets its name when all is in it and durable.
fn save(keyspace: &Keyspace, dir: &Path, origin: &Origin, stop: &AtomicBool) -> Result<PathBuf, Error> {
    let (unfinished, done) = free_name(dir)?;
    let filled = fill(keyspace, &unfinished, origin, stop)
        .and_then(|()| fs::rename(&unfinished, &done).map_err(Error::io(&done)))
        .and_then(|()| sync_dir(dir).map_err(Error::io(dir)));
    if filled.is_err()
        && let Err(e) = remove_dir(&unfinished)
    {
        tracing::warn!("could not remove {}: {e}", unfinished.display());
    }
    filled.map(|()| done)
}

fn fill(keyspace: &Keyspace, folder: &Path, origin: &Origin, stop: &AtomicBool) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for slot in keyspace.all_slots().filter(|slot| slot.store().is_some()) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        let (db, number) = key_of(slot);
        let of_db = folder.join(format!("db{db}"));
        let of_slot = of_db.join(number.to_string());
        checkpoint::take(slot, &of_slot, origin)?;
        // A save that cannot be read is none.
        checkpoint::verify(&of_slot, &|| stop.load(Ordering::Relaxed))?;
        sync_dir(&of_db).map_err(Error::io(&of_db))?;
    }
    sync_dir(folder).map_err(Error::io(folder))
}

/// A folder for now (UTC), `20260131-235959`, or with `-2`… when that exists: its name while unfinished, and after.
fn free_name(dir: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let now = utc_now();
    let mut name = now.clone();
    for nth in 2.. {
        let done = dir.join(&name);
        if !done.try_exists().map_err(Error::io(&done))? {
            return Ok((dir.join(format!("{name}{UNFINISHED}")), done));
        }
        name = format!("{now}-{nth}");
    }
    Err(Error::Stopping)
}

/// `20260131-235959`.
fn utc_now() -> String {
    let mut text = String::with_capacity(32);
    // Writing to a string does not fail.
    let _ = time::SystemTime.format_time(&mut Writer::new(&mut text));
    // From `2026-01-31T23:59:59.123456Z`.
    let seconds = text.split('.').next().unwrap_or_default();
    seconds.replace('T', "_").replace(['-', ':'], "").replace('_', "-")
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn remove_unfinished(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(UNFINISHED));
        let is_ours = name.is_some_and(|n| n.len() >= 15 && n.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        if is_ours && let Err(e) = remove_dir(&path) {
            tracing::warn!("could not remove the unfinished save {}: {e}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_utc_seconds() {
        let name = utc_now();
        assert!(name.len() == 15 && name.as_bytes()[8] == b'-' && name.starts_with("20"), "{name}");
        let dir = tempfile::tempdir().unwrap();
        let (_, first) = free_name(dir.path()).unwrap();
        fs::create_dir(&first).unwrap();
        assert_ne!(free_name(dir.path()).unwrap().1, first);
    }

    #[test]
    fn unfinished_saves_go_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["20260131-235959.tmp", "20260131-235959", "mine.tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let bgsave = Bgsave::new(dir.path().to_path_buf());
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["20260131-235959", "mine.tmp"]);
        let mut info = String::new();
        bgsave.info(0, &mut info);
        assert!(info.contains("rdb_last_bgsave_status:ok\r\nrdb_last_bgsave_time_sec:-1\r\n"), "{info}");
        assert!(bgsave.last_save() > 1_700_000_000 && !bgsave.in_progress());
    }
}
