//! The `Server` value: wires the rooms together, starts them in order and stops them in reverse.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::command::{After, ScanCursors, Table};
use crate::config::{Compression, Config, Place, SyncMode};
use crate::daemon::limits;
use crate::disk;
use crate::engine::{self, EngineOptions};
use crate::events::KeyEvents;
use crate::keyspace::{
    self, Housekeeping, HousekeepingOptions, Keyspace, KeyspaceOptions, LIBRARIES_KEY, Locked, PurgePolicy,
};
use crate::net::listener::BindError;
use crate::net::{ClientRegistry, Closing, Listener, Turns};
use crate::observe::{LatencyMonitor, SlowLog, Stats, Switches};
use crate::pubsub::{Monitors, Pause, PauseKind, PubSub};
use crate::replication::{self, NodeState, PeerListeners};
use crate::script;
use crate::snapshot::Bgsave;

/// Held for as long as the process uses the data folder.
const LOCK_FILE: &str = "LOCK";
/// How often rates are sampled for INFO.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// How long commands may take to end once their clients are cut off, when the server stops.
const CUT_OFF: Duration = Duration::from_secs(2);
/// How long reads that still run may keep the engines from being closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Settings count days.
pub const SECONDS_A_DAY: u64 = 86_400;

/// Why a server did not start. One line each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}{source}", at(place))]
    Bind { place: Place, source: BindError },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}{} is in use by another server{}", at(place), dir.display(), by(holder))]
    Locked { place: Place, dir: PathBuf, holder: Option<String> },
    #[error(transparent)]
    NodeState(#[from] replication::NodeStateError),
    #[error(transparent)]
    Replication(#[from] replication::ManagerError),
    #[error(transparent)]
    Keyspace(#[from] keyspace::Error),
    #[error("a start task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// `haypile.conf:12: `, or nothing for a default.
fn at(place: &Place) -> String {
    if *place == Place::Default { String::new() } else { format!("{place}: ") }
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map_or(String::new(), |pid| format!(" (process {pid})"))
}

/// A running node.
pub struct Server {
    pub config: Arc<Config>,
    pub keyspace: Arc<Keyspace>,
    pub clients: ClientRegistry,
    pub turns: Turns,
    pub commands: Table,
    pub stats: Stats,
    pub slowlog: SlowLog,
    pub latency: LatencyMonitor,
    pub switches: Switches,
    pub scan_cursors: ScanCursors,
    pub events: Arc<KeyEvents>,
    pub pubsub: Arc<PubSub>,
    pub monitors: Arc<Monitors>,
    pub pause: Pause,
    pub scripts: script::Engine,
    pub functions: script::Registry,
    pub replication: Arc<replication::Manager>,
    pub bgsave: Bgsave,
    pub start_time: SystemTime,
    /// 40 hex digits, new with each start.
    pub run_id: String,
    listener: Mutex<Option<Listener>>,
    housekeeping: Mutex<Option<Housekeeping>>,
    shutdown: watch::Sender<bool>,
    _lock: Flock<File>,
}

impl Server {
    /// Takes the ports and the data folder, recovers the data, and begins to replicate if this node has a master. Clients are served by
    /// [`Server::run_until_shutdown`]. On an error nothing was touched, unless the error is about the data themselves.
    pub async fn start(config: Arc<Config>) -> Result<Arc<Server>, StartError> {
        let taken = |source| StartError::Bind { place: config.place_of("port"), source };
        let listener = Listener::bind(&config).map_err(taken)?;
        let peers = PeerListeners::bind(&config).map_err(taken)?;
        let lock = lock_folder(&config)?;
        let began = Instant::now();
        let run_id = random_hex(40);
        let node = NodeState::load(&config.dir(), config.slaveof())?;
        let options = keyspace_options(&config, &node);
        let keyspace = Arc::new(tokio::task::spawn_blocking(move || Keyspace::open(options)).await??);
        let housekeeping = Housekeeping::start(&keyspace, housekeeping_options(&config))
            .map_err(|source| StartError::Io { path: config.dir(), source })?;
        let replication = replication::Manager::start(config.clone(), keyspace.clone(), node, run_id.clone(), peers)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            addresses = ?listener.addrs(),
            dir = %config.dir().display(),
            ms = began.elapsed().as_millis() as u64,
            replayed = keyspace.replayed(),
            "ready"
        );
        let events = Arc::new(KeyEvents::new(config.clone()));
        keyspace.set_observer(events.clone());
        let (pubsub, monitors) = (Arc::new(PubSub::new(config.clone())), Arc::new(Monitors::new(config.clone())));
        let server = Arc::new(Server {
            bgsave: Bgsave::new(config.dump_path()),
            turns: Turns::new(config.threads()),
            config,
            keyspace,
            clients: ClientRegistry::new(),
            commands: Table::new(),
            stats: Stats::new(),
            slowlog: SlowLog::new(),
            latency: LatencyMonitor::new(),
            switches: Switches::default(),
            scan_cursors: ScanCursors::new(),
            events,
            pubsub,
            monitors,
            pause: Pause::default(),
            scripts: script::Engine::default(),
            functions: script::Registry::default(),
            replication,
            start_time: SystemTime::now(),
            run_id,
            listener: Mutex::new(Some(listener)),
            housekeeping: Mutex::new(Some(housekeeping)),
            shutdown: watch::Sender::new(false),
            _lock: lock,
        });
        server.events.set_server(Arc::downgrade(&server));
        let keyspace = server.keyspace.clone();
        server.scripts.observe_slow(Box::new(move |slow| keyspace.set_overtime(slow)));
        server.load_functions()?;
        Ok(server)
    }

    /// Loads the libraries of functions that the node holds. Its master may change them meanwhile.
    fn load_functions(&self) -> Result<(), StartError> {
        let mut tx = self.keyspace.transaction();
        if tx.lock([(0, LIBRARIES_KEY.as_ref())].into_iter(), false) != Locked::Yes {
            return Err(keyspace::Error::Busy.into());
        }
        match self.keyspace.libraries() {
            Ok(libraries) => self.functions.install(&self.scripts, &libraries),
            // They come with the slot's data, when it has some again.
            Err(e) => tracing::error!("no functions are loaded: {e}"),
        }
        Ok(())
    }

    /// Serves clients until [`Server::request_shutdown`], then stops in order: no new clients, running pipelines finish, replication
    /// ends, everything is flushed and synced. A start after it replays nothing. Clients that do not take their replies are cut off after 3 s,
    /// and so are commands that do not end: what they would have written is not, as a whole.
    pub async fn run_until_shutdown(self: &Arc<Server>) {
        let Some(listener) = self.listener.lock().take() else { return };
        let sampler = tokio::spawn({
            let server = self.clone();
            async move {
                let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
                loop {
                    ticks.tick().await;
                    server.stats.sample();
                    if server.switches.cron() {
                        server.clients.limit_memory(server.config.maxmemory_clients());
                        server.events.tracking.limit();
                    }
                }
            }
        });
        let mut shutdown = self.shutdown.subscribe();
        listener
            .serve(self.clone(), async move {
                // The sender lives as long as the server: this ends with a request only.
                let _ = shutdown.wait_for(|asked| *asked).await;
            })
            .await;
        sampler.abort();
        if !self.clients.is_empty() {
            self.cut_off().await;
        }
        let server = self.clone();
        let stopped = tokio::task::spawn_blocking(move || server.close()).await;
        if let Err(e) = stopped {
            tracing::error!("the shutdown did not finish: {e}");
        }
    }

    /// Ends the connections that are left, and what they run, as far as it can be ended.
    async fn cut_off(self: &Arc<Server>) {
        tracing::warn!(clients = self.clients.len(), "closing clients that did not take their replies in time");
        let server = self.clone();
        // First: what a script has written by the time it is stopped must not be committed.
        let refusing = tokio::task::spawn_blocking(move || {
            server.replication.stop_following();
            server.keyspace.refuse_writes();
        });
        if let Err(e) = refusing.await {
            tracing::error!("the shutdown did not finish: {e}");
        }
        self.scripts.stop();
        self.clients.close_all(Closing::Kill);
        if tokio::time::timeout(CUT_OFF, self.clients.drained()).await.is_err() {
            tracing::warn!(
                clients = self.clients.len(),
                "stopping although commands are running; they write nothing any more"
            );
        }
    }

    fn close(&self) {
        let began = Instant::now();
        self.replication.stop();
        self.bgsave.stop();
        if let Some(mut housekeeping) = self.housekeeping.lock().take() {
            housekeeping.stop();
        }
        // A command may still run although its client is gone.
        self.keyspace.refuse_writes();
        match self.keyspace.flush_all_engines() {
            Ok(()) => tracing::info!(ms = began.elapsed().as_millis() as u64, "all data flushed and synced"),
            Err(e) => tracing::error!("some data could not be flushed and will be recovered at the next start: {e}"),
        }
        if !self.keyspace.close(CLOSE_PATIENCE) {
            tracing::warn!("stopping although some reads have not finished");
        }
    }

    /// Does what a command wanted done once its writes are committed.
    pub fn after_commit(&self, after: After) {
        match after {
            After::Notify { db, class, event, key } => self.pubsub.notify(db, class, event, &key),
            After::Publish { channel, message, shard } => self.pubsub.publish(&channel, &message, shard),
            After::Monitor(line) => self.monitors.feed(&line),
        }
    }

    /// Deletes keys that a command found expired, if that is this node's to do now. No key may be locked.
    pub fn expire_found(&self, mut keys: Vec<(usize, Bytes)>) {
        keys.retain(|(db, _)| self.writes_log_of(*db));
        if !keys.is_empty()
            && self.pause.kind() == PauseKind::None
            && let Err(error) = self.keyspace.expire(&keys)
        {
            tracing::debug!(%error, "expired keys could not be deleted");
        }
    }

    /// Whether the log of a database is this node's to write: it is no master's copy.
    pub fn writes_log_of(&self, db: usize) -> bool {
        !self.replication.is_slave() || self.replication.is_detached(self.keyspace.db(db).index())
    }

    /// Enters an event into LATENCY if it took long.
    pub fn latency_event(&self, event: &'static str, took: Duration) {
        let threshold = self.config.latency_monitor_threshold();
        if !threshold.is_zero() && took >= threshold {
            self.latency.record(event, Server::now_ms() / 1000, took);
        }
    }

    /// Asks the server to stop. Returns at once.
    pub fn request_shutdown(&self) {
        self.shutdown.send_replace(true);
    }

    /// The fields of INFO persistence.
    pub fn persistence_info(&self, out: &mut String) {
        self.bgsave.info(self.keyspace.changes(), out);
        let faults = self.keyspace.all_slots().filter(|s| s.fault().is_some()).count();
        let mut field = |name: &str, value: u64| {
            out.push_str(name);
            out.push(':');
            out.push_str(itoa::Buffer::new().format(value));
            out.push_str("\r\n");
        };
        field("binlog_unflushed_bytes", self.keyspace.unflushed());
        field("binlog_replayed_records", self.keyspace.replayed());
        field("block_cache_used_bytes", self.keyspace.block_cache_usage() as u64);
        field("recent_writes_used_bytes", self.keyspace.recent_usage() as u64);
        field("entry_cache_used_bytes", self.keyspace.cache_usage().0);
        field("entry_cache_entries", self.keyspace.cache_usage().1 as u64);
        field("slots_read_only", faults as u64);
        let full = self.keyspace.all_slots().filter(|s| s.no_space().is_some()).count();
        field("slots_disk_full", full as u64);
        for slot in self.keyspace.all_slots() {
            if let Some(reason) = slot.no_space() {
                out.push_str(&format!("slot_disk_full:{slot} {}\r\n", reason.replace(['\r', '\n'], " ")));
            }
            if let Some(reason) = slot.fault() {
                out.push_str(&format!("slot_fault:{slot} {}\r\n", one_line(&reason)));
            }
            if let Some(damage) = slot.log_damage() {
                out.push_str(&format!("slot_log_replaced:{slot} {}\r\n", one_line(&damage)));
            }
        }
    }

    /// Unix time, ms.
    pub fn now_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }
}

/// What RocksDB reports may have line breaks, which INFO has no room for.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// `len` random hex digits.
pub(crate) fn random_hex(len: usize) -> String {
    (0..len).map(|_| char::from_digit(rand::random_range(0..16), 16).unwrap_or('0')).collect()
}

/// Makes the data folder and takes it for this process.
fn lock_folder(config: &Config) -> Result<Flock<File>, StartError> {
    let dir = &config.dir();
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| StartError::Io { path, source }
    };
    disk::make_dirs(dir).map_err(io(dir))?;
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // For whoever looks who holds it.
            let pid = std::process::id();
            lock.set_len(0).and_then(|()| lock.write_all(format!("{pid}\n").as_bytes())).map_err(io(&path))?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            Err(StartError::Locked {
                place: config.place_of("dir"),
                dir: dir.to_path_buf(),
                holder: known.then(|| holder.trim().to_string()),
            })
        }
        Err((_, errno)) => Err(io(&path)(errno.into())),
    }
}

