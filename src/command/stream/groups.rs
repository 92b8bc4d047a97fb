//! Consumer groups: XGROUP, XACK, XPENDING.

use bytes::Bytes;

use super::{change, id, stream_at};
use crate::command::error::lossy;
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::Kind;
use crate::keyspace::types::Handle;
use crate::keyspace::types::stream::{self, Change, Consumer, Delivery, Group, Head};
use crate::net::Reply;
use crate::pubsub::EventClass;
use crate::rdb::StreamId;

/// The key or the group is not there; `place` says where that matters, with a space before.
pub(super) fn no_such_group(key: &[u8], group: &[u8], place: &str) -> CommandError {
    let (key, group) = (lossy(key, usize::MAX), lossy(group, usize::MAX));
    CommandError::Text(format!("NOGROUP No such key '{key}' or consumer group '{group}'{place}"))
}

/// The key is there and the group is not.
pub(super) fn no_group_in(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (lossy(key, usize::MAX), lossy(group, usize::MAX));
    CommandError::Text(format!("NOGROUP No such consumer group '{group}' for key name '{key}'"))
}

fn no_such_form(args: &[Bytes]) -> CommandError {
    CommandError::SubcommandForm { subcommand: lossy(&args[1], 128), container: "XGROUP" }
}

/// Notes that a consumer reads or claims, and if that got it something; makes it if it is not there.
pub(super) fn ensure_consumer(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    stream: &Handle,
    group: &Bytes,
    name: &Bytes,
    gets: bool,
) -> Result<(), CommandError> {
    let old = stream::consumer(&mut ctx.reader(key), stream, group, name)?;
    let seen = ctx.now;
    let active = if gets { Some(seen) } else { old.and_then(|old| old.active) };
    change(ctx, key, Change::Consumer { group: group.clone(), name: name.clone(), seen, active })?;
    if old.is_none() {
        ctx.notify(EventClass::Stream, "xgroup-createconsumer", key);
    }
    Ok(())
}

/// The options of XGROUP CREATE and SETID.
#[derive(Default)]
struct Options {
    create: bool,
    entries_read: Option<u64>,
}

impl Options {
    fn parse(args: &[Bytes], creates: bool) -> Result<Options, CommandError> {
        let mut parsed = Options::default();
        let mut options = args[5..].iter();
        while let Some(option) = options.next() {
            if creates && option.eq_ignore_ascii_case(b"mkstream") {
                parsed.create = true;
            } else if let Some(value) = options.next().filter(|_| option.eq_ignore_ascii_case(b"entriesread")) {
                let read = numbers::integer(value)?;
                if read < -1 {
                    return Err(CommandError::Static("ERR value for ENTRIESREAD must be positive or -1"));
                }
                parsed.entries_read = u64::try_from(read).ok();
            } else {
                return Err(no_such_form(args));
            }
        }
        Ok(parsed)
    }
}

