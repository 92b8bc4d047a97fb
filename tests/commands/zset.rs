//! Sorted sets.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::common::resp::Reply;
use crate::common::{Node, rng};
use crate::duel::{Duel, Same};

#[test]
fn adding() {
    Duel::start().script(
        "
        ZADD z 1 a 2 b 3 c
        ZADD z 1 a 5 b 4 d
        ZADD z CH 1 a 6 b 5 e
        ZADD z CH 7 a
        ZADD z CH 7 a
        ZADD z CH 1 x 2 x 2 x 3 y
        ZADD z 1 q 2 q
        ZADD z NX 10 a 10 n
        ZADD z nx ch 10 a 10 m
        ZADD z XX 10 a 10 k
        ZADD z XX CH 11 a 11 k
        ZADD z GT CH 1 a 20 b
        ZADD z LT CH 1 a 200 b
        ZADD z XX GT 5 nobody
        ZADD z GT 5 somebody
        ZADD z INCR 5 a
        ZADD z INCR NX 5 a
        ZADD z INCR XX 5 nobody
        ZADD z INCR GT -5 a
        ZADD z INCR LT -5 a
        ZADD z INCR GT inf a
        ZADD z INCR -inf a
        ZADD z INCR 1 a 2 b
        ZADD z NX XX 1 a
        ZADD z NX GT 1 a
        ZADD z GT LT 1 a
        ZADD z NX XX x a
        ZADD z 1
        ZADD z 1 a 2
        ZADD z CH
        ZADD z CH NX
        ZADD z x a
        ZADD z 1 a x b
        ZADD z nan a
        ZADD z ' 1' a
        ZADD z '' a
        ZADD z 1e400 a
        ZADD none XX 1 a
        ZADD none XX INCR 1 a
        ZADD none NX INCR 1 a
        ZINCRBY z 1.5 a
        ZINCRBY z 1.5 new
        ZINCRBY z nx a
        ZINCRBY z -inf low
        ZINCRBY z inf low
        ZINCRBY z x a
        ZADD s -0 zero
        ZSCORE s zero
        ZADD s INCR -0 zero2
        ZADD s 3.1 a 1e20 b 1e17 c 123456789012345678 d 0.1 e 1e-5 f 1e-4 g 0x1p4 h inf i -inf j 5e-324 k 1.7976931348623157e308 l
        ZADD s 99999999999999999 m 1234567890123456.25 n .5 o 5. p +5 q -1e-7 r 123456.789e3 s
        ZRANGE s 0 -1 WITHSCORES
        ZMSCORE s a b c nobody zero
        ZMSCORE nothing a b
        ZSCORE s nobody
        ZSCORE nothing a
        ZCARD s
        ZCARD nothing
        ZSCAN s 0
        ZREM s a b nobody a
        ZREM s nobody
        ZREM nothing a
        ZRANGE z 0 -1 WITHSCORES
        SET str x
        ZADD str 1 a
        ZADD str x a
        ZADD str INCR 1 a
        ZREM str a
        ZSCORE str a
        ZMSCORE str a
        ZCARD str
        ZINCRBY str 1 a
        ZREM z a b c d e x y q n m somebody new low k
        EXISTS z
        OBJECT ENCODING s
        ",
    );
}

