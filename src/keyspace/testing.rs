//! What the tests of this module share.

use std::fs;
use std::path::Path;

use super::{Keyspace, KeyspaceOptions};
use crate::engine::EngineOptions;

/// Slots of the one database of [`open`].
pub const SLOTS: usize = 4;

/// Opens a keyspace whose folders are in `dir`, of a node that has always been a master.
pub fn open(dir: &Path) -> Keyspace {
    Keyspace::open(KeyspaceOptions {
        db_path: dir.join("db"),
        binlog_path: dir.join("binlog"),
        databases: 1,
        slots: SLOTS,
        cache: 1 << 20,
        engine: EngineOptions::default(),
        binlog_file_size: Box::new(|| 1 << 20),
        sync_always: Box::new(|| false),
        term: 1,
        leading_from: Some(1),
    })
    .unwrap()
}

/// Copies a folder as it is: of an open keyspace, what a killed process leaves.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
