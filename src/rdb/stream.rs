//! Streams: nodes of entries, then consumer groups.
//!
//! A node is a listpack under the ID of its first entry, its *master*. It starts with
//!
//! ```text
//! live  deleted  number of fields  field …  0
//! ```
//!
//! and each entry, deleted or not, is
//!
//! ```text
//! flags  ms  seq  value …                              the fields are the master's
//! flags  ms  seq  number of fields  field value …      they are its own
//! ```
//!
//! with the difference of its ID to the master's, and at last the number of its elements. After the nodes come
//! what counts entries, and the groups: each with what is pending, then its consumers, each with the IDs that
//! are pending with it. Source: Redis 7.0, `t_stream.c` and `rdb.c`.

use bytes::Bytes;

use super::encoding::Encoding;
use super::layout::Thresholds;
use super::listpack::{self, Builder};
use super::reader::ELEMENT_OVERHEAD;
use super::value::{Pending, Stream, StreamConsumer, StreamEntry, StreamGroup, StreamId};
use super::{Error, Reader, Source, Writer};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// Elements of every entry but its fields and values: flags, ms, seq. The last one does not count itself.
const FIXED_ELEMENTS: u64 = 3;
/// What stands for a number of entries read that is not known.
const UNKNOWN_COUNT: u64 = u64::MAX;
/// No node's listpack is made longer than this, unless one entry is.
const MAX_NODE: usize = 1 << 30;

/// Writes a stream as Redis 7.0 does ([`Encoding::Stream2`]).
pub(super) fn write(writer: &mut Writer, stream: &Stream, thresholds: &Thresholds) {
    let nodes = nodes(&stream.entries, thresholds);
    writer.length(nodes.len() as u64);
    for node in nodes {
        writer.string(&node.master.id.to_bytes());
        writer.string(&node.finish());
    }
    writer.length(stream.entries.len() as u64);
    for id in [stream.last_id, stream.first_id(), stream.max_deleted_id] {
        write_id(writer, id);
    }
    writer.length(stream.entries_added);
    writer.length(stream.groups.len() as u64);
    stream.groups.iter().for_each(|group| write_group(writer, group));
}

fn write_id(writer: &mut Writer, id: StreamId) {
    writer.length(id.ms);
    writer.length(id.seq);
}

fn write_group(writer: &mut Writer, group: &StreamGroup) {
    writer.string(&group.name);
    write_id(writer, group.last_id);
    writer.length(group.entries_read.unwrap_or(UNKNOWN_COUNT));
    writer.length(group.pending.len() as u64);
    let mut owned = vec![Vec::new(); group.consumers.len()];
    for pending in &group.pending {
        writer.raw(&pending.id.to_bytes());
        writer.time(pending.delivery_time as i64);
        writer.length(pending.delivery_count);
        if let Some(owned) = owned.get_mut(pending.consumer) {
            owned.push(pending.id);
        }
    }
    writer.length(group.consumers.len() as u64);
    for (consumer, owned) in group.consumers.iter().zip(owned) {
        writer.string(&consumer.name);
        writer.time(consumer.seen_time as i64);
        writer.length(owned.len() as u64);
        owned.into_iter().for_each(|id| writer.raw(&id.to_bytes()));
    }
}

/// Entries that share a listpack.
struct Node<'a> {
    master: &'a StreamEntry,
    count: usize,
    /// The master's fields, with their number before and the zero behind them.
    fields: Builder,
    entries: Builder,
}

