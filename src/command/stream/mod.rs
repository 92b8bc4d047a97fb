//! Streams.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `id` | IDs as clients write them |
//! | `entries` | XADD, XTRIM, XDEL, XLEN, XSETID, XRANGE, XREVRANGE |
//! | `read` | XREAD, XREADGROUP |
//! | `groups` | XGROUP, XACK, XPENDING |
//! | `claim` | XCLAIM, XAUTOCLAIM |
//! | `info` | XINFO |

mod claim;
mod entries;
mod groups;
mod id;
mod info;
mod read;

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec};
use crate::keyspace::types::stream::Change;
use crate::keyspace::types::{Handle, Outcome};
use crate::keyspace::{Effect, Kind};

const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const READ: Flags = Flags::READONLY;
/// The key of a subcommand.
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };

/// What most commands of the family have in common.
const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::ONE,
    group: Group::Stream,
    since: "5.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: entries::xlen,
    subcommands: &[],
};

/// The family's part of the command table.
pub static STREAM: &[Spec] = &[
    Spec {
        name: "xack",
        arity: -4,
        flags: WRITE_FAST,
        complexity: "O(1) for each ID.",
        summary: "Acknowledges entries that a consumer of a group got, and counts those that were pending.",
        usage: "key group id [id ...]",
        handler: groups::xack,
        ..BASE
    },
    Spec {
        name: "xadd",
        arity: -5,
        flags: WRITE_FAST.and(Flags::DENYOOM),
        complexity: "O(1) when adding a new entry, O(N) when trimming where N being the number of entries evicted.",
        summary: "Adds an entry to a stream, and answers its ID.",
        usage: "key [NOMKSTREAM] [MAXLEN | MINID [= | ~] threshold [LIMIT count]] * | id field value [field value ...]",
        handler: entries::xadd,
        ..BASE
    },
    Spec {
        name: "xautoclaim",
        arity: -6,
        flags: WRITE_FAST,
        since: "6.2.0",
        complexity: "O(1) if COUNT is small.",
        summary: "Goes through a group's pending entries and gives those that have been idle for long to a consumer.",
        usage: "key group consumer min-idle-time start [COUNT count] [JUSTID]",
        handler: claim::xautoclaim,
        ..BASE
    },
    Spec {
        name: "xclaim",
        arity: -6,
        flags: WRITE_FAST,
        complexity: "O(log N) with N being the number of messages in the PEL of the consumer group.",
        summary: "Gives pending entries to a consumer, as if they had been delivered to it.",
        usage: "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] \
                [RETRYCOUNT count] [FORCE] [JUSTID] [LASTID lastid]",
        handler: claim::xclaim,
        ..BASE
    },
    Spec {
        name: "xdel",
        arity: -3,
        flags: WRITE_FAST,
        complexity: "O(1) for each ID.",
        summary: "Deletes entries by their IDs, and counts those that there were.",
        usage: "key id [id ...]",
        handler: entries::xdel,
        ..BASE
    },
    Spec::container("xgroup", Group::Stream, "5.0.0", "Makes and changes consumer groups.", XGROUP),
    Spec::container("xinfo", Group::Stream, "5.0.0", "Tells of a stream, its groups and their consumers.", XINFO),
    Spec {
        name: "xlen",
        arity: 2,
        flags: READ.and(Flags::FAST),
        summary: "Answers how many entries a stream has.",
        usage: "key",
        handler: entries::xlen,
        ..BASE
    },
    Spec {
        name: "xpending",
        arity: -3,
        flags: READ,
        complexity: "O(N) with N being the number of elements gone through, and O(1) without a range where there \
                     are few consumers.",
        summary: "Tells which entries of a group are pending, and with whom.",
        usage: "key group [[IDLE min-idle-time] start end count [consumer]]",
        handler: groups::xpending,
        ..BASE
    },
    Spec {
        name: "xrange",
        arity: -4,
        flags: READ,
        complexity: "O(N) with N being the number of elements being returned.",
        summary: "Answers the entries in a range of IDs.",
        usage: "key start end [COUNT count]",
        handler: entries::xrange,
        ..BASE
    },
    Spec {
        name: "xread",
        arity: -4,
        flags: READ.and(Flags::BLOCKING).and(Flags::MOVABLE_KEYS),
        keys: Keys::Find(read::keys),
        complexity: "O(N) with N being the number of elements being returned.",
        summary: "Answers the entries of streams after some IDs, and may wait until there are any.",
        usage: "[COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]",
        handler: read::xread,
        ..BASE
    },
    Spec {
        name: "xreadgroup",
        arity: -7,
        flags: WRITE.and(Flags::BLOCKING).and(Flags::MOVABLE_KEYS),
        keys: Keys::Find(read::keys),
        complexity: "O(N) with N being the number of elements being returned.",
        summary: "Delivers entries of streams to a consumer of a group: new ones, or once more what it has pending.",
        usage: "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]",
        handler: read::xreadgroup,
        ..BASE
    },
    Spec {
        name: "xrevrange",
        arity: -4,
        flags: READ,
        complexity: "O(N) with N being the number of elements returned.",
        summary: "Answers the entries in a range of IDs, the last first.",
        usage: "key end start [COUNT count]",
        handler: entries::xrevrange,
        ..BASE
    },
    Spec {
        name: "xsetid",
        arity: -3,
        flags: WRITE_FAST.and(Flags::DENYOOM),
        summary: "Sets the last ID of a stream, and what it counts.",
        usage: "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
        handler: entries::xsetid,
        ..BASE
    },
    Spec {
        name: "xtrim",
        arity: -4,
        flags: WRITE,
        complexity: "O(N), with N being the number of evicted entries.",
        summary: "Removes the first entries of a stream, and counts them.",
        usage: "key MAXLEN | MINID [= | ~] threshold [LIMIT count]",
        handler: entries::xtrim,
        ..BASE
    },
];

