//! Scores as text, as they stand in listpacks and ziplists.

/// Digits that tell every two doubles apart.
const DIGITS: i32 = 17;
/// Scores up to this magnitude that are whole are printed as integers, as in Redis 7.0.
const MAX_WHOLE: f64 = (i64::MAX / 2) as f64;

/// The text of a score, as Redis 7.0 prints it: whole numbers as such, others as C's `%.17g`. Minus zero is zero.
pub fn print(score: f64) -> String {
    if score.trunc() == score && score.abs() <= MAX_WHOLE {
        return (score as i64).to_string();
    }
    general(score)
}

/// C's `%.17g`; infinities are `inf` and `-inf`, and what is no number `nan`.
pub fn general(score: f64) -> String {
    if !score.is_finite() {
        return if score.is_nan() { "nan".into() } else { score.to_string() };
    }
    let scientific = format!("{score:.*e}", DIGITS as usize - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..DIGITS).contains(&exponent) {
        return trimmed(&format!("{score:.*}", (DIGITS - 1 - exponent) as usize)).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.unsigned_abs())
}

fn trimmed(decimals: &str) -> &str {
    match decimals.contains('.') {
        true => decimals.trim_end_matches('0').trim_end_matches('.'),
        false => decimals,
    }
}

/// The score in a text; NaN is none.
pub fn parse(text: &[u8]) -> Option<f64> {
    let score: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!score.is_nan()).then_some(score)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_score_survives(score: f64) {
            if !score.is_nan() {
                let text = print(score);
                prop_assert_eq!(parse(text.as_bytes()), Some(score), "{}", text);
            }
        }
    }

    #[test]
    fn texts_are_those_of_redis() {
        for (score, text) in [
            (0.1, "0.10000000000000001"),
            (3.5, "3.5"),
            (-1e10, "-10000000000"),
            (1e18, "1000000000000000000"),
            (1e20, "1e+20"),
            (1.5e300, "1.5000000000000001e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (-0.0, "0"),
        ] {
            assert_eq!(print(score), text);
        }
        assert_eq!(parse(b"nan"), None);
        assert_eq!(parse(b"1x"), None);
    }
}
