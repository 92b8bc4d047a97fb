//! Values of settings: what each kind accepts, and how it is read and written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::events::EventClasses;
use super::output_limits::OutputLimits;

/// The highest client port: the snapshot service listens 10001 above it.
pub const MAX_PORT: i64 = 65535 - 10001;

/// What a setting's value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A whole number from `min` to `max`.
    Integer { min: i64, max: i64 },
    /// Bytes, from `min` to `max`; written with K, M, G or T, which are powers of 1024.
    Size { min: i64, max: i64 },
    /// Whole seconds from `min` to `max`.
    Seconds { min: i64, max: i64 },
    /// Whole milliseconds from `min` to `max`.
    Milliseconds { min: i64, max: i64 },
    /// `yes` or `no`.
    Bool,
    /// One of these names; several may stand for one number, the first of them is its name.
    Choice(&'static [(&'static str, i64)]),
    /// One line of text.
    Text,
    /// One line of text that no message repeats.
    Secret,
    /// A file or folder, relative to `dir` (and `dir` itself to the current folder).
    Path { may_be_empty: bool },
    /// IP addresses, separated by spaces; `*` is every IPv4 address.
    Addresses,
    /// `host port` or `host:port` of a master; empty or `no one` for none.
    Master,
    /// Letters of classes of keyspace events.
    Events,
    /// Percentages from 0 to 100, separated by spaces; may be none.
    Percentiles,
    /// `class hard soft seconds` for classes of clients, one after the other.
    OutputLimits,
    /// What CONFIG GET answers for a setting of Redis that is no setting here.
    Fact,
}

/// A value that its [`Kind`] accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Text(Arc<str>),
}

/// Why a value is refused. Displays as the end of a sentence that began with the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueError {
    NotInteger,
    NotSize,
    OutOfRange { min: i64, max: i64, size: bool },
    NotBool,
    NotOneOf(&'static [(&'static str, i64)]),
    Empty,
    NotOneLine,
    NotAddress,
    NotMaster,
    NotEvents,
    NotPercentiles,
    NotOutputLimits(&'static str),
    Fact,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::NotInteger => write!(f, "is not a whole number"),
            ValueError::NotSize => {
                write!(f, "is not a size (bytes, or a number with K, M, G or T)")
            }
            ValueError::OutOfRange { min, max, size: false } => write!(f, "is not between {min} and {max}"),
            ValueError::OutOfRange { min, max, size: true } => {
                write!(f, "is not between {} and {}", short_size(*min), short_size(*max))
            }
            ValueError::NotBool => write!(f, "is neither yes nor no"),
            ValueError::NotOneOf(names) => {
                write!(f, "is not one of {}", canonical_names(names).join(", "))
            }
            ValueError::Empty => write!(f, "must not be empty"),
            ValueError::NotOneLine => write!(f, "must be one line of text that neither starts nor ends with a space"),
            ValueError::NotAddress => write!(f, "is not a list of IP addresses"),
            ValueError::NotMaster => write!(f, "is not a master: HOST:PORT, with a port from 1 to {MAX_PORT}"),
            ValueError::NotEvents => write!(f, "is not made of the letters KEAg$lshzxetdmn"),
            ValueError::NotPercentiles => write!(f, "is not a list of percentages from 0 to 100"),
            ValueError::NotOutputLimits(why) => write!(f, "is not a list of `class hard soft seconds`: {why}"),
            ValueError::Fact => write!(f, "cannot be set"),
        }
    }
}

impl ValueError {
    /// The reason as Redis words it in the error of CONFIG SET.
    pub fn redis_text(&self) -> String {
        match self {
            ValueError::NotInteger => "argument couldn't be parsed into an integer".into(),
            ValueError::NotSize => "argument must be a memory value".into(),
            ValueError::OutOfRange { min, max, .. } => {
                format!("argument must be between {min} and {max} inclusive")
            }
            ValueError::NotBool => "argument must be 'yes' or 'no'".into(),
            ValueError::NotOneOf(names) => {
                format!("argument(s) must be one of the following: {}", canonical_names(names).join(", "))
            }
            ValueError::NotOutputLimits(why) => (*why).into(),
            other => format!("argument {other}"),
        }
    }
}

