//! Values of every type as they move: DUMP, RESTORE, COPY, RENAME, MOVE, SORT, SWAPDB.

use rand::RngExt;

use crate::common::{Node, RedisServer, Reply, rng};
use crate::duel::{Duel, Same};

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn dump(redis: &RedisServer, key: &str) -> Vec<u8> {
    match redis.conn().call(&["DUMP", key]) {
        Reply::Bulk(payload) => payload,
        other => panic!("{other:?}"),
    }
}

/// Values of all types, small and large, as Redis dumps them.
fn values() -> Vec<(String, Vec<u8>)> {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    let mut rng = rng();
    let mut value = |key: &str, command: &str, arguments: Vec<String>| {
        let mut request = vec![command.to_string(), key.to_string()];
        request.extend(arguments);
        assert!(!matches!(conn.call(&request), Reply::Error(_)), "{request:?}");
    };
    value("string", "SET", vec!["a string".into()]);
    value("number", "SET", vec!["-12".into()]);
    value("long", "SET", vec!["abc".repeat(50_000)]);
    for (size, count) in [("one", 1), ("few", 20), ("many", 700)] {
        let text = |n: usize| if n.is_multiple_of(3) { n.to_string() } else { format!("e{n} {}", "x".repeat(n % 90)) };
        let texts = || (0..count).map(text);
        value(&format!("list:{size}"), "RPUSH", texts().collect());
        value(&format!("set:{size}"), "SADD", texts().collect());
        value(&format!("ints:{size}"), "SADD", (0..count).map(|n| (n * 7).to_string()).collect());
        value(&format!("hash:{size}"), "HSET", texts().flat_map(|t| [t.clone(), t]).collect());
        let scored = texts().flat_map(|t| [(rng.random_range(-9.0..9.0f64)).to_string(), t]);
        value(&format!("zset:{size}"), "ZADD", scored.chain(["inf".into(), "i".into()]).collect());
    }
    value("stream", "XADD", ["1-1", "a", "1", "b", "2"].map(String::from).to_vec());
    value("stream", "XADD", ["5-0", "a", "3"].map(String::from).to_vec());
    conn.call(&["XGROUP", "CREATE", "stream", "g", "0"]);
    conn.call(&["XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", "stream", ">"]);
    let keys = match conn.call(&["KEYS", "*"]) {
        Reply::Array(keys) => keys,
        other => panic!("{other:?}"),
    };
    let name = |key: &Reply| match key {
        Reply::Bulk(name) => String::from_utf8(name.clone()).expect("text"),
        other => panic!("{other:?}"),
    };
    keys.iter().map(name).map(|key| (key.clone(), dump(&redis, &key))).collect()
}

/// Both servers get the values; what ours dumps after every move is, to Redis, the same value.
#[test]
fn every_type_moves() {
    let values = values();
    let mut duel = Duel::start();
    let mut send = |command: Vec<Vec<u8>>| duel.compare(&[(Same::of(&command[0]), command)], 1);
    for (key, payload) in &values {
        let restore = |key: &str, rest: &str| {
            let mut command = words(&format!("RESTORE {key} 0"));
            command.push(payload.clone());
            command.extend(rest.split(' ').filter(|word| !word.is_empty()).map(|word| word.as_bytes().to_vec()));
            command
        };
        send(restore(key, ""));
        send(restore(key, ""));
        send(restore(key, "REPLACE"));
        for line in [
            "TYPE K",
            "COPY K K:copy",
            "COPY K K:copy",
            "COPY K K:copy REPLACE",
            "EXPIREAT K:copy 33177117420",
            "RENAME K:copy K:renamed",
            "EXPIRETIME K:renamed",
            "RENAMENX K:renamed K",
            "RENAME K:renamed K:renamed",
            "MOVE K:renamed 3",
            "EXISTS K:renamed",
            "COPY K K:copy DB 3",
            "SELECT 3",
            "EXPIRETIME K:renamed",
            "TYPE K:copy",
            "SELECT 0",
            "DBSIZE",
        ] {
            send(words(&line.replace('K', key)));
        }
    }
    let (haypile, redis) = (duel.haypile(), RedisServer::start());
    let (mut ours, mut theirs) = (haypile.conn(), redis.conn());
    ours.call(&["SELECT", "3"]);
    for (key, payload) in &values {
        let digest = |conn: &mut crate::common::Conn, payload: &[u8]| {
            let restored = conn.call(&[b"RESTORE", b"v" as &[u8], b"0", payload, b"REPLACE"]);
            assert_eq!(restored, Reply::ok(), "{key}");
            conn.call(&["DEBUG", "DIGEST-VALUE", "v"])
        };
        let expected = digest(&mut theirs, payload);
        for copy in ["copy", "renamed"] {
            let Reply::Bulk(payload) = ours.call(&["DUMP", &format!("{key}:{copy}")]) else { panic!("{key}:{copy}") };
            assert_eq!(digest(&mut theirs, &payload), expected, "{key}:{copy}");
        }
    }
}