impl<'a> Node<'a> {
    fn of(first: &'a StreamEntry) -> Node<'a> {
        let mut fields = Builder::default();
        fields.push_integer(first.fields.len() as i64);
        first.fields.iter().for_each(|(field, _)| fields.push(field));
        fields.push_integer(0);
        let mut node = Node { master: first, count: 0, fields, entries: Builder::default() };
        node.push(first);
        node
    }

    /// What stands before the fields.
    fn head(&self) -> Builder {
        let mut head = Builder::default();
        head.push_integer(self.count as i64);
        head.push_integer(0);
        head
    }

    fn len(&self) -> usize {
        self.head().len() + self.fields.len() + self.entries.len() - 2 * listpack::EMPTY_LEN
    }

    /// Whether Redis would add this entry here, not to a node of its own.
    fn has_room_for(&self, entry: &StreamEntry, thresholds: &Thresholds) -> bool {
        let len: usize = entry.fields.iter().map(|(field, value)| field.len() + value.len()).sum();
        let max_bytes = match thresholds.stream_node_bytes {
            0 => MAX_NODE,
            max => max.min(MAX_NODE),
        };
        let max_entries = thresholds.stream_node_entries;
        self.len() + len < max_bytes && (max_entries == 0 || self.count < max_entries)
    }

    fn push(&mut self, entry: &StreamEntry) {
        let names = |entry: &'a StreamEntry| entry.fields.iter().map(|(field, _)| field);
        let same = entry.fields.iter().map(|(field, _)| field).eq(names(self.master));
        let out = &mut self.entries;
        out.push_integer(if same { SAME_FIELDS } else { 0 });
        out.push_integer(entry.id.ms.wrapping_sub(self.master.id.ms) as i64);
        out.push_integer(entry.id.seq.wrapping_sub(self.master.id.seq) as i64);
        if !same {
            out.push_integer(entry.fields.len() as i64);
        }
        for (field, value) in &entry.fields {
            if !same {
                out.push(field);
            }
            out.push(value);
        }
        out.push_integer(elements_of(entry.fields.len() as u64, same) as i64);
        self.count += 1;
    }

    fn finish(self) -> Vec<u8> {
        let mut listpack = self.head();
        listpack.append(&self.fields);
        listpack.append(&self.entries);
        listpack.finish()
    }
}

/// The number that ends an entry of so many fields.
fn elements_of(fields: u64, same: bool) -> u64 {
    if same { FIXED_ELEMENTS + fields } else { (FIXED_ELEMENTS + 1).saturating_add(fields.saturating_mul(2)) }
}

fn nodes<'a>(entries: &'a [StreamEntry], thresholds: &Thresholds) -> Vec<Node<'a>> {
    let mut nodes: Vec<Node> = Vec::new();
    for entry in entries {
        match nodes.last_mut() {
            Some(node) if node.has_room_for(entry, thresholds) => node.push(entry),
            _ => nodes.push(Node::of(entry)),
        }
    }
    nodes
}

/// Reads a stream of any of the three encodings.
pub(super) fn read<S: Source>(reader: &mut Reader<S>, encoding: Encoding) -> Result<Stream, Error> {
    let mut stream = Stream::default();
    for _ in 0..reader.length()? {
        let master = reader.string()?;
        let master = master.as_ref().try_into().map_err(|_| Error::Corrupt("a stream's node without an ID"))?;
        let listpack = reader.string()?;
        read_node(reader, StreamId::from_bytes(master), listpack, &mut stream.entries)?;
    }
    if !stream.entries.is_sorted_by(|a, b| a.id < b.id) {
        return Err(Error::Corrupt("a stream's entries out of order"));
    }
    if reader.length()? != stream.entries.len() as u64 {
        return Err(Error::Corrupt("a stream with a wrong length"));
    }
    stream.last_id = read_id(reader)?;
    if stream.entries.last().is_some_and(|last| last.id > stream.last_id) {
        return Err(Error::Corrupt("a stream whose last ID is not the largest"));
    }
    if encoding == Encoding::Stream1 {
        stream.entries_added = stream.entries.len() as u64;
    } else {
        // The first ID is that of the first entry.
        read_id(reader)?;
        stream.max_deleted_id = read_id(reader)?;
        stream.entries_added = reader.length()?;
    }
    for _ in 0..reader.length()? {
        let group = read_group(reader, &stream, encoding)?;
        stream.groups.push(group);
    }
    if !super::are_distinct(stream.groups.iter().map(|group| &group.name)) {
        return Err(Error::Corrupt("a consumer group twice"));
    }
    Ok(stream)
}

fn read_id<S: Source>(reader: &mut Reader<S>) -> Result<StreamId, Error> {
    Ok(StreamId { ms: reader.length()?, seq: reader.length()? })
}

/// A time that Redis holds as a signed number: none of them is before 1970.
fn read_time<S: Source>(reader: &mut Reader<S>) -> Result<u64, Error> {
    Ok(reader.time()?.max(0) as u64)
}

fn count(elements: &mut listpack::Elements) -> Result<u64, Error> {
    u64::try_from(elements.expect()?.integer()?).map_err(|_| Error::Corrupt("a negative count in a stream"))
}