#[test]
fn ranges() {
    Duel::start().script(
        "
        ZADD z -inf a 1 b 2 c 3 d 4 e 5 f +inf g
        ZRANGE z 0 -1
        ZRANGE z 1 3 WITHSCORES
        ZRANGE z -3 100
        ZRANGE z 5 2
        ZRANGE z 100 200
        ZRANGE z -100 -100
        ZRANGE z 0 -1 REV WITHSCORES
        ZRANGE z 0 -1 LIMIT 0 -1
        ZRANGE z 0 -1 LIMIT 1 -1
        ZRANGE z 0 -1 LIMIT -1 -1
        ZRANGE z 0 -1 LIMIT 0 5
        ZRANGE z 0 x
        ZRANGE z 0 -1 FOO
        ZRANGE z 0 -1 LIMIT 1
        ZRANGE z 0 -1 LIMIT x 1
        ZRANGE z (1 3 BYSCORE
        ZRANGE z (1 (3 BYSCORE WITHSCORES
        ZRANGE z -inf +inf BYSCORE LIMIT 1 2
        ZRANGE z +inf -inf BYSCORE REV LIMIT 1 2 WITHSCORES
        ZRANGE z -inf +inf BYSCORE LIMIT -1 2
        ZRANGE z -inf +inf BYSCORE LIMIT 2 -7
        ZRANGE z -inf +inf BYSCORE LIMIT 2 -9223372036854775808
        ZRANGE z -inf +inf BYSCORE LIMIT 0 0
        ZRANGE z -inf +inf BYSCORE LIMIT 100 5
        ZRANGE z (-inf (+inf BYSCORE
        ZRANGE z (inf inf BYSCORE
        ZRANGE z '' '(' BYSCORE
        ZRANGE z 3 1 BYSCORE
        ZRANGE z ' 1' 0x3 BYSCORE
        ZRANGE z 1e999 1e999 BYSCORE
        ZRANGE z -1e999 0 BYSCORE
        ZRANGE z '1 ' 3 BYSCORE
        ZRANGE z nan 3 BYSCORE
        ZRANGE z x 3 BYSCORE
        ZRANGE z 1 3 BYSCORE BYLEX
        ZRANGE z 1 3 BYLEX
        ZRANGE z - + BYLEX WITHSCORES
        ZRANGE z - + BYLEX
        ZRANGE z [b [d BYLEX
        ZREVRANGE z 0 2
        ZREVRANGE z 0 2 WITHSCORES
        ZREVRANGE z 0 2 REV
        ZRANGEBYSCORE z 1 3
        ZRANGEBYSCORE z 1 3 WITHSCORES LIMIT 1 1
        ZRANGEBYSCORE z 1 3 limit 1 1 withscores
        ZREVRANGEBYSCORE z 3 1 WITHSCORES
        ZREVRANGEBYSCORE z 1 3
        ZREVRANGEBYSCORE z (3 -inf LIMIT 1 5
        ZCOUNT z -inf +inf
        ZCOUNT z (1 3
        ZCOUNT z 3 1
        ZCOUNT z x 1
        ZCOUNT nothing 1 2
        ZRANK z c
        ZREVRANK z c
        ZRANK z nobody
        ZRANK nothing a
        ZREVRANK nothing a
        ZADD n 0 alpha 0 bar 0 cool 0 down 0 elephant 0 '' 0 foo 0 \"a\\x00b\" 0 \"\\xff\" 0 a
        ZRANGEBYLEX n - +
        ZRANGEBYLEX n + -
        ZRANGEBYLEX n + +
        ZRANGEBYLEX n - -
        ZRANGEBYLEX n [ +
        ZRANGEBYLEX n ( +
        ZRANGEBYLEX n [a (cool
        ZRANGEBYLEX n (a [cool
        ZRANGEBYLEX n (a (a
        ZRANGEBYLEX n [a [a
        ZRANGEBYLEX n [d [b
        ZRANGEBYLEX n - [cool LIMIT 1 2
        ZRANGEBYLEX n - [cool LIMIT 1 -1
        ZREVRANGEBYLEX n + -
        ZREVRANGEBYLEX n [cool [a
        ZREVRANGEBYLEX n (cool - LIMIT 1 2
        ZRANGE n [b [d BYLEX
        ZRANGE n [d [b BYLEX REV
        ZRANGE n [d [b BYLEX
        ZLEXCOUNT n - +
        ZLEXCOUNT n [b (e
        ZLEXCOUNT n b e
        ZRANGEBYLEX n - ++
        ZRANGEBYLEX n a b
        ZRANGEBYLEX n - + WITHSCORES
        ZRANGESTORE d z 0 2
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z 1 (4 BYSCORE REV
        EXISTS d
        ZRANGESTORE d z (4 1 BYSCORE REV LIMIT 1 5
        ZRANGE d 0 -1 WITHSCORES
        ZRANGESTORE d z 0 1 WITHSCORES
        ZRANGESTORE d nothing 0 -1
        EXISTS d
        ZRANGESTORE z z 0 4
        ZRANGE z 0 -1
        SET str x
        ZRANGESTORE str n [b [e BYLEX
        TYPE str
        SET str x
        ZRANGESTORE d str 0 -1
        ZRANGE str 0 -1
        ZRANGE str 0 x
        ZRANGE nothing 0 -1 WITHSCORES
        ZCOUNT str 0 1
        ZRANK str a
        ZREMRANGEBYRANK z 0 0
        ZREMRANGEBYRANK z -1 -1
        ZREMRANGEBYRANK z 5 9
        ZREMRANGEBYRANK z x 9
        ZREMRANGEBYSCORE z (1 2
        ZREMRANGEBYSCORE z x 2
        ZREMRANGEBYLEX n [b (e
        ZREMRANGEBYLEX n b e
        ZREMRANGEBYLEX n - +
        ZREMRANGEBYLEX n - +
        ZREMRANGEBYSCORE z -inf inf
        EXISTS z n
        ",
    );
}

#[test]
fn popping() {
    Duel::start().script(
        "
        ZADD z 1 a 2 b 3 c 4 d 5 e 6 f 7 g 8 h 9 i
        ZPOPMIN z
        ZPOPMAX z
        ZPOPMIN z 2
        ZPOPMAX z 1
        ZPOPMIN z 0
        ZPOPMIN z -1
        ZPOPMIN z x
        ZPOPMIN z 1 2
        ZPOPMIN nothing
        ZPOPMIN nothing 2
        ZMPOP 1 z MIN
        ZMPOP 2 nothing z max COUNT 2
        ZMPOP 1 nothing MIN
        ZMPOP 0 z MIN
        ZMPOP x z MIN
        ZMPOP 2 z MIN
        ZMPOP 1 z FOO
        ZMPOP 1 z MIN COUNT
        ZMPOP 1 z MIN COUNT 0
        ZMPOP 1 z MIN COUNT x
        ZMPOP 1 z MIN COUNT 1 COUNT 1
        ZMPOP 1 z MIN FOO 1
        BZPOPMIN nothing z 0
        ZADD z 1 a 2 b 3 c 4 d
        BZPOPMAX z 0
        BZMPOP 0 2 nothing z MIN
        BZMPOP 0 1 z MAX COUNT 10
        EXISTS z
        BZPOPMIN z 0.01
        BZMPOP 0.01 1 z MIN
        BZPOPMIN z x
        BZPOPMIN z -1
        BZMPOP -1 1 z MIN
        BZMPOP x 1 z MIN
        BZMPOP 0 0 z MIN
        BZMPOP 0 2 z MIN
        BZMPOP 0 1 z MIN COUNT 0
        SET str x
        ZPOPMIN str
        ZPOPMIN str 0
        ZMPOP 2 nothing str MIN
        BZPOPMIN nothing str 0
        BZMPOP 0 2 nothing str MIN
        ZADD one 1.5 only
        ZRANDMEMBER one
        ZRANDMEMBER one 5
        ZRANDMEMBER one 5 WITHSCORES
        ZRANDMEMBER one -3
        ZRANDMEMBER one -3 WITHSCORES
        ZRANDMEMBER one 0
        ZRANDMEMBER one x
        ZRANDMEMBER one 1 FOO
        ZRANDMEMBER one 1 WITHSCORES FOO
        ZRANDMEMBER one -9223372036854775808
        ZRANDMEMBER one -9223372036854775807 WITHSCORES
        ZRANDMEMBER nothing
        ZRANDMEMBER nothing 2
        ZRANDMEMBER str
        ZSCAN one 0 MATCH o* COUNT 5
        ZSCAN one 0 MATCH x*
        ZSCAN one x
        ZSCAN one 0 COUNT 0
        ZSCAN one 0 COUNT x
        ZSCAN one 0 FOO
        ZSCAN nothing 0 FOO
        ZSCAN str 0
        MULTI
        ZADD m 1 a
        BZPOPMIN m 0
        BZPOPMIN m 0
        BZMPOP 0 1 m MIN
        EXEC
        ",
    );
}

#[test]
fn combining() {
    Duel::start().script(
        "
        ZADD a 1 x 2 y 3 z
        ZADD b 10 y 20 z 30 w
        ZADD c inf x -inf y 0 z
        SADD s x y q
        SET str x
        ZUNION 2 a b
        ZUNION 2 a b WITHSCORES
        ZUNION 2 a b WEIGHTS 2 -1 WITHSCORES
        ZUNION 2 a b WEIGHTS 2 -1 AGGREGATE MIN WITHSCORES
        ZUNION 2 a b aggregate max withscores
        ZUNION 3 a b s WITHSCORES
        ZUNION 2 a nothing WITHSCORES
        ZUNION 2 c c WEIGHTS 1 -1 WITHSCORES
        ZUNION 1 c WEIGHTS 0 WITHSCORES
        ZUNION 1 c WEIGHTS -1 WITHSCORES
        ZUNION 2 c a AGGREGATE MIN WEIGHTS 0 1 WITHSCORES
        ZINTER 2 a b WITHSCORES
        ZINTER 2 a b WEIGHTS 1 2
        ZINTER 3 a b s WITHSCORES
        ZINTER 2 a nothing
        ZINTER 2 a a WITHSCORES
        ZINTER 2 c a WEIGHTS 0 1 AGGREGATE MAX WITHSCORES
        ZINTER 2 c c WEIGHTS 1 -1 WITHSCORES
        ZDIFF 2 a b WITHSCORES
        ZDIFF 2 a s
        ZDIFF 2 s a WITHSCORES
        ZDIFF 3 a nothing nothing WITHSCORES
        ZDIFF 2 nothing a
        ZDIFF 2 a a
        ZDIFF 2 a b WEIGHTS 1 2
        ZDIFF 2 a b AGGREGATE SUM
        ZINTERCARD 2 a b
        ZINTERCARD 2 a b LIMIT 1
        ZINTERCARD 2 a b LIMIT 0
        ZINTERCARD 2 a b LIMIT -1
        ZINTERCARD 2 a b LIMIT x
        ZINTERCARD 2 a b WITHSCORES
        ZINTERCARD 2 a nothing
        ZINTERCARD 0 a
        ZUNION 0 a
        ZUNION -1 a
        ZUNION x a
        ZUNION 3 a b
        ZUNION 1 a FOO
        ZUNION 2 a b WEIGHTS 1
        ZUNION 2 a b WEIGHTS 1 x
        ZUNION 2 a b AGGREGATE FOO
        ZUNION 2 a b AGGREGATE
        ZUNION 2 a str
        ZUNION 2 a str FOO
        ZUNIONSTORE d 2 a b
        ZRANGE d 0 -1 WITHSCORES
        ZUNIONSTORE d 2 a b WITHSCORES
        ZUNIONSTORE d 0 a
        ZINTERSTORE d 2 a b WEIGHTS 0.5 2
        ZRANGE d 0 -1 WITHSCORES
        ZDIFFSTORE d 2 a b
        ZRANGE d 0 -1 WITHSCORES
        ZDIFFSTORE d 2 a a
        EXISTS d
        ZDIFFSTORE d 0 a
        ZINTERSTORE d 0 a
        ZUNIONSTORE a 2 a b
        ZRANGE a 0 -1 WITHSCORES
        ZUNIONSTORE str 1 s
        ZRANGE str 0 -1 WITHSCORES
        ZUNIONSTORE d 1 c WEIGHTS -1
        ZRANGE d 0 -1 WITHSCORES
        EXPIRE d 1000
        ZUNIONSTORE d 1 a
        TTL d
        COMMAND GETKEYS ZUNIONSTORE d 2 a b WEIGHTS 1 2
        COMMAND GETKEYS BZMPOP 0 2 a b MIN
        COMMAND GETKEYS ZDIFF 2 a b
        ",
    );
}

#[test]
fn ranks_with_scores() {
    let node = Node::start();
    node.run("ZADD z 1 a 2.5 b 3 c");
    for (line, rank) in [("ZRANK z b WITHSCORE", 1), ("ZREVRANK z b withscore", 1), ("ZREVRANK z a WITHSCORE", 2)] {
        let score = if line.contains(" b ") { "2.5" } else { "1" };
        assert_eq!(node.run(line), Reply::Array(vec![Reply::Int(rank), Reply::bulk(score)]), "{line}");
    }
    for line in ["ZRANK z nobody WITHSCORE", "ZRANK nothing a WITHSCORE"] {
        assert!(node.run(line).is_nil(), "{line}");
    }
    assert_eq!(node.run("ZRANK z a WITHSCORES"), Reply::error("ERR syntax error"));
    let arity = Reply::error("ERR wrong number of arguments for 'zrank' command");
    assert_eq!(node.run("ZRANK z a WITHSCORE x"), arity);
}

#[test]
fn a_scan_of_many_members_meets_each_once() {
    let node = Node::start();
    let mut conn = node.conn();
    for n in 0..1000 {
        conn.run(&format!("ZADD z {n}.5 m{n}"));
    }
    for count in [1, 10, 333, 5000] {
        let mut seen = BTreeMap::new();
        let mut cursor = String::from("0");
        loop {
            let reply = conn.run(&format!("ZSCAN z {cursor} COUNT {count}"));
            for pair in reply.items()[1].texts().chunks(2) {
                assert_eq!(seen.insert(pair[0].clone(), pair[1].clone()), None, "{} comes twice", pair[0]);
            }
            cursor = reply.items()[0].text();
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 1000, "COUNT {count}");
        assert_eq!(seen["m17"], "17.5");
    }
}

#[test]
fn random_members_of_a_large_set() {
    let node = Node::start();
    let mut conn = node.conn();
    for n in 0..3000 {
        conn.run(&format!("ZADD z {n} m{n}"));
    }
    for count in [1, 5, 100, 2999, 3000, 9999] {
        let found = conn.run(&format!("ZRANDMEMBER z {count}")).texts();
        let different: BTreeSet<_> = found.iter().collect();
        assert_eq!((found.len(), different.len()), (count.min(3000), count.min(3000)));
    }
    for count in [1, 5, 5000] {
        let found = conn.run(&format!("ZRANDMEMBER z -{count} WITHSCORES")).texts();
        assert_eq!(found.len(), 2 * count);
        assert!(found.chunks(2).all(|pair| pair[0] == format!("m{}", pair[1])));
    }
}

/// What the encoding of large sets changes in Redis, and must not be seen here.
#[test]
fn large_sets() {
    let mut duel = Duel::start();
    let add = |from: usize, to: usize| {
        let mut add = vec![b"ZADD".to_vec(), b"big".to_vec()];
        for n in from..to {
            add.extend([format!("{}", n * 7919 % 10_007).into_bytes(), format!("member:{n}").into_bytes()]);
        }
        (Same::Bytes, add)
    };
    duel.compare(&(0..10).map(|part| add(part * 1000, (part + 1) * 1000)).collect::<Vec<_>>(), 1);
    let mut questions: Vec<String> = Vec::new();
    for n in [0, 1, 17, 255, 256, 257, 3000, 5000, 7777, 9743, 9999] {
        questions.push(format!("ZRANK big member:{n}"));
        questions.push(format!("ZREVRANK big member:{n}"));
        questions.push(format!("ZRANGE big {n} {} WITHSCORES", n + 3));
        questions.push(format!("ZREVRANGE big {n} {}", n + 3));
        questions.push(format!("ZRANGE big {n} +inf BYSCORE LIMIT {n} 3 WITHSCORES"));
        questions.push(format!("ZCOUNT big ({n} +inf"));
    }
    questions.push("ZRANGE big 0 -1 WITHSCORES".into());
    questions.push("ZUNIONSTORE copy 2 big big WEIGHTS 1 0.5".into());
    questions.push("ZRANGE copy 0 -1 WITHSCORES".into());
    questions.push("ZRANGESTORE low big 0 99".into());
    questions.push("ZINTERSTORE both 2 low big".into());
    questions.push("ZDIFFSTORE rest 2 big low".into());
    questions.push("ZINTERCARD 3 rest big copy".into());
    questions.push("ZINTERCARD 3 rest big copy LIMIT 10".into());
    questions.push("ZRANGE both 0 -1 WITHSCORES".into());
    questions.push("ZRANGE rest 4000 4010".into());
    questions.push("ZPOPMIN big 5000".into());
    questions.push("ZREMRANGEBYRANK big 100 4900".into());
    questions.push("ZRANGE big 0 -1 WITHSCORES".into());
    questions.push("ZREMRANGEBYSCORE big -inf +inf".into());
    questions.push("EXISTS big".into());
    questions.push("OBJECT ENCODING copy".into());
    questions.push("OBJECT ENCODING low".into());
    let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
    duel.compare(&crate::duel::lines(&questions), 10);
    duel.crash();
    duel.compare(&crate::duel::lines(&["ZRANGE rest 0 -1 WITHSCORES", "ZRANGE copy 0 -1 WITHSCORES", "EXISTS big"]), 1);
}

/// Makes commands on sorted sets that stay small: what Redis does with ranges of names where scores differ, and with minus zero,
/// depends on that.
struct Generator {
    rng: StdRng,
}

const KEYS: [&str; 7] = ["z1", "z2", "z3", "same", "set", "dst", "str"];

impl Generator {
    fn command(&mut self) -> Vec<Vec<u8>> {
        let (a, b) = (self.key(), self.key());
        let mut line: Vec<String> = match self.rng.random_range(0..44) {
            0..8 => {
                let mut add = vec!["ZADD".into(), a];
                for _ in 0..self.rng.random_range(0..3) {
                    add.push(self.pick(&["CH", "CH", "NX", "XX", "GT", "LT", "INCR"]));
                }
                for _ in 0..self.rng.random_range(1..4) {
                    add.extend([self.score(), self.member()]);
                }
                add
            }
            8 => vec!["ZADD".into(), "same".into(), "0".into(), self.member(), "0".into(), self.member()],
            9 | 10 => vec!["ZINCRBY".into(), a, self.score(), self.member()],
            11 | 12 => vec!["ZREM".into(), a, self.member(), self.member()],
            13 => vec!["ZSCORE".into(), a, self.member()],
            14 => vec!["ZMSCORE".into(), a, self.member(), self.member()],
            15 => vec![self.pick(&["ZRANK", "ZREVRANK"]), a, self.member()],
            16 => vec!["ZCARD".into(), a],
            17 => vec!["ZCOUNT".into(), a, self.bound(), self.bound()],
            18 => vec!["ZLEXCOUNT".into(), a, self.name_bound(), self.name_bound()],
            19..23 => {
                let mut range = vec!["ZRANGE".into(), a];
                range.extend(self.range());
                if self.rng.random() {
                    range.push("WITHSCORES".into());
                }
                range
            }
            23 => {
                let mut range = vec!["ZRANGESTORE".into(), b, a];
                range.extend(self.range());
                range
            }
            24 => vec![self.pick(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"]), a, self.bound(), self.bound()],
            25 => vec![self.pick(&["ZRANGEBYLEX", "ZREVRANGEBYLEX"]), a, self.name_bound(), self.name_bound()],
            26 => vec!["ZREVRANGE".into(), a, self.rank(), self.rank(), "WITHSCORES".into()],
            27 => vec!["ZREMRANGEBYRANK".into(), a, self.rank(), self.rank()],
            28 => vec!["ZREMRANGEBYSCORE".into(), a, self.bound(), self.bound()],
            29 => vec!["ZREMRANGEBYLEX".into(), a, self.name_bound(), self.name_bound()],
            30 => vec![self.pick(&["ZPOPMIN", "ZPOPMAX"]), a],
            31 => vec![self.pick(&["ZPOPMIN", "ZPOPMAX"]), a, self.pick(&["0", "1", "2", "5", "-1", "x"])],
            32 => vec!["ZMPOP".into(), "2".into(), a, b, self.pick(&["MIN", "MAX"]), "COUNT".into(), self.rank()],
            33 => vec![self.pick(&["BZPOPMIN", "BZPOPMAX"]), a, b, "0.001".into()],
            34 => vec!["BZMPOP".into(), "0.001".into(), "2".into(), a, b, self.pick(&["MIN", "MAX"])],
            35..40 => {
                let stores = self.rng.random();
                let mut combine = match stores {
                    true => vec![self.pick(&["ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"]), self.pick(&["dst", "z1"])],
                    false => vec![self.pick(&["ZUNION", "ZINTER", "ZDIFF"])],
                };
                combine.extend(["3".into(), a, b, self.key()]);
                if self.rng.random_range(0..3) == 0 {
                    combine.extend(["WEIGHTS".into(), self.score(), self.score(), self.score()]);
                }
                if self.rng.random_range(0..3) == 0 {
                    combine.extend(["AGGREGATE".into(), self.pick(&["SUM", "MIN", "MAX"])]);
                }
                if !stores {
                    combine.push("WITHSCORES".into());
                }
                combine
            }
            40 => vec!["ZINTERCARD".into(), "2".into(), a, b, "LIMIT".into(), self.rank()],
            41 => vec![self.pick(&["SADD", "SREM"]), "set".into(), self.member(), self.member()],
            42 => vec!["ZSCAN".into(), a, "0".into(), "MATCH".into(), self.pick(&["*", "*1*", "m?"])],
            _ => match self.rng.random_range(0..6) {
                0 => vec!["DEL".into(), a],
                1 => vec!["SET".into(), "str".into(), "x".into()],
                2 => vec!["OBJECT".into(), "ENCODING".into(), a],
                _ => vec!["TYPE".into(), a],
            },
        };
        // What Redis 7.0 does not know of and later ones do is no error here.
        if self.rng.random_range(0..200) == 0 && !line[0].ends_with("RANK") {
            line.push("what".into());
        }
        line.into_iter().map(String::into_bytes).collect()
    }

    fn pick(&mut self, from: &[&str]) -> String {
        (*from.choose(&mut self.rng).expect("something to choose")).into()
    }

    fn key(&mut self) -> String {
        match self.rng.random_range(0..30) {
            0 => "str".into(),
            1 => "nothing".into(),
            _ => self.pick(&KEYS[..6]),
        }
    }

    fn member(&mut self) -> String {
        match self.rng.random_range(0..10) {
            0 => self.rng.random_range(-3..3).to_string(),
            1 => self.pick(&["", "a", "aa", "\u{ff}", "m", "with space"]),
            _ => format!("m{}", self.rng.random_range(0..25)),
        }
    }

    fn score(&mut self) -> String {
        match self.rng.random_range(0..12) {
            0 => self.pick(&["inf", "-inf", "+inf", "-0", "0", "1e308", "-1e308", "nan", "x", "1e-320", "0x1p-3"]),
            1 => format!("{}", self.rng.random::<f64>()),
            2 => format!("{:e}", f64::from_bits(self.rng.random::<u64>() & !(0x3ff << 53))),
            3 => self.rng.random::<i64>().to_string(),
            4 => format!("{}.5", self.rng.random_range(-4..4)),
            _ => self.rng.random_range(-4..5).to_string(),
        }
    }

    fn bound(&mut self) -> String {
        let open = if self.rng.random_range(0..3) == 0 { "(" } else { "" };
        match self.rng.random_range(0..5) {
            0 => self.pick(&["-inf", "+inf", "(-inf", "(inf"]),
            _ => format!("{open}{}", self.score()),
        }
    }

    fn name_bound(&mut self) -> String {
        match self.rng.random_range(0..6) {
            0 => "-".into(),
            1 => "+".into(),
            2 => format!("({}", self.member()),
            3 if self.rng.random_range(0..9) == 0 => self.member(),
            _ => format!("[{}", self.member()),
        }
    }

    fn rank(&mut self) -> String {
        self.rng.random_range(-8..12).to_string()
    }

    fn range(&mut self) -> Vec<String> {
        let mut range = match self.rng.random_range(0..3) {
            0 => vec![self.rank(), self.rank()],
            1 => vec![self.bound(), self.bound(), "BYSCORE".into()],
            _ => vec![self.name_bound(), self.name_bound(), "BYLEX".into()],
        };
        if self.rng.random_range(0..3) == 0 {
            range.push("REV".into());
        }
        // Where scores differ, what LIMIT leaves out of a range of names follows from how Redis counts.
        if self.rng.random_range(0..3) == 0 && !range.contains(&"BYLEX".into()) {
            range.extend(["LIMIT".into(), self.rng.random_range(-1..6).to_string(), self.rank()]);
        }
        range
    }
}

#[test]
fn random_commands() {
    const ROUNDS: usize = 8;
    let mut duel = Duel::start();
    let mut generator = Generator { rng: rng() };
    for round in 1..=ROUNDS {
        duel.stream((0..2500).map(|_| generator.command()).collect());
        let state = KEYS.iter().flat_map(|key| {
            let word = |word: &str| word.as_bytes().to_vec();
            [vec![word("ZRANGE"), word(key), word("0"), word("-1"), word("WITHSCORES")], vec![word("TYPE"), word(key)]]
        });
        duel.stream(state.clone().collect());
        if round == ROUNDS / 2 {
            duel.crash();
            duel.stream(state.collect());
        }
    }
}
