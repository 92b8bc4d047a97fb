//! Bit commands: strings as arrays of bits and of small integers.

mod binding;
mod bits;
mod field;

use bytes::Bytes;

use self::binding::Stored;
use self::bits::{BitRange, BitString, Operation};
use self::field::{Patched, Step};
use super::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);

/// The family's part of the command table.
pub static BITMAP: &[Spec] = &[
    Spec {
        name: "bitcount",
        arity: -2,
        flags: READ,
        keys: Keys::ONE,
        since: "2.6.0",
        complexity: "O(N), N being the length of the string or of the part.",
        summary: "Counts the bits that are set in a string or a part of it.",
        usage: "key [start end [BYTE | BIT]]",
        handler: bitcount,
        ..BASE
    },
    Spec {
        name: "bitfield",
        arity: -2,
        flags: GROW,
        keys: Keys::ONE,
        since: "3.2.0",
        complexity: "O(1) for each step.",
        summary: "Reads and changes integers of any width at any bit of a string.",
        usage: "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | \
                INCRBY encoding offset increment> ...]",
        handler: bitfield,
        ..BASE
    },
    Spec {
        name: "bitfield_ro",
        arity: -2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "6.0.0",
        complexity: "O(1) for each step.",
        summary: "Reads integers of any width at any bit of a string.",
        usage: "key [GET encoding offset [GET encoding offset ...]]",
        handler: bitfield_ro,
        ..BASE
    },
    Spec {
        name: "bitop",
        arity: -4,
        flags: GROW,
        keys: Keys::Range { first: 2, last: -1, step: 1 },
        since: "2.6.0",
        complexity: "O(N), N being the length of the longest string.",
        summary: "Combines strings bit by bit and stores the result.",
        usage: "<AND | OR | XOR | NOT> destkey key [key ...]",
        handler: bitop,
        ..BASE
    },
    Spec {
        name: "bitpos",
        arity: -3,
        flags: READ,
        keys: Keys::ONE,
        since: "2.8.7",
        complexity: "O(N), N being the length of the string or of the part.",
        summary: "Finds the first bit that is set, or that is not, in a string or a part of it.",
        usage: "key bit [start [end [BYTE | BIT]]]",
        handler: bitpos,
        ..BASE
    },
    Spec {
        name: "getbit",
        arity: 3,
        flags: READ_FAST,
        keys: Keys::ONE,
        summary: "Answers one bit of a string.",
        usage: "key offset",
        handler: getbit,
        ..BASE
    },
    Spec {
        name: "setbit",
        arity: 4,
        flags: GROW,
        keys: Keys::ONE,
        summary: "Sets or clears one bit of a string, filling up with zero bytes as far as needed.",
        usage: "key offset value",
        handler: setbit,
        ..BASE
    },
];

/// What most bit commands have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::Bitmap,
    since: "2.2.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: getbit,
    subcommands: &[],
};

/// A bit's offset, in units of `width` bits, in a string of at most `max_bytes`.
fn bit_offset(text: &[u8], width: u32, max_bytes: u64) -> Result<u64, CommandError> {
    numbers::parse_i64(text)
        .and_then(|offset| u64::try_from(offset).ok())
        .and_then(|offset| offset.checked_mul(u64::from(width)))
        .filter(|offset| offset / 8 < max_bytes)
        .ok_or(CommandError::Static("ERR bit offset is not an integer or out of range"))
}

/// The longest a string may be, in bytes.
fn max_bytes(ctx: &Ctx<'_, '_>) -> u64 {
    ctx.server.config.proto_max_bulk_len() as u64
}

/// Whether the offsets before this argument count bits, not bytes.
fn counts_bits(unit: &[u8]) -> Result<bool, CommandError> {
    if unit.eq_ignore_ascii_case(b"bit") {
        Ok(true)
    } else if unit.eq_ignore_ascii_case(b"byte") {
        Ok(false)
    } else {
        Err(CommandError::Syntax)
    }
}

