//! Set commands: replies as Redis's.

use std::collections::BTreeSet;

use crate::common::{Conn, Node, Reply, rng};
use crate::duel::Duel;
use rand::RngExt;

#[test]
fn members() {
    Duel::start().script(
        r#"
        SADD s a b a c
        SADD s a
        SADD s a d
        SADD s "" "\x00\xff\r\n"
        SCARD s
        SCARD nothing
        SISMEMBER s a
        SISMEMBER s nothing
        SISMEMBER nothing a
        SMISMEMBER s a nothing b
        SMISMEMBER nothing a b
        SMEMBERS s
        SMEMBERS nothing
        SREM s a a nothing b
        SREM nothing a
        SMEMBERS s
        TYPE s
        EXPIRE s 1000000
        SADD s e
        ~TTL s
        SMOVE s t e
        SMOVE s t e
        SMOVE s s c
        SMOVE s s nothing
        SMOVE nothing t a
        SMEMBERS t
        SMOVE t s e
        EXISTS t
        SREM s c d e "" "\x00\xff\r\n"
        EXISTS s
        KEYS *
        "#,
    );
}

#[test]
fn algebra() {
    Duel::start().script(
        r#"
        SADD a 1 2 3 4 x
        SADD b 2 3 4 5 y
        SADD c 3 4 6 x y
        SINTER a
        SINTER a b
        SINTER a b c
        SINTER a a
        SINTER a nothing
        SINTER nothing
        SUNION a b c
        SUNION a nothing
        SUNION nothing nothing
        SDIFF a b
        SDIFF a b c
        SDIFF a a
        SDIFF a nothing
        SDIFF nothing a
        SINTERSTORE d a b
        SMEMBERS d
        SUNIONSTORE d a b c
        SMEMBERS d
        SDIFFSTORE d a c
        SMEMBERS d
        SUNIONSTORE a a b
        SMEMBERS a
        SINTERSTORE a a c
        SMEMBERS a
        SDIFFSTORE b b b
        EXISTS b
        SINTERSTORE d nothing a
        EXISTS d
        SINTERSTORE d nothing a
        SET string v
        SUNIONSTORE string c
        TYPE string
        SMEMBERS string
        EXPIRE c 1000000
        SUNIONSTORE c c
        TTL c
        SUNIONSTORE none nothing
        "#,
    );
}

#[test]
fn cardinality_of_intersections() {
    Duel::start().script(
        r#"
        SADD a 1 2 3 4 5
        SADD b 2 3 4 5 6
        SINTERCARD 1 a
        SINTERCARD 2 a b
        SINTERCARD 2 a nothing
        SINTERCARD 2 a b LIMIT 2
        SINTERCARD 2 a b LIMIT 0
        SINTERCARD 2 a b LIMIT 100
        SINTERCARD 2 a b limit 3 limit 1
        SINTERCARD 2 a b LIMIT -1
        SINTERCARD 2 a b LIMIT x
        SINTERCARD 2 a b LIMIT
        SINTERCARD 2 a b FOO 1
        SINTERCARD 0 a b
        SINTERCARD -1 a b
        SINTERCARD x a b
        SINTERCARD 3 a b
        SINTERCARD 2 a
        SINTERCARD 1
        "#,
    );
}

#[test]
fn random_members() {
    Duel::start().script(
        r#"
        SADD s only
        SRANDMEMBER s
        SRANDMEMBER s 5
        SRANDMEMBER s -3
        SRANDMEMBER s 0
        SRANDMEMBER s x
        SRANDMEMBER s 1 2
        SRANDMEMBER s -9223372036854775808
        SRANDMEMBER s 9223372036854775807
        SRANDMEMBER nothing
        SRANDMEMBER nothing 5
        SRANDMEMBER nothing x
        SPOP s 0
        SPOP s -1
        SPOP s x
        SPOP s 1 2
        SPOP s
        SPOP s
        SPOP s 1
        EXISTS s
        SADD s only
        SPOP s 3
        EXISTS s
        SADD s only
        SPOP s 1
        EXISTS s
        "#,
    );
}

#[test]
fn scans_and_encodings() {
    Duel::start().script(
        r#"
        SADD s 1 2 33
        OBJECT ENCODING s
        SSCAN s 0
        SSCAN s 0 COUNT 1
        SSCAN s 0 MATCH 3*
        SSCAN s 0 COUNT 0
        SSCAN s 0 FOO 1
        SSCAN s 0 COUNT
        SSCAN s x
        SSCAN nothing 0
        SSCAN nothing x
        SSCAN nothing 0 FOO
        SADD s 01
        OBJECT ENCODING s
        SSCAN s 0 COUNT 100
        SSCAN s 0 MATCH 0* COUNT 100
        "#,
    );
}

