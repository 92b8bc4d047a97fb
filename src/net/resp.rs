//! Parsing of requests: RESP arrays of bulk strings, and inline commands.
//!
//! Hot path: arguments are slices of the read buffer, nothing is copied but inline commands. A request that arrives in
//! pieces is picked up where its last piece ended, so a bulk of 512 MB is looked at once.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use crate::command::numbers::parse_i64;

/// Longest inline request, and longest line of a header, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Most arguments of a request.
pub const MAX_ARRAY: i64 = 1024 * 1024;
/// Most arguments of a request before authentication.
const MAX_ARRAY_BEFORE_AUTH: i64 = 10;
/// Longest bulk string before authentication, in bytes.
const MAX_BULK_BEFORE_AUTH: i64 = 16 * 1024;
/// Memory kept for the argument positions of the next request, in arguments.
const KEPT_POSITIONS: usize = 1024;

/// A request that is no RESP. The connection is closed after the error was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// An inline request longer than [`MAX_LINE`].
    #[error("ERR Protocol error: too big inline request")]
    InlineTooLong,
    /// Quotes of an inline request that do not pair.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The line after `*` does not end.
    #[error("ERR Protocol error: too big mbulk count string")]
    ArrayHeaderTooLong,
    /// The line after `*` is no number, or too large a one.
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidArrayLength,
    /// More arguments than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    ArrayBeforeAuth,
    /// The line after `$` does not end.
    #[error("ERR Protocol error: too big bulk count string")]
    BulkHeaderTooLong,
    /// An element that is no bulk string.
    #[error("ERR Protocol error: expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// The line after `$` is no number, negative, or beyond `proto-max-bulk-len`.
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// A longer argument than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    BulkBeforeAuth,
}

/// What a request may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest bulk string, in bytes (`proto-max-bulk-len`).
    pub max_bulk: u64,
    /// Whether the client still has to authenticate, which makes the limits narrow.
    pub before_auth: bool,
}

/// The state of a request that has arrived in part. All positions count from the start of the read buffer,
/// which begins with that request.
#[derive(Default)]
pub struct RequestParser {
    /// Elements of the array still to come; `None` between requests.
    missing: Option<usize>,
    /// Length of the bulk string whose header was read.
    bulk: Option<usize>,
    /// First byte not yet understood.
    at: usize,
    /// Start and end of the arguments read.
    positions: Vec<(usize, usize)>,
}

enum Step {
    Incomplete,
    Done,
}

impl RequestParser {
    /// Takes the next whole request off `buf` and puts its arguments into `args`. Returns false, leaving `args` as
    /// it was, when there is none. Empty requests are skipped.
    pub fn next(&mut self, buf: &mut BytesMut, args: &mut Vec<Bytes>, limits: &Limits) -> Result<bool, ProtocolError> {
        loop {
            if self.missing.is_none() {
                match buf.first() {
                    None => return Ok(false),
                    Some(b'*') => {
                        if let Step::Incomplete = self.array_header(buf, limits)? {
                            return Ok(false);
                        }
                    }
                    Some(_) => match inline(buf, args)? {
                        Step::Incomplete => return Ok(false),
                        Step::Done if args.is_empty() => continue,
                        Step::Done => return Ok(true),
                    },
                }
            }
            if let Step::Incomplete = self.elements(buf, limits)? {
                return Ok(false);
            }
            let empty = self.positions.is_empty();
            self.take(buf, args);
            if !empty {
                return Ok(true);
            }
        }
    }

    /// Bytes that the present bulk string still needs when `have` bytes are in the buffer; 0 when
    /// that is not known.
    pub fn wanted(&self, have: usize) -> usize {
        self.bulk.map_or(0, |len| (self.at + len + 2).saturating_sub(have))
    }

    fn array_header(&mut self, buf: &[u8], limits: &Limits) -> Result<Step, ProtocolError> {
        let Some((line, next)) = header_line(buf, 0) else {
            return if buf.len() > MAX_LINE { Err(ProtocolError::ArrayHeaderTooLong) } else { Ok(Step::Incomplete) };
        };
        let count = parse_i64(line).filter(|count| *count <= MAX_ARRAY).ok_or(ProtocolError::InvalidArrayLength)?;
        if limits.before_auth && count > MAX_ARRAY_BEFORE_AUTH {
            return Err(ProtocolError::ArrayBeforeAuth);
        }
        self.missing = Some(usize::try_from(count).unwrap_or(0));
        self.at = next;
        Ok(Step::Done)
    }

