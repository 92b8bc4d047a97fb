//! BGSAVE: saves of all slots that were ever written, each in a folder of its own, made in the background and removed when they are old.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

use super::save::fill;
use super::{Error, MANIFEST, Manifest, Origin};
use crate::disk::{self, Point};
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

    /// Begins a save; returns at once. How it ended is in the log and in [`Bgsave::info`]. When it succeeds, saves that are older than
    /// `expire` (zero = never) go.
    pub fn start(&self, keyspace: Arc<Keyspace>, origin: Origin, expire: Duration) -> Result<(), BgsaveError> {
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
            let save = AssertUnwindSafe(|| save(&keyspace, &dir, &origin, &shared.stop));
            // It must end for those who look, or no other could be begun.
            let result = catch_unwind(save).unwrap_or(Err(Error::Panicked));
            match &result {
                Ok(path) => {
                    tracing::info!(path = %path.display(), ms = began.elapsed().as_millis() as u64, "saved");
                    remove_expired(&dir, path, expire);
                }
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
        .and_then(|()| disk::rename(Point::BgsaveRename, &unfinished, &done).map_err(Error::io(&done)))
        .and_then(|()| disk::sync_dir(Point::BgsaveSyncParent, dir).map_err(Error::io(dir)));
    if filled.is_err()
        && let Err(e) = disk::remove_dir(Point::BgsaveDiscard, &unfinished)
    {
        tracing::warn!("could not remove {}: {e}", unfinished.display());
    }
    filled.map(|()| done)
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

/// The folders in `dir` with the name of a save and this behind it.
fn saves(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(suffix));
        name.is_some_and(|n| n.len() >= 15 && n.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect()
}

/// Removes saves that are older than `expire`, but never `newest`, and nothing that does not say when it was made.
fn remove_expired(dir: &Path, newest: &Path, expire: Duration) {
    if expire.is_zero() {
        return;
    }
    for path in saves(dir, "").into_iter().filter(|path| path != newest) {
        let text = fs::read_to_string(path.join(MANIFEST)).unwrap_or_default();
        let Ok(manifest) = Manifest::parse(&text) else { continue };
        let age = UNIX_EPOCH.checked_add(Duration::from_millis(manifest.taken)).and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > expire) {
            // A crash in the middle leaves what the next start removes, and not half a save.
            let unfinished = PathBuf::from(format!("{}{UNFINISHED}", path.display()));
            let removed = disk::rename(Point::BgsaveExpireRename, &path, &unfinished)
                .and_then(|()| disk::remove_dir(Point::BgsaveExpire, &unfinished));
            match removed {
                Ok(()) => tracing::info!(path = %path.display(), "removed a save that is older than dump-expire"),
                Err(e) => tracing::warn!("could not remove the old save {}: {e}", path.display()),
            }
        }
    }
}

fn remove_unfinished(dir: &Path) {
    for path in saves(dir, UNFINISHED) {
        if let Err(e) = disk::remove_dir(Point::BgsaveRemoveUnfinished, &path) {
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
