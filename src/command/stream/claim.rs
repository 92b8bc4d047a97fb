//! Taking over what others have not acknowledged: XCLAIM and XAUTOCLAIM.

use bytes::Bytes;

use super::groups::{ensure_consumer, stream_group};
use super::{change, id};
use crate::command::error::lossy;
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::Handle;
use crate::keyspace::types::stream::{self, Change, Claim, Delivery};
use crate::net::Reply;
use crate::rdb::StreamId;

/// Pending entries that XAUTOCLAIM looks at for each that it may claim.
const ATTEMPTS: u64 = 10;
/// What it claims unless it is told.
const DEFAULT_COUNT: u64 = 100;

/// A consumer that claims, and what it has got.
struct Claimer<'a> {
    key: &'a Bytes,
    stream: Handle,
    group: &'a Bytes,
    consumer: &'a Bytes,
    min_idle: u64,
    just_id: bool,
    /// Whether the consumer was noted.
    noted: bool,
    claimed: Reply,
    count: usize,
}

impl Claimer<'_> {
    /// Whether an entry has been with its consumer for long enough.
    fn is_idle(&self, now: u64, delivery: &Delivery) -> bool {
        self.min_idle == 0 || now.saturating_sub(delivery.time) >= self.min_idle
    }

    /// Takes an entry that exists.
    fn take(&mut self, ctx: &mut Ctx<'_, '_>, claim: Claim) -> Result<(), CommandError> {
        if !self.noted {
            ensure_consumer(ctx, self.key, &self.stream, self.group, self.consumer, true)?;
            self.noted = true;
        }
        let (group, consumer) = (self.group.clone(), self.consumer.clone());
        change(ctx, self.key, Change::Claim { group, consumer, claims: vec![claim] })?;
        if self.just_id {
            id::write(&mut self.claimed, claim.id);
        } else {
            stream::with_entry(&mut ctx.reader(self.key), &self.stream, claim.id, |entry| {
                id::write_entry(&mut self.claimed, claim.id, entry);
            })?;
        }
        self.count += 1;
        Ok(())
    }

    /// Forgets a pending entry that was deleted.
    fn forget(&self, ctx: &mut Ctx<'_, '_>, id: StreamId) -> Result<(), CommandError> {
        change(ctx, self.key, Change::Ack { group: self.group.clone(), ids: vec![id] })?;
        Ok(())
    }

    fn write(&self, reply: &mut Reply) {
        reply.array(self.count);
        reply.raw(self.claimed.as_slice());
    }
}

/// The options of XCLAIM.
#[derive(Default)]
struct Options {
    /// Unix ms; what is not a time that has been is now.
    time: Option<i64>,
    retry_count: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: StreamId,
}

impl Options {
    fn parse(args: &[Bytes], now: u64) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(option) = args.next() {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("force") {
                options.force = true;
                continue;
            }
            if is("justid") {
                options.just_id = true;
                continue;
            }
            let value = args.next().filter(|_| is("idle") || is("time") || is("retrycount") || is("lastid"));
            let Some(value) = value else {
                let option = lossy(option, usize::MAX);
                return Err(CommandError::Text(format!("ERR Unrecognized XCLAIM option '{option}'")));
            };
            let number = |text| numbers::parse_i64(value).ok_or(CommandError::Static(text));
            if is("idle") {
                let idle = number("ERR Invalid IDLE option argument for XCLAIM")?;
                options.time = Some((now as i64).wrapping_sub(idle));
            } else if is("time") {
                options.time = Some(number("ERR Invalid TIME option argument for XCLAIM")?);
            } else if is("retrycount") {
                options.retry_count = u64::try_from(number("ERR Invalid RETRYCOUNT option argument for XCLAIM")?).ok();
            } else {
                options.last_id = id::strict(value, 0)?;
            }
        }
        Ok(options)
    }
}

