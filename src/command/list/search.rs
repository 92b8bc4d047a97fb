//! Commands that look for elements of a list by value: LPOS, LREM, LINSERT.

use bytes::Bytes;

use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::types::list::{self, Change};
use crate::keyspace::{Effect, Kind};
use crate::pubsub::EventClass;

/// The options of LPOS.
struct PosOptions {
    /// How many matches there are before the first one that counts.
    skip: u64,
    from_end: bool,
    /// Matches to answer; 0 = all. `None`: one, not in an array.
    count: Option<u64>,
    /// Elements to look at; 0 = all.
    max_len: u64,
}

impl PosOptions {
    fn parse(args: &[Bytes]) -> Result<PosOptions, CommandError> {
        let mut options = PosOptions { skip: 0, from_end: false, count: None, max_len: 0 };
        let (pairs, []) = args.as_chunks::<2>() else { return Err(incomplete(args)) };
        for [option, value] in pairs {
            options.set(option, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, option: &[u8], value: &[u8]) -> Result<(), CommandError> {
        if option.eq_ignore_ascii_case(b"rank") {
            let rank = numbers::integer(value)?;
            if rank == 0 {
                return Err(CommandError::Static(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                     negative to start from the end of the list",
                ));
            }
            if rank == i64::MIN {
                let (min, max) = (-i64::MAX, i64::MAX);
                return Err(CommandError::Text(format!(
                    "ERR value is out of range, value must between {min} and {max}"
                )));
            }
            (self.skip, self.from_end) = (rank.unsigned_abs() - 1, rank < 0);
        } else if option.eq_ignore_ascii_case(b"count") {
            self.count = Some(not_negative(value, "ERR COUNT can't be negative")?);
        } else if option.eq_ignore_ascii_case(b"maxlen") {
            self.max_len = not_negative(value, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(CommandError::Syntax);
        }
        Ok(())
    }
}

/// What is wrong with options of which the last one lacks its value: what comes first.
fn incomplete(args: &[Bytes]) -> CommandError {
    let whole = args.len() / 2 * 2;
    PosOptions::parse(args.get(..whole).unwrap_or_default()).err().unwrap_or(CommandError::Syntax)
}

fn not_negative(text: &[u8], error: &'static str) -> Result<u64, CommandError> {
    let number = numbers::parse_i64(text).and_then(|number| u64::try_from(number).ok());
    number.ok_or(CommandError::Static(error))
}

/// LPOS key element [RANK rank] [COUNT num-matches] [MAXLEN len]
pub fn lpos(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, wanted) = (&args[1], &args[2]);
    let options = PosOptions::parse(args.get(3..).unwrap_or_default())?;
    let mut found = Vec::new();
    if let Some(list) = ctx.read_collection(key, Kind::List)? {
        let len = list.len();
        let looked_at = if options.max_len == 0 { len } else { len.min(options.max_len) };
        let (first, end) = if options.from_end { (len - looked_at, len) } else { (0, looked_at) };
        ctx.heavy(looked_at)?;
        let max = match options.count {
            None => 1,
            Some(0) => len,
            Some(count) => count,
        };
        let mut skip = options.skip;
        let db = ctx.client.db();
        ctx.tx.read_last(db, key, |reader| {
            list::each(reader, &list, first, end, options.from_end, &mut |index, element| {
                if element == wanted {
                    if skip == 0 {
                        found.push(index as i64);
                    }
                    skip = skip.saturating_sub(1);
                }
                (found.len() as u64) < max
            })
        })?;
    }
    if options.count.is_some() {
        ctx.reply.array(found.len());
        found.iter().for_each(|index| ctx.reply.int(*index));
    } else {
        match found.first() {
            Some(index) => ctx.reply.int(*index),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

/// LREM key count element
pub fn lrem(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, unwanted) = (&args[1], &args[3]);
    let count = numbers::integer(&args[2])?;
    let Some(list) = ctx.peek_collection(key, Kind::List)? else {
        ctx.reply.int(0);
        return Ok(());
    };
    ctx.heavy(list.len())?;
    let max = if count == 0 { u64::MAX } else { count.unsigned_abs() };
    let mut found = Vec::new();
    list::each(&mut ctx.reader(key), &list, 0, list.len(), count < 0, &mut |index, element| {
        if element == unwanted {
            found.push(index);
        }
        (found.len() as u64) < max
    })?;
    found.sort_unstable();
    let removed = found.len() as u64;
    if removed > 0 {
        ctx.apply(Effect::List(key.clone(), Change::Remove(found)))?;
        ctx.notify(EventClass::List, "lrem", key);
    }
    if removed == list.len() {
        ctx.notify(EventClass::Generic, "del", key);
    }
    ctx.reply.int(removed as i64);
    Ok(())
}

/// LINSERT key BEFORE | AFTER pivot element
pub fn linsert(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, side, pivot, element) = (&args[1], &args[2], &args[3], &args[4]);
    let after = side.eq_ignore_ascii_case(b"after");
    if !after && !side.eq_ignore_ascii_case(b"before") {
        return Err(CommandError::Syntax);
    }
    let Some(list) = ctx.peek_collection(key, Kind::List)? else {
        ctx.reply.int(0);
        return Ok(());
    };
    ctx.heavy(list.len())?;
    let mut found = None;
    list::each(&mut ctx.reader(key), &list, 0, list.len(), false, &mut |index, element| {
        found = (element == pivot).then_some(index);
        found.is_none()
    })?;
    let Some(found) = found else {
        ctx.reply.int(-1);
        return Ok(());
    };
    let index = found + u64::from(after);
    ctx.apply(Effect::List(key.clone(), Change::Insert { index, element: element.clone() }))?;
    ctx.notify(EventClass::List, "linsert", key);
    ctx.reply.int(list.len() as i64 + 1);
    Ok(())
}
