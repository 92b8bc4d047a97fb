//! Dumps of a redis-server, read and written again by `haypile::rdb`: the server must take them back as the same value.

use bytes::Bytes;
use haypile::rdb::{self, DumpOptions, RestoreOptions, Value};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::{Conn, RedisServer, Reply, random_bytes, rng};

/// Whether what we dump must be what Redis dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Same {
    /// The same bytes, where nothing is compressed.
    Bytes,
    /// The same value: Redis dumps how it came about, too.
    Value,
}

const ANOTHER: &str = "another";

fn dumped(conn: &mut Conn, key: &[u8]) -> Bytes {
    match conn.call(&[b"DUMP", key]) {
        Reply::Bulk(payload) => payload.into(),
        other => panic!("DUMP: {other:?}"),
    }
}

fn restored(payload: &Bytes) -> Value {
    let value = rdb::restore(payload, &RestoreOptions::default());
    value.unwrap_or_else(|e| panic!("{e}: {}", payload[..payload.len().min(500)].escape_ascii()))
}

/// All that a client can see of a value.
fn seen(conn: &mut Conn, key: &[u8]) -> Vec<Reply> {
    let mut questions = vec![vec![&b"TYPE"[..], key], vec![b"DEBUG", b"DIGEST-VALUE", key]];
    if conn.call(&[b"TYPE", key]) == Reply::Simple("stream".into()) {
        questions.push(vec![b"XRANGE", key, b"-", b"+"]);
        questions.push(vec![b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]);
    }
    let mut replies: Vec<Reply> = questions.iter().map(|question| conn.call(question)).collect();
    if let Some(Reply::Array(facts)) = replies.get_mut(3) {
        // Nodes and keys of the radix tree: how the value came about.
        let shape = |fact: &Reply| matches!(fact, Reply::Bulk(name) if name.starts_with(b"radix-tree"));
        while let Some(at) = facts.iter().position(shape) {
            facts.drain(at..at + 2);
        }
    }
    replies
}

fn check(conn: &mut Conn, key: &[u8], same: Same) {
    for (compression, compress) in [("yes", true), ("no", false)] {
        conn.call(&["CONFIG", "SET", "rdbcompression", compression]).expect_ok();
        let theirs = dumped(conn, key);
        let ours = rdb::dump(&restored(&theirs), &DumpOptions { compress, ..DumpOptions::default() });
        if same == Same::Bytes && !compress {
            assert!(
                ours == theirs,
                "{}:\n   ours {}\n theirs {}",
                key.escape_ascii(),
                ours[..ours.len().min(2000)].escape_ascii(),
                theirs[..theirs.len().min(2000)].escape_ascii(),
            );
        }
        conn.call(&[&b"RESTORE"[..], ANOTHER.as_bytes(), b"0", &ours, b"REPLACE"]).expect_ok();
        assert_eq!(seen(conn, ANOTHER.as_bytes()), seen(conn, key), "{}", key.escape_ascii());
    }
}

/// Runs a command for every key that it makes, then checks the key.
fn make(conn: &mut Conn, key: &str, same: Same, commands: &[Vec<Vec<u8>>]) {
    for command in commands {
        if let Reply::Error(error) = conn.call(command) {
            panic!("{}: {error}", command[0].escape_ascii());
        }
    }
    check(conn, key.as_bytes(), same);
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

fn with(head: &str, rest: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    words(head).into_iter().chain(rest).collect()
}

/// Strings of every form: integers of every width, texts short and long, plain and compressible.
fn samples(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let mut samples: Vec<Vec<u8>> = ["", "0", "-0", "007", "+1", " 1", "1 ", "hello", "9223372036854775808"]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    for bits in [6, 7, 8, 12, 13, 15, 16, 23, 24, 31, 32, 63] {
        for n in [(1i128 << bits) - 1, 1 << bits, -(1 << bits), -(1 << bits) - 1] {
            samples.push(n.to_string().into_bytes());
        }
    }
    for len in [1, 20, 21, 63, 64, 127, 128, 300, 4095, 4096, 8191, 16_383, 16_384, 70_000] {
        samples.push(random_bytes(rng, len));
        samples.push(vec![b'a' + (len % 26) as u8; len]);
        samples.push((0..len).map(|i| b"the hay of the pika "[i % 20] ^ (i % 7 == 0) as u8).collect());
    }
    samples.sort();
    samples.dedup();
    samples
}

fn numbers(range: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    range.map(|n| n.to_string().into_bytes()).collect()
}

#[test]
fn strings() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    for sample in samples(&mut rng()) {
        make(&mut conn, "k", Same::Bytes, &[with("SET k", [sample])]);
    }
}

