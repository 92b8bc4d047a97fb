//! Haypile: a Redis-protocol server for data that outgrows memory.
//!
//! Data flows one way: a module knows those below it in this list, never those above.
//!
//! - [`tools`]: the operator's offline tools: `haypile binlog`, `haypile check`
//! - [`server`]: the `Server` value that wires everything together, start and stop
//! - [`daemon`]: daemon manners: detaching, pidfile, log files, signals
//! - [`events`]: who is told of changes to keys
//! - [`pubsub`]: channels and keyspace notifications
//! - [`net`]: listener, connections, the RESP codec, the client registry
//! - [`command`]: the command table and one file a family of commands
//! - [`script`]: Lua scripts and functions: the sandbox, its libraries, the registry of functions
//! - [`observe`]: INFO, counters, the slow log
//! - [`replication`]: roles, the per-slot state machine, MetaSync, DBSync, TrySync, BinlogSync
//! - [`snapshot`]: checkpoints of slots, the file service that ships them, the client that fetches them
//! - [`keyspace`]: databases, slots, key locks, transactions, the commit path and recovery
//! - [`rdb`]: Redis's serialization of values: DUMP and RESTORE
//! - [`engine`]: RocksDB and the write buffer in front of it: options, encodings, iteration, checkpoints
//! - [`binlog`]: the one log: records, files, writing, reading, recovery, purging
//! - [`config`]: the table of settings, the conf file, CONFIG
//! - [`disk`]: writes, syncs, renames and removals, each a named step that tests can make fail
//! - [`wire`]: the checksum of every message between nodes
//!
//! docs/ holds the formats: `binlog.md`, `encodings.md`, `snapshots.md`, `replication.md`.

#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr))]

pub mod binlog;
pub mod command;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod engine;
pub mod events;
#[cfg(test)]
mod fuzz;
pub mod keyspace;
pub mod net;
pub mod observe;
pub mod pubsub;
pub mod rdb;
pub mod replication;
pub mod script;
pub mod server;
pub mod snapshot;
pub mod tools;
pub mod wire;
