//! Reading sorted sets: members, scores, ranks and ranges.

use bytes::Bytes;

use super::range::{self, By, Query, Range};
use super::{Rows, store};
use crate::command::{CommandError, Ctx, numbers};
use crate::keyspace::Kind;
use crate::keyspace::types::zset;

/// ZCARD key
pub fn zcard(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let len = ctx.read_collection(&args[1], Kind::Zset)?.map_or(0, |zset| zset.len());
    ctx.reply.int(len as i64);
    Ok(())
}

/// ZSCORE key member
pub fn zscore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let score = match ctx.read_collection(&args[1], Kind::Zset)? {
        Some(zset) => zset::score(&mut ctx.reader(&args[1]), &zset, &args[2])?,
        None => None,
    };
    reply_score(ctx, score);
    Ok(())
}

/// ZMSCORE key member [member ...]
pub fn zmscore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let members = &args[2..];
    let zset = ctx.read_collection(&args[1], Kind::Zset)?;
    ctx.heavy(members.len() as u64)?;
    ctx.reply.array(members.len());
    for member in members {
        let score = match &zset {
            Some(zset) => zset::score(&mut ctx.reader(&args[1]), zset, member)?,
            None => None,
        };
        reply_score(ctx, score);
    }
    Ok(())
}

fn reply_score(ctx: &mut Ctx<'_, '_>, score: Option<f64>) {
    match score {
        Some(score) => ctx.reply.double(score),
        None => ctx.reply.null(),
    }
}

/// ZRANK key member [WITHSCORE]
pub fn zrank(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    rank(ctx, args, "zrank", false)
}

/// ZREVRANK key member [WITHSCORE]
pub fn zrevrank(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    rank(ctx, args, "zrevrank", true)
}

/// O(N), N being the number of members between this one and the nearer end.
fn rank(ctx: &mut Ctx<'_, '_>, args: &[Bytes], command: &str, reverse: bool) -> Result<(), CommandError> {
    let with_score = match &args[3..] {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"withscore") => true,
        [_] => return Err(CommandError::Syntax),
        _ => return Err(CommandError::Arity(command.into())),
    };
    let mut found = None;
    if let Some(zset) = ctx.read_collection(&args[1], Kind::Zset)? {
        let budget = ctx.budget();
        let mut reader = ctx.reader(&args[1]);
        if let Some(score) = zset::score(&mut reader, &zset, &args[2])? {
            let Some(rank) = zset::rank(&mut reader, &zset, &args[2], score, budget)? else {
                return ctx.heavy(zset.len());
            };
            found = Some((if reverse { zset.len().saturating_sub(rank + 1) } else { rank }, score));
        }
    }
    match found {
        Some((rank, score)) => {
            if with_score {
                ctx.reply.array(2);
            }
            ctx.reply.int(rank as i64);
            if with_score {
                ctx.reply.double(score);
            }
        }
        None if with_score => ctx.reply.null_array(),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// ZCOUNT key min max. O(log N + M), M being the number counted.
pub fn zcount(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let scores = range::scores(&args[2], &args[3])?;
    match ctx.read_collection(&args[1], Kind::Zset)? {
        Some(zset) if scores.is_everything() => ctx.reply.int(zset.len() as i64),
        Some(zset) => {
            let mut count = 0;
            range::walk_last(ctx, &zset, &Query::of(Range::Scores(scores)), &mut |_, _| count += 1)?;
            ctx.reply.int(count);
        }
        None => ctx.reply.int(0),
    }
    Ok(())
}

/// ZLEXCOUNT key min max. O(log N + M), M being the number counted.
pub fn zlexcount(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let range = Range::Names(range::names(&args[2], &args[3])?);
    let mut count = 0;
    if let Some(zset) = ctx.read_collection(&args[1], Kind::Zset)? {
        range::walk_last(ctx, &zset, &Query::of(range), &mut |_, _| count += 1)?;
    }
    ctx.reply.int(count);
    Ok(())
}

/// What the name of a command says of its range, and what its options are to say (`None`).
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    stores: bool,
}

/// ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]
pub fn zrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, Form { by: None, reverse: None, stores: false })
}

/// ZREVRANGE key start stop [WITHSCORES]
pub fn zrevrange(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, Form { by: Some(By::Rank), reverse: Some(true), stores: false })
}

/// ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]
pub fn zrangebyscore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, Form { by: Some(By::Score), reverse: Some(false), stores: false })
}

/// ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]
pub fn zrevrangebyscore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, Form { by: Some(By::Score), reverse: Some(true), stores: false })
}

/// ZRANGEBYLEX key min max [LIMIT offset count]
pub fn zrangebylex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, Form { by: Some(By::Name), reverse: Some(false), stores: false })
}

/// ZREVRANGEBYLEX key max min [LIMIT offset count]
pub fn zrevrangebylex(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, Form { by: Some(By::Name), reverse: Some(true), stores: false })
}

/// ZRANGESTORE destination source min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]
pub fn zrangestore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (query, _) = query(&args[2..], Form { by: None, reverse: None, stores: true })?;
    let members = match ctx.read_collection(&args[2], Kind::Zset)? {
        Some(zset) => range::members(ctx, &zset, &query)?,
        None => Vec::new(),
    };
    store(ctx, &args[1], members, "zrangestore")
}

fn answer(ctx: &mut Ctx<'_, '_>, args: &[Bytes], form: Form) -> Result<(), CommandError> {
    let (query, with_scores) = query(&args[1..], form)?;
    let mut rows = Rows::new(ctx, with_scores);
    if let Some(zset) = ctx.read_collection(&args[1], Kind::Zset)? {
        range::walk_last(ctx, &zset, &query, &mut |member, score| rows.push(member, score))?;
    }
    rows.reply(ctx);
    Ok(())
}

/// Reads the arguments from the key on: what is asked for, and whether with scores.
fn query(args: &[Bytes], form: Form) -> Result<(Query<'_>, bool), CommandError> {
    let [_, first, second, options @ ..] = args else { return Err(CommandError::Syntax) };
    let (mut by, mut reverse, mut with_scores) = (form.by, form.reverse, false);
    let (mut offset, mut limit) = (0, -1);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        if is(b"withscores") && !form.stores {
            with_scores = true;
        } else if is(b"limit") && options.len() >= 2 {
            let mut number = || options.next().map_or(Err(CommandError::Syntax), |arg| numbers::integer(arg));
            (offset, limit) = (number()?, number()?);
        } else if is(b"rev") && form.reverse.is_none() {
            reverse = Some(true);
        } else if is(b"bylex") && by.is_none() {
            by = Some(By::Name);
        } else if is(b"byscore") && by.is_none() {
            by = Some(By::Score);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
    if limit != -1 && by == By::Rank {
        return Err(CommandError::Static(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if with_scores && by == By::Name {
        return Err(CommandError::Static("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
    }
    let (min, max) = if reverse && by != By::Rank { (second, first) } else { (first, second) };
    if by == By::Rank {
        // What little LIMIT may say here changes nothing.
        (offset, limit) = (0, -1);
    }
    Ok((Query { range: Range::parse(by, min, max)?, reverse, offset, limit }, with_scores))
}
