//! The operator's tools: what they show of folders that servers wrote, and that no kind of damage escapes them.

#[path = "../common/mod.rs"]
mod common;

mod binlog;
mod damage;
mod elements;
mod folders;
mod restore;
mod sound;
