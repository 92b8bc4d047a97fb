//! A HyperLogLog as the bytes of a string.
//!
//! ```text
//! 0   4   "HYLL"
//! 4   1   encoding: 0 dense, 1 sparse
//! 5   3   unused, zero
//! 8   8   cardinality, little-endian; its highest bit says that it is stale
//! 16      registers, see `dense` and `sparse`
//! ```
//!
//! The format is that of Redis 7.0, `hyperloglog.c`.

use bytes::Bytes;

use super::estimate::{self, Histogram};
use super::sparse::Raised;
use super::{dense, hash, sparse};

/// Bits of an element's hash that choose its register.
pub const REGISTER_BITS: u32 = 14;
/// Number of registers.
pub const REGISTERS: usize = 1 << REGISTER_BITS;

const MAGIC: &[u8] = b"HYLL";
const HEADER: usize = 16;
const ENCODING: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const CARDINALITY: std::ops::Range<usize> = 8..16;
const STALE: u64 = 1 << 63;

/// Why bytes cannot be used as a HyperLogLog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SketchError {
    /// They are none.
    NoSketch,
    /// They are, but the registers make no sense.
    Corrupt,
}

/// See the module. The header is sound, and a dense one has its full length.
#[derive(Clone, Debug)]
pub struct Sketch {
    bytes: Vec<u8>,
}

impl Sketch {
    /// An empty one, sparse, with its cardinality stored.
    pub fn new() -> Sketch {
        let mut bytes = vec![0; HEADER];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[ENCODING] = SPARSE;
        bytes.extend(sparse::zeros());
        Sketch { bytes }
    }

