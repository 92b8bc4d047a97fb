//! Replies of commands as Lua values, and Lua values as replies.

use mlua::{Lua, Table, Value};

use super::number;
use crate::net::Reply;

/// Nesting of a value that becomes a reply; what is deeper becomes an error.
const DEEPEST: usize = 1000;

/// The Lua value of an encoded reply. An error becomes a table with `err`.
///
/// # Errors
/// Lua's, when memory is short; a reply that is no RESP gives nil.
pub(super) fn to_lua(lua: &Lua, resp: &[u8]) -> mlua::Result<Value> {
    Reader { lua, rest: resp }.value()
}

/// The table that scripts see for the error `line` (code first, without `-`).
pub(super) fn error_table(lua: &Lua, line: &[u8]) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(line)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(Value::Table(table))
}

/// The `err` field for an error line that begins with `-`: a line of one word is all message and gets a code.
pub(super) fn error_line(line: &[u8]) -> Vec<u8> {
    let line = line.strip_prefix(b"-").unwrap_or(line);
    let line = line.get(..memchr::memchr(0, line).unwrap_or(line.len())).unwrap_or_default();
    let (code, message) = match memchr::memchr(b' ', line) {
        Some(space) => line.split_at(space),
        None => (&b"ERR"[..], line),
    };
    let message = message.strip_prefix(b" ").unwrap_or(message);
    let start = message.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(message.len());
    let end = message.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(start, |last| last + 1);
    let mut text = code.to_vec();
    text.push(b' ');
    text.extend_from_slice(message.get(start..end).unwrap_or_default());
    text
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let end = memchr::memmem::find(self.rest, b"\r\n").unwrap_or(self.rest.len());
        self.take(end)
    }

    /// `len` bytes, and the line end behind them goes too.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let bytes = self.rest.get(..len).unwrap_or(self.rest);
        self.rest = self.rest.get(len + 2..).unwrap_or_default();
        bytes
    }

    /// The value, with a table made of a field and a value where Lua has no such type.
    fn tagged(&self, field: &str, value: Value) -> mlua::Result<Value> {
        let table = self.lua.create_table_with_capacity(0, 1)?;
        table.raw_set(field, value)?;
        Ok(Value::Table(table))
    }

    fn string(&self, bytes: &[u8]) -> mlua::Result<Value> {
        self.lua.create_string(bytes).map(Value::String)
    }

    fn value(&mut self) -> mlua::Result<Value> {
        let Some((&kind, rest)) = self.rest.split_first() else { return Ok(Value::Nil) };
        self.rest = rest;
        let line = self.line();
        let count: Option<usize> = std::str::from_utf8(line).ok().and_then(|digits| digits.parse().ok());
        match (kind, count) {
            (b'+', _) => self.tagged("ok", self.string(line)?),
            (b'-', _) => error_table(self.lua, &error_line(line)),
            (b':', _) => Ok(Value::Number(number::from_text(line).unwrap_or_default())),
            (b'$', Some(len)) => {
                let bytes = self.take(len);
                self.string(bytes)
            }
            (b'$' | b'*', None) => Ok(Value::Boolean(false)),
            (b'*' | b'>', Some(len)) => {
                let table = self.lua.create_table_with_capacity(len, 0)?;
                for index in 1..=len {
                    table.raw_set(index, self.value()?)?;
                }
                Ok(Value::Table(table))
            }
            (b'%', Some(len)) => {
                let map = self.lua.create_table_with_capacity(0, len)?;
                for _ in 0..len {
                    let (key, value) = (self.value()?, self.value()?);
                    if !key.is_nil() {
                        map.raw_set(key, value)?;
                    }
                }
                self.tagged("map", Value::Table(map))
            }
            (b'~', Some(len)) => {
                let set = self.lua.create_table_with_capacity(0, len)?;
                for _ in 0..len {
                    let member = self.value()?;
                    if !member.is_nil() {
                        set.raw_set(member, true)?;
                    }
                }
                self.tagged("set", Value::Table(set))
            }
            (b'#', _) => Ok(Value::Boolean(line == b"t")),
            (b',', _) => self.tagged("double", Value::Number(number::from_text(line).unwrap_or_default())),
            (b'(', _) => self.tagged("big_number", self.string(line)?),
            (b'=', Some(len)) => {
                let bytes = self.take(len);
                let text = self.lua.create_table_with_capacity(0, 2)?;
                text.raw_set("string", self.string(bytes.get(4..).unwrap_or_default())?)?;
                text.raw_set("format", self.string(bytes.get(..3).unwrap_or_default())?)?;
                self.tagged("verbatim_string", Value::Table(text))
            }
            // Attributes are not shown to scripts.
            (b'|', Some(len)) => {
                for _ in 0..2 * len {
                    self.value()?;
                }
                self.value()
            }
            _ => Ok(Value::Nil),
        }
    }
}

