//! What faults of disk, process and network must not take, and what a damaged node must not say.

#[path = "../common/mod.rs"]
mod common;

mod corruption;
mod slaveof;
