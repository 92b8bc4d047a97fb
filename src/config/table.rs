//! The table of settings: each is declared here once, with its type, range, default and help.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cell::{Cell, Typed};
use super::value::{Kind, MAX_PORT, Value};
use super::{Compression, Config, DebugAccess, EventClasses, LogLevel, OutputLimits, SyncMode};

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;
/// An upper bound for seconds and counts that have no other: what fits 31 bits.
const LARGE: i64 = i32::MAX as i64;
const LARGEST_NEGATIVE: i64 = i32::MIN as i64;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the conf file and in CONFIG, in lower case.
    pub name: &'static str,
    /// Other names it answers to (those of Redis or Pika).
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    /// The default, as the conf file would write it.
    pub default: &'static str,
    pub takes_effect: TakesEffect,
    /// What it is, in a sentence or two.
    pub help: &'static str,
}

/// When a change of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// At once: CONFIG SET changes it.
    AtOnce,
    /// At the next start: CONFIG SET refuses it.
    AtStart,
    /// Never: a setting of Redis's memory layout, which CONFIG SET and GET keep for tools that set it.
    Never,
}

impl Setting {
    /// Whether `name` is this setting's name or an alias, in any case.
    pub fn is_named(&self, name: &str) -> bool {
        self.names().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The name, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Whether it is only something CONFIG GET answers.
    pub fn is_fact(&self) -> bool {
        matches!(self.kind, Kind::Fact)
    }

    /// Default, range and when a change takes effect, in one line: what the shipped conf file says over each key.
    pub fn facts(&self) -> String {
        let default = if self.default.is_empty() { "empty" } else { self.default };
        let when = match self.takes_effect {
            TakesEffect::AtOnce => "CONFIG SET changes it",
            TakesEffect::AtStart => "needs a restart",
            TakesEffect::Never => "without effect",
        };
        format!("Default: {default}. Values: {}; {when}.", self.kind.accepts())
    }

    /// The default as a value; a table test keeps it within its kind.
    pub(super) fn default_value(&self) -> Value {
        match self.kind {
            Kind::Fact => Value::Text(self.default.into()),
            kind => kind.parse(self.default).unwrap_or_else(|_| Value::Text(self.default.into())),
        }
    }
}

/// Declares the settings: `method: type = "name" | "alias"…, kind, "default", when, "help";`. From each comes a row
/// of [`SETTINGS`], the cell that holds its value, and the method of [`Config`] that reads it.
macro_rules! settings {
    ($($method:ident: $type:ty = $name:literal $(| $alias:literal)*, $kind:expr, $default:literal, $when:ident, $help:literal;)*) => {
        #[allow(non_upper_case_globals)]
        mod rows {
            use super::*;
            $(pub static $method: Setting = Setting {
                name: $name, aliases: &[$($alias),*], kind: $kind, default: $default,
                takes_effect: TakesEffect::$when, help: $help,
            };)*
        }

        /// Every setting, in the order of the conf file.
        pub static SETTINGS: &[&Setting] = &[$(&rows::$method),*];

        /// The values of one node's settings.
        pub(super) struct Cells { $($method: Cell),* }

        impl Cells {
            pub(super) fn defaults() -> Self {
                Cells { $($method: Cell::new(&rows::$method)),* }
            }

            /// Every cell, in the order of [`SETTINGS`].
            pub(super) fn all(&self) -> impl Iterator<Item = &Cell> {
                [$(&self.$method),*].into_iter()
            }
        }

        impl Config {
            $(#[doc = $help]
            pub fn $method(&self) -> $type {
                Typed::read(&self.cells.$method)
            })*
        }
    };
}

settings! {
    // The network.
    port: u16 = "port", Kind::Integer { min: 1, max: MAX_PORT }, "9221", AtStart,
        "The port for clients. Replication listens on port + 2000, snapshots on port + 10001.";
    bind: Vec<IpAddr> = "bind", Kind::Addresses, "127.0.0.1", AtStart,
        "The addresses that clients and replicas can reach this node at.";
    tcp_backlog: u32 = "tcp-backlog", Kind::Integer { min: 1, max: 65535 }, "511", AtStart,
        "Connections the system holds until they are accepted.";
    tcp_keepalive: Duration = "tcp-keepalive", Kind::Seconds { min: 0, max: LARGE }, "300", AtOnce,
        "Silence after which the system probes whether a new client connection still lives; 0 = never.";
    timeout: Duration = "timeout", Kind::Seconds { min: 0, max: LARGE }, "0", AtOnce,
        "Idle time after which a client is disconnected; 0 = never.";
    maxclients: usize = "maxclients", Kind::Integer { min: 1, max: 1_000_000 }, "10000", AtOnce,
        "Clients connected at one time; the next one is told so and closed.";
    proto_max_bulk_len: usize = "proto-max-bulk-len", Kind::Size { min: MIB, max: 512 * MIB }, "512M", AtOnce,
        "The longest single argument of a command, in bytes, and so the longest value.";
    max_reply_size: usize = "max-reply-size", Kind::Size { min: MIB, max: TIB }, "1G", AtOnce,
        "Bytes that the reply to one command may have; the command that asks for more is refused.";
    client_query_buffer_limit: usize = "client-query-buffer-limit", Kind::Size { min: MIB, max: TIB }, "1G", AtOnce,
        "Bytes of commands a client may have sent that were not yet executed; more closes its connection.";
    client_output_buffer_limit: OutputLimits = "client-output-buffer-limit", Kind::OutputLimits, "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", AtOnce,
        "Bytes that may wait for a client that does not read before it is closed, by class: at once, and for how many seconds. Without a limit replies are held back, and messages to normal clients are held to pubsub's. No client is of class slave.";
    tracking_table_max_keys: usize = "tracking-table-max-keys", Kind::Integer { min: 0, max: i64::MAX }, "1000000", AtOnce,
        "Keys that CLIENT TRACKING remembers who read them; beyond it some are invalidated early; 0 = no limit.";
    thread_num: usize = "thread-num", Kind::Integer { min: 0, max: 1024 }, "0", AtStart,
        "Threads that read, execute and answer commands; 0 = one a processor core.";
    requirepass: Arc<str> = "requirepass", Kind::Secret, "", AtOnce,
        "The password that clients (AUTH) and replicas must give; empty = none.";

    enable_debug_command: DebugAccess = "enable-debug-command", Kind::Choice(DebugAccess::NAMES), "local", AtStart,
        "Who may use DEBUG: no, local (connections from this machine) or yes.";

    // The process.
    dir: PathBuf = "dir", Kind::Path { may_be_empty: false }, "./data", AtStart,
        "The folder for everything this node writes; made when missing. Other paths are relative to it.";
    daemonize: bool = "daemonize", Kind::Bool, "no", AtStart,
        "Whether to go to the background once the server is ready.";
    pidfile: Option<PathBuf> = "pidfile", Kind::Path { may_be_empty: true }, "./haypile.pid", AtStart,
        "The file that holds the process id while the server runs; empty = none.";
    log_path: Option<PathBuf> = "log-path", Kind::Path { may_be_empty: true }, "", AtStart,
        "The folder for haypile.log; empty = standard error, or ./log when daemonized.";
    loglevel: LogLevel = "loglevel" | "log-level", Kind::Choice(LogLevel::NAMES), "info", AtOnce,
        "What is logged: this level and the graver ones.";
    log_max_size: u64 = "log-max-size", Kind::Size { min: 4 * KIB, max: TIB }, "100M", AtStart,
        "The size in bytes at which haypile.log becomes haypile.log.1 and a new one begins.";
    log_max_files: u32 = "log-max-files", Kind::Integer { min: 0, max: 1000 }, "10", AtStart,
        "Older log files kept beside haypile.log.";

    // The data.
    databases: usize = "databases", Kind::Integer { min: 1, max: 1024 }, "16", AtStart,
        "Databases that SELECT can choose. Master and replica must agree on it.";
    slot_num: u32 = "slot-num", Kind::Integer { min: 1, max: 1024 }, "4", AtStart,
        "Slots of a database, each with its own engine, binlog and replication. Master and replica must agree on it.";
    db_path: PathBuf = "db-path", Kind::Path { may_be_empty: false }, "./db", AtStart,
        "The folder for the engines' files.";
    binlog_path: PathBuf = "binlog-path", Kind::Path { may_be_empty: false }, "./binlog", AtStart,
        "The folder for the binlogs.";
    dump_path: PathBuf = "dump-path", Kind::Path { may_be_empty: false }, "./dump", AtStart,
        "The folder for snapshots, made by BGSAVE or for a replica's full sync.";
    dump_expire: u32 = "dump-expire", Kind::Integer { min: 0, max: 36500 }, "0", AtOnce,
        "Days after which a save of BGSAVE is removed, at the end of a newer one; 0 = never.";
    db_sync_path: PathBuf = "db-sync-path", Kind::Path { may_be_empty: false }, "./dbsync", AtStart,
        "The folder where a replica receives a full sync.";
    sync: SyncMode = "sync" | "appendfsync", Kind::Choice(SyncMode::NAMES), "everysec", AtOnce,
        "When a write is forced to the disk: no (when the system likes), everysec, or always (before its reply).";

    // The memory.
    maxmemory: u64 = "maxmemory", Kind::Size { min: 0, max: i64::MAX }, "0", AtOnce,
        "Bytes of memory in use beyond which commands that may grow the data are refused; 0 = no limit.";

    maxmemory_clients: usize = "maxmemory-clients", Kind::Size { min: 0, max: i64::MAX }, "0", AtOnce,
        "Bytes of buffers of all clients together beyond which those with the largest are disconnected; 0 = no limit.";

    // The engine.
    cache: usize = "cache", Kind::Size { min: 0, max: TIB }, "128M", AtStart,
        "Bytes for keys and small values in front of the engine: half for those written last, half for hot ones; 0 = off.";
    block_cache: usize = "block-cache", Kind::Size { min: MIB, max: TIB }, "64M", AtStart,
        "Bytes for the engine's cache of data blocks, all slots together.";
    write_buffer_size: usize = "write-buffer-size", Kind::Size { min: 64 * KIB, max: 4 * GIB }, "24M", AtStart,
        "Bytes of writes a slot gathers in memory before it flushes them to a file.";
    max_write_buffer_size: u64 = "max-write-buffer-size", Kind::Size { min: MIB, max: TIB }, "128M", AtOnce,
        "Bytes of binlog, all slots together, that may be ahead of the engines' files; bounds memory and recovery time.";
    max_background_jobs: u32 = "max-background-jobs", Kind::Integer { min: 1, max: 256 }, "2", AtStart,
        "Threads that flush and compact, all slots together.";
    max_open_files: i32 = "max-open-files", Kind::Integer { min: -1, max: 1_000_000 }, "1000", AtStart,
        "Data files a slot keeps open; -1 = all of them.";
    compression: Compression = "compression", Kind::Choice(Compression::NAMES), "lz4", AtStart,
        "How data files written from now on are compressed.";

    // The binlog.
    binlog_file_size: u64 = "binlog-file-size", Kind::Size { min: KIB, max: GIB }, "100M", AtOnce,
        "The size in bytes at which a slot begins its next binlog file.";
    expire_logs_nums: u32 = "expire-logs-nums", Kind::Integer { min: 1, max: LARGE }, "10", AtOnce,
        "Binlog files a slot keeps; more only when a replica or the engine still needs them.";
    expire_logs_days: u32 = "expire-logs-days", Kind::Integer { min: 0, max: 36500 }, "7", AtOnce,
        "Days after which a binlog file goes even when there are fewer than expire-logs-nums; 0 = never.";
    binlog_max_pinned_size: u64 = "binlog-max-pinned-size", Kind::Size { min: MIB, max: TIB }, "20G", AtOnce,
        "Bytes of binlog a slot keeps for a replica that lags; beyond it the replica needs a full sync.";

    // Replication.
    slaveof: Option<(String, u16)> = "slaveof" | "replicaof", Kind::Master, "", AtStart,
        "The master to follow when the node starts for the first time; SLAVEOF, given later, is remembered and wins.";
    masterauth: Arc<str> = "masterauth", Kind::Secret, "", AtOnce,
        "The master's requirepass.";
    slave_read_only: bool = "slave-read-only" | "replica-read-only", Kind::Bool, "yes", AtOnce,
        "Whether a replica refuses writes also to databases taken out of replication (`dbslaveof dbN no one`).";
    slave_priority: u32 = "slave-priority" | "replica-priority", Kind::Integer { min: 0, max: LARGE }, "100", AtOnce,
        "How Sentinel ranks this replica for promotion: the lowest first, 0 never.";
    announce_ip: Arc<str> = "announce-ip" | "slave-announce-ip" | "replica-announce-ip", Kind::Text, "", AtOnce,
        "The address a replica names to its master, for INFO and Sentinel; empty = the one the master sees.";
    announce_port: u16 = "announce-port" | "slave-announce-port" | "replica-announce-port", Kind::Integer { min: 0, max: 65535 }, "0", AtOnce,
        "The port a replica names to its master, for INFO and Sentinel; 0 = port.";
    repl_timeout: Duration = "repl-timeout", Kind::Seconds { min: 1, max: LARGE }, "20", AtOnce,
        "Silence after which master and replica give each other up. Keepalives come ten times as often; set it alike on both.";
    sync_window_size: usize = "sync-window-size", Kind::Integer { min: 1, max: 1_000_000 }, "9000", AtOnce,
        "Records of a slot a master sends ahead of a replica's acknowledgement.";
    sync_window_bytes: u64 = "sync-window-bytes", Kind::Size { min: 64 * KIB, max: TIB }, "16M", AtOnce,
        "Bytes of records a master sends a replica ahead of its acknowledgements, all slots together: bounds what a stalled replica takes of its memory.";
    max_rsync_parallel_num: usize = "max-rsync-parallel-num", Kind::Integer { min: 1, max: 64 }, "4", AtOnce,
        "Files a replica fetches at one time in a full sync.";
    throttle_bytes_per_second: u64 = "throttle-bytes-per-second", Kind::Size { min: 0, max: TIB }, "0", AtOnce,
        "Bytes a second that a replica fetches in full syncs, all slots together; 0 = no limit.";
    snapshot_ttl: Duration = "snapshot-ttl", Kind::Seconds { min: 1, max: LARGE }, "600", AtOnce,
        "How long a snapshot made for a full sync is kept after it was last used.";

    min_replicas_to_write: usize = "min-replicas-to-write" | "min-slaves-to-write", Kind::Integer { min: 0, max: LARGE }, "0", AtOnce,
        "Replicas that must be online and near for a master to accept writes; 0 = none.";
    min_replicas_max_lag: Duration = "min-replicas-max-lag" | "min-slaves-max-lag", Kind::Seconds { min: 0, max: LARGE }, "10", AtOnce,
        "The longest silence of a replica that min-replicas-to-write counts; 0 turns both off.";
    slave_serve_stale_data: bool = "slave-serve-stale-data" | "replica-serve-stale-data", Kind::Bool, "yes", AtOnce,
        "Whether a replica answers reads while it has no link to its master.";

    // The data types.
    hash_max_listpack_entries: usize = "hash-max-listpack-entries" | "hash-max-ziplist-entries", Kind::Integer { min: 0, max: i64::MAX }, "512", AtOnce,
        "Fields up to which OBJECT ENCODING calls a hash a listpack.";
    hash_max_listpack_value: usize = "hash-max-listpack-value" | "hash-max-ziplist-value", Kind::Size { min: 0, max: i64::MAX }, "64", AtOnce,
        "Bytes of a field or value up to which OBJECT ENCODING calls a hash a listpack.";
    set_max_intset_entries: usize = "set-max-intset-entries", Kind::Integer { min: 0, max: i64::MAX }, "512", AtOnce,
        "Members up to which OBJECT ENCODING calls a set of integers an intset.";
    zset_max_listpack_entries: usize = "zset-max-listpack-entries" | "zset-max-ziplist-entries", Kind::Integer { min: 0, max: i64::MAX }, "128", AtOnce,
        "Members up to which OBJECT ENCODING calls a sorted set a listpack.";
    zset_max_listpack_value: usize = "zset-max-listpack-value" | "zset-max-ziplist-value", Kind::Size { min: 0, max: i64::MAX }, "64", AtOnce,
        "Bytes of a member up to which OBJECT ENCODING calls a sorted set a listpack.";
    stream_node_max_bytes: usize = "stream-node-max-bytes", Kind::Size { min: 0, max: i64::MAX }, "4K", AtOnce,
        "Bytes of entries that a node of a stream takes; `XTRIM ~` drops whole nodes; 0 = no limit.";
    stream_node_max_entries: usize = "stream-node-max-entries", Kind::Integer { min: 0, max: i64::MAX }, "100", AtOnce,
        "Entries that a node of a stream takes; `XTRIM ~` drops whole nodes; 0 = no limit.";
    hll_sparse_max_bytes: usize = "hll-sparse-max-bytes", Kind::Size { min: 0, max: i64::MAX }, "3000", AtOnce,
        "Bytes up to which a HyperLogLog is kept in its sparse form.";

    // Scripts and events.
    busy_reply_threshold: Duration = "busy-reply-threshold" | "lua-time-limit", Kind::Milliseconds { min: 0, max: i64::MAX }, "5000", AtOnce,
        "How long a script runs before others are answered BUSY and may kill it; 0 = no limit.";
    notify_keyspace_events: EventClasses = "notify-keyspace-events", Kind::Events, "", AtOnce,
        "Which changes of keys are published: K (by key) or E (by event), and the classes of events.";

    // The slow log.
    slowlog_log_slower_than: i64 = "slowlog-log-slower-than", Kind::Integer { min: -1, max: i64::MAX }, "10000", AtOnce,
        "Microseconds from which a command enters the slow log; 0 = every command, -1 = none.";
    slowlog_max_len: usize = "slowlog-max-len", Kind::Integer { min: 0, max: 1_000_000 }, "128", AtOnce,
        "Entries the slow log keeps.";

    latency_monitor_threshold: Duration = "latency-monitor-threshold", Kind::Milliseconds { min: 0, max: i64::MAX }, "0", AtOnce,
        "Milliseconds from which an event enters LATENCY; 0 = none.";
    latency_tracking: bool = "latency-tracking", Kind::Bool, "yes", AtOnce,
        "Whether LATENCY HISTOGRAM and INFO latencystats count how long each command takes.";
    latency_tracking_info_percentiles: Vec<f64> = "latency-tracking-info-percentiles", Kind::Percentiles, "50 99 99.9", AtOnce,
        "The percentiles of INFO latencystats.";

    // Settings of Redis that mean nothing here, but that tools set.
    list_max_listpack_size: i64 = "list-max-listpack-size" | "list-max-ziplist-size", Kind::Integer { min: LARGEST_NEGATIVE, max: LARGE }, "-2", Never,
        "How large the nodes of a list in Redis's memory become. Here lists lie on disk, element by element.";
    list_compress_depth: i64 = "list-compress-depth", Kind::Integer { min: 0, max: LARGE }, "0", Never,
        "How many nodes at each end of a list in Redis's memory stay uncompressed. Here the engine compresses.";
    aof_use_rdb_preamble: bool = "aof-use-rdb-preamble", Kind::Bool, "yes", Never,
        "How Redis's append-only file begins. The binlog holds records only.";

    // Settings of Redis that have one value here.
    save: Arc<str> = "save", Kind::Fact, "", AtStart,
        "Redis's points for saving its memory to disk. There are none here: every write goes to the binlog.";
    appendonly: Arc<str> = "appendonly", Kind::Fact, "yes", AtStart,
        "Redis's append-only file. Here it is the binlog, which is always on.";
    maxmemory_policy: Arc<str> = "maxmemory-policy", Kind::Fact, "noeviction", AtStart,
        "What goes when maxmemory is reached. Nothing: the data lie on disk, and no key is dropped to save memory.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_its_kind() {
        for setting in SETTINGS.iter().filter(|setting| !setting.is_fact()) {
            let value = setting.kind.parse(setting.default);
            assert!(value.is_ok(), "{}: {value:?}", setting.name);
            assert_eq!(setting.kind.format_for_file(&value.unwrap()), setting.default, "{}", setting.name);
        }
    }

    #[test]
    fn names_are_unique_and_lower_case() {
        let mut names: Vec<&str> = SETTINGS.iter().flat_map(|setting| setting.names()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
