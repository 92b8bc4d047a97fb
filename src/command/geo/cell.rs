//! Geohashes as numbers: the cells of a grid over the earth, and their order on a line.
//!
//! A position's longitude and latitude are each cut in half again and again; the bits that say which half are
//! interleaved, longitude first. Scores of sorted sets have 26 of each, 52 bits, which a double holds exactly.
//! Ranges, step arithmetic and rounding are those of Redis 7.0, `geohash.c`.

use std::ops::RangeInclusive;

/// Halvings of a score, of each coordinate.
pub const MAX_STEP: u32 = 26;
/// Longitudes that can be stored, in degrees.
pub const LONGITUDES: RangeInclusive<f64> = -180.0..=180.0;
/// Latitudes that can be stored, in degrees: those of the square web map (EPSG:3857).
pub const LATITUDES: RangeInclusive<f64> = -85.051_128_78..=85.051_128_78;
/// The latitudes of standard geohashes.
const ALL_LATITUDES: RangeInclusive<f64> = -90.0..=90.0;

/// Bits of the longitude in an interleaved number, and of the latitude.
const LONGITUDE_BITS: u64 = 0xaaaa_aaaa_aaaa_aaaa;
const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Position {
    pub longitude: f64,
    pub latitude: f64,
}

impl Position {
    /// Whether it can be stored.
    pub fn is_valid(self) -> bool {
        LONGITUDES.contains(&self.longitude) && LATITUDES.contains(&self.latitude)
    }

    /// The score that stands for it.
    pub fn score(self) -> f64 {
        Cell::at(self, MAX_STEP).bits as f64
    }

    /// The middle of the cell that a score stands for.
    pub fn of_score(score: f64) -> Position {
        let area = Cell { bits: as_c_u64(score), step: MAX_STEP }.area();
        let middle = |west: f64, east: f64, range: RangeInclusive<f64>| {
            let middle = (west + east) / 2.0;
            middle.min(*range.end()).max(*range.start())
        };
        Position {
            longitude: middle(area.west, area.east, LONGITUDES),
            latitude: middle(area.south, area.north, LATITUDES),
        }
    }

    /// The standard geohash of 11 letters. The last one is always `0`: it would need three more bits than there are.
    pub fn geohash(self) -> String {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = encode(self, ALL_LATITUDES, MAX_STEP);
        (1..=11)
            .map(|letter| bits.checked_shr(52u32.wrapping_sub(letter * 5)).unwrap_or(0) & 0x1f)
            .map(|index| char::from(LETTERS[index as usize]))
            .collect()
    }
}

/// What a C compiler for x86-64 makes of `(uint64_t)score`: any score may have been put into the set.
fn as_c_u64(score: f64) -> u64 {
    const HALF: f64 = (1u64 << 63) as f64;
    if score < HALF {
        return (score as i64).cast_unsigned();
    }
    let above = score - HALF;
    if above < HALF { above as u64 + (1 << 63) } else { 0 }
}

/// A cell of the grid with `2^step` columns and as many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    bits: u64,
    step: u32,
}

/// The borders of a cell, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    pub west: f64,
    pub east: f64,
    pub south: f64,
    pub north: f64,
}

impl Cell {
    /// The cell of a valid position. `step` is 1 to [`MAX_STEP`].
    pub fn at(position: Position, step: u32) -> Cell {
        Cell { bits: encode(position, LATITUDES, step), step }
    }

    /// Its borders.
    pub fn area(self) -> Area {
        let cells = (1u64 << self.step) as f64;
        let border = |index: u32, range: RangeInclusive<f64>| {
            range.start() + f64::from(index) * 1.0 / cells * (range.end() - range.start())
        };
        let (row, column) = (gather(self.bits), gather(self.bits >> 1));
        Area {
            west: border(column, LONGITUDES),
            east: border(column.wrapping_add(1), LONGITUDES),
            south: border(row, LATITUDES),
            north: border(row.wrapping_add(1), LATITUDES),
        }
    }

