//! Geo searches over a sorted set in memory: every reply must be Redis's over the same members.

use std::collections::BTreeMap;

use bytes::Bytes;
use haypile::command::CommandError;
use haypile::command::geo::query::{Query, Style, Target};
use haypile::command::geo::{self, Additions, Places, search};
use haypile::net::Reply;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::resp::{encode, split_line};
use crate::common::{RedisServer, rng};
use crate::duel::Wire;

/// Members by score: in the order of a sorted set.
#[derive(Default)]
struct Set {
    by_score: BTreeMap<(u64, Bytes), ()>,
    scores: BTreeMap<Bytes, f64>,
}

impl Set {
    fn add(&mut self, args: &[Bytes]) -> Result<(), CommandError> {
        for (score, member) in Additions::parse(args)?.pairs {
            if let Some(old) = self.scores.insert(member.clone(), score) {
                self.by_score.remove(&(old as u64, member.clone()));
            }
            self.by_score.insert((score as u64, member), ());
        }
        Ok(())
    }
}

impl Places for Set {
    fn score(&mut self, member: &[u8]) -> Result<Option<f64>, CommandError> {
        Ok(self.scores.get(member).copied())
    }

    fn each(&mut self, first: f64, end: f64, visit: &mut dyn FnMut(&[u8], f64) -> bool) -> Result<(), CommandError> {
        let range = (first as u64, Bytes::new())..(end as u64, Bytes::new());
        for (score, member) in self.by_score.range(range).map(|(key, ())| key) {
            if !visit(member, *score as f64) {
                break;
            }
        }
        Ok(())
    }
}

/// Redis with some members at `k`, and the same members here.
struct Geo {
    _redis: RedisServer,
    wire: Wire,
    set: Set,
    proto: u8,
}

impl Geo {
    fn start() -> Geo {
        let redis = RedisServer::start();
        let wire = Wire::to(redis.port());
        Geo { _redis: redis, wire, set: Set::default(), proto: 2 }
    }

    fn ask(&mut self, args: &[Vec<u8>]) -> Vec<u8> {
        let mut request = Vec::new();
        encode(&mut request, args);
        self.wire.send(&request);
        self.wire.reply()
    }

    fn protocol(&mut self, version: u8) {
        self.ask(&split_line(&format!("HELLO {version}")));
        self.proto = version;
    }

    #[track_caller]
    fn compare(&mut self, line: &str) {
        let args = split_line(line);
        let theirs = self.ask(&args);
        let args: Vec<Bytes> = args.into_iter().map(Bytes::from).collect();
        let mut reply = Reply::new(self.proto);
        if let Err(error) = self.run(&args, &mut reply) {
            reply = Reply::new(self.proto);
            reply.error(&error.to_string());
        }
        let ours = reply.as_slice();
        assert!(ours == theirs, "{line}\n  haypile: {}\n    redis: {}", ours.escape_ascii(), theirs.escape_ascii());
    }

    fn run(&mut self, args: &[Bytes], reply: &mut Reply) -> Result<(), CommandError> {
        let name = args[0].to_ascii_lowercase();
        let source = if name == b"geosearchstore" { 2 } else { 1 };
        let exists = args[source] == "k" && !self.set.scores.is_empty();
        let mut places = exists.then_some(&mut self.set);
        let style = match &name[..] {
            b"geoadd" => {
                let before = self.set.scores.len();
                self.set.add(&args[2..])?;
                reply.int((self.set.scores.len() - before) as i64);
                return Ok(());
            }
            b"geopos" => return geo::positions(reply, places, &args[2..]),
            b"geohash" => return geo::geohashes(reply, places, &args[2..]),
            b"geodist" => {
                let unit = match args.get(4..).unwrap_or_default() {
                    [] => 1.0,
                    [unit] => geo::unit(unit)?,
                    _ => return Err(CommandError::Syntax),
                };
                match places {
                    Some(places) => geo::distance(reply, places, [&args[2], &args[3]], unit)?,
                    None => reply.null(),
                }
                return Ok(());
            }
            b"georadius" => Style::Radius { stores: true },
            b"georadius_ro" => Style::Radius { stores: false },
            b"georadiusbymember" => Style::RadiusByMember { stores: true },
            b"georadiusbymember_ro" => Style::RadiusByMember { stores: false },
            b"geosearch" => Style::Search,
            _ => Style::SearchStore,
        };
        let query = Query::parse(style, args, places.as_deref_mut())?;
        let hits = places.map_or(Ok(vec![]), |places| search::run(&query, places))?;
        match query.target {
            Target::Store { .. } => reply.int(hits.len() as i64),
            Target::Reply { distance, hash, coordinates } => search::reply(reply, &hits, distance, hash, coordinates),
        }
        Ok(())
    }
}

#[test]
fn arguments_and_replies() {
    let mut geo = Geo::start();
    for protocol in [2, 3] {
        geo.protocol(protocol);
        geo.ask(&split_line("FLUSHALL"));
        geo.set = Set::default();
        for line in include_str!("geo.txt").lines().map(str::trim).filter(|line| !line.is_empty()) {
            geo.compare(line);
        }
    }
}

fn place(rng: &mut StdRng) -> (f64, f64) {
    match rng.random_range(0..10) {
        0 => (*[-180.0, 180.0, 0.0, 179.999].choose(rng).expect("one"), rng.random_range(-85.0..85.0)),
        1 => (rng.random_range(-180.0..180.0), *[-85.05112878, 85.05112878, 0.0].choose(rng).expect("one")),
        2..6 => (rng.random_range(10.0..14.0), rng.random_range(40.0..44.0)),
        _ => (rng.random_range(-180.0..180.0), rng.random_range(-85.0..85.0)),
    }
}

fn search(rng: &mut StdRng) -> String {
    let (longitude, latitude) = place(rng);
    let (unit, metres) = *[("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)].choose(rng).expect("a unit");
    let mut length = || 10f64.powf(rng.random_range(0.0..7.5)) / metres;
    let (a, b) = (length(), length());
    let member = rng.random_range(0..3000);
    let mut options = String::new();
    for option in [" WITHDIST", " WITHHASH", " WITHCOORD", " ASC", " DESC", " COUNT 7", " COUNT 20 ANY"] {
        if rng.random_range(0..4) == 0 {
            options += option;
        }
    }
    match rng.random_range(0..6) {
        0 => format!("GEORADIUS k {longitude} {latitude} {a} {unit}{options}"),
        1 => format!("GEORADIUSBYMEMBER_RO k m{member} {a} {unit}{options}"),
        2 => format!("GEOSEARCH k FROMMEMBER m{member} BYRADIUS {a} {unit}{options}"),
        3 => format!("GEOSEARCH k FROMMEMBER m{member} BYBOX {a} {b} {unit}{options}"),
        4 => format!("GEOSEARCH k FROMLONLAT {longitude} {latitude} BYRADIUS {a} {unit}{options}"),
        _ => format!("GEOSEARCH k FROMLONLAT {longitude} {latitude} BYBOX {a} {b} {unit}{options}"),
    }
}

#[test]
fn random_searches() {
    let mut geo = Geo::start();
    let mut rng = rng();
    for member in 0..3000 {
        let (longitude, latitude) = place(&mut rng);
        geo.compare(&format!("GEOADD k {longitude} {latitude} m{member}"));
        geo.compare(&format!("GEOPOS k m{member}"));
        geo.compare(&format!("GEOHASH k m{member}"));
        geo.compare(&format!("GEODIST k m{member} m{} km", rng.random_range(0..=member)));
    }
    for _ in 0..3000 {
        geo.compare(&search(&mut rng));
    }
}
