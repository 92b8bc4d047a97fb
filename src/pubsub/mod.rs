//! Everything that is sent to clients without being asked for at that moment: messages of channels, the notifications of
//! what happens to keys, MONITOR's lines, the invalidations of CLIENT TRACKING; and CLIENT PAUSE, which holds commands back.
//!
//! Whoever causes a message appends it, encoded, to the outbox of each receiver ([`crate::net::ClientInfo::send`]), whose connection writes it
//! behind the replies that are due. What a client causes itself stands behind the reply of the command that caused it.

mod monitor;
mod outlet;
mod pause;
mod subscriptions;
mod tracking;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::command::glob;
use crate::config::{Config, EventClasses};
use crate::net::ClientInfo;
use outlet::{Message, Outlet};

pub use monitor::Monitors;
pub use pause::{Pause, PauseKind};
pub use subscriptions::Subscriptions;
pub use tracking::{Tracked, TrackedBy, Tracking, TrackingOptions};

/// Kinds of keyspace notifications, as the letters of `notify-keyspace-events` choose them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventClass {
    /// `g`: DEL, EXPIRE, RENAME …
    Generic,
    /// `$`
    String,
    /// `l`
    List,
    /// `s`
    Set,
    /// `h`
    Hash,
    /// `z`
    Zset,
    /// `x`
    Expired,
    /// `e`
    Evicted,
    /// `t`
    Stream,
    /// `m`: a read of a key that is not there.
    KeyMiss,
    /// `n`
    New,
}

impl EventClass {
    const fn setting(self) -> EventClasses {
        match self {
            EventClass::Generic => EventClasses::GENERIC,
            EventClass::String => EventClasses::STRING,
            EventClass::List => EventClasses::LIST,
            EventClass::Set => EventClasses::SET,
            EventClass::Hash => EventClasses::HASH,
            EventClass::Zset => EventClasses::ZSET,
            EventClass::Expired => EventClasses::EXPIRED,
            EventClass::Evicted => EventClasses::EVICTED,
            EventClass::Stream => EventClasses::STREAM,
            EventClass::KeyMiss => EventClasses::KEY_MISS,
            EventClass::New => EventClasses::NEW,
        }
    }
}

/// What a client can listen to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// SUBSCRIBE
    Channel,
    /// PSUBSCRIBE
    Pattern,
    /// SSUBSCRIBE
    Shard,
}

/// The clients that listen to a topic, by id.
type Listeners = BTreeMap<u64, Arc<ClientInfo>>;

/// Who listens to which channel.
pub struct PubSub {
    outlet: Outlet,
    topics: RwLock<Topics>,
    /// Entries of all topics together.
    listeners: AtomicUsize,
}

#[derive(Default)]
struct Topics {
    channels: HashMap<Bytes, Listeners>,
    patterns: BTreeMap<Bytes, Listeners>,
    shard_channels: HashMap<Bytes, Listeners>,
}

impl Topics {
    fn listeners(&mut self, topic: Topic, name: &Bytes) -> &mut Listeners {
        match topic {
            Topic::Channel => self.channels.entry(name.clone()).or_default(),
            Topic::Pattern => self.patterns.entry(name.clone()).or_default(),
            Topic::Shard => self.shard_channels.entry(name.clone()).or_default(),
        }
    }

    fn forget(&mut self, topic: Topic, name: &Bytes) {
        match topic {
            Topic::Channel => drop(self.channels.remove(name)),
            Topic::Pattern => drop(self.patterns.remove(name)),
            Topic::Shard => drop(self.shard_channels.remove(name)),
        }
    }

    fn matching(&self, channel: &[u8]) -> impl Iterator<Item = (&Bytes, &Listeners)> {
        self.patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel))
    }
}

impl PubSub {
    /// Nobody listens.
    pub fn new(config: Arc<Config>) -> Self {
        PubSub { outlet: Outlet::new(config), topics: RwLock::default(), listeners: AtomicUsize::new(0) }
    }

