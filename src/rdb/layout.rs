//! How a value is written: the encoding that Redis 7.0 would choose for it, and its bytes.

use std::cmp::Ordering;

use bytes::Bytes;

use super::encoding::Encoding;
use super::listpack::Builder;
use super::reader::canonical_integer;
use super::value::{HashField, Stream, Value};
use super::{Writer, intset, score, stream};

/// No listpack is made longer than this, whatever the thresholds say, unless one element is.
const MAX_LISTPACK: usize = 1 << 30;
/// What Redis adds to an element's length to judge whether it still fits a list node.
const NODE_ELEMENT_OVERHEAD: usize = 8;
/// A node of a list is one large element, or a listpack.
pub(super) const NODE_PLAIN: u64 = 1;
pub(super) const NODE_LISTPACK: u64 = 2;

/// Up to where values are small: the settings of these names in Redis, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// `hash-max-listpack-entries`.
    pub hash_entries: usize,
    /// `hash-max-listpack-value`, bytes.
    pub hash_value: usize,
    /// `set-max-intset-entries`.
    pub intset_entries: usize,
    /// `zset-max-listpack-entries`.
    pub zset_entries: usize,
    /// `zset-max-listpack-value`, bytes.
    pub zset_value: usize,
    /// Bytes of a list's node: 8192 is a `list-max-listpack-size` of -2.
    pub list_node_bytes: usize,
    /// `stream-node-max-bytes`; 0 for no limit.
    pub stream_node_bytes: usize,
    /// `stream-node-max-entries`; 0 for no limit.
    pub stream_node_entries: usize,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            hash_entries: 512,
            hash_value: 64,
            intset_entries: 512,
            zset_entries: 128,
            zset_value: 64,
            list_node_bytes: 8192,
            stream_node_bytes: 4096,
            stream_node_entries: 100,
        }
    }
}

