//! Which records and effects are asked for.

use std::ops::ControlFlow;
use std::str::FromStr;

use super::text::{parse_time, unquote};
use crate::binlog::{Position, Record};
use crate::command::glob;

/// Filters; a record must pass all of them.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Selection {
    /// Only effects on keys that match this pattern, as KEYS takes it; in double quotes, as the output shows keys, exactly this
    /// key. What concerns all keys (FLUSHDB, SWAPDB) is always shown
    #[arg(long, value_name = "GLOB")]
    key: Option<KeyFilter>,
    /// Only records executed at or after this time: 2026-01-31T23:59:59.123Z, '2026-01-31 23:59' (UTC), unix seconds or milliseconds
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<u64>,
    /// Only records executed at or before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<u64>,
    /// Only records behind this position, FILE:OFFSET
    #[arg(long, value_name = "F:O")]
    from_position: Option<Place>,
    /// Only records up to this position
    #[arg(long, value_name = "F:O")]
    until_position: Option<Place>,
    /// Only records with these indexes: N, N..M, N.. or ..M, both ends included
    #[arg(long, value_name = "N..M")]
    index: Option<Indexes>,
    /// So many records at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Selection {
    /// Whether a file of this number can hold such records.
    pub fn wants_file(&self, filenum: u32) -> bool {
        self.from_position.is_none_or(|from| filenum >= from.filenum)
            && self.until_position.is_none_or(|until| filenum <= until.filenum)
    }

    /// Whether a record passes; breaks where no later one of the file can.
    pub fn wants_record(&self, record: &Record<'_>) -> ControlFlow<(), bool> {
        let place = record.end.place();
        let last = self.index.map_or(u64::MAX, |indexes| indexes.last);
        if self.until_position.is_some_and(|until| place > until.place()) || record.end.index > last {
            return ControlFlow::Break(());
        }
        // Times of successive records may differ by a little either way: none ends the search.
        ControlFlow::Continue(
            self.from.is_none_or(|from| record.time >= from)
                && self.until.is_none_or(|until| record.time <= until)
                && self.from_position.is_none_or(|from| place > from.place())
                && self.index.is_none_or(|indexes| record.end.index >= indexes.first),
        )
    }

    /// Whether an effect of a record that passes is to be shown.
    pub fn wants_effect(&self, args: &[&[u8]]) -> bool {
        self.key.as_ref().is_none_or(|filter| match key_of(args) {
            Some(key) => filter.matches(key),
            None => !matches!(args, [b"FUNCTIONS", ..]),
        })
    }

    /// Whether effects are chosen by key.
    pub fn by_key(&self) -> bool {
        self.key.is_some()
    }

    /// Records at most.
    pub fn limit(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX)
    }
}

/// The key that an effect in the log is about; `None` for one about the whole slot or node.
pub fn key_of<'a>(args: &[&'a [u8]]) -> Option<&'a [u8]> {
    match args {
        [b"FLUSHDB" | b"SWAPDB" | b"FUNCTIONS", ..] => None,
        [_, key, ..] => Some(key),
        _ => None,
    }
}

#[derive(Clone, Debug)]
enum KeyFilter {
    Exact(Vec<u8>),
    Glob(Vec<u8>),
}

impl KeyFilter {
    fn matches(&self, key: &[u8]) -> bool {
        match self {
            KeyFilter::Exact(exact) => exact == key,
            KeyFilter::Glob(pattern) => glob::matches_everything(pattern) || glob::matches(pattern, key),
        }
    }
}

impl FromStr for KeyFilter {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<KeyFilter, Self::Err> {
        Ok(unquote(text).map_or_else(|| KeyFilter::Glob(text.as_bytes().to_vec()), KeyFilter::Exact))
    }
}

/// File number and offset.
#[derive(Clone, Copy, Debug)]
struct Place {
    filenum: u32,
    offset: u64,
}

impl Place {
    fn place(self) -> (u32, u64) {
        Position { filenum: self.filenum, offset: self.offset, ..Position::START }.place()
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let parsed = text
            .split_once(':')
            .and_then(|(file, offset)| Some(Place { filenum: file.parse().ok()?, offset: offset.parse().ok()? }));
        parsed.ok_or_else(|| format!("'{text}' is no position: write FILE:OFFSET, as 12:3438704"))
    }
}

/// A range of indexes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Indexes {
    first: u64,
    last: u64,
}

impl FromStr for Indexes {
    type Err = String;

    fn from_str(text: &str) -> Result<Indexes, String> {
        let number = |text: &str, open: u64| if text.is_empty() { Some(open) } else { text.parse().ok() };
        let parsed = match text.split_once("..") {
            Some((first, last)) => number(first, 0).zip(number(last, u64::MAX)),
            None => text.parse().ok().map(|one| (one, one)),
        };
        let parsed = parsed.map(|(first, last)| Indexes { first, last }).filter(|i| i.first <= i.last);
        parsed.ok_or_else(|| format!("'{text}' is no range of indexes: write 7, 7..20, 7.. or ..20"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_places() {
        let indexes = |text: &str| text.parse::<Indexes>().map(|i| (i.first, i.last)).ok();
        assert_eq!(indexes("7"), Some((7, 7)));
        assert_eq!(indexes("7..20"), Some((7, 20)));
        assert_eq!(indexes("7.."), Some((7, u64::MAX)));
        assert_eq!(indexes("..20"), Some((0, 20)));
        for bad in ["", "x", "20..7", "1..2..3", "-1"] {
            assert_eq!(indexes(bad), None, "{bad}");
        }
        assert_eq!("3:64".parse::<Place>().unwrap().place(), (3, 64));
        assert!("3".parse::<Place>().is_err());
    }

    #[test]
    fn keys() {
        let wants = |filter: &str, args: &[&[u8]]| {
            let selection = Selection { key: filter.parse().ok(), ..Selection::default() };
            selection.wants_effect(args)
        };
        assert!(wants("user:*", &[b"SET", b"user:1", b"v"]) && !wants("user:*", &[b"SET", b"other", b"user:1"]));
        assert!(wants("\"a*\\xff\"", &[b"DEL", b"a*\xff"]) && !wants("\"a*\"", &[b"DEL", b"ab"]));
        assert!(
            wants("x", &[b"FLUSHDB"]) && wants("x", &[b"SWAPDB", b"0", b"1"]) && !wants("x", &[b"FUNCTIONS", b"x"])
        );
    }
}
