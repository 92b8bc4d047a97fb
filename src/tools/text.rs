//! How bytes, times and numbers are written and read: as redis-cli and ISO 8601 do.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Numbers up to here are seconds, larger ones milliseconds (in seconds it is the year 5138).
const MAX_SECONDS: i64 = 100_000_000_000;

/// Bytes as an argument in redis-cli: bare where nothing needs quotes, otherwise in double quotes with `\n`, `\xff` and so on.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\');
        if !self.0.is_empty() && self.0.iter().all(is_plain) {
            return f.write_str(&String::from_utf8_lossy(self.0));
        }
        f.write_str("\"")?;
        for &byte in self.0 {
            match byte {
                b'"' => f.write_str("\\\"")?,
                b'\\' => f.write_str("\\\\")?,
                b'\n' => f.write_str("\\n")?,
                b'\r' => f.write_str("\\r")?,
                b'\t' => f.write_str("\\t")?,
                0x07 => f.write_str("\\a")?,
                0x08 => f.write_str("\\b")?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("\"")
    }
}

/// [`Quoted`], cut after some bytes when it is longer.
pub struct Shortened<'a> {
    pub bytes: &'a [u8],
    pub max: usize,
}

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes.split_at_checked(self.max) {
            Some((shown, rest)) if !rest.is_empty() => write!(f, "{}…(+{} bytes)", Quoted(shown), rest.len()),
            _ => Quoted(self.bytes).fmt(f),
        }
    }
}

/// Undoes [`Quoted`] for text in double quotes; `None` for other text.
pub fn unquote(text: &str) -> Option<Vec<u8>> {
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let (&escaped, after) = rest.split_first()?;
        rest = after;
        out.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 0x07,
            b'b' => 0x08,
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    Some(out)
}

/// Bytes in JSON: a string where they are UTF-8, otherwise `{"hex": "00ff"}`.
pub fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() }),
    }
}

/// Unix ms as ISO 8601 in UTC; `@ms` for what no calendar has.
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
            Some(time) => write!(f, "{time:.3}"),
            None => write!(f, "@{}", self.0),
        }
    }
}

/// Reads a time: ISO 8601 (UTC where it names no zone; date alone, or with hours, minutes …), or unix time in seconds or
/// milliseconds. Unix ms.
pub fn parse_time(text: &str) -> Result<u64, String> {
    let refused = || {
        format!(
            "'{text}' is no time: write 2026-01-31T23:59:59.123Z, '2026-01-31 23:59', 2026-01-31 or unix time in s or ms"
        )
    };
    if let Ok(number) = text.parse::<i64>() {
        let ms = if number < MAX_SECONDS { number.checked_mul(1000) } else { Some(number) };
        return ms.and_then(|ms| u64::try_from(ms).ok()).ok_or_else(refused);
    }
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    });
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).ok_or_else(refused)
}

/// `s` where there is not exactly one.
pub fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_quoted_can_be_read_back(bytes: Vec<u8>) {
            let shown = Quoted(&bytes).to_string();
            let read = unquote(&shown).unwrap_or_else(|| shown.clone().into_bytes());
            prop_assert_eq!(read, bytes);
            prop_assert!(shown.bytes().all(|b| (b' '..=b'~').contains(&b)));
        }
    }

    #[test]
    fn quoted_only_where_needed() {
        let shown = |bytes: &[u8]| Quoted(bytes).to_string();
        assert_eq!(shown(b"user:{1}*"), "user:{1}*");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(b"a b\xff\0\n\"\\"), "\"a b\\xff\\x00\\n\\\"\\\\\"");
        assert_eq!(Shortened { bytes: b"abcdef", max: 4 }.to_string(), "abcd…(+2 bytes)");
        assert_eq!(Shortened { bytes: b"abcd", max: 4 }.to_string(), "abcd");
        assert_eq!(json_bytes(b"\xff\x01").to_string(), r#"{"hex":"ff01"}"#);
    }

    #[test]
    fn times() {
        let ms = 1_769_903_999_123;
        assert_eq!(Time(ms).to_string(), "2026-01-31T23:59:59.123Z");
        assert_eq!(Time(u64::MAX).to_string(), format!("@{}", u64::MAX));
        for (text, expected) in [
            ("2026-01-31T23:59:59.123Z", ms),
            ("2026-01-31 23:59:59.123", ms),
            ("2026-02-01T01:59:59.123+02:00", ms),
            ("1769903999123", ms),
            ("1769903999", ms - 123),
            ("2026-01-31T23:59", ms - 59_123),
            ("2026-02-01", ms + 877),
            ("1970-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(parse_time(text), Ok(expected), "{text}");
        }
        for text in ["", "yesterday", "-5", "2026-13-01", "1969-01-01", "12:30"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