#[test]
fn lists() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let samples = samples(&mut rng());
    for sample in &samples {
        make(&mut conn, "k", Same::Bytes, &[words("DEL k"), with("RPUSH k", [sample.clone()])]);
    }
    make(&mut conn, "all", Same::Bytes, &[with("RPUSH all", samples.clone())]);
    make(&mut conn, "backwards", Same::Value, &[with("LPUSH backwards", samples)]);
    make(&mut conn, "numbers", Same::Bytes, &[with("RPUSH numbers", numbers(-5000..5000))]);
    make(&mut conn, "many", Same::Bytes, &[with("RPUSH many", vec![vec![]; 70_000])]);
}

#[test]
fn sets() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let samples = samples(&mut rng());
    make(&mut conn, "texts", Same::Bytes, &[with("SADD texts", samples)]);
    for (i, set) in [
        numbers(-3..4),
        numbers(0..512),
        numbers(0..513),
        vec![b"32768".to_vec()],
        vec![b"-2147483649".to_vec(), b"1".to_vec()],
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("numbers{i}");
        make(&mut conn, &key, Same::Bytes, &[with(&format!("SADD {key}"), set)]);
    }
}

#[test]
fn sorted_sets() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let scores =
        ["0", "1", "-1", "0.1", "1e20", "1e-7", "inf", "-inf", "3.5e300", "4503599627370497", "1e17", "-123456.789"];
    let scored = |members: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let scores = scores.iter().cycle().map(|score| score.as_bytes().to_vec());
        scores.zip(members).flat_map(|(score, member)| [score, member.clone()]).collect()
    };
    make(&mut conn, "small", Same::Bytes, &[with("ZADD small", scored(&numbers(-60..60)))]);
    make(&mut conn, "edge", Same::Bytes, &[with("ZADD edge", scored(&numbers(0..128)))]);
    make(&mut conn, "large", Same::Bytes, &[with("ZADD large", scored(&numbers(0..129)))]);
    make(&mut conn, "long", Same::Bytes, &[with("ZADD long", scored(&[vec![b'm'; 65], b"1".to_vec()]))]);
    make(&mut conn, "all", Same::Bytes, &[with("ZADD all", scored(&samples(&mut rng())))]);
}

#[test]
fn hashes() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let pairs = |fields: &[Vec<u8>]| -> Vec<Vec<u8>> { fields.iter().flat_map(|f| [f.clone(), f.clone()]).collect() };
    make(&mut conn, "small", Same::Bytes, &[with("HSET small", pairs(&numbers(-60..60)))]);
    make(&mut conn, "edge", Same::Bytes, &[with("HSET edge", pairs(&numbers(0..512)))]);
    make(&mut conn, "large", Same::Bytes, &[with("HSET large", pairs(&numbers(0..513)))]);
    make(&mut conn, "long", Same::Bytes, &[with("HSET long f", [vec![b'v'; 65]])]);
    make(&mut conn, "all", Same::Bytes, &[with("HSET all", pairs(&samples(&mut rng())))]);
}

#[test]
fn streams() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let samples = samples(&mut rng());
    let add = |key: &str, range: std::ops::Range<usize>| -> Vec<Vec<Vec<u8>>> {
        range
            .map(|i| {
                let id = format!("{}-{}", 1000 + i / 3 * 7, (i % 3) * 1000 + 1);
                let fields = if i % 5 == 0 {
                    words("temp 20 hum 3")
                } else {
                    with("temp", [samples[i % samples.len()].clone()])
                };
                with(&format!("XADD {key} {id}"), fields)
            })
            .collect()
    };
    make(&mut conn, "one", Same::Bytes, &[words("XADD one 5-5 a 1")]);
    make(&mut conn, "many", Same::Bytes, &add("many", 0..700));
    make(
        &mut conn,
        "same",
        Same::Bytes,
        &(1..350).map(|i| words(&format!("XADD same {i}-0 a {i} b x"))).collect::<Vec<_>>(),
    );
    make(
        &mut conn,
        "extreme",
        Same::Bytes,
        &[
            words("XADD extreme 0-1 a 1"),
            words("XADD extreme 0-18446744073709551615 a 1"),
            words("XADD extreme 18446744073709551615-0 a 1"),
            words("XADD extreme 18446744073709551615-18446744073709551615 a 1"),
        ],
    );
    make(&mut conn, "empty", Same::Bytes, &[words("XGROUP CREATE empty g $ MKSTREAM")]);

    let mut commands = add("groups", 0..50);
    commands.extend([
        words("XGROUP CREATE groups g1 0"),
        words("XGROUP CREATE groups g2 1007-1"),
        words("XGROUP CREATE groups g3 $"),
        words("XREADGROUP GROUP g1 alice COUNT 5 STREAMS groups >"),
        words("XREADGROUP GROUP g1 bob COUNT 7 STREAMS groups >"),
        words("XREADGROUP GROUP g1 alice COUNT 3 STREAMS groups 0"),
        words("XREADGROUP GROUP g2 carol COUNT 9 STREAMS groups >"),
        words("XGROUP CREATECONSUMER groups g3 dave"),
        words("XACK groups g1 1000-1 1007-1"),
    ]);
    make(&mut conn, "groups", Same::Bytes, &commands);
    // What is deleted leaves a mark in Redis's nodes, and may still be pending.
    let deletions = [words("XDEL groups 1000-1001 1014-1 1014-2001 1112-1"), words("XTRIM groups MINID 1010")];
    make(&mut conn, "groups", Same::Value, &deletions);
    make(&mut conn, "groups", Same::Value, &[words("XTRIM groups MAXLEN 0")]);
}