/// XCLAIM key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-ms] [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID id]
pub(super) fn xclaim(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, name, consumer) = (&args[1], &args[2], &args[3]);
    let (stream, group) = stream_group(ctx, key, name)?;
    let min_idle = numbers::parse_i64(&args[4])
        .ok_or(CommandError::Static("ERR Invalid min-idle-time argument for XCLAIM"))?
        .max(0) as u64;
    let ids: Vec<StreamId> = args[5..].iter().map_while(|arg| id::strict(arg, 0).ok()).collect();
    let now = ctx.now;
    let options = Options::parse(&args[5 + ids.len()..], now)?;
    ctx.heavy(ids.len() as u64)?;
    let time = options.time.and_then(|time| u64::try_from(time).ok()).filter(|time| *time <= now).unwrap_or(now);
    if options.last_id > group.last_id {
        let last_id = options.last_id;
        change(ctx, key, Change::Group { name: name.clone(), last_id, entries_read: group.entries_read })?;
    }
    let mut claimer = Claimer {
        key,
        stream,
        group: name,
        consumer,
        min_idle,
        just_id: options.just_id,
        noted: false,
        claimed: Reply::new(ctx.reply.proto()),
        count: 0,
    };
    for id in ids {
        let mut reader = ctx.reader(key);
        let delivery = stream::delivery(&mut reader, &claimer.stream, name, id)?;
        if !stream::exists(&mut reader, &claimer.stream, id)? {
            if delivery.is_some() {
                claimer.forget(ctx, id)?;
            }
            continue;
        }
        let before = match delivery {
            Some(delivery) if claimer.is_idle(now, &delivery) => delivery.count,
            // What FORCE makes counts as delivered.
            None if options.force => 1,
            _ => continue,
        };
        let count = options.retry_count.unwrap_or(before.saturating_add(u64::from(!options.just_id)));
        claimer.take(ctx, Claim { id, time, count })?;
    }
    claimer.write(ctx.reply);
    Ok(())
}

/// The options of XAUTOCLAIM: how many, and JUSTID.
fn auto_options(args: &[Bytes]) -> Result<(u64, bool), CommandError> {
    let (mut count, mut just_id) = (DEFAULT_COUNT, false);
    let mut options = args.iter();
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"justid") {
            just_id = true;
        } else if let Some(value) = options.next().filter(|_| option.eq_ignore_ascii_case(b"count")) {
            // As many IDs as a signed number counts the bytes of.
            let given = numbers::parse_i64(value).filter(|count| (1..=i64::MAX / 16).contains(count));
            count = given.ok_or(CommandError::Static("ERR COUNT must be > 0"))? as u64;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok((count, just_id))
}

/// XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID]
pub(super) fn xautoclaim(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, name, consumer) = (&args[1], &args[2], &args[3]);
    let min_idle = numbers::parse_i64(&args[4])
        .ok_or(CommandError::Static("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?
        .max(0) as u64;
    let start = id::start(&args[5])?;
    let (mut count, just_id) = auto_options(&args[6..])?;
    let (stream, group) = stream_group(ctx, key, name)?;
    let mut attempts = count.saturating_mul(ATTEMPTS);
    ctx.heavy(attempts.min(group.pending))?;
    let mut claimer = Claimer {
        key,
        stream,
        group: name,
        consumer,
        min_idle,
        just_id,
        noted: false,
        claimed: Reply::new(ctx.reply.proto()),
        count: 0,
    };
    let mut deleted = Vec::new();
    let mut next = Some(start);
    while let Some(first) = next.filter(|_| count > 0 && attempts > 0) {
        // No more than what may all be claimed.
        let batch = pending_from(ctx, &claimer, first, count.min(attempts))?;
        attempts -= batch.len() as u64;
        next = batch.last().and_then(|(last, _)| last.next());
        for (id, delivery) in batch {
            if !stream::exists(&mut ctx.reader(key), &claimer.stream, id)? {
                claimer.forget(ctx, id)?;
                deleted.push(id);
                count -= 1;
            } else if claimer.is_idle(ctx.now, &delivery) {
                let times = delivery.count.saturating_add(u64::from(!just_id));
                claimer.take(ctx, Claim { id, time: ctx.now, count: times })?;
                count -= 1;
            }
        }
    }
    let cursor = match next {
        Some(first) => pending_from(ctx, &claimer, first, 1)?.first().map(|(id, _)| *id),
        None => None,
    };
    ctx.reply.array(3);
    id::write(ctx.reply, cursor.unwrap_or(StreamId::MIN));
    claimer.write(ctx.reply);
    ctx.reply.array(deleted.len());
    deleted.into_iter().for_each(|id| id::write(ctx.reply, id));
    Ok(())
}

/// The first `count` pending entries of the group from an ID on.
fn pending_from(
    ctx: &mut Ctx<'_, '_>,
    claimer: &Claimer<'_>,
    first: StreamId,
    count: u64,
) -> Result<Vec<(StreamId, Delivery)>, CommandError> {
    let mut found = Vec::new();
    let range = (first, StreamId::MAX);
    stream::each_pending(&mut ctx.reader(claimer.key), &claimer.stream, claimer.group, range, &mut |id, delivery| {
        found.push((id, delivery));
        (found.len() as u64) < count
    })?;
    Ok(found)
}
