//! The geo commands: the searches of [`super`], bound to the sorted sets of the keyspace.

use std::collections::HashSet;

use bytes::Bytes;

use super::query::{Query, Style, Target, store_key};
use super::search::{self, Hit};
use super::{Additions, Places, distance, geohashes, positions, unit};
use crate::command::zset::{AddOptions, add_pairs, store};
use crate::command::{CommandError, Ctx, Flags, Group, KeyRef, Keys, Spec, Suspend};
use crate::keyspace::types::{Handle, zset};
use crate::keyspace::{Kind, Reader};

const READ: Flags = Flags::READONLY;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const AREA: &str = "O(N+log(M)), N being the number of members in and around the area, M that of all.";

/// The family's part of the command table.
pub static GEO: &[Spec] = &[
    Spec {
        name: "geoadd",
        arity: -5,
        flags: GROW,
        complexity: "O(log(N)) for each position, N being the number of members.",
        summary: "Adds members with their positions to a sorted set, or moves them.",
        usage: "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
        handler: geoadd,
        ..BASE
    },
    Spec {
        name: "geodist",
        arity: -4,
        complexity: "O(1)",
        summary: "Answers the distance between two members.",
        usage: "key member1 member2 [M | KM | FT | MI]",
        handler: geodist,
        ..BASE
    },
    Spec {
        name: "geohash",
        arity: -2,
        complexity: "O(1) for each member.",
        summary: "Answers members' positions as standard geohashes.",
        usage: "key [member [member ...]]",
        handler: geohash,
        ..BASE
    },
    Spec {
        name: "geopos",
        arity: -2,
        complexity: "O(1) for each member.",
        summary: "Answers members' longitudes and latitudes.",
        usage: "key [member [member ...]]",
        handler: geopos,
        ..BASE
    },
    Spec {
        name: "georadius",
        arity: -6,
        flags: GROW.and(Flags::MOVABLE_KEYS),
        keys: Keys::Find(keys_of_radius),
        summary: "Finds or stores the members in a circle.",
        usage: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
                [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]",
        handler: georadius,
        ..BASE
    },
    Spec {
        name: "georadius_ro",
        arity: -6,
        since: "3.2.10",
        summary: "Finds the members in a circle.",
        usage: "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
                [COUNT count [ANY]] [ASC | DESC]",
        handler: georadius_ro,
        ..BASE
    },
    Spec {
        name: "georadiusbymember",
        arity: -5,
        flags: GROW.and(Flags::MOVABLE_KEYS),
        keys: Keys::Find(keys_of_radius_by_member),
        summary: "Finds or stores the members in a circle around one of them.",
        usage: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] \
                [ASC | DESC] [STORE key | STOREDIST key]",
        handler: georadiusbymember,
        ..BASE
    },
    Spec {
        name: "georadiusbymember_ro",
        arity: -5,
        since: "3.2.10",
        summary: "Finds the members in a circle around one of them.",
        usage: "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] \
                [ASC | DESC]",
        handler: georadiusbymember_ro,
        ..BASE
    },
    Spec {
        name: "geosearch",
        arity: -7,
        since: "6.2.0",
        summary: "Finds the members in a circle or a box.",
        usage: "key <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | MI> | \
                BYBOX width height <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] \
                [WITHHASH]",
        handler: geosearch,
        ..BASE
    },
    Spec {
        name: "geosearchstore",
        arity: -8,
        flags: GROW,
        keys: Keys::TWO,
        since: "6.2.0",
        summary: "Stores the members in a circle or a box.",
        usage: "destination source <FROMMEMBER member | FROMLONLAT longitude latitude> \
                <BYRADIUS radius <M | KM | FT | MI> | BYBOX width height <M | KM | FT | MI>> [ASC | DESC] \
                [COUNT count [ANY]] [STOREDIST]",
        handler: geosearchstore,
        ..BASE
    },
];

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: READ,
    keys: Keys::ONE,
    group: Group::Geo,
    since: "3.2.0",
    complexity: AREA,
    summary: "",
    usage: "",
    handler: geopos,
    subcommands: &[],
};

/// A sorted set of the keyspace.
struct Stored<'r, 'k> {
    reader: Reader<'r, 'k>,
    zset: Handle,
    /// Members that may still be gone through here; more are for the blocking pool.
    budget: u64,
}

impl Places for Stored<'_, '_> {
    fn score(&mut self, member: &[u8]) -> Result<Option<f64>, CommandError> {
        Ok(zset::score(&mut self.reader, &self.zset, member)?)
    }

    fn each(&mut self, first: f64, end: f64, visit: &mut dyn FnMut(&[u8], f64) -> bool) -> Result<(), CommandError> {
        let (from, to) = (zset::sortable(first).to_be_bytes(), zset::sortable(end).to_be_bytes());
        let mut too_many = false;
        let budget = &mut self.budget;
        zset::each_by_score(&mut self.reader, &self.zset, &from, Some(&to), false, &mut |member, score| {
            too_many = *budget == 0;
            *budget = budget.saturating_sub(1);
            !too_many && visit(member, score)
        })?;
        if too_many { Err(Suspend::OnPool.into()) } else { Ok(()) }
    }
}

