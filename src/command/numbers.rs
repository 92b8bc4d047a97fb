//! Integers as Redis reads them from arguments and stored values.

use super::CommandError;

/// Longest text of an `i64`: a sign and 19 digits.
const MAX_DIGITS: usize = 20;

/// Reads a canonical decimal `i64`: an optional `-`, no leading zeros, no `+`, no spaces, no `-0`.
///
/// A value read this way prints back to the same bytes.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    if text.len() > MAX_DIGITS {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    digits.iter().try_fold(0i64, |value, &byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(byte - b'0');
        let value = value.checked_mul(10)?;
        if negative { value.checked_sub(digit) } else { value.checked_add(digit) }
    })
}

/// An integer argument, or stored value, of a command.
///
/// # Errors
/// `ERR value is not an integer or out of range`.
pub fn integer(text: &[u8]) -> Result<i64, CommandError> {
    parse_i64(text).ok_or(CommandError::NotInteger)
}

/// An integer argument that must fit an `i32`, such as a database number.
///
/// # Errors
/// As [`integer`], or the range that Redis prints when the number is too large for it.
pub fn integer_32(text: &[u8]) -> Result<i32, CommandError> {
    i32::try_from(integer(text)?).map_err(|_| {
        CommandError::Text(format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_integers_only() {
        for good in ["0", "7", "-7", "10", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(parse_i64(good.as_bytes()).map(|n| n.to_string()).as_deref(), Some(good));
        }
        for bad in [
            "",
            "-",
            "+1",
            " 1",
            "1 ",
            "01",
            "-01",
            "-0",
            "00",
            "1.0",
            "1e3",
            "0x1",
            "a",
            "1\0",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "111111111111111111111",
        ] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_32_bit_argument_names_its_range() {
        assert!(matches!(integer_32(b"-2147483648"), Ok(i32::MIN)));
        assert!(matches!(integer_32(b"x"), Err(CommandError::NotInteger)));
        assert_eq!(
            integer_32(b"2147483648").unwrap_err().to_string(),
            "ERR value is out of range, value must between -2147483648 and 2147483647"
        );
    }
}
