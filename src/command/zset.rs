//! Sorted sets: the command table, and what its commands share.

mod combine;
mod pop;
mod random;
mod range;
mod read;
mod scan;
mod write;

use bytes::Bytes;

pub use self::write::{Options as AddOptions, add_pairs};
use super::{CommandError, Ctx, Flags, Group, KeyRef, Keys, Spec, numbers};
use crate::keyspace::types::zset::{self, Change};
use crate::keyspace::types::{CHUNK, Handle};
use crate::keyspace::{Effect, Kind};
use crate::net::Reply;
use crate::pubsub::EventClass;

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = READ.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const NUMKEYS: Keys = Keys::Find(|db, args, found| find_numkeys(db, args, 1, found));
const STORE_NUMKEYS: Keys = Keys::Find(|db, args, found| {
    found.extend(args.get(1).map(|key| KeyRef { db, key: key.clone() }));
    find_numkeys(db, args, 2, found);
});

/// The family's part of the command table.
pub static ZSET: &[Spec] = &[
    Spec {
        name: "bzmpop",
        arity: -5,
        flags: WRITE.and(Flags::BLOCKING).and(Flags::MOVABLE_KEYS),
        keys: Keys::Find(|db, args, found| find_numkeys(db, args, 2, found)),
        since: "7.0.0",
        complexity: "O(K) + O(M*log(N)), K being the number of keys, N that of the members, M that of the members taken.",
        summary: "Takes members from one end of the first sorted set that there is, or waits for one.",
        usage: "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]",
        handler: pop::bzmpop,
        ..BASE
    },
    Spec {
        name: "bzpopmax",
        arity: -3,
        flags: WRITE_FAST.and(Flags::NOSCRIPT).and(Flags::BLOCKING),
        keys: Keys::Range { first: 1, last: -2, step: 1 },
        since: "5.0.0",
        complexity: "O(log(N)), N being the number of members.",
        summary: "Takes the member with the highest score of the first sorted set that there is, or waits for one.",
        usage: "key [key ...] timeout",
        handler: pop::bzpopmax,
        ..BASE
    },
    Spec {
        name: "bzpopmin",
        arity: -3,
        flags: WRITE_FAST.and(Flags::NOSCRIPT).and(Flags::BLOCKING),
        keys: Keys::Range { first: 1, last: -2, step: 1 },
        since: "5.0.0",
        complexity: "O(log(N)), N being the number of members.",
        summary: "Takes the member with the lowest score of the first sorted set that there is, or waits for one.",
        usage: "key [key ...] timeout",
        handler: pop::bzpopmin,
        ..BASE
    },
    Spec {
        name: "zadd",
        arity: -4,
        flags: WRITE_FAST.and(Flags::DENYOOM),
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(log(N)) for each member, N being the number of members.",
        summary: "Adds members to a sorted set, or gives them new scores.",
        usage: "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
        handler: write::zadd,
        ..BASE
    },
    Spec {
        name: "zcard",
        arity: 2,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(1)",
        summary: "Counts the members of a sorted set.",
        usage: "key",
        handler: read::zcard,
        ..BASE
    },
    Spec {
        name: "zcount",
        arity: 4,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "2.0.0",
        complexity: "O(log(N)+M), N being the number of members, M that of those counted.",
        summary: "Counts the members whose scores are in a range.",
        usage: "key min max",
        handler: read::zcount,
        ..BASE
    },
    Spec {
        name: "zdiff",
        arity: -3,
        flags: READ.and(Flags::MOVABLE_KEYS),
        keys: NUMKEYS,
        since: "6.2.0",
        complexity: "O(N*K) at most, N being the size of the first set, K the number of sets.",
        summary: "Answers the members of the first sorted set that are in none of the others.",
        usage: "numkeys key [key ...] [WITHSCORES]",
        handler: combine::zdiff,
        ..BASE
    },
    Spec {
        name: "zdiffstore",
        arity: -4,
        flags: WRITE.and(Flags::DENYOOM).and(Flags::MOVABLE_KEYS),
        keys: STORE_NUMKEYS,
        since: "6.2.0",
        complexity: "O(N*K) at most, N being the size of the first set, K the number of sets.",
        summary: "Keeps the members of the first sorted set that are in none of the others.",
        usage: "destination numkeys key [key ...]",
        handler: combine::zdiffstore,
        ..BASE
    },
    Spec {
        name: "zincrby",
        arity: 4,
        flags: WRITE_FAST.and(Flags::DENYOOM),
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(log(N)), N being the number of members.",
        summary: "Adds to the score of a member; one that is not there has the score 0.",
        usage: "key increment member",
        handler: write::zincrby,
        ..BASE
    },
    Spec {
        name: "zinter",
        arity: -3,
        flags: READ.and(Flags::MOVABLE_KEYS),
        keys: NUMKEYS,
        since: "6.2.0",
        complexity: "O(N*K)+O(M*log(M)) at most, N being the size of the smallest set, K the number of sets, M that of the members found.",
        summary: "Answers the members that are in all of some sorted sets.",
        usage: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
        handler: combine::zinter,
        ..BASE
    },
    Spec {
        name: "zintercard",
        arity: -3,
        flags: READ.and(Flags::MOVABLE_KEYS),
        keys: NUMKEYS,
        since: "7.0.0",
        complexity: "O(N*K) at most, N being the size of the smallest set, K the number of sets.",
        summary: "Counts the members that are in all of some sorted sets.",
        usage: "numkeys key [key ...] [LIMIT limit]",
        handler: combine::zintercard,
        ..BASE
    },
    Spec {
        name: "zinterstore",
        arity: -4,
        flags: WRITE.and(Flags::DENYOOM).and(Flags::MOVABLE_KEYS),
        keys: STORE_NUMKEYS,
        since: "2.0.0",
        complexity: "O(N*K)+O(M*log(M)) at most, N being the size of the smallest set, K the number of sets, M that of the members found.",
        summary: "Keeps the members that are in all of some sorted sets.",
        usage: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        handler: combine::zinterstore,
        ..BASE
    },
    Spec {
        name: "zlexcount",
        arity: 4,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "2.8.9",
        complexity: "O(log(N)+M), N being the number of members, M that of those counted.",
        summary: "Counts the members in a range of names, where all have one score.",
        usage: "key min max",
        handler: read::zlexcount,
        ..BASE
    },
    Spec {
        name: "zmpop",
        arity: -4,
        flags: WRITE.and(Flags::MOVABLE_KEYS),
        keys: NUMKEYS,
        since: "7.0.0",
        complexity: "O(K) + O(M*log(N)), K being the number of keys, N that of the members, M that of the members taken.",
        summary: "Takes members from one end of the first sorted set that there is.",
        usage: "numkeys key [key ...] <MIN | MAX> [COUNT count]",
        handler: pop::zmpop,
        ..BASE
    },
    Spec {
        name: "zmscore",
        arity: -3,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "6.2.0",
        complexity: "O(N), N being the number of members asked for.",
        summary: "Answers the scores of members.",
        usage: "key member [member ...]",
        handler: read::zmscore,
        ..BASE
    },
    Spec {
        name: "zpopmax",
        arity: -2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "5.0.0",
        complexity: "O(log(N)*M), N being the number of members, M that of those taken.",
        summary: "Takes the members with the highest scores.",
        usage: "key [count]",
        handler: pop::zpopmax,
        ..BASE
    },
    Spec {
        name: "zpopmin",
        arity: -2,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "5.0.0",
        complexity: "O(log(N)*M), N being the number of members, M that of those taken.",
        summary: "Takes the members with the lowest scores.",
        usage: "key [count]",
        handler: pop::zpopmin,
        ..BASE
    },
    Spec {
        name: "zrandmember",
        arity: -2,
        flags: READ,
        keys: Keys::ONE,
        since: "6.2.0",
        complexity: "O(N), N being the number of members answered.",
        summary: "Answers random members.",
        usage: "key [count [WITHSCORES]]",
        handler: random::zrandmember,
        ..BASE
    },
    Spec {
        name: "zrange",
        arity: -4,
        flags: READ,
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(log(N)+M) by score or name, N being the number of members, M that of those answered and left out by LIMIT; O(M) by rank, M being the number from the nearer end on.",
        summary: "Answers a range of members, by rank, score or name.",
        usage: "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
        handler: read::zrange,
        ..BASE
    },
    Spec {
        name: "zrangebylex",
        arity: -4,
        flags: READ,
        keys: Keys::ONE,
        since: "2.8.9",
        complexity: "O(log(N)+M), N being the number of members, M that of those answered and left out by LIMIT.",
        summary: "Answers a range of members by name, where all have one score.",
        usage: "key min max [LIMIT offset count]",
        handler: read::zrangebylex,
        ..BASE
    },
    Spec {
        name: "zrangebyscore",
        arity: -4,
        flags: READ,
        keys: Keys::ONE,
        since: "1.0.5",
        complexity: "O(log(N)+M), N being the number of members, M that of those answered and left out by LIMIT.",
        summary: "Answers a range of members by score.",
        usage: "key min max [WITHSCORES] [LIMIT offset count]",
        handler: read::zrangebyscore,
        ..BASE
    },
    Spec {
        name: "zrangestore",
        arity: -5,
        flags: WRITE.and(Flags::DENYOOM),
        keys: Keys::TWO,
        since: "6.2.0",
        complexity: "O(log(N)+M) by score or name, N being the number of members, M that of those kept and left out by LIMIT; O(M) by rank, M being the number from the nearer end on.",
        summary: "Keeps a range of members as a sorted set.",
        usage: "destination source min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
        handler: read::zrangestore,
        ..BASE
    },
    Spec {
        name: "zrank",
        arity: -3,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "2.0.0",
        complexity: "O(N), N being the number of members between this one and the nearer end.",
        summary: "Answers how many members have lower scores.",
        usage: "key member [WITHSCORE]",
        handler: read::zrank,
        ..BASE
    },
    Spec {
        name: "zrem",
        arity: -3,
        flags: WRITE_FAST,
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(M*log(N)), N being the number of members, M that of those to remove.",
        summary: "Removes members from a sorted set.",
        usage: "key member [member ...]",
        handler: write::zrem,
        ..BASE
    },
    Spec {
        name: "zremrangebylex",
        arity: 4,
        flags: WRITE,
        keys: Keys::ONE,
        since: "2.8.9",
        complexity: "O(log(N)+M), N being the number of members, M that of those removed.",
        summary: "Removes a range of members by name, where all have one score.",
        usage: "key min max",
        handler: write::zremrangebylex,
        ..BASE
    },
    Spec {
        name: "zremrangebyrank",
        arity: 4,
        flags: WRITE,
        keys: Keys::ONE,
        since: "2.0.0",
        complexity: "O(M), M being the number of members from the nearer end on.",
        summary: "Removes a range of members by rank.",
        usage: "key start stop",
        handler: write::zremrangebyrank,
        ..BASE
    },
    Spec {
        name: "zremrangebyscore",
        arity: 4,
        flags: WRITE,
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(log(N)+M), N being the number of members, M that of those removed.",
        summary: "Removes a range of members by score.",
        usage: "key min max",
        handler: write::zremrangebyscore,
        ..BASE
    },
    Spec {
        name: "zrevrange",
        arity: -4,
        flags: READ,
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(M), M being the number of members from the nearer end on.",
        summary: "Answers a range of members by rank, from the highest score down.",
        usage: "key start stop [WITHSCORES]",
        handler: read::zrevrange,
        ..BASE
    },
    Spec {
        name: "zrevrangebylex",
        arity: -4,
        flags: READ,
        keys: Keys::ONE,
        since: "2.8.9",
        complexity: "O(log(N)+M), N being the number of members, M that of those answered and left out by LIMIT.",
        summary: "Answers a range of members by name, from the last down, where all have one score.",
        usage: "key max min [LIMIT offset count]",
        handler: read::zrevrangebylex,
        ..BASE
    },
    Spec {
        name: "zrevrangebyscore",
        arity: -4,
        flags: READ,
        keys: Keys::ONE,
        since: "2.2.0",
        complexity: "O(log(N)+M), N being the number of members, M that of those answered and left out by LIMIT.",
        summary: "Answers a range of members by score, from the highest down.",
        usage: "key max min [WITHSCORES] [LIMIT offset count]",
        handler: read::zrevrangebyscore,
        ..BASE
    },
    Spec {
        name: "zrevrank",
        arity: -3,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "2.0.0",
        complexity: "O(N), N being the number of members between this one and the nearer end.",
        summary: "Answers how many members have higher scores.",
        usage: "key member [WITHSCORE]",
        handler: read::zrevrank,
        ..BASE
    },
    Spec {
        name: "zscan",
        arity: -3,
        flags: READ,
        keys: Keys::ONE,
        since: "2.8.0",
        complexity: "O(COUNT) for every call, O(N) for a whole iteration over N members.",
        summary: "Answers members and scores a few at a time.",
        usage: "key cursor [MATCH pattern] [COUNT count]",
        handler: scan::zscan,
        ..BASE
    },
    Spec {
        name: "zscore",
        arity: 3,
        flags: READ_FAST,
        keys: Keys::ONE,
        since: "1.2.0",
        complexity: "O(1)",
        summary: "Answers the score of a member.",
        usage: "key member",
        handler: read::zscore,
        ..BASE
    },
    Spec {
        name: "zunion",
        arity: -3,
        flags: READ.and(Flags::MOVABLE_KEYS),
        keys: NUMKEYS,
        since: "6.2.0",
        complexity: "O(N)+O(M*log(M)), N being the sizes of the sets together, M the number of members found.",
        summary: "Answers the members of some sorted sets together.",
        usage: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
        handler: combine::zunion,
        ..BASE
    },
    Spec {
        name: "zunionstore",
        arity: -4,
        flags: WRITE.and(Flags::DENYOOM).and(Flags::MOVABLE_KEYS),
        keys: STORE_NUMKEYS,
        since: "2.0.0",
        complexity: "O(N)+O(M*log(M)), N being the sizes of the sets together, M the number of members found.",
        summary: "Keeps the members of some sorted sets together.",
        usage: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
        handler: combine::zunionstore,
        ..BASE
    },
];

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: Flags::NONE,
    keys: Keys::ONE,
    group: Group::SortedSet,
    since: "",
    complexity: "",
    summary: "",
    usage: "",
    handler: read::zcard,
    subcommands: &[],
};

