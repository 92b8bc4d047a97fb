//! `struct`: packing of values into binary strings, as in Roberto Ierusalimschy's library of that name.
//!
//! A format is a row of letters: `b B h H l L T` and `i I` with a size are integers, `f d` floats, `s` a string that ends
//! in zero, `c` with a size raw bytes, `x` a byte of padding; `> < !` set byte order and alignment.

use mlua::{Lua, MultiValue, Table, Value};

use super::super::number;
use super::super::raise::{Args, text_error};
use super::{MAX_VALUES, put};

/// Largest size of an integer, in bytes.
const MAX_INTEGER: usize = 32;
/// Alignment that `!` means without a number, in bytes.
const NATIVE_ALIGNMENT: usize = 8;

/// The library's functions.
pub fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    put(lua, &table, "pack", |args| {
        let packed = pack(&args)?;
        args.lua.create_string(packed)
    })?;
    put(lua, &table, "unpack", |args| unpack(&args))?;
    put(lua, &table, "size", |args| size(&args))?;
    Ok(table)
}

/// One letter of a format with its size in bytes, and the padding before it.
struct Item {
    letter: u8,
    size: usize,
    padding: usize,
}

struct Format<'a, 'l> {
    args: &'a Args<'l>,
    text: Vec<u8>,
    at: usize,
    big_endian: bool,
    alignment: usize,
}

impl<'a, 'l> Format<'a, 'l> {
    fn new(args: &'a Args<'l>) -> mlua::Result<Self> {
        let mut text = args.bytes(1)?;
        if let Some(end) = text.iter().position(|b| *b == 0) {
            text.truncate(end);
        }
        Ok(Format { args, text, at: 0, big_endian: false, alignment: 1 })
    }

    fn count(&mut self, default: usize) -> mlua::Result<usize> {
        let mut value: Option<usize> = None;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            let next = value.unwrap_or(0) * 10 + usize::from(digit - b'0');
            if next > i32::MAX as usize {
                return Err(text_error(self.args.lua, "integral size overflow"));
            }
            value = Some(next);
            self.at += 1;
        }
        Ok(value.unwrap_or(default))
    }

    /// The next letter, for data that stand at `position`.
    fn next(&mut self, position: usize) -> mlua::Result<Option<Item>> {
        let Some(&letter) = self.text.get(self.at) else { return Ok(None) };
        self.at += 1;
        let size = match letter {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'f' => 4,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'c' => self.count(1)?,
            b'i' | b'I' => {
                let size = self.count(4)?;
                if size > MAX_INTEGER {
                    let text = format!("integral size {size} is larger than limit of {MAX_INTEGER}");
                    return Err(text_error(self.args.lua, text));
                }
                size
            }
            _ => 0,
        };
        let padding = if size == 0 || letter == b'c' {
            0
        } else {
            let unit = size.min(self.alignment);
            unit.wrapping_sub(position & (unit - 1)) & (unit - 1)
        };
        Ok(Some(Item { letter, size, padding }))
    }

    /// Obeys a letter that is no data.
    fn control(&mut self, letter: u8) -> mlua::Result<()> {
        match letter {
            b' ' => {}
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let alignment = self.count(NATIVE_ALIGNMENT)?;
                if !alignment.is_power_of_two() {
                    return Err(text_error(self.args.lua, format!("alignment {alignment} is not a power of 2")));
                }
                self.alignment = alignment;
            }
            other => return Err(self.args.error(1, &format!("invalid format option '{}'", char::from(other)))),
        }
        Ok(())
    }

    fn ordered<const N: usize>(&self, mut bytes: [u8; N]) -> [u8; N] {
        if self.big_endian {
            bytes.reverse();
        }
        bytes
    }
}

fn pack(args: &Args<'_>) -> mlua::Result<Vec<u8>> {
    let mut format = Format::new(args)?;
    let (mut out, mut argument) = (Vec::new(), 1);
    while let Some(item) = format.next(out.len())? {
        out.resize(out.len() + item.padding, 0);
        let mut value = || {
            argument += 1;
            argument
        };
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let integer = integer_bits(packed_number(args, value())?);
                let bytes = (0..item.size).map(|i| if i < 8 { (integer >> (8 * i)) as u8 } else { 0 });
                let start = out.len();
                out.extend(bytes);
                if format.big_endian {
                    out[start..].reverse();
                }
            }
            b'x' => out.push(0),
            b'f' => out.extend(format.ordered((packed_number(args, value())? as f32).to_le_bytes())),
            b'd' => out.extend(format.ordered(packed_number(args, value())?.to_le_bytes())),
            b'c' | b's' => {
                let number = value();
                let text = args.bytes(number)?;
                let size = if item.size == 0 { text.len() } else { item.size };
                let Some(head) = text.get(..size) else { return Err(args.error(number + 1, "string too short")) };
                out.extend_from_slice(head);
                if item.letter == b's' {
                    out.push(0);
                }
            }
            letter => format.control(letter)?,
        }
    }
    Ok(out)
}

