//! Commands: the table, the dispatcher and one file a family.
//!
//! A command is one [`Spec`] in its family's slice and one handler below it; adding one
//! touches one file. A handler parses its arguments, acts through `ctx.tx` and writes exactly
//! one reply; everything that all commands share (authentication, arity, keys and their locks,
//! replica rules, commit, statistics) is the dispatcher's.

mod acl;
pub mod admission;
mod bitmap;
pub mod blocking;
mod client;
mod cluster;
mod config;
mod connection;
mod context;
mod debug;
mod dispatch;
mod elements;
mod error;
pub mod float;
mod functions;
mod geo;
pub mod glob;
mod hash;
mod help;
mod hyperloglog;
mod introspection;
mod key_flags;
mod keys;
mod latency;
mod list;
pub mod manual;
mod memory;
mod monitor;
pub mod numbers;
mod persistence;
mod pika;
mod pubsub;
mod replication;
mod rules;
mod scan;
mod scripting;
mod server;
mod set;
mod slowlog;
mod sort;
mod spec;
mod stream;
mod string;
mod table;
mod tracking;
mod transactions;
mod turn;
mod wait;
mod witness;
mod zset;

pub use context::{Ctx, Within};
pub use dispatch::{After, Outcome, Pipeline, PoolCall};
pub use error::{CommandError, Suspend};
pub use scan::ScanCursors;
pub use spec::{Flags, Group, Handler, KeyRef, Keys, Spec};
pub use table::{Command, CommandStats, Lookup, Table};
pub use transactions::{Multi, WatchTable, Watched};
pub use turn::{Scratch, Turn};

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
    stream::STREAM,
    string::STRING,
    hash::HASH,
    set::SET,
    bitmap::BITMAP,
    hyperloglog::HYPERLOGLOG,
    keys::KEYS,
    list::LIST,
    transactions::TRANSACTIONS,
    scripting::SCRIPTING,
    functions::FUNCTIONS,
    scan::SCAN,
    sort::SORT,
    zset::ZSET,
    wait::WAIT,
    pika::PIKA,
    geo::GEO,
    pubsub::PUBSUB,
    monitor::MONITOR,
];
