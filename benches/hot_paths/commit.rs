//! A write of 100 bytes as a command makes it: key lock, effect, record, log, engine, entry cache, visible. One iteration is 16 SETs, in
//! pipelines of 1 or 16, to databases of 1 or 4 slots; or one MSET of ten keys. To compare with: the rocksdb crate alone, 4–6 µs a key in
//! batches of one and 2.4–3.0 µs in batches of 16, each with a log append (issue 5), and with the server's CPU
//! per SET in the tables, of which this is a part. Memtables grow meanwhile, so the last samples are the slowest.

use std::fmt;

use divan::Bencher;
use divan::counter::ItemsCount;

use crate::node::{Keys, Node};

/// SETs of an iteration.
const SETS: usize = 16;
/// Keys of an MSET.
const MSET: usize = 10;

struct Case {
    pipeline: usize,
    slots: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}, slots {}", self.pipeline, self.slots)
    }
}

const CASES: [Case; 4] = [
    Case { pipeline: 1, slots: 1 },
    Case { pipeline: 1, slots: 4 },
    Case { pipeline: 16, slots: 1 },
    Case { pipeline: 16, slots: 4 },
];

// The same number of writes each time, 102,400: memtables and cache grow alike.
#[divan::bench(args = CASES, sample_count = 100, sample_size = 64)]
fn set(bencher: Bencher, case: &Case) {
    let node = Node::written(case.slots);
    let mut keys = Keys::default();
    bencher
        .with_inputs(|| keys.take(SETS))
        .counter(ItemsCount::new(SETS))
        .bench_local_refs(|keys| node.set_each(keys, case.pipeline));
}

/// Over several slots it is one write that all of them have or none.
#[divan::bench(args = [1, 4], sample_count = 100, sample_size = 64)]
fn mset(bencher: Bencher, slots: usize) {
    let node = Node::written(slots);
    let mut keys = Keys::default();
    bencher
        .with_inputs(|| keys.take(MSET))
        .counter(ItemsCount::new(MSET))
        .bench_local_refs(|keys| node.set_together(keys));
}
