//! A thin RESP2/RESP3 client that hides nothing: arguments out, replies in, raw bytes when a
//! test wants them.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use super::DEADLINE;

/// One reply, as it came over the wire.
#[derive(Clone, PartialEq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`, without the dash.
    Error(String),
    /// `:1`
    Int(i64),
    /// `$3`
    Bulk(Vec<u8>),
    /// `$-1` (RESP2) or `_` (RESP3).
    Nil,
    /// `*-1` (RESP2).
    NilArray,
    /// `*2`
    Array(Vec<Reply>),
    /// `%1` (RESP3).
    Map(Vec<(Reply, Reply)>),
    /// `~1` (RESP3).
    Set(Vec<Reply>),
    /// `>1` (RESP3).
    Push(Vec<Reply>),
    /// `,1.5` (RESP3), its text.
    Double(String),
    /// `#t` (RESP3).
    Bool(bool),
    /// `=7` (RESP3): format and text.
    Verbatim(String, Vec<u8>),
    /// `(12345` (RESP3), its text.
    BigNumber(String),
}

impl Reply {
    /// `+OK`.
    pub fn ok() -> Reply {
        Reply::Simple("OK".into())
    }

    /// A bulk string with this text.
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }

    /// An array of bulk strings.
    pub fn bulks<T: AsRef<[u8]>>(texts: &[T]) -> Reply {
        Reply::Array(texts.iter().map(Reply::bulk).collect())
    }

    /// An error with this text.
    pub fn error(text: impl Into<String>) -> Reply {
        Reply::Error(text.into())
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Reply::Nil | Reply::NilArray)
    }

    /// Panics unless this is `+OK`.
    #[track_caller]
    pub fn expect_ok(&self) {
        assert_eq!(*self, Reply::ok());
    }

    /// The text of a simple or bulk string; panics on anything else.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Reply::Simple(text) | Reply::Double(text) | Reply::BigNumber(text) => text.clone(),
            Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("a string was expected, not {other:?}"),
        }
    }

    /// The bytes of a bulk string; panics on anything else.
    #[track_caller]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => bytes,
            other => panic!("a bulk string was expected, not {other:?}"),
        }
    }

    /// The integer; panics on anything else.
    #[track_caller]
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(value) => *value,
            other => panic!("an integer was expected, not {other:?}"),
        }
    }

    /// The elements of an array, set or push; panics on anything else.
    #[track_caller]
    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items,
            other => panic!("an array was expected, not {other:?}"),
        }
    }

    /// The texts of an array of strings.
    #[track_caller]
    pub fn texts(&self) -> Vec<String> {
        self.items().iter().map(Reply::text).collect()
    }

    /// The text of an error; panics on anything else.
    #[track_caller]
    pub fn error_text(&self) -> &str {
        match self {
            Reply::Error(text) => text,
            other => panic!("an error was expected, not {other:?}"),
        }
    }

    /// A map's value under `key`, also of RESP2's flat array; panics when there is none.
    #[track_caller]
    pub fn field(&self, key: &str) -> &Reply {
        let found = match self {
            Reply::Map(pairs) => pairs.iter().find(|(k, _)| k.text() == key).map(|(_, v)| v),
            Reply::Array(items) => items.chunks_exact(2).find(|pair| pair[0].text() == key).map(|pair| &pair[1]),
            _ => None,
        };
        found.unwrap_or_else(|| panic!("no field {key} in {self:?}"))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(text) => write!(f, "+{text}"),
            Reply::Error(text) => write!(f, "-{text}"),
            Reply::Int(value) => write!(f, ":{value}"),
            Reply::Bulk(bytes) => write_bytes(f, bytes),
            Reply::Nil => f.write_str("nil"),
            Reply::NilArray => f.write_str("nil-array"),
            Reply::Array(items) => f.debug_list().entries(items).finish(),
            Reply::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Reply::Set(items) => f.write_str("~").and_then(|()| f.debug_list().entries(items).finish()),
            Reply::Push(items) => f.write_str(">").and_then(|()| f.debug_list().entries(items).finish()),
            Reply::Double(text) => write!(f, ",{text}"),
            Reply::Bool(value) => write!(f, "#{value}"),
            Reply::Verbatim(format, bytes) => write!(f, "={format}:").and_then(|()| write_bytes(f, bytes)),
            Reply::BigNumber(text) => write!(f, "({text}"),
        }
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const SHOWN: usize = 200;
    write!(f, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
    if bytes.len() > SHOWN {
        write!(f, "… {} bytes", bytes.len())?;
    }
    Ok(())
}

/// One connection. Methods without `try` panic when the connection fails: a test that expects
/// that uses the others.
pub struct Conn {
    reader: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Conn {
    /// Connects to 127.0.0.1.
    #[track_caller]
    pub fn to(port: u16) -> Conn {
        Conn::try_to(port).unwrap_or_else(|e| panic!("cannot connect to port {port}: {e}"))
    }

    pub fn try_to(port: u16) -> io::Result<Conn> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let reader = BufReader::with_capacity(64 << 10, stream);
        Ok(Conn { reader, out: Vec::new() })
    }