/// What versions of Redis before 7.0 wrote: lists, a hash and a sorted set in ziplists, a hash in a zipmap, and
/// collections string by string.
const OLD: [&[u8]; 9] = [
    b"\x0a\x12\x12\0\0\0\x0e\0\0\0\x02\0\x00\x02hi\x04\xfe\x80\xff",
    b"\x0e\x01\x12\x12\0\0\0\x0e\0\0\0\x02\0\x00\x02hi\x04\xfe\x80\xff",
    b"\x0d\x12\x12\0\0\0\x0e\0\0\0\x02\0\x00\x02hi\x04\xfe\x80\xff",
    b"\x0c\x12\x12\0\0\0\x0e\0\0\0\x02\0\x00\x02hi\x04\xfe\x80\xff",
    b"\x09\x17\x02\x03foo\x03\x02barXX\x05hello\x02\x00hi\xff",
    b"\x01\x02\x02hi\xc0\x80",
    b"\x02\x04\x02hi\xc1\x00\x80\xc3\x08\x18\x00a\xe0\x0c\x00\x01ab\x01a",
    b"\x03\x02\x02hi\x04-0.5\x02ho\xff",
    b"\x04\x01\x02hi\xc2\x00\x80\x00\x00",
];

/// Damaged dumps: what we take, Redis takes as the same value.
#[test]
fn damage() {
    const ROUNDS: usize = 4_000;
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let mut rng = rng();
    conn.call(&["CONFIG", "SET", "sanitize-dump-payload", "yes"]).expect_ok();
    conn.call(&["CONFIG", "SET", "rdbcompression", "no"]).expect_ok();
    for line in [
        "SET string 12345",
        "RPUSH list a 1 -1 300 70000 hello",
        "SADD set a b c 1 2 3",
        "SADD intset 1 2 3 70000",
        "ZADD zset 1 a 2 b 0.5 c",
        "HSET hash a 1 b 2 c three",
        "XADD stream 1-1 a 1 b 2",
        "XADD stream 2-1 a 1 b 2",
        "XADD stream 2-2 c 3",
        "XGROUP CREATE stream g 0",
        "XREADGROUP GROUP g alice COUNT 2 STREAMS stream >",
        "XREADGROUP GROUP g bob COUNT 1 STREAMS stream >",
        "XDEL stream 2-1",
    ] {
        conn.call(&words(line));
    }
    let keys = ["string", "list", "set", "intset", "zset", "hash", "stream"];
    let mut dumps: Vec<Bytes> = keys.iter().map(|key| dumped(&mut conn, key.as_bytes())).collect();
    dumps.extend(OLD.map(|body| {
        let mut payload = body.to_vec();
        rdb::seal(&mut payload, 6);
        assert!(!matches!(restored(&payload.clone().into()), Value::String(_)));
        payload.into()
    }));
    let (mut both, mut neither, mut only_redis) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let payload = dumps.choose(&mut rng).expect("a dump");
        let mut body = rdb::unseal(payload, true).expect("a sound dump").to_vec();
        for _ in 0..rng.random_range(1..3) {
            // Not the type: Redis 7.0 does not know them all.
            let at = rng.random_range(1..body.len());
            body[at] =
                if rng.random() { rng.random() } else { body[at].wrapping_add(rng.random_range(0..3)).wrapping_sub(1) };
        }
        rdb::seal(&mut body, 10);
        let payload = Bytes::from(body);
        let ours = rdb::restore(&payload, &RestoreOptions::default());
        let theirs = conn.call(&[&b"RESTORE"[..], b"k", b"0", &payload, b"REPLACE"]);
        let shown = payload.escape_ascii();
        match (&ours, &theirs) {
            (Err(error), Reply::Error(reply)) => {
                assert_eq!(error.reply(), reply, "{shown}");
                neither += 1;
            }
            (Err(error), _) => {
                println!("only Redis takes it ({error}): {shown}");
                only_redis += 1;
            }
            (Ok(value), Reply::Simple(_)) => {
                let again = rdb::dump(value, &DumpOptions::default());
                conn.call(&[&b"RESTORE"[..], ANOTHER.as_bytes(), b"0", &again, b"REPLACE"]).expect_ok();
                let digest = |conn: &mut Conn, key: &str| conn.call(&["DEBUG", "DIGEST-VALUE", key]);
                assert_eq!(digest(&mut conn, ANOTHER), digest(&mut conn, "k"), "{shown}");
                both += 1;
            }
            (Ok(_), reply) => panic!("only we take it ({reply:?}): {shown}"),
        }
    }
    println!("taken by both: {both}, by neither: {neither}, by Redis alone: {only_redis}");
}