#[test]
fn other_types() {
    Duel::start().script(
        r#"
        SET string v
        SADD s a
        SADD string a
        SREM string a
        SISMEMBER string a
        SMISMEMBER string a
        SMEMBERS string
        SCARD string
        SMOVE string s a
        SMOVE s string a
        SMOVE nothing string a
        SPOP string
        SPOP string 1
        SPOP string x
        SRANDMEMBER string
        SRANDMEMBER string x
        SINTER s string
        SINTER string nothing
        SINTER nothing string
        SUNION s string
        SDIFF s string
        SDIFF nothing string
        SINTERSTORE d nothing string
        SUNIONSTORE d s string
        SINTERCARD 2 nothing string
        SSCAN string 0
        GET s
        HGET s a
        "#,
    );
}

fn add(conn: &mut Conn, key: &str, members: impl Iterator<Item = u32>) -> BTreeSet<String> {
    let members: BTreeSet<String> = members.map(|member| member.to_string()).collect();
    for chunk in members.iter().cloned().collect::<Vec<_>>().chunks(1000) {
        conn.call(&[&["SADD".to_owned(), key.to_owned()], chunk].concat());
    }
    members
}

fn sorted(reply: &Reply) -> BTreeSet<String> {
    let texts = reply.texts();
    let set: BTreeSet<String> = texts.iter().cloned().collect();
    assert_eq!(set.len(), texts.len(), "a member came twice");
    set
}

/// Of the same size and of very different ones, with and without much in common: every way to compare two sets.
#[test]
fn algebra_of_large_sets() {
    let mut node = Node::start();
    let mut conn = node.conn();
    let mut rng = rng();
    let large = add(&mut conn, "large", 0..20_000);
    let other = add(&mut conn, "other", (0..15_000).map(|n| n * 2));
    let few: Vec<u32> = (0..300).map(|_| rng.random_range(0..40_000)).collect();
    let few = add(&mut conn, "few", few.into_iter());
    for (keys, first, second) in [
        ("large other", &large, &other),
        ("other large", &other, &large),
        ("large few", &large, &few),
        ("few large", &few, &large),
        ("few other", &few, &other),
    ] {
        let expected: [BTreeSet<String>; 3] = [first & second, first | second, first - second];
        for (name, expected) in ["INTER", "UNION", "DIFF"].iter().zip(&expected) {
            assert_eq!(sorted(&conn.run(&format!("S{name} {keys}"))), *expected, "S{name} {keys}");
            assert_eq!(conn.run(&format!("S{name}STORE result {keys}")).int(), expected.len() as i64);
            assert_eq!(sorted(&conn.run("SMEMBERS result")), *expected, "S{name}STORE {keys}");
        }
        assert_eq!(conn.run(&format!("SINTERCARD 2 {keys}")).int(), expected[0].len() as i64);
        assert_eq!(conn.run(&format!("SINTERCARD 2 {keys} LIMIT 7")).int(), 7);
    }
    assert_eq!(sorted(&conn.run("SINTER large other few")), &(&large & &other) & &few);
    assert_eq!(sorted(&conn.run("SDIFF large other few")), &(&large - &other) - &few);

    // What was popped is gone, also after a crash.
    let popped = sorted(&conn.run("SPOP large 5000"));
    assert_eq!((popped.len(), popped.is_subset(&large)), (5000, true));
    let last = conn.run("SPOP large").text();
    let left: BTreeSet<String> = (&large - &popped).into_iter().filter(|member| *member != last).collect();
    node.crash();
    let mut conn = node.conn();
    assert_eq!(sorted(&conn.run("SMEMBERS large")), left);
    assert_eq!(conn.run("SCARD large").int(), 14_999);

    let (mut cursor, mut seen) = ("0".to_owned(), BTreeSet::new());
    loop {
        let reply = conn.run(&format!("SSCAN large {cursor} COUNT 500"));
        for member in reply.items()[1].texts() {
            assert!(seen.insert(member), "a member came twice");
        }
        cursor = reply.items()[0].text();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, left);
    assert_eq!(sorted(&conn.run("SRANDMEMBER large 100")).len(), 100);
    assert_eq!(conn.run("SRANDMEMBER large -20000").items().len(), 20_000);
    assert_eq!(sorted(&conn.run("SPOP large 20000")), left);
    assert_eq!(conn.run("EXISTS large").int(), 0);
}