    /// Checks the header; of a sparse one's registers nothing is known then.
    ///
    /// # Errors
    /// [`SketchError::NoSketch`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Sketch, SketchError> {
        let sound = bytes.len() >= HEADER
            && bytes.starts_with(MAGIC)
            && match bytes[ENCODING] {
                DENSE => bytes.len() == HEADER + dense::BYTES,
                encoding => encoding == SPARSE,
            };
        if sound { Ok(Sketch { bytes: bytes.to_vec() }) } else { Err(SketchError::NoSketch) }
    }

    /// The string to store.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Whether it is in the dense form.
    pub fn is_dense(&self) -> bool {
        self.bytes[ENCODING] == DENSE
    }

    fn registers(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// Adds an element; whether that changed a register. Becomes dense beyond `sparse_max` bytes in all.
    ///
    /// # Errors
    /// [`SketchError::Corrupt`]
    pub fn add(&mut self, element: &[u8], sparse_max: usize) -> Result<bool, SketchError> {
        let (register, value) = hash::place(element);
        self.raise(register, value, sparse_max)
    }

    fn raise(&mut self, register: usize, value: u8, sparse_max: usize) -> Result<bool, SketchError> {
        if !self.is_dense() {
            let mut opcodes = self.bytes.split_off(HEADER);
            let raised = sparse::raise(&mut opcodes, register, value, sparse_max.saturating_sub(HEADER));
            self.bytes.append(&mut opcodes);
            match raised? {
                Raised::No => return Ok(false),
                Raised::Yes => return Ok(true),
                Raised::TooBig => self.make_dense()?,
            }
        }
        Ok(dense::raise(&mut self.bytes[HEADER..], register, value))
    }

    /// Raises every register to at least its value in `to`.
    ///
    /// # Errors
    /// [`SketchError::Corrupt`]
    pub fn raise_to(&mut self, to: &Registers, sparse_max: usize) -> Result<(), SketchError> {
        for (register, value) in to.iter().enumerate().filter(|(_, value)| *value != 0) {
            self.raise(register, value, sparse_max)?;
        }
        Ok(())
    }

    /// Takes the dense form, if it has it not already.
    ///
    /// # Errors
    /// [`SketchError::Corrupt`]
    pub fn make_dense(&mut self) -> Result<(), SketchError> {
        if self.is_dense() {
            return Ok(());
        }
        let mut bytes = vec![0; HEADER + dense::BYTES];
        let registers = &mut bytes[HEADER..];
        sparse::for_each_run(self.registers(), |first, run| {
            if run.value != 0 {
                (first..first + run.registers).for_each(|register| _ = dense::raise(registers, register, run.value));
            }
        })?;
        bytes[..HEADER].copy_from_slice(&self.bytes[..HEADER]);
        bytes[ENCODING] = DENSE;
        self.bytes = bytes;
        Ok(())
    }

    /// Raises `union` to the values of this one.
    ///
    /// # Errors
    /// [`SketchError::Corrupt`]
    pub fn merge_into(&self, union: &mut Registers) -> Result<(), SketchError> {
        if self.is_dense() {
            for (own, union) in dense::values(self.registers()).zip(&mut union.0) {
                *union = own.max(*union);
            }
            return Ok(());
        }
        sparse::for_each_run(self.registers(), |first, run| {
            for union in union.0.iter_mut().skip(first).take(run.registers) {
                *union = run.value.max(*union);
            }
        })
    }

    /// The estimate that is stored, or else a new one. Registers that make no sense are found in either case.
    ///
    /// # Errors
    /// [`SketchError::Corrupt`]
    pub fn cardinality(&self) -> Result<u64, SketchError> {
        if self.stored() & STALE != 0 {
            return self.estimate();
        }
        if !self.is_dense() {
            sparse::for_each_run(self.registers(), |_, _| ())?;
        }
        Ok(self.stored())
    }

    fn estimate(&self) -> Result<u64, SketchError> {
        if self.is_dense() {
            return Ok(estimate::cardinality(&dense::histogram(self.registers())));
        }
        let mut histogram: Histogram = [0; 64];
        sparse::for_each_run(self.registers(), |_, run| histogram[usize::from(run.value)] += run.registers as u32)?;
        Ok(estimate::cardinality(&histogram))
    }

    fn stored(&self) -> u64 {
        self.bytes[CARDINALITY].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    fn store(&mut self, cardinality: u64) {
        self.bytes[CARDINALITY].copy_from_slice(&cardinality.to_le_bytes());
    }

    /// Estimates the cardinality and stores it.
    ///
    /// # Errors
    /// [`SketchError::Corrupt`]
    pub fn store_cardinality(&mut self) -> Result<(), SketchError> {
        let cardinality = self.estimate()?;
        self.store(cardinality);
        Ok(())
    }

    /// Says that the stored cardinality is no longer right.
    pub fn mark_stale(&mut self) {
        self.store(self.stored() | STALE);
    }

    /// The opcodes of a sparse one, as PFDEBUG DECODE prints them.
    pub fn describe(&self) -> Option<String> {
        let opcodes = || sparse::opcodes(self.registers()).map(sparse::Run::describe);
        (!self.is_dense()).then(|| opcodes().collect::<Vec<_>>().join(" "))
    }
}

/// All registers, a byte each.
pub struct Registers([u8; REGISTERS]);

impl Default for Registers {
    fn default() -> Self {
        Registers([0; REGISTERS])
    }
}

impl Registers {
    /// The values in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied()
    }

    /// The estimate for them.
    pub fn cardinality(&self) -> u64 {
        let mut histogram: Histogram = [0; 64];
        // A value has six bits.
        self.iter().for_each(|value| histogram[usize::from(value & 63)] += 1);
        estimate::cardinality(&histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPARSE_MAX: usize = 3000;

    #[test]
    fn both_forms_agree() {
        let mut sparse = Sketch::new();
        let mut dense = Sketch::new();
        dense.make_dense().unwrap();
        assert_eq!(dense.bytes.len(), 12_304);
        for i in 0..5000u32 {
            let element = i.to_string();
            let changed = sparse.add(element.as_bytes(), SPARSE_MAX).unwrap();
            assert_eq!(dense.add(element.as_bytes(), SPARSE_MAX).unwrap(), changed);
            assert!(!sparse.add(element.as_bytes(), SPARSE_MAX).unwrap());
            if i % 100 == 0 {
                assert_eq!(sparse.estimate(), dense.estimate());
                let (mut a, mut b) = (Registers::default(), Registers::default());
                sparse.merge_into(&mut a).unwrap();
                dense.merge_into(&mut b).unwrap();
                assert!(a.0 == b.0);
                assert_eq!(Ok(a.cardinality()), dense.estimate());
            }
        }
        assert!(sparse.is_dense(), "5,000 elements do not fit 3,000 bytes");
        assert_eq!(sparse.bytes, dense.bytes);
    }

    #[test]
    fn the_stored_cardinality() {
        let mut sketch = Sketch::new();
        assert_eq!(sketch.cardinality(), Ok(0));
        sketch.add(b"a", SPARSE_MAX).unwrap();
        assert_eq!(sketch.cardinality(), Ok(0), "stored, though stale");
        sketch.mark_stale();
        assert_eq!(sketch.cardinality(), Ok(1));
        assert_eq!(sketch.bytes[15], 0x80);
        sketch.store_cardinality().unwrap();
        assert_eq!(sketch.bytes[8..16], 1u64.to_le_bytes());
    }

    #[test]
    fn what_is_no_sketch() {
        let good = Sketch::new().bytes;
        for (at, byte) in [(0, b'h'), (4, 2), (4, DENSE)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Sketch::from_bytes(&bad).err(), Some(SketchError::NoSketch));
        }
        assert_eq!(Sketch::from_bytes(&good[..15]).err(), Some(SketchError::NoSketch));
        let header_alone = Sketch::from_bytes(&good[..16]).unwrap();
        assert_eq!(header_alone.cardinality(), Err(SketchError::Corrupt));
    }
}
