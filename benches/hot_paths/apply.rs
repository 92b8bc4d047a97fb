//! A replica's half of replication: runs of records as a master sends them, through the function that its apply thread calls. One
//! iteration is 256 SETs of 100 bytes, in runs of so many records: 1 as under a trickle, 256 when it is behind. To compare with: `commit`,
//! the master's cost of the same writes, without grouping by pipelines; a replica must not be slower than its master.

use divan::Bencher;
use divan::counter::ItemsCount;
use haypile::binlog::{Chunk, ChunkReader, Position};
use haypile::keyspace::{Keyspace, Slot};

use crate::node::{Keys, Node};

/// SETs of an iteration.
const SETS: usize = 256;
/// Commands of the master's pipelines.
const PIPELINE: usize = 16;
/// Bytes of a message between nodes at most.
const CHUNK_BYTES: usize = 256 << 10;

/// A master that writes, and its log as it is sent.
struct Master {
    node: Node,
    keys: Keys,
    reader: ChunkReader,
}

impl Master {
    fn new() -> Master {
        let node = Node::written(1);
        let reader = {
            let store = only_slot(&node.keyspace).store();
            ChunkReader::open(store.as_ref().expect("a store").log_dir(), Position::START).expect("a log")
        };
        Master { node, keys: Keys::default(), reader }
    }

    /// What was written since the last call, in runs of so many records.
    fn read(&mut self, records: usize) -> Vec<Chunk> {
        let end = only_slot(&self.node.keyspace).position();
        let next = || self.reader.next_chunk(&end, CHUNK_BYTES, records as u64).expect("the log");
        std::iter::from_fn(next).collect()
    }

    fn write(&mut self) {
        self.node.set_each(&self.keys.take(SETS), PIPELINE);
    }
}

fn only_slot(keyspace: &Keyspace) -> &Slot {
    keyspace.all_slots().next().expect("a slot")
}

fn apply(replica: &Keyspace, runs: &[Chunk]) {
    for run in runs {
        replica.apply_run(only_slot(replica), &run.bytes, run.end).expect("a run");
    }
}

// One by one, because a run must follow the one before it. The same number of writes each time, 102,400.
#[divan::bench(args = [1, 16, 256], sample_count = 400, sample_size = 1)]
fn set(bencher: Bencher, records: usize) {
    let (mut master, replica) = (Master::new(), Node::new(1));
    apply(&replica.keyspace, &master.read(records));
    bencher
        .with_inputs(|| {
            master.write();
            master.read(records)
        })
        .counter(ItemsCount::new(SETS))
        .bench_local_refs(|runs| apply(&replica.keyspace, runs));
    assert_eq!(only_slot(&replica.keyspace).position(), only_slot(&master.node.keyspace).position());
}