/// Appends the reply that `value` stands for. `script_proto` is what the script chose with `redis.setresp`.
/// Returns whether the value itself is an error.
pub(super) fn reply(value: &Value, script_proto: u8, reply: &mut Reply) -> mlua::Result<bool> {
    Writer { script_proto }.value(value, reply, 0)
}

/// Appends an error line; `line` begins with its code. CR and LF become spaces.
pub(super) fn write_error(reply: &mut Reply, line: &[u8]) {
    write_line(reply, b'-', line);
}

fn write_line(reply: &mut Reply, kind: u8, line: &[u8]) {
    let mut bytes = Vec::with_capacity(line.len() + 3);
    bytes.push(kind);
    bytes.extend(one_line(line));
    bytes.extend_from_slice(b"\r\n");
    reply.raw(&bytes);
}

/// What C sees of a string that it takes for text.
fn until_zero(text: &[u8]) -> &[u8] {
    text.get(..memchr::memchr(0, text).unwrap_or(text.len())).unwrap_or_default()
}

struct Writer {
    script_proto: u8,
}

impl Writer {
    fn value(&self, value: &Value, out: &mut Reply, depth: usize) -> mlua::Result<bool> {
        match value {
            Value::String(text) => out.bulk(&text.as_bytes()),
            Value::Boolean(value) if self.script_proto >= 3 => out.bool(*value),
            Value::Boolean(true) => out.int(1),
            Value::Integer(number) => out.int(*number),
            Value::Number(number) => out.int(number::to_i64(*number)),
            Value::Table(_) if depth >= DEEPEST => write_error(out, b"ERR reached lua stack limit"),
            Value::Table(table) => return self.table(table, out, depth + 1),
            _ => out.null(),
        }
        Ok(false)
    }

    /// Kept small, like [`Writer::value`]: the two call each other once a level.
    fn table(&self, table: &Table, out: &mut Reply, depth: usize) -> mlua::Result<bool> {
        let mut body = Reply::new(out.proto());
        match shape(table, out)? {
            Shape::Written { failed } => return Ok(failed),
            Shape::Map(map) => {
                let mut pairs = 0;
                map.for_each(|key: Value, value: Value| {
                    pairs += 1;
                    self.value(&key, &mut body, depth)?;
                    self.value(&value, &mut body, depth).map(|_| ())
                })?;
                out.map(pairs);
            }
            Shape::Set(set) => {
                let mut members = 0;
                set.for_each(|member: Value, _: Value| {
                    members += 1;
                    self.value(&member, &mut body, depth).map(|_| ())
                })?;
                out.set(members);
            }
            Shape::Array => {
                let mut len = 0;
                loop {
                    let element: Value = table.raw_get(len + 1)?;
                    if element.is_nil() {
                        break;
                    }
                    self.value(&element, &mut body, depth)?;
                    len += 1;
                }
                out.array(len);
            }
        }
        out.raw(body.as_slice());
        Ok(false)
    }
}

/// What a table stands for.
enum Shape {
    /// A reply without parts, written already.
    Written {
        failed: bool,
    },
    Map(Table),
    Set(Table),
    Array,
}

