//! Channels, and the notifications of what happens to keys.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;

/// Kinds of keyspace notifications, as the letters of `notify-keyspace-events` choose them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum EventClass {
    /// `g`: DEL, EXPIRE, RENAME …
    Generic = 1 << 2,
    /// `$`
    String = 1 << 3,
    /// `l`
    List = 1 << 4,
    /// `s`
    Set = 1 << 5,
    /// `h`
    Hash = 1 << 6,
    /// `z`
    Zset = 1 << 7,
    /// `x`
    Expired = 1 << 8,
    /// `e`
    Evicted = 1 << 9,
    /// `t`
    Stream = 1 << 10,
    /// `m`: a read of a key that is not there.
    KeyMiss = 1 << 11,
    /// `n`
    New = 1 << 14,
}

/// Who listens to which channel.
#[derive(Default)]
pub struct PubSub {
    /// The wanted classes of notifications.
    classes: AtomicU32,
}

impl PubSub {
    /// Whether notifications of this class are wanted.
    pub fn wants(&self, class: EventClass) -> bool {
        self.classes.load(Relaxed) & class as u32 != 0
    }

    /// Tells who listens of an event on a key.
    pub fn notify(&self, _db: usize, _class: EventClass, _event: &str, _key: &Bytes) {}
}