/// A number to pack. The C library leaves a nil on the stack where the first missing argument would be.
fn packed_number(args: &Args<'_>, number: usize) -> mlua::Result<f64> {
    if args.get(number).is_none() && number == args.values.len() + 1 {
        return Err(args.error(number, "number expected, got nil"));
    }
    args.number(number)
}

/// The 64 bits that C's casts make of a number.
fn integer_bits(number: f64) -> u64 {
    if number < 0.0 {
        number::to_i64(number) as u64
    } else if number < 18_446_744_073_709_551_616.0 {
        number as u64
    } else {
        0
    }
}

fn unpack(args: &Args<'_>) -> mlua::Result<MultiValue> {
    let mut format = Format::new(args)?;
    let data = args.bytes(2)?;
    let start = args.integer_or(3, 1)?;
    if start == 0 {
        return Err(args.error(3, "offset must be 1 or greater"));
    }
    let mut position = (start as usize).wrapping_sub(1);
    let mut results: Vec<Value> = Vec::new();
    while let Some(item) = format.next(position)? {
        position = position.wrapping_add(item.padding);
        let piece = |size: usize, at: usize| {
            let end = at.checked_add(size)?;
            data.get(at..end)
        };
        let too_short = || args.error(2, "data string too short");
        let mut size = item.size;
        let bytes = piece(size, position).ok_or_else(too_short)?;
        if results.len() >= MAX_VALUES {
            return Err(text_error(args.lua, "stack overflow (too many results)"));
        }
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let signed = item.letter.is_ascii_lowercase();
                results.push(Value::Number(read_integer(bytes, format.big_endian, signed)));
            }
            b'x' => {}
            b'f' => {
                let raw = bytes.try_into().unwrap_or_default();
                results.push(Value::Number(f64::from(f32::from_le_bytes(format.ordered(raw)))));
            }
            b'd' => {
                let raw = bytes.try_into().unwrap_or_default();
                results.push(Value::Number(f64::from_le_bytes(format.ordered(raw))));
            }
            b'c' => {
                let mut text = bytes;
                if size == 0 {
                    let Some(length) = results.last().and_then(number::from_value) else {
                        return Err(text_error(args.lua, "format 'c0' needs a previous size"));
                    };
                    results.pop();
                    size = number::to_i64(length) as usize;
                    text = piece(size, position).ok_or_else(too_short)?;
                }
                results.push(Value::String(args.lua.create_string(text)?));
            }
            b's' => {
                let rest = data.get(position..).unwrap_or_default();
                let Some(end) = memchr::memchr(0, rest) else {
                    return Err(text_error(args.lua, "unfinished string in data"));
                };
                results.push(Value::String(args.lua.create_string(rest.get(..end).unwrap_or_default())?));
                size = end + 1;
            }
            letter => format.control(letter)?,
        }
        position += size;
    }
    results.push(Value::Number((position + 1) as f64));
    Ok(MultiValue::from_vec(results))
}

fn read_integer(bytes: &[u8], big_endian: bool, signed: bool) -> f64 {
    let shift_in = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    let value = if big_endian { bytes.iter().fold(0, shift_in) } else { bytes.iter().rev().fold(0, shift_in) };
    if !signed {
        return value as f64;
    }
    let unused = 64u32.saturating_sub(8 * bytes.len() as u32).min(63);
    (((value << unused) as i64) >> unused) as f64
}

fn size(args: &Args<'_>) -> mlua::Result<f64> {
    let mut format = Format::new(args)?;
    let mut position = 0;
    while let Some(item) = format.next(position)? {
        position += item.padding;
        match item.letter {
            b's' => return Err(args.error(1, "option 's' has no fixed size")),
            b'c' if item.size == 0 => return Err(args.error(1, "option 'c0' has no fixed size")),
            letter if !letter.is_ascii_alphanumeric() => format.control(letter)?,
            _ => {}
        }
        position += item.size;
    }
    Ok(position as f64)
}
