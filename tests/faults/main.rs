//! Faults of network, process and disk under load: nothing acknowledged is lost, no replica lies (docs/testing.md).

#[path = "../common/mod.rs"]
mod common;

mod checker;
mod cluster;
mod kills;
mod nemesis;
mod torture;
