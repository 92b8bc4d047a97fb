//! The changes to a stream that a log can hold.

use std::collections::HashMap;

use bytes::Bytes;

use super::groups::{self, Consumer, Delivery, Group};
use super::{Head, StreamId, each, encode_entry, entry_key, malformed};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::State;
use crate::keyspace::types::{Handle, Outcome};

/// An entry that a consumer gets, or has got, and has yet to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: StreamId,
    /// Unix ms of the last delivery.
    pub time: u64,
    /// Deliveries.
    pub count: u64,
}

/// A change to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `XADD key [NEWNODE] id field value [field value ...]`, with an ID above the last one.
    Add { id: StreamId, opens_node: bool, elements: Vec<Bytes> },
    /// `XDEL key id [id ...]`
    Del(Vec<StreamId>),
    /// `XTRIM key THROUGH id`: the entries up to this ID are gone.
    Trim { through: StreamId },
    /// `XSETID key last-id ENTRIESADDED n MAXDELETEDID id`
    SetId { last_id: StreamId, entries_added: u64, max_deleted_id: StreamId },
    /// `XGROUP key SETID group last-id entries-read`: the group is made if it does not exist. -1: not known.
    Group { name: Bytes, last_id: StreamId, entries_read: Option<u64> },
    /// `XGROUP key DESTROY group`
    DestroyGroup(Bytes),
    /// `XGROUP key CONSUMER group consumer seen-ms active-ms`: the consumer is made if it does not exist. -1: never.
    Consumer { group: Bytes, name: Bytes, seen: u64, active: Option<u64> },
    /// `XGROUP key DELCONSUMER group consumer`: what it has yet to acknowledge is forgotten.
    DelConsumer { group: Bytes, name: Bytes },
    /// `XCLAIM key group consumer id delivery-ms deliveries [id ...]`: the consumer has these from now on.
    Claim { group: Bytes, consumer: Bytes, claims: Vec<Claim> },
    /// `XACK key group id [id ...]`
    Ack { group: Bytes, ids: Vec<StreamId> },
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A number, or -1.
fn parse_known(digits: &[u8]) -> Option<Option<u64>> {
    if digits == b"-1" { Some(None) } else { parse_number(digits).map(Some) }
}

