//! Faults of network, process and disk under load: nothing acknowledged is lost, no replica lies (docs/testing.md).

#[path = "../common/mod.rs"]
mod common;

mod checker;
mod cluster;
mod corruption;
mod full_disk;
mod history;
mod kills;
mod nemesis;
mod power;
mod slaveof;
mod torture;
