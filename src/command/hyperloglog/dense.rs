//! The dense form: 16,384 registers of 6 bits, each from the lowest free bit of its byte upwards.

use super::estimate::Histogram;
use super::sketch::REGISTERS;

const BITS: usize = 6;
const MASK: u16 = (1 << BITS) - 1;
/// Bytes of all registers.
pub const BYTES: usize = REGISTERS * BITS / 8;

/// The value of a register below [`REGISTERS`]. `bytes` are [`BYTES`] long.
pub fn get(bytes: &[u8], register: usize) -> u8 {
    let (word, shift) = word(bytes, register);
    (word >> shift & MASK) as u8
}

/// Raises a register to `value` (at most 63) if it is lower; whether it was.
pub fn raise(bytes: &mut [u8], register: usize, value: u8) -> bool {
    let (mut word, shift) = word(bytes, register);
    if (word >> shift & MASK) as u8 >= value {
        return false;
    }
    word = word & !(MASK << shift) | u16::from(value) << shift;
    let at = register * BITS / 8;
    for (byte, new) in bytes.iter_mut().skip(at).zip(word.to_le_bytes()) {
        *byte = new;
    }
    true
}

/// The two bytes in which a register lies, and the register's lowest bit in them.
fn word(bytes: &[u8], register: usize) -> (u16, usize) {
    let (at, shift) = (register * BITS / 8, register * BITS % 8);
    // The last register ends with the last byte.
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    (u16::from_le_bytes([byte(at), byte(at + 1)]), shift)
}

/// All values in order.
pub fn values(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.as_chunks::<3>().0.iter().flat_map(|&[a, b, c]| {
        let word = u32::from_le_bytes([a, b, c, 0]);
        [0, 6, 12, 18].map(|shift| (word >> shift) as u8 & MASK as u8)
    })
}

/// How many registers hold each value.
pub fn histogram(bytes: &[u8]) -> Histogram {
    let mut histogram = [0; 64];
    values(bytes).for_each(|value| histogram[usize::from(value)] += 1);
    histogram
}