/// The keys of `numkeys key [key ...]` at `at`; `None` when there are not so many, or none.
fn numkeys(args: &[Bytes], at: usize) -> Option<&[Bytes]> {
    let count = usize::try_from(numbers::parse_i64(args.get(at)?)?).ok().filter(|count| *count > 0)?;
    args.get(at + 1..)?.get(..count)
}

fn find_numkeys(db: usize, args: &[Bytes], at: usize, found: &mut Vec<KeyRef>) {
    let keys = numkeys(args, at).unwrap_or_default();
    found.extend(keys.iter().map(|key| KeyRef { db, key: key.clone() }));
}

/// An array of members, with scores or without, while it is made. In RESP3 a member and its score are an array of their own.
struct Rows {
    body: Reply,
    len: usize,
    with_scores: bool,
}

impl Rows {
    fn new(ctx: &Ctx<'_, '_>, with_scores: bool) -> Rows {
        Rows { body: Reply::new(ctx.reply.proto()), len: 0, with_scores }
    }

    fn push(&mut self, member: &[u8], score: f64) {
        let nested = self.body.proto() >= 3;
        if self.with_scores && nested {
            self.body.array(2);
        }
        self.body.bulk(member);
        if self.with_scores {
            self.body.double(score);
        }
        self.len += if self.with_scores && !nested { 2 } else { 1 };
    }

