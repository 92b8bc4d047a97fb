//! Integers of any width at any bit of a string: what BITFIELD does, apart from the string itself.

use bytes::Bytes;

use super::{BitString, CommandError, bit_offset};
use crate::command::numbers;

/// An integer's place and form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Offset of its first, highest bit.
    pub offset: u64,
    /// Its width, 1 to 64 bits; unsigned ones have at most 63.
    pub bits: u32,
    /// Whether it has a sign.
    pub signed: bool,
}

/// What to do when a number does not fit its field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Keep the lowest bits.
    #[default]
    Wrap,
    /// Take the nearest number that fits.
    Saturate,
    /// Change nothing.
    Fail,
}

/// One step of BITFIELD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answers a number.
    Get(Field),
    /// Answers a number and replaces it.
    Set(Field, i64, Overflow),
    /// Adds to a number and answers the sum.
    Increment(Field, i64, Overflow),
}

impl Step {
    /// The field it works on.
    pub fn field(&self) -> Field {
        match *self {
            Step::Get(field) | Step::Set(field, ..) | Step::Increment(field, ..) => field,
        }
    }
}

/// Reads the steps that follow the key. `max_bytes` is the longest a string may be.
///
/// # Errors
/// Those of Redis, for the first argument that is wrong.
pub fn parse(mut args: &[Bytes], max_bytes: u64) -> Result<Vec<Step>, CommandError> {
    let mut steps = Vec::new();
    let mut overflow = Overflow::default();
    while let Some((name, rest)) = args.split_first() {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        args = match rest {
            [kind, offset, rest @ ..] if is("get") => {
                steps.push(Step::Get(Field::parse(kind, offset, max_bytes)?));
                rest
            }
            [kind, offset, number, rest @ ..] if is("set") || is("incrby") => {
                let field = Field::parse(kind, offset, max_bytes)?;
                let number = numbers::integer(number)?;
                steps.push(match is("set") {
                    true => Step::Set(field, number, overflow),
                    false => Step::Increment(field, number, overflow),
                });
                rest
            }
            [kind, rest @ ..] if is("overflow") => {
                overflow = [("wrap", Overflow::Wrap), ("sat", Overflow::Saturate), ("fail", Overflow::Fail)]
                    .into_iter()
                    .find(|(own, _)| kind.eq_ignore_ascii_case(own.as_bytes()))
                    .map(|(_, overflow)| overflow)
                    .ok_or(CommandError::Static("ERR Invalid OVERFLOW type specified"))?;
                rest
            }
            _ => return Err(CommandError::Syntax),
        };
    }
    Ok(steps)
}

impl Field {
    fn parse(kind: &[u8], offset: &[u8], max_bytes: u64) -> Result<Field, CommandError> {
        let (signed, bits) = parse_kind(kind).ok_or(CommandError::Static(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        ))?;
        let offset = match offset {
            [b'#', index @ ..] => bit_offset(index, bits, max_bytes)?,
            offset => bit_offset(offset, 1, max_bytes)?,
        };
        Ok(Field { offset, bits, signed })
    }

    /// Offset of the last byte it reaches into.
    pub fn last_byte(self) -> u64 {
        (self.offset + u64::from(self.bits) - 1) / 8
    }

    /// The least and greatest numbers that fit.
    fn limits(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The number that the lowest bits of `number` are.
    fn wrap(self, number: i128) -> i128 {
        let unused = 128 - self.bits;
        match self.signed {
            true => number << unused >> unused,
            false => ((number as u128) << unused >> unused) as i128,
        }
    }

    /// The number to store for `number`; `None` if it does not fit and must not be made to.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (least, greatest) = self.limits();
        if (least..=greatest).contains(&number) {
            return Some(number);
        }
        match overflow {
            Overflow::Wrap => Some(self.wrap(number)),
            Overflow::Saturate => Some(number.clamp(least, greatest)),
            Overflow::Fail => None,
        }
    }
}