impl Kind {
    /// Reads a value as it stands in the conf file, on the command line or in CONFIG SET.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        match *self {
            Kind::Integer { min, max } | Kind::Seconds { min, max } | Kind::Milliseconds { min, max } => {
                let number = text.parse().map_err(|_| ValueError::NotInteger)?;
                within(number, min, max, false)
            }
            Kind::Size { min, max } => within(parse_size(text)?, min, max, true),
            Kind::Bool if text.eq_ignore_ascii_case("yes") => Ok(Value::Number(1)),
            Kind::Bool if text.eq_ignore_ascii_case("no") => Ok(Value::Number(0)),
            Kind::Bool => Err(ValueError::NotBool),
            Kind::Choice(names) => names
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text))
                .map(|&(_, number)| Value::Number(number))
                .ok_or(ValueError::NotOneOf(names)),
            Kind::Text | Kind::Secret | Kind::Path { may_be_empty: true } => one_line(text),
            Kind::Path { may_be_empty: false } if text.is_empty() => Err(ValueError::Empty),
            Kind::Path { may_be_empty: false } => one_line(text),
            Kind::Addresses => {
                let addresses = text
                    .split_whitespace()
                    .map(parse_address)
                    .collect::<Option<Vec<_>>>()
                    .filter(|addresses| !addresses.is_empty())
                    .ok_or(ValueError::NotAddress)?;
                let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                Ok(Value::Text(names.join(" ").into()))
            }
            Kind::Master => match text.trim() {
                "" => Ok(Value::Text("".into())),
                text if text.eq_ignore_ascii_case("no one") => Ok(Value::Text("".into())),
                text => {
                    let (host, port) = split_master(text).ok_or(ValueError::NotMaster)?;
                    Ok(Value::Text(format!("{host} {port}").into()))
                }
            },
            Kind::Events => {
                let classes = EventClasses::parse(text).ok_or(ValueError::NotEvents)?;
                Ok(Value::Number(classes.bits()))
            }
            Kind::Percentiles => {
                let percentiles = parse_percentiles(text).ok_or(ValueError::NotPercentiles)?;
                let words: Vec<String> = percentiles.iter().map(f64::to_string).collect();
                Ok(Value::Text(words.join(" ").into()))
            }
            Kind::OutputLimits => Ok(Value::Text(OutputLimits::normalize(text)?.into())),
            Kind::Fact => Err(ValueError::Fact),
        }
    }

    /// The value as CONFIG GET answers it: sizes in bytes, bools as yes and no.
    pub fn format(&self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Text(text)) => text.to_string(),
            (Kind::Bool, Value::Number(number)) => if *number == 0 { "no" } else { "yes" }.to_string(),
            (Kind::Events, Value::Number(bits)) => EventClasses::from_bits(*bits).to_string(),
            (Kind::Choice(names), Value::Number(number)) => {
                names.iter().find(|(_, n)| n == number).map(|(name, _)| name.to_string()).unwrap_or_default()
            }
            (_, Value::Number(number)) => number.to_string(),
        }
    }

    /// The value as the conf file writes it: like [`format`](Self::format), with sizes as `64M`.
    pub fn format_for_file(&self, value: &Value) -> String {
        match (self, value) {
            (Kind::Size { .. }, Value::Number(number)) => short_size(*number),
            _ => self.format(value),
        }
    }

    /// What the kind accepts, in words, for help and the conf file.
    pub fn accepts(&self) -> String {
        match self {
            Kind::Integer { min, max } => format!("{min} to {max}"),
            Kind::Seconds { min, max } => format!("{min} to {max} seconds"),
            Kind::Milliseconds { min, max } => format!("{min} to {max} milliseconds"),
            Kind::Size { min, max } => format!("{} to {}", short_size(*min), short_size(*max)),
            Kind::Bool => "yes or no".into(),
            Kind::Choice(names) => canonical_names(names).join(", "),
            Kind::Text | Kind::Secret => "text, or empty".into(),
            Kind::Path { may_be_empty: true } => "a path, or empty".into(),
            Kind::Path { may_be_empty: false } => "a path".into(),
            Kind::Addresses => "IP addresses, or * for all".into(),
            Kind::Master => "HOST:PORT, or empty".into(),
            Kind::Events => "letters of KEAg$lshzxetdmn, or empty".into(),
            Kind::Percentiles => "percentages, or empty".into(),
            Kind::OutputLimits => "class hard soft seconds, for some of normal, slave and pubsub".into(),
            Kind::Fact => "fixed".into(),
        }
    }
}

fn within(number: i64, min: i64, max: i64, size: bool) -> Result<Value, ValueError> {
    if (min..=max).contains(&number) {
        Ok(Value::Number(number))
    } else {
        Err(ValueError::OutOfRange { min, max, size })
    }
}

/// Control characters would break the conf file's lines, outer spaces would not survive them.
fn one_line(text: &str) -> Result<Value, ValueError> {
    if text.contains(|c: char| c.is_control()) || text.trim() != text {
        return Err(ValueError::NotOneLine);
    }
    Ok(Value::Text(text.into()))
}

/// Bytes from `512`, `64K`, `64kb`, `1G`: K, M, G and T are powers of 1024, upper or lower case, a B may follow.
pub(super) fn parse_size(text: &str) -> Result<i64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return Err(ValueError::NotSize),
    };
    let number: i64 = number.parse().map_err(|_| ValueError::NotSize)?;
    number.checked_mul(1 << shift).ok_or(ValueError::NotSize)
}

/// The shortest exact form of a size: `100M`, `1536K`, `1000`.
fn short_size(bytes: i64) -> String {
    [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes % (1i64 << shift) == 0)
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    if text == "*" { Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) } else { text.parse().ok() }
}

/// Splits `host port`, `host:port` or `[v6]:port`.
pub(super) fn split_master(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.split_once(char::is_whitespace).or_else(|| text.rsplit_once(':'))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.trim().parse().ok().filter(|port| (1..=MAX_PORT).contains(&i64::from(*port)))?;
    let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    plain.then_some((host, port))
}

