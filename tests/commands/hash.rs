//! Hash commands: replies as Redis's.

use crate::common::{Node, Reply};
use crate::duel::Duel;

#[test]
fn fields() {
    Duel::start().script(
        r#"
        HSET h a 1 b 2 a 3
        HSET h a 1 c 4
        HSET h a
        HSET h a 1 b
        HMSET h a 5 b 6
        HMSET h a 5 b
        HMSET n x 1
        HGET h a
        HGET h nothing
        HGET nothing a
        HMGET h a nothing b a
        HMGET nothing a b
        HGETALL h
        HGETALL nothing
        HKEYS h
        HKEYS nothing
        HVALS h
        HVALS nothing
        HLEN h
        HLEN nothing
        HEXISTS h a
        HEXISTS h nothing
        HEXISTS nothing a
        HSTRLEN h a
        HSTRLEN h nothing
        HSTRLEN nothing a
        HSETNX h a 9
        HSETNX h new 9
        HSETNX fresh f v
        HGETALL fresh
        HSET h "" "" "\x00\xff\r\n" "\r\n"
        HGET h ""
        HGET h "\x00\xff\r\n"
        TYPE h
        TTL h
        EXPIRE h 1000000
        HSET h a 1
        ~TTL h
        HDEL h a a nothing b
        HDEL nothing a
        HGETALL h
        HDEL h c new "" "\x00\xff\r\n"
        EXISTS h
        TYPE h
        KEYS *
        "#,
    );
}

#[test]
fn numbers_in_fields() {
    Duel::start().script(
        r#"
        HINCRBY h n 5
        HINCRBY h n -7
        HINCRBY h n x
        HINCRBY h n 1.5
        HINCRBY h n 9223372036854775807
        HINCRBY h n 9223372036854775807
        HSET h t "text" s " 1" z "01" big 9223372036854775807 small -9223372036854775808 f 1.5 null "1\x002"
        HINCRBY h t 1
        HINCRBY h s 1
        HINCRBY h z 1
        HINCRBY h big 1
        HINCRBY h small -1
        HINCRBY h f 1
        HINCRBYFLOAT h f 0.1
        HINCRBYFLOAT h f 1.23
        HINCRBYFLOAT h n 0.5
        HINCRBYFLOAT h t 1
        HINCRBYFLOAT h s 1
        HINCRBYFLOAT h null 1
        HINCRBYFLOAT h f x
        HINCRBYFLOAT h f inf
        HINCRBYFLOAT h f -inf
        HINCRBYFLOAT h f nan
        HINCRBYFLOAT h new 2.50
        HINCRBYFLOAT h huge 1e4932
        HINCRBYFLOAT h huge 1.1e4932
        HINCRBYFLOAT nothing f x
        EXISTS nothing
        HINCRBYFLOAT fresh f 17179869184
        HINCRBYFLOAT fresh f 1.5
        HGETALL h
        HGETALL fresh
        "#,
    );
}

#[test]
fn random_fields() {
    Duel::start().script(
        r#"
        HSET h only 1
        HRANDFIELD h
        HRANDFIELD h 5
        HRANDFIELD h -3
        HRANDFIELD h 5 WITHVALUES
        HRANDFIELD h -3 withvalues
        HRANDFIELD h 0
        HRANDFIELD h 0 WITHVALUES
        HRANDFIELD h x
        HRANDFIELD h 1 foo
        HRANDFIELD h x foo
        HRANDFIELD h 1 WITHVALUES more
        HRANDFIELD h x WITHVALUES more
        HRANDFIELD h 9223372036854775807
        HRANDFIELD h 9223372036854775807 WITHVALUES
        HRANDFIELD h -9223372036854775808
        HRANDFIELD h -9223372036854775807 WITHVALUES
        HRANDFIELD nothing
        HRANDFIELD nothing 3
        HRANDFIELD nothing -3 WITHVALUES
        "#,
    );
}

#[test]
fn scans() {
    Duel::start().script(
        r#"
        HSET h a 1 ab 2 b 3
        HSCAN h 0
        HSCAN h 0 COUNT 1
        HSCAN h 0 MATCH a*
        HSCAN h 0 MATCH * count 100
        HSCAN h 0 MATCH nothing
        HSCAN h x
        HSCAN h 0 COUNT 0
        HSCAN h 0 COUNT x
        HSCAN h 0 COUNT
        HSCAN h 0 FOO bar
        HSCAN nothing 0
        HSCAN nothing x
        HSCAN nothing 0 FOO
        SET s v
        HSCAN s 0
        HSCAN s x
        OBJECT ENCODING h
        HSET h long 12345678901234567890123456789012345678901234567890123456789012345
        OBJECT ENCODING h
        "#,
    );
}

#[test]
fn other_types() {
    Duel::start().script(
        r#"
        SET s v
        SADD m v
        HSET s a 1
        HSET s a
        HSETNX s a 1
        HMSET s a 1
        HGET s a
        HMGET m a b
        HGETALL s
        HKEYS m
        HVALS s
        HLEN s
        HEXISTS s a
        HDEL s a
        HINCRBY s a 1
        HINCRBY s a x
        HINCRBYFLOAT s a 1
        HINCRBYFLOAT s a inf
        HSTRLEN s a
        HRANDFIELD s
        HRANDFIELD s 0
        HSET h a 1
        GET h
        APPEND h x
        INCR h
        SADD h a
        SET h v
        GET h
        HGET h a
        "#,
    );
}

#[test]
fn a_large_hash_is_scanned_in_parts_and_drawn_from() {
    let node = Node::start();
    let mut conn = node.conn();
    let mut set = vec!["HSET".to_owned(), "h".to_owned()];
    (0..5000).for_each(|field| set.extend([format!("f{field}"), field.to_string()]));
    assert_eq!(conn.call(&set), Reply::Int(5000));
    for novalues in ["", "NOVALUES"] {
        let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
        loop {
            let reply = conn.run(&format!("HSCAN h {cursor} COUNT 100 {novalues}"));
            cursor = reply.items()[0].text();
            let texts = reply.items()[1].texts();
            assert!(texts.len() <= 220);
            for pair in texts.chunks(if novalues.is_empty() { 2 } else { 1 }) {
                assert!(pair.get(1).is_none_or(|value| format!("f{value}") == pair[0]));
                assert!(seen.insert(pair[0].clone()), "{} came twice", pair[0]);
            }
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 5000);
    }
    for (count, expected) in [("50", 50), ("4999", 4999), ("6000", 5000)] {
        let fields = conn.run(&format!("HRANDFIELD h {count}")).texts();
        let distinct: std::collections::BTreeSet<_> = fields.iter().collect();
        assert_eq!((fields.len(), distinct.len()), (expected, expected));
    }
    assert_eq!(conn.run("HRANDFIELD h -7000 WITHVALUES").items().len(), 14_000);
    assert_eq!(conn.run("HGETALL h").items().len(), 10_000);
    assert_eq!(conn.run("OBJECT ENCODING h").text(), "hashtable");
}
