//! Decimals as C reads and prints them, above all the extended-precision ones of INCRBYFLOAT.
//!
//! Redis computes in the C `long double` of x86 (64 bits of significand) and prints `%.17Lf` without trailing
//! zeros. Both are reproduced here bit for bit, on any processor.

use num_bigint::BigUint;
use rustc_apfloat::ieee::{Double, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert};

use super::CommandError;

/// Texts this long or longer are no numbers to Redis (a `long double` printed in full has up to 4,933 digits).
const MAX_TEXT: usize = 5 * 1024;
/// Digits printed after the point, before trailing zeros go.
const FRACTION_DIGITS: usize = 17;
const FRACTION_SCALE: u128 = 10u128.pow(FRACTION_DIGITS as u32);
/// Bits after the leading one in an x87 significand.
const FRACTION_BITS: i32 = 63;
const EXPONENT_BIAS: i32 = 16_383;

/// The decimal text of `stored + increment`.
///
/// # Errors
/// `ERR value is not a valid float` when either is no number, `ERR increment would produce NaN or Infinity`.
pub fn add(stored: &[u8], increment: &[u8]) -> Result<String, CommandError> {
    let stored = parse(stored).ok_or(CommandError::NotFloat)?;
    let increment = parse(increment).ok_or(CommandError::NotFloat)?;
    let sum = (stored + increment).value;
    if !sum.is_finite() {
        return Err(CommandError::Static("ERR increment would produce NaN or Infinity"));
    }
    Ok(print(sum))
}

/// Whether a number is finite.
///
/// # Errors
/// `ERR value is not a valid float`.
pub fn is_finite(text: &[u8]) -> Result<bool, CommandError> {
    parse(text).map(|number| number.is_finite()).ok_or(CommandError::NotFloat)
}

/// Reads what C's `strtold` reads, with nothing before or after it: decimal or hexadecimal, with or without an
/// exponent, or an infinity. NaN, and numbers too large or too small to be told from infinity or zero, are refused.
pub fn parse(text: &[u8]) -> Option<X87DoubleExtended> {
    if text.len() >= MAX_TEXT { None } else { parse_as(text) }
}

/// Reads a C `double` with [`parse`]'s rules, and of any length: scores, coordinates, distances.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let value: Double = parse_as(text)?;
    Some(f64::from_bits(value.to_bits() as u64))
}

fn parse_as<F: Float>(text: &[u8]) -> Option<F> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = if magnitude.eq_ignore_ascii_case("inf") || magnitude.eq_ignore_ascii_case("infinity") {
        F::INFINITY
    } else {
        finite(magnitude)?
    };
    Some(if negative { -value } else { value })
}

/// Reads an unsigned number. The grammar is checked here: the float library's own differs from C's.
fn finite<F: Float>(text: &str) -> Option<F> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, exponent) = match hexadecimal {
        Some(text) => split_exponent(text, ['p', 'P']),
        None => split_exponent(text, ['e', 'E']),
    };
    let hexadecimal = hexadecimal.is_some();
    let is_digit = |c: char| if hexadecimal { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || !whole.chars().chain(fraction.chars()).all(is_digit) {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !exponent.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    }
    if !digits.contains(|c: char| c != '0' && c != '.') {
        return Some(F::ZERO);
    }
    let value: F = match exponent {
        None if hexadecimal => format!("{text}p0").parse().ok()?,
        _ => text.parse().ok()?,
    };
    (value.is_finite() && !value.is_zero()).then_some(value)
}

fn split_exponent(text: &str, mark: [char; 2]) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((digits, exponent)) => (digits, Some(exponent)),
        None => (text, None),
    }
}

/// Prints a finite number with up to 17 decimals, rounded half to even, and no trailing zeros; never `-0`.
pub fn print(value: X87DoubleExtended) -> String {
    let bits = value.to_bits();
    let significand = bits as u64;
    // A zero exponent marks the subnormals, which share the exponent of the smallest normal numbers.
    let biased = ((bits >> 64) as i32 & 0x7fff).max(1);
    let exponent = biased - EXPONENT_BIAS - FRACTION_BITS;
    let digits = if exponent >= 0 {
        (BigUint::from(significand) << exponent.unsigned_abs()).to_string()
    } else {
        fixed(u128::from(significand), exponent.unsigned_abs())
    };
    if value.is_negative() && digits != "0" { format!("-{digits}") } else { digits }
}

/// [`print`] for a finite `double`.
pub fn print_f64(value: f64) -> String {
    print(Double::from_bits(value.to_bits().into()).convert(&mut false).value)
}