#[test]
fn restoring() {
    Duel::start().script(
        r#"
        SET s v
        DUMP none
        DUMP s
        RESTORE s 0 x
        RESTORE t 0 x
        RESTORE t -1 "\x00\x01v\x0a\x00\xd2\xe3\x04\xb1\x3b\x4e\x4b\xa4"
        RESTORE t 0 "\x00\x01v\x0a\x00\xd2\xe3\x04\xb1\x3b\x4e\x4b\xa5"
        RESTORE t x x
        RESTORE t 0 x BAD
        RESTORE t 0 x IDLETIME
        RESTORE t 0 x IDLETIME -1
        RESTORE t 0 x IDLETIME x
        RESTORE t 0 x IDLETIME 1 FREQ 1
        RESTORE t 0 x FREQ 256
        RESTORE t 0 x FREQ 255 IDLETIME 1
        MOVE s 0
        MOVE s 99
        MOVE s -1
        MOVE s x
        MOVE none 1
        MOVE s 1
        SELECT 1
        GET s
        SELECT 0
        SET s other
        MOVE s 1
        SELECT 1
        GET s
        SELECT 0
        GET s
        COPY s t DB 99
        COPY s s
        COPY s s DB 1
        COPY s s DB 1 REPLACE
        SWAPDB 0 1
        GET s
        SWAPDB 0 x
        SWAPDB x 0
        SWAPDB 0 99
        SWAPDB -1 0
        SWAPDB 1 1
        SET only-in-one v
        SWAPDB 0 2
        GET only-in-one
        DBSIZE
        SELECT 2
        GET only-in-one
        FLUSHDB
        DBSIZE
        SELECT 0
        SET a 1
        MULTI
        SET b 2
        SWAPDB 0 3
        GET b
        SET c 3
        EXEC
        KEYS *
        SELECT 3
        KEYS *
        FLUSHALL
        WAIT 0 0
        WAIT 1 10
        WAIT x 0
        WAIT 0 x
        WAIT 0 -1
        SET a 1
        WAIT 1 10
        MULTI
        WAIT 1 0
        EXEC
        "#,
    );
}

/// The digests of databases follow them, and so does what stands in the logs.
#[test]
fn swapped_databases_survive() {
    let mut node = Node::with(&[("slot-num", "4")]);
    for n in 0..100 {
        node.run(&format!("SET key:{n} zero"));
    }
    let mut conn = node.conn();
    let mut check = |node: &mut Node, zero: &str, one: &str| {
        for stop in ["none", "crash", "restart"] {
            match stop {
                "crash" => node.crash(),
                "restart" => node.restart(),
                _ => {}
            }
            conn = node.conn();
            assert_eq!(conn.call(&["DBSIZE"]), Reply::Int(zero.parse().expect("a number")), "{stop}");
            conn.call(&["SELECT", "1"]);
            assert_eq!(conn.call(&["DBSIZE"]), Reply::Int(one.parse().expect("a number")), "{stop}");
        }
    };
    check(&mut node, "100", "0");
    assert_eq!(node.run("SWAPDB 0 1"), Reply::ok());
    check(&mut node, "0", "100");
    for n in 0..7 {
        node.run(&format!("SET key:{n} again"));
    }
    check(&mut node, "7", "100");
    // The slot that holds the map is emptied; the map stays.
    let mut conn = node.conn();
    conn.call(&["SELECT", "1"]);
    assert_eq!(conn.call(&["FLUSHDB"]), Reply::ok());
    check(&mut node, "7", "0");
    assert_eq!(node.run("FLUSHALL"), Reply::ok());
    node.run("SET k v");
    check(&mut node, "1", "0");
    assert_eq!(node.run("SWAPDB 1 0"), Reply::ok());
    check(&mut node, "0", "1");
}