/// `i16` or `u8`: whether it is signed, and its width.
fn parse_kind(kind: &[u8]) -> Option<(bool, u32)> {
    let (&sign, width) = kind.split_first()?;
    let (signed, most) = match sign {
        b'i' => (true, 64),
        b'u' => (false, 63),
        _ => return None,
    };
    // Redis reads the width up to the first zero byte.
    let width = width.split(|byte| *byte == 0).next()?;
    let bits = numbers::parse_i64(width).filter(|bits| (1..=most).contains(bits))?;
    Some((signed, bits as u32))
}

/// A string and the bytes of it that have been changed since it was stored.
pub struct Patched<S> {
    string: S,
    /// Length with the changes, in bytes.
    length: u64,
    patches: Vec<Patch>,
}

/// Changed bytes of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where they begin.
    pub offset: u64,
    /// What is there now.
    pub bytes: Vec<u8>,
}

impl Patch {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// Bytes that a field can reach into.
const WINDOW: usize = 9;

impl<S: BitString> Patched<S> {
    /// The string as it is stored.
    pub fn of(string: S) -> Self {
        Patched { length: string.len(), string, patches: Vec::new() }
    }

    /// Makes the string, if it is shorter, reach as far as the byte at `last`.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn grow(&mut self, last: u64) -> Result<(), CommandError> {
        if last >= self.length {
            self.length = last + 1;
            self.patch(Patch { offset: last, bytes: vec![0] });
        }
        Ok(())
    }

    /// Performs a step; the answer, `None` for a number that must not be made to fit.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn perform(&mut self, step: Step) -> Result<Option<i64>, CommandError> {
        let field = step.field();
        let old = self.get(field)?;
        let (new, answer) = match step {
            Step::Get(_) => return Ok(Some(old as i64)),
            Step::Set(_, number, overflow) => {
                // Redis takes a negative number for a field without a sign as its 64 bits.
                let number = if field.signed { i128::from(number) } else { i128::from(number as u64) };
                let new = field.fit(number, overflow);
                (new, new.map(|_| old))
            }
            Step::Increment(_, by, overflow) => {
                let new = field.fit(old + i128::from(by), overflow);
                (new, new)
            }
        };
        if let Some(new) = new.filter(|new| *new != old) {
            self.set(field, new)?;
        }
        Ok(answer.map(|answer| answer as i64))
    }

    /// What has to be written, in order of offset.
    pub fn into_patches(self) -> Vec<Patch> {
        self.patches
    }

    fn window(&mut self, field: Field) -> Result<[u8; WINDOW], CommandError> {
        let mut window = [0; WINDOW];
        let offset = field.offset / 8;
        self.string.read(offset, &mut window)?;
        for patch in self.patches.iter().filter(|patch| patch.end() > offset) {
            for (at, byte) in (patch.offset..).zip(&patch.bytes) {
                if let Some(place) = at.checked_sub(offset).and_then(|at| window.get_mut(at as usize)) {
                    *place = *byte;
                }
            }
        }
        Ok(window)
    }

    fn get(&mut self, field: Field) -> Result<i128, CommandError> {
        let window = self.window(field)?;
        Ok(field.wrap((load(&window) >> shift(field)) as i128))
    }

    fn set(&mut self, field: Field, number: i128) -> Result<(), CommandError> {
        let window = self.window(field)?;
        let mask = (1u128 << field.bits) - 1;
        let value = load(&window) & !(mask << shift(field)) | (number as u128 & mask) << shift(field);
        let offset = field.offset / 8;
        let used = (field.last_byte() - offset + 1) as usize;
        let bytes = value.to_be_bytes().into_iter().skip(16 - WINDOW).take(used).collect();
        self.patch(Patch { offset, bytes });
        Ok(())
    }

    /// Puts a patch over those before it, joined with the ones that it touches.
    fn patch(&mut self, new: Patch) {
        let touches = |old: &Patch| old.offset <= new.end() && new.offset <= old.end();
        let (touching, mut apart): (Vec<_>, Vec<_>) = std::mem::take(&mut self.patches).into_iter().partition(touches);
        let offset = touching.iter().map(|old| old.offset).fold(new.offset, u64::min);
        let end = touching.iter().map(Patch::end).fold(new.end(), u64::max);
        let mut bytes = vec![0; (end - offset) as usize];
        for patch in touching.iter().chain([&new]) {
            let at = (patch.offset - offset) as usize;
            bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        let at = apart.partition_point(|old| old.offset < offset);
        apart.insert(at, Patch { offset, bytes });
        self.patches = apart;
    }
}