    fn elements(&mut self, buf: &[u8], limits: &Limits) -> Result<Step, ProtocolError> {
        while let Some(missing @ 1..) = self.missing {
            let len = match self.bulk {
                Some(len) => len,
                None => match self.bulk_header(buf, limits)? {
                    Some(len) => len,
                    None => return Ok(Step::Incomplete),
                },
            };
            if buf.len() < self.at + len + 2 {
                return Ok(Step::Incomplete);
            }
            self.positions.push((self.at, self.at + len));
            self.at += len + 2;
            self.bulk = None;
            self.missing = Some(missing - 1);
        }
        Ok(Step::Done)
    }

    fn bulk_header(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let Some((line, next)) = header_line(buf, self.at) else {
            return if buf.len() - self.at > MAX_LINE { Err(ProtocolError::BulkHeaderTooLong) } else { Ok(None) };
        };
        if buf[self.at] != b'$' {
            return Err(ProtocolError::ExpectedBulk(char::from(buf[self.at])));
        }
        let len = parse_i64(line)
            .filter(|len| *len >= 0 && *len as u64 <= limits.max_bulk)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if limits.before_auth && len > MAX_BULK_BEFORE_AUTH {
            return Err(ProtocolError::BulkBeforeAuth);
        }
        self.at = next;
        self.bulk = Some(len as usize);
        Ok(self.bulk)
    }

    fn take(&mut self, buf: &mut BytesMut, args: &mut Vec<Bytes>) {
        args.clear();
        let frame = buf.split_to(self.at).freeze();
        args.extend(self.positions.iter().map(|(start, end)| frame.slice(*start..*end)));
        self.positions.clear();
        self.positions.shrink_to(KEPT_POSITIONS);
        self.missing = None;
        self.at = 0;
    }
}

/// The line that starts at `at`, without its first byte and its end, and where the next one starts. Like Redis, takes
/// the byte after CR for LF without looking.
fn header_line(buf: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = buf.get(at..)?;
    let end = memchr(b'\r', rest)?;
    (end + 1 < rest.len()).then(|| (rest.get(1..end).unwrap_or_default(), at + end + 2))
}

/// Takes an inline request off `buf`.
fn inline(buf: &mut BytesMut, args: &mut Vec<Bytes>) -> Result<Step, ProtocolError> {
    let Some(end) = memchr(b'\n', buf) else {
        return if buf.len() > MAX_LINE { Err(ProtocolError::InlineTooLong) } else { Ok(Step::Incomplete) };
    };
    let line = &buf[..end];
    *args = split_line(line.strip_suffix(b"\r").unwrap_or(line)).ok_or(ProtocolError::UnbalancedQuotes)?;
    buf.advance(end + 1);
    Ok(Step::Done)
}

