//! HyperLogLog commands: PFADD PFCOUNT PFMERGE PFDEBUG PFSELFTEST.
//!
//! A HyperLogLog is a plain string in Redis's own format, which [`sketch`] reads and writes. One thing differs from
//! Redis: PFCOUNT only reads and stores no cardinality, so that it shares its keys and runs on replicas. The
//! cardinality is stored while it costs next to nothing, when PFADD makes the key; a later change marks it stale
//! as in Redis.

mod dense;
mod estimate;
mod hash;
mod selftest;
mod sketch;
mod sparse;

use bytes::Bytes;

use self::sketch::{REGISTERS, Registers, Sketch, SketchError};
use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);

/// Changed parts of a string that lie closer together than this are logged as one.
const PATCH_GAP: usize = 32;
/// A change in more parts than this is logged as the whole string.
const MAX_PATCHES: usize = 64;

/// The family's part of the command table.
pub static HYPERLOGLOG: &[Spec] = &[
    Spec {
        name: "pfadd",
        arity: -2,
        flags: GROW.and(Flags::FAST),
        keys: Keys::ONE,
        complexity: "O(N), N being the number of elements.",
        summary: "Adds elements to a HyperLogLog, creating it when there is none.",
        usage: "key [element [element ...]]",
        handler: pfadd,
        ..BASE
    },
    Spec {
        name: "pfcount",
        arity: -2,
        // It may write in Redis, which keeps the answer: clients that pause writes expect it to wait.
        flags: READ.and(Flags::MAY_REPLICATE),
        keys: Keys::ALL,
        complexity: "O(N), N being the number of keys; of one key a stored answer may be O(1).",
        summary: "Estimates how many distinct elements were added to HyperLogLogs, taken together.",
        usage: "key [key ...]",
        handler: pfcount,
        ..BASE
    },
    Spec {
        name: "pfdebug",
        arity: 3,
        flags: GROW.and(Flags::ADMIN),
        keys: Keys::Range { first: 2, last: 2, step: 1 },
        complexity: "O(1)",
        summary: "Shows or changes the representation of a HyperLogLog.",
        usage: "<DECODE | ENCODING | GETREG | TODENSE> key",
        handler: pfdebug,
        ..BASE
    },
    Spec {
        name: "pfmerge",
        arity: -2,
        flags: GROW,
        keys: Keys::ALL,
        complexity: "O(N), N being the number of keys.",
        summary: "Makes one HyperLogLog the union of itself and others.",
        usage: "destkey [sourcekey [sourcekey ...]]",
        handler: pfmerge,
        ..BASE
    },
    Spec {
        name: "pfselftest",
        arity: 1,
        flags: Flags::ADMIN.and(Flags::BLOCKING_POOL),
        keys: Keys::None,
        complexity: "O(1)",
        summary: "Checks the HyperLogLog implementation against itself.",
        usage: "",
        handler: pfselftest,
        ..BASE
    },
];

/// What the commands of the family have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::HyperLogLog,
    since: "2.8.9",
    complexity: "",
    summary: "",
    usage: "",
    handler: pfcount,
    subcommands: &[],
};

impl From<SketchError> for CommandError {
    fn from(error: SketchError) -> Self {
        CommandError::Static(match error {
            SketchError::NoSketch => "WRONGTYPE Key is not a valid HyperLogLog string value.",
            SketchError::Corrupt => "INVALIDOBJ Corrupted HLL object detected",
        })
    }
}

/// PFADD key [element [element ...]]
fn pfadd(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, elements) = (&args[1], &args[2..]);
    let old = ctx.peek_string(key)?;
    let mut sketch = match &old {
        Some(entry) => Sketch::from_bytes(&entry.value)?,
        None => Sketch::new(),
    };
    let mut changed = false;
    let sparse_max = ctx.server.config.hll_sparse_max_bytes();
    for element in elements {
        changed |= sketch.add(element, sparse_max)?;
    }
    let db = ctx.db();
    match old {
        None => {
            if changed {
                sketch.store_cardinality()?;
            }
            ctx.notify_if_new(db, key)?;
            ctx.tx.set(db, key, sketch.into_bytes(), None, ctx.now)?;
        }
        Some(old) if changed => {
            sketch.mark_stale();
            replace(ctx, key, &old.value, sketch.into_bytes(), old.expire_at)?;
        }
        Some(_) => {
            ctx.reply.int(0);
            return Ok(());
        }
    }
    ctx.notify(EventClass::String, "pfadd", key);
    ctx.reply.int(1);
    Ok(())
}

/// PFCOUNT key [key ...]
fn pfcount(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let count = match &args[1..] {
        [key] => match ctx.read_string(key)? {
            Some(entry) => Sketch::from_bytes(&entry.value)?.cardinality()?,
            None => 0,
        },
        keys => {
            let mut union = Registers::default();
            for key in keys {
                if let Some(entry) = ctx.read_string(key)? {
                    Sketch::from_bytes(&entry.value)?.merge_into(&mut union)?;
                }
            }
            union.cardinality()
        }
    };
    ctx.reply.int(count as i64);
    Ok(())
}