    fn reply(self, ctx: &mut Ctx<'_, '_>) {
        ctx.reply.array(self.len);
        ctx.reply.raw(self.body.as_slice());
    }
}

/// The key holds these members, each named once, from now on, whatever it held, or nothing when there are none. Answers how many there are.
pub fn store(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    members: Vec<(Bytes, f64)>,
    event: &'static str,
) -> Result<(), CommandError> {
    let (db, now, len) = (ctx.db(), ctx.now, members.len());
    if len > 0 {
        ctx.notify_if_new(db, key)?;
        ctx.tx.create(db, key, Kind::Zset, now)?;
        for change in zset::changes(members) {
            ctx.apply(Effect::Zset(key.clone(), change))?;
        }
        ctx.notify(EventClass::Zset, event, key);
    } else if ctx.peek(key)?.is_some() {
        ctx.tx.del(db, key, now)?;
        ctx.notify(EventClass::Generic, "del", key);
    }
    ctx.reply.int(len as i64);
    Ok(())
}

/// A set that loses more than so many members, and all it has, is deleted instead.
const FEW_MEMBERS: usize = 64;

/// Takes members out that are in the set, each named once.
fn remove(ctx: &mut Ctx<'_, '_>, zset: &Handle, members: Vec<Bytes>, event: &'static str) -> Result<(), CommandError> {
    if members.is_empty() {
        return Ok(());
    }
    let (db, now, key) = (ctx.db(), ctx.now, &zset.key);
    let all = members.len() as u64 >= zset.len();
    if all && members.len() > FEW_MEMBERS {
        ctx.tx.del(db, key, now)?;
    } else {
        for members in members.chunks(CHUNK) {
            ctx.apply(Effect::Zset(key.clone(), Change::Remove(members.to_vec())))?;
        }
    }
    ctx.notify(EventClass::Zset, event, key);
    if all {
        ctx.notify(EventClass::Generic, "del", key);
    }
    Ok(())
}