/// SETBIT key offset value
fn setbit(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let offset = bit_offset(&args[2], 1, max_bytes(ctx))?;
    let bit = match &args[3][..] {
        b"0" => 0,
        b"1" => 1,
        _ => return Err(CommandError::Static("ERR bit is not an integer or out of range")),
    };
    let string = ctx.peek_blob(key)?.unwrap_or_else(binding::missing);
    let (at, length) = (offset / 8, string.len());
    let [byte] = binding::with_one(ctx, key, string, |string| read_byte(string, at))?;
    let mask = 0x80 >> (offset % 8);
    let old = byte & mask != 0;
    if old != (bit == 1) || at >= length {
        ctx.notify_if_new(ctx.db(), key)?;
        binding::patch(ctx, key, at, vec![if bit == 1 { byte | mask } else { byte & !mask }])?;
        ctx.notify(EventClass::String, "setbit", key);
    }
    ctx.reply.int(i64::from(old));
    Ok(())
}

fn read_byte(mut string: Stored<'_, '_, '_>, at: u64) -> Result<[u8; 1], CommandError> {
    let mut byte = [0];
    string.read(at, &mut byte)?;
    Ok(byte)
}

/// GETBIT key offset
fn getbit(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let offset = bit_offset(&args[2], 1, max_bytes(ctx))?;
    let string = ctx.read_blob(&args[1])?.unwrap_or_else(binding::missing);
    let [byte] = binding::with_one(ctx, &args[1], string, |string| read_byte(string, offset / 8))?;
    ctx.reply.int(i64::from(byte & 0x80 >> (offset % 8) != 0));
    Ok(())
}

