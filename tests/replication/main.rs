//! Master and replica: full sync, partial sync, chains and failover, refusals.

#[path = "../common/mod.rs"]
mod common;

mod all_commands;
mod circles;
mod damage;
mod databases;
mod failover;
mod fake;
mod faulty_link;
mod full_sync;
mod full_sync_damage;
mod full_sync_faults;
mod functions;
mod info;
mod old_masters;
mod partial_sync;
mod refusals;
mod silence;
mod slow;

use common::NodeOptions;

/// Two databases of two slots: as good as the default's 64 slots for what these tests look
/// at, and quicker.
fn small() -> NodeOptions {
    NodeOptions::new().set("databases", 2).set("slot-num", 2)
}