/// `significand / 2^shift` with 17 decimals, without trailing zeros.
fn fixed(significand: u128, shift: u32) -> String {
    // 64 bits of significand and 57 of scale fit.
    let scaled = significand * FRACTION_SCALE;
    let quotient = scaled.checked_shr(shift).unwrap_or(0);
    let rounded = match shift {
        128.. => 0, // less than half of the last decimal: `scaled` has at most 121 bits
        _ => {
            let remainder = scaled & ((1 << shift) - 1);
            let half = 1u128 << (shift - 1);
            let up = remainder > half || (remainder == half && quotient & 1 == 1);
            quotient + u128::from(up)
        }
    };
    let (whole, fraction) = (rounded / FRACTION_SCALE, rounded % FRACTION_SCALE);
    let mut text = format!("{whole}.{fraction:0FRACTION_DIGITS$}");
    let kept = text.trim_end_matches('0').trim_end_matches('.').len();
    text.truncate(kept);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis 7.0 on x86-64 answers to `SET k STORED`, `INCRBYFLOAT k INCREMENT`.
    #[test]
    fn sums_are_those_of_a_long_double() {
        for (stored, increment, expected) in [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "-0", "0"),
            ("-0", "0", "0"),
            ("1", "-1", "0"),
            ("0", "-1e-20", "0"),
            ("0.1", "0.2", "0.3"),
            ("1", "1e-20", "1"),
            ("0x10", "0", "16"),
            ("0x.8", "0", "0.5"),
            ("0X1P-3", "1", "1.125"),
            (".5", "1", "1.5"),
            ("5.", "1", "6"),
            ("+5", "1", "6"),
            ("1e400", "0", &long_1e400()),
            ("123456789012345678901234567890", "0", "123456789012345678899921813504"),
            ("9223372036854775807", "0", "9223372036854775807"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("17179869184", "1.5", "17179869185.5"),
            ("0", "1e-17", "0.00000000000000001"),
            ("0", "3e-4951", "0"),
        ] {
            assert_eq!(add(stored.as_bytes(), increment.as_bytes()).unwrap(), expected, "{stored} + {increment}");
        }
    }

    fn long_1e400() -> String {
        concat!(
            "10000000000000000000281880683947586514586453433629052038625910693539685534008629862039363994848324160",
            "52209405392731761620029582277725925573402382897659334066101779744743454617391786244811667497172377894",
            "38243915933380474706750262466844013592375136038303437354855052449559649790218250382800910684149474024",
            "56898653040951017512658092615827588920183472511643316591362664138176309734806343732497430221946880",
        )
        .to_owned()
    }

    #[test]
    fn what_is_no_number() {
        for bad in [
            "", " 1", "1 ", "1\n", "1\0", "nan", "-nan", "nan(1)", "--5", "+-5", "0x", "0x.", "0x1p", "1e", "1e+",
            "1e5.5", ".", "-", ".e1", "e1", "1_0", "1e5000", "1e-5000", "1.2.3", "0x1.8.8", "0xg", "infinit", "inf1",
            "\u{661}",
        ] {
            assert!(matches!(add(b"0", bad.as_bytes()), Err(CommandError::NotFloat)), "{bad:?}");
        }
        let long = "0".repeat(MAX_TEXT);
        assert!(parse(long.as_bytes()).is_none());
        assert!(parse(&long.as_bytes()[1..]).is_some());
    }

    #[test]
    fn doubles() {
        for (text, value) in [
            ("1.5", 1.5),
            ("-0x1p-2", -0.25),
            ("inf", f64::INFINITY),
            ("0.1", 0.1),
            ("4.9e-324", 5e-324),
            ("1.7976931348623157e308", f64::MAX),
            ("0e9999", 0.0),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), Some(value), "{text}");
        }
        for bad in ["1e309", "-1e309", "1e-400", "nan", "", " 1", "1 "] {
            assert_eq!(parse_f64(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(print_f64(13.361389338970184), "13.36138933897018433");
        assert_eq!(print_f64(-180.0), "-180");
        assert_eq!(print_f64(-0.0), "0");
    }

    #[test]
    fn sums_stay_finite() {
        for (stored, increment) in [("1", "inf"), ("-INFINITY", "1"), ("inf", "-inf"), ("1e4932", "1.1e4932")] {
            assert_eq!(
                add(stored.as_bytes(), increment.as_bytes()).unwrap_err().to_string(),
                "ERR increment would produce NaN or Infinity",
            );
        }
    }

    #[test]
    fn decimals_round_half_to_even() {
        // 2^-18 ends in ...5 at the 18th decimal: a tie.
        assert_eq!(print(parse(b"0x1p-18").unwrap()), "0.00000381469726562");
        assert_eq!(print(parse(b"0x3p-18").unwrap()), "0.00001144409179688");
    }
}
