//! The invariants of a stream, verified on what is stored.

use std::collections::BTreeMap;

use super::groups::{Consumer, Delivery, Group, owned_suffix, pending_suffix};
use super::{Entry, Head, id_in};
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::types::Handle;
use crate::keyspace::types::verify::{Flaws, Lookup, show};
use crate::rdb::StreamId;

/// Bytes of an ID in a suffix.
const ID_LEN: usize = 16;

/// What groups and consumers say, and what was found of them. As many as there are groups and consumers, whatever the stream's length.
#[derive(Default)]
struct Found {
    groups: BTreeMap<Vec<u8>, Group>,
    /// Pending entries and consumers by group.
    of_groups: BTreeMap<Vec<u8>, (u64, u64)>,
    /// By group and consumer: what it says it has, and what was found.
    consumers: BTreeMap<(Vec<u8>, Vec<u8>), (Option<u64>, u64)>,
}

/// Entries as they come by.
#[derive(Default)]
struct Entries {
    count: u64,
    first: Option<(StreamId, u64)>,
    last: Option<(StreamId, u64)>,
    in_first_node: u64,
    in_last_node: u64,
}

/// Verifies a stream; how many elements it has.
pub fn verify(state: impl Lookup, stream: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let head = Head::of(stream);
    let (mut found, mut entries, mut count) = (Found::default(), Entries::default(), 0);
    let mut reader = state;
    stream.each(&mut reader, Space::Data, &[], None, false, &mut |suffix, value| {
        count += 1;
        if element(state, stream, &head, suffix, value, &mut found, &mut entries, pruned, flaws).is_none() {
            flaws.add(format!("an element of the stream is malformed: {}", show(suffix)));
        }
        !flaws.failed()
    })?;
    if !matches!(stream.collection.extra.len(), 0 | Head::ENCODED_LEN) {
        flaws.add("the entry of the stream has another length than it should".into());
    }
    if !pruned && !flaws.failed() {
        agree(stream, &head, &entries, flaws);
        found.agree(flaws);
    }
    Ok(count)
}

/// `None` for a malformed one.
#[allow(clippy::too_many_arguments)]
fn element(
    state: impl Lookup,
    stream: &Handle,
    head: &Head,
    suffix: &[u8],
    value: &[u8],
    found: &mut Found,
    entries: &mut Entries,
    pruned: bool,
    flaws: &Flaws<'_>,
) -> Option<()> {
    let (letter, rest) = suffix.split_first()?;
    let missing = |suffix: Vec<u8>| {
        let looked_up = state.lookup(Space::Data, &stream.element_key(&[&suffix]));
        !pruned && flaws.known(looked_up) == Some(None)
    };
    match letter {
        b'e' => {
            let entry = Entry::decode(value).filter(|entry| rest.len() == ID_LEN && entry.is_whole())?;
            entries.add(id_in(suffix), entry.node, head, flaws);
        }
        b'g' => {
            let group = Group::decode(value).ok().filter(|_| value.len() == Group::LEN)?;
            found.groups.insert(rest.to_vec(), group);
        }
        b'c' => {
            let (group, name) = take_name(rest)?;
            let consumer = Consumer::decode(value).ok().filter(|_| value.len() == Consumer::LEN)?;
            found.of_groups.entry(group.to_vec()).or_default().1 += 1;
            found.consumers.entry((group.to_vec(), name.to_vec())).or_default().0 = Some(consumer.pending);
        }
        b'o' => {
            let (group, rest) = take_name(rest)?;
            let (name, id) = take_name(rest).filter(|(_, id)| id.len() == ID_LEN && value.is_empty())?;
            found.consumers.entry((group.to_vec(), name.to_vec())).or_default().1 += 1;
            if missing(pending_suffix(group, id_in(id))) {
                let (id, name) = (id_in(id), show(name));
                flaws.add(format!("consumer {name} of group {} has {id}, which is not pending", show(group)));
            }
        }
        b'p' => {
            let (group, id) = take_name(rest).filter(|(_, id)| id.len() == ID_LEN)?;
            let delivery = Delivery::decode(value).ok()?;
            found.of_groups.entry(group.to_vec()).or_default().0 += 1;
            if missing(owned_suffix(group, &delivery.consumer, id_in(id))) {
                let (id, name) = (id_in(id), show(&delivery.consumer));
                flaws.add(format!(
                    "{id} is pending in group {} with consumer {name}, who does not have it",
                    show(group)
                ));
            }
        }
        _ => return None,
    }
    Some(())
}

/// A name with its length before it, and what follows.
fn take_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

impl Entries {
    fn add(&mut self, id: StreamId, node: u64, head: &Head, flaws: &Flaws<'_>) {
        if self.last.is_some_and(|(_, last)| node < last) {
            flaws.add(format!("entry {id} is in node {node}, which is before that of the entry before it"));
        }
        self.count += 1;
        self.in_first_node += u64::from(node == head.first_node);
        self.in_last_node += u64::from(node == head.tail.node);
        self.first = self.first.or(Some((id, node)));
        self.last = Some((id, node));
    }
}

fn agree(stream: &Handle, head: &Head, entries: &Entries, flaws: &Flaws<'_>) {
    if entries.count != stream.len() {
        flaws.add(format!("the stream says it has {} entries, {} are stored", stream.len(), entries.count));
        return;
    }
    let (first_id, first_node) = entries.first.unwrap_or_default();
    if first_id != head.first_id {
        flaws.add(format!("the stream begins with {first_id}, its entry says {}", head.first_id));
    }
    if let Some((last, _)) = entries.last.filter(|(last, _)| *last > head.last_id) {
        flaws.add(format!("the stream has an entry {last} above its last ID {}", head.last_id));
    }
    let nodes = [(first_node, head.first_node), (entries.in_last_node, head.tail.len)];
    if entries.count > 0 && (nodes.iter().any(|(is, said)| is != said) || entries.in_first_node != head.first_node_len)
    {
        flaws.add("the stream's first or last node is not as its entry says".into());
    }
}

impl Found {
    fn agree(&self, flaws: &Flaws<'_>) {
        for (name, group) in &self.groups {
            let (pending, consumers) = self.of_groups.get(name).copied().unwrap_or_default();
            if (group.pending, group.consumers) != (pending, consumers) {
                flaws.add(format!(
                    "group {} says it has {} pending entries and {} consumers, {pending} and {consumers} are stored",
                    show(name),
                    group.pending,
                    group.consumers
                ));
            }
        }
        for name in self.of_groups.keys().filter(|name| !self.groups.contains_key(*name)) {
            flaws.add(format!("something is left of group {}, which does not exist", show(name)));
        }
        for ((group, name), (said, found)) in &self.consumers {
            match said {
                Some(said) if said == found => {}
                Some(said) => flaws.add(format!(
                    "consumer {} of group {} says it has {said} pending entries, {found} are stored",
                    show(name),
                    show(group)
                )),
                None => flaws.add(format!(
                    "consumer {} of group {} does not exist, but has entries",
                    show(name),
                    show(group)
                )),
            }
        }
    }
}
