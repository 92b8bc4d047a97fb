//! What the entry of a stream says of it: IDs, counters, and its nodes.
//!
//! Redis keeps the entries of a stream in nodes, each a listpack of some entries that were added one after the other, and approximate
//! trimming removes whole nodes. Ours have no nodes, but remember where they would be: an entry names the node it was added to, a
//! number that rises by one with each node, and [`Tail`] knows what decides whether one more entry fits into the last one. Two things
//! are not remembered: what the node before the last one was like, to which Redis goes on adding when the last one has become empty
//! and there is room; and the last ID of a node once it is deleted, which for Redis still keeps the node from being below `MINID ~`.

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{Handle, each};
use crate::keyspace::Error;
use crate::keyspace::effect::Read;
use crate::rdb::{EMPTY_LISTPACK_LEN, StreamId, element_len, integer_len};

/// Bytes of entries that a node may have when its size is not limited.
const MAX_NODE_BYTES: usize = 1 << 30;
/// Numbers in an encoded head.
const NUMBERS: usize = 16;

/// When a node is full: `stream-node-max-entries` and `stream-node-max-bytes`; 0 = no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    pub entries: usize,
    pub bytes: usize,
}

/// What the entry of a stream adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last ID ever added, or what XSETID set.
    pub last_id: StreamId,
    /// The largest ID that XDEL removed; zero if it never did.
    pub max_deleted_id: StreamId,
    /// ID of the first entry; zero when there is none.
    pub first_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
    /// Number of the first entry's node.
    pub(super) first_node: u64,
    /// Entries in that node.
    pub(super) first_node_len: u64,
    pub(super) tail: Tail,
}

/// The last node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub node: u64,
    /// Entries.
    pub len: u64,
    /// The same with those that were removed one by one.
    pub added: u64,
    /// Bytes of its listpack without what counts the entries.
    bytes: u64,
    /// ID of the first entry that was added to it.
    master: StreamId,
    /// Hash of that entry's fields.
    fields: u64,
}

impl Tail {
    /// Whether Redis would add these elements to another node.
    fn is_full_for(&self, elements: &[Bytes], limits: NodeLimits) -> bool {
        let max_bytes = match limits.bytes {
            0 => MAX_NODE_BYTES,
            bytes => bytes.min(MAX_NODE_BYTES),
        };
        let counts = [self.len, self.added.saturating_sub(self.len)];
        let counts: usize = counts.iter().map(|count| integer_len(*count as i64)).sum();
        let added: usize = elements.iter().map(Bytes::len).sum();
        self.len == 0
            || EMPTY_LISTPACK_LEN + counts + self.bytes as usize + added >= max_bytes
            || (limits.entries != 0 && self.added >= limits.entries as u64)
    }

    /// The node after this one, made for an entry.
    fn next(&self, id: StreamId, elements: &[Bytes]) -> Tail {
        let fields: usize = elements.iter().step_by(2).map(|field| element_len(field)).sum();
        let bytes = integer_len((elements.len() / 2) as i64) + fields + integer_len(0);
        Tail {
            node: self.node + 1,
            bytes: bytes as u64,
            master: id,
            fields: hash_of_fields(elements),
            ..Tail::default()
        }
    }

    fn push(&mut self, id: StreamId, elements: &[Bytes]) {
        let pairs = (elements.len() / 2) as i64;
        let same = hash_of_fields(elements) == self.fields;
        let distance = |own: u64, master: u64| integer_len(own.wrapping_sub(master) as i64);
        let mut bytes = integer_len(0) + distance(id.ms, self.master.ms) + distance(id.seq, self.master.seq);
        bytes += if same {
            elements.iter().skip(1).step_by(2).map(|value| element_len(value)).sum::<usize>() + integer_len(pairs + 3)
        } else {
            let all: usize = elements.iter().map(|element| element_len(element)).sum();
            integer_len(pairs) + all + integer_len(2 * pairs + 4)
        };
        self.len += 1;
        self.added += 1;
        self.bytes += bytes as u64;
    }
}

fn hash_of_fields(elements: &[Bytes]) -> u64 {
    let mut hash = Xxh3::new();
    for field in elements.iter().step_by(2) {
        hash.update(&(field.len() as u64).to_le_bytes());
        hash.update(field);
    }
    hash.digest()
}

impl Head {
    /// Bytes of an encoded one.
    pub(super) const ENCODED_LEN: usize = NUMBERS * 8;