/// Splits a line into words by Redis's quoting rules: `"…"` with `\n \r \t \b \a \xHH` and `\` before any other byte,
/// `'…'` with `\'`; a closing quote ends the word. `None` when quotes do not pair.
pub fn split_line(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut rest = line;
    let mut words = Vec::new();
    loop {
        while let [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        rest = split_word(rest, &mut word)?;
        words.push(Bytes::from(word));
    }
}

fn split_word<'l>(mut rest: &'l [u8], word: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [b' ' | b'\t' | b'\n' | b'\r', ..] => return Some(rest),
            [b'"', tail @ ..] => return closed(double_quoted(tail, word)?),
            [b'\'', tail @ ..] => return closed(single_quoted(tail, word)?),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn closed(rest: &[u8]) -> Option<&[u8]> {
    matches!(rest, [] | [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..]).then_some(rest)
}

fn double_quoted<'l>(mut rest: &'l [u8], word: &mut Vec<u8>) -> Option<&'l [u8]> {
    let hex = |digit: &u8| char::from(*digit).to_digit(16);
    loop {
        match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', high, low, tail @ ..] if hex(high).is_some() && hex(low).is_some() => {
                word.push((hex(high)? * 16 + hex(low)?) as u8);
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'l>(mut rest: &'l [u8], word: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: Limits = Limits { max_bulk: 512 << 20, before_auth: false };

    /// Feeds `pieces` one after the other.
    fn parse(pieces: &[&[u8]], limits: &Limits) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let (mut parser, mut buf, mut args, mut requests) = <(RequestParser, BytesMut, Vec<Bytes>, Vec<_>)>::default();
        for piece in pieces {
            buf.extend_from_slice(piece);
            while parser.next(&mut buf, &mut args, limits)? {
                requests.push(args.iter().map(|arg| arg.to_vec()).collect());
            }
        }
        Ok(requests)
    }

    fn words(line: &str) -> Option<Vec<String>> {
        split_line(line.as_bytes())
            .map(|words| words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    #[test]
    fn arrays_inline_and_empty_requests() {
        let stream = b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*0\r\n*-1\r\n\r\nping  x\nPING\r\n*1\r\n$4\r\nPI\r\n\r\n";
        let requests = parse(&[stream], &OPEN).unwrap();
        let wanted: Vec<Vec<Vec<u8>>> = vec![
            vec![b"GET".to_vec(), b"".to_vec()],
            vec![b"ping".to_vec(), b"x".to_vec()],
            vec![b"PING".to_vec()],
            vec![b"PI\r\n".to_vec()],
        ];
        assert_eq!(requests, wanted);
    }

    #[test]
    fn quoting() {
        assert_eq!(words(r#"set "a b" 'c d'"#).unwrap(), ["set", "a b", "c d"]);
        assert_eq!(words(r#""\x41\n\q" '\'' a"b""#).unwrap(), ["A\nq", "'", "ab"]);
        assert_eq!(words("  ").unwrap(), [] as [&str; 0]);
        assert_eq!(words("\"\"").unwrap(), [""]);
        for broken in ["\"a", "'a", "\"a\"b", "'a'b", "\"a\\"] {
            assert_eq!(words(broken), None, "{broken}");
        }
    }

    #[test]
    fn errors_in_redis_words() {
        let narrow = Limits { max_bulk: 512 << 20, before_auth: true };
        let long = [b'a'; MAX_LINE + 2];
        let (mut array, mut bulk) = (long.to_vec(), b"*1\r\n".to_vec());
        array[0] = b'*';
        bulk.extend_from_slice(&[b"$", &long[..]].concat());
        let cases: &[(&[u8], &Limits, &str)] = &[
            (b"*x\r\n", &OPEN, "invalid multibulk length"),
            (b"*1048577\r\n", &OPEN, "invalid multibulk length"),
            (b"*11\r\n", &narrow, "unauthenticated multibulk length"),
            (b"*1\r\n+4\r\n", &OPEN, "expected '$', got '+'"),
            (b"*1\r\n$x\r\n", &OPEN, "invalid bulk length"),
            (b"*1\r\n$-1\r\n", &OPEN, "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", &OPEN, "invalid bulk length"),
            (b"*1\r\n$16385\r\n", &narrow, "unauthenticated bulk length"),
            (b"set \"a\r\n", &OPEN, "unbalanced quotes in request"),
            (&long, &OPEN, "too big inline request"),
            (&array, &OPEN, "too big mbulk count string"),
            (&bulk, &OPEN, "too big bulk count string"),
        ];
        for (stream, limits, text) in cases {
            let error = parse(&[stream], limits).unwrap_err();
            assert_eq!(error.to_string(), format!("ERR Protocol error: {text}"));
        }
        assert_eq!(parse(&[b"*1048576\r\n"], &OPEN).unwrap().len(), 0);
        assert_eq!(parse(&[b"*1\r\n$536870912\r\n"], &OPEN).unwrap().len(), 0);
    }

    #[test]
    fn says_how_much_a_bulk_still_needs() {
        let (mut parser, mut buf, mut args) = <(RequestParser, BytesMut, Vec<Bytes>)>::default();
        buf.extend_from_slice(b"*2\r\n$3\r\nSET\r\n$100\r\nabc");
        assert!(!parser.next(&mut buf, &mut args, &OPEN).unwrap());
        assert_eq!(parser.wanted(buf.len()), 99);
    }

    #[derive(Clone, Debug)]
    enum Sent {
        Array(Vec<Vec<u8>>),
        Inline(Vec<String>),
    }

    fn sent() -> impl Strategy<Value = Sent> {
        prop_oneof![
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6).prop_map(Sent::Array),
            proptest::collection::vec("[a-z0-9$+-]{1,8}", 0..4).prop_map(Sent::Inline),
        ]
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_requests(
            requests in proptest::collection::vec(sent(), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let (mut stream, mut wanted) = (Vec::new(), Vec::new());
            for request in &requests {
                let args: Vec<Vec<u8>> = match request {
                    Sent::Array(args) => {
                        stream.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
                        for arg in args {
                            stream.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                            stream.extend_from_slice(arg);
                            stream.extend_from_slice(b"\r\n");
                        }
                        args.clone()
                    }
                    Sent::Inline(words) => {
                        stream.extend_from_slice(words.join(" ").as_bytes());
                        stream.extend_from_slice(b"\r\n");
                        words.iter().map(|word| word.clone().into_bytes()).collect()
                    }
                };
                if !args.is_empty() {
                    wanted.push(args);
                }
            }
            prop_assert_eq!(&parse(&[&stream], &OPEN).unwrap(), &wanted);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&stream[from..cut]);
                from = cut;
            }
            pieces.push(&stream[from..]);
            prop_assert_eq!(&parse(&pieces, &OPEN).unwrap(), &wanted);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&parse(&bytes, &OPEN).unwrap(), &wanted);
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(stream in proptest::collection::vec(any::<u8>(), 0..300)) {
            let whole = parse(&[&stream], &OPEN);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(whole, parse(&bytes, &OPEN));
        }
    }
}
