//! Values of every type, whole in memory.

use std::fmt;

use bytes::Bytes;

/// A value. Collections hold one element at least, streams excepted; members and fields are distinct.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    String(Bytes),
    /// Head to tail.
    List(Vec<Bytes>),
    /// In any order.
    Set(Vec<Bytes>),
    /// Members with their scores, in any order. No score is NaN.
    Zset(Vec<(Bytes, f64)>),
    /// In any order.
    Hash(Vec<HashField>),
    Stream(Stream),
}

/// A field of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashField {
    pub field: Bytes,
    pub value: Bytes,
    /// Unix ms, from 1 to [`MAX_FIELD_EXPIRY`].
    pub expire_at: Option<u64>,
}

/// Latest expiry of a hash field, unix ms: Redis 7.4 has 48 bits for it.
pub const MAX_FIELD_EXPIRY: u64 = (1 << 48) - 1;

/// An entry's ID in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Unix ms.
    pub ms: u64,
    pub seq: u64,
}

impl StreamId {
    /// No entry has it.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    pub const MAX: StreamId = StreamId { ms: u64::MAX, seq: u64::MAX };

    fn from_number(number: u128) -> StreamId {
        StreamId { ms: (number >> 64) as u64, seq: number as u64 }
    }

    fn number(self) -> u128 {
        u128::from(self.ms) << 64 | u128::from(self.seq)
    }

    /// Bytes in the order of the IDs.
    pub fn to_bytes(self) -> [u8; 16] {
        self.number().to_be_bytes()
    }

    /// The ID that [`StreamId::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> StreamId {
        StreamId::from_number(u128::from_be_bytes(bytes))
    }

    /// The smallest larger ID.
    pub fn next(self) -> Option<StreamId> {
        self.number().checked_add(1).map(StreamId::from_number)
    }

    /// The largest smaller ID.
    pub fn previous(self) -> Option<StreamId> {
        self.number().checked_sub(1).map(StreamId::from_number)
    }
}

/// As clients write it: `ms-seq`.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A stream with its consumer groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// By rising ID.
    pub entries: Vec<StreamEntry>,
    /// The last ID ever added, not below that of any entry.
    pub last_id: StreamId,
    /// The largest ID ever deleted; zero if none was.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
    pub groups: Vec<StreamGroup>,
}

impl Stream {
    /// The ID of the first entry; zero in an empty stream.
    pub fn first_id(&self) -> StreamId {
        self.entries.first().map_or_else(StreamId::default, |entry| entry.id)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    pub id: StreamId,
    /// Fields with their values, one at least, as they were added. A field may occur twice.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// A consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamGroup {
    pub name: Bytes,
    /// The last ID delivered.
    pub last_id: StreamId,
    /// How many of the entries ever added were read, if that is known. At most `i64::MAX`.
    pub entries_read: Option<u64>,
    /// Entries delivered and not yet acknowledged, by rising ID. An entry may be deleted since.
    pub pending: Vec<Pending>,
    pub consumers: Vec<StreamConsumer>,
}

/// An entry that a consumer has yet to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub id: StreamId,
    /// Who has it: an index of [`StreamGroup::consumers`].
    pub consumer: usize,
    /// Unix ms of the last delivery.
    pub delivery_time: u64,
    pub delivery_count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamConsumer {
    pub name: Bytes,
    /// Unix ms of the last attempt to read or claim.
    pub seen_time: u64,
    /// Unix ms of the last read or claim that got something, if there was one. RDB version 10 does not keep it:
    /// there it is read as [`StreamConsumer::seen_time`].
    pub active_time: Option<u64>,
}