    /// The cell so many columns east and rows north (1, 0 or -1 of each), around the edges of the map.
    pub fn neighbour(self, east: i8, north: i8) -> Cell {
        let unused = 64 - self.step * 2;
        // The bits of the other coordinate are all ones or zeros, so that a carry goes through them.
        let moved = |own: u64, other: u64, by: i8| {
            let (coordinate, fill) = (self.bits & own, other >> unused);
            let moved = match by {
                // Left as it is, even if it lies one beyond the last row, as a position on the northern border does.
                0 => return coordinate,
                1.. => coordinate.wrapping_add(fill + 1),
                _ => (coordinate | fill).wrapping_sub(fill + 1),
            };
            moved & own >> unused
        };
        let longitude = moved(LONGITUDE_BITS, LATITUDE_BITS, east);
        let latitude = moved(LATITUDE_BITS, LONGITUDE_BITS, north);
        Cell { bits: longitude | latitude, step: self.step }
    }

    /// The scores of the positions in it: from the first up to the second, exclusive.
    pub fn scores(self) -> (f64, f64) {
        let align = |bits: u64| (bits << (52 - self.step * 2)) as f64;
        (align(self.bits), align(self.bits + 1))
    }
}

fn encode(position: Position, latitudes: RangeInclusive<f64>, step: u32) -> u64 {
    let index = |degrees: f64, range: RangeInclusive<f64>| {
        let share = (degrees - range.start()) / (range.end() - range.start());
        (share * (1u64 << step) as f64) as u32
    };
    spread(index(position.latitude, latitudes)) | spread(index(position.longitude, LONGITUDES)) << 1
}

/// Distances by which bits move to get every second place, and the places they have after each move.
const MOVES: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, LATITUDE_BITS),
];

/// Puts a zero above each bit.
fn spread(number: u32) -> u64 {
    MOVES.iter().fold(u64::from(number), |bits, (by, mask)| (bits | bits << by) & mask)
}

/// Takes every second bit, from the lowest on.
fn gather(bits: u64) -> u32 {
    let bits = MOVES.iter().rev().fold(bits, |bits, (by, mask)| {
        let bits = bits & mask;
        bits | bits >> by
    });
    bits as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PALERMO: Position = Position { longitude: 13.361389, latitude: 38.115556 };

    #[test]
    fn what_redis_makes_of_a_position() {
        assert_eq!(PALERMO.score(), 3479099956230698.0);
        let stored = Position::of_score(PALERMO.score());
        assert_eq!((stored.longitude, stored.latitude), (13.361389338970184, 38.1155563954963));
        assert_eq!(stored.geohash(), "sqc8b49rny0");
        let wikipedia = Position { longitude: -5.6, latitude: 42.6 };
        assert_eq!(Position::of_score(wikipedia.score()).geohash(), "ezs42e44yx0");
    }

    #[test]
    fn odd_scores() {
        for (score, bits) in [
            (-1.0, u64::MAX),
            (f64::NEG_INFINITY, 1 << 63),
            (f64::INFINITY, 0),
            (9223372036854775808.0, 1 << 63),
            (1.5, 1),
        ] {
            assert_eq!(as_c_u64(score), bits, "{score}");
            let position = Position::of_score(score);
            assert!(position.is_valid(), "{score}: {position:?}");
        }
    }

    #[test]
    fn neighbours_around_the_edge() {
        let corner = Cell::at(Position { longitude: -180.0, latitude: -85.05 }, 3);
        assert_eq!(corner.bits, 0);
        assert_eq!(corner.neighbour(-1, 0).area().east, 180.0);
        assert_eq!(corner.neighbour(0, -1).neighbour(0, 1), corner);
        assert_eq!(corner.neighbour(1, 1).bits, 3);
    }

    proptest! {
        #[test]
        fn numbers_interleave(row: u32, column: u32) {
            let bits = spread(row) | spread(column) << 1;
            prop_assert_eq!((gather(bits), gather(bits >> 1)), (row, column));
        }

        #[test]
        fn a_position_lies_in_its_cell(longitude in LONGITUDES, latitude in LATITUDES, step in 1..=MAX_STEP) {
            let position = Position { longitude, latitude };
            let cell = Cell::at(position, step);
            let area = cell.area();
            prop_assert!(area.west <= longitude + 1e-9 && longitude <= area.east + 1e-9);
            prop_assert!(area.south <= latitude + 1e-9 && latitude <= area.north + 1e-9);
            let (first, end) = cell.scores();
            prop_assert!((first..end).contains(&position.score()));
            prop_assert_eq!(cell.neighbour(1, -1).neighbour(-1, 1), cell);
        }
    }
}
