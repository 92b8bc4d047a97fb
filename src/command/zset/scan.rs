//! ZSCAN.

use bytes::Bytes;

use crate::command::{CommandError, Ctx, elements, keys::object};
use crate::keyspace::Kind;
use crate::keyspace::types::zset;
use crate::net::reply::format_double;
use crate::rdb::score;

/// ZSCAN key cursor [MATCH pattern] [COUNT count]
///
/// What Redis keeps in one piece it answers in one piece, in order, and whole scores with all their digits.
pub fn zscan(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Some((zset, cursor, options)) = elements::open_scan(ctx, args, Kind::Zset)? else { return Ok(()) };
    let mut found: Vec<(Bytes, String)> = Vec::new();
    let mut next = 0;
    if object::is_compact(ctx, &zset)? {
        zset::each_by_score(&mut ctx.reader(&zset.key), &zset, &[], None, false, &mut |member, score| {
            if options.admits(member) {
                found.push((Bytes::copy_from_slice(member), score::print(score)));
            }
            true
        })?;
    } else {
        next = elements::scan(ctx, &zset, cursor, &options, false, &mut |member, value| {
            if let Ok(score) = zset::decode_score(value) {
                found.push((Bytes::copy_from_slice(member), format_double(score)));
            }
        })?;
    }
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(2 * found.len());
    for (member, score) in &found {
        ctx.reply.bulk(member);
        ctx.reply.bulk(score.as_bytes());
    }
    Ok(())
}
