//! Circles and boxes on the earth: what lies in them, and the cells that cover them.
//!
//! The earth is a ball here, as it is to Redis 7.0 (`geohash_helper.c`), whose formulas these are, in its order of
//! operations, so that both agree on what lies on an edge.

use std::cmp::Ordering;

use super::cell::{Area, Cell, MAX_STEP, Position};

/// Radius of the earth in metres.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Half the width of the web map in metres.
const MERCATOR_MAX: f64 = 20_037_726.37;
const RADIANS: f64 = std::f64::consts::PI / 180.0;

/// The form of an area; lengths in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// Where to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub center: Position,
    pub form: Form,
}

impl Shape {
    /// The distance of a position from the centre in metres, if it lies inside.
    pub fn distance_inside(&self, position: Position) -> Option<f64> {
        match self.form {
            Form::Circle { radius } => {
                let distance = distance(self.center, position);
                // What is no number is not greater.
                (distance.partial_cmp(&radius) != Some(Ordering::Greater)).then_some(distance)
            }
            Form::Box { width, height } => {
                if latitude_distance(position.latitude, self.center.latitude) > height / 2.0 {
                    return None;
                }
                let abreast = Position { longitude: self.center.longitude, latitude: position.latitude };
                if distance(position, abreast) > width / 2.0 {
                    return None;
                }
                Some(distance(self.center, position))
            }
        }
    }

    /// The cells to search, in the order in which Redis does; a cell may come twice, but not twice in a row.
    pub fn cells(&self) -> Vec<Cell> {
        let bounds = self.bounds();
        let mut step = self.step();
        let mut center = Cell::at(self.center, step);
        // Near an edge of its cell the shape may reach beyond the cells next to it.
        let too_small = center.neighbour(0, 1).area().north < bounds.north
            || center.neighbour(0, -1).area().south > bounds.south
            || center.neighbour(1, 0).area().east < bounds.east
            || center.neighbour(-1, 0).area().west > bounds.west;
        if step > 1 && too_small {
            step -= 1;
            center = Cell::at(self.center, step);
        }
        let area = center.area();
        // With fewer than four columns and rows the cells on both sides are the same.
        let apart = step >= 2;
        let useless = |east: i8, north: i8| {
            apart
                && (north < 0 && area.south < bounds.south
                    || north > 0 && area.north > bounds.north
                    || east < 0 && area.west < bounds.west
                    || east > 0 && area.east > bounds.east)
        };
        let around = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let mut cells = vec![center];
        for (east, north) in around.into_iter().filter(|(east, north)| !useless(*east, *north)) {
            let cell = center.neighbour(east, north);
            if cells.len() == 1 || cells.last() != Some(&cell) {
                cells.push(cell);
            }
        }
        cells
    }

    /// The step of cells about as large as the shape.
    fn step(&self) -> u32 {
        let mut range = match self.form {
            Form::Circle { radius } => radius,
            Form::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
        };
        if range == 0.0 {
            return MAX_STEP;
        }
        let mut step = 1i32;
        while range < MERCATOR_MAX {
            range *= 2.0;
            step += 1;
        }
        step -= 2;
        // Cells are narrower towards the poles.
        let latitude = self.center.latitude.abs();
        step -= i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        step.clamp(1, MAX_STEP as i32).cast_unsigned()
    }

    /// The degrees between which the shape lies.
    fn bounds(&self) -> Area {
        let (half_width, half_height) = match self.form {
            Form::Circle { radius } => (radius, radius),
            Form::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let Position { longitude, latitude } = self.center;
        let tall = half_height / EARTH_RADIUS / RADIANS;
        // The wider side is the one that is nearer to a pole. Redis takes the northern one in the north.
        let widest = if latitude < 0.0 { latitude - tall } else { latitude + tall };
        let wide = half_width / EARTH_RADIUS / (widest * RADIANS).cos() / RADIANS;
        Area { west: longitude - wide, east: longitude + wide, south: latitude - tall, north: latitude + tall }
    }
}

/// The distance between two positions on the great circle, in metres (haversine formula).
pub fn distance(a: Position, b: Position) -> f64 {
    let v = ((b.longitude * RADIANS - a.longitude * RADIANS) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance(a.latitude, b.latitude);
    }
    let (a, b) = (a.latitude * RADIANS, b.latitude * RADIANS);
    let u = ((b - a) / 2.0).sin();
    2.0 * EARTH_RADIUS * (u * u + a.cos() * b.cos() * v * v).sqrt().asin()
}

/// The distance between two latitudes in metres.
fn latitude_distance(a: f64, b: f64) -> f64 {
    EARTH_RADIUS * (b * RADIANS - a * RADIANS).abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cell::{LATITUDES, LONGITUDES};
    use super::*;

    #[test]
    fn distances() {
        let palermo = Position { longitude: 13.361389338970184, latitude: 38.1155563954963 };
        let catania = Position { longitude: 15.087267458438873, latitude: 37.50266842333162 };
        assert_eq!(format!("{:.4}", distance(palermo, catania)), "166274.1516");
        assert_eq!(distance(palermo, palermo), 0.0);
    }

    fn position() -> impl Strategy<Value = Position> {
        // Close to the poles Redis itself misses places now and then.
        (LONGITUDES, -70.0..=70.0).prop_map(|(longitude, latitude)| Position { longitude, latitude })
    }

    proptest! {
        #[test]
        fn what_lies_inside_lies_in_a_cell(
            center in position(),
            size in 1.0..5_000_000f64,
            aspect in 0.01..1f64,
            is_box: bool,
            others in proptest::collection::vec((-1.0..1f64, -1.0..1f64), 1..50),
        ) {
            let form = if is_box { Form::Box { width: size, height: size * aspect } } else { Form::Circle { radius: size } };
            let shape = Shape { center, form };
            let cells = shape.cells();
            let reach = size / EARTH_RADIUS / RADIANS;
            for (east, north) in others {
                let longitude = center.longitude + east * reach;
                let latitude = center.latitude + north * reach;
                let other = Position { longitude, latitude };
                if !LONGITUDES.contains(&longitude) || !LATITUDES.contains(&latitude) || latitude.abs() > 70.0 {
                    continue;
                }
                if shape.distance_inside(other).is_some() {
                    let score = other.score();
                    let found = cells.iter().any(|cell| (cell.scores().0..cell.scores().1).contains(&score));
                    prop_assert!(found, "{other:?} of {shape:?}");
                }
            }
        }
    }
}