fn parse_id(text: &[u8]) -> Option<StreamId> {
    let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(StreamId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
}

fn parse_ids(args: &[Bytes]) -> Option<Vec<StreamId>> {
    args.iter().map(|id| parse_id(id)).collect()
}

fn known(number: Option<u64>) -> Bytes {
    number.map_or_else(|| "-1".to_owned(), |number| number.to_string()).into()
}

fn text(value: impl ToString) -> Bytes {
    value.to_string().into()
}

impl Change {
    /// Adds it to a record's body.
    pub fn encode(&self, key: &[u8], body: &mut Vec<u8>) {
        let word = Bytes::from_static;
        let (name, args): (&[u8], Vec<Bytes>) = match self {
            Change::Add { id, opens_node, elements } => {
                let new_node = opens_node.then(|| word(b"NEWNODE"));
                (b"XADD", new_node.into_iter().chain([text(id)]).chain(elements.iter().cloned()).collect())
            }
            Change::Del(ids) => (b"XDEL", ids.iter().map(text).collect()),
            Change::Trim { through } => (b"XTRIM", vec![word(b"THROUGH"), text(through)]),
            Change::SetId { last_id, entries_added, max_deleted_id } => {
                let (added, deleted) = (text(entries_added), text(max_deleted_id));
                (b"XSETID", vec![text(last_id), word(b"ENTRIESADDED"), added, word(b"MAXDELETEDID"), deleted])
            }
            Change::Group { name, last_id, entries_read } => {
                (b"XGROUP", vec![word(b"SETID"), name.clone(), text(last_id), known(*entries_read)])
            }
            Change::DestroyGroup(name) => (b"XGROUP", vec![word(b"DESTROY"), name.clone()]),
            Change::Consumer { group, name, seen, active } => {
                (b"XGROUP", vec![word(b"CONSUMER"), group.clone(), name.clone(), text(seen), known(*active)])
            }
            Change::DelConsumer { group, name } => (b"XGROUP", vec![word(b"DELCONSUMER"), group.clone(), name.clone()]),
            Change::Claim { group, consumer, claims } => {
                let claims = claims.iter().flat_map(|claim| [text(claim.id), text(claim.time), text(claim.count)]);
                (b"XCLAIM", [group.clone(), consumer.clone()].into_iter().chain(claims).collect())
            }
            Change::Ack { group, ids } => (b"XACK", [group.clone()].into_iter().chain(ids.iter().map(text)).collect()),
        };
        let args: Vec<&[u8]> = [name, key].into_iter().chain(args.iter().map(|arg| &arg[..])).collect();
        put_effect(body, &args);
    }

    /// Reads it from its arguments after the key.
    pub fn decode(name: &[u8], args: Vec<Bytes>) -> Option<Change> {
        let words: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
        match (name, words.as_slice()) {
            (b"XADD", [first, ..]) => {
                let opens_node = *first == b"NEWNODE";
                let (id, elements) = args.get(usize::from(opens_node)..)?.split_first()?;
                let paired = !elements.is_empty() && elements.len() % 2 == 0;
                paired.then_some(Change::Add { id: parse_id(id)?, opens_node, elements: elements.to_vec() })
            }
            (b"XDEL", _) => Some(Change::Del(parse_ids(&args)?)),
            (b"XTRIM", [b"THROUGH", id]) => Some(Change::Trim { through: parse_id(id)? }),
            (b"XSETID", [last, b"ENTRIESADDED", added, b"MAXDELETEDID", deleted]) => Some(Change::SetId {
                last_id: parse_id(last)?,
                entries_added: parse_number(added)?,
                max_deleted_id: parse_id(deleted)?,
            }),
            (b"XGROUP", [b"SETID", _, id, read]) => {
                Some(Change::Group { name: args[1].clone(), last_id: parse_id(id)?, entries_read: parse_known(read)? })
            }
            (b"XGROUP", [b"DESTROY", _]) => Some(Change::DestroyGroup(args[1].clone())),
            (b"XGROUP", [b"CONSUMER", _, _, seen, active]) => Some(Change::Consumer {
                group: args[1].clone(),
                name: args[2].clone(),
                seen: parse_number(seen)?,
                active: parse_known(active)?,
            }),
            (b"XGROUP", [b"DELCONSUMER", _, _]) => {
                Some(Change::DelConsumer { group: args[1].clone(), name: args[2].clone() })
            }
            (b"XCLAIM", [_, _, claims @ ..]) => {
                let (claims, []) = claims.as_chunks::<3>() else { return None };
                let claim = |[id, time, count]: &[&[u8]; 3]| {
                    Some(Claim { id: parse_id(id)?, time: parse_number(time)?, count: parse_number(count)? })
                };
                let claims = claims.iter().map(claim).collect::<Option<_>>()?;
                Some(Change::Claim { group: args[0].clone(), consumer: args[1].clone(), claims })
            }
            (b"XACK", [_, ..]) => Some(Change::Ack { group: args[0].clone(), ids: parse_ids(&args[1..])? }),
            _ => None,
        }
    }

    /// Makes the change; counts the entries, or what is pending, that are new or gone, and groups and consumers that are.
    pub fn apply(&self, stream: &mut Handle, state: &mut dyn State) -> Result<Outcome, Error> {
        match self {
            Change::Add { id, opens_node, elements } => {
                let mut head = Head::of(stream);
                let node = head.add(*id, *opens_node, elements, stream.len());
                state.put_element(Space::Data, entry_key(stream, *id), Some(encode_entry(node, elements)));
                stream.collection.count += 1;
                save(stream, &head, state);
                Ok(Outcome::of(1))
            }
            Change::Del(ids) => {
                let mut head = Head::of(stream);
                let mut gone = Vec::new();
                for id in ids {
                    let node = super::with_entry(state, stream, *id, |entry| entry.node)?;
                    if let Some(node) = node {
                        state.put_element(Space::Data, entry_key(stream, *id), None);
                        head.max_deleted_id = head.max_deleted_id.max(*id);
                        gone.push((*id, node));
                    }
                }
                remove(stream, head, &gone, state)
            }
            Change::Trim { through } => {
                let mut gone = Vec::new();
                each(state, stream, StreamId::MIN, *through, false, &mut |id, entry| {
                    gone.push((id, entry.node));
                    true
                })?;
                gone.iter().for_each(|(id, _)| state.put_element(Space::Data, entry_key(stream, *id), None));
                remove(stream, Head::of(stream), &gone, state)
            }
            Change::SetId { last_id, entries_added, max_deleted_id } => {
                let (last_id, entries_added, max_deleted_id) = (*last_id, *entries_added, *max_deleted_id);
                let old = Head::of(stream);
                let head = Head { last_id, entries_added, max_deleted_id, ..old.clone() };
                let changed = head != old;
                save(stream, &head, state);
                Ok(Outcome { changed, count: u64::from(changed) })
            }
            Change::Group { name, last_id, entries_read } => {
                let old = groups::group(state, stream, name)?;
                let kept = old.unwrap_or_default();
                let group = Group { last_id: *last_id, entries_read: *entries_read, ..kept };
                groups::put_group(state, stream, name, Some(&group));
                if old.is_none() {
                    stream.save(state);
                }
                Ok(Outcome { changed: old != Some(group), count: u64::from(old.is_none()) })
            }
            Change::DestroyGroup(name) => {
                let exists = groups::group(state, stream, name)?.is_some();
                if exists {
                    groups::drop_group(state, stream, name)?;
                    stream.save(state);
                }
                Ok(Outcome::of(u64::from(exists)))
            }
            Change::Consumer { group, name, seen, active } => set_consumer(stream, state, group, name, *seen, *active),
            Change::DelConsumer { group, name } => delete_consumer(stream, state, group, name),
            Change::Claim { group, consumer, claims } => claim(stream, state, group, consumer, claims),
            Change::Ack { group, ids } => acknowledge(stream, state, group, ids),
        }
    }
}

fn save(stream: &mut Handle, head: &Head, state: &mut dyn State) {
    stream.collection.extra = head.encode();
    stream.save(state);
}

/// Brings the entry of the stream in line with the removal of entries, given with their nodes.
fn remove(
    stream: &mut Handle,
    mut head: Head,
    gone: &[(StreamId, u64)],
    state: &mut dyn State,
) -> Result<Outcome, Error> {
    if gone.is_empty() {
        return Ok(Outcome::default());
    }
    let count = gone.len() as u64;
    gone.iter().for_each(|(_, node)| head.remove(*node));
    stream.collection.count = stream.collection.count.saturating_sub(count);
    if gone.iter().any(|(id, _)| *id == head.first_id) {
        head.find_first(state, stream)?;
    }
    save(stream, &head, state);
    Ok(Outcome::of(count))
}

fn group_of(stream: &Handle, state: &mut dyn State, name: &[u8]) -> Result<Group, Error> {
    groups::group(state, stream, name)?.ok_or_else(|| malformed("change of a group that does not exist"))
}

fn set_consumer(
    stream: &Handle,
    state: &mut dyn State,
    group_name: &[u8],
    name: &[u8],
    seen: u64,
    active: Option<u64>,
) -> Result<Outcome, Error> {
    let mut group = group_of(stream, state, group_name)?;
    let old = groups::consumer(state, stream, group_name, name)?;
    let consumer = Consumer { seen, active, pending: old.map_or(0, |old| old.pending) };
    groups::put_consumer(state, stream, group_name, name, Some(&consumer));
    if old.is_none() {
        group.consumers += 1;
        groups::put_group(state, stream, group_name, Some(&group));
    }
    Ok(Outcome { changed: old != Some(consumer), count: u64::from(old.is_none()) })
}

fn delete_consumer(stream: &Handle, state: &mut dyn State, group_name: &[u8], name: &[u8]) -> Result<Outcome, Error> {
    let mut group = group_of(stream, state, group_name)?;
    let Some(consumer) = groups::consumer(state, stream, group_name, name)? else { return Ok(Outcome::default()) };
    let mut ids = Vec::new();
    groups::each_owned(state, stream, (group_name, name), (StreamId::MIN, StreamId::MAX), &mut |id| {
        ids.push(id);
        true
    })?;
    for id in ids {
        let old = groups::delivery(state, stream, group_name, id)?;
        groups::put_delivery(state, stream, group_name, id, old.as_ref(), None);
    }
    groups::put_consumer(state, stream, group_name, name, None);
    group.consumers = group.consumers.saturating_sub(1);
    group.pending = group.pending.saturating_sub(consumer.pending);
    groups::put_group(state, stream, group_name, Some(&group));
    Ok(Outcome { changed: true, count: consumer.pending })
}

fn claim(
    stream: &Handle,
    state: &mut dyn State,
    group_name: &[u8],
    name: &Bytes,
    claims: &[Claim],
) -> Result<Outcome, Error> {
    let mut group = group_of(stream, state, group_name)?;
    let mut consumer = groups::consumer(state, stream, group_name, name)?
        .ok_or_else(|| malformed("change of a consumer that does not exist"))?;
    let mut taken: HashMap<Bytes, u64> = HashMap::new();
    for &Claim { id, time, count } in claims {
        let old = groups::delivery(state, stream, group_name, id)?;
        let new = Delivery { time, count, consumer: name.clone() };
        groups::put_delivery(state, stream, group_name, id, old.as_ref(), Some(&new));
        match old {
            Some(old) if old.consumer == *name => continue,
            Some(old) => *taken.entry(old.consumer).or_default() += 1,
            None => group.pending += 1,
        }
        consumer.pending += 1;
    }
    groups::put_group(state, stream, group_name, Some(&group));
    groups::put_consumer(state, stream, group_name, name, Some(&consumer));
    lighten(stream, state, group_name, taken)?;
    Ok(Outcome::of(claims.len() as u64))
}

fn acknowledge(stream: &Handle, state: &mut dyn State, group_name: &[u8], ids: &[StreamId]) -> Result<Outcome, Error> {
    let mut group = group_of(stream, state, group_name)?;
    let mut count = 0;
    let mut taken: HashMap<Bytes, u64> = HashMap::new();
    for id in ids {
        let Some(old) = groups::delivery(state, stream, group_name, *id)? else { continue };
        groups::put_delivery(state, stream, group_name, *id, Some(&old), None);
        *taken.entry(old.consumer).or_default() += 1;
        count += 1;
    }
    if count > 0 {
        group.pending = group.pending.saturating_sub(count);
        groups::put_group(state, stream, group_name, Some(&group));
        lighten(stream, state, group_name, taken)?;
    }
    Ok(Outcome::of(count))
}

/// These consumers have so many pending entries less.
fn lighten(stream: &Handle, state: &mut dyn State, group: &[u8], taken: HashMap<Bytes, u64>) -> Result<(), Error> {
    for (name, count) in taken {
        if let Some(mut consumer) = groups::consumer(state, stream, group, &name)? {
            consumer.pending = consumer.pending.saturating_sub(count);
            groups::put_consumer(state, stream, group, &name, Some(&consumer));
        }
    }
    Ok(())
}
