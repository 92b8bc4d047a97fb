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

/// What a group's consumer says of its pending entries, and what was found.
#[derive(Default)]
struct Owned {
    /// `None` as long as the consumer itself was not met.
    said: Option<u64>,
    found: u64,
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

/// Takes as much memory as there are groups and consumers, whatever the stream's length.
struct Verifier<'v, 'f, S> {
    state: S,
    stream: &'v Handle,
    head: Head,
    pruned: bool,
    flaws: &'v Flaws<'f>,
    entries: Entries,
    groups: BTreeMap<Vec<u8>, Group>,
    /// Pending entries and consumers by group.
    of_groups: BTreeMap<Vec<u8>, (u64, u64)>,
    /// By group and name.
    consumers: BTreeMap<(Vec<u8>, Vec<u8>), Owned>,
}

/// Verifies a stream; how many elements it has.
pub fn verify(state: impl Lookup, stream: &Handle, pruned: bool, flaws: &Flaws<'_>) -> Result<u64, Error> {
    let mut verifier = Verifier {
        state,
        stream,
        head: Head::of(stream),
        pruned,
        flaws,
        entries: Entries::default(),
        groups: BTreeMap::new(),
        of_groups: BTreeMap::new(),
        consumers: BTreeMap::new(),
    };
    let (mut reader, mut count) = (state, 0);
    stream.each(&mut reader, Space::Data, &[], None, false, &mut |suffix, value| {
        count += 1;
        if verifier.element(suffix, value).is_none() {
            flaws.add(format!("an element of the stream is malformed: {}", show(suffix)));
        }
        !flaws.failed()
    })?;
    if !matches!(stream.collection.extra.len(), 0 | Head::ENCODED_LEN) {
        flaws.add("the entry of the stream has another length than it should".into());
    }
    if !pruned && !flaws.failed() {
        verifier.entries_agree();
        verifier.groups_agree();
    }
    Ok(count)
}

impl<S: Lookup> Verifier<'_, '_, S> {
    /// `None` for a malformed one.
    fn element(&mut self, suffix: &[u8], value: &[u8]) -> Option<()> {
        let (letter, rest) = suffix.split_first()?;
        match letter {
            b'e' => {
                let entry = Entry::decode(value).filter(|entry| rest.len() == ID_LEN && entry.is_whole())?;
                self.entry(id_in(suffix), entry.node);
            }
            b'g' => {
                let group = Group::decode(value).ok().filter(|_| value.len() == Group::LEN)?;
                self.groups.insert(rest.to_vec(), group);
            }
            b'c' => {
                let (group, name) = take_name(rest)?;
                let consumer = Consumer::decode(value).ok().filter(|_| value.len() == Consumer::LEN)?;
                self.of_groups.entry(group.to_vec()).or_default().1 += 1;
                self.consumers.entry((group.to_vec(), name.to_vec())).or_default().said = Some(consumer.pending);
            }
            b'o' => {
                let (group, rest) = take_name(rest)?;
                let (name, id) = take_name(rest).filter(|(_, id)| id.len() == ID_LEN && value.is_empty())?;
                self.consumers.entry((group.to_vec(), name.to_vec())).or_default().found += 1;
                if self.lacks(pending_suffix(group, id_in(id))) {
                    let (id, name) = (id_in(id), show(name));
                    self.flaws.add(format!("consumer {name} of group {} has {id}, which is not pending", show(group)));
                }
            }
            b'p' => {
                let (group, id) = take_name(rest).filter(|(_, id)| id.len() == ID_LEN)?;
                let delivery = Delivery::decode(value).ok()?;
                self.of_groups.entry(group.to_vec()).or_default().0 += 1;
                if self.lacks(owned_suffix(group, &delivery.consumer, id_in(id))) {
                    let (id, name, group) = (id_in(id), show(&delivery.consumer), show(group));
                    let flaw = format!("{id} is pending in group {group} with consumer {name}, who does not have it");
                    self.flaws.add(flaw);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether an element that must be there is not.
    fn lacks(&self, suffix: Vec<u8>) -> bool {
        let looked_up = self.state.lookup(Space::Data, &self.stream.element_key(&[&suffix]));
        !self.pruned && self.flaws.known(looked_up) == Some(None)
    }

    fn entry(&mut self, id: StreamId, node: u64) {
        let entries = &mut self.entries;
        if entries.last.is_some_and(|(_, last)| node < last) {
            self.flaws.add(format!("entry {id} is in node {node}, which is before that of the entry before it"));
        }
        entries.count += 1;
        entries.in_first_node += u64::from(node == self.head.first_node);
        entries.in_last_node += u64::from(node == self.head.tail.node);
        entries.first = entries.first.or(Some((id, node)));
        entries.last = Some((id, node));
    }

    fn entries_agree(&self) {
        let Verifier { stream, head, flaws, entries, .. } = self;
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
        if entries.count > 0
            && (nodes.iter().any(|(is, said)| is != said) || entries.in_first_node != head.first_node_len)
        {
            flaws.add("the stream's first or last node is not as its entry says".into());
        }
    }

    fn groups_agree(&self) {
        let flaws = self.flaws;
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
        for ((group, name), Owned { said, found }) in &self.consumers {
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

/// A name with its length before it, and what follows.
fn take_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}
