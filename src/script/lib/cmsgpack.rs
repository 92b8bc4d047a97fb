//! `cmsgpack`: MessagePack, as lua-cmsgpack 0.4 writes and reads it.

use mlua::{Lua, MultiValue, Table, Value};

use super::super::raise::{Args, text_error};
use super::{MAX_VALUES, put};

/// Tables nested deeper than this are written as nil, so that circular ones come to an end.
const MAX_NESTING: usize = 16;
/// Nesting that is read; deeper data is refused, like data that would overflow Lua's stack.
const MAX_READ_NESTING: usize = 1000;

/// The library's functions and constants.
pub fn functions(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    put(lua, &table, "pack", |args| {
        if args.values.is_empty() {
            return Err(args.error(0, "MessagePack pack needs input."));
        }
        let mut out = Vec::new();
        for value in &args.values {
            write(&mut out, value, 0)?;
        }
        args.lua.create_string(out)
    })?;
    put(lua, &table, "unpack", |args| unpack(&args, 0, 0))?;
    put(lua, &table, "unpack_one", |args| {
        let offset = args.integer_or(2, 0)?;
        unpack(&args, 1, offset)
    })?;
    put(lua, &table, "unpack_limit", |args| {
        let (limit, offset) = (args.integer(2)?, args.integer_or(3, 0)?);
        unpack(&args, limit, offset)
    })?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn write(out: &mut Vec<u8>, value: &Value, level: usize) -> mlua::Result<()> {
    match value {
        Value::String(text) => write_bytes(out, &text.as_bytes()),
        Value::Boolean(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => write_integer(out, *number),
        Value::Number(number) => write_number(out, *number),
        Value::Table(table) if level < MAX_NESTING => return write_table(out, table, level),
        _ => out.push(0xc0),
    }
    Ok(())
}

/// A big-endian length or number after its marker.
fn marked(out: &mut Vec<u8>, marker: u8, bytes: &[u8]) {
    out.push(marker);
    out.extend_from_slice(bytes);
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        len @ ..32 => out.push(0xa0 | len as u8),
        len @ ..0x100 => marked(out, 0xd9, &[len as u8]),
        len @ ..0x1_0000 => marked(out, 0xda, &(len as u16).to_be_bytes()),
        len => marked(out, 0xdb, &(len as u32).to_be_bytes()),
    }
    out.extend_from_slice(bytes);
}

fn write_number(out: &mut Vec<u8>, number: f64) {
    if number == number.trunc() && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) {
        write_integer(out, number as i64);
    } else if number == f64::from(number as f32) {
        marked(out, 0xca, &(number as f32).to_be_bytes());
    } else {
        marked(out, 0xcb, &number.to_be_bytes());
    }
}

