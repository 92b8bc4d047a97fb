//! Write batches. Hot path.

use rocksdb::{ColumnFamily, WriteBatch};

use super::Entry;

/// Bytes before the first record of RocksDB's batch: a sequence number (8) and the count (4).
const HEADER_LEN: usize = 12;
const COUNT_AT: std::ops::Range<usize> = 8..12;

/// Bytes of an encoded entry's buffer that a batch keeps: one copy of a large value is enough.
const KEPT_SCRATCH: usize = 64 << 10;

/// Changes to one engine that take effect together.
#[derive(Default)]
pub struct Batch {
    inner: WriteBatch,
    scratch: Vec<u8>,
}

impl Batch {
    pub(super) fn put(&mut self, family: &ColumnFamily, key: &[u8], entry: &Entry) {
        self.scratch.clear();
        entry.encode(&mut self.scratch);
        self.inner.put_cf(family, key, &self.scratch);
        self.scratch.clear();
        self.scratch.shrink_to(KEPT_SCRATCH);
    }

    pub(super) fn put_raw(&mut self, family: &ColumnFamily, key: &[u8], value: &[u8]) {
        self.inner.put_cf(family, key, value);
    }

    pub(super) fn delete(&mut self, family: &ColumnFamily, key: &[u8]) {
        self.inner.delete_cf(family, key);
    }

    /// Bytes: about what it adds to the memtables.
    pub fn len(&self) -> usize {
        self.inner.size_in_bytes()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    pub(super) fn into_inner(self) -> WriteBatch {
        self.inner
    }

    /// One batch that does what `batches` do, in order.
    pub fn concat<'a>(batches: impl Iterator<Item = &'a Batch>) -> Batch {
        let mut data = vec![0; HEADER_LEN];
        let mut count = 0u32;
        for batch in batches {
            data.extend_from_slice(batch.inner.data().get(HEADER_LEN..).unwrap_or_default());
            count += batch.inner.len() as u32;
        }
        data[COUNT_AT].copy_from_slice(&count.to_le_bytes());
        Batch { inner: WriteBatch::from_data(&data), scratch: Vec::new() }
    }
}
