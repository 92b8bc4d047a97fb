//! From register values to a cardinality: the estimator of Otmar Ertl, "New cardinality estimation algorithms for
//! HyperLogLog sketches" (arXiv:1702.01284), algorithm 6, as Redis has it since 5.0.

use super::sketch::{REGISTER_BITS, REGISTERS};

/// How many registers hold each value.
pub type Histogram = [u32; 64];

/// Longest pattern that is not cut off: a register holds up to one more.
const Q: usize = 64 - REGISTER_BITS as usize;
/// 1 / (2 ln 2)
const ALPHA_INF: f64 = 0.721_347_520_444_481_7;

/// The estimate. The order of the operations is Redis's, so the rounding is too.
pub fn cardinality(histogram: &Histogram) -> u64 {
    let m = REGISTERS as f64;
    let share = |count: u32| f64::from(count) / m;
    let saturated = histogram.get(Q + 1).copied().unwrap_or(0);
    let mut z = m * tau((m - f64::from(saturated)) / m);
    for &count in histogram[1..=Q].iter().rev() {
        z += f64::from(count);
        z *= 0.5;
    }
    z += m * sigma(share(histogram[0]));
    (ALPHA_INF * m * m / z).round() as u64
}

/// The correction for registers at their highest value.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let mut y = 1.0;
    let mut z = 1.0 - x;
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// The correction for registers at zero.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let mut y = 1.0;
    let mut z = x;
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}
