//! Positions on earth as members of sorted sets: what the geo commands compute, read and answer.
//!
//! A member's score is its position's geohash ([`cell`]), so that places close to each other mostly have scores close
//! to each other, and an area is some ranges of scores ([`area`]). How the sorted set is stored is of no concern to a
//! search: see [`Places`]; `commands` binds it to the keyspace.

pub mod area;
pub mod cell;
mod commands;
pub mod query;
pub mod search;

use bytes::Bytes;

use self::cell::Position;
pub use self::commands::GEO;
use super::{CommandError, float};
use crate::net::Reply;

/// A sorted set whose scores are positions.
pub trait Places {
    /// The score of a member.
    ///
    /// # Errors
    /// Those of the storage.
    fn score(&mut self, member: &[u8]) -> Result<Option<f64>, CommandError>;

    /// Calls `visit` with the members whose scores are at least `first` and below `end`, in the set's order, until it
    /// returns false.
    ///
    /// # Errors
    /// Those of the storage.
    fn each(&mut self, first: f64, end: f64, visit: &mut dyn FnMut(&[u8], f64) -> bool) -> Result<(), CommandError>;
}

/// The position of a member.
///
/// # Errors
/// Those of the storage.
pub fn position_of(places: &mut impl Places, member: &[u8]) -> Result<Option<Position>, CommandError> {
    Ok(places.score(member)?.map(Position::of_score))
}

/// A position as two arguments.
///
/// # Errors
/// They are no numbers, or lie outside of what can be stored.
pub fn position(longitude: &[u8], latitude: &[u8]) -> Result<Position, CommandError> {
    let longitude = float::parse_f64(longitude).ok_or(CommandError::NotFloat)?;
    let latitude = float::parse_f64(latitude).ok_or(CommandError::NotFloat)?;
    let position = Position { longitude, latitude };
    if !position.is_valid() {
        return Err(CommandError::Text(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}")));
    }
    Ok(position)
}

/// Metres in a unit of length.
///
/// # Errors
/// It is none of the four.
pub fn unit(name: &[u8]) -> Result<f64, CommandError> {
    [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)]
        .into_iter()
        .find(|(own, _)| name.eq_ignore_ascii_case(own.as_bytes()))
        .map(|(_, metres)| metres)
        .ok_or(CommandError::Static("ERR unsupported unit provided. please use M, KM, FT, MI"))
}

/// The arguments of GEOADD.
#[derive(Clone, Debug, PartialEq)]
pub struct Additions {
    /// Only members that are not there yet.
    pub nx: bool,
    /// Only members that are there.
    pub xx: bool,
    /// Count the members that change, too.
    pub ch: bool,
    /// Scores and members.
    pub pairs: Vec<(f64, Bytes)>,
}

impl Additions {
    /// Reads the arguments after the key.
    ///
    /// # Errors
    /// Those of Redis, for the first argument that is wrong.
    pub fn parse(mut args: &[Bytes]) -> Result<Additions, CommandError> {
        let mut additions = Additions { nx: false, xx: false, ch: false, pairs: Vec::new() };
        while let [name, rest @ ..] = args {
            if name.eq_ignore_ascii_case(b"nx") {
                additions.nx = true;
            } else if name.eq_ignore_ascii_case(b"xx") {
                additions.xx = true;
            } else if name.eq_ignore_ascii_case(b"ch") {
                additions.ch = true;
            } else {
                break;
            }
            args = rest;
        }
        let (places, []) = args.as_chunks::<3>() else { return Err(CommandError::Syntax) };
        if places.is_empty() || additions.nx && additions.xx {
            return Err(CommandError::Syntax);
        }
        for [longitude, latitude, member] in places {
            additions.pairs.push((position(longitude, latitude)?.score(), member.clone()));
        }
        Ok(additions)
    }
}

/// GEOPOS: for each member an array of longitude and latitude, or null.
///
/// # Errors
/// Those of the storage.
pub fn positions<P: Places>(
    reply: &mut Reply,
    mut places: Option<&mut P>,
    members: &[Bytes],
) -> Result<(), CommandError> {
    reply.array(members.len());
    for member in members {
        match places.as_deref_mut().map_or(Ok(None), |places| position_of(places, member))? {
            Some(position) => put_position(reply, position),
            None => reply.null_array(),
        }
    }
    Ok(())
}

/// GEOHASH: for each member a standard geohash, or null.
///
/// # Errors
/// Those of the storage.
pub fn geohashes<P: Places>(
    reply: &mut Reply,
    mut places: Option<&mut P>,
    members: &[Bytes],
) -> Result<(), CommandError> {
    reply.array(members.len());
    for member in members {
        match places.as_deref_mut().map_or(Ok(None), |places| position_of(places, member))? {
            Some(position) => reply.bulk(position.geohash().as_bytes()),
            None => reply.null(),
        }
    }
    Ok(())
}

/// GEODIST: the distance between two members in a unit of so many metres, or null.
///
/// # Errors
/// Those of the storage.
pub fn distance(
    reply: &mut Reply,
    places: &mut impl Places,
    [a, b]: [&[u8]; 2],
    unit: f64,
) -> Result<(), CommandError> {
    let from = position_of(places, a)?;
    match from.zip(position_of(places, b)?) {
        Some((from, to)) => put_distance(reply, area::distance(from, to) / unit),
        None => reply.null(),
    }
    Ok(())
}

/// A distance with four decimals, rounded half to even after scaling, as a bulk string.
fn put_distance(reply: &mut Reply, distance: f64) {
    const SCALE: u64 = 10_000;
    let scaled = (distance * SCALE as f64).round_ties_even() as i64;
    let sign = if scaled < 0 { "-" } else { "" };
    let scaled = scaled.unsigned_abs();
    reply.bulk(format!("{sign}{}.{:04}", scaled / SCALE, scaled % SCALE).as_bytes());
}

/// Longitude and latitude, with up to 17 decimals each.
fn put_position(reply: &mut Reply, position: Position) {
    reply.array(2);
    reply.decimal(&float::print_f64(position.longitude));
    reply.decimal(&float::print_f64(position.latitude));
}
