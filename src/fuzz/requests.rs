//! Requests of clients.

use bytes::{Bytes, BytesMut};

use super::{Answer, Fuzz, answer};
use crate::net::resp::{Limits, ProtocolError, RequestParser, split_line};

/// More requests than this of one input are not looked at.
const MAX_REQUESTS: usize = 1000;

type Outcome = (Vec<Vec<Bytes>>, Result<usize, ProtocolError>);

/// What a parser makes of an input that arrives in pieces of `piece` bytes: the requests, and the bytes that were left or the error.
fn parse(input: &[u8], piece: usize, limits: &Limits) -> Outcome {
    let mut parser = RequestParser::default();
    let (mut buffer, mut args) = (BytesMut::new(), Vec::new());
    let mut requests = Vec::new();
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match parser.next(&mut buffer, &mut args, limits) {
                Ok(true) => requests.push(std::mem::take(&mut args)),
                Ok(false) => break,
                Err(e) => return (requests, Err(e)),
            }
            if requests.len() > MAX_REQUESTS {
                return (requests, Ok(0));
            }
        }
        let wanted = parser.wanted(buffer.len());
        assert!(wanted as u64 <= limits.max_bulk + 2, "wants {wanted} bytes more");
    }
    (requests, Ok(buffer.len()))
}

fn check(input: &[u8]) -> Answer {
    let mut answers = Vec::new();
    for limits in [Limits { max_bulk: 1 << 20, before_auth: false }, Limits { max_bulk: 1 << 29, before_auth: true }] {
        let (requests, end) = parse(input, input.len().max(1), &limits);
        for piece in [1, 2, 7] {
            let (same, same_end) = parse(input, piece, &limits);
            if requests.len() <= MAX_REQUESTS {
                assert_eq!(requests, same, "in pieces of {piece}");
                assert_eq!(end, same_end, "in pieces of {piece}");
            }
        }
        assert!(requests.iter().all(|request| !request.is_empty()));
        answers.push((requests.len().checked_ilog2(), end.is_ok(), end.err().map(|e| e.to_string())));
    }
    for line in input.split(|byte| *byte == b'\n') {
        let words = split_line(line);
        let longest = words.iter().flatten().map(Bytes::len).max();
        assert!(longest.unwrap_or(0) <= line.len());
        answers.push((words.as_ref().and_then(|w| w.len().checked_ilog2()), words.is_some(), None));
    }
    answers.truncate(8);
    answer(answers)
}

#[test]
fn requests() {
    let seeds = [
        &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n"[..],
        b"PING\r\nSET \"a b\" 'c d' \"\\x00\\n\"\r\n",
        b"*0\r\n*-1\r\n*1\r\n$0\r\n\r\n",
        b"*2\r\n$3\r\nGET\r\n$10\r\n0123456789\r\n\r\n\r\nECHO x\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"*2\r\n$4\r\nECHO\r\n$536870912\r\nx",
        b"*1048576\r\n$1\r\na\r\n",
    ];
    let tokens = ["\r\n", "*1\r\n", "$1\r\n", "$-1\r\n", "*1048577\r\n", "$536870913\r\n", "\"", "'", "\\x", "\\"];
    Fuzz::new("requests", seeds.map(Vec::from).to_vec()).tokens(tokens).run(check);
}
