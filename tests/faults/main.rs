//! What faults of disk and machine must not take: see docs/testing.md.

#[path = "../common/mod.rs"]
mod common;

mod full_disk;
mod history;
mod power;
