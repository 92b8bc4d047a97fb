//! Errors that native functions raise in scripts, and the arguments they complain about.
//!
//! A native function can raise only an `mlua::Error`, which Lua code sees as an opaque object. Every place where a
//! script can catch an error turns it back into what Redis would have raised: a string or a table with `err`.

use std::fmt;

use mlua::{Error, Lua, MultiValue, Value};

use super::number;

/// What a native function raises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raised {
    /// A string with the place in front, as the libraries of Lua raise it.
    Text(Vec<u8>),
    /// An error of `redis.*`: the `err` field of the table that Redis raises, code first.
    Reply(Vec<u8>),
    /// The run is over; scripts cannot catch it.
    Stop,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raised::Text(text) | Raised::Reply(text) => f.write_str(&String::from_utf8_lossy(text)),
            Raised::Stop => f.write_str("the script was stopped"),
        }
    }
}

impl std::error::Error for Raised {}

impl From<Raised> for Error {
    fn from(raised: Raised) -> Self {
        Error::external(raised)
    }
}

impl Raised {
    /// What `error` carries; a failure of the interpreter itself becomes its text.
    pub fn from_error(error: &Error) -> Raised {
        match error {
            Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => Raised::from_error(cause),
            Error::ExternalError(inner) => match inner.downcast_ref::<Raised>() {
                Some(raised) => raised.clone(),
                None => Raised::Text(inner.to_string().into_bytes()),
            },
            Error::MemoryError(_) => Raised::Text(b"not enough memory".to_vec()),
            Error::RuntimeError(text) => Raised::Text(text.clone().into_bytes()),
            other => Raised::Text(other.to_string().into_bytes()),
        }
    }
}

/// An error of `redis.*` with the code ERR.
pub(super) fn reply_error(text: &str) -> Error {
    Raised::Reply(format!("ERR {text}").into_bytes()).into()
}

/// An error as `luaL_error` raises it: `text` with the line that called the running native function in front.
pub(super) fn text_error(lua: &Lua, text: impl AsRef<str>) -> Error {
    let place = lua.inspect_stack(1, |debug| match (debug.current_line(), debug.source().short_src) {
        (Some(line), Some(source)) => format!("{source}:{line}: "),
        _ => String::new(),
    });
    let mut message = place.unwrap_or_default().into_bytes();
    message.extend_from_slice(text.as_ref().as_bytes());
    Raised::Text(message).into()
}

/// `bad argument #number to 'function' (complaint)`.
pub(super) fn argument_error(lua: &Lua, number: usize, function: &str, complaint: &str) -> Error {
    text_error(lua, format!("bad argument #{number} to '{function}' ({complaint})"))
}

/// The arguments of a call of the native function `name`, counted from 1.
pub(super) struct Args<'l> {
    pub lua: &'l Lua,
    pub name: &'static str,
    pub values: MultiValue,
}

impl<'l> Args<'l> {
    pub fn new(lua: &'l Lua, name: &'static str, values: MultiValue) -> Self {
        Args { lua, name, values }
    }

    /// Argument `number`, if given.
    pub fn get(&self, number: usize) -> Option<&Value> {
        self.values.get(number - 1)
    }

    /// Argument `number`, if given and not nil.
    pub fn present(&self, number: usize) -> Option<&Value> {
        self.get(number).filter(|value| !value.is_nil())
    }

    pub fn error(&self, number: usize, complaint: &str) -> Error {
        argument_error(self.lua, number, self.name, complaint)
    }

    /// The complaint that argument `number` is not of the type `expected`.
    pub fn type_error(&self, number: usize, expected: &str) -> Error {
        let got = self.get(number).map_or("no value", type_name);
        self.error(number, &format!("{expected} expected, got {got}"))
    }

    /// A number, or a string that reads as one.
    pub fn number(&self, number: usize) -> mlua::Result<f64> {
        self.get(number).and_then(number::from_value).ok_or_else(|| self.type_error(number, "number"))
    }

    /// A number cut to an integer, as C casts it.
    pub fn integer(&self, number: usize) -> mlua::Result<i64> {
        self.number(number).map(number::to_i64)
    }

    /// An optional [`Args::integer`].
    pub fn integer_or(&self, number: usize, default: i64) -> mlua::Result<i64> {
        if self.present(number).is_none() { Ok(default) } else { self.integer(number) }
    }

    /// A string, or a number as text.
    pub fn bytes(&self, number: usize) -> mlua::Result<Vec<u8>> {
        self.get(number).and_then(number::text_of).ok_or_else(|| self.type_error(number, "string"))
    }
}

/// The name of a value's type as Lua says it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}
