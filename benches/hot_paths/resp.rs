//! RESP: requests as they lie in a connection's read buffer, and replies into its output buffer. To compare with: the CPU per SET and GET
//! in the tables, of which this should be a small part, and with itself. One iteration is one pipeline.

use std::fmt;

use bytes::{Bytes, BytesMut};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use haypile::net::Reply;
use haypile::net::resp::{Limits, RequestParser};

use crate::node::key;

const LIMITS: Limits = Limits { max_bulk: 512 << 20, before_auth: false };
/// Output that a connection keeps between pipelines, bytes.
const KEPT: usize = 64 << 10;

/// A pipeline of equal requests.
struct Requests {
    name: &'static str,
    args: &'static [&'static str],
    /// Bytes of the value that follows the arguments, 0 = none.
    value: usize,
    pipeline: usize,
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const KEY: &str = "key:000000123456";
const REQUESTS: [Requests; 6] = [
    Requests { name: "SET 100 B", args: &["SET", KEY], value: 100, pipeline: 1 },
    Requests { name: "SET 100 B, P16", args: &["SET", KEY], value: 100, pipeline: 16 },
    Requests { name: "SET 4 KiB, P4", args: &["SET", KEY], value: 4096, pipeline: 4 },
    Requests { name: "GET", args: &["GET", KEY], value: 0, pipeline: 1 },
    Requests { name: "GET, P16", args: &["GET", KEY], value: 0, pipeline: 16 },
    Requests { name: "HSET 100 B, P16", args: &["HSET", KEY, "field:000000000001"], value: 100, pipeline: 16 },
];

impl Requests {
    fn encode(&self) -> Vec<u8> {
        let value = "v".repeat(self.value);
        let args = self.args.iter().copied().chain((self.value > 0).then_some(value.as_str()));
        request(args).repeat(self.pipeline)
    }
}

fn request<'a>(args: impl Iterator<Item = &'a str> + Clone) -> Vec<u8> {
    let bulks: String = args.clone().map(|arg| format!("${}\r\n{arg}\r\n", arg.len())).collect();
    format!("*{}\r\n{bulks}", args.count()).into_bytes()
}

/// Takes all requests off a read buffer.
fn parse_all(bencher: Bencher, input: &[u8], requests: usize) {
    let mut parser = RequestParser::default();
    let mut args: Vec<Bytes> = Vec::new();
    bencher.with_inputs(|| BytesMut::from(input)).counter(ItemsCount::new(requests)).bench_local_values(
        |mut buffer| {
            let mut parsed = 0;
            while parser.next(&mut buffer, &mut args, &LIMITS).expect("RESP") {
                black_box(&args);
                parsed += 1;
            }
            assert_eq!(parsed, requests);
            buffer
        },
    );
}

#[divan::bench(args = REQUESTS)]
fn parse(bencher: Bencher, requests: &Requests) {
    parse_all(bencher, &requests.encode(), requests.pipeline);
}

/// MSET of ten 100-byte values: many arguments.
#[divan::bench]
fn parse_mset(bencher: Bencher) {
    let value = "v".repeat(100);
    let keys: Vec<String> = (0..10).map(|n| String::from_utf8_lossy(&key(n)).into_owned()).collect();
    let pairs = keys.iter().flat_map(|key| [key.as_str(), value.as_str()]);
    parse_all(bencher, &request(["MSET"].into_iter().chain(pairs)), 1);
}

/// As typed by hand: copied word by word.
#[divan::bench]
fn parse_inline(bencher: Bencher) {
    parse_all(bencher, format!("GET {KEY}\r\n").as_bytes(), 1);
}

/// A value of 64 KiB that arrives in 4 pieces: what was understood of it is not looked at again.
#[divan::bench]
fn parse_in_pieces(bencher: Bencher) {
    const PIECE: usize = 16 << 10;
    let input = request(["SET", KEY, &"v".repeat(64 << 10)].into_iter());
    let mut parser = RequestParser::default();
    let mut args: Vec<Bytes> = Vec::new();
    bencher
        .with_inputs(|| BytesMut::with_capacity(input.len()))
        .counter(BytesCount::new(input.len()))
        .bench_local_values(|mut buffer| {
            let mut parsed = 0;
            for piece in input.chunks(PIECE) {
                buffer.extend_from_slice(piece);
                parsed += usize::from(parser.next(&mut buffer, &mut args, &LIMITS).expect("RESP"));
            }
            assert_eq!(parsed, 1);
            buffer
        });
}

/// What a pipeline is answered.
struct Replies {
    name: &'static str,
    put: fn(&mut Reply, &[u8]),
    /// Bytes of a value in it.
    value: usize,
    pipeline: usize,
}

impl fmt::Display for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const REPLIES: [Replies; 6] = [
    Replies { name: "OK, P16", put: |reply, _| reply.ok(), value: 0, pipeline: 16 },
    Replies { name: "integer, P16", put: |reply, _| reply.int(black_box(123_456)), value: 0, pipeline: 16 },
    Replies { name: "null, P16", put: |reply, _| reply.null(), value: 0, pipeline: 16 },
    Replies { name: "100 B, P16", put: |reply, value| reply.bulk(value), value: 100, pipeline: 16 },
    Replies { name: "4 KiB, P4", put: |reply, value| reply.bulk(value), value: 4096, pipeline: 4 },
    Replies { name: "100 elements of 100 B", put: elements, value: 100, pipeline: 1 },
];

fn elements(reply: &mut Reply, value: &[u8]) {
    reply.array(100);
    (0..100).for_each(|_| reply.bulk(value));
}

#[divan::bench(args = REPLIES)]
fn encode(bencher: Bencher, replies: &Replies) {
    let value = vec![b'v'; replies.value];
    let mut reply = Reply::new(2);
    let mut encode = move || {
        reply.clear(KEPT);
        (0..replies.pipeline).for_each(|_| (replies.put)(&mut reply, black_box(&value)));
        reply.len()
    };
    let len = encode();
    bencher.counter(ItemsCount::new(replies.pipeline)).counter(BytesCount::new(len)).bench_local(encode);
}
