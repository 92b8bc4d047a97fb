//! The arguments of the searches: GEORADIUS, GEORADIUSBYMEMBER (and their `_RO` forms), GEOSEARCH, GEOSEARCHSTORE.

use bytes::Bytes;

use super::area::{Form, Shape};
use super::cell::Position;
use super::{Places, position, position_of, unit};
use crate::command::error::lossy;
use crate::command::{CommandError, float, numbers};

/// Which command asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// GEORADIUS key longitude latitude radius unit …
    Radius { stores: bool },
    /// GEORADIUSBYMEMBER key member radius unit …
    RadiusByMember { stores: bool },
    /// GEOSEARCH key …
    Search,
    /// GEOSEARCHSTORE destination source …
    SearchStore,
}

/// What to do with what is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Answer the members, each with what is asked for.
    Reply { distance: bool, hash: bool, coordinates: bool },
    /// Make a sorted set of them at this key, with their distances or else their geohashes as scores.
    Store { key: Bytes, distances: bool },
}

/// In which order of distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Where; `None` when there is no set to search.
    pub shape: Option<Shape>,
    /// Metres in the unit that distances are answered in.
    pub unit: f64,
    /// How many to answer at most.
    pub count: Option<u64>,
    /// Whether any so many will do, or they must be the first in order.
    pub any: bool,
    pub order: Option<Order>,
    pub target: Target,
}

/// Lengths as given, in their unit.
#[derive(Clone, Copy)]
enum Size {
    Radius(f64),
    Box(f64, f64),
}

/// What the arguments say, as far as they are read.
#[derive(Default)]
struct Options {
    center: Option<Position>,
    /// How GEOSEARCH was told the centre: by one of them.
    from_member: bool,
    from_position: bool,
    size: Option<(Size, f64)>,
    distance: bool,
    hash: bool,
    coordinates: bool,
    any: bool,
    order: Option<Order>,
    count: Option<u64>,
    store: Option<(Bytes, bool)>,
}

impl Query {
    /// Reads a request, its name first. `places` is the set it names, if there is one; without it no member's position
    /// is looked for.
    ///
    /// # Errors
    /// Those of Redis, for the first argument that is wrong.
    pub fn parse<P: Places>(style: Style, args: &[Bytes], mut places: Option<&mut P>) -> Result<Query, CommandError> {
        let mut options = Options::default();
        let mut rest = match (style, args) {
            (Style::Radius { .. }, [_, _, longitude, latitude, radius, unit, rest @ ..]) => {
                options.center = Some(position(longitude, latitude)?);
                options.size = Some(parse_radius(radius, unit)?);
                rest
            }
            (Style::RadiusByMember { .. }, [_, _, member, radius, unit, rest @ ..]) => {
                // Of a missing set Redis reads the options only, to know how to say that it found nothing.
                if let Some(places) = places.as_deref_mut() {
                    options.center = Some(center_at(places, member)?);
                    options.size = Some(parse_radius(radius, unit)?);
                }
                rest
            }
            (Style::Search, [_, _, rest @ ..]) => rest,
            (Style::SearchStore, [_, destination, _, rest @ ..]) => {
                options.store = Some((destination.clone(), false));
                rest
            }
            _ => return Err(CommandError::Syntax),
        };
        while let Some((name, after)) = rest.split_first() {
            rest = options.read(style, name, after, places.as_deref_mut())?;
        }
        options.finish(style, args)
    }
}

