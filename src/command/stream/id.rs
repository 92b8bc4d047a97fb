//! IDs of entries, as clients write them and as we answer them.

use bytes::Bytes;

use crate::command::CommandError;
use crate::keyspace::types::stream::Entry;
use crate::net::Reply;
use crate::rdb::StreamId;

const INVALID: CommandError = CommandError::Static("ERR Invalid stream ID specified as stream command argument");
/// Bytes that an ID may take.
const MAX_LEN: usize = 127;

/// The ID of a new entry, as XADD asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewId {
    /// `*`
    Auto,
    /// `ms-*`
    AutoSeq(u64),
    Given(StreamId),
}

/// A number as C reads it: white space, a plus sign and zeros may stand before the digits.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b'-') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// An ID, of which the part after the dash may be missing.
pub(super) fn strict(text: &[u8], missing_seq: u64) -> Result<StreamId, CommandError> {
    if text.len() > MAX_LEN {
        return Err(INVALID);
    }
    let (ms, seq) = split(text);
    let seq = seq.map_or(Some(missing_seq), number);
    number(ms).zip(seq).map(|(ms, seq)| StreamId { ms, seq }).ok_or(INVALID)
}

/// An ID, or `-` or `+` for the smallest or largest one.
pub(super) fn or_edge(text: &[u8], missing_seq: u64) -> Result<StreamId, CommandError> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => strict(text, missing_seq),
    }
}

/// The ID of a new entry.
pub(super) fn new_id(text: &[u8]) -> Result<NewId, CommandError> {
    match split(text) {
        _ if text == b"*" => Ok(NewId::Auto),
        (ms, Some(b"*")) if text.len() <= MAX_LEN => number(ms).map(NewId::AutoSeq).ok_or(INVALID),
        _ => strict(text, 0).map(NewId::Given),
    }
}

/// The start of an interval: an ID, `-`, `+`, or `(` and an ID that is not part of it.
pub(super) fn start(text: &[u8]) -> Result<StreamId, CommandError> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => {
            let none = CommandError::Static("ERR invalid start ID for the interval");
            strict(rest, 0)?.next().ok_or(none)
        }
        _ => or_edge(text, 0),
    }
}

/// The end of an interval, written like its [`start`].
pub(super) fn end(text: &[u8]) -> Result<StreamId, CommandError> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => {
            let none = CommandError::Static("ERR invalid end ID for the interval");
            strict(rest, u64::MAX)?.previous().ok_or(none)
        }
        _ => or_edge(text, u64::MAX),
    }
}

/// Several IDs.
pub(super) fn all(args: &[Bytes]) -> Result<Vec<StreamId>, CommandError> {
    args.iter().map(|arg| strict(arg, 0)).collect()
}

/// Replies with an ID.
pub(super) fn write(reply: &mut Reply, id: StreamId) {
    let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
    let text = [ms.format(id.ms).as_bytes(), b"-", seq.format(id.seq).as_bytes()].concat();
    reply.bulk(&text);
}

/// Replies with an entry: its ID, and its fields and values.
pub(super) fn write_entry(reply: &mut Reply, id: StreamId, entry: Entry<'_>) {
    reply.array(2);
    write(reply, id);
    let elements = entry.elements();
    reply.array(elements.clone().count());
    elements.for_each(|element| reply.bulk(element));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_id() {
        let id = |ms, seq| Some(StreamId { ms, seq });
        for (text, parsed) in [
            ("5", id(5, 9)),
            ("5-7", id(5, 7)),
            ("0-0", id(0, 0)),
            ("+5-007", id(5, 7)),
            ("18446744073709551615-18446744073709551615", id(u64::MAX, u64::MAX)),
            ("18446744073709551616-0", None),
            ("", None),
            ("-", None),
            ("+", None),
            ("5-", None),
            ("-5", None),
            ("5-6-7", None),
            ("5-*", None),
            ("*", None),
            ("++5", None),
        ] {
            assert_eq!(strict(text.as_bytes(), 9).ok(), parsed, "{text}");
        }
    }

    #[test]
    fn new_ids_and_intervals() {
        assert_eq!(new_id(b"*").unwrap(), NewId::Auto);
        assert_eq!(new_id(b"7-*").unwrap(), NewId::AutoSeq(7));
        assert_eq!(new_id(b"7").unwrap(), NewId::Given(StreamId { ms: 7, seq: 0 }));
        assert_eq!(start(b"(7").unwrap(), StreamId { ms: 7, seq: 1 });
        assert_eq!(end(b"7").unwrap(), StreamId { ms: 7, seq: u64::MAX });
        assert_eq!(end(b"(7-0").unwrap(), StreamId { ms: 6, seq: u64::MAX });
        for bad in [&b"(-"[..], b"(+", b"(", b"(18446744073709551615-18446744073709551615"] {
            assert!(start(bad).is_err());
        }
        assert!(end(b"(0-0").is_err());
    }
}
