//! Requests of every kind, mutated, to a running server: it goes on, and what it holds by then survives a restart.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use crate::common::fuzz::{Answer, Fuzz, answer};
use crate::common::resp::{encode, split_line};
use crate::common::{Node, NodeOptions, Reply};

/// How long a connection may be silent: what blocks for ever does not answer.
const SILENCE: Duration = Duration::from_millis(300);
/// Inputs between two looks at the server's health.
const LOOK: u64 = 200;

/// One pipeline a line. What stops the server, or stalls it by its nature, is left out.
const PIPELINES: &[&str] = &[
    "SET k v EX 100; GET k; APPEND k x; SETRANGE k 5 y; GETRANGE k 0 -1; INCR n; INCRBYFLOAT n 1.5; SETBIT b 70000 1; BITCOUNT b",
    "BITFIELD b SET u8 #3 255 INCRBY i5 100 1 OVERFLOW SAT; BITPOS b 1 0 -1 BIT; BITOP XOR d b k; LCS k d IDX WITHMATCHLEN",
    "HSET h f v g 1; HINCRBY h g 2; HPEXPIRE h 100000 FIELDS 1 f; HGETALL h; HRANDFIELD h -5 WITHVALUES; HSCAN h 0 MATCH * COUNT 1",
    "RPUSH l a b c d; LINSERT l BEFORE b x; LREM l -1 c; LTRIM l 1 -2; LPOS l b RANK -1; LMPOP 1 l LEFT COUNT 2; LMOVE l l LEFT RIGHT",
    "SADD s 1 2 3 x; SPOP s 2; SINTERCARD 2 s s LIMIT 1; SRANDMEMBER s -3; SDIFFSTORE t s l; SSCAN s 0",
    "ZADD z NX CH 1 a 2 b inf c; ZRANGE z (1 +inf BYSCORE LIMIT 0 5 WITHSCORES; ZRANGESTORE y z 0 -1 REV; ZUNION 2 z y WEIGHTS 2 3 AGGREGATE MAX",
    "XADD x MAXLEN ~ 10 * f v; XADD x 5-* a b; XGROUP CREATE x g 0 MKSTREAM; XREADGROUP GROUP g c COUNT 2 STREAMS x >; XPENDING x g - + 10; XAUTOCLAIM x g d 0 0",
    "XINFO STREAM x FULL; XTRIM x MINID 5; XSETID x 9-9 ENTRIESADDED 100 MAXDELETEDID 3-3; XCLAIM x g c 0 1-1 FORCE JUSTID",
    "GEOADD e 13.3 38.1 p 15.0 37.5 c; GEOSEARCH e FROMLONLAT 15 37 BYBOX 400 400 km ASC COUNT 5 ANY WITHCOORD; GEOHASH e p",
    "PFADD p a b c; PFMERGE q p; PFCOUNT p q; PFDEBUG ENCODING p",
    "MULTI; SET a 1; LPUSH a x; EXEC; WATCH k; MULTI; GET k; DISCARD; UNWATCH",
    "EVAL \"return {redis.call('set', KEYS[1], ARGV[1]), cjson.decode(ARGV[2])}\" 1 k v '{\"a\":[1,2.5,null,\"x\"]}'",
    "EVAL \"return cmsgpack.unpack(ARGV[1])\" 0 \"\\x93\\x01\\xa1a\\xcb\\x3f\\xf0\\x00\\x00\\x00\\x00\\x00\\x00\"",
    "EVAL \"return {struct.unpack('>I2s', ARGV[1])}\" 0 \"\\x00\\x05hello\\x00\"",
    "EVAL \"return redis.sha1hex(ARGV[1]) .. tostring(bit.band(ARGV[2], 7))\" 0 x 9",
    "FUNCTION LOAD REPLACE \"#!lua name=m\\nredis.register_function('f', function(k, a) return a end)\"; FCALL f 0 1 2; FUNCTION DUMP",
    "SORT l BY w_* GET # GET o_* LIMIT 0 5 ALPHA DESC STORE r; SORT_RO s",
    "SCAN 0 MATCH a* COUNT 5 TYPE string; KEYS *; RANDOMKEY; OBJECT ENCODING k; TYPE k; EXPIRE k 100 NX; TTL k; PERSIST k; COPY k c REPLACE; RENAME c w",
    "CLIENT LIST; CLIENT SETNAME x; CLIENT TRACKING ON BCAST PREFIX a; CLIENT NO-EVICT on; HELLO 3; CLIENT TRACKING OFF; RESET",
    "SUBSCRIBE a b; PSUBSCRIBE a*; PUBLISH a m; SSUBSCRIBE c; UNSUBSCRIBE; PUNSUBSCRIBE; SUNSUBSCRIBE",
    "CONFIG GET *; CONFIG SET slowlog-max-len 5 loglevel info; INFO everything; COMMAND DOCS GET; COMMAND GETKEYS MSET a b; SLOWLOG GET; LATENCY DOCTOR; MEMORY USAGE k",
    "BLPOP l 0.01; BZMPOP 0.01 1 z MIN COUNT 3; BRPOPLPUSH l m 0.01; XREAD BLOCK 1 STREAMS x $; WAIT 0 1",
    "SELECT 1; SET k v; SWAPDB 0 1; MOVE k 2; FLUSHDB ASYNC; DBSIZE; SELECT 0",
    "PKSCANRANGE string a z LIMIT 5; PKHSCANRANGE h a z; INFO DATA; PUBSUB CHANNELS; ACL WHOAMI; CLUSTER INFO; LOLWUT VERSION 5 3 3",
    "DEBUG OBJECT k; DEBUG DIGEST-VALUE k h l s z x; DEBUG SET-ACTIVE-EXPIRE 1; DEBUG STRINGMATCH-LEN 5 a*",
];