/// BITCOUNT key [start end [BYTE|BIT]]
///
/// As in Redis 7.0, the arguments of a missing key are not looked at.
fn bitcount(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some(string) = ctx.read_blob(&args[1])? else {
        ctx.reply.int(0);
        return Ok(());
    };
    let range = match &args[2..] {
        [] => BitRange::of(0, -1, false, string.len()),
        [start, end, unit @ ..] if unit.len() <= 1 => {
            let (start, end) = (numbers::integer(start)?, numbers::integer(end)?);
            if start < 0 && end < 0 && start > end {
                None
            } else {
                let bits = unit.first().map_or(Ok(false), |unit| counts_bits(unit))?;
                BitRange::of(start, end, bits, string.len())
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    let count = match range {
        Some(range) => binding::with(ctx, vec![(&args[1], string)], |strings| bits::count(&mut strings[0], range))?,
        None => 0,
    };
    ctx.reply.int(count as i64);
    Ok(())
}

/// BITPOS key bit [start [end [BYTE|BIT]]]
///
/// A string goes on with zeros behind its end, unless the command says where to stop.
fn bitpos(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let bit = match numbers::integer(&args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::Static("ERR The bit argument must be 1 or 0.")),
    };
    let Some(string) = ctx.read_blob(&args[1])? else {
        ctx.reply.int(if bit { -1 } else { 0 });
        return Ok(());
    };
    let length = string.len();
    let range = match &args[3..] {
        [] => BitRange::of(0, -1, false, length),
        [start] => BitRange::of(numbers::integer(start)?, -1, false, length),
        [start, end, unit @ ..] if unit.len() <= 1 => {
            let start = numbers::integer(start)?;
            let bits = unit.first().map_or(Ok(false), |unit| counts_bits(unit))?;
            BitRange::of(start, numbers::integer(end)?, bits, length)
        }
        _ => return Err(CommandError::Syntax),
    };
    let endless = args.len() < 5;
    let position = match range {
        Some(range) => match binding::with(ctx, vec![(&args[1], string)], |s| bits::position(&mut s[0], range, bit))? {
            None if endless && !bit => Some(length * 8),
            position => position,
        },
        None => None,
    };
    ctx.reply.int(position.map_or(-1, |position| position as i64));
    Ok(())
}

/// BITOP AND|OR|XOR|NOT destkey key [key ...]
fn bitop(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let operation = Operation::named(&args[1]).ok_or(CommandError::Syntax)?;
    let (destination, keys) = (&args[2], &args[3..]);
    if operation == Operation::Not && keys.len() != 1 {
        return Err(CommandError::Static("ERR BITOP NOT must be called with a single source key."));
    }
    let mut sources = Vec::with_capacity(keys.len());
    for key in keys {
        sources.push((key, ctx.peek_blob(key)?.unwrap_or_else(binding::missing)));
    }
    let mut parts = Vec::new();
    let longest = binding::with(ctx, sources, |sources| {
        bits::combine(operation, sources, |offset, part| {
            if part.iter().any(|byte| *byte != 0) {
                parts.push((offset, part.to_vec()));
            }
        })
    })?;
    if longest > 0 {
        ctx.notify_if_new(ctx.db(), destination)?;
        binding::replace(ctx, destination, longest, parts)?;
        ctx.notify(EventClass::String, "set", destination);
    } else if ctx.peek(destination)?.is_some() {
        let db = ctx.db();
        ctx.tx.del(db, destination, ctx.now)?;
        ctx.notify(EventClass::Generic, "del", destination);
    }
    ctx.reply.int(longest as i64);
    Ok(())
}

/// BITFIELD key [GET encoding offset | [OVERFLOW WRAP|SAT|FAIL] SET encoding offset value | INCRBY encoding offset
/// increment ...]
///
/// The string is lengthened to hold every field that a step may write, whether or not it does.
fn bitfield(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[1];
    let steps = field::parse(&args[2..], max_bytes(ctx))?;
    let writes = |step: &&Step| !matches!(step, Step::Get(_));
    let Some(last) = steps.iter().filter(writes).map(|step| step.field().last_byte()).max() else {
        return read_fields(ctx, key, &steps);
    };
    let string = ctx.peek_blob(key)?.unwrap_or_else(binding::missing);
    let (answers, patches) = binding::with_one(ctx, key, string, |string| {
        let mut string = Patched::of(string);
        string.grow(last)?;
        let answers: Vec<Option<i64>> = steps.iter().map(|step| string.perform(*step)).collect::<Result<_, _>>()?;
        Ok((answers, string.into_patches()))
    })?;
    reply_numbers(ctx, &answers);
    ctx.notify_if_new(ctx.db(), key)?;
    // Not for bytes that were made for a step that then failed.
    let written = steps.iter().zip(&answers).any(|(step, answer)| writes(&step) && answer.is_some());
    if written && !patches.is_empty() {
        ctx.notify(EventClass::String, "setbit", key);
    }
    for patch in patches {
        binding::patch(ctx, key, patch.offset, patch.bytes)?;
    }
    Ok(())
}

/// BITFIELD_RO key [GET encoding offset ...]
fn bitfield_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let steps = field::parse(&args[2..], max_bytes(ctx))?;
    if !steps.iter().all(|step| matches!(step, Step::Get(_))) {
        return Err(CommandError::Static("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    read_fields(ctx, &args[1], &steps)
}

fn read_fields(ctx: &mut Ctx<'_, '_>, key: &Bytes, steps: &[Step]) -> Result<(), CommandError> {
    let string = ctx.read_blob(key)?.unwrap_or_else(binding::missing);
    let answers: Vec<Option<i64>> = binding::with_one(ctx, key, string, |string| {
        let mut string = Patched::of(string);
        steps.iter().map(|step| string.perform(*step)).collect()
    })?;
    reply_numbers(ctx, &answers);
    Ok(())
}

fn reply_numbers(ctx: &mut Ctx<'_, '_>, numbers: &[Option<i64>]) {
    ctx.reply.array(numbers.len());
    for number in numbers {
        match number {
            Some(number) => ctx.reply.int(*number),
            None => ctx.reply.null(),
        }
    }
}
