//! Geo commands.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::resp::split_line;
use crate::common::rng;
use crate::duel::Duel;

#[test]
fn arguments_and_replies() {
    Duel::start().script(include_str!("geo.txt"));
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
    let mut duel = Duel::start();
    let mut rng = rng();
    let mut commands = Vec::new();
    for member in 0..3000 {
        let (longitude, latitude) = place(&mut rng);
        commands.push(format!("GEOADD k {longitude} {latitude} m{member}"));
        commands.push(format!("GEOPOS k m{member}"));
        commands.push(format!("GEOHASH k m{member}"));
        commands.push(format!("GEODIST k m{member} m{} km", rng.random_range(0..=member)));
    }
    for _ in 0..3000 {
        commands.push(search(&mut rng));
    }
    for _ in 0..300 {
        let (longitude, latitude) = place(&mut rng);
        let radius = 10f64.powf(rng.random_range(0.0..6.0));
        let distances = *["", " STOREDIST"].choose(&mut rng).expect("one");
        commands.push(format!("GEOSEARCHSTORE to k FROMLONLAT {longitude} {latitude} BYRADIUS {radius} m{distances}"));
        commands.push("ZRANGE to 0 -1 WITHSCORES".into());
    }
    duel.stream(commands.iter().map(|line| split_line(line)).collect());
}
