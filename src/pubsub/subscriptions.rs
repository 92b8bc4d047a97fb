//! What one client listens to.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{PubSub, Topic};
use crate::net::ClientInfo;

/// The topics of a client. They end with it.
#[derive(Default)]
pub struct Subscriptions {
    /// Where they are entered, and for whom, once there are any.
    entered: Option<(Arc<PubSub>, Arc<ClientInfo>)>,
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
    shard_channels: BTreeSet<Bytes>,
}

impl Subscriptions {
    /// Whether the client listens to anything.
    pub fn any(&self) -> bool {
        !(self.channels.is_empty() && self.patterns.is_empty() && self.shard_channels.is_empty())
    }

    fn of(&mut self, topic: Topic) -> &mut BTreeSet<Bytes> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
            Topic::Shard => &mut self.shard_channels,
        }
    }

    /// What it listens to of one kind.
    pub fn list(&self, topic: Topic) -> impl Iterator<Item = &Bytes> {
        match topic {
            Topic::Channel => &self.channels,
            Topic::Pattern => &self.patterns,
            Topic::Shard => &self.shard_channels,
        }
        .iter()
    }

    /// The number that answers to SUBSCRIBE and its kin tell: of shard channels, or of channels and patterns together.
    pub fn count(&self, topic: Topic) -> usize {
        match topic {
            Topic::Channel | Topic::Pattern => self.channels.len() + self.patterns.len(),
            Topic::Shard => self.shard_channels.len(),
        }
    }

    /// Listens to a topic from now on.
    pub fn add(&mut self, pubsub: &Arc<PubSub>, client: &Arc<ClientInfo>, topic: Topic, name: &Bytes) {
        if !self.of(topic).contains(name) {
            self.of(topic).insert(Bytes::copy_from_slice(name));
            self.entered.get_or_insert_with(|| (pubsub.clone(), client.clone()));
            self.show();
            pubsub.listen(topic, name, client);
        }
    }

    /// Listens to it no more.
    pub fn remove(&mut self, topic: Topic, name: &Bytes) {
        if self.of(topic).remove(name)
            && let Some((pubsub, client)) = &self.entered
        {
            pubsub.leave(topic, name, client.id);
            self.show();
        }
    }

    /// Listens to nothing.
    pub fn clear(&mut self) {
        for topic in [Topic::Channel, Topic::Pattern, Topic::Shard] {
            let names = std::mem::take(self.of(topic));
            if let Some((pubsub, client)) = &self.entered {
                names.iter().for_each(|name| pubsub.leave(topic, name, client.id));
            }
        }
        self.show();
        self.entered = None;
    }

    fn show(&self) {
        if let Some((_, client)) = &self.entered {
            client.set_subscriptions(self.channels.len(), self.patterns.len(), self.shard_channels.len());
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.clear();
    }
}
