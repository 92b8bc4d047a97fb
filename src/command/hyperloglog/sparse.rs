//! The sparse form: runs of registers, in order.
//!
//! ```text
//! 00nnnnnn            ZERO   n+1 registers (1 to 64) at 0
//! 01nnnnnn nnnnnnnn   XZERO  n+1 registers (1 to 16,384) at 0
//! 1vvvvvnn            VAL    n+1 registers (1 to 4) at v+1 (1 to 32)
//! ```
//!
//! One set of values has many spellings. Ours is that of Redis after the same additions, so an opcode is split and
//! its neighbours are joined in the same way.

use super::sketch::{REGISTERS, SketchError};

/// The longest run that ZERO can say.
const MAX_ZERO: usize = 64;
/// The longest run that VAL can say.
const MAX_VALUE_RUN: usize = 4;
/// The highest value that VAL can say.
const MAX_VALUE: u8 = 32;
/// Opcodes, from the one before a change on, that are looked at for VALs to join.
const JOIN_SCAN: usize = 5;

/// One opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Value of the registers.
    pub value: u8,
    /// Number of registers.
    pub registers: usize,
    /// Bytes of the opcode.
    bytes: usize,
}

impl Run {
    /// The opcode that `bytes` begin with; `None` if they do not hold all of it.
    fn first(bytes: &[u8]) -> Option<Run> {
        match *bytes {
            [zero @ 0..0x40, ..] => Some(Run { value: 0, registers: usize::from(zero) + 1, bytes: 1 }),
            [high @ 0x40..0x80, low, ..] => {
                let registers = usize::from(u16::from_be_bytes([high & 0x3f, low])) + 1;
                Some(Run { value: 0, registers, bytes: 2 })
            }
            [value @ 0x80..=0xff, ..] => {
                Some(Run { value: (value >> 2 & 0x1f) + 1, registers: usize::from(value & 3) + 1, bytes: 1 })
            }
            _ => None,
        }
    }

    fn is_value(self) -> bool {
        self.value != 0
    }

    /// How PFDEBUG DECODE writes it.
    pub fn describe(self) -> String {
        match (self.value, self.bytes) {
            (0, 1) => format!("z:{}", self.registers),
            (0, _) => format!("Z:{}", self.registers),
            (value, _) => format!("v:{value},{}", self.registers),
        }
    }
}

/// All registers at 0.
pub fn zeros() -> Vec<u8> {
    let mut bytes = Vec::new();
    put_zeros(&mut bytes, REGISTERS);
    bytes
}

fn put_zeros(out: &mut Vec<u8>, registers: usize) {
    let coded = registers.saturating_sub(1) as u16;
    match registers {
        0 => {}
        1..=MAX_ZERO => out.push(coded as u8),
        _ => out.extend_from_slice(&(coded | 0x4000).to_be_bytes()),
    }
}

fn value_opcode(value: u8, registers: usize) -> u8 {
    0x80 | (value - 1) << 2 | (registers as u8 - 1)
}

fn put_value(out: &mut Vec<u8>, value: u8, registers: usize) {
    if registers > 0 {
        out.push(value_opcode(value, registers));
    }
}

/// The opcodes, up to the end or one that is cut off.
pub fn opcodes(mut bytes: &[u8]) -> impl Iterator<Item = Run> {
    std::iter::from_fn(move || {
        let run = Run::first(bytes)?;
        bytes = bytes.get(run.bytes..)?;
        Some(run)
    })
}

/// Calls `visit` with each run and its first register.
///
/// # Errors
/// The runs do not cover the registers exactly.
pub fn for_each_run(bytes: &[u8], mut visit: impl FnMut(usize, Run)) -> Result<(), SketchError> {
    let (mut register, mut used) = (0, 0);
    for run in opcodes(bytes) {
        if register + run.registers > REGISTERS {
            return Err(SketchError::Corrupt);
        }
        visit(register, run);
        register += run.registers;
        used += run.bytes;
    }
    if register == REGISTERS && used == bytes.len() { Ok(()) } else { Err(SketchError::Corrupt) }
}

/// What raising a register came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The register was as high already.
    No,
    /// It is higher now.
    Yes,
    /// The sparse form cannot say it, or not within its limit; nothing was changed.
    TooBig,
}