    /// What the entry of this stream says.
    pub fn of(stream: &Handle) -> Head {
        let mut numbers = [0; NUMBERS];
        let encoded = stream.collection.extra.as_chunks().0;
        numbers.iter_mut().zip(encoded).for_each(|(number, bytes)| *number = u64::from_le_bytes(*bytes));
        let id = |at: usize| StreamId { ms: numbers[at], seq: numbers[at + 1] };
        Head {
            last_id: id(0),
            max_deleted_id: id(2),
            first_id: id(4),
            entries_added: numbers[6],
            first_node: numbers[7],
            first_node_len: numbers[8],
            tail: Tail {
                node: numbers[9],
                len: numbers[10],
                added: numbers[11],
                bytes: numbers[12],
                master: id(13),
                fields: numbers[15],
            },
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let Head { last_id, max_deleted_id, first_id, tail, .. } = self;
        let numbers: [u64; NUMBERS] = [
            last_id.ms,
            last_id.seq,
            max_deleted_id.ms,
            max_deleted_id.seq,
            first_id.ms,
            first_id.seq,
            self.entries_added,
            self.first_node,
            self.first_node_len,
            tail.node,
            tail.len,
            tail.added,
            tail.bytes,
            tail.master.ms,
            tail.master.seq,
            tail.fields,
        ];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// Whether an entry of these fields and values would be the first of a new node.
    pub fn opens_node(&self, elements: &[Bytes], limits: NodeLimits) -> bool {
        self.tail.is_full_for(elements, limits)
    }

    /// Nodes, as far as one can tell without looking for those that became empty in the middle.
    pub fn nodes(&self) -> u64 {
        if self.first_node_len == 0 { 0 } else { self.tail.node - self.first_node + 1 }
    }

    /// An entry was added to a stream of `len` entries. Returns its node.
    pub(super) fn add(&mut self, id: StreamId, opens_node: bool, elements: &[Bytes], len: u64) -> u64 {
        if opens_node {
            self.tail = self.tail.next(id, elements);
        }
        self.tail.push(id, elements);
        self.last_id = id;
        self.entries_added += 1;
        if len == 0 {
            self.first_id = id;
            self.first_node = self.tail.node;
            self.first_node_len = 0;
        }
        if self.first_node == self.tail.node {
            self.first_node_len += 1;
        }
        self.tail.node
    }

    /// An entry of this node was removed.
    pub(super) fn remove(&mut self, node: u64) {
        if node == self.first_node {
            self.first_node_len = self.first_node_len.saturating_sub(1);
        }
        if node == self.tail.node {
            self.tail.len = self.tail.len.saturating_sub(1);
        }
    }

    /// Finds the first entry of the stream, of which the one before is gone.
    pub(super) fn find_first(&mut self, state: &mut dyn Read, stream: &Handle) -> Result<(), Error> {
        let before = (self.first_node, self.first_node_len);
        let mut found = None;
        each(state, stream, self.first_id, StreamId::MAX, false, &mut |id, entry| match &mut found {
            None => {
                // Where it is known how many there are in the node, one need not count.
                let known = if entry.node == self.tail.node {
                    Some(self.tail.len)
                } else {
                    (entry.node == before.0).then_some(before.1)
                };
                found = Some((id, entry.node, known.unwrap_or(1)));
                known.is_none()
            }
            Some((_, node, len)) if *node == entry.node => {
                *len += 1;
                true
            }
            Some(_) => false,
        })?;
        (self.first_id, self.first_node, self.first_node_len) = found.unwrap_or_default();
        Ok(())
    }

    /// Whether IDs from `start` on were removed from the middle of the stream of `len` entries.
    pub fn has_tombstones_from(&self, start: StreamId, len: u64) -> bool {
        let none = len == 0 || self.max_deleted_id == StreamId::MIN || self.first_id > self.max_deleted_id;
        !none && start <= self.max_deleted_id
    }

    /// How many entries were added up to this ID, if that can be told.
    pub fn added_up_to(&self, id: StreamId, len: u64) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if id == self.last_id || (len == 0 && id < self.last_id) {
            return Some(self.entries_added);
        }
        let whole = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id;
        let before = self.entries_added.wrapping_sub(len);
        match id.cmp(&self.first_id) {
            _ if id > self.last_id || !whole => None,
            std::cmp::Ordering::Less => Some(before),
            std::cmp::Ordering::Equal => Some(before.wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Collection, Kind};

    #[test]
    fn round_trips() {
        let id = |n| StreamId { ms: n, seq: n + 1 };
        let head = Head {
            last_id: id(10),
            max_deleted_id: id(20),
            first_id: id(30),
            entries_added: 4,
            first_node: 5,
            first_node_len: 6,
            tail: Tail { node: 7, len: 8, added: 9, bytes: 10, master: id(40), fields: 11 },
        };
        let collection = Collection { version: 1, count: 1, extra: head.encode() };
        let stream = Handle { key: Bytes::new(), kind: Kind::Stream, expire_at: None, collection };
        assert_eq!(Head::of(&stream), head);
    }
}