    /// Sends one command and reads its reply.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        let shown = || String::from_utf8_lossy(args[0].as_ref()).into_owned();
        self.try_call(args).unwrap_or_else(|e| panic!("{}: {e}", shown()))
    }

    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.push(args);
        self.try_flush()?;
        self.try_read()
    }

    /// Sends one command written as in redis-cli: words, or text in double quotes with
    /// `\n`, `\r`, `\t`, `\"`, `\\` and `\xNN`, or in single quotes as it is.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Reply {
        let args = split_line(line);
        self.call(&args)
    }

    /// SELECT.
    #[track_caller]
    pub fn select(&mut self, db: usize) {
        self.call(&["SELECT", &db.to_string()]).expect_ok();
    }

    /// Adds a command to what [`Conn::flush`] sends.
    pub fn push<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        encode(&mut self.out, args);
    }

    /// Sends everything pushed.
    #[track_caller]
    pub fn flush(&mut self) {
        self.try_flush().expect("send");
    }

    pub fn try_flush(&mut self) -> io::Result<()> {
        let sent = self.reader.get_mut().write_all(&self.out);
        self.out.clear();
        sent
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("send");
    }

    /// Reads one reply.
    #[track_caller]
    pub fn read(&mut self) -> Reply {
        self.try_read().expect("a reply")
    }

    /// Reads `count` replies.
    #[track_caller]
    pub fn read_many(&mut self, count: usize) -> Vec<Reply> {
        (0..count).map(|_| self.read()).collect()
    }

    /// Sends all commands in one go, then reads their replies.
    #[track_caller]
    pub fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Vec<Reply> {
        for args in commands {
            self.push(args);
        }
        self.flush();
        self.read_many(commands.len())
    }

    /// Reads exactly `count` bytes.
    #[track_caller]
    pub fn read_raw(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("raw bytes");
        bytes
    }

    /// Reads until the server closes the connection.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("waiting for the server to close: {e}"),
        }
        bytes
    }

    /// Tells the server that nothing more will be sent.
    pub fn close_write(&mut self) {
        let _ = self.reader.get_mut().shutdown(Shutdown::Write);
    }

    /// A second handle of the same socket, to send from another thread.
    pub fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().expect("a second handle")
    }

    pub fn try_read(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| bad("an empty line"))?;
        let text = || rest.to_string();
        Ok(match kind {
            "+" => Reply::Simple(text()),
            "-" => Reply::Error(text()),
            ":" => Reply::Int(number(rest)?),
            "$" => self.blob(rest)?.map_or(Reply::Nil, Reply::Bulk),
            "*" if number(rest)? < 0 => Reply::NilArray,
            "*" => Reply::Array(self.many(number(rest)?)?),
            "~" => Reply::Set(self.many(number(rest)?)?),
            ">" => Reply::Push(self.many(number(rest)?)?),
            "%" => {
                let pairs = number(rest)?;
                let pairs = (0..pairs).map(|_| Ok((self.try_read()?, self.try_read()?)));
                Reply::Map(pairs.collect::<io::Result<_>>()?)
            }
            "_" => Reply::Nil,
            "," => Reply::Double(text()),
            "#" => Reply::Bool(rest == "t"),
            "(" => Reply::BigNumber(text()),
            "=" => {
                let bytes = self.blob(rest)?.ok_or_else(|| bad("a null verbatim string"))?;
                let (format, body) = bytes.split_at_checked(4).ok_or_else(|| bad("a short one"))?;
                let format = String::from_utf8_lossy(&format[..3]).into_owned();
                Reply::Verbatim(format, body.to_vec())
            }
            _ => return Err(bad(&format!("an unknown reply {line:?}"))),
        })
    }

    fn many(&mut self, count: i64) -> io::Result<Vec<Reply>> {
        (0..count).map(|_| self.try_read()).collect()
    }

    fn blob(&mut self, len: &str) -> io::Result<Option<Vec<u8>>> {
        let Ok(len) = usize::try_from(number(len)?) else {
            return Ok(None);
        };
        let mut bytes = vec![0; len + 2];
        self.reader.read_exact(&mut bytes)?;
        if !bytes.ends_with(b"\r\n") {
            return Err(bad("a bulk string without its end"));
        }
        bytes.truncate(len);
        Ok(Some(bytes))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            let closed = io::ErrorKind::UnexpectedEof;
            return Err(io::Error::new(closed, "the server closed the connection"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| bad("a line that is not UTF-8"))
    }
}

/// Appends a command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Splits a command as redis-cli does; panics on an open quote.
pub fn split_line(line: &str) -> Vec<Vec<u8>> {
    let mut args = Vec::new();
    let mut rest = line.trim_start().as_bytes();
    while let Some(&first) = rest.first() {
        let (arg, used) = match first {
            b'"' => split_quoted(rest, line),
            b'\'' => {
                let end = rest[1..].iter().position(|&b| b == b'\'');
                let end = end.unwrap_or_else(|| panic!("an open quote in {line:?}"));
                (rest[1..1 + end].to_vec(), end + 2)
            }
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), end)
            }
        };
        args.push(arg);
        rest = rest[used..].trim_ascii_start();
    }
    args
}

fn split_quoted(rest: &[u8], line: &str) -> (Vec<u8>, usize) {
    let mut arg = Vec::new();
    let mut i = 1;
    loop {
        match (rest.get(i), rest.get(i + 1)) {
            (Some(b'"'), _) => return (arg, i + 1),
            (Some(b'\\'), Some(b'x')) => {
                let digits = rest.get(i + 2..i + 4).map(String::from_utf8_lossy);
                let byte = digits.and_then(|d| u8::from_str_radix(&d, 16).ok());
                arg.push(byte.unwrap_or_else(|| panic!("a bad \\x in {line:?}")));
                i += 4;
            }
            (Some(b'\\'), Some(&escaped)) => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                });
                i += 2;
            }
            (Some(&byte), _) => {
                arg.push(byte);
                i += 1;
            }
            (None, _) => panic!("an open quote in {line:?}"),
        }
    }
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| bad(&format!("a bad number {text:?}")))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