fn keyspace_options(config: &Arc<Config>, node: &NodeState) -> KeyspaceOptions {
    let (for_size, for_sync) = (config.clone(), config.clone());
    KeyspaceOptions {
        db_path: config.db_path(),
        binlog_path: config.binlog_path(),
        databases: config.databases(),
        slots: config.slot_num() as usize,
        engine: EngineOptions {
            write_buffer_size: config.write_buffer_size(),
            block_cache: config.block_cache(),
            recent: config.cache() / 2,
            max_open_files: open_files(config),
            compression: match config.compression() {
                Compression::None => engine::Compression::None,
                Compression::Lz4 => engine::Compression::Lz4,
                Compression::Zstd => engine::Compression::Zstd,
            },
            max_background_jobs: i32::try_from(config.max_background_jobs()).unwrap_or(i32::MAX),
        },
        cache: config.cache() / 2,
        binlog_file_size: Box::new(move || for_size.binlog_file_size()),
        sync_always: Box::new(move || for_sync.sync() == SyncMode::Always),
        term: node.term,
        leading_from: node.leading_from,
    }
}

/// Data files that each slot may keep open.
fn open_files(config: &Config) -> i32 {
    let (wanted, files) = (config.max_open_files(), limits::open_files_a_slot(config));
    if wanted < 0 || files < wanted {
        tracing::info!(
            max_open_files = wanted,
            "each slot keeps at most {files} data files open: the limit of open files must do for all"
        );
    }
    files
}

fn housekeeping_options(config: &Arc<Config>) -> HousekeepingOptions {
    let (for_sync, for_purge, for_flush) = (config.clone(), config.clone(), config.clone());
    HousekeepingOptions {
        sync_every_second: Box::new(move || for_sync.sync() == SyncMode::EverySecond),
        purge_policy: Box::new(move || PurgePolicy {
            max_files: for_purge.expire_logs_nums() as usize,
            max_age: Duration::from_secs(u64::from(for_purge.expire_logs_days()) * SECONDS_A_DAY),
            max_pinned_bytes: for_purge.binlog_max_pinned_size(),
        }),
        max_unflushed: Box::new(move || for_flush.max_write_buffer_size()),
    }
}
