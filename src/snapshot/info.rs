//! The `info` file of a snapshot: where and when it was taken, and which record it contains up to.

use std::str::{FromStr, Lines};

use crate::binlog::{FILE_HEADER_LEN, Position};
use crate::engine::Applied;
use crate::keyspace::NEVER_WRITTEN;

const HEADER: &str = "haypile snapshot 1";

/// What stands in an `info` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The slot it was taken of, `db0:3`.
    pub slot: String,
    /// Unix time, seconds.
    pub taken: u64,
    /// How long taking it took.
    pub seconds: u64,
    /// The node it was taken on.
    pub host: String,
    pub port: u16,
    /// What the data contain.
    pub applied: Applied,
    /// The slot had never been written: there are no data.
    pub empty: bool,
}

/// Not an `info` file, or not one of a version this build knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInfo {
    #[error("the first line is not \"{HEADER}\"")]
    Header,
    #[error("field \"{0}\" is missing or malformed")]
    Field(&'static str),
    #[error("not in the form this version writes")]
    Form,
}

impl Info {
    /// The file's contents: a header line, then `key : value` lines in a fixed order.
    pub fn encode(&self) -> String {
        let Applied { position, time } = self.applied;
        let Position { filenum, offset, term, index, chain } = position;
        let empty = if self.empty { "yes" } else { "no" };
        format!(
            "{HEADER}\nslot : {}\ntaken : {}\nseconds : {}\nhost : {}\nport : {}\nfilenum : {filenum}\noffset : {offset}\n\
             term : {term}\nindex : {index}\nchain : {chain:016x}\ntime : {time}\nempty : {empty}\n",
            self.slot, self.taken, self.seconds, self.host, self.port
        )
    }

    /// Undoes [`Info::encode`]; anything that it would not have written is refused.
    pub fn parse(text: &str) -> Result<Info, BadInfo> {
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(BadInfo::Header);
        }
        let info = Info {
            slot: field(&mut lines, "slot")?.to_string(),
            taken: number(&mut lines, "taken")?,
            seconds: number(&mut lines, "seconds")?,
            host: field(&mut lines, "host")?.to_string(),
            port: number(&mut lines, "port")?,
            applied: Applied {
                position: Position {
                    filenum: number(&mut lines, "filenum")?,
                    offset: number(&mut lines, "offset")?,
                    term: number(&mut lines, "term")?,
                    index: number(&mut lines, "index")?,
                    chain: u64::from_str_radix(field(&mut lines, "chain")?, 16).map_err(|_| BadInfo::Field("chain"))?,
                },
                time: number(&mut lines, "time")?,
            },
            empty: field(&mut lines, "empty")? == "yes",
        };
        let possible =
            info.applied.position.offset >= FILE_HEADER_LEN && (!info.empty || info.applied == NEVER_WRITTEN);
        if !possible {
            return Err(BadInfo::Field("offset"));
        }
        // Every byte counts: no second spelling of the same.
        if info.encode() == text { Ok(info) } else { Err(BadInfo::Form) }
    }
}

fn field<'a>(lines: &mut Lines<'a>, name: &'static str) -> Result<&'a str, BadInfo> {
    let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(" : "));
    value.ok_or(BadInfo::Field(name))
}

fn number<T: FromStr>(lines: &mut Lines<'_>, name: &'static str) -> Result<T, BadInfo> {
    field(lines, name)?.parse().map_err(|_| BadInfo::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_info() -> impl Strategy<Value = Info> {
        let position = any::<(u32, u64, u32, u64, u64)>();
        let place = ("db[0-9]{1,3}:[0-9]{1,4}", "[a-zA-Z0-9.:-]{0,40}", any::<u16>());
        (place, position, any::<(u64, u64, u64, bool)>()).prop_map(
            |((slot, host, port), p, (taken, seconds, time, empty))| {
                let (filenum, offset, term, index, chain) = p;
                let position = Position { filenum, offset: offset.max(FILE_HEADER_LEN), term, index, chain };
                let applied = if empty { NEVER_WRITTEN } else { Applied { position, time } };
                Info { slot, taken, seconds, host, port, applied, empty }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips(info in any_info()) {
            prop_assert_eq!(Info::parse(&info.encode()), Ok(info));
        }

        #[test]
        fn what_is_cut_short_is_refused(info in any_info(), cut in 1usize..400) {
            let text = info.encode();
            prop_assert!(Info::parse(&text[..text.len().saturating_sub(cut)]).is_err());
        }

        #[test]
        fn other_text_is_refused(text in "\\PC{0,200}") {
            prop_assert!(Info::parse(&text).is_err());
        }
    }

    #[test]
    fn second_spellings_are_refused() {
        let applied = Applied { position: Position::START, time: 5 };
        let info =
            Info { slot: "db0:3".into(), taken: 1, seconds: 2, host: "h".into(), port: 9221, applied, empty: false };
        let text = info.encode();
        assert!(Info::parse(&text).is_ok());
        for (from, to) in [("taken : 1", "taken : +1"), ("taken : 1", "taken : 01"), ("empty : no", "empty : nope")] {
            assert_eq!(Info::parse(&text.replace(from, to)), Err(BadInfo::Form), "{to}");
        }
        assert_eq!(Info::parse(&format!("{text}more\n")), Err(BadInfo::Form));
        assert_eq!(Info::parse(&text.replace("snapshot 1", "snapshot 2")), Err(BadInfo::Header));
        assert_eq!(Info::parse(&text.replace("port : 9221", "port : 92210")), Err(BadInfo::Field("port")));
    }
}