    fn listen(&self, topic: Topic, name: &Bytes, client: &Arc<ClientInfo>) {
        // A copy: the bytes at hand may be a small part of a large buffer.
        let name = Bytes::copy_from_slice(name);
        if self.topics.write().listeners(topic, &name).insert(client.id, client.clone()).is_none() {
            self.listeners.fetch_add(1, Relaxed);
        }
    }

    fn leave(&self, topic: Topic, name: &Bytes, client: u64) {
        let mut topics = self.topics.write();
        let listeners = topics.listeners(topic, name);
        let listened = listeners.remove(&client).is_some();
        if listeners.is_empty() {
            topics.forget(topic, name);
        }
        if listened {
            self.listeners.fetch_sub(1, Relaxed);
        }
    }

    /// How many clients a message to a channel would reach now; one that listens to it in several ways counts as often.
    pub fn receivers(&self, channel: &[u8], shard: bool) -> usize {
        if self.listeners.load(Relaxed) == 0 {
            return 0;
        }
        let topics = self.topics.read();
        if shard {
            return topics.shard_channels.get(channel).map_or(0, Listeners::len);
        }
        topics.channels.get(channel).map_or(0, Listeners::len)
            + topics.matching(channel).map(|(_, listeners)| listeners.len()).sum::<usize>()
    }

    /// Sends a message to whoever listens to its channel.
    pub fn publish(&self, channel: &[u8], message: &[u8], shard: bool) {
        if self.listeners.load(Relaxed) == 0 {
            return;
        }
        let topics = self.topics.read();
        if shard {
            if let Some(listeners) = topics.shard_channels.get(channel) {
                self.deliver(listeners, Message::new(&[b"smessage", channel, message]));
            }
            return;
        }
        if let Some(listeners) = topics.channels.get(channel) {
            self.deliver(listeners, Message::new(&[b"message", channel, message]));
        }
        for (pattern, listeners) in topics.matching(channel) {
            self.deliver(listeners, Message::new(&[b"pmessage", pattern, channel, message]));
        }
    }

    fn deliver(&self, listeners: &Listeners, mut message: Message) {
        for client in listeners.values() {
            self.outlet.send(client, message.encoded(client.proto()));
        }
    }

    /// Whether notifications of this class are wanted and somebody may listen to them.
    pub fn wants(&self, class: EventClass) -> bool {
        self.listeners.load(Relaxed) > 0 && self.outlet.config().notify_keyspace_events().publishes(class.setting())
    }

    /// Tells who listens of an event on a key.
    pub fn notify(&self, db: usize, class: EventClass, event: &str, key: &[u8]) {
        if !self.wants(class) {
            return;
        }
        let classes = self.outlet.config().notify_keyspace_events();
        if classes.has(EventClasses::KEYSPACE) {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.publish(&channel, event.as_bytes(), false);
        }
        if classes.has(EventClasses::KEYEVENT) {
            self.publish(format!("__keyevent@{db}__:{event}").as_bytes(), key, false);
        }
    }

    /// The channels that somebody listens to, of these only the ones that match a pattern.
    pub fn channels(&self, shard: bool, pattern: Option<&[u8]>) -> Vec<Bytes> {
        let topics = self.topics.read();
        let channels = if shard { &topics.shard_channels } else { &topics.channels };
        let wanted = |channel: &&Bytes| pattern.is_none_or(|pattern| glob::matches(pattern, channel));
        channels.keys().filter(wanted).cloned().collect()
    }

    /// How many clients listen to a channel by its name.
    pub fn listeners_of(&self, shard: bool, channel: &[u8]) -> usize {
        let topics = self.topics.read();
        let channels = if shard { &topics.shard_channels } else { &topics.channels };
        channels.get(channel).map_or(0, Listeners::len)
    }

    /// Channels, patterns and shard channels that somebody listens to.
    pub fn counts(&self) -> (usize, usize, usize) {
        let topics = self.topics.read();
        (topics.channels.len(), topics.patterns.len(), topics.shard_channels.len())
    }
}
