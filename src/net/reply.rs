//! Encoding of replies, RESP2 and RESP3. Hot path: appends to one buffer, nothing else.

use crate::rdb::score;

/// Replies of a connection, encoded and waiting to be written.
pub struct Reply {
    out: Vec<u8>,
    proto: u8,
    /// Bytes beyond which values are dropped, so that no reply takes the memory of all.
    limit: usize,
    overflowed: bool,
    /// Bytes beyond which values are dropped because the client is to be closed.
    hard_limit: usize,
    over_hard_limit: bool,
}

impl Default for Reply {
    fn default() -> Self {
        Self::new(2)
    }
}

impl Reply {
    /// An empty buffer that encodes RESP2 or RESP3.
    pub fn new(proto: u8) -> Self {
        Reply {
            out: Vec::new(),
            proto,
            limit: usize::MAX,
            overflowed: false,
            hard_limit: usize::MAX,
            over_hard_limit: false,
        }
    }

    /// The protocol version, 2 or 3.
    pub fn proto(&self) -> u8 {
        self.proto
    }

    /// Encodes what follows in this version.
    pub fn set_proto(&mut self, proto: u8) {
        self.proto = proto;
    }

    /// Sets how many bytes may wait. What comes beyond is dropped, and [`Reply::take_overflow`] tells.
    pub fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// How many bytes may wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether something was dropped since the last call: then what is encoded is no whole reply.
    pub fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Sets how many bytes may wait before the client is closed for it: what comes beyond is dropped, and
    /// [`Reply::is_over_hard_limit`] tells.
    pub fn set_hard_limit(&mut self, bytes: usize) {
        self.hard_limit = bytes;
        self.over_hard_limit = false;
    }

    /// Whether something was dropped because of the hard limit since that was set.
    pub fn is_over_hard_limit(&self) -> bool {
        self.over_hard_limit
    }

    /// Whether `more` bytes may be added.
    fn admits(&mut self, more: usize) -> bool {
        let wanted = self.out.len().saturating_add(more);
        if wanted > self.hard_limit {
            self.over_hard_limit = true;
            return false;
        }
        let fits = wanted <= self.limit;
        self.overflowed |= !fits;
        fits
    }

