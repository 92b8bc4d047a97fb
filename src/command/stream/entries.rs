//! Adding, removing and counting entries: XADD, XTRIM, XDEL, XLEN, XSETID; and XRANGE.

use bytes::Bytes;

use super::id::{self, NewId};
use super::{change, stream_at};
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::Handle;
use crate::keyspace::types::stream::{self, Change, Cut, Head, NodeLimits, Strategy, Trim};
use crate::keyspace::{Collection, Kind};
use crate::net::Reply;
use crate::pubsub::EventClass;
use crate::rdb::StreamId;

/// Nodes that approximate trimming removes at most when it is not told how many entries.
const DEFAULT_TRIM_NODES: u64 = 100;
/// Entries that this may come to, and what it is where nodes have any length.
const DEFAULT_TRIM_LIMITS: (u64, u64) = (1_000_000, 10_000);
/// Bytes of fields and values that an entry may have.
const MAX_ENTRY: usize = 1 << 30;

/// What stands between the key of XADD or XTRIM and the ID or end.
struct Options {
    trim: Option<Trim>,
    create: bool,
    /// Index of the argument that is the ID.
    id_at: usize,
}

impl Options {
    fn parse(args: &[Bytes], adds: bool, limits: NodeLimits) -> Result<Options, CommandError> {
        let mut strategy = None;
        let mut approximate = false;
        let mut limit = None;
        let mut create = true;
        let mut at = 2;
        while let Some(arg) = args.get(at) {
            let more = args.len() - 1 - at;
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            if adds && &arg[..] == b"*" {
                break;
            } else if (is("maxlen") || is("minid")) && more > 0 {
                if strategy.is_some() {
                    return Err(CommandError::Static(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                let sign = more >= 2 && matches!(&args[at + 1][..], b"~" | b"=");
                approximate = sign && &args[at + 1][..] == b"~";
                at += if sign { 2 } else { 1 };
                strategy = Some(if is("maxlen") {
                    let max = u64::try_from(numbers::integer(&args[at])?);
                    Strategy::MaxLen(max.map_err(|_| CommandError::Static("ERR The MAXLEN argument must be >= 0."))?)
                } else {
                    Strategy::MinId(id::strict(&args[at], 0)?)
                });
            } else if is("limit") && more > 0 {
                at += 1;
                let given = u64::try_from(numbers::integer(&args[at])?);
                limit = Some(given.map_err(|_| CommandError::Static("ERR The LIMIT argument must be >= 0."))?);
            } else if adds && is("nomkstream") {
                create = false;
            } else if adds {
                id::new_id(arg)?;
                break;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        let trim = trim(strategy, approximate, limit, adds, limits)?;
        Ok(Options { trim, create, id_at: at })
    }
}

fn trim(
    strategy: Option<Strategy>,
    approximate: bool,
    limit: Option<u64>,
    adds: bool,
    limits: NodeLimits,
) -> Result<Option<Trim>, CommandError> {
    if strategy.is_none() && limit.is_some_and(|limit| limit > 0) {
        return Err(CommandError::Static(
            "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
        ));
    }
    if strategy.is_none() && !adds {
        return Err(CommandError::Static("ERR syntax error, XTRIM must be called with a trimming strategy"));
    }
    if limit.is_some() && !approximate {
        return Err(CommandError::Static("ERR syntax error, LIMIT cannot be used without the special ~ option"));
    }
    let limit = limit.unwrap_or_else(|| {
        let (most, unlimited) = DEFAULT_TRIM_LIMITS;
        match DEFAULT_TRIM_NODES.saturating_mul(limits.entries as u64) {
            0 => unlimited,
            limit => limit.min(most),
        }
    });
    let approximate = approximate.then(|| Some(limit).filter(|limit| *limit > 0));
    Ok(strategy.map(|strategy| Trim { strategy, approximate }))
}

fn node_limits(ctx: &Ctx<'_, '_>) -> NodeLimits {
    let config = &ctx.server.config;
    NodeLimits { entries: config.stream_node_max_entries(), bytes: config.stream_node_max_bytes() }
}

/// What a trimming will remove. To be called before anything is changed.
fn plan(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    stream: &Handle,
    trim: Option<Trim>,
    added: Option<(StreamId, bool)>,
) -> Result<Option<Cut>, CommandError> {
    let Some(trim) = trim else { return Ok(None) };
    let room = ctx.budget();
    let cut = trim.plan(&mut ctx.reader(key), stream, added, room)?;
    ctx.heavy(cut.map_or(0, |cut| cut.count))?;
    Ok(cut)
}

fn cut_off(ctx: &mut Ctx<'_, '_>, key: &Bytes, cut: Option<Cut>) -> Result<(), CommandError> {
    if let Some(Cut { through, .. }) = cut {
        change(ctx, key, Change::Trim { through })?;
        ctx.notify(EventClass::Stream, "xtrim", key);
    }
    Ok(())
}

/// The ID that a new entry gets.
fn choose_id(asked: NewId, last: StreamId, now: u64) -> Result<StreamId, CommandError> {
    if last == StreamId::MAX {
        return Err(CommandError::Static(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let chosen = match asked {
        NewId::Given(id) => Some(id),
        NewId::Auto if now > last.ms => Some(StreamId { ms: now, seq: 0 }),
        NewId::Auto => last.next(),
        NewId::AutoSeq(ms) if ms == last.ms => last.seq.checked_add(1).map(|seq| StreamId { ms, seq }),
        NewId::AutoSeq(ms) => Some(StreamId { ms, seq: 0 }),
    };
    chosen
        .filter(|id| *id > last)
        .ok_or(CommandError::Static("ERR The ID specified in XADD is equal or smaller than the target stream top item"))
}

/// XADD key [NOMKSTREAM] [MAXLEN | MINID [= | ~] threshold [LIMIT count]] * | id field value [field value ...]
pub(super) fn xadd(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let limits = node_limits(ctx);
    let options = Options::parse(args, true, limits)?;
    let elements = args.get(options.id_at + 1..).unwrap_or_default();
    if elements.is_empty() || elements.len() % 2 == 1 {
        return Err(CommandError::Arity("xadd".into()));
    }
    let asked = id::new_id(&args[options.id_at])?;
    if asked == NewId::Given(StreamId::MIN) {
        return Err(CommandError::Static("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let key = &args[1];
    let stream = match ctx.peek_collection(key, Kind::Stream)? {
        Some(stream) => stream,
        None if !options.create => {
            ctx.reply.null();
            return Ok(());
        }
        None => empty(key),
    };
    let head = Head::of(&stream);
    let id = choose_id(asked, head.last_id, ctx.now)?;
    if elements.iter().map(Bytes::len).sum::<usize>() > MAX_ENTRY {
        return Err(CommandError::Static("ERR Elements are too large to be stored"));
    }
    let opens_node = head.opens_node(elements, limits);
    let cut = plan(ctx, key, &stream, options.trim, Some((id, opens_node)))?;
    ctx.create_if_missing(key, Kind::Stream)?;
    change(ctx, key, Change::Add { id, opens_node, elements: elements.to_vec() })?;
    ctx.notify(EventClass::Stream, "xadd", key);
    cut_off(ctx, key, cut)?;
    id::write(ctx.reply, id);
    Ok(())
}

/// A stream that does not exist yet.
fn empty(key: &Bytes) -> Handle {
    let collection = Collection { version: 0, count: 0, extra: Bytes::new() };
    Handle { key: key.clone(), kind: Kind::Stream, expire_at: None, collection }
}

/// XTRIM key MAXLEN | MINID [= | ~] threshold [LIMIT count]
pub(super) fn xtrim(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let options = Options::parse(args, false, node_limits(ctx))?;
    let key = &args[1];
    let mut count = 0;
    if let Some(stream) = ctx.peek_collection(key, Kind::Stream)? {
        let cut = plan(ctx, key, &stream, options.trim, None)?;
        cut_off(ctx, key, cut)?;
        count = cut.map_or(0, |cut| cut.count);
    }
    ctx.reply.int(count as i64);
    Ok(())
}

/// XDEL key id [id ...]
pub(super) fn xdel(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let mut count = 0;
    if ctx.peek_collection(key, Kind::Stream)?.is_some() {
        let ids = id::all(&args[2..])?;
        ctx.heavy(ids.len() as u64)?;
        count = change(ctx, key, Change::Del(ids))?.count;
        if count > 0 {
            ctx.notify(EventClass::Stream, "xdel", key);
        }
    }
    ctx.reply.int(count as i64);
    Ok(())
}

/// XLEN key
pub(super) fn xlen(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let len = ctx.read_collection(&args[1], Kind::Stream)?.map_or(0, |stream| stream.len());
    ctx.reply.int(len as i64);
    Ok(())
}

/// XSETID key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]
pub(super) fn xsetid(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let last_id = id::strict(&args[2], 0)?;
    let mut added = None;
    let mut deleted = StreamId::MIN;
    let mut options = args[3..].iter();
    while let Some(option) = options.next() {
        let value = options.next().ok_or(CommandError::Syntax)?;
        if option.eq_ignore_ascii_case(b"entriesadded") {
            let given = u64::try_from(numbers::integer(value)?);
            added = Some(given.map_err(|_| CommandError::Static("ERR entries_added must be positive"))?);
        } else if option.eq_ignore_ascii_case(b"maxdeletedid") {
            deleted = id::strict(value, 0)?;
            if last_id < deleted {
                return Err(CommandError::Static(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let key = &args[1];
    let stream = ctx.peek_collection(key, Kind::Stream)?.ok_or(CommandError::NoSuchKey)?;
    if let Some(top) = stream::last_entry(&mut ctx.reader(key), &stream)? {
        if last_id < top {
            return Err(CommandError::Static(
                "ERR The ID specified in XSETID is smaller than the target stream top item",
            ));
        }
        if added.is_some_and(|added| added < stream.len()) {
            return Err(CommandError::Static(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
    }
    let head = Head::of(&stream);
    let entries_added = added.unwrap_or(head.entries_added);
    let max_deleted_id = if deleted == StreamId::MIN { head.max_deleted_id } else { deleted };
    change(ctx, key, Change::SetId { last_id, entries_added, max_deleted_id })?;
    ctx.notify(EventClass::Stream, "xsetid", key);
    ctx.reply.ok();
    Ok(())
}

/// XRANGE key start end [COUNT count]
pub(super) fn xrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    range(ctx, args, &args[2], &args[3], false)
}

/// XREVRANGE key end start [COUNT count]
pub(super) fn xrevrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    range(ctx, args, &args[3], &args[2], true)
}

fn range(ctx: &mut Ctx<'_, '_>, args: &[Bytes], start: &Bytes, end: &Bytes, reverse: bool) -> Result<(), CommandError> {
    let (first, last) = (id::start(start)?, id::end(end)?);
    let mut count = u64::MAX;
    let mut options = args[4..].iter();
    while let Some(option) = options.next() {
        match options.next() {
            Some(value) if option.eq_ignore_ascii_case(b"count") => {
                count = numbers::integer(value)?.max(0) as u64;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let key = &args[1];
    let Some(stream) = stream_at(ctx, key)? else {
        ctx.reply.array(0);
        return Ok(());
    };
    if count == 0 {
        ctx.reply.null_array();
        return Ok(());
    }
    let room = ctx.budget();
    let mut entries = Reply::new(ctx.reply.proto());
    let mut found = 0;
    ctx.tx.read_last(ctx.client.db(), key, |reader| {
        stream::each(reader, &stream, first, last, reverse, &mut |id, entry| {
            id::write_entry(&mut entries, id, entry);
            found += 1;
            found < count && found <= room
        })
    })?;
    ctx.heavy(found)?;
    ctx.reply.array(found as usize);
    ctx.reply.raw(entries.as_slice());
    Ok(())
}
