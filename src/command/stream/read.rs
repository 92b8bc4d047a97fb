//! XREAD and XREADGROUP.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::groups::{ensure_consumer, no_such_group};
use super::id;
use super::{change, stream_at};
use crate::command::blocking::{Block, OnTimeout};
use crate::command::error::lossy;
use crate::command::{CommandError, Ctx, KeyRef, Within, numbers};
use crate::keyspace::types::Handle;
use crate::keyspace::types::stream::{self, Change, Claim, Group, Head};
use crate::net::Reply;
use crate::rdb::StreamId;

/// Entries that a command gets at most which had to wait, when it does not say how many.
const WAITING_COUNT: &str = "1000";

/// The arguments.
struct Request {
    /// `None` = answers at once; for ever, if no duration.
    block: Option<Option<Duration>>,
    /// Entries of each stream; `None` = all.
    count: Option<u64>,
    /// Group and consumer.
    group: Option<(Bytes, Bytes)>,
    no_ack: bool,
    /// Indexes of the keys among the arguments; the IDs follow.
    keys: Range<usize>,
}

impl Request {
    fn parse(args: &[Bytes], of_group: bool, within: Within) -> Result<Request, CommandError> {
        let mut request = Request { block: None, count: None, group: None, no_ack: false, keys: 0..0 };
        let only_group = |option: &str| {
            CommandError::Text(format!(
                "ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
            ))
        };
        let mut at = 1;
        while let Some(arg) = args.get(at) {
            let more = args.len() - 1 - at;
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            if is("block") && more > 0 {
                if within == Within::Script {
                    let name = lossy(&args[0], usize::MAX);
                    let text = format!("ERR {name} command is not allowed with BLOCK option from scripts");
                    return Err(CommandError::Text(text));
                }
                at += 1;
                request.block = Some(timeout(&args[at])?);
            } else if is("count") && more > 0 {
                at += 1;
                request.count = u64::try_from(numbers::integer(&args[at])?).ok().filter(|count| *count > 0);
            } else if is("streams") && more > 0 {
                if more % 2 == 1 {
                    return Err(CommandError::Static(
                        "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
                    ));
                }
                request.keys = at + 1..at + 1 + more / 2;
                break;
            } else if is("group") && more >= 2 {
                if !of_group {
                    return Err(only_group("GROUP"));
                }
                request.group = Some((args[at + 1].clone(), args[at + 2].clone()));
                at += 2;
            } else if is("noack") {
                if !of_group {
                    return Err(only_group("NOACK"));
                }
                request.no_ack = true;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        if request.keys.is_empty() {
            return Err(CommandError::Syntax);
        }
        if of_group && request.group.is_none() {
            return Err(CommandError::Static("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    /// Each key with the argument that is its ID.
    fn streams<'a>(&self, args: &'a [Bytes]) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> + use<'a> {
        args[self.keys.clone()].iter().zip(&args[self.keys.end..])
    }

    /// Waits, if it may. Tried again, it reads what comes after `ids`, if they are given.
    fn wait(&self, ctx: &mut Ctx<'_, '_>, args: &[Bytes], ids: &[StreamId]) -> Result<(), CommandError> {
        let Some(timeout) = self.block else {
            ctx.reply.null_array();
            return Ok(());
        };
        let mut again = args.to_vec();
        again[self.keys.end..].iter_mut().zip(ids).for_each(|(arg, id)| *arg = id.to_string().into());
        if self.count.is_none() {
            let before_streams = self.keys.start - 1;
            let count = ["COUNT", WAITING_COUNT].map(|word| Bytes::from_static(word.as_bytes()));
            again.splice(before_streams..before_streams, count);
        }
        let keys = args[self.keys.clone()].to_vec();
        ctx.block(Block { args: Some(again), ..Block::on(keys, timeout, OnTimeout::NullArray) })
    }
}

/// BLOCK's argument, in ms; 0 = for ever.
fn timeout(text: &[u8]) -> Result<Option<Duration>, CommandError> {
    let ms = numbers::parse_i64(text).ok_or(CommandError::Static("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| CommandError::Static("ERR timeout is negative"))?;
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}

/// The keys of XREAD and XREADGROUP. Of a request that will be refused nothing needs to be locked.
pub(super) fn keys(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    let of_group = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"xreadgroup"));
    if let Ok(request) = Request::parse(args, of_group, Within::Nothing) {
        found.extend(request.streams(args).map(|(key, _)| KeyRef { db, key: key.clone() }));
    }
}

/// Streams with their entries, as they are answered.
struct Answer {
    streams: Reply,
    count: usize,
}

impl Answer {
    fn new(ctx: &Ctx<'_, '_>) -> Answer {
        Answer { streams: Reply::new(ctx.reply.proto()), count: 0 }
    }

    fn push(&mut self, key: &[u8], entries: usize, encoded: &Reply) {
        if self.streams.proto() < 3 {
            self.streams.array(2);
        }
        self.streams.bulk(key);
        self.streams.array(entries);
        self.streams.raw(encoded.as_slice());
        self.count += 1;
    }

    fn write(&self, reply: &mut Reply) {
        if reply.proto() >= 3 {
            reply.map(self.count)
        } else {
            reply.array(self.count)
        }
        reply.raw(self.streams.as_slice());
    }
}

/// XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]
pub(super) fn xread(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let request = Request::parse(args, false, ctx.within)?;
    let mut streams = Vec::new();
    for (key, arg) in request.streams(args) {
        let stream = match stream_at(ctx, key) {
            // Who waits for a stream waits on when something else comes.
            Err(CommandError::WrongType) if ctx.waited => None,
            other => other?,
        };
        let id = start_of(ctx, key, stream.as_ref(), arg)?;
        streams.push((key, stream, id));
    }
    let mut answer = Answer::new(ctx);
    let (mut room, count) = (ctx.budget(), request.count.unwrap_or(u64::MAX));
    for (key, stream, id) in &streams {
        let (Some(stream), Some(first)) = (stream, id.next()) else { continue };
        let (found, entries) = read_from(ctx, key, stream, first, count.min(room.saturating_add(1)), |_| {})?;
        ctx.heavy(if found > room { u64::MAX } else { 0 })?;
        room -= found.min(room);
        if found > 0 {
            answer.push(key, found as usize, &entries);
        }
    }
    if answer.count == 0 {
        let ids: Vec<StreamId> = streams.iter().map(|(_, _, id)| *id).collect();
        return request.wait(ctx, args, &ids);
    }
    answer.write(ctx.reply);
    Ok(())
}

/// After which ID XREAD reads a stream.
fn start_of(ctx: &mut Ctx<'_, '_>, key: &Bytes, stream: Option<&Handle>, arg: &[u8]) -> Result<StreamId, CommandError> {
    match (arg, stream) {
        (b"$" | b"+", None) => Ok(StreamId::MIN),
        (b"$", Some(stream)) => Ok(Head::of(stream).last_id),
        (b"+", Some(stream)) => {
            let last = stream::last_entry(&mut ctx.reader(key), stream)?.and_then(StreamId::previous);
            Ok(last.unwrap_or(Head::of(stream).last_id))
        }
        (b">", _) => Err(CommandError::Static(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        (id, _) => id::strict(id, 0),
    }
}

/// Reads `count` entries from `first` on: how many there are, and the replies that they make.
fn read_from(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    stream: &Handle,
    first: StreamId,
    count: u64,
    mut seen: impl FnMut(StreamId),
) -> Result<(u64, Reply), CommandError> {
    let mut entries = Reply::new(ctx.reply.proto());
    let mut found = 0;
    if first > Head::of(stream).last_id {
        return Ok((found, entries));
    }
    stream::each(&mut ctx.reader(key), stream, first, StreamId::MAX, false, &mut |id, entry| {
        id::write_entry(&mut entries, id, entry);
        seen(id);
        found += 1;
        found < count
    })?;
    Ok((found, entries))
}

/// What a consumer asks for.
#[derive(Clone, Copy)]
enum Wanted {
    /// `>`: what nobody in the group got yet.
    New,
    /// What it got after this ID and has not acknowledged.
    History(StreamId),
}

/// XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]
pub(super) fn xreadgroup(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let request = Request::parse(args, true, ctx.within)?;
    let Some((group, consumer)) = request.group.clone() else { return Err(CommandError::Syntax) };
    let mut streams = Vec::new();
    let mut bound = 0u64;
    for (key, arg) in request.streams(args) {
        let (stream, state) = stream_and_group(ctx, key, &group)?;
        let wanted = match &arg[..] {
            b">" => Wanted::New,
            b"$" => {
                return Err(CommandError::Static(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this \
                     consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just \
                     return an empty result set.",
                ));
            }
            id => Wanted::History(id::strict(id, 0)?),
        };
        let most = match wanted {
            Wanted::New => most_new(&stream, &state),
            Wanted::History(_) => {
                let consumer = stream::consumer(&mut ctx.reader(key), &stream, &group, &consumer)?;
                consumer.map_or(0, |consumer| consumer.pending)
            }
        };
        bound = bound.saturating_add(most.min(request.count.unwrap_or(u64::MAX)));
        streams.push((key, stream, wanted));
    }
    ctx.heavy(bound)?;
    let reader = GroupReader { group, consumer, count: request.count.unwrap_or(u64::MAX), no_ack: request.no_ack };
    let mut answer = Answer::new(ctx);
    for (key, stream, wanted) in &streams {
        match wanted {
            Wanted::New => reader.read_new(ctx, key, stream, &mut answer)?,
            Wanted::History(after) => reader.read_history(ctx, key, stream, *after, &mut answer)?,
        }
    }
    if answer.count == 0 {
        return request.wait(ctx, args, &[]);
    }
    answer.write(ctx.reply);
    Ok(())
}

/// The stream and the group that XREADGROUP reads, which must be there.
fn stream_and_group(ctx: &mut Ctx<'_, '_>, key: &Bytes, group: &Bytes) -> Result<(Handle, Group), CommandError> {
    let stream = match stream_at(ctx, key) {
        Ok(None) | Err(CommandError::WrongType) if ctx.waited => {
            return Err(CommandError::Static("UNBLOCKED the stream key no longer exists"));
        }
        other => other?,
    };
    let found = match &stream {
        Some(stream) => stream::group(&mut ctx.reader(key), stream, group)?,
        None => None,
    };
    match stream.zip(found) {
        Some(found) => Ok(found),
        None if ctx.waited => {
            Err(CommandError::Static("NOGROUP the consumer group this client was blocked on no longer exists"))
        }
        None => Err(no_such_group(key, group, " in XREADGROUP with GROUP option")),
    }
}

/// How many entries there may be that a group did not get yet.
fn most_new(stream: &Handle, group: &Group) -> u64 {
    let head = Head::of(stream);
    if group.last_id >= head.last_id {
        return 0;
    }
    match group.entries_read {
        Some(read) if !head.has_tombstones_from(group.last_id, stream.len()) => {
            head.entries_added.saturating_sub(read).min(stream.len())
        }
        _ => stream.len(),
    }
}

/// A consumer that reads.
struct GroupReader {
    group: Bytes,
    consumer: Bytes,
    count: u64,
    no_ack: bool,
}

impl GroupReader {
    /// Delivers what nobody in the group got yet, if there is something.
    fn read_new(
        &self,
        ctx: &mut Ctx<'_, '_>,
        key: &Bytes,
        stream: &Handle,
        answer: &mut Answer,
    ) -> Result<(), CommandError> {
        // An earlier key of the same request may have been the same one.
        let Some(mut group) = stream::group(&mut ctx.reader(key), stream, &self.group)? else { return Ok(()) };
        let Some(first) = group.last_id.next() else { return Ok(()) };
        let (head, len, time) = (Head::of(stream), stream.len(), ctx.now);
        let mut claims = Vec::new();
        let (found, entries) = read_from(ctx, key, stream, first, self.count, |id| {
            group.entries_read = match group.entries_read {
                Some(read) if !head.has_tombstones_from(id, len) => Some(read + 1),
                _ if head.entries_added > 0 => head.added_up_to(id, len),
                read => read,
            };
            group.last_id = id;
            claims.push(Claim { id, time, count: 1 });
        })?;
        if found == 0 {
            return Ok(());
        }
        ensure_consumer(ctx, key, stream, &self.group, &self.consumer, true)?;
        if !self.no_ack {
            let (group, consumer) = (self.group.clone(), self.consumer.clone());
            change(ctx, key, Change::Claim { group, consumer, claims })?;
        }
        let Group { last_id, entries_read, .. } = group;
        change(ctx, key, Change::Group { name: self.group.clone(), last_id, entries_read })?;
        answer.push(key, found as usize, &entries);
        Ok(())
    }

    /// Delivers once more what the consumer has not acknowledged; what was deleted meanwhile without its fields.
    fn read_history(
        &self,
        ctx: &mut Ctx<'_, '_>,
        key: &Bytes,
        stream: &Handle,
        after: StreamId,
        answer: &mut Answer,
    ) -> Result<(), CommandError> {
        ensure_consumer(ctx, key, stream, &self.group, &self.consumer, false)?;
        let (time, mut ids) = (ctx.now, Vec::new());
        let mut reader = ctx.tx.reader(ctx.client.db(), key);
        if let Some(first) = after.next() {
            let owner = (&self.group[..], &self.consumer[..]);
            stream::each_owned(&mut reader, stream, owner, (first, StreamId::MAX), &mut |id| {
                ids.push(id);
                (ids.len() as u64) < self.count
            })?;
        }
        let mut entries = Reply::new(ctx.reply.proto());
        let mut claims = Vec::new();
        for &id in &ids {
            let live = stream::with_entry(&mut reader, stream, id, |entry| id::write_entry(&mut entries, id, entry))?;
            if live.is_none() {
                entries.array(2);
                id::write(&mut entries, id);
                entries.null_array();
            } else if let Some(delivery) = stream::delivery(&mut reader, stream, &self.group, id)? {
                claims.push(Claim { id, time, count: delivery.count.saturating_add(1) });
            }
        }
        if !claims.is_empty() {
            let (group, consumer) = (self.group.clone(), self.consumer.clone());
            change(ctx, key, Change::Claim { group, consumer, claims })?;
        }
        answer.push(key, ids.len(), &entries);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn keys_lie_behind_the_word() {
        let find = |text: &str| {
            let mut found = Vec::new();
            keys(2, &request(text), &mut found);
            found.iter().map(|found| String::from_utf8(found.key.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(find("xread streams a b 0 0"), ["a", "b"]);
        assert_eq!(find("XREADGROUP group streams c count 2 STREAMS a >"), ["a"]);
        assert_eq!(find("xread block streams a 0"), [] as [&str; 0]);
        assert_eq!(find("xread streams a b 0"), [] as [&str; 0]);
        assert_eq!(find("xread group g c streams a >"), [] as [&str; 0]);
    }
}
