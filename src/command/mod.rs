//! Commands: the table, the dispatcher and one file a family.
//!
//! A command is one [`Spec`] in its family's slice and one handler below it; adding one
//! touches one file. A handler parses its arguments, acts through `ctx.tx` and writes exactly
//! one reply; everything that all commands share (authentication, arity, keys and their locks,
//! replica rules, commit, statistics) is the dispatcher's.

mod acl;
pub mod admission;
mod client;
mod cluster;
mod config;
mod connection;
mod context;
mod debug;
mod dispatch;
mod error;
pub mod float;
pub mod glob;
mod help;
mod introspection;
mod key_flags;
mod keys;
mod latency;
mod memory;
pub mod numbers;
mod persistence;
mod replication;
mod scan;
mod server;
mod slowlog;
mod spec;
mod string;
mod table;

pub use context::Ctx;
pub use dispatch::{Outcome, Pipeline, PoolCall, Scratch};
pub use error::CommandError;
pub use scan::ScanCursors;
pub use spec::{Flags, Group, Handler, KeyRef, Keys, Spec};
pub use table::{Command, CommandStats, Lookup, Table};

/// Every command of this server, family by family.
pub static FAMILIES: &[&[Spec]] = &[
    connection::CONNECTION,
    introspection::INTROSPECTION,
    server::SERVER,
    slowlog::SLOWLOG,
    latency::LATENCY,
    memory::MEMORY,
    acl::ACL,
    cluster::CLUSTER,
    replication::REPLICATION,
    persistence::PERSISTENCE,
    string::STRING,
    keys::KEYS,
    scan::SCAN,
];