/// Percentages separated by spaces.
pub(super) fn parse_percentiles(text: &str) -> Option<Vec<f64>> {
    let percentile = |word: &str| word.parse().ok().filter(|number| (0.0..=100.0).contains(number));
    text.split_whitespace().map(percentile).collect()
}

fn canonical_names(names: &'static [(&'static str, i64)]) -> Vec<&'static str> {
    let is_first =
        |&(at, &(_, number)): &(usize, &(&str, i64))| names.iter().position(|(_, n)| *n == number) == Some(at);
    names.iter().enumerate().filter(is_first).map(|(_, (name, _))| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Kind = Kind::Size { min: 0, max: i64::MAX };

    fn text(kind: Kind, input: &str) -> Option<String> {
        kind.parse(input).ok().map(|value| kind.format(&value))
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (input, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("1k", 1024),
            ("64K", 65536),
            ("3MB", 3 << 20),
            ("20G", 20 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(SIZE.parse(input), Ok(Value::Number(bytes)), "{input}");
        }
        for input in ["", "K", "-1", "1.5G", "1 K", "1KK", "1X", "9223372036854775807K", "99999999999999999999"] {
            assert_eq!(SIZE.parse(input), Err(ValueError::NotSize), "{input}");
        }
    }

    #[test]
    fn sizes_in_a_file_read_back_the_same() {
        for bytes in [0, 1, 1000, 1024, 1536, 64 << 20, (1 << 30) + 1, 20 << 30, 3 << 40] {
            let value = Value::Number(bytes);
            assert_eq!(SIZE.parse(&SIZE.format_for_file(&value)), Ok(value));
        }
        assert_eq!(SIZE.format_for_file(&Value::Number(100 << 20)), "100M");
        assert_eq!(SIZE.format(&Value::Number(1024)), "1024");
    }

    #[test]
    fn numbers_keep_their_range() {
        let kind = Kind::Integer { min: -1, max: 10 };
        assert_eq!(kind.parse("-1"), Ok(Value::Number(-1)));
        assert_eq!(kind.parse("11"), Err(ValueError::OutOfRange { min: -1, max: 10, size: false }));
        assert_eq!(kind.parse("1k"), Err(ValueError::NotInteger));
        assert_eq!(kind.parse(""), Err(ValueError::NotInteger));
    }

    #[test]
    fn bools_and_choices_ignore_case() {
        assert_eq!(text(Kind::Bool, "YES").as_deref(), Some("yes"));
        assert_eq!(Kind::Bool.parse("1"), Err(ValueError::NotBool));
        let kind = Kind::Choice(&[("warn", 1), ("warning", 1), ("info", 2)]);
        assert_eq!(text(kind, "Warning").as_deref(), Some("warn"));
        let error = kind.parse("loud").unwrap_err();
        assert_eq!(error.to_string(), "is not one of warn, info");
        assert_eq!(error.redis_text(), "argument(s) must be one of the following: warn, info");
    }

    #[test]
    fn masters_take_both_forms() {
        assert_eq!(text(Kind::Master, "10.0.0.1:9221").as_deref(), Some("10.0.0.1 9221"));
        assert_eq!(text(Kind::Master, "hay.example  9221").as_deref(), Some("hay.example 9221"));
        assert_eq!(text(Kind::Master, "[::1]:9221").as_deref(), Some("::1 9221"));
        assert_eq!(text(Kind::Master, "NO ONE").as_deref(), Some(""));
        for input in ["localhost", ":9221", "host:0", "host:55535", "a b 1"] {
            assert_eq!(Kind::Master.parse(input), Err(ValueError::NotMaster), "{input}");
        }
    }

    #[test]
    fn addresses_are_a_list() {
        assert_eq!(text(Kind::Addresses, " 127.0.0.1   ::1 ").as_deref(), Some("127.0.0.1 ::1"));
        assert_eq!(text(Kind::Addresses, "*").as_deref(), Some("0.0.0.0"));
        assert_eq!(Kind::Addresses.parse(""), Err(ValueError::NotAddress));
        assert_eq!(Kind::Addresses.parse("localhost"), Err(ValueError::NotAddress));
    }

    #[test]
    fn percentiles_are_a_list() {
        assert_eq!(text(Kind::Percentiles, "0.0 50.0  99.9 100").as_deref(), Some("0 50 99.9 100"));
        assert_eq!(text(Kind::Percentiles, "").as_deref(), Some(""));
        for input in ["10.0 50.0 a", "10.0 50.0 101.0", "-1", "nan"] {
            assert_eq!(Kind::Percentiles.parse(input), Err(ValueError::NotPercentiles), "{input}");
        }
    }

    #[test]
    fn text_is_one_line() {
        assert_eq!(Kind::Text.parse("a\nport : 1"), Err(ValueError::NotOneLine));
        assert_eq!(Kind::Secret.parse(" x"), Err(ValueError::NotOneLine));
        assert_eq!(Kind::Path { may_be_empty: false }.parse(""), Err(ValueError::Empty));
    }
}
