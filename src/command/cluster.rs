//! CLUSTER, READONLY, READWRITE and ASKING: this server is no part of a Redis Cluster, and says so in Redis's words, by which
//! client libraries know. Keys lie in the slots of one, though: CLUSTER KEYSLOT.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::keyspace::hash_slot;

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: Flags::STALE.and(Flags::LOADING),
    keys: Keys::None,
    group: Group::Cluster,
    since: "3.0.0",
    complexity: "O(1)",
    summary: "Refused: this is no node of a cluster.",
    usage: "",
    handler: disabled,
    subcommands: &[],
};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::STALE);

/// The family's part of the command table.
pub static CLUSTER: &[Spec] = &[
    Spec { name: "asking", arity: 1, flags: Flags::FAST, ..BASE },
    Spec {
        summary: "Commands about Redis Cluster.",
        ..Spec::container("cluster", Group::Cluster, "3.0.0", "", SUBCOMMANDS)
    },
    Spec { name: "readonly", arity: 1, flags: ANY_TIME_FAST, ..BASE },
    Spec { name: "readwrite", arity: 1, flags: ANY_TIME_FAST, ..BASE },
];

const ANY_TIME_FAST: Flags = Flags::FAST.and(Flags::STALE).and(Flags::LOADING);

static SUBCOMMANDS: &[Spec] = &[
    Spec::help(Group::Cluster, "5.0.0"),
    Spec { name: "info", ..BASE },
    Spec {
        name: "keyslot",
        arity: 3,
        complexity: "O(N), N being the length of the key.",
        summary: "Returns the hash slot of a key in a cluster, by which it is also placed here.",
        usage: "key",
        handler: keyslot,
        ..BASE
    },
    Spec { name: "myid", ..BASE },
    Spec { name: "nodes", ..BASE },
    Spec { name: "reset", arity: -2, flags: ADMIN, usage: "[HARD | SOFT]", ..BASE },
    Spec { name: "shards", since: "7.0.0", ..BASE },
    Spec { name: "slots", ..BASE },
];

fn disabled(_: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    Err(CommandError::Static("ERR This instance has cluster support disabled"))
}

fn keyslot(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(hash_slot(&args[2]) as i64);
    Ok(())
}
