//! Sets made of sets: SINTER SINTERCARD SINTERSTORE SUNION SUNIONSTORE SDIFF SDIFFSTORE.
//!
//! All sets keep their members in one and the same order. So two of about the same size are gone through side by side; only where one is
//! much smaller its members are looked up in the other.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::command::{CommandError, Ctx, KeyRef, numbers};
use crate::engine::Space;
use crate::keyspace::types::{Handle, name_in, refill};
use crate::keyspace::{Kind, Read};
use crate::pubsub::EventClass;

/// Members of a set that are compared with the other sets at a time.
const BATCH: usize = 4096;
/// How many members can be gone through in the time of a lookup.
const MEMBERS_PER_LOOKUP: u64 = 16;

/// Which members of the sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// Those that all have.
    Intersection,
    /// Those that one has.
    Union,
    /// Those that only the first has.
    Difference,
}

/// The sets at `keys`, in this order; counts a keyspace hit or miss for each.
fn open(ctx: &mut Ctx<'_, '_>, keys: &[Bytes]) -> Result<Vec<Option<Handle>>, CommandError> {
    if !ctx.on_pool {
        let mut members = 0;
        for key in keys {
            members += ctx.peek_collection(key, Kind::Set)?.map_or(0, |set| set.len());
        }
        // Before a lookup is counted, since the command may begin anew.
        ctx.heavy(members)?;
    }
    keys.iter().map(|key| ctx.read_collection(key, Kind::Set)).collect()
}

/// Members by their suffixes, in order: what keys of elements end with.
type Batch = Vec<Vec<u8>>;

/// The next members of a set, from the suffix `from` on.
fn next_batch(ctx: &mut Ctx<'_, '_>, set: &Handle, from: &[u8], limit: usize) -> Result<Batch, CommandError> {
    let mut batch = Batch::new();
    set.each(&mut ctx.reader(&set.key), Space::Data, from, None, false, &mut |suffix, _| {
        batch.push(suffix.to_vec());
        batch.len() < limit
    })?;
    Ok(batch)
}

/// Keeps those members of a batch of a set of `len` members of which it is `wanted` that `other` has them.
fn retain(
    ctx: &mut Ctx<'_, '_>,
    batch: &mut Batch,
    len: u64,
    other: &Handle,
    wanted: bool,
) -> Result<(), CommandError> {
    let mut reader = ctx.reader(&other.key);
    if other.len() / MEMBERS_PER_LOOKUP > len {
        let mut kept = Batch::new();
        for suffix in std::mem::take(batch) {
            if reader.element(Space::Data, &other.element_key(&[&suffix]))?.is_some() == wanted {
                kept.push(suffix);
            }
        }
        *batch = kept;
        return Ok(());
    }
    let (Some(first), Some(last)) = (batch.first().cloned(), batch.last().cloned()) else { return Ok(()) };
    let mut members = std::mem::take(batch).into_iter().peekable();
    other.each(&mut reader, Space::Data, &first, None, false, &mut |suffix, _| {
        while let Some(absent) = members.next_if(|member| member.as_slice() < suffix) {
            if !wanted {
                batch.push(absent);
            }
        }
        if let Some(present) = members.next_if(|member| member == suffix)
            && wanted
        {
            batch.push(present);
        }
        suffix < last.as_slice()
    })?;
    if !wanted {
        batch.extend(members);
    }
    Ok(())
}

/// Calls `f` with the members that `base` has, and of which it is `wanted` that the others have them, until it returns false.
fn filtered(
    ctx: &mut Ctx<'_, '_>,
    base: &Handle,
    others: &[&Handle],
    wanted: bool,
    f: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), CommandError> {
    let mut from = Vec::new();
    loop {
        let mut batch = next_batch(ctx, base, &from, BATCH)?;
        let Some(last) = batch.last() else { return Ok(()) };
        let complete = batch.len() < BATCH;
        // Right after the last.
        from.clone_from(last);
        from.push(0);
        for other in others {
            if batch.is_empty() {
                break;
            }
            retain(ctx, &mut batch, base.len(), other, wanted)?;
        }
        if !batch.iter().all(|suffix| f(name_in(suffix))) || complete {
            return Ok(());
        }
    }
}

/// Calls `f` with the members that all sets have until it returns false. A missing set has none.
fn intersect(
    ctx: &mut Ctx<'_, '_>,
    sets: &[Option<Handle>],
    f: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), CommandError> {
    let Some(mut sets) = sets.iter().map(Option::as_ref).collect::<Option<Vec<&Handle>>>() else { return Ok(()) };
    sets.sort_by_key(|set| set.len());
    match sets.split_first() {
        Some((smallest, others)) => filtered(ctx, smallest, others, true, f),
        None => Ok(()),
    }
}

