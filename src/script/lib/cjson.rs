//! `cjson`: JSON, as lua-cjson 2.1 writes and reads it, with its settings.

use std::sync::Arc;

use mlua::{Lua, Table, Value};
use parking_lot::Mutex;

use super::super::number;
use super::super::raise::Args;
use super::{cjson_decode, cjson_encode, put};

/// Nesting that is written and read at most, whatever the settings say: what the stack is sure to hold.
pub(super) const DEEPEST: usize = 1000;

/// The library's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Writes too sparse arrays as objects instead of refusing them.
    pub sparse_convert: bool,
    /// An array is too sparse when its largest index exceeds this times its elements; 0: never.
    pub sparse_ratio: i32,
    /// No array with a largest index up to this is too sparse.
    pub sparse_safe: i32,
    /// Nesting of tables that is written at most.
    pub encode_max_depth: i32,
    /// Nesting of values that is read at most.
    pub decode_max_depth: i32,
    /// What becomes of numbers that JSON does not have.
    pub encode_invalid_numbers: InvalidNumbers,
    /// Reads numbers that JSON does not have.
    pub decode_invalid_numbers: bool,
    /// Digits of the numbers written.
    pub number_precision: i32,
    /// Kept for scripts that set it; it changes no result.
    pub keep_buffer: bool,
}

/// How infinity and not-a-number are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidNumbers {
    /// Not at all.
    Refuse,
    /// As C prints them.
    Print,
    /// As null.
    Null,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_max_depth: 1000,
            decode_max_depth: 1000,
            encode_invalid_numbers: InvalidNumbers::Refuse,
            decode_invalid_numbers: true,
            number_precision: 14,
            keep_buffer: true,
        }
    }
}

/// Settings shared by the functions of one table.
pub type Shared = Arc<Mutex<Settings>>;

/// The library's functions and constants, working by `settings`.
pub fn functions(lua: &Lua, settings: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let with = |function: fn(&Args<'_>, &mut Settings) -> mlua::Result<Value>| {
        let settings = Arc::clone(settings);
        move |args: Args<'_>| function(&args, &mut settings.lock())
    };
    put(lua, &table, "encode", with(|args, settings| cjson_encode::encode(args, settings)))?;
    put(lua, &table, "decode", with(|args, settings| cjson_decode::decode(args, settings)))?;
    put(lua, &table, "encode_max_depth", with(|args, s| depth(args, &mut s.encode_max_depth)))?;
    put(lua, &table, "decode_max_depth", with(|args, s| depth(args, &mut s.decode_max_depth)))?;
    put(lua, &table, "encode_keep_buffer", with(|args, s| switch(args, &mut s.keep_buffer)))?;
    put(lua, &table, "decode_invalid_numbers", with(|args, s| switch(args, &mut s.decode_invalid_numbers)))?;
    put(lua, &table, "encode_invalid_numbers", with(encode_invalid_numbers))?;
    put(
        lua,
        &table,
        "encode_number_precision",
        with(|args, s| {
            at_most(args, 1)?;
            whole(args, 1, &mut s.number_precision, 1, 14)
        }),
    )?;
    let shared = Arc::clone(settings);
    put(lua, &table, "encode_sparse_array", move |args| {
        at_most(&args, 3)?;
        let settings = &mut *shared.lock();
        let convert = boolean(&args, &mut settings.sparse_convert)?;
        let ratio = whole(&args, 2, &mut settings.sparse_ratio, 0, i32::MAX)?;
        Ok((convert, ratio, whole(&args, 3, &mut settings.sparse_safe, 0, i32::MAX)?))
    })?;
    put(lua, &table, "new", |args| functions(args.lua, &Shared::default()))?;
    table.raw_set("null", Value::NULL)?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn at_most(args: &Args<'_>, count: usize) -> mlua::Result<()> {
    if args.values.len() > count { Err(args.error(count + 1, "found too many arguments")) } else { Ok(()) }
}

/// Argument `number`, if given, becomes the setting; returns the setting.
fn whole(args: &Args<'_>, number: usize, setting: &mut i32, min: i32, max: i32) -> mlua::Result<Value> {
    if args.present(number).is_some() {
        let value = args.integer(number)? as i32;
        if !(min..=max).contains(&value) {
            return Err(args.error(1, &format!("expected integer between {min} and {max}")));
        }
        *setting = value;
    }
    Ok(Value::Integer((*setting).into()))
}

fn depth(args: &Args<'_>, setting: &mut i32) -> mlua::Result<Value> {
    at_most(args, 1)?;
    whole(args, 1, setting, 1, i32::MAX)
}

/// Argument 1 if given, a boolean or one of `options`, as an index into `options`.
fn option(args: &Args<'_>, options: &[&str]) -> mlua::Result<Option<usize>> {
    match args.present(1) {
        None => Ok(None),
        Some(Value::Boolean(on)) => Ok(Some(usize::from(*on))),
        Some(other) => {
            let name = number::text_of(other).ok_or_else(|| args.type_error(1, "string"))?;
            match options.iter().position(|option| option.as_bytes() == name) {
                Some(index) => Ok(Some(index)),
                None => Err(args.error(1, &format!("invalid option '{}'", String::from_utf8_lossy(&name)))),
            }
        }
    }
}

fn boolean(args: &Args<'_>, setting: &mut bool) -> mlua::Result<Value> {
    if let Some(index) = option(args, &["off", "on"])? {
        *setting = index == 1;
    }
    Ok(Value::Boolean(*setting))
}

fn switch(args: &Args<'_>, setting: &mut bool) -> mlua::Result<Value> {
    at_most(args, 1)?;
    boolean(args, setting)
}

fn encode_invalid_numbers(args: &Args<'_>, settings: &mut Settings) -> mlua::Result<Value> {
    at_most(args, 1)?;
    let setting = &mut settings.encode_invalid_numbers;
    if let Some(index) = option(args, &["off", "on", "null"])? {
        *setting = [InvalidNumbers::Refuse, InvalidNumbers::Print, InvalidNumbers::Null][index];
    }
    Ok(match setting {
        InvalidNumbers::Refuse => Value::Boolean(false),
        InvalidNumbers::Print => Value::Boolean(true),
        InvalidNumbers::Null => Value::String(args.lua.create_string("null")?),
    })
}