fn write_integer(out: &mut Vec<u8>, number: i64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => marked(out, 0xcc, &[number as u8]),
        0x100..=0xffff => marked(out, 0xcd, &(number as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => marked(out, 0xce, &(number as u32).to_be_bytes()),
        0x1_0000_0000.. => marked(out, 0xcf, &number.to_be_bytes()),
        -32..=-1 => out.push(number as u8),
        -0x80..=-33 => marked(out, 0xd0, &[number as u8]),
        -0x8000..=-0x81 => marked(out, 0xd1, &(number as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => marked(out, 0xd2, &(number as i32).to_be_bytes()),
        _ => marked(out, 0xd3, &number.to_be_bytes()),
    }
}

fn write_length(out: &mut Vec<u8>, len: usize, short: u8, medium: u8) {
    match len {
        0..=15 => out.push(short | len as u8),
        16..=0xffff => marked(out, medium, &(len as u16).to_be_bytes()),
        _ => marked(out, medium + 1, &(len as u32).to_be_bytes()),
    }
}

fn write_table(out: &mut Vec<u8>, table: &Table, level: usize) -> mlua::Result<()> {
    let (mut keys, mut largest, mut list) = (0usize, 0.0f64, true);
    table.for_each(|key: Value, _: Value| {
        keys += 1;
        match key {
            Value::Integer(index) if index > 0 && i32::try_from(index).is_ok() => largest = largest.max(index as f64),
            _ => list = false,
        }
        Ok(())
    })?;
    if list && largest == keys as f64 {
        write_length(out, keys, 0x90, 0xdc);
        return (1..=keys).try_for_each(|index| write(out, &table.raw_get::<Value>(index)?, level + 1));
    }
    write_length(out, keys, 0x80, 0xde);
    table.for_each(|key: Value, value: Value| {
        write(out, &key, level + 1)?;
        write(out, &value, level + 1)
    })
}

/// Why data could not be read.
enum Broken {
    /// It ends too early.
    Short,
    /// It is no MessagePack.
    Format,
    /// It is nested too deep.
    Deep,
    /// Lua refused a value.
    Lua(mlua::Error),
}

impl From<mlua::Error> for Broken {
    fn from(error: mlua::Error) -> Self {
        Broken::Lua(error)
    }
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Broken::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.take(N)?.try_into().map_err(|_| Broken::Short)
    }

    fn length(&mut self, width: usize) -> Result<usize, Broken> {
        Ok(self.take(width)?.iter().fold(0, |len, byte| (len << 8) | usize::from(*byte)))
    }

    fn value(&mut self, level: usize) -> Result<Value, Broken> {
        if level > MAX_READ_NESTING {
            return Err(Broken::Deep);
        }
        let [marker] = self.array()?;
        Ok(match marker {
            0x00..=0x7f => number(marker.into()),
            0xe0..=0xff => number((marker as i8).into()),
            0xcc => number(self.length(1)? as f64),
            0xcd => number(self.length(2)? as f64),
            0xce => number(self.length(4)? as f64),
            // Unsigned too goes through a signed integer, as in the C library.
            0xcf => number(i64::from_be_bytes(self.array()?) as f64),
            0xd0 => number(i8::from_be_bytes(self.array()?).into()),
            0xd1 => number(i16::from_be_bytes(self.array()?).into()),
            0xd2 => number(i32::from_be_bytes(self.array()?).into()),
            0xd3 => number(i64::from_be_bytes(self.array()?) as f64),
            0xca => number(f32::from_be_bytes(self.array()?).into()),
            0xcb => number(f64::from_be_bytes(self.array()?)),
            0xc0 => Value::Nil,
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f))?,
            0xd9..=0xdb => {
                let len = self.length(1 << (marker - 0xd9))?;
                self.text(len)?
            }
            0x90..=0x9f => self.list(usize::from(marker & 0xf), level)?,
            0xdc | 0xdd => {
                let len = self.length(2 << (marker - 0xdc))?;
                self.list(len, level)?
            }
            0x80..=0x8f => self.map(usize::from(marker & 0xf), level)?,
            0xde | 0xdf => {
                let len = self.length(2 << (marker - 0xde))?;
                self.map(len, level)?
            }
            _ => return Err(Broken::Format),
        })
    }

    fn text(&mut self, len: usize) -> Result<Value, Broken> {
        Ok(Value::String(self.lua.create_string(self.take(len)?)?))
    }

    fn list(&mut self, len: usize, level: usize) -> Result<Value, Broken> {
        // What the data claim is not believed beyond what they can hold.
        let table = self.lua.create_table_with_capacity(len.min(self.rest.len()), 0)?;
        for index in 1..=len {
            let value = self.value(level + 1)?;
            table.raw_set(index, value)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, len: usize, level: usize) -> Result<Value, Broken> {
        let table = self.lua.create_table()?;
        for _ in 0..len {
            let key = self.value(level + 1)?;
            let value = self.value(level + 1)?;
            match key {
                Value::Nil => return Err(text_error(self.lua, "table index is nil").into()),
                Value::Number(number) if number.is_nan() => {
                    return Err(text_error(self.lua, "table index is NaN").into());
                }
                key => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}

fn number(number: f64) -> Value {
    Value::Number(number)
}

/// Reads up to `limit` values from `offset` on and returns where the next one starts before them; all values and
/// nothing else when both are 0.
fn unpack(args: &Args<'_>, limit: i64, offset: i64) -> mlua::Result<MultiValue> {
    let data = args.bytes(1)?;
    let fail = |text: &str| Err(text_error(args.lua, text));
    if offset < 0 || limit < 0 {
        let len = data.len();
        return fail(&format!("Invalid request to unpack with offset of {offset} and limit of {len}."));
    }
    let Some(rest) = data.get(offset as usize..) else {
        return fail(&format!("Start offset {offset} greater than input length {}.", data.len()));
    };
    let all = limit == 0 && offset == 0;
    let limit = if all { i64::MAX } else { limit };
    let mut reader = Reader { lua: args.lua, rest };
    let mut values = Vec::new();
    while !reader.rest.is_empty() && (values.len() as i64) < limit {
        if values.len() >= MAX_VALUES {
            return fail("stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)");
        }
        match reader.value(0) {
            Ok(value) => values.push(value),
            Err(Broken::Short) => return fail("Missing bytes in input."),
            Err(Broken::Format) => return fail("Bad data format in input."),
            Err(Broken::Deep) => return fail("stack overflow (too many nested values)"),
            Err(Broken::Lua(error)) => return Err(error),
        }
    }
    if !all {
        let next = if reader.rest.is_empty() { -1.0 } else { (data.len() - reader.rest.len()) as f64 };
        values.insert(0, Value::Number(next));
    }
    Ok(MultiValue::from_vec(values))
}