fn existing(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<Handle, CommandError> {
    ctx.peek_collection(key, Kind::Stream)?.ok_or(CommandError::Static(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
         option to create an empty stream automatically.",
    ))
}

fn existing_group(ctx: &mut Ctx<'_, '_>, key: &Bytes, group: &Bytes) -> Result<(Handle, Group), CommandError> {
    let stream = existing(ctx, key)?;
    let found = stream::group(&mut ctx.reader(key), &stream, group)?;
    found.map(|found| (stream, found)).ok_or_else(|| no_group_in(key, group))
}

/// XGROUP CREATE key group id | $ [MKSTREAM] [ENTRIESREAD entries-read]
pub(super) fn create(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let options = Options::parse(args, true)?;
    let (key, name) = (&args[2], &args[3]);
    let stream = if options.create { ctx.peek_collection(key, Kind::Stream)? } else { Some(existing(ctx, key)?) };
    if args.len() > 8 {
        return Err(no_such_form(args));
    }
    let last_id = match &args[4][..] {
        b"$" => stream.as_ref().map_or(StreamId::MIN, |stream| Head::of(stream).last_id),
        id => id::strict(id, 0)?,
    };
    if let Some(stream) = stream
        && stream::group(&mut ctx.reader(key), &stream, name)?.is_some()
    {
        return Err(CommandError::Static("BUSYGROUP Consumer Group name already exists"));
    }
    ctx.create_if_missing(key, Kind::Stream)?;
    change(ctx, key, Change::Group { name: name.clone(), last_id, entries_read: options.entries_read })?;
    ctx.notify(EventClass::Stream, "xgroup-create", key);
    ctx.reply.ok();
    Ok(())
}

/// XGROUP SETID key group id | $ [ENTRIESREAD entries-read]
pub(super) fn setid(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Options { entries_read, .. } = Options::parse(args, false)?;
    let (key, name) = (&args[2], &args[3]);
    let (stream, _) = existing_group(ctx, key, name)?;
    if args.len() > 7 {
        return Err(no_such_form(args));
    }
    let last_id = match &args[4][..] {
        b"$" => Head::of(&stream).last_id,
        id => id::or_edge(id, 0)?,
    };
    change(ctx, key, Change::Group { name: name.clone(), last_id, entries_read })?;
    ctx.notify(EventClass::Stream, "xgroup-setid", key);
    ctx.reply.ok();
    Ok(())
}

/// XGROUP DESTROY key group
pub(super) fn destroy(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, name) = (&args[2], &args[3]);
    let stream = existing(ctx, key)?;
    let group = stream::group(&mut ctx.reader(key), &stream, name)?;
    if let Some(group) = group {
        ctx.heavy(group.pending.saturating_add(group.consumers))?;
        change(ctx, key, Change::DestroyGroup(name.clone()))?;
        ctx.notify(EventClass::Stream, "xgroup-destroy", key);
    }
    ctx.reply.int(i64::from(group.is_some()));
    Ok(())
}

/// XGROUP CREATECONSUMER key group consumer
pub(super) fn createconsumer(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, group, name) = (&args[2], &args[3], &args[4]);
    let (stream, _) = existing_group(ctx, key, group)?;
    let exists = stream::consumer(&mut ctx.reader(key), &stream, group, name)?.is_some();
    if !exists {
        ensure_consumer(ctx, key, &stream, group, name, false)?;
    }
    ctx.reply.int(i64::from(!exists));
    Ok(())
}

/// XGROUP DELCONSUMER key group consumer
pub(super) fn delconsumer(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, group, name) = (&args[2], &args[3], &args[4]);
    let (stream, _) = existing_group(ctx, key, group)?;
    let consumer = stream::consumer(&mut ctx.reader(key), &stream, group, name)?;
    if let Some(consumer) = consumer {
        ctx.heavy(consumer.pending)?;
        change(ctx, key, Change::DelConsumer { group: group.clone(), name: name.clone() })?;
        ctx.notify(EventClass::Stream, "xgroup-delconsumer", key);
    }
    ctx.reply.int(consumer.map_or(0, |consumer| consumer.pending) as i64);
    Ok(())
}

/// XACK key group id [id ...]
pub(super) fn xack(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, group) = (&args[1], &args[2]);
    let mut count = 0;
    if let Some(stream) = ctx.peek_collection(key, Kind::Stream)?
        && stream::group(&mut ctx.reader(key), &stream, group)?.is_some()
    {
        let ids = id::all(&args[3..])?;
        ctx.heavy(ids.len() as u64)?;
        count = change(ctx, key, Change::Ack { group: group.clone(), ids })?.count;
    }
    ctx.reply.int(count as i64);
    Ok(())
}

/// Which pending entries XPENDING lists.
struct Listing {
    min_idle: u64,
    first: StreamId,
    last: StreamId,
    count: u64,
    consumer: Option<Bytes>,
}

impl Listing {
    fn parse(args: &[Bytes]) -> Result<Listing, CommandError> {
        if !(6..=9).contains(&args.len()) {
            return Err(CommandError::Syntax);
        }
        let idle = args[3].eq_ignore_ascii_case(b"idle");
        let min_idle = if idle { numbers::integer(&args[4])?.max(0) as u64 } else { 0 };
        let (range, rest) = args.split_at_checked(if idle { 8 } else { 6 }).ok_or(CommandError::Syntax)?;
        let [start, end, count] = range.last_chunk().ok_or(CommandError::Syntax)?;
        let count = numbers::integer(count)?.max(0) as u64;
        Ok(Listing { min_idle, first: id::start(start)?, last: id::end(end)?, count, consumer: rest.first().cloned() })
    }
}

