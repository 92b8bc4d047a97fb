//! How RocksDB is set up: one block cache and one pool of background threads for all slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{BlockBasedOptions, Cache, CompactionDecision, DBCompressionType, LogLevel, Options};

use super::batch::Family;
use super::buffer::Budget;
use super::element::{OpenDb, OrphanFilters};
use super::encoding::decode_header;

/// An expired entry stays for this long after its expiry (by the flushed log's clock, ms) before compaction may drop it:
/// longer than a command can take from reading the clock to being logged.
pub const EXPIRY_GRACE_MS: u64 = 5 * 60 * 1000;
/// Bits a key in the filters: about 1 % false positives.
const BLOOM_BITS: f64 = 10.0;
const BLOCK_SIZE: usize = 8 << 10;
/// Memory is taken from the allocator in steps of this size: an almost empty slot costs no more.
const ARENA_BLOCK: usize = 256 << 10;
/// Table files are handed to the disk in steps, not in one stall at the end.
const BYTES_PER_SYNC: u64 = 1 << 20;
/// Bloom filter of a memtable, as a share of the size at which RocksDB flushes it: 12 bits a key when a record is 170 bytes. While a memtable is
/// flushed, most keys that are asked for are not in it; a search there costs several times as much.
const MEMTABLE_BLOOM: f64 = 0.004;
/// The memtable that RocksDB flushes by itself is this many times the size at which the slot flushes it.
const MEMTABLE_SLACK: usize = 2;

/// Compression of table files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

impl From<Compression> for DBCompressionType {
    fn from(c: Compression) -> DBCompressionType {
        match c {
            Compression::None => DBCompressionType::None,
            Compression::Lz4 => DBCompressionType::Lz4,
            Compression::Zstd => DBCompressionType::Zstd,
        }
    }
}

/// What the conf file says about engines.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Bytes of log after which a slot is flushed; its write buffer is about that large at most.
    pub write_buffer_size: usize,
    /// Bytes, for all slots together.
    pub block_cache: usize,
    /// Bytes, for all slots together, of what was flushed last and is kept in memory as it was written; 0 = nothing.
    pub recent: usize,
    /// Table files kept open a slot; -1 = all.
    pub max_open_files: i32,
    pub compression: Compression,
    /// Flush and compaction threads for all slots together.
    pub max_background_jobs: i32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            write_buffer_size: 24 << 20,
            block_cache: 64 << 20,
            recent: 64 << 20,
            max_open_files: -1,
            compression: Compression::Lz4,
            max_background_jobs: 2,
        }
    }
}

/// What all engines of a server share.
pub struct Shared {
    options: EngineOptions,
    block_cache: Cache,
    pub(super) recent: Arc<Budget>,
}

impl Shared {
    pub fn new(options: EngineOptions) -> Shared {
        Shared {
            block_cache: Cache::new_hyper_clock_cache(options.block_cache, 0),
            recent: Arc::new(Budget::new(options.recent)),
            options,
        }
    }

    /// Bytes of the block cache in use.
    pub fn block_cache_usage(&self) -> usize {
        self.block_cache.get_usage()
    }

    /// Bytes in use for what was flushed last.
    pub fn recent_usage(&self) -> usize {
        self.recent.used()
    }

    pub(super) fn db_options(&self, create: bool) -> Options {
        let mut o = Options::default();
        o.create_if_missing(create);
        o.set_error_if_exists(create);
        // A folder of an earlier version has fewer.
        o.create_missing_column_families(true);
        o.set_atomic_flush(true);
        // Whole generations of the write buffer, one after the other.
        o.set_allow_concurrent_memtable_write(false);
        o.set_enable_write_thread_adaptive_yield(false);
        o.set_max_background_jobs(self.options.max_background_jobs);
        o.set_max_open_files(self.options.max_open_files);
        o.set_bytes_per_sync(BYTES_PER_SYNC);
        o.set_avoid_unnecessary_blocking_io(true);
        o.set_skip_stats_update_on_db_open(true);
        o.set_stats_dump_period_sec(0);
        o.set_stats_persist_period_sec(0);
        o.set_log_level(LogLevel::Warn);
        o.set_keep_log_file_num(2);
        o.set_max_log_file_size(1 << 20);
        o
    }

    /// Options of a family. `flushed_time` is the clock of the compaction filters; `db` is where those of elements look owners up.
    pub(super) fn family_options(&self, family: Family, flushed_time: &Arc<AtomicU64>, db: &OpenDb) -> Options {
        match family {
            Family::System => self.system_options(),
            Family::Meta => self.meta_options(flushed_time.clone()),
            Family::Data | Family::Score => {
                // By score is only ever iterated.
                let mut o = self.data_options(family == Family::Data);
                o.set_compaction_filter_factory(OrphanFilters { db: db.clone(), flushed_time: flushed_time.clone() });
                o
            }
        }
    }

    fn system_options(&self) -> Options {
        let mut o = self.common_options();
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.block_cache);
        o.set_block_based_table_factory(&table);
        o
    }

    fn meta_options(&self, flushed_time: Arc<AtomicU64>) -> Options {
        let mut o = self.data_options(true);
        // Entries may go once they are expired by the clock of the *flushed* log: whatever is replayed after a crash
        // is later than that and could not have seen them alive. The local clock plays no part, so a replica
        // whose clock is wrong keeps what its master still uses.
        o.set_compaction_filter(c"expired", move |_level, _key, value| {
            match decode_header(value).and_then(|h| h.expire_at) {
                Some(at) if at.saturating_add(EXPIRY_GRACE_MS) <= flushed_time.load(Ordering::Acquire) => {
                    CompactionDecision::Remove
                }
                _ => CompactionDecision::Keep,
            }
        });
        o
    }

    fn data_options(&self, bloom: bool) -> Options {
        let mut o = self.common_options();
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.block_cache);
        table.set_block_size(BLOCK_SIZE);
        if bloom {
            table.set_bloom_filter(BLOOM_BITS, false);
            table.set_optimize_filters_for_memory(true);
            o.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM);
            o.set_memtable_whole_key_filtering(true);
        }
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        o.set_block_based_table_factory(&table);
        o.set_compression_type(self.options.compression.into());
        o
    }

    fn common_options(&self) -> Options {
        let mut o = Options::default();
        o.set_write_buffer_size(self.options.write_buffer_size.saturating_mul(MEMTABLE_SLACK));
        o.set_max_write_buffer_number(3);
        o.set_arena_block_size(ARENA_BLOCK.min(self.options.write_buffer_size));
        o
    }
}