/// The window as one number.
fn load(window: &[u8; WINDOW]) -> u128 {
    window.iter().fold(0, |word, byte| word << 8 | u128::from(*byte))
}

/// How many bits of the window lie below the field.
fn shift(field: Field) -> u32 {
    8 * WINDOW as u32 - (field.offset % 8) as u32 - field.bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::bitmap::bits::Whole;

    fn steps(text: &str) -> Result<Vec<Step>, String> {
        let words: Vec<Bytes> = text.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        parse(&words, 512 << 20).map_err(|error| error.to_string())
    }

    fn perform(text: &str) -> Vec<Option<i64>> {
        let mut string = Patched::of(Whole::default());
        steps(text).unwrap().into_iter().map(|step| string.perform(step).unwrap()).collect()
    }

    #[test]
    fn parsing() {
        let field = |offset, bits, signed| Field { offset, bits, signed };
        assert_eq!(
            steps("get u8 #2 overflow sat SET i64 5 -1 overflow FAIL incrby u63 0 7"),
            Ok(vec![
                Step::Get(field(16, 8, false)),
                Step::Set(field(5, 64, true), -1, Overflow::Saturate),
                Step::Increment(field(0, 63, false), 7, Overflow::Fail),
            ])
        );
        for bad in ["get u64 0", "get i65 0", "get u0 0", "get x8 0", "get u 0", "get u08 0"] {
            assert!(steps(bad).unwrap_err().starts_with("ERR Invalid bitfield type"), "{bad}");
        }
        for bad in [
            "get u8 -1",
            "get u8 4294967296",
            "get u8 #536870912",
            "get u8 x",
            "get u8 #",
            "get i2 #9223372036854775807",
        ] {
            assert_eq!(steps(bad).unwrap_err(), "ERR bit offset is not an integer or out of range", "{bad}");
        }
        for bad in ["get u8", "set u8 0", "incrby u8 0", "overflow", "foo"] {
            assert_eq!(steps(bad).unwrap_err(), "ERR syntax error", "{bad}");
        }
        assert_eq!(steps("overflow x").unwrap_err(), "ERR Invalid OVERFLOW type specified");
        assert_eq!(steps(""), Ok(vec![]));
    }

    #[test]
    fn overflows() {
        for (text, expected) in [
            ("set u8 3 255 get u8 3 get u8 4", vec![Some(0), Some(255), Some(254)]),
            ("set u8 0 -1 incrby u8 0 1", vec![Some(0), Some(0)]),
            ("overflow sat set u8 0 -1 incrby u8 0 1 incrby u8 0 -300", vec![Some(0), Some(255), Some(0)]),
            ("overflow fail set u8 0 256 incrby u8 0 255 incrby u8 0 1", vec![None, Some(255), None]),
            ("incrby i64 1 9223372036854775807 incrby i64 1 1", vec![Some(i64::MAX), Some(i64::MIN)]),
            ("overflow sat incrby i64 7 -9223372036854775808 incrby i64 7 -1", vec![Some(i64::MIN), Some(i64::MIN)]),
            ("set i5 2 16 get i5 2 get u5 2", vec![Some(0), Some(-16), Some(16)]),
            ("set u63 0 -1 get u63 0", vec![Some(0), Some(i64::MAX)]),
        ] {
            assert_eq!(perform(text), expected, "{text}");
        }
    }

    #[test]
    fn patches_are_few() {
        let mut string = Patched::of(Whole::default());
        string.grow(20).unwrap();
        for step in steps("set u8 8 1 set u8 16 2 set u8 12 255 set u8 80 9 set i8 80 9").unwrap() {
            string.perform(step).unwrap();
        }
        let patch = |offset, bytes: &[u8]| Patch { offset, bytes: bytes.to_vec() };
        assert_eq!(string.into_patches(), [patch(1, &[0x0f, 0xf2]), patch(10, &[9]), patch(20, &[0])]);
    }
}