/// XPENDING key group [[IDLE min-idle-time] start end count [consumer]]
pub(super) fn xpending(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let listing = if args.len() == 3 { None } else { Some(Listing::parse(args)?) };
    let (key, name) = (&args[1], &args[2]);
    let (stream, group) = stream_group(ctx, key, name)?;
    match listing {
        None => summary(ctx, &stream, name, group),
        Some(listing) => list(ctx, &stream, name, &listing),
    }
}

/// The stream and the group of a command, which must be there.
pub(super) fn stream_group(ctx: &mut Ctx<'_, '_>, key: &Bytes, group: &Bytes) -> Result<(Handle, Group), CommandError> {
    let Some(stream) = stream_at(ctx, key)? else { return Err(no_such_group(key, group, "")) };
    let found = stream::group(&mut ctx.reader(key), &stream, group)?;
    found.map(|found| (stream, found)).ok_or_else(|| no_such_group(key, group, ""))
}

fn summary(ctx: &mut Ctx<'_, '_>, stream: &Handle, name: &Bytes, group: Group) -> Result<(), CommandError> {
    let mut reader = ctx.tx.reader(ctx.client.db(), &stream.key);
    let range = stream::pending_range(&mut reader, stream, name)?;
    ctx.reply.array(4);
    ctx.reply.int(group.pending as i64);
    let Some((first, last)) = range else {
        ctx.reply.null();
        ctx.reply.null();
        ctx.reply.null_array();
        return Ok(());
    };
    id::write(ctx.reply, first);
    id::write(ctx.reply, last);
    let mut consumers = stream::consumers(&mut reader, stream, name)?;
    consumers.retain(|(_, consumer)| consumer.pending > 0);
    ctx.reply.array(consumers.len());
    for (name, Consumer { pending, .. }) in consumers {
        ctx.reply.array(2);
        ctx.reply.bulk(&name);
        ctx.reply.bulk_int(pending as i64);
    }
    Ok(())
}

fn list(ctx: &mut Ctx<'_, '_>, stream: &Handle, group: &Bytes, listing: &Listing) -> Result<(), CommandError> {
    let Listing { min_idle, first, last, count, .. } = *listing;
    let (now, room) = (ctx.now, ctx.budget());
    let mut reader = ctx.tx.reader(ctx.client.db(), &stream.key);
    let mut out = Reply::new(ctx.reply.proto());
    let (mut found, mut seen) = (0, 0);
    let mut show = |id: StreamId, delivery: &Delivery| {
        let idle = now.saturating_sub(delivery.time);
        if idle >= min_idle {
            out.array(4);
            id::write(&mut out, id);
            out.bulk(&delivery.consumer);
            out.int(idle as i64);
            out.int(delivery.count as i64);
            found += 1;
        }
        found < count
    };
    match &listing.consumer {
        _ if count == 0 => {}
        None => stream::each_pending(&mut reader, stream, group, (first, last), &mut |id, delivery| {
            seen += 1;
            show(id, &delivery) && seen <= room
        })?,
        Some(consumer) => {
            let most = if min_idle == 0 { count.min(room.saturating_add(1)) } else { room.saturating_add(1) };
            let mut ids = Vec::new();
            stream::each_owned(&mut reader, stream, (group, consumer), (first, last), &mut |id| {
                ids.push(id);
                seen += 1;
                seen < most
            })?;
            for id in ids {
                let delivery = stream::delivery(&mut reader, stream, group, id)?;
                if delivery.is_some_and(|delivery| !show(id, &delivery)) {
                    break;
                }
            }
        }
    }
    ctx.heavy(seen)?;
    ctx.reply.array(found as usize);
    ctx.reply.raw(out.as_slice());
    Ok(())
}
