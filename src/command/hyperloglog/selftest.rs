//! PFSELFTEST: the registers and the estimator checked against what is known.

use rand::RngExt;

use super::dense;
use super::sketch::{REGISTERS, Sketch};

/// Rounds of writing and reading all dense registers.
const ROUNDS: usize = 100;
/// Elements added to the sketches that are estimated.
const ELEMENTS: u64 = 1_000_000;
/// Standard error of an estimate: 1.04 / sqrt(registers).
const STANDARD_ERROR: f64 = 0.008_125;
/// The sketches are compared while the sparse one is sparse, and beyond.
const SPARSE_MAX_BYTES: usize = 3000;

/// What went wrong, if anything.
pub fn run() -> Result<(), String> {
    registers()?;
    estimates()
}

fn registers() -> Result<(), String> {
    let mut rng = rand::rng();
    for _ in 0..ROUNDS {
        let mut bytes = vec![0; dense::BYTES];
        let expected: Vec<u8> = (0..REGISTERS).map(|_| rng.random_range(0..64)).collect();
        for (register, &value) in expected.iter().enumerate() {
            dense::raise(&mut bytes, register, value);
        }
        for (register, &value) in expected.iter().enumerate() {
            let found = dense::get(&bytes, register);
            if found != value {
                return Err(format!("Register {register} should be {value} but is {found}"));
            }
        }
    }
    Ok(())
}

/// Adds distinct elements to a dense sketch and to one that begins sparse, and looks at both at every power of ten.
fn estimates() -> Result<(), String> {
    let seed: u64 = rand::rng().random();
    let mut sparse = Sketch::new();
    let mut dense = Sketch::new();
    dense.make_dense().map_err(|_| "An empty sketch is corrupt")?;
    sparse.mark_stale();
    dense.mark_stale();
    let mut checkpoint = 1;
    for i in 1..=ELEMENTS {
        let element = (seed ^ i).to_le_bytes();
        for sketch in [&mut sparse, &mut dense] {
            sketch.add(&element, SPARSE_MAX_BYTES).map_err(|_| format!("Corrupt after {i} elements"))?;
        }
        if i != checkpoint {
            continue;
        }
        checkpoint *= 10;
        let (a, b) = (sparse.cardinality(), dense.cardinality());
        if a != b {
            return Err(format!("Sparse and dense differ after {i} elements"));
        }
        let estimate = a.map_err(|_| format!("Corrupt after {i} elements"))?;
        // Few elements seldom meet in a register: there the bound is a count.
        let bound = (STANDARD_ERROR * 6.0 * i as f64).ceil() + 1.0;
        if estimate.abs_diff(i) as f64 > bound {
            return Err(format!("Too big an error: {estimate} estimated of {i}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes() {
        assert_eq!(super::run(), Ok(()));
    }
}
