//! `cjson.encode`.

use mlua::{Table, Value};

use super::super::number;
use super::super::raise::{Args, text_error, type_name};
use super::cjson::{DEEPEST, InvalidNumbers, Settings};

/// Writes argument 1 as JSON.
pub fn encode(args: &Args<'_>, settings: &Settings) -> mlua::Result<Value> {
    if args.values.len() != 1 {
        return Err(args.error(1, "expected 1 argument"));
    }
    let mut encoder = Encoder { args, settings, out: Vec::new() };
    if let Some(value) = args.get(1) {
        encoder.value(value, 0)?;
    }
    Ok(Value::String(args.lua.create_string(encoder.out)?))
}

struct Encoder<'a> {
    args: &'a Args<'a>,
    settings: &'a Settings,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn refuse(&self, value: &Value, reason: &str) -> mlua::Error {
        text_error(self.args.lua, format!("Cannot serialise {}: {reason}", type_name(value)))
    }

    fn value(&mut self, value: &Value, depth: usize) -> mlua::Result<()> {
        match value {
            Value::String(text) => self.string(&text.as_bytes()),
            Value::Integer(number) => self.number(*number as f64, value)?,
            Value::Number(number) => self.number(*number, value)?,
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Table(table) => self.table(table, value, depth + 1)?,
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => self.out.extend_from_slice(b"null"),
            other => return Err(self.refuse(other, "type not supported")),
        }
        Ok(())
    }

    fn table(&mut self, table: &Table, value: &Value, depth: usize) -> mlua::Result<()> {
        if depth > DEEPEST || depth > self.settings.encode_max_depth as usize {
            return Err(text_error(self.args.lua, format!("Cannot serialise, excessive nesting ({depth})")));
        }
        match self.array_length(table, value)? {
            0 => self.object(table, depth),
            length => {
                self.out.push(b'[');
                for index in 1..=length {
                    if index > 1 {
                        self.out.push(b',');
                    }
                    self.value(&table.raw_get::<Value>(index)?, depth)?;
                }
                self.out.push(b']');
                Ok(())
            }
        }
    }

    /// The largest index of a table that has only positive whole keys and is not too sparse; 0 for any other.
    fn array_length(&self, table: &Table, value: &Value) -> mlua::Result<i64> {
        let (mut largest, mut items, mut array) = (0i64, 0i64, true);
        table.for_each(|key: Value, _: Value| {
            match key {
                Value::Integer(index) if index >= 1 => {
                    largest = largest.max(index);
                    items += 1;
                }
                _ => array = false,
            }
            Ok(())
        })?;
        if !array {
            return Ok(0);
        }
        let Settings { sparse_ratio, sparse_safe, sparse_convert, .. } = *self.settings;
        let bound = items.saturating_mul(sparse_ratio.into());
        if sparse_ratio > 0 && largest > bound && largest > i64::from(sparse_safe) {
            return if sparse_convert { Ok(0) } else { Err(self.refuse(value, "excessively sparse array")) };
        }
        Ok(largest)
    }

    fn object(&mut self, table: &Table, depth: usize) -> mlua::Result<()> {
        self.out.push(b'{');
        let mut first = true;
        table.for_each(|key: Value, value: Value| {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match &key {
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.number(number::from_value(&key).unwrap_or_default(), &key)?;
                    self.out.push(b'"');
                }
                Value::String(text) => self.string(&text.as_bytes()),
                other => return Err(self.refuse(other, "table key must be a number or string")),
            }
            self.out.push(b':');
            self.value(&value, depth)
        })?;
        self.out.push(b'}');
        Ok(())
    }

    fn number(&mut self, number: f64, value: &Value) -> mlua::Result<()> {
        match self.settings.encode_invalid_numbers {
            InvalidNumbers::Refuse if !number.is_finite() => {
                return Err(self.refuse(value, "must not be NaN or Inf"));
            }
            InvalidNumbers::Null if !number.is_finite() => self.out.extend_from_slice(b"null"),
            InvalidNumbers::Print if number.is_nan() => self.out.extend_from_slice(b"nan"),
            _ => {
                let digits = self.settings.number_precision as usize;
                self.out.extend_from_slice(number::format_g(number, digits).as_bytes());
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &[u8]) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        for &byte in text {
            match byte {
                b'"' | b'\\' | b'/' => self.out.extend_from_slice(&[b'\\', byte]),
                0x08 => self.out.extend_from_slice(b"\\b"),
                b'\t' => self.out.extend_from_slice(b"\\t"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                0x0c => self.out.extend_from_slice(b"\\f"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                0..0x20 | 0x7f => self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                other => self.out.push(other),
            }
        }
        self.out.push(b'"');
    }
}
