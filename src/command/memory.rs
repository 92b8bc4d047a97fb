//! MEMORY: what the process's memory goes to, and what a key takes.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};
use crate::engine::Space;
use crate::keyspace::Kind;
use crate::keyspace::types::Handle;

/// Bytes that an entry takes beside its key and value: type, expiry, sequence number, its share of indexes and filters.
const ENTRY_OVERHEAD: usize = 32;
/// Elements that MEMORY USAGE looks at unless it is told how many.
const DEFAULT_SAMPLES: u64 = 5;

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: Flags::NONE,
    keys: Keys::None,
    group: Group::Server,
    since: "4.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static MEMORY: &[Spec] =
    &[Spec { summary: "Commands about memory.", ..Spec::container("memory", Group::Server, "4.0.0", "", SUBCOMMANDS) }];

static SUBCOMMANDS: &[Spec] = &[
    Spec { name: "doctor", summary: "Explains what the memory in use goes to.", handler: doctor, ..BASE },
    Spec::help(Group::Server, "4.0.0"),
    Spec {
        name: "stats",
        flags: Flags::BLOCKING_POOL,
        summary: "Returns the bytes that each part of the server uses.",
        handler: stats,
        ..BASE
    },
    Spec {
        name: "usage",
        arity: -3,
        flags: Flags::READONLY,
        keys: Keys::Range { first: 2, last: 2, step: 1 },
        summary: "Returns the bytes that a key and its value take, before compression.",
        complexity: "O(N), N being the number of samples.",
        usage: "key [SAMPLES count]",
        handler: usage,
        ..BASE
    },
];

/// MEMORY USAGE key [SAMPLES count]
///
/// Of a collection the first elements in the order of the engine stand for all: of SAMPLES 0, all of them.
fn usage(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let key = &args[2];
    let samples = match &args[3..] {
        [] => DEFAULT_SAMPLES,
        [option, count] if option.eq_ignore_ascii_case(b"samples") => {
            let count = numbers::parse_i64(count).ok_or(CommandError::NotInteger)?;
            u64::try_from(count).map_err(|_| CommandError::Syntax)?
        }
        _ => return Err(CommandError::Syntax),
    };
    let Some(entry) = ctx.peek(key)? else {
        ctx.reply.null();
        return Ok(());
    };
    let mut bytes = (key.len() + entry.value.len() + ENTRY_OVERHEAD) as u64;
    if let Some(collection) = Handle::of(key, &entry) {
        // A string in chunks says how long it is.
        let is_string = collection.kind == Kind::String;
        bytes += if is_string { collection.len() } else { elements(ctx, &collection, samples)? };
    }
    ctx.reply.int(bytes as i64);
    Ok(())
}

/// Bytes of a collection's elements, as far as so many tell; 0 = all.
fn elements(ctx: &mut Ctx<'_, '_>, collection: &Handle, samples: u64) -> Result<u64, CommandError> {
    let wanted = if samples == 0 { u64::MAX } else { samples };
    ctx.heavy(wanted.min(collection.len()))?;
    let (mut seen, mut bytes) = (0, 0);
    let prefix = collection.element_key(&[]).len();
    collection.each(&mut ctx.reader(&collection.key), Space::Data, &[], None, false, &mut |suffix, value| {
        let element = prefix + suffix.len() + ENTRY_OVERHEAD;
        // A member of a sorted set stands a second time under its score, which takes the place of its hash.
        let again = if collection.kind == Kind::Zset { element } else { 0 };
        bytes += (element + value.len() + again) as u64;
        seen += 1;
        seen < wanted
    })?;
    Ok(if samples == 0 || seen == 0 { bytes } else { bytes.saturating_mul(collection.len()) / seen })
}

/// The parts of the memory in use that are known, by name, and what remains.
fn parts(ctx: &Ctx<'_, '_>) -> Vec<(&'static str, u64)> {
    let keyspace = &ctx.server.keyspace;
    let used = ctx.server.stats.memory().map_or(0, |memory| memory.allocated);
    let mut parts = vec![
        ("block_cache", keyspace.block_cache_usage() as u64),
        ("recent_writes", keyspace.recent_usage() as u64),
        ("entry_cache", keyspace.cache_usage().0),
        ("unflushed_writes", keyspace.unflushed()),
        ("expiry_queue", keyspace.expiry_queue_usage() as u64),
    ];
    let known = parts.iter().map(|(_, bytes)| bytes).sum();
    parts.push(("other", used.saturating_sub(known)));
    parts
}

fn stats(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let mut fields = vec![];
    if let Some(memory) = ctx.server.stats.memory() {
        fields.extend([
            ("peak.allocated", memory.peak),
            ("total.allocated", memory.allocated),
            ("allocator.active", memory.active),
            ("allocator.resident", memory.resident),
        ]);
    }
    fields.extend(parts(ctx));
    ctx.reply.map(fields.len());
    for (name, bytes) in fields {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.int(bytes as i64);
    }
    Ok(())
}

fn doctor(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let used: u64 = parts(ctx).iter().map(|(_, bytes)| bytes).sum();
    let mut text = format!("{} MB are in use:", used >> 20);
    for (name, bytes) in parts(ctx) {
        text.push_str(&format!(" {} {} MB,", name.replace('_', " "), bytes >> 20));
    }
    text.pop();
    text.push_str(
        ". The caches are bounded by the settings block-cache and cache, the writes that are not in files yet by \
         max-write-buffer-size. Connections with long pipelines or large values count as other.\n",
    );
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}
