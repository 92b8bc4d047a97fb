//! The generator behind `math.random`: the 48-bit linear congruential generator of `lrand48`, as Redis uses, so that a
//! seed gives the same numbers as there on every machine.

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
/// Low bits of the state after seeding.
const SEED_LOW: u64 = 0x330E;
/// Numbers are below this.
const RANGE: f64 = 2_147_483_647.0;

/// The state of a generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub fn seeded(seed: i32) -> Self {
        Random((u64::from(seed as u32) << 16) | SEED_LOW)
    }

    /// The next number in `0.0 .. 1.0`.
    pub fn next(&mut self) -> f64 {
        self.0 = (self.0.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT)) & MASK;
        let bits = (self.0 >> 17) as f64;
        (if bits >= RANGE { 0.0 } else { bits }) / RANGE
    }
}
