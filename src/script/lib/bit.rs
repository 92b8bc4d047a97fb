//! `bit`: operations on 32-bit words, as in Mike Pall's BitOp 1.0.

use mlua::{Lua, Table};

use super::super::raise::Args;
use super::put;

/// Adding 2^52 + 2^51 to a double leaves its integer, modulo 2^32, in the low bits of the sum.
const INTEGER_IN_LOW_BITS: f64 = 6_755_399_441_055_744.0;

/// The library's functions.
pub fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    put(lua, &table, "tobit", |args| Ok(signed(word(&args, 1)?)))?;
    put(lua, &table, "bnot", |args| Ok(signed(!word(&args, 1)?)))?;
    put(lua, &table, "band", |args| fold(&args, |a, b| a & b))?;
    put(lua, &table, "bor", |args| fold(&args, |a, b| a | b))?;
    put(lua, &table, "bxor", |args| fold(&args, |a, b| a ^ b))?;
    put(lua, &table, "lshift", |args| shift(&args, |word, by| word << by))?;
    put(lua, &table, "rshift", |args| shift(&args, |word, by| word >> by))?;
    put(lua, &table, "arshift", |args| shift(&args, |word, by| (word as i32 >> by) as u32))?;
    put(lua, &table, "rol", |args| shift(&args, u32::rotate_left))?;
    put(lua, &table, "ror", |args| shift(&args, u32::rotate_right))?;
    put(lua, &table, "bswap", |args| Ok(signed(word(&args, 1)?.swap_bytes())))?;
    put(lua, &table, "tohex", |args| to_hex(&args))?;
    Ok(table)
}

fn word(args: &Args<'_>, number: usize) -> mlua::Result<u32> {
    Ok((args.number(number)? + INTEGER_IN_LOW_BITS).to_bits() as u32)
}

fn signed(word: u32) -> i32 {
    word as i32
}

fn fold(args: &Args<'_>, operation: fn(u32, u32) -> u32) -> mlua::Result<i32> {
    let mut result = word(args, 1)?;
    for number in 2..=args.values.len() {
        result = operation(result, word(args, number)?);
    }
    Ok(signed(result))
}

fn shift(args: &Args<'_>, operation: fn(u32, u32) -> u32) -> mlua::Result<i32> {
    let (value, by) = (word(args, 1)?, word(args, 2)? & 31);
    Ok(signed(operation(value, by)))
}

/// The lowest digits, as many as argument 2 says, in capitals when that is negative.
fn to_hex(args: &Args<'_>) -> mlua::Result<String> {
    let value = word(args, 1)?;
    let digits = if args.get(2).is_none() { 8 } else { signed(word(args, 2)?) };
    let count = digits.unsigned_abs().min(8) as usize;
    let text = if digits < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    Ok(text.get(8 - count..).unwrap_or_default().to_owned())
}
