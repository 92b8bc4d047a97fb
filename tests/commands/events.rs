//! Keyspace notifications: which ones a command leads to, and in which order.

use crate::duel::Duel;

#[test]
fn of_bitmaps_and_sketches() {
    Duel::start().events(
        r#"
        SETBIT b 7 1
        SETBIT b 7 1
        SETBIT b 7 0
        SETBIT b 100 0
        BITFIELD b SET u8 0 255
        BITFIELD b SET u8 0 255
        BITFIELD b GET u8 0
        BITFIELD b INCRBY u8 0 0
        BITFIELD b OVERFLOW FAIL INCRBY u8 0 1
        BITFIELD new OVERFLOW FAIL INCRBY u2 0 9
        BITFIELD new SET u8 64 0
        BITFIELD newer SET u8 0 1 SET u8 8 1
        BITOP NOT to b
        BITOP AND to b b
        BITOP AND to none
        BITOP AND to none
        PFADD h
        PFADD h
        PFADD h a b
        PFADD h a b
        PFCOUNT h none
        PFMERGE m h
        PFMERGE m h
        "#,
    );
}

#[test]
fn of_positions() {
    Duel::start().events(
        r#"
        GEOADD k 13.361389 38.115556 Palermo 15.087269 37.502669 Catania
        GEOADD k 13.361389 38.115556 Palermo
        GEOADD k XX 1 1 Palermo
        GEOADD k XX 1 1 none
        GEOADD k NX CH 2 2 Palermo
        GEOADD k CH 13.361389 38.115556 Palermo
        GEOPOS none a
        GEODIST k Palermo Catania
        GEOSEARCH none FROMLONLAT 1 1 BYRADIUS 1 m
        GEORADIUS k 15 37 200 km STORE to
        GEORADIUS k 15 37 200 km STOREDIST to
        GEORADIUSBYMEMBER k Palermo 1 km STORE to
        GEOSEARCHSTORE to k FROMLONLAT 15 37 BYRADIUS 200 km
        GEOSEARCHSTORE to k FROMLONLAT 0 0 BYRADIUS 1 m
        GEOSEARCHSTORE to k FROMLONLAT 0 0 BYRADIUS 1 m
        GEOSEARCHSTORE to none FROMLONLAT 0 0 BYRADIUS 1 m
        ZADD to 1 a
        GEOSEARCHSTORE to none FROMLONLAT 0 0 BYRADIUS 1 m
        ZUNIONSTORE new 1 k
        SADD s a
        SUNIONSTORE news s
        "#,
    );
}
