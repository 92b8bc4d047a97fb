//! Carrying out a search, and what it answers.

use bytes::Bytes;

use super::cell::Position;
use super::query::{Order, Query};
use super::{Places, put_distance, put_position};
use crate::command::CommandError;
use crate::net::Reply;

/// A member that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub member: Bytes,
    pub score: f64,
    pub position: Position,
    /// From the centre, in the unit of the query.
    pub distance: f64,
}

/// What lies inside, in the order that is asked for, or else cell by cell.
///
/// # Errors
/// Those of the storage.
pub fn run(query: &Query, places: &mut impl Places) -> Result<Vec<Hit>, CommandError> {
    let Some(shape) = query.shape else { return Ok(Vec::new()) };
    let limit = query.count.map_or(usize::MAX, |count| count as usize);
    let enough = if query.any { limit } else { usize::MAX };
    let mut hits = Vec::new();
    for cell in shape.cells() {
        if hits.len() >= enough {
            break;
        }
        let (first, end) = cell.scores();
        places.each(first, end, &mut |member, score| {
            let position = Position::of_score(score);
            if let Some(distance) = shape.distance_inside(position) {
                let member = Bytes::copy_from_slice(member);
                hits.push(Hit { member, score, position, distance });
            }
            hits.len() < enough
        })?;
    }
    match query.order {
        Some(Order::Ascending) => hits.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
        Some(Order::Descending) => hits.sort_by(|a, b| b.distance.total_cmp(&a.distance)),
        None => {}
    }
    hits.truncate(limit);
    hits.iter_mut().for_each(|hit| hit.distance /= query.unit);
    Ok(hits)
}

/// The reply of a search that stores nothing; the flags are those of [`super::query::Target::Reply`].
pub fn reply(reply: &mut Reply, hits: &[Hit], distance: bool, hash: bool, coordinates: bool) {
    let more = usize::from(distance) + usize::from(hash) + usize::from(coordinates);
    reply.array(hits.len());
    for hit in hits {
        if more > 0 {
            reply.array(1 + more);
        }
        reply.bulk(&hit.member);
        if distance {
            put_distance(reply, hit.distance);
        }
        if hash {
            reply.int(hit.score as i64);
        }
        if coordinates {
            put_position(reply, hit.position);
        }
    }
}