/// The members that an operation makes of the sets.
fn compute(ctx: &mut Ctx<'_, '_>, operation: Operation, sets: &[Option<Handle>]) -> Result<Vec<Bytes>, CommandError> {
    let mut members = Vec::new();
    let mut collect = |member: &[u8]| {
        members.push(Bytes::copy_from_slice(member));
        true
    };
    match operation {
        Operation::Intersection => intersect(ctx, sets, &mut collect)?,
        Operation::Difference => {
            if let Some((Some(first), others)) = sets.split_first() {
                // The largest first: it leaves least to look for in the others.
                let mut others: Vec<&Handle> = others.iter().flatten().collect();
                others.sort_by_key(|set| std::cmp::Reverse(set.len()));
                filtered(ctx, first, &others, false, &mut collect)?;
            }
        }
        Operation::Union => {
            let mut suffixes = BTreeSet::new();
            for set in sets.iter().flatten() {
                set.each(&mut ctx.reader(&set.key), Space::Data, &[], None, false, &mut |suffix, _| {
                    if !suffixes.contains(suffix) {
                        suffixes.insert(suffix.to_vec());
                    }
                    true
                })?;
            }
            suffixes.iter().all(|suffix| collect(name_in(suffix)));
        }
    }
    Ok(members)
}

fn reply(ctx: &mut Ctx<'_, '_>, args: &[Bytes], operation: Operation) -> Result<(), CommandError> {
    let sets = open(ctx, &args[1..])?;
    let members = compute(ctx, operation, &sets)?;
    ctx.reply.set(members.len());
    members.iter().for_each(|member| ctx.reply.bulk(member));
    Ok(())
}

fn store(ctx: &mut Ctx<'_, '_>, args: &[Bytes], operation: Operation, event: &'static str) -> Result<(), CommandError> {
    let destination = &args[1];
    let sets = open(ctx, &args[2..])?;
    let members = compute(ctx, operation, &sets)?;
    let (db, len) = (ctx.db(), members.len());
    if members.is_empty() {
        if ctx.peek(destination)?.is_some() {
            ctx.tx.del(db, destination, ctx.now)?;
            ctx.notify(EventClass::Generic, "del", destination);
        }
    } else {
        ctx.notify_if_new(db, destination)?;
        ctx.tx.create(db, destination, Kind::Set, ctx.now)?;
        for effect in refill::set(destination, members) {
            ctx.apply(effect)?;
        }
        ctx.notify(EventClass::Set, event, destination);
    }
    ctx.reply.int(len as i64);
    Ok(())
}

/// SINTER key [key ...]
pub fn sinter(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    reply(ctx, args, Operation::Intersection)
}

/// SINTERSTORE destination key [key ...]
pub fn sinterstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    store(ctx, args, Operation::Intersection, "sinterstore")
}

/// SUNION key [key ...]
pub fn sunion(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    reply(ctx, args, Operation::Union)
}

/// SUNIONSTORE destination key [key ...]
pub fn sunionstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    store(ctx, args, Operation::Union, "sunionstore")
}

/// SDIFF key [key ...]
pub fn sdiff(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    reply(ctx, args, Operation::Difference)
}

/// SDIFFSTORE destination key [key ...]
pub fn sdiffstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    store(ctx, args, Operation::Difference, "sdiffstore")
}

/// The keys that SINTERCARD names, and what follows them.
fn counted_keys(args: &[Bytes]) -> Result<(&[Bytes], &[Bytes]), CommandError> {
    let numkeys = args.get(1).and_then(|text| numbers::parse_i64(text)).filter(|numkeys| *numkeys > 0);
    let numkeys = numkeys.ok_or(CommandError::Static("ERR numkeys should be greater than 0"))?;
    let rest = args.get(2..).unwrap_or_default();
    usize::try_from(numkeys)
        .ok()
        .and_then(|numkeys| rest.split_at_checked(numkeys))
        .ok_or(CommandError::Static("ERR Number of keys can't be greater than number of args"))
}

/// The keys of SINTERCARD; of a request that it will refuse none.
pub fn keys_of_sintercard(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    if let Ok((keys, _)) = counted_keys(args) {
        found.extend(keys.iter().map(|key| KeyRef { db, key: key.clone() }));
    }
}

/// SINTERCARD numkeys key [key ...] [LIMIT limit]
pub fn sintercard(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (keys, mut options) = counted_keys(args)?;
    let mut limit = 0;
    while let [option, rest @ ..] = options {
        let [value, rest @ ..] = rest else { return Err(CommandError::Syntax) };
        if !option.eq_ignore_ascii_case(b"limit") {
            return Err(CommandError::Syntax);
        }
        limit = numbers::parse_i64(value)
            .and_then(|limit| u64::try_from(limit).ok())
            .ok_or(CommandError::Static("ERR LIMIT can't be negative"))?;
        options = rest;
    }
    let sets = open(ctx, keys)?;
    let mut count = 0;
    intersect(ctx, &sets, &mut |_| {
        count += 1;
        count != limit
    })?;
    ctx.reply.int(count as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_counted() {
        let args = |text: &str| -> Vec<Bytes> {
            text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
        };
        let two = args("sintercard 2 a b limit 3");
        let (keys, rest) = counted_keys(&two).unwrap();
        assert_eq!((keys.len(), rest.len()), (2, 2));
        for (text, error) in [
            ("sintercard 0 a", "ERR numkeys should be greater than 0"),
            ("sintercard x a", "ERR numkeys should be greater than 0"),
            ("sintercard 3 a b", "ERR Number of keys can't be greater than number of args"),
        ] {
            assert_eq!(counted_keys(&args(text)).unwrap_err().to_string(), error);
        }
    }
}