/// Raises a register to `value`. `bytes` may grow to `limit` bytes.
///
/// # Errors
/// No opcode covers the register.
pub fn raise(bytes: &mut Vec<u8>, register: usize, value: u8, limit: usize) -> Result<Raised, SketchError> {
    if value > MAX_VALUE {
        return Ok(Raised::TooBig);
    }
    let (mut at, mut before, mut first) = (0, 0, 0);
    let run = loop {
        let run = bytes.get(at..).and_then(Run::first).ok_or(SketchError::Corrupt)?;
        if register < first + run.registers {
            break run;
        }
        before = at;
        at += run.bytes;
        first += run.registers;
    };
    if run.value >= value {
        return Ok(Raised::No);
    }
    let left = register - first;
    let right = run.registers - left - 1;
    let mut opcodes = Vec::with_capacity(5);
    if run.is_value() {
        put_value(&mut opcodes, run.value, left);
        put_value(&mut opcodes, value, 1);
        put_value(&mut opcodes, run.value, right);
    } else {
        put_zeros(&mut opcodes, left);
        put_value(&mut opcodes, value, 1);
        put_zeros(&mut opcodes, right);
    }
    if opcodes.len() > run.bytes && bytes.len() + opcodes.len() - run.bytes > limit {
        return Ok(Raised::TooBig);
    }
    bytes.splice(at..at + run.bytes, opcodes);
    join(bytes, before);
    Ok(Raised::Yes)
}

/// Joins neighbouring VALs of one value in the opcodes from `at` on.
fn join(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..JOIN_SCAN {
        let Some(run) = bytes.get(at..).and_then(Run::first) else { return };
        let next = bytes.get(at + run.bytes..).and_then(Run::first);
        match next {
            Some(next)
                if run.is_value() && run.value == next.value && run.registers + next.registers <= MAX_VALUE_RUN =>
            {
                // What comes out may be joined with what follows it, so it is looked at again.
                bytes.splice(at..at + 2, [value_opcode(run.value, run.registers + next.registers)]);
            }
            _ => at += run.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        opcodes(bytes).map(Run::describe).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn splitting_and_joining() {
        let mut bytes = zeros();
        assert_eq!(bytes, [0x7f, 0xff]);
        for (register, value, raised, expected) in [
            (100, 5, Raised::Yes, "Z:100 v:5,1 Z:16283"),
            (100, 5, Raised::No, "Z:100 v:5,1 Z:16283"),
            (101, 5, Raised::Yes, "Z:100 v:5,2 Z:16282"),
            (103, 5, Raised::Yes, "Z:100 v:5,2 z:1 v:5,1 Z:16280"),
            (102, 5, Raised::Yes, "Z:100 v:5,4 Z:16280"),
            (104, 5, Raised::Yes, "Z:100 v:5,4 v:5,1 Z:16279"),
            (102, 7, Raised::Yes, "Z:100 v:5,2 v:7,1 v:5,1 v:5,1 Z:16279"),
            (16383, 32, Raised::Yes, "Z:100 v:5,2 v:7,1 v:5,2 Z:16278 v:32,1"),
            (0, 33, Raised::TooBig, "Z:100 v:5,2 v:7,1 v:5,2 Z:16278 v:32,1"),
            (64, 1, Raised::Yes, "z:64 v:1,1 z:35 v:5,2 v:7,1 v:5,2 Z:16278 v:32,1"),
        ] {
            assert_eq!(raise(&mut bytes, register, value, 100), Ok(raised));
            if register != 16383 {
                assert_eq!(shown(&bytes), expected.replace("v:5,1 v:5,1", "v:5,2"), "{register} {value}");
            }
        }
        let length = bytes.len();
        assert_eq!(raise(&mut bytes, 10, 1, length), Ok(Raised::TooBig));
        assert_eq!(bytes.len(), length);
        assert!(for_each_run(&bytes, |_, _| ()).is_ok());
    }

    #[test]
    fn broken_runs() {
        for broken in [&b""[..], b"\x7f", b"\x7f\xff\x00", b"\x00", b"\x7f\xfe"] {
            assert_eq!(for_each_run(broken, |_, _| ()), Err(SketchError::Corrupt));
            let _ = raise(&mut broken.to_vec(), 16_383, 3, 100);
        }
    }
}
