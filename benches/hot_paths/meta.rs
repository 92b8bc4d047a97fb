//! Entries of the `meta` family: what a key holds, to bytes and back. The codec itself is private to the engine, so this goes through the
//! nearest doors: `stage` is encoding and a copy into a write batch, `get` a lookup in the memtable and decoding, `scan` a step of an
//! iterator and decoding. To compare with: 4.5–7 µs for a point get of the rocksdb crate alone (issue 5); what the entry cache
//! saves a GET is about `get`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use haypile::engine::{Applied, Batch, Collection, Engine, EngineOptions, Entry, Kept, Kind, Shared};
use haypile::keyspace::NEVER_WRITTEN;

use crate::node::{VALUE, VALUE_LEN, key};

/// Keys of an engine that is read.
const KEYS: u64 = 10_000;
/// Entries to a batch: those of a pipeline.
const BATCH: u64 = 16;
/// Unix ms.
const EXPIRE_AT: u64 = 2_000_000_000_000;

/// What a key may hold.
struct Held {
    name: &'static str,
    entry: fn() -> Entry,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const HELD: [Held; 4] = [
    Held { name: "string of 100 B", entry: || Entry::string(VALUE.clone(), None) },
    Held { name: "string of 100 B that expires", entry: || Entry::string(VALUE.clone(), Some(EXPIRE_AT)) },
    Held { name: "string of 4 KiB", entry: || Entry::string(Bytes::from(vec![b'v'; 4096]), None) },
    Held { name: "hash", entry: || Entry::collection(Kind::Hash, &collection(), None) },
];

/// One with nothing of its type's own.
fn collection() -> Collection {
    Collection { version: 1_700_000_000_000 << 20, count: 12, extra: Bytes::new() }
}

fn engine(dir: &Path, entry: &Entry, keys: u64) -> Engine {
    let shared = Arc::new(Shared::new(EngineOptions::default()));
    let engine = Engine::create(&dir.join("engine"), &shared, NEVER_WRITTEN, &Kept::default()).expect("an engine");
    let mut batch = Batch::default();
    (0..keys).for_each(|n| batch.entry(&key(n), Some(entry)));
    engine.write(batch, Applied { time: 1, ..NEVER_WRITTEN }).expect("a write");
    engine
}

#[divan::bench(args = HELD)]
fn stage(bencher: Bencher, held: &Held) {
    let entry = (held.entry)();
    let keys: Vec<Bytes> = (0..BATCH).map(key).collect();
    bencher.counter(ItemsCount::new(BATCH)).counter(BytesCount::new(BATCH as usize * entry.value.len())).bench(|| {
        let mut batch = Batch::default();
        keys.iter().for_each(|key| batch.entry(key, Some(black_box(&entry))));
        batch
    });
}

#[divan::bench(args = HELD)]
fn get(bencher: Bencher, held: &Held) {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = engine(dir.path(), &(held.entry)(), KEYS);
    let mut next = 0;
    bencher
        .with_inputs(|| {
            next = (next + 1) % KEYS;
            key(next)
        })
        .bench_local_refs(|key| engine.get(key).expect("a read").expect("the entry"));
}

/// All entries, in order.
#[divan::bench]
fn scan(bencher: Bencher) {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = engine(dir.path(), &Entry::string(VALUE.clone(), None), KEYS);
    bencher.counter(ItemsCount::new(KEYS)).counter(BytesCount::new(KEYS as usize * VALUE_LEN)).bench(|| {
        let mut seen = 0;
        let mut count = |_: &[u8], entry: Entry| {
            black_box(entry);
            seen += 1;
            Ok(true)
        };
        engine.scan(None, &mut count).expect("a scan");
        assert_eq!(seen, KEYS);
    });
}

/// The entry of a collection from its parts.
#[divan::bench]
fn collection_to_entry(bencher: Bencher) {
    let collection = collection();
    bencher.bench(|| Entry::collection(Kind::Hash, black_box(&collection), None));
}

#[divan::bench]
fn collection_of_entry(bencher: Bencher) {
    let entry = Entry::collection(Kind::Hash, &collection(), None);
    bencher.bench(|| black_box(&entry).as_collection());
}