/// Looks up the sorted set at `key`, if there is one, and lets `work` read it beside the reply.
fn with_places<'k, T>(
    ctx: &mut Ctx<'_, 'k>,
    key: &Bytes,
    work: impl FnOnce(&mut crate::net::Reply, Option<&mut Stored<'_, 'k>>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let zset = ctx.read_collection(key, Kind::Zset)?;
    let (db, budget) = (ctx.db(), ctx.budget());
    let mut places = zset.map(|zset| Stored { reader: ctx.tx.reader(db, key), zset, budget });
    work(ctx.reply, places.as_mut())
}

/// The keys of GEORADIUS, whose options begin at `options`: the set and, if it stores, the destination.
fn push_keys(db: usize, args: &[Bytes], options: usize, found: &mut Vec<KeyRef>) {
    let stored = store_key(args.get(options..).unwrap_or_default());
    found.extend(args.get(1).into_iter().chain(stored).map(|key| KeyRef { db, key: key.clone() }));
}

fn keys_of_radius(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    push_keys(db, args, 6, found);
}

fn keys_of_radius_by_member(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    push_keys(db, args, 5, found);
}

/// GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]
fn geoadd(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let Additions { nx, xx, ch, pairs } = Additions::parse(&args[2..])?;
    add_pairs(ctx, &args[1], pairs, AddOptions { nx, xx, ch, ..AddOptions::default() })
}

/// GEOPOS key [member [member ...]]
fn geopos(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let members = &args[2..];
    ctx.heavy(members.len() as u64)?;
    with_places(ctx, &args[1], |reply, places| positions(reply, places, members))
}

/// GEOHASH key [member [member ...]]
fn geohash(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let members = &args[2..];
    ctx.heavy(members.len() as u64)?;
    with_places(ctx, &args[1], |reply, places| geohashes(reply, places, members))
}

/// GEODIST key member1 member2 [M | KM | FT | MI]
fn geodist(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let metres = match &args[4..] {
        [] => 1.0,
        [name] => unit(name)?,
        _ => return Err(CommandError::Syntax),
    };
    with_places(ctx, &args[1], |reply, places| match places {
        Some(places) => distance(reply, places, [&args[2], &args[3]], metres),
        None => {
            reply.null();
            Ok(())
        }
    })
}

/// GEORADIUS key longitude latitude radius unit [options] [STORE key | STOREDIST key]
fn georadius(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    find(ctx, args, 1, Style::Radius { stores: true })
}

/// GEORADIUS_RO key longitude latitude radius unit [options]
fn georadius_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    find(ctx, args, 1, Style::Radius { stores: false })
}

/// GEORADIUSBYMEMBER key member radius unit [options] [STORE key | STOREDIST key]
fn georadiusbymember(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    find(ctx, args, 1, Style::RadiusByMember { stores: true })
}

/// GEORADIUSBYMEMBER_RO key member radius unit [options]
fn georadiusbymember_ro(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    find(ctx, args, 1, Style::RadiusByMember { stores: false })
}

/// GEOSEARCH key FROMMEMBER member | FROMLONLAT longitude latitude BYRADIUS radius unit | BYBOX width height unit [options]
fn geosearch(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    find(ctx, args, 1, Style::Search)
}

/// GEOSEARCHSTORE destination source, then as GEOSEARCH [STOREDIST]
fn geosearchstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    find(ctx, args, 2, Style::SearchStore)
}

fn find(ctx: &mut Ctx<'_, '_>, args: &[Bytes], source: usize, style: Style) -> Result<(), CommandError> {
    let (query, hits) = with_places(ctx, &args[source], |_, mut places| {
        let query = Query::parse(style, args, places.as_deref_mut())?;
        let hits = places.map_or(Ok(Vec::new()), |places| search::run(&query, places))?;
        Ok((query, hits))
    })?;
    match query.target {
        Target::Reply { distance, hash, coordinates } => {
            search::reply(ctx.reply, &hits, distance, hash, coordinates);
            Ok(())
        }
        Target::Store { key, distances } => {
            let event = if style == Style::SearchStore { "geosearchstore" } else { "georadiusstore" };
            store(ctx, &key, members(hits, distances), event)
        }
    }
}

/// Members and the scores to store them with, each member once: an area that reaches around the earth may find some twice.
fn members(hits: Vec<Hit>, distances: bool) -> Vec<(Bytes, f64)> {
    let mut seen = HashSet::with_capacity(hits.len());
    hits.into_iter()
        .filter(|hit| seen.insert(hit.member.clone()))
        .map(|hit| (hit.member, if distances { hit.distance } else { hit.score }))
        .collect()
}