fn pipeline(line: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for command in line.split("; ") {
        encode(&mut out, &split_line(command));
    }
    out
}

/// Sends an input and reads until the server has nothing more to say.
fn talk(port: u16, input: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server takes connections");
    stream.set_read_timeout(Some(SILENCE)).expect("a socket");
    let mut replies = Vec::new();
    // It closes when it has read what is no request.
    if stream.write_all(input).and_then(|()| stream.shutdown(Shutdown::Write)).is_ok() {
        let mut buffer = [0; 16 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => replies.extend_from_slice(&buffer[..read.min(1 << 20)]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }
    replies
}

/// Panics when the server is not well.
fn look_at(node: &Node) {
    assert_eq!(node.conn().call(&["PING"]), Reply::Simple("PONG".into()));
    let output = node.output();
    assert!(!output.contains("panicked"), "{}", &output[output.len().saturating_sub(4000)..]);
}

/// The kinds of replies, each with a rough size.
fn shape(replies: &[u8]) -> Answer {
    let lines = replies.split(|byte| *byte == b'\n').take(40);
    let shapes: Vec<Vec<u8>> = lines
        .map(|line| match line.first() {
            Some(b'-') => line.iter().copied().filter(u8::is_ascii_alphabetic).take(24).collect(),
            Some(first) => vec![*first],
            None => Vec::new(),
        })
        .collect();
    answer(shapes)
}

#[test]
fn clients() {
    let node = NodeOptions::new().set("enable-debug-command", "yes").set("max-reply-size", "16M").start();
    // A hash tag keeps what RESTORE makes of damaged values apart from the rest.
    let mut conn = node.conn();
    PIPELINES.iter().for_each(|line| drop(talk(node.port(), &pipeline(line))));
    conn.select(0);
    let mut seeds: Vec<Vec<u8>> = PIPELINES.iter().map(|line| pipeline(line)).collect();
    for line in [
        "SET a 1",
        "RPUSH b x 5 yy",
        "SADD c 1 2 3",
        "SADD d x y",
        "ZADD e 1 a 2.5 b",
        "HSET f a 1 b 2",
        "XADD g 1-1 a b",
        "PFADD h x",
    ] {
        let words = split_line(line);
        conn.call(&words);
        if let Reply::Bulk(payload) = conn.call(&[b"DUMP".as_slice(), &words[1]]) {
            // With the checksum left alone only what follows it can be wrong.
            let mut seed = Vec::new();
            encode(&mut seed, &[b"DEBUG".as_slice(), b"SET-SKIP-CHECKSUM-VALIDATION", b"1"]);
            encode(&mut seed, &[b"RESTORE".as_slice(), b"restored", b"0", &payload, b"REPLACE"]);
            encode(&mut seed, &[b"DEBUG".as_slice(), b"DIGEST-VALUE", b"restored"]);
            encode(&mut seed, &[b"PFCOUNT".as_slice(), b"restored"]);
            seeds.push(seed);
        }
    }
    if let Reply::Bulk(payload) = conn.call(&["FUNCTION", "DUMP"]) {
        let mut seed = Vec::new();
        encode(&mut seed, &[b"FUNCTION".as_slice(), b"RESTORE", &payload, b"REPLACE"]);
        seeds.push(seed);
    }
    let tokens = [
        "$1\r\n*\r\n",
        "$2\r\n-1\r\n",
        "$1\r\n0\r\n",
        "$20\r\n18446744073709551615\r\n",
        "$20\r\n-9223372036854775808\r\n",
        "$3\r\nnan\r\n",
        "$4\r\n-inf\r\n",
        "$0\r\n\r\n",
        "$1\r\nk\r\n",
        "$1\r\nl\r\n",
        "$1\r\nz\r\n",
        "$1\r\nx\r\n",
        "*1\r\n$4\r\nEXEC\r\n",
        "*1\r\n$5\r\nMULTI\r\n",
        "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    ];
    let node = Mutex::new((node, 0));
    Fuzz::new("clients", seeds).tokens(tokens).run(|input| {
        // A word that ends the server or lets it sleep is no find.
        let upper = input.to_ascii_uppercase();
        let forbidden: [&[u8]; 8] =
            [b"SHUTDOWN", b"SLEEP", b"SLAVEOF", b"REPLICAOF", b"MIGRATE", b"RESTART", b"REQUIREPASS", b"PAUSE"];
        if forbidden.iter().any(|word| upper.windows(word.len()).any(|part| part == *word)) {
            return 0;
        }
        let (node, inputs) = &mut *node.lock().expect("one target");
        let replies = talk(node.port(), input);
        *inputs += 1;
        if *inputs % LOOK == 0 {
            look_at(node);
        }
        shape(&replies)
    });
    let (mut node, _) = node.into_inner().expect("one target");
    look_at(&node);
    let before = node.digest();
    node.crash();
    assert_eq!(node.digest(), before);
    look_at(&node);
}
