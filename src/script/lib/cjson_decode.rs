//! `cjson.decode`.

use mlua::Value;

use super::super::number;
use super::super::raise::{Args, text_error};
use super::cjson::{DEEPEST, Settings};

/// Reads argument 1 as JSON.
pub fn decode(args: &Args<'_>, settings: &Settings) -> mlua::Result<Value> {
    if args.values.len() != 1 {
        return Err(args.error(1, "expected 1 argument"));
    }
    let text = args.bytes(1)?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(text_error(args.lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder { args, settings, text: &text, at: 0, start: 0, string: Vec::new(), depth: 0 };
    let token = decoder.next();
    let value = decoder.value(token)?;
    match decoder.next() {
        Token::End => Ok(value),
        other => Err(decoder.unexpected("the end", &other)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    /// The text is in `Decoder::string`.
    String,
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    /// How error messages name it.
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(text) => text,
        }
    }
}

struct Decoder<'a> {
    args: &'a Args<'a>,
    settings: &'a Settings,
    text: &'a [u8],
    at: usize,
    /// Where the present token began, or went wrong.
    start: usize,
    /// The text of the last string.
    string: Vec<u8>,
    depth: usize,
}

impl Decoder<'_> {
    fn unexpected(&self, expected: &str, found: &Token) -> mlua::Error {
        let text = format!("Expected {expected} but found {} at character {}", found.name(), self.start + 1);
        text_error(self.args.lua, text)
    }

    /// The byte `ahead` of the present one; 0 behind the end, as C sees it.
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn error(&mut self, text: &'static str) -> Token {
        self.start = self.at;
        Token::Error(text)
    }

    fn next(&mut self) -> Token {
        while matches!(self.peek(0), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.start = self.at;
        let rest = self.text.get(self.at..).unwrap_or_default();
        let (token, length) = match self.peek(0) {
            // A zero byte ends the text wherever it stands.
            0 => (Token::End, 0),
            b'{' => (Token::ObjectBegin, 1),
            b'}' => (Token::ObjectEnd, 1),
            b'[' => (Token::ArrayBegin, 1),
            b']' => (Token::ArrayEnd, 1),
            b',' => (Token::Comma, 1),
            b':' => (Token::Colon, 1),
            b'"' => return self.quoted(),
            b'-' | b'0'..=b'9' => {
                if !self.settings.decode_invalid_numbers && self.no_json_number() {
                    return self.error("invalid number");
                }
                return self.number();
            }
            b't' if rest.starts_with(b"true") => (Token::Boolean(true), 4),
            b'f' if rest.starts_with(b"false") => (Token::Boolean(false), 5),
            b'n' if rest.starts_with(b"null") => (Token::Null, 4),
            b'f' | b't' | b'i' | b'I' | b'n' | b'N' | b'+'
                if self.settings.decode_invalid_numbers && self.no_json_number() =>
            {
                return self.number();
            }
            _ => return self.error("invalid token"),
        };
        self.at += length;
        token
    }

    fn number(&mut self) -> Token {
        match number::strtod(self.text.get(self.at..).unwrap_or_default()) {
            Some((number, length)) => {
                self.at += length;
                Token::Number(number)
            }
            None => self.error("invalid number"),
        }
    }

    /// Whether C would read a number here that JSON does not have.
    fn no_json_number(&self) -> bool {
        let sign = usize::from(self.peek(0) == b'-');
        let word = self.text.get(self.at + sign..self.at + sign + 3).unwrap_or_default();
        match self.peek(sign) {
            b'+' => sign == 0,
            b'0' => matches!(self.peek(sign + 1), b'x' | b'X' | b'0'..=b'9'),
            _ => word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan"),
        }
    }

    fn quoted(&mut self) -> Token {
        self.at += 1;
        self.string.clear();
        loop {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Token::String;
                }
                0 => return self.error("unexpected end of string"),
                b'\\' => {
                    let plain = match self.peek(1) {
                        escaped @ (b'"' | b'\\' | b'/') => escaped,
                        b'b' => 0x08,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 0x0c,
                        b'r' => b'\r',
                        b'u' => match self.unicode() {
                            Some((character, length)) => {
                                self.string.extend_from_slice(character.as_slice());
                                self.at += length;
                                continue;
                            }
                            None => return self.error("invalid unicode escape code"),
                        },
                        _ => return self.error("invalid escape code"),
                    };
                    self.string.push(plain);
                    self.at += 2;
                }
                byte => {
                    self.string.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// The UTF-8 of the escape `\uXXXX`, or of a surrogate pair of them, and its length.
    fn unicode(&self) -> Option<(Vec<u8>, usize)> {
        let unit = |ahead: usize| {
            (0..4).try_fold(0u32, |value, digit| Some(value * 16 + char::from(self.peek(ahead + digit)).to_digit(16)?))
        };
        let (mut point, mut length) = (unit(2)?, 6);
        if point & 0xf800 == 0xd800 {
            if point & 0x400 != 0 || self.peek(6) != b'\\' || self.peek(7) != b'u' {
                return None;
            }
            let low = unit(8)?;
            if low & 0xfc00 != 0xdc00 {
                return None;
            }
            point = ((point & 0x3ff) << 10 | (low & 0x3ff)) + 0x1_0000;
            length = 12;
        }
        Some((char::from_u32(point)?.to_string().into_bytes(), length))
    }

    fn value(&mut self, token: Token) -> mlua::Result<Value> {
        Ok(match token {
            Token::String => Value::String(self.args.lua.create_string(&self.string)?),
            Token::Number(number) => Value::Number(number),
            Token::Boolean(value) => Value::Boolean(value),
            Token::Null => Value::NULL,
            Token::ObjectBegin => self.nested(Self::object)?,
            Token::ArrayBegin => self.nested(Self::array)?,
            other => return Err(self.unexpected("value", &other)),
        })
    }

    fn nested(&mut self, read: fn(&mut Self) -> mlua::Result<Value>) -> mlua::Result<Value> {
        self.depth += 1;
        if self.depth > DEEPEST || self.depth > self.settings.decode_max_depth as usize {
            let (depth, at) = (self.depth, self.at);
            let text = format!("Found too many nested data structures ({depth}) at character {at}");
            return Err(text_error(self.args.lua, text));
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> mlua::Result<Value> {
        let table = self.args.lua.create_table()?;
        let mut token = self.next();
        if let Token::ObjectEnd = token {
            return Ok(Value::Table(table));
        }
        loop {
            let Token::String = token else { return Err(self.unexpected("object key string", &token)) };
            let key = self.args.lua.create_string(&self.string)?;
            match self.next() {
                Token::Colon => {}
                other => return Err(self.unexpected("colon", &other)),
            }
            token = self.next();
            table.raw_set(key, self.value(token)?)?;
            match self.next() {
                Token::ObjectEnd => return Ok(Value::Table(table)),
                Token::Comma => token = self.next(),
                other => return Err(self.unexpected("comma or object end", &other)),
            }
        }
    }

    fn array(&mut self) -> mlua::Result<Value> {
        let table = self.args.lua.create_table()?;
        let mut token = self.next();
        if let Token::ArrayEnd = token {
            return Ok(Value::Table(table));
        }
        for index in 1.. {
            table.raw_set(index, self.value(token)?)?;
            match self.next() {
                Token::ArrayEnd => break,
                Token::Comma => token = self.next(),
                other => return Err(self.unexpected("comma or array end", &other)),
            }
        }
        Ok(Value::Table(table))
    }
}
