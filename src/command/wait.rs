//! WAIT and WAITAOF: until what this connection has written is elsewhere, or on stable storage.
//!
//! A replica acknowledges a slot's records once they are in its own log, handed to its operating system; so both commands count
//! those. WAITAOF's first number is this node's own stable storage: it is written there and then, whatever `sync` says.

use std::time::Duration;

use bytes::Bytes;

use super::blocking::{Block, OnTimeout};
use super::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};

/// How often the acknowledgements are looked at.
const POLL: Duration = Duration::from_millis(10);

const BASE: Spec = Spec {
    name: "wait",
    arity: 3,
    flags: Flags::BLOCKING,
    keys: Keys::None,
    group: Group::Generic,
    since: "3.0.0",
    complexity: "O(R*S), R being the number of replicas and S of the slots that the connection has written to.",
    summary: "Waits until so many replicas have all that this connection has written, and answers how many have.",
    usage: "numreplicas timeout",
    handler: wait,
    subcommands: &[],
};

/// The family's part of the command table.
pub static WAIT: &[Spec] = &[
    BASE,
    Spec {
        name: "waitaof",
        arity: 4,
        flags: Flags::BLOCKING.and(Flags::BLOCKING_POOL),
        since: "7.2.0",
        summary: "Makes all that this connection has written durable here, and waits until so many replicas have it.",
        usage: "numlocal numreplicas timeout",
        handler: waitaof,
        ..BASE
    },
];

/// WAIT numreplicas timeout
fn wait(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    if ctx.server.replication.is_slave() {
        return Err(CommandError::Static(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to \
             be writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let wanted = numbers::integer(&args[1])?;
    let timeout = timeout(&args[2])?;
    let have = acknowledged(ctx);
    ctx.reply.int(have);
    if have >= wanted { Ok(()) } else { go_on(ctx, timeout) }
}

/// WAITAOF numlocal numreplicas timeout
fn waitaof(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let local = match numbers::integer(&args[1])? {
        local @ 0..=1 => local,
        _ => return Err(CommandError::Static("ERR value is out of range, value must between 0 and 1")),
    };
    let wanted = numbers::integer(&args[2])?;
    if wanted < 0 {
        return Err(CommandError::Static("ERR value is out of range, must be positive"));
    }
    let timeout = timeout(&args[3])?;
    if ctx.server.replication.is_slave() {
        return Err(CommandError::Static(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are \
             not propagated.",
        ));
    }
    if local == 1 {
        for ((db, slot), index) in ctx.client.written.iter() {
            ctx.server.keyspace.db_on_disk(db).slots()[slot].sync_to(index)?;
        }
    }
    let have = acknowledged(ctx);
    ctx.reply.array(2);
    ctx.reply.int(local);
    ctx.reply.int(have);
    if have >= wanted { Ok(()) } else { go_on(ctx, timeout) }
}

/// Replicas that have all that this connection has written.
fn acknowledged(ctx: &Ctx<'_, '_>) -> i64 {
    ctx.server.replication.replicas_with(ctx.client.written.iter()) as i64
}

/// Comes back to the command later. Where it cannot wait, what it has replied stands.
fn go_on(ctx: &mut Ctx<'_, '_>, timeout: Option<Duration>) -> Result<(), CommandError> {
    let block = Block { poll: Some(POLL), ..Block::on(Vec::new(), timeout, OnTimeout::AsIfNested) };
    ctx.block(block)
}

/// Milliseconds; 0 = for ever.
fn timeout(arg: &[u8]) -> Result<Option<Duration>, CommandError> {
    let ms = numbers::parse_i64(arg).ok_or(CommandError::Static("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| CommandError::Static("ERR timeout is negative"))?;
    Ok((ms > 0).then(|| Duration::from_millis(ms)))
}
