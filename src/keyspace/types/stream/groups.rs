//! Consumer groups: their elements, and how they are read.

use bytes::Bytes;

use super::{Handle, after, id_in, malformed};
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};
use crate::rdb::StreamId;

/// What stands for a number that is not known.
const UNKNOWN: u64 = u64::MAX;

/// A consumer group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The last ID delivered.
    pub last_id: StreamId,
    /// How many of the entries ever added were delivered, if that is known.
    pub entries_read: Option<u64>,
    /// Entries that await acknowledgement.
    pub pending: u64,
    pub consumers: u64,
}

/// A consumer of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Unix ms of the last attempt to read or claim.
    pub seen: u64,
    /// Unix ms of the last read or claim that got something.
    pub active: Option<u64>,
    /// Entries that it has yet to acknowledge.
    pub pending: u64,
}

/// A delivered entry that awaits acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Unix ms of the last delivery.
    pub time: u64,
    /// Deliveries.
    pub count: u64,
    /// Who has it.
    pub consumer: Bytes,
}

fn put<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn take<const N: usize>(bytes: &[u8]) -> Result<([u64; N], &[u8]), Error> {
    let short = || malformed("record");
    let (encoded, rest) = bytes.split_at_checked(8 * N).ok_or_else(short)?;
    let mut numbers = [0; N];
    numbers.iter_mut().zip(encoded.as_chunks().0).for_each(|(number, bytes)| *number = u64::from_le_bytes(*bytes));
    Ok((numbers, rest))
}

impl Group {
    /// Bytes of an encoded one.
    pub(super) const LEN: usize = 40;

    fn encode(&self) -> Bytes {
        let StreamId { ms, seq } = self.last_id;
        put([ms, seq, self.entries_read.unwrap_or(UNKNOWN), self.pending, self.consumers]).into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Group, Error> {
        let ([ms, seq, read, pending, consumers], _) = take(bytes)?;
        let entries_read = Some(read).filter(|read| *read != UNKNOWN);
        Ok(Group { last_id: StreamId { ms, seq }, entries_read, pending, consumers })
    }
}

impl Consumer {
    /// Bytes of an encoded one.
    pub(super) const LEN: usize = 24;