#[test]
fn sorting() {
    let redis = RedisServer::start();
    let mut conn = redis.conn();
    for line in [
        "RPUSH l 3 10 1 -2.5 7 1",
        "RPUSH words b aa a ab c",
        "RPUSH ids 1 2 3 4",
        "SADD s 9 8 7 1",
        "SADD sw x y z",
        "ZADD z 1 one 2 two 3 3",
        "ZADD zn 5 1 4 2 3 3 2 4",
        "HSET h:1 w 3 n one",
        "HSET h:2 w 1 n two",
        "HSET h:3 w 2",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        conn.call(&words);
    }
    let mut duel = Duel::start();
    for key in ["l", "words", "ids", "s", "sw", "z", "zn", "h:1", "h:2", "h:3"] {
        let command = [&b"RESTORE"[..], key.as_bytes(), b"0", &dump(&redis, key)].map(<[u8]>::to_vec).to_vec();
        duel.compare(&[(Same::Bytes, command)], 1);
    }
    let script = r#"
        MSET w_1 4 w_2 3 w_3 2 w_4 1 name_1 one name_2 two name_4 four wx_1 1 wx_2 x
        SORT none
        SORT w_1
        SORT l
        SORT l DESC
        SORT l LIMIT 1 2
        SORT l LIMIT -1 2
        SORT l LIMIT 1 -2
        SORT l LIMIT 9 2
        SORT l LIMIT 0 0
        SORT l LIMIT x 1
        SORT l LIMIT 1
        SORT l ALPHA
        SORT words
        SORT words ALPHA
        SORT words ALPHA DESC
        SORT s
        SORT s DESC LIMIT 0 3
        SORT sw
        SORT sw ALPHA DESC
        SORT z
        SORT z ALPHA
        SORT zn
        SORT ids BY w_*
        SORT ids BY w_* DESC
        SORT ids BY w_* GET name_* GET #
        SORT ids BY w_* GET # GET name_* LIMIT 1 2
        SORT ids BY wx_*
        SORT ids BY wx_* ALPHA
        SORT ids BY h:*->w
        SORT ids BY h:*->w GET h:*->n
        SORT ids BY h:*->w ALPHA DESC GET #
        SORT ids GET constant
        SORT ids GET name_*->
        SORT ids BY nosort
        SORT ids BY nosort DESC
        SORT ids BY nosort DESC LIMIT 1 2
        SORT ids BY nosort GET name_*
        SORT zn BY nosort
        SORT zn BY nosort DESC
        SORT zn BY nosort LIMIT 1 2
        SORT zn BY nosort DESC LIMIT 1 2
        SORT_RO ids BY w_*
        SORT_RO ids STORE x
        SORT ids BAD
        SORT ids BY
        SORT ids BY w_* STORE out
        TYPE out
        SORT out
        SORT out BY nosort
        SORT s BY nosort STORE out
        SORT out BY nosort
        SORT sw BY nosort STORE out
        SORT out BY nosort
        SORT ids GET name_* STORE out
        SORT out BY nosort
        SORT none STORE out
        EXISTS out
        SORT ids STORE ids
        SORT ids BY nosort
        MULTI
        SORT ids BY w_* DESC
        SORT ids BY w_* STORE out
        SORT out BY nosort
        EXEC
        SORT_RO ids BY h:*->w GET #
        "#;
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let commands: Vec<_> = lines.map(|line| (Same::Bytes, words(line))).collect();
    duel.compare(&commands, 1);
    duel.compare(&commands, 50);
}

#[test]
fn migrating() {
    let (from, to) = (Node::start(), RedisServer::start());
    let mut theirs = to.conn();
    let port = to.port();
    from.run("MSET a 1 b 2 c 3");
    from.run("PEXPIREAT c 33177117420000");
    let migrate = |rest: &str| from.run(&format!("MIGRATE 127.0.0.1 {port} {rest}"));
    assert_eq!(migrate("none 0 1000"), Reply::Simple("NOKEY".into()));
    assert_eq!(migrate("a 0 1000"), Reply::ok());
    assert_eq!((from.run("EXISTS a"), theirs.call(&["GET", "a"])), (Reply::Int(0), Reply::bulk("1")));
    assert_eq!(migrate("\"\" 1 1000 COPY KEYS b c x"), Reply::ok());
    assert_eq!(from.run("EXISTS b c"), Reply::Int(2));
    theirs.call(&["SELECT", "1"]);
    assert_eq!(theirs.call(&["GET", "b"]), Reply::bulk("2"));
    let Reply::Int(ttl) = theirs.call(&["PTTL", "c"]) else { panic!("no ttl") };
    assert!(ttl > 1_000_000_000);
    let busy = "ERR Target instance replied with error: BUSYKEY Target key name already exists.";
    assert_eq!(migrate("b 1 1000"), Reply::Error(busy.into()));
    assert_eq!(migrate("b 1 1000 REPLACE"), Reply::ok());
    assert!(
        matches!(migrate("c 1 1000 AUTH wrong"), Reply::Error(e) if e.starts_with("ERR Target instance replied with error: "))
    );
    assert!(matches!(migrate("c 99 1000"), Reply::Error(e) if e.contains("DB index is out of range")));
    assert!(matches!(migrate("c 1 1000 KEYS c"), Reply::Error(e) if e.contains("must be set to the empty string")));
    drop(to);
    assert_eq!(migrate("c 1 1000"), Reply::Error("IOERR error or timeout connecting to the client".into()));
    assert_eq!(from.run("GET c"), Reply::bulk("3"));
}