    /// Bytes encoded and not yet taken.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes back everything after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// What is encoded so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.out
    }

    /// Bytes allocated.
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }

    /// Empties the buffer and gives memory beyond `keep` bytes back.
    pub fn clear(&mut self, keep: usize) {
        self.out.clear();
        self.out.shrink_to(keep);
    }

    /// Appends bytes that are RESP already.
    pub fn raw(&mut self, resp: &[u8]) {
        if self.admits(resp.len()) {
            self.out.extend_from_slice(resp);
        }
    }

    /// `+text`; CR and LF become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`; `text` starts with its code, as in `ERR syntax error`. CR and LF become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text.as_bytes());
        for byte in self.out.iter_mut().skip(start) {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn header(&mut self, kind: u8, number: i64) {
        if !self.admits(0) {
            return;
        }
        let mut digits = itoa::Buffer::new();
        self.out.push(kind);
        self.out.extend_from_slice(digits.format(number).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn int(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// A bulk string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        if !self.admits(bytes.len()) {
            return;
        }
        self.out.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer as a bulk string.
    pub fn bulk_int(&mut self, number: i64) {
        self.bulk(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The null value: `$-1`, in RESP3 `_`.
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.proto >= 3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The null array: `*-1`, in RESP3 `_`.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.proto >= 3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The header of an array of `len` values, which must follow.
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// The header of a map of `len` pairs; in RESP2 an array of twice as many values.
    pub fn map(&mut self, len: usize) {
        if self.proto >= 3 { self.header(b'%', len as i64) } else { self.array(2 * len) }
    }

    /// The header of a set of `len` values; in RESP2 an array.
    pub fn set(&mut self, len: usize) {
        self.header(if self.proto >= 3 { b'~' } else { b'*' }, len as i64);
    }

    /// The header of an out-of-band push of `len` values; in RESP2 an array.
    pub fn push(&mut self, len: usize) {
        self.header(if self.proto >= 3 { b'>' } else { b'*' }, len as i64);
    }

    /// A double; in RESP2 a bulk string.
    pub fn double(&mut self, number: f64) {
        self.decimal(&format_double(number));
    }

    /// A number as the text it is to be read from; in RESP2 a bulk string.
    pub fn decimal(&mut self, text: &str) {
        if self.proto >= 3 { self.line(b',', text) } else { self.bulk(text.as_bytes()) }
    }

    /// The header of `len` attributes of the reply that follows them; RESP3 only.
    pub fn attribute(&mut self, len: usize) {
        self.header(b'|', len as i64);
    }

    /// A whole number of any size, as its decimal digits; in RESP2 a bulk string.
    pub fn big_number(&mut self, digits: &str) {
        if self.proto >= 3 { self.line(b'(', digits) } else { self.bulk(digits.as_bytes()) }
    }

    /// A boolean; in RESP2 1 or 0.
    pub fn bool(&mut self, value: bool) {
        match (self.proto >= 3, value) {
            (true, true) => self.out.extend_from_slice(b"#t\r\n"),
            (true, false) => self.out.extend_from_slice(b"#f\r\n"),
            (false, value) => self.int(i64::from(value)),
        }
    }

    /// Text for people in a `format` of three letters (`txt`, `mkd`); in RESP2 a bulk string.
    pub fn verbatim(&mut self, format: &str, bytes: &[u8]) {
        if self.proto < 3 {
            return self.bulk(bytes);
        }
        self.header(b'=', (bytes.len() + format.len() + 1) as i64);
        self.out.extend_from_slice(format.as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }
}

/// A double as Redis 7.0 prints it, as C's `%.17g` does: 17 digits tell every two doubles apart, and 3.1 is `3.1000000000000001`.
pub fn format_double(number: f64) -> String {
    // Below this, whole numbers have at most 17 digits; the sign of a zero would be lost.
    const MAX_WHOLE: f64 = 1e17;
    if number.trunc() == number && number.abs() < MAX_WHOLE && !(number == 0.0 && number.is_sign_negative()) {
        return itoa::Buffer::new().format(number as i64).to_owned();
    }
    score::general(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(proto: u8, write: impl FnOnce(&mut Reply)) -> String {
        let mut reply = Reply::new(proto);
        write(&mut reply);
        String::from_utf8(reply.out).unwrap()
    }

    #[test]
    fn both_protocols() {
        type Write = fn(&mut Reply);
        let cases: &[(Write, &str, &str)] = &[
            (|r| r.ok(), "+OK\r\n", "+OK\r\n"),
            (|r| r.error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (|r| r.int(-7), ":-7\r\n", ":-7\r\n"),
            (|r| r.bulk(b"a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n"),
            (|r| r.bulk_int(12), "$2\r\n12\r\n", "$2\r\n12\r\n"),
            (|r| r.null(), "$-1\r\n", "_\r\n"),
            (|r| r.null_array(), "*-1\r\n", "_\r\n"),
            (|r| r.array(2), "*2\r\n", "*2\r\n"),
            (|r| r.map(2), "*4\r\n", "%2\r\n"),
            (|r| r.set(2), "*2\r\n", "~2\r\n"),
            (|r| r.push(2), "*2\r\n", ">2\r\n"),
            (|r| r.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (|r| r.bool(true), ":1\r\n", "#t\r\n"),
            (|r| r.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
        ];
        for (write, resp2, resp3) in cases {
            assert_eq!(encoded(2, write), *resp2);
            assert_eq!(encoded(3, write), *resp3);
        }
    }

    #[test]
    fn doubles_as_redis_prints_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (3.1, "3.1000000000000001"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e7, "10000000"),
            (99999999999999984.0, "99999999999999984"),
            (1e17, "1e+17"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (1e20, "1e+20"),
            (1.5e300, "1.5000000000000001e+300"),
            // These are ….25 and ….75: ties.
            (1234567890123456.2, "1234567890123456.2"),
            (1234567890123456.8, "1234567890123456.8"),
            (0.001, "0.001"),
            (1e-10, "1e-10"),
            (1e-5, "1.0000000000000001e-05"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format_double(number), text);
        }
    }

    proptest! {
        #[test]
        fn doubles_read_back(number in proptest::num::f64::NORMAL) {
            prop_assert_eq!(format_double(number).parse::<f64>().unwrap(), number);
        }
    }
}