    fn encode(&self) -> Bytes {
        put([self.seen, self.active.unwrap_or(UNKNOWN), self.pending]).into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Consumer, Error> {
        let ([seen, active, pending], _) = take(bytes)?;
        Ok(Consumer { seen, active: Some(active).filter(|active| *active != UNKNOWN), pending })
    }
}

impl Delivery {
    fn encode(&self) -> Bytes {
        let mut out = put([self.time, self.count]);
        out.extend_from_slice(&self.consumer);
        out.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Delivery, Error> {
        let ([time, count], consumer) = take(bytes)?;
        Ok(Delivery { time, count, consumer: Bytes::copy_from_slice(consumer) })
    }
}

/// The suffix of a group.
fn group_suffix(name: &[u8]) -> Vec<u8> {
    [b"g", name].concat()
}

/// What the suffixes of a kind of a group's elements begin with.
fn of_group(letter: &[u8], group: &[u8]) -> Vec<u8> {
    [letter, &(group.len() as u32).to_be_bytes(), group].concat()
}

fn consumer_suffix(group: &[u8], name: &[u8]) -> Vec<u8> {
    [&of_group(b"c", group), name].concat()
}

pub(super) fn pending_suffix(group: &[u8], id: StreamId) -> Vec<u8> {
    [&of_group(b"p", group)[..], &id.to_bytes()].concat()
}

fn of_consumer(group: &[u8], consumer: &[u8]) -> Vec<u8> {
    [&of_group(b"o", group)[..], &(consumer.len() as u32).to_be_bytes(), consumer].concat()
}

pub(super) fn owned_suffix(group: &[u8], consumer: &[u8], id: StreamId) -> Vec<u8> {
    [&of_consumer(group, consumer)[..], &id.to_bytes()].concat()
}

/// The smallest suffix above all that begin with `prefix`, which begins with a letter.
fn above(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

fn read(state: &mut dyn Read, stream: &Handle, suffix: &[u8]) -> Result<Option<Bytes>, Error> {
    state.element(Space::Data, &stream.element_key(&[suffix]))
}

fn write(state: &mut dyn State, stream: &Handle, suffix: &[u8], value: Option<Bytes>) {
    state.put_element(Space::Data, stream.element_key(&[suffix]), value);
}

/// A group of the stream.
pub fn group(state: &mut dyn Read, stream: &Handle, name: &[u8]) -> Result<Option<Group>, Error> {
    read(state, stream, &group_suffix(name))?.map(|value| Group::decode(&value)).transpose()
}

pub(super) fn put_group(state: &mut dyn State, stream: &Handle, name: &[u8], group: Option<&Group>) {
    write(state, stream, &group_suffix(name), group.map(Group::encode));
}

/// A consumer of a group.
pub fn consumer(state: &mut dyn Read, stream: &Handle, group: &[u8], name: &[u8]) -> Result<Option<Consumer>, Error> {
    read(state, stream, &consumer_suffix(group, name))?.map(|value| Consumer::decode(&value)).transpose()
}

pub(super) fn put_consumer(
    state: &mut dyn State,
    stream: &Handle,
    group: &[u8],
    name: &[u8],
    consumer: Option<&Consumer>,
) {
    write(state, stream, &consumer_suffix(group, name), consumer.map(Consumer::encode));
}

/// How an entry was delivered that awaits acknowledgement in a group.
pub fn delivery(state: &mut dyn Read, stream: &Handle, group: &[u8], id: StreamId) -> Result<Option<Delivery>, Error> {
    read(state, stream, &pending_suffix(group, id))?.map(|value| Delivery::decode(&value)).transpose()
}

/// Makes `new` the delivery of an entry, of which `old` is the present one, with whoever has it.
pub(super) fn put_delivery(
    state: &mut dyn State,
    stream: &Handle,
    group: &[u8],
    id: StreamId,
    old: Option<&Delivery>,
    new: Option<&Delivery>,
) {
    write(state, stream, &pending_suffix(group, id), new.map(Delivery::encode));
    let (old, new) = (old.map(|old| &old.consumer), new.map(|new| &new.consumer));
    if old != new {
        if let Some(old) = old {
            write(state, stream, &owned_suffix(group, old, id), None);
        }
        if let Some(new) = new {
            write(state, stream, &owned_suffix(group, new, id), Some(Bytes::new()));
        }
    }
}

/// The stream's groups by name, in the order of these.
pub fn groups(state: &mut dyn Read, stream: &Handle) -> Result<Vec<(Bytes, Group)>, Error> {
    named(state, stream, b"g".to_vec(), Group::decode)
}

/// A group's consumers by name, in the order of these.
pub fn consumers(state: &mut dyn Read, stream: &Handle, group: &[u8]) -> Result<Vec<(Bytes, Consumer)>, Error> {
    named(state, stream, of_group(b"c", group), Consumer::decode)
}

fn named<T>(
    state: &mut dyn Read,
    stream: &Handle,
    prefix: Vec<u8>,
    decode: fn(&[u8]) -> Result<T, Error>,
) -> Result<Vec<(Bytes, T)>, Error> {
    let mut found = Vec::new();
    stream.each(state, Space::Data, &prefix, Some(&above(prefix.clone())), false, &mut |suffix, value| {
        let name = suffix.get(prefix.len()..).unwrap_or_default();
        found.push(decode(value).map(|decoded| (Bytes::copy_from_slice(name), decoded)));
        true
    })?;
    found.into_iter().collect()
}

/// Calls `f` with the IDs from `first` to `last`, both included, that await acknowledgement in a group, until it returns false.
pub fn each_pending(
    state: &mut dyn Read,
    stream: &Handle,
    group: &[u8],
    (first, last): (StreamId, StreamId),
    f: &mut dyn FnMut(StreamId, Delivery) -> bool,
) -> Result<(), Error> {
    let mut sound = Ok(());
    let (from, to) = (pending_suffix(group, first), after(&of_group(b"p", group), last));
    stream.each(state, Space::Data, &from, Some(&to), false, &mut |suffix, value| match Delivery::decode(value) {
        Ok(delivery) => f(id_in(suffix), delivery),
        Err(error) => {
            sound = Err(error);
            false
        }
    })?;
    sound
}

/// Calls `f` with the IDs from `first` to `last`, both included, that a consumer has yet to acknowledge, until it returns false.
pub fn each_owned(
    state: &mut dyn Read,
    stream: &Handle,
    (group, consumer): (&[u8], &[u8]),
    (first, last): (StreamId, StreamId),
    f: &mut dyn FnMut(StreamId) -> bool,
) -> Result<(), Error> {
    let (from, to) = (owned_suffix(group, consumer, first), after(&of_consumer(group, consumer), last));
    stream.each(state, Space::Data, &from, Some(&to), false, &mut |suffix, _| f(id_in(suffix)))
}

/// The first and the last ID that await acknowledgement in a group.
pub fn pending_range(
    state: &mut dyn Read,
    stream: &Handle,
    group: &[u8],
) -> Result<Option<(StreamId, StreamId)>, Error> {
    let prefix = of_group(b"p", group);
    let to = above(prefix.clone());
    let mut edge = |reverse: bool| {
        let mut found = None;
        stream.each(state, Space::Data, &prefix, Some(&to), reverse, &mut |suffix, _| {
            found = Some(id_in(suffix));
            false
        })?;
        Ok::<_, Error>(found)
    };
    Ok(edge(false)?.zip(edge(true)?))
}

/// Removes a group with all that belongs to it.
pub(super) fn drop_group(state: &mut dyn State, stream: &Handle, name: &[u8]) -> Result<(), Error> {
    let mut gone = vec![stream.element_key(&[&group_suffix(name)])];
    for letter in [b"c", b"o", b"p"] {
        let prefix = of_group(letter, name);
        stream.each(state, Space::Data, &prefix, Some(&above(prefix.clone())), false, &mut |suffix, _| {
            gone.push(stream.element_key(&[suffix]));
            true
        })?;
    }
    gone.into_iter().for_each(|key| state.put_element(Space::Data, key, None));
    Ok(())
}
