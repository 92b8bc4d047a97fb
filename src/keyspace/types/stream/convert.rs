//! Streams as values, whole in memory, and back as the changes that make them.

use bytes::Bytes;

use super::{Change, Claim, Handle, Head, NodeLimits, each, each_pending, groups};
use crate::keyspace::Error;
use crate::keyspace::effect::Read;
use crate::rdb::{Pending, Stream, StreamConsumer, StreamEntry, StreamGroup, StreamId};

const EVERYTHING: (StreamId, StreamId) = (StreamId::MIN, StreamId::MAX);

/// Nodes of a stream that was not made entry by entry: Redis's defaults.
const LIMITS: NodeLimits = NodeLimits { entries: 100, bytes: 4096 };

/// Reads the whole stream.
pub fn load(state: &mut dyn Read, stream: &Handle) -> Result<Stream, Error> {
    let head = Head::of(stream);
    let mut value = Stream {
        last_id: head.last_id,
        max_deleted_id: head.max_deleted_id,
        entries_added: head.entries_added,
        ..Stream::default()
    };
    each(state, stream, StreamId::MIN, StreamId::MAX, false, &mut |id, entry| {
        let elements: Vec<Bytes> = entry.elements().map(Bytes::copy_from_slice).collect();
        let fields = elements.as_chunks().0.iter().map(|[field, value]| (field.clone(), value.clone())).collect();
        value.entries.push(StreamEntry { id, fields });
        true
    })?;
    for (name, group) in groups(state, stream)? {
        value.groups.push(load_group(state, stream, name, group)?);
    }
    Ok(value)
}

fn load_group(state: &mut dyn Read, stream: &Handle, name: Bytes, group: groups::Group) -> Result<StreamGroup, Error> {
    let consumers = groups::consumers(state, stream, &name)?;
    let mut pending = Vec::new();
    each_pending(state, stream, &name, EVERYTHING, &mut |id, delivery| {
        // Consumers stand in the order of their names.
        if let Ok(consumer) = consumers.binary_search_by(|(name, _)| name.cmp(&delivery.consumer)) {
            let (delivery_time, delivery_count) = (delivery.time, delivery.count);
            pending.push(Pending { id, consumer, delivery_time, delivery_count });
        }
        true
    })?;
    let consumers = consumers.into_iter().map(|(name, consumer)| StreamConsumer {
        name,
        seen_time: consumer.seen,
        active_time: consumer.active,
    });
    Ok(StreamGroup {
        name,
        last_id: group.last_id,
        entries_read: group.entries_read,
        pending,
        consumers: consumers.collect(),
    })
}

/// The changes that make an empty stream this one.
pub fn changes(value: Stream) -> Vec<Change> {
    let Stream { entries, last_id, max_deleted_id, entries_added, groups } = value;
    let mut changes = Vec::with_capacity(entries.len() + 1);
    let mut head = Head::default();
    for (len, StreamEntry { id, fields }) in (0..).zip(entries) {
        let elements: Vec<Bytes> = fields.into_iter().flat_map(|(field, value)| [field, value]).collect();
        let opens_node = head.opens_node(&elements, LIMITS);
        head.add(id, opens_node, &elements, len);
        changes.push(Change::Add { id, opens_node, elements });
    }
    changes.push(Change::SetId { last_id, entries_added, max_deleted_id });
    groups.into_iter().for_each(|group| group_changes(group, &mut changes));
    changes
}

fn group_changes(group: StreamGroup, changes: &mut Vec<Change>) {
    let StreamGroup { name: group, last_id, entries_read, pending, consumers } = group;
    changes.push(Change::Group { name: group.clone(), last_id, entries_read });
    for (index, StreamConsumer { name, seen_time: seen, active_time: active }) in consumers.into_iter().enumerate() {
        changes.push(Change::Consumer { group: group.clone(), name: name.clone(), seen, active });
        let own = pending.iter().filter(|pending| pending.consumer == index);
        let claims: Vec<Claim> =
            own.map(|own| Claim { id: own.id, time: own.delivery_time, count: own.delivery_count }).collect();
        if !claims.is_empty() {
            changes.push(Change::Claim { group: group.clone(), consumer: name, claims });
        }
    }
}