/// A value and how it is to be written.
///
/// Redis 7.0 reads all of them, but for hashes of which a field expires: those are as in Redis 7.4.
#[derive(Debug)]
pub enum Layout<'a> {
    String(&'a [u8]),
    ListNodes(&'a [Bytes]),
    /// Rising.
    SetIntset(Vec<i64>),
    Set(&'a [Bytes]),
    /// By score, then member.
    ZsetListpack(Vec<&'a (Bytes, f64)>),
    /// By score, then member.
    Zset(Vec<&'a (Bytes, f64)>),
    HashListpack(&'a [HashField]),
    Hash(&'a [HashField]),
    HashListpackExpiry(&'a [HashField]),
    HashExpiry(&'a [HashField]),
    Stream(&'a Stream),
}

impl<'a> Layout<'a> {
    /// Chooses the layout of a value.
    pub fn of(value: &'a Value, thresholds: &Thresholds) -> Layout<'a> {
        match value {
            Value::String(string) => Layout::String(string),
            Value::List(elements) => Layout::ListNodes(elements),
            Value::Set(members) => match integers(members, thresholds.intset_entries) {
                Some(integers) => Layout::SetIntset(integers),
                None => Layout::Set(members),
            },
            Value::Zset(members) => {
                let lens = members.iter().map(|(member, _)| member.len());
                let small = are_small(lens, thresholds.zset_entries, thresholds.zset_value);
                let mut ordered: Vec<_> = members.iter().collect();
                ordered.sort_unstable_by(|(a, x), (b, y)| {
                    x.partial_cmp(y).unwrap_or(Ordering::Equal).then_with(|| a.cmp(b))
                });
                if small { Layout::ZsetListpack(ordered) } else { Layout::Zset(ordered) }
            }
            Value::Hash(fields) => {
                let lens = fields.iter().flat_map(|field| [field.field.len(), field.value.len()]);
                let small = are_small(lens, thresholds.hash_entries.saturating_mul(2), thresholds.hash_value);
                match (small, fields.iter().any(|field| field.expire_at.is_some())) {
                    (true, false) => Layout::HashListpack(fields),
                    (false, false) => Layout::Hash(fields),
                    (true, true) => Layout::HashListpackExpiry(fields),
                    (false, true) => Layout::HashExpiry(fields),
                }
            }
            Value::Stream(stream) => Layout::Stream(stream),
        }
    }

    /// What goes before the value, though not always right before it: in a file the key stands between them.
    pub fn encoding(&self) -> Encoding {
        match self {
            Layout::String(_) => Encoding::String,
            Layout::ListNodes(_) => Encoding::ListNodes,
            Layout::SetIntset(_) => Encoding::SetIntset,
            Layout::Set(_) => Encoding::Set,
            Layout::ZsetListpack(_) => Encoding::ZsetListpack,
            Layout::Zset(_) => Encoding::Zset,
            Layout::HashListpack(_) => Encoding::HashListpack,
            Layout::Hash(_) => Encoding::Hash,
            Layout::HashListpackExpiry(_) => Encoding::HashListpackExpiry,
            Layout::HashExpiry(_) => Encoding::HashExpiry,
            Layout::Stream(_) => Encoding::Stream2,
        }
    }

    /// Writes the value, without its encoding.
    pub fn write(&self, writer: &mut Writer, thresholds: &Thresholds) {
        match self {
            Layout::String(string) => writer.string(string),
            Layout::ListNodes(elements) => write_list(writer, elements, thresholds.list_node_bytes),
            Layout::SetIntset(integers) => writer.string(&intset::build(integers)),
            Layout::Set(members) => {
                writer.length(members.len() as u64);
                members.iter().for_each(|member| writer.string(member));
            }
            Layout::ZsetListpack(members) => {
                let mut listpack = Builder::default();
                for (member, score) in members {
                    listpack.push(member);
                    listpack.push(score::print(*score).as_bytes());
                }
                writer.string(&listpack.finish());
            }
            Layout::Zset(members) => {
                writer.length(members.len() as u64);
                // Largest first: so Redis inserts each at the head of its skiplist.
                for (member, score) in members.iter().rev() {
                    writer.string(member);
                    writer.double(*score);
                }
            }
            Layout::HashListpack(fields) => {
                let mut listpack = Builder::default();
                for field in *fields {
                    listpack.push(&field.field);
                    listpack.push(&field.value);
                }
                writer.string(&listpack.finish());
            }
            Layout::Hash(fields) => {
                writer.length(fields.len() as u64);
                for field in *fields {
                    writer.string(&field.field);
                    writer.string(&field.value);
                }
            }
            Layout::HashListpackExpiry(fields) => {
                // Redis wants them by expiry, those without last.
                let mut ordered: Vec<_> = fields.iter().collect();
                ordered.sort_by_key(|field| field.expire_at.unwrap_or(u64::MAX));
                let mut listpack = Builder::default();
                for field in ordered {
                    listpack.push(&field.field);
                    listpack.push(&field.value);
                    listpack.push_integer(field.expire_at.unwrap_or(0) as i64);
                }
                writer.time(earliest(fields) as i64);
                writer.string(&listpack.finish());
            }
            Layout::HashExpiry(fields) => {
                let earliest = earliest(fields);
                writer.time(earliest as i64);
                writer.length(fields.len() as u64);
                for field in *fields {
                    writer.length(field.expire_at.map_or(0, |at| at - earliest + 1));
                    writer.string(&field.field);
                    writer.string(&field.value);
                }
            }
            Layout::Stream(stream) => stream::write(writer, stream, thresholds),
        }
    }
}

/// Whether strings of these lengths may share a listpack.
fn are_small(lens: impl Iterator<Item = usize>, max_count: usize, max_len: usize) -> bool {
    let (mut count, mut sum) = (0, 0);
    for len in lens {
        count += 1;
        sum += len;
        if count > max_count || len > max_len || sum > MAX_LISTPACK {
            return false;
        }
    }
    true
}

/// The members in rising order, if all are integers and they are few.
fn integers(members: &[Bytes], max: usize) -> Option<Vec<i64>> {
    if members.len() > max {
        return None;
    }
    let mut integers = members.iter().map(|member| canonical_integer(member)).collect::<Option<Vec<_>>>()?;
    integers.sort_unstable();
    Some(integers)
}

fn earliest(fields: &[HashField]) -> u64 {
    fields.iter().filter_map(|field| field.expire_at).min().unwrap_or(0)
}

/// Writes a list as nodes of at most `max_bytes`, or one element.
fn write_list(writer: &mut Writer, elements: &[Bytes], max_bytes: usize) {
    enum Node<'a> {
        Plain(&'a [u8]),
        Listpack(Builder),
    }
    let mut nodes = Vec::new();
    for element in elements {
        match nodes.last_mut() {
            _ if element.len() >= MAX_LISTPACK => nodes.push(Node::Plain(element)),
            Some(Node::Listpack(node)) if node.len() + element.len() + NODE_ELEMENT_OVERHEAD <= max_bytes => {
                node.push(element);
            }
            _ => {
                let mut node = Builder::default();
                node.push(element);
                nodes.push(Node::Listpack(node));
            }
        }
    }
    writer.length(nodes.len() as u64);
    for node in nodes {
        match node {
            Node::Plain(element) => {
                writer.length(NODE_PLAIN);
                writer.string(element);
            }
            Node::Listpack(listpack) => {
                writer.length(NODE_LISTPACK);
                writer.string(&listpack.finish());
            }
        }
    }
}