impl Options {
    /// Reads the option `name`; what is left of the arguments `after` it.
    fn read<'a, P: Places>(
        &mut self,
        style: Style,
        name: &[u8],
        after: &'a [Bytes],
        places: Option<&mut P>,
    ) -> Result<&'a [Bytes], CommandError> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let searches = matches!(style, Style::Search | Style::SearchStore);
        let may_store = matches!(style, Style::Radius { stores: true } | Style::RadiusByMember { stores: true });
        let rest = match after {
            rest if is("withdist") => {
                self.distance = true;
                rest
            }
            rest if is("withhash") => {
                self.hash = true;
                rest
            }
            rest if is("withcoord") => {
                self.coordinates = true;
                rest
            }
            rest if is("any") => {
                self.any = true;
                rest
            }
            rest if is("asc") => {
                self.order = Some(Order::Ascending);
                rest
            }
            rest if is("desc") => {
                self.order = Some(Order::Descending);
                rest
            }
            [count, rest @ ..] if is("count") => {
                let count = u64::try_from(numbers::integer(count)?).ok().filter(|count| *count > 0);
                self.count = Some(count.ok_or(CommandError::Static("ERR COUNT must be > 0"))?);
                rest
            }
            [key, rest @ ..] if may_store && (is("store") || is("storedist")) => {
                self.store = Some((key.clone(), is("storedist")));
                rest
            }
            rest if style == Style::SearchStore && is("storedist") => {
                if let Some((_, distances)) = &mut self.store {
                    *distances = true;
                }
                rest
            }
            [member, rest @ ..] if searches && !self.from_position && is("frommember") => {
                if let Some(places) = places {
                    self.center = Some(center_at(places, member)?);
                }
                self.from_member = true;
                rest
            }
            [longitude, latitude, rest @ ..] if searches && !self.from_member && is("fromlonlat") => {
                self.center = Some(position(longitude, latitude)?);
                self.from_position = true;
                rest
            }
            [radius, unit, rest @ ..]
                if searches && !matches!(self.size, Some((Size::Box(..), _))) && is("byradius") =>
            {
                self.size = Some(parse_radius(radius, unit)?);
                rest
            }
            [width, height, unit, rest @ ..]
                if searches && !matches!(self.size, Some((Size::Radius(_), _))) && is("bybox") =>
            {
                self.size = Some(parse_box(width, height, unit)?);
                rest
            }
            _ => return Err(CommandError::Syntax),
        };
        Ok(rest)
    }

    /// Checks how the options go together.
    fn finish(self, style: Style, args: &[Bytes]) -> Result<Query, CommandError> {
        if self.store.is_some() && (self.distance || self.hash || self.coordinates) {
            return Err(CommandError::Static(match style {
                Style::SearchStore => {
                    "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
                _ => "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
            }));
        }
        if matches!(style, Style::Search | Style::SearchStore) {
            let choice = if !self.from_member && !self.from_position {
                Some("FROMMEMBER or FROMLONLAT")
            } else if self.size.is_none() {
                Some("BYRADIUS and BYBOX")
            } else {
                None
            };
            if let Some(choice) = choice {
                let name = args.first().map(|name| lossy(name, usize::MAX)).unwrap_or_default();
                return Err(CommandError::Text(format!("ERR exactly one of {choice} can be specified for {name}")));
            }
        }
        if self.any && self.count.is_none() {
            return Err(CommandError::Static("ERR the ANY argument requires COUNT argument"));
        }
        let shape = self.center.zip(self.size).map(|(center, (size, unit))| Shape {
            center,
            form: match size {
                Size::Radius(radius) => Form::Circle { radius: radius * unit },
                Size::Box(width, height) => Form::Box { width: width * unit, height: height * unit },
            },
        });
        // The nearest ones are meant, unless any will do.
        let nearest = (self.count.is_some() && !self.any).then_some(Order::Ascending);
        Ok(Query {
            shape,
            unit: self.size.map_or(1.0, |(_, unit)| unit),
            count: self.count,
            any: self.any,
            order: self.order.or(nearest),
            target: match self.store {
                Some((key, distances)) => Target::Store { key, distances },
                None => Target::Reply { distance: self.distance, hash: self.hash, coordinates: self.coordinates },
            },
        })
    }
}

fn center_at(places: &mut impl Places, member: &[u8]) -> Result<Position, CommandError> {
    position_of(places, member)?.ok_or(CommandError::Static("ERR could not decode requested zset member"))
}

fn parse_radius(radius: &[u8], unit_name: &[u8]) -> Result<(Size, f64), CommandError> {
    let radius = float::parse_f64(radius).ok_or(CommandError::Static("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(CommandError::Static("ERR radius cannot be negative"));
    }
    Ok((Size::Radius(radius), unit(unit_name)?))
}

fn parse_box(width: &[u8], height: &[u8], unit_name: &[u8]) -> Result<(Size, f64), CommandError> {
    let width = float::parse_f64(width).ok_or(CommandError::Static("ERR need numeric width"))?;
    let height = float::parse_f64(height).ok_or(CommandError::Static("ERR need numeric height"))?;
    if width < 0.0 || height < 0.0 {
        return Err(CommandError::Static("ERR height or width cannot be negative"));
    }
    Ok((Size::Box(width, height), unit(unit_name)?))
}

/// The key that these options of GEORADIUS or GEORADIUSBYMEMBER store at, if they do: the last one named.
pub fn store_key(options: &[Bytes]) -> Option<&Bytes> {
    let mut found = None;
    let mut rest = options;
    while let [name, after @ ..] = rest {
        rest = after;
        let stores = name.eq_ignore_ascii_case(b"store") || name.eq_ignore_ascii_case(b"storedist");
        if let [key, after @ ..] = after
            && stores
        {
            found = Some(key);
            rest = after;
        }
    }
    found
}
