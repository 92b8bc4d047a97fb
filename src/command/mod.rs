//! Commands: the table, the dispatcher and one file a family.
//!
//! A command is one [`Spec`] in its family's slice and one handler below it; adding one
//! touches one file. A handler parses its arguments, acts through `ctx.tx` and writes exactly
//! one reply; everything that all commands share (authentication, arity, keys and their locks,
//! replica rules, commit, statistics) is the dispatcher's.

mod bitmap;
pub mod blocking;
mod client;
mod config;
mod connection;
mod context;
mod debug;
mod dispatch;
mod error;
pub mod float;
pub mod geo;
pub mod glob;
mod help;
mod hyperloglog;
mod introspection;
mod keys;
pub mod numbers;
mod persistence;
mod replication;
mod scan;
mod server;
mod slowlog;
mod spec;
mod stream;
mod string;
mod table;
mod transactions;

pub use context::{Ctx, Within};
pub use dispatch::{After, Outcome, Pipeline, PoolCall, Scratch};
pub use error::{CommandError, Suspend};
pub use scan::ScanCursors;
pub use spec::{Flags, Group, Handler, KeyRef, Keys, Spec};
pub use table::{Command, CommandStats, Lookup, Table};
pub use transactions::{Multi, WatchTable, Watched};

/// Every command of this server, family by family.
pub static FAMILIES: &[&[Spec]] = &[
    connection::CONNECTION,
    introspection::INTROSPECTION,
    server::SERVER,
    slowlog::SLOWLOG,
    replication::REPLICATION,
    persistence::PERSISTENCE,
    stream::STREAM,
    string::STRING,
    bitmap::BITMAP,
    hyperloglog::HYPERLOGLOG,
    keys::KEYS,
    transactions::TRANSACTIONS,
    scan::SCAN,
];