static XGROUP: &[Spec] = &[
    Spec {
        name: "create",
        arity: -5,
        flags: WRITE.and(Flags::DENYOOM),
        keys: SECOND,
        summary: "Makes a group.",
        usage: "key group id | $ [MKSTREAM] [ENTRIESREAD entries-read]",
        handler: groups::create,
        ..BASE
    },
    Spec {
        name: "createconsumer",
        arity: 5,
        flags: WRITE.and(Flags::DENYOOM),
        keys: SECOND,
        since: "6.2.0",
        summary: "Makes a consumer.",
        usage: "key group consumer",
        handler: groups::createconsumer,
        ..BASE
    },
    Spec {
        name: "delconsumer",
        arity: 5,
        flags: WRITE,
        keys: SECOND,
        summary: "Removes a consumer, and answers how many entries it had pending.",
        usage: "key group consumer",
        handler: groups::delconsumer,
        ..BASE
    },
    Spec {
        name: "destroy",
        arity: 4,
        flags: WRITE,
        keys: SECOND,
        complexity: "O(N) where N is the number of entries in the group's pending entries list (PEL).",
        summary: "Removes a group.",
        usage: "key group",
        handler: groups::destroy,
        ..BASE
    },
    Spec::help(Group::Stream, "5.0.0"),
    Spec {
        name: "setid",
        arity: -5,
        flags: WRITE,
        keys: SECOND,
        summary: "Sets the last ID that a group got.",
        usage: "key group id | $ [ENTRIESREAD entries-read]",
        handler: groups::setid,
        ..BASE
    },
];

static XINFO: &[Spec] = &[
    Spec {
        name: "consumers",
        arity: 4,
        flags: READ,
        keys: SECOND,
        summary: "Tells of the consumers of a group.",
        usage: "key group",
        handler: info::consumers,
        ..BASE
    },
    Spec {
        name: "groups",
        arity: 3,
        flags: READ,
        keys: SECOND,
        summary: "Tells of the groups of a stream.",
        usage: "key",
        handler: info::groups,
        ..BASE
    },
    Spec::help(Group::Stream, "5.0.0"),
    Spec {
        name: "stream",
        arity: -3,
        flags: READ,
        keys: SECOND,
        summary: "Tells of a stream.",
        usage: "key [FULL [COUNT count]]",
        handler: info::stream,
        ..BASE
    },
];

/// The stream at a key for a command that reads.
fn stream_at(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<Option<Handle>, CommandError> {
    ctx.read_collection(key, Kind::Stream)
}

/// Applies and logs a change.
fn change(ctx: &mut Ctx<'_, '_>, key: &Bytes, change: Change) -> Result<Outcome, CommandError> {
    ctx.apply(Effect::Stream(key.clone(), change))
}
