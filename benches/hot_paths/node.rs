//! What the benchmarks share: keyspaces in folders of their own, and what is written to them.

use std::sync::LazyLock;

use bytes::Bytes;
use haypile::engine::EngineOptions;
use haypile::keyspace::{Keyspace, KeyspaceOptions, Locked};
use tempfile::TempDir;

/// Different keys: memtables and the entry cache are to be as large as in a server that does something.
const KEYS: u64 = 500_000;
/// Prime, so that multiples of it meet every key once before any comes again, in no order.
const STRIDE: u64 = 2_654_435_761;
/// Bytes, as in the tables of docs/performance.md.
pub const VALUE_LEN: usize = 100;

/// A value, shared like a part of a connection's read buffer.
pub static VALUE: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'v'; VALUE_LEN]));

/// The `n`th key, 16 bytes, as redis-benchmark makes them.
pub fn key(n: u64) -> Bytes {
    Bytes::from(format!("key:{:012}", n.wrapping_mul(STRIDE) % KEYS))
}

/// Keys in no order.
#[derive(Default)]
pub struct Keys(u64);

impl Keys {
    /// The next ones.
    pub fn take(&mut self, count: usize) -> Vec<Bytes> {
        let from = self.0;
        self.0 += count as u64;
        (from..self.0).map(key).collect()
    }
}

/// A keyspace with the settings of the default conf file and one database, in a folder that goes with it.
pub struct Node {
    // Closed before its folder goes.
    pub keyspace: Keyspace,
    _dir: TempDir,
}

impl Node {
    /// One that was never written.
    pub fn new(slots: usize) -> Node {
        let dir = tempfile::tempdir().expect("a folder");
        let keyspace = Keyspace::open(KeyspaceOptions {
            db_path: dir.path().join("db"),
            binlog_path: dir.path().join("binlog"),
            databases: 1,
            slots,
            engine: EngineOptions::default(),
            cache: 64 << 20,
            binlog_file_size: Box::new(|| 100 << 20),
            sync_always: Box::new(|| false),
            term: 1,
            leading_from: Some(1),
        });
        Node { keyspace: keyspace.expect("a keyspace"), _dir: dir }
    }

    /// One whose slots have all been written: the first write makes log and engine.
    pub fn written(slots: usize) -> Node {
        let node = Node::new(slots);
        let mut keys = Keys::default();
        while node.keyspace.all_slots().any(|slot| slot.store().is_none()) {
            node.set_each(&keys.take(1), 1);
        }
        node
    }

    /// A SET of each key, in pipelines of `group` commands: each pipeline is committed as one group a slot.
    pub fn set_each(&self, keys: &[Bytes], group: usize) {
        for pipeline in keys.chunks(group) {
            let now = self.keyspace.now();
            let mut tx = self.keyspace.transaction();
            for key in pipeline {
                assert_eq!(tx.lock([(0, key.as_ref())].into_iter(), true), Locked::Yes);
                tx.set(0, key, VALUE.clone(), None, now).expect("a SET");
            }
            tx.commit().expect("a commit");
        }
    }

    /// One MSET of all keys: one record a slot, all of them or none.
    pub fn set_together(&self, keys: &[Bytes]) {
        let now = self.keyspace.now();
        let mut tx = self.keyspace.transaction();
        assert_eq!(tx.lock(keys.iter().map(|key| (0, key.as_ref())), true), Locked::Yes);
        keys.iter().for_each(|key| tx.set(0, key, VALUE.clone(), None, now).expect("a SET"));
        tx.commit().expect("a commit");
    }
}
