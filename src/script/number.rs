//! Numbers between Lua, C's notations and text.

use mlua::Value;

/// Digits that Lua prints of a number (`%.14g`).
pub(super) const LUA_DIGITS: usize = 14;
/// Digits that identify a double (`%.17g`); Redis passes numbers to commands this way.
pub(super) const EXACT_DIGITS: usize = 17;

/// The number that `value` is or reads as.
pub(super) fn from_value(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => from_text(&text.as_bytes()),
        _ => None,
    }
}

/// The text of a string or a number.
pub(super) fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(format_g(*number as f64, LUA_DIGITS).into_bytes()),
        Value::Number(number) => Some(format_g(*number, LUA_DIGITS).into_bytes()),
        _ => None,
    }
}

/// The C cast of a double to a 64-bit integer on x86: what does not fit becomes the least integer.
pub(super) fn to_i64(number: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) { number as i64 } else { i64::MIN }
}

/// C's `%.<digits>g`.
pub(super) fn format_g(number: f64, digits: usize) -> String {
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.into();
    }
    if number.is_infinite() {
        return if number < 0.0 { "-inf" } else { "inf" }.into();
    }
    if number == number.trunc() && number.abs() < 1e13 && (number != 0.0 || number.is_sign_positive()) && digits >= 14 {
        return itoa::Buffer::new().format(number as i64).into();
    }
    let digits = digits.max(1);
    let scientific = format!("{:.*e}", digits - 1, number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    without_zeros(&format!("{number:.decimals$}")).into()
}

/// Takes the zeros at the end of a fraction, and a bare point, away.
fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Reads a whole text as Lua's `tonumber` does: C's `strtod`, spaces around it.
pub(super) fn from_text(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let (number, length) = strtod(text)?;
    (length == text.len()).then_some(number)
}

/// Reads the number at the start of `text` as C's `strtod` does, and how many bytes it takes.
pub(super) fn strtod(text: &[u8]) -> Option<(f64, usize)> {
    let (negative, start) = match text.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    let rest = text.get(start..)?;
    let (magnitude, length) = if begins(rest, b"infinity") {
        (f64::INFINITY, 8)
    } else if begins(rest, b"inf") {
        (f64::INFINITY, 3)
    } else if begins(rest, b"nan") {
        (f64::NAN, 3)
    } else if begins(rest, b"0x") && rest.get(2).is_some_and(|b| b.is_ascii_hexdigit() || *b == b'.') {
        hexadecimal(rest).unwrap_or((0.0, 1))
    } else {
        decimal(rest)?
    };
    Some((if negative { -magnitude } else { magnitude }, start + length))
}

fn begins(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}

fn digits(text: &[u8], from: usize) -> usize {
    text.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count()
}

fn decimal(text: &[u8]) -> Option<(f64, usize)> {
    let whole = digits(text, 0);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(text, length + 1);
        if whole + fraction == 0 {
            return None;
        }
        length += 1 + fraction;
    } else if whole == 0 {
        return None;
    }
    if let Some(b'e' | b'E') = text.get(length) {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(text, length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    text.parse().ok().map(|number| (number, length))
}

/// `0x` hexadecimal digits with an optional fraction and binary exponent.
fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let hex = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let (mut value, mut scale, mut at, mut any) = (0.0f64, 0i32, 2, false);
    while let Some(digit) = hex(at) {
        value = value * 16.0 + f64::from(digit);
        (at, any) = (at + 1, true);
    }
    if text.get(at) == Some(&b'.') {
        let mut after = at + 1;
        while let Some(digit) = hex(after) {
            value = value * 16.0 + f64::from(digit);
            scale -= 4;
            (after, any) = (after + 1, true);
        }
        at = after;
    }
    if !any {
        return None;
    }
    if let Some(b'p' | b'P') = text.get(at) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let count = digits(text, at + 1 + sign);
        if count > 0 {
            let end = at + 1 + sign + count;
            let exponent = std::str::from_utf8(text.get(at + 1..end)?).ok()?;
            let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().unwrap_or(0);
            scale = scale.saturating_add(exponent.clamp(-5000, 5000) as i32);
            at = end;
        }
    }
    Some((value * 2f64.powi(scale), at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_c_does() {
        for (number, digits, text) in [
            (0.1, 14, "0.1"),
            (0.1, 17, "0.10000000000000001"),
            (1e100, 14, "1e+100"),
            (1e14, 14, "1e+14"),
            (99999999999999.0, 14, "99999999999999"),
            (9007199254740991.0, 17, "9007199254740991"),
            (1e17, 17, "1e+17"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (-2.5, 14, "-2.5"),
            (-0.0, 14, "-0"),
            (0.0, 14, "0"),
            (2.34567, 3, "2.35"),
            (1234.0, 2, "1.2e+03"),
            (9.99, 1, "1e+01"),
            (f64::INFINITY, 14, "inf"),
        ] {
            assert_eq!(format_g(number, digits), text);
        }
    }

    #[test]
    fn reads_as_c_does() {
        for (text, number, length) in [
            ("1", 1.0, 1),
            ("-1.5e3x", -1500.0, 6),
            (".5", 0.5, 2),
            ("5.", 5.0, 2),
            ("1e", 1.0, 1),
            ("0x10", 16.0, 4),
            ("0x.8p1", 1.0, 6),
            ("-inf", f64::NEG_INFINITY, 4),
            ("0xg", 0.0, 1),
        ] {
            assert_eq!(strtod(text.as_bytes()), Some((number, length)), "{text}");
        }
        for text in ["", "-", ".", "e5", "x"] {
            assert_eq!(strtod(text.as_bytes()), None, "{text}");
        }
        assert_eq!(from_text(b" 10 "), Some(10.0));
        assert_eq!(from_text(b"10x"), None);
    }

    #[test]
    fn casts_as_c_does() {
        assert_eq!(to_i64(-1.9), -1);
        assert_eq!(to_i64(1e300), i64::MIN);
        assert_eq!(to_i64(f64::NAN), i64::MIN);
    }
}
