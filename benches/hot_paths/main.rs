//! Micro-benchmarks of what stands between a request and its reply, one file a path:
//!
//! | file | what it measures |
//! | --- | --- |
//! | `resp` | parsing of requests, encoding of replies |
//! | `routing` | from a key to its slot |
//! | `meta` | entries as they stand in the engine |
//! | `record` | records of the log and the effects in them |
//! | `commit` | a write up to where readers see it: locks, log, engine |
//! | `apply` | a master's records on a replica |
//!
//! `cargo bench` runs them all, `cargo bench -- commit` those with that name, `cargo test --release --bench hot_paths` each once.
//! No sockets, no tasks, no other threads: what these add, the tables of docs/performance.md show. Data and logs lie where temporary files
//! do (`TMPDIR`), and nothing is synced or flushed meanwhile.
//!
//! Compare medians. `item` is a command, a record or an entry. `alloc` counts allocations, of Rust code alone and not of RocksDB: it
//! hardly depends on the machine, and counting makes nothing slower by more than a few percent.

mod apply;
mod commit;
mod meta;
mod node;
mod record;
mod resp;
mod routing;

use divan::AllocProfiler;
use tikv_jemallocator::Jemalloc;

/// The server's allocator, counted.
#[global_allocator]
static ALLOCATOR: AllocProfiler<Jemalloc> = AllocProfiler::new(Jemalloc);

fn main() {
    divan::main();
}
