//! XINFO.

use bytes::Bytes;

use super::groups::no_group_in;
use super::{id, stream_at};
use crate::command::error::lossy;
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::Reader;
use crate::keyspace::types::Handle;
use crate::keyspace::types::stream::{self, Group, Head};
use crate::net::Reply;
use crate::rdb::StreamId;

/// Entries that XINFO STREAM FULL shows of each kind.
const DEFAULT_COUNT: u64 = 10;

fn existing(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<Handle, CommandError> {
    stream_at(ctx, key)?.ok_or(CommandError::NoSuchKey)
}

fn unknown_or(reply: &mut Reply, number: Option<u64>) {
    match number {
        Some(number) => reply.int(number as i64),
        None => reply.null(),
    }
}

/// How many entries a group has yet to get, if that can be told.
fn lag(head: &Head, len: u64, group: &Group) -> Option<u64> {
    if head.entries_added == 0 {
        return Some(0);
    }
    let read = group.entries_read.filter(|_| !head.has_tombstones_from(group.last_id, len));
    let read = read.or_else(|| head.added_up_to(group.last_id, len));
    read.map(|read| head.entries_added.wrapping_sub(read))
}

/// XINFO CONSUMERS key group
pub(super) fn consumers(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, group) = (&args[2], &args[3]);
    let stream = existing(ctx, key)?;
    let mut reader = ctx.tx.reader(ctx.client.db(), key);
    stream::group(&mut reader, &stream, group)?.ok_or_else(|| no_group_in(key, group))?;
    let consumers = stream::consumers(&mut reader, &stream, group)?;
    let since = |time: u64| ctx.now.saturating_sub(time) as i64;
    ctx.reply.array(consumers.len());
    for (name, consumer) in consumers {
        ctx.reply.map(4);
        ctx.reply.bulk(b"name");
        ctx.reply.bulk(&name);
        ctx.reply.bulk(b"pending");
        ctx.reply.int(consumer.pending as i64);
        ctx.reply.bulk(b"idle");
        ctx.reply.int(since(consumer.seen));
        ctx.reply.bulk(b"inactive");
        ctx.reply.int(consumer.active.map_or(-1, since));
    }
    Ok(())
}

/// XINFO GROUPS key
pub(super) fn groups(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let stream = existing(ctx, &args[2])?;
    let head = Head::of(&stream);
    let groups = stream::groups(&mut ctx.reader(&args[2]), &stream)?;
    ctx.reply.array(groups.len());
    for (name, group) in groups {
        ctx.reply.map(6);
        ctx.reply.bulk(b"name");
        ctx.reply.bulk(&name);
        ctx.reply.bulk(b"consumers");
        ctx.reply.int(group.consumers as i64);
        ctx.reply.bulk(b"pending");
        ctx.reply.int(group.pending as i64);
        ctx.reply.bulk(b"last-delivered-id");
        id::write(ctx.reply, group.last_id);
        ctx.reply.bulk(b"entries-read");
        unknown_or(ctx.reply, group.entries_read);
        ctx.reply.bulk(b"lag");
        unknown_or(ctx.reply, lag(&head, stream.len(), &group));
    }
    Ok(())
}

/// How many of each kind XINFO STREAM shows; `None` without FULL, 0 = all.
fn full_count(args: &[Bytes]) -> Result<Option<u64>, CommandError> {
    let is = |at: usize, word: &str| args[at].eq_ignore_ascii_case(word.as_bytes());
    let count = match args.len() {
        3 => return Ok(None),
        4 if is(3, "full") => DEFAULT_COUNT,
        6 if is(3, "full") && is(4, "count") => u64::try_from(numbers::integer(&args[5])?).unwrap_or(DEFAULT_COUNT),
        _ => {
            let subcommand = lossy(&args[1], 128);
            return Err(CommandError::SubcommandForm { subcommand, container: "XINFO" });
        }
    };
    Ok(Some(count))
}