/// Adds the entries of a node that are not deleted.
fn read_node<S: Source>(
    reader: &mut Reader<S>,
    master: StreamId,
    listpack: Bytes,
    entries: &mut Vec<StreamEntry>,
) -> Result<(), Error> {
    let mut elements = listpack::Elements::of(listpack)?;
    let (live, deleted) = (count(&mut elements)?, count(&mut elements)?);
    let mut names = Vec::new();
    for _ in 0..count(&mut elements)? {
        reader.charge(ELEMENT_OVERHEAD)?;
        names.push(elements.expect()?.into_bytes());
    }
    if count(&mut elements)? != 0 {
        return Err(Error::Corrupt("a stream's node without its end of fields"));
    }
    let mut found = 0;
    for _ in 0..live.checked_add(deleted).ok_or(Error::Corrupt("too many entries in a stream's node"))? {
        let flags = elements.expect()?.integer()?;
        let ms = master.ms.wrapping_add(elements.expect()?.integer()? as u64);
        let seq = master.seq.wrapping_add(elements.expect()?.integer()? as u64);
        let same = flags & SAME_FIELDS != 0;
        let field_count = if same { names.len() as u64 } else { count(&mut elements)? };
        let mut fields = Vec::new();
        reader.charge(size_of::<StreamEntry>() as u64)?;
        for i in 0..field_count {
            reader.charge(2 * ELEMENT_OVERHEAD)?;
            let field = match names.get(i as usize) {
                Some(name) if same => name.clone(),
                _ => elements.expect()?.into_bytes(),
            };
            fields.push((field, elements.expect()?.into_bytes()));
        }
        if count(&mut elements)? != elements_of(field_count, same) {
            return Err(Error::Corrupt("a stream's entry with a wrong count"));
        }
        if flags & DELETED == 0 {
            if fields.is_empty() {
                return Err(Error::Corrupt("a stream's entry without fields"));
            }
            found += 1;
            entries.push(StreamEntry { id: StreamId { ms, seq }, fields });
        }
    }
    if found != live {
        return Err(Error::Corrupt("a stream's node with a wrong count"));
    }
    match elements.next() {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) => Err(Error::Corrupt("more in a stream's node than its entries")),
    }
}

fn read_group<S: Source>(reader: &mut Reader<S>, stream: &Stream, encoding: Encoding) -> Result<StreamGroup, Error> {
    reader.charge(size_of::<StreamGroup>() as u64)?;
    let name = reader.string()?;
    let last_id = read_id(reader)?;
    let entries_read = match encoding {
        Encoding::Stream1 => entries_before(stream, last_id),
        _ => match reader.length()? {
            UNKNOWN_COUNT => None,
            count if count > i64::MAX as u64 => return Err(Error::Corrupt("an impossible count of entries read")),
            count => Some(count),
        },
    };
    let mut pending = Vec::new();
    for _ in 0..reader.length()? {
        reader.charge(size_of::<Pending>() as u64)?;
        let id = StreamId::from_bytes(reader.array()?);
        let (delivery_time, delivery_count) = (read_time(reader)?, reader.length()?);
        pending.push(Pending { id, consumer: NOBODY, delivery_time, delivery_count });
    }
    pending.sort_unstable_by_key(|pending| pending.id);
    if pending.windows(2).any(|pair| pair[0].id == pair[1].id) {
        return Err(Error::Corrupt("a pending entry twice"));
    }
    let mut consumers = Vec::new();
    for consumer in 0..reader.length()? {
        consumers.push(read_consumer(reader, encoding)?);
        for _ in 0..reader.length()? {
            let id = StreamId::from_bytes(reader.array()?);
            let at = pending.binary_search_by_key(&id, |pending| pending.id);
            let owner =
                &mut pending[at.map_err(|_| Error::Corrupt("a consumer's entry that is not pending"))?].consumer;
            if *owner != NOBODY {
                return Err(Error::Corrupt("a pending entry with two consumers"));
            }
            *owner = consumer as usize;
        }
    }
    if pending.iter().any(|pending| pending.consumer == NOBODY) {
        return Err(Error::Corrupt("a pending entry without a consumer"));
    }
    if !super::are_distinct(consumers.iter().map(|consumer: &StreamConsumer| &consumer.name)) {
        return Err(Error::Corrupt("a consumer twice"));
    }
    Ok(StreamGroup { name, last_id, entries_read, pending, consumers })
}

/// The consumer of an entry while none is known.
const NOBODY: usize = usize::MAX;

fn read_consumer<S: Source>(reader: &mut Reader<S>, encoding: Encoding) -> Result<StreamConsumer, Error> {
    reader.charge(size_of::<StreamConsumer>() as u64)?;
    let name = reader.string()?;
    let seen_time = read_time(reader)?;
    let active_time = match encoding {
        // Negative while there was no activity.
        Encoding::Stream3 => u64::try_from(reader.time()?).ok(),
        _ => Some(seen_time),
    };
    Ok(StreamConsumer { name, seen_time, active_time })
}

/// How many entries were added up to this one, as far as that can be told of a stream of which nothing but the
/// entries is known.
fn entries_before(stream: &Stream, id: StreamId) -> Option<u64> {
    let first = stream.first_id();
    if stream.entries.is_empty() || id < first {
        Some(0)
    } else if id == stream.last_id {
        Some(stream.entries_added)
    } else if id == first {
        Some(1)
    } else {
        None
    }
}