#[inline(never)]
fn shape(table: &Table, out: &mut Reply) -> mlua::Result<Shape> {
    let written = Ok(Shape::Written { failed: false });
    if let Some(line) = field_text(table, "err")? {
        let text = until_zero(&line);
        let end = text.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |last| last + 1);
        write_error(out, text.get(..end).unwrap_or_default());
        return Ok(Shape::Written { failed: true });
    }
    if let Some(line) = field_text(table, "ok")? {
        write_line(out, b'+', until_zero(&line));
        return written;
    }
    if let number @ (Value::Integer(_) | Value::Number(_)) = table.raw_get("double")? {
        out.double(number::from_value(&number).unwrap_or_default());
        return written;
    }
    if let Some(digits) = field_text(table, "big_number")? {
        if out.proto() >= 3 {
            write_line(out, b'(', &digits);
        } else {
            out.bulk(&one_line(&digits));
        }
        return written;
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
        && let Some(format) = field_text(&verbatim, "format")?
        && let Some(text) = field_text(&verbatim, "string")?
    {
        let letters: String = String::from_utf8_lossy(until_zero(&format)).chars().take(3).collect();
        out.verbatim(&format!("{letters:3}"), &text);
        return written;
    }
    if let Value::Table(map) = table.raw_get("map")? {
        return Ok(Shape::Map(map));
    }
    if let Value::Table(set) = table.raw_get("set")? {
        return Ok(Shape::Set(set));
    }
    Ok(Shape::Array)
}

/// The text with spaces for CR and LF.
fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// The bytes of a field that is a string.
fn field_text(table: &Table, field: &str) -> mlua::Result<Option<Vec<u8>>> {
    Ok(match table.raw_get(field)? {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(resp: &str, script_proto: u8, proto: u8) -> String {
        let lua = Lua::new();
        let value = to_lua(&lua, resp.as_bytes()).unwrap();
        let mut out = Reply::new(proto);
        reply(&value, script_proto, &mut out).unwrap();
        String::from_utf8(out.as_slice().to_vec()).unwrap()
    }

    #[test]
    fn replies_pass_through_lua() {
        for (resp, resp2, resp3) in [
            ("+OK\r\n", "+OK\r\n", "+OK\r\n"),
            ("-ERR a b\r\n", "-ERR a b\r\n", "-ERR a b\r\n"),
            ("-ALONE\r\n", "-ERR ALONE\r\n", "-ERR ALONE\r\n"),
            (":-7\r\n", ":-7\r\n", ":-7\r\n"),
            ("$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            ("$-1\r\n", ":0\r\n", "#f\r\n"),
            ("_\r\n", "$-1\r\n", "_\r\n"),
            ("*2\r\n:1\r\n*1\r\n$1\r\na\r\n", "*2\r\n:1\r\n*1\r\n$1\r\na\r\n", "*2\r\n:1\r\n*1\r\n$1\r\na\r\n"),
            ("%1\r\n+k\r\n:1\r\n", "*2\r\n+k\r\n:1\r\n", "%1\r\n+k\r\n:1\r\n"),
            ("~1\r\n$1\r\na\r\n", "*1\r\n$1\r\na\r\n", "~1\r\n$1\r\na\r\n"),
            ("#t\r\n", ":1\r\n", "#t\r\n"),
            (",3.141\r\n", "$5\r\n3.141\r\n", ",3.141\r\n"),
            ("(123\r\n", "$3\r\n123\r\n", "(123\r\n"),
            ("=6\r\ntxt:hi\r\n", "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            ("|1\r\n+a\r\n:1\r\n$1\r\nx\r\n", "$1\r\nx\r\n", "$1\r\nx\r\n"),
        ] {
            assert_eq!(round_trip(resp, 3, 2), resp2, "{resp:?}");
            assert_eq!(round_trip(resp, 3, 3), resp3, "{resp:?}");
        }
        assert_eq!(round_trip("$-1\r\n", 2, 2), "$-1\r\n");
        assert_eq!(round_trip("$-1\r\n", 2, 3), "_\r\n");
        assert_eq!(round_trip("#t\r\n", 2, 3), ":1\r\n");
    }

    #[test]
    fn a_circular_table_ends_in_an_error() {
        let convert = || {
            let lua = Lua::new();
            let value: Value = lua.load("local a = {}; a[1] = {a}; return a").eval().unwrap();
            let mut out = Reply::new(2);
            reply(&value, 2, &mut out).unwrap();
            String::from_utf8(out.as_slice().to_vec()).unwrap()
        };
        // Scripts run on threads with more stack than a test has.
        let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(convert).unwrap();
        assert!(thread.join().unwrap().ends_with("*1\r\n-ERR reached lua stack limit\r\n"));
    }
}