/// PFMERGE destkey [sourcekey [sourcekey ...]]
///
/// The result is dense if any of them is; the destination keeps its expiry.
fn pfmerge(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let destination = &args[1];
    let mut union = Registers::default();
    let mut dense = false;
    for key in &args[1..] {
        if let Some(entry) = ctx.peek_string(key)? {
            let sketch = Sketch::from_bytes(&entry.value)?;
            sketch.merge_into(&mut union)?;
            dense |= sketch.is_dense();
        }
    }
    let old = ctx.peek_string(destination)?;
    let mut sketch = match &old {
        Some(entry) => Sketch::from_bytes(&entry.value)?,
        None => Sketch::new(),
    };
    if dense {
        sketch.make_dense()?;
    }
    sketch.raise_to(&union, ctx.server.config.hll_sparse_max_bytes())?;
    sketch.mark_stale();
    let db = ctx.db();
    ctx.notify_if_new(db, destination)?;
    match old {
        Some(old) => replace(ctx, destination, &old.value, sketch.into_bytes(), old.expire_at)?,
        None => ctx.tx.set(db, destination, sketch.into_bytes(), None, ctx.now)?,
    }
    // Redis has no event of its own for it.
    ctx.notify(EventClass::String, "pfadd", destination);
    ctx.reply.ok();
    Ok(())
}

/// PFDEBUG GETREG|DECODE|ENCODING|TODENSE key
fn pfdebug(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (subcommand, key) = (&args[1], &args[2]);
    let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
    let old = ctx.peek_string(key)?.ok_or(CommandError::Static("ERR The specified key does not exist"))?;
    let mut sketch = Sketch::from_bytes(&old.value)?;
    if is("getreg") {
        let mut registers = Registers::default();
        sketch.merge_into(&mut registers)?;
        make_dense(ctx, key, &mut sketch, old.expire_at)?;
        ctx.reply.array(REGISTERS);
        registers.iter().for_each(|value| ctx.reply.int(i64::from(value)));
    } else if is("decode") {
        let opcodes = sketch.describe().ok_or(CommandError::Static("ERR HLL encoding is not sparse"))?;
        ctx.reply.bulk(opcodes.as_bytes());
    } else if is("encoding") {
        ctx.reply.simple(if sketch.is_dense() { "dense" } else { "sparse" });
    } else if is("todense") {
        let converted = make_dense(ctx, key, &mut sketch, old.expire_at)?;
        ctx.reply.int(i64::from(converted));
    } else {
        let name = super::error::lossy(subcommand, usize::MAX);
        return Err(CommandError::Text(format!("ERR Unknown PFDEBUG subcommand '{name}'")));
    }
    Ok(())
}

/// Stores the dense form of a sparse sketch; whether it was sparse.
fn make_dense(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    sketch: &mut Sketch,
    expire_at: Option<u64>,
) -> Result<bool, CommandError> {
    if sketch.is_dense() {
        return Ok(false);
    }
    sketch.make_dense()?;
    let (db, now) = (ctx.db(), ctx.now);
    ctx.tx.set(db, key, sketch.clone().into_bytes(), expire_at, now)?;
    Ok(true)
}

/// PFSELFTEST
fn pfselftest(ctx: &mut Ctx<'_, '_>, _args: &[Bytes]) -> Result<(), CommandError> {
    selftest::run().map_err(|failure| CommandError::Text(format!("TESTFAILED {failure}")))?;
    ctx.reply.ok();
    Ok(())
}

/// Turns the string `old` into `new`. Of a string that keeps its length only the parts that change are written.
fn replace(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    old: &[u8],
    new: Bytes,
    expire_at: Option<u64>,
) -> Result<(), CommandError> {
    let (db, now) = (ctx.db(), ctx.now);
    match patches(old, &new) {
        Some(patches) => {
            for patch in patches {
                let offset = patch.start as u64;
                ctx.tx.set_range(db, key, offset, &new.slice(patch), now)?;
            }
        }
        None => ctx.tx.set(db, key, new, expire_at, now)?,
    }
    Ok(())
}

/// The parts in which two strings of one length differ; `None` if the lengths or too many parts do.
fn patches(old: &[u8], new: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    if old.len() != new.len() {
        return None;
    }
    let mut patches: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new) {
        match patches.last_mut() {
            Some(last) if at < last.end + PATCH_GAP => last.end = at + 1,
            _ => patches.push(at..at + 1),
        }
        if patches.len() > MAX_PATCHES {
            return None;
        }
    }
    Some(patches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_written() {
        let old = vec![0; 12_304];
        let mut new = old.clone();
        assert_eq!(patches(&old, &new), Some(vec![]));
        for at in [15, 40, 100, 12_303] {
            new[at] = 1;
        }
        assert_eq!(patches(&old, &new), Some(vec![15..41, 100..101, 12_303..12_304]));
        assert_eq!(patches(&old, &new[1..]), None);
        (0..new.len()).step_by(PATCH_GAP + 1).for_each(|at| new[at] = 2);
        assert_eq!(patches(&old, &new), None);
    }
}
