//! From a key to its slot: the CRC of Redis Cluster, once or twice a command. To compare with: the CPU per GET in the tables; it should be
//! lost in it.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use haypile::keyspace::{hash_slot, slot_of};

use crate::node::{Node, key};

/// Slots of a database.
const SLOTS: usize = 4;

const KEYS: [&str; 3] =
    ["key:000000123456", "{user1000}.following", "session:0123456789abcdef0123456789abcdef0123456789abcdef:token"];

#[divan::bench(args = KEYS)]
fn hash(bencher: Bencher, key: &str) {
    bencher.counter(BytesCount::new(key.len())).bench(|| hash_slot(black_box(key.as_bytes())));
}

#[divan::bench]
fn number(bencher: Bencher) {
    let key = key(1);
    bencher.bench(|| slot_of(black_box(&key), black_box(SLOTS)));
}

/// Through the map of databases that SWAPDB changes.
#[divan::bench]
fn slot(bencher: Bencher) {
    let node = Node::new(SLOTS);
    let key = key(1);
    bencher.bench(|| node.keyspace.slot(black_box(0), black_box(&key)).number());
}