/// XINFO STREAM key [FULL [COUNT count]]
pub(super) fn stream(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[2];
    let stream = existing(ctx, key)?;
    let full = full_count(args)?;
    let head = Head::of(&stream);
    let groups = stream::groups(&mut ctx.reader(key), &stream)?;
    if let Some(count) = full {
        let pending = groups.iter().map(|(_, group)| group.pending.saturating_mul(2)).sum::<u64>();
        let all = stream.len().saturating_add(pending);
        let kinds = 1 + groups.iter().map(|(_, group)| 1 + group.consumers).sum::<u64>();
        ctx.heavy(if count == 0 { all } else { all.min(count.saturating_mul(kinds)) })?;
    }
    let mut reader = ctx.tx.reader(ctx.client.db(), key);
    let reply = &mut *ctx.reply;
    reply.map(if full.is_some() { 9 } else { 10 });
    reply.bulk(b"length");
    reply.int(stream.len() as i64);
    reply.bulk(b"radix-tree-keys");
    reply.int(head.nodes() as i64);
    reply.bulk(b"radix-tree-nodes");
    // There is no such tree: what it would have at least.
    reply.int(head.nodes() as i64 + 1);
    reply.bulk(b"last-generated-id");
    id::write(reply, head.last_id);
    reply.bulk(b"max-deleted-entry-id");
    id::write(reply, head.max_deleted_id);
    reply.bulk(b"entries-added");
    reply.int(head.entries_added as i64);
    reply.bulk(b"recorded-first-entry-id");
    id::write(reply, head.first_id);
    match full {
        None => {
            reply.bulk(b"groups");
            reply.int(groups.len() as i64);
            for (name, reverse) in [("first-entry", false), ("last-entry", true)] {
                reply.bulk(name.as_bytes());
                let (found, entry) = entries(&mut reader, &stream, reply.proto(), reverse, 1)?;
                if found == 0 { reply.null() } else { reply.raw(entry.as_slice()) }
            }
        }
        Some(count) => {
            let count = if count == 0 { u64::MAX } else { count };
            let (found, entries) = entries(&mut reader, &stream, reply.proto(), false, count)?;
            reply.bulk(b"entries");
            reply.array(found);
            reply.raw(entries.as_slice());
            reply.bulk(b"groups");
            reply.array(groups.len());
            for (name, group) in groups {
                full_group(&mut reader, reply, &stream, &name, &group, count)?;
            }
        }
    }
    Ok(())
}

/// The first entries, or the last: how many there are, and the replies that they make.
fn entries(
    reader: &mut Reader<'_, '_>,
    stream: &Handle,
    proto: u8,
    reverse: bool,
    count: u64,
) -> Result<(usize, Reply), CommandError> {
    let mut out = Reply::new(proto);
    let mut found = 0;
    stream::each(reader, stream, StreamId::MIN, StreamId::MAX, reverse, &mut |id, entry| {
        id::write_entry(&mut out, id, entry);
        found += 1;
        (found as u64) < count
    })?;
    Ok((found, out))
}

fn full_group(
    reader: &mut Reader<'_, '_>,
    reply: &mut Reply,
    stream: &Handle,
    name: &Bytes,
    group: &Group,
    count: u64,
) -> Result<(), CommandError> {
    const ALL: (StreamId, StreamId) = (StreamId::MIN, StreamId::MAX);
    reply.map(7);
    reply.bulk(b"name");
    reply.bulk(name);
    reply.bulk(b"last-delivered-id");
    id::write(reply, group.last_id);
    reply.bulk(b"entries-read");
    unknown_or(reply, group.entries_read);
    reply.bulk(b"lag");
    unknown_or(reply, lag(&Head::of(stream), stream.len(), group));
    reply.bulk(b"pel-count");
    reply.int(group.pending as i64);
    reply.bulk(b"pending");
    let mut pending = Vec::new();
    stream::each_pending(reader, stream, name, ALL, &mut |id, delivery| {
        pending.push((id, delivery));
        (pending.len() as u64) < count
    })?;
    reply.array(pending.len());
    for (id, delivery) in pending {
        reply.array(4);
        id::write(reply, id);
        reply.bulk(&delivery.consumer);
        reply.int(delivery.time as i64);
        reply.int(delivery.count as i64);
    }
    let consumers = stream::consumers(reader, stream, name)?;
    reply.bulk(b"consumers");
    reply.array(consumers.len());
    for (consumer, state) in consumers {
        reply.map(5);
        reply.bulk(b"name");
        reply.bulk(&consumer);
        reply.bulk(b"seen-time");
        reply.int(state.seen as i64);
        reply.bulk(b"active-time");
        reply.int(state.active.map_or(-1, |time| time as i64));
        reply.bulk(b"pel-count");
        reply.int(state.pending as i64);
        reply.bulk(b"pending");
        let mut owned = Vec::new();
        stream::each_owned(reader, stream, (name, &consumer), ALL, &mut |id| {
            owned.push(id);
            (owned.len() as u64) < count
        })?;
        reply.array(owned.len());
        for id in owned {
            let delivery = stream::delivery(reader, stream, name, id)?;
            let (time, times) = delivery.map_or((0, 0), |delivery| (delivery.time, delivery.count));
            reply.array(3);
            id::write(reply, id);
            reply.int(time as i64);
            reply.int(times as i64);
        }
    }
    Ok(())
}
