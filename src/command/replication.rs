//! Commands that choose whom this node follows: SLAVEOF, REPLICAOF, DBSLAVEOF, and ROLE, which tells.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, numbers};
use crate::replication::{Followed, RoleReply};

/// Waits for what is being applied and for the disk: not for a runtime thread.
const CHANGE: Flags =
    Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::STALE).and(Flags::BLOCKING_POOL).and(Flags::RELEASES_KEYS);

const BASE: Spec = Spec {
    name: "",
    arity: -3,
    flags: CHANGE,
    keys: Keys::None,
    group: Group::Server,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "Follows a master (with FORCE: gives up this node's own data and history for the master's), or with NO ONE becomes a \
              master.",
    usage: "host port [FORCE] | NO ONE",
    handler: slaveof,
    subcommands: &[],
};

/// The family's part of the command table.
pub static REPLICATION: &[Spec] = &[
    Spec { name: "slaveof", ..BASE },
    Spec { name: "replicaof", since: "5.0.0", ..BASE },
    Spec {
        name: "dbslaveof",
        arity: -2,
        summary: "Lets a database of a replica follow the master again (with FORCE: by a full sync), or with NO ONE takes it out.",
        usage: "dbN [FORCE | NO ONE]",
        handler: dbslaveof,
        ..BASE
    },
    Spec {
        name: "role",
        arity: 1,
        flags: Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST),
        since: "2.8.12",
        summary: "Returns the node's role, and its replicas or its master.",
        usage: "",
        handler: role,
        ..BASE
    },
];

fn is_no_one(words: &[Bytes]) -> bool {
    matches!(words, [no, one] if no.eq_ignore_ascii_case(b"no") && one.eq_ignore_ascii_case(b"one"))
}

fn is_force(word: &Bytes) -> bool {
    word.eq_ignore_ascii_case(b"force")
}

fn failed(e: impl std::fmt::Display) -> CommandError {
    CommandError::Text(format!("ERR {e}"))
}

/// `SLAVEOF host port [FORCE]`, `SLAVEOF NO ONE`
fn slaveof(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let replication = &ctx.server.replication;
    let (host, port, force) = match &args[1..] {
        words if is_no_one(words) => {
            replication.slaveof_no_one().map_err(failed)?;
            ctx.reply.ok();
            return Ok(());
        }
        [host, port] => (host, port, false),
        [host, port, word] if is_force(word) => (host, port, true),
        _ => return Err(CommandError::Syntax),
    };
    let port = numbers::parse_i64(port).ok_or(CommandError::NotInteger)?;
    let port = u16::try_from(port).ok().filter(|p| *p > 0).ok_or(CommandError::Static("ERR Invalid master port"))?;
    let host = std::str::from_utf8(host).ok().filter(|h| !h.is_empty() && !h.contains(char::is_whitespace));
    let host = host.ok_or(CommandError::Static("ERR Invalid master host"))?;
    match replication.slaveof(host, port, force).map_err(failed)? {
        Followed::Yes => {
            ctx.server.events.blocked.end_writers();
            ctx.reply.ok()
        }
        Followed::Already => ctx.reply.simple("OK Already connected to specified master"),
    }
    Ok(())
}

/// `DBSLAVEOF dbN [FORCE | NO ONE]`
fn dbslaveof(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let server = ctx.server;
    let named = std::str::from_utf8(&args[1]).ok().and_then(|name| name.strip_prefix("db")?.parse().ok());
    let Some(db) = named.filter(|db| *db < server.keyspace.databases()) else {
        return Err(CommandError::Static("ERR no such database; they are named db0, db1 and so on"));
    };
    if !server.replication.is_slave() {
        return Err(CommandError::Static("ERR Not configured as a replica"));
    }
    let (attach, full) = match &args[2..] {
        [] => (true, false),
        [word] if is_force(word) => (true, true),
        words if is_no_one(words) => (false, false),
        _ => return Err(CommandError::Syntax),
    };
    server.replication.attach_database(db, attach, full).map_err(failed)?;
    ctx.reply.ok();
    Ok(())
}

/// `ROLE`
fn role(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let reply = &mut ctx.reply;
    match ctx.server.replication.role() {
        RoleReply::Master { offset, replicas } => {
            reply.array(3);
            reply.bulk(b"master");
            reply.int(offset as i64);
            reply.array(replicas.len());
            for (ip, port, acked) in replicas {
                reply.array(3);
                reply.bulk(ip.as_bytes());
                reply.bulk(port.to_string().as_bytes());
                reply.bulk(acked.to_string().as_bytes());
            }
        }
        RoleReply::Slave { host, port, state, offset } => {
            reply.array(5);
            reply.bulk(b"slave");
            reply.bulk(host.as_bytes());
            reply.int(i64::from(port));
            reply.bulk(state.as_bytes());
            reply.int(offset as i64);
        }
    }
    Ok(())
}
