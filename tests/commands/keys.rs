//! Commands on keys of any type.

use crate::common::{Node, Reply};
use crate::duel::Duel;

#[test]
fn deleting_and_counting() {
    Duel::start().script(
        r#"
        DEL none
        MSET a 1 b 2 c 3 d 4
        EXISTS a b none a
        TOUCH a b none a
        DEL a none b a
        UNLINK c c
        EXISTS a b c d
        TYPE d
        TYPE none
        DBSIZE
        DEL
        UNLINK
        EXISTS
        TOUCH
        TYPE
        TYPE a b
        UNLINK d
        DBSIZE
        RANDOMKEY
        RANDOMKEY x
        SET "\x00" v
        RANDOMKEY
        SET z v
        SET y v
        ~RANDOMKEY
        SELECT 3
        RANDOMKEY
        EXISTS z
        SET z other
        SELECT 0
        GET z
        "#,
    );
}

#[test]
fn expiring() {
    Duel::start().script(
        r#"
        EXPIRE none 100
        PEXPIREAT none 1
        PERSIST none
        TTL none
        PTTL none
        EXPIRETIME none
        PEXPIRETIME none
        SET k v
        TTL k
        PTTL k
        EXPIRETIME k
        PEXPIRETIME k
        PERSIST k
        EXPIRE k 100
        ~TTL k
        ~PTTL k
        ~EXPIRETIME k
        ~PEXPIRETIME k
        PERSIST k
        PERSIST k
        PEXPIRE k 1000000
        ~PTTL k
        EXPIREAT k 33177117420
        EXPIRETIME k
        PEXPIRETIME k
        PEXPIREAT k 33177117420499
        EXPIRETIME k
        PEXPIREAT k 33177117420500
        EXPIRETIME k
        PEXPIREAT k 9223372036854775807
        PEXPIRETIME k
        EXPIRETIME k
        EXPIRE k 9223372036854775807
        EXPIRE k 9223372036854775
        PEXPIRE k 9223372036854775807
        EXPIREAT k 9223372036854776
        EXPIREAT k -9223372036854775808
        EXPIRE none 9223372036854775807
        EXPIRE k abc
        EXPIRE k 1.5
        EXPIRE k ""
        EXPIRE k
        EXPIRE k 10 FOO
        EXPIRE k abc FOO
        EXPIRE k 10 NX FOO
        PEXPIRETIME k
        EXPIRE k 0
        EXISTS k
        SET k v
        EXPIRE k -1
        EXISTS k
        SET k v
        PEXPIRE k -9223372036854775808
        EXISTS k
        SET k v
        EXPIREAT k 1
        EXISTS k
        SET k v
        PEXPIREAT k 0
        EXISTS k
        SET k v
        PEXPIREAT k -9223372036854775808
        EXISTS k
        DBSIZE
        TTL
        PERSIST a b
        "#,
    );
}

#[test]
fn expiring_on_conditions() {
    Duel::start().script(
        r#"
        SET k v
        EXPIRE k 1000 XX
        EXPIRE k 1000 GT
        TTL k
        EXPIRE k 1000 NX
        EXPIRE k 2000 NX
        ~TTL k
        EXPIRE k 5000 XX
        EXPIRE k 4000 GT
        EXPIRE k 8000 GT
        ~TTL k
        EXPIRE k 9000 LT
        EXPIRE k 3000 lt
        ~TTL k
        PERSIST k
        EXPIRE k 3000 LT
        ~TTL k
        EXPIRE k 9000 XX GT
        EXPIRE k 1000 XX LT
        PERSIST k
        EXPIRE k 1000 XX LT
        EXPIRE k 1000 XX GT
        EXPIRE k 1000 NX XX
        EXPIRE k 1000 NX GT
        EXPIRE k 1000 NX LT
        EXPIRE k 1000 GT LT
        EXPIRE k 1000 NX NX
        EXPIRE k abc NX XX
        EXPIREAT k 33177117420 GT
        EXPIREAT k 33177117420 GT
        EXPIREAT k 33177117420 LT
        EXPIREAT k 33177117419 LT
        PEXPIREAT k 33177117419001 GT
        PEXPIRETIME k
        PEXPIRE k 5 GT
        PEXPIRETIME k
        EXPIRE k -1 GT
        EXPIRE k -1 NX
        EXISTS k
        EXPIRE k -1 LT
        EXISTS k
        EXPIRE none 100 NX
        EXPIRE none 100 FOO
        SET k v
        EXPIRE k -1 XX
        EXPIRE k -1 GT
        EXISTS k
        EXPIRE k -1 LT
        EXISTS k
        "#,
    );
}

#[test]
fn renaming() {
    Duel::start().script(
        r#"
        RENAME none x
        RENAME none none
        RENAMENX none x
        RENAMENX none none
        SET a 1 EXAT 33177117420
        SET b 2
        RENAME a b
        GET b
        EXPIRETIME b
        EXISTS a
        RENAME b b
        GET b
        RENAMENX b b
        SET c 3
        RENAMENX b c
        RENAMENX b d
        EXPIRETIME d
        GET d
        RENAME c d
        TTL d
        RENAME "" d
        RENAME d ""
        GET ""
        RENAME d
        RENAMENX d
        RENAME a b c
        DBSIZE
        KEYS *
        "#,
    );
}

#[test]
fn copying() {
    Duel::start().script(
        r#"
        COPY none x
        SET a 1 EXAT 33177117420
        COPY a b
        GET b
        EXPIRETIME b
        SET a 2
        COPY a b
        GET b
        COPY a b REPLACE
        GET b
        TTL b
        COPY a a
        COPY none none
        COPY a a REPLACE
        COPY a a DB 0
        COPY a a DB 1
        COPY a a DB 1
        COPY a a DB 1 REPLACE
        COPY a x REPLACE DB 15 REPLACE
        COPY a x DB 3 DB 4
        COPY a x DB 16
        COPY a x DB -1
        COPY a x DB 2147483647
        COPY a x DB 2147483648
        COPY a x DB -2147483649
        COPY a x DB 9223372036854775808
        COPY a x DB abc
        COPY a x DB
        COPY a x FOO
        COPY a
        SELECT 1
        GET a
        COPY a a DB 0
        DBSIZE
        SELECT 15
        GET x
        SELECT 3
        GET x
        SELECT 4
        GET x
        SELECT 0
        DBSIZE
        "#,
    );
}

#[test]
fn patterns() {
    Duel::start().script(
        r#"
        MSET hello 1 hallo 2 hillo 3 hllo 4 heello 5 h*llo 6 "h\\llo" 7 "" 8 "\x80\xff" 9 HELLO 10 a- 11 "a]" 12 b 13 user:1 14 user:2 15 user 16
        KEYS *
        KEYS **
        KEYS ""
        KEYS h?llo
        KEYS h*llo
        KEYS h[ae]llo
        KEYS h[^ae]llo
        KEYS h[a-e]llo
        KEYS h[e-a]llo
        KEYS h\*llo
        KEYS "h\\\\*llo"
        KEYS "h\\\\\\\\llo"
        KEYS [ab
        KEYS [^
        KEYS [a-]
        KEYS "a[]]"
        KEYS "a[\\]]"
        KEYS "[\x80-\xff]*"
        KEYS "\x80*"
        KEYS user:*
        KEYS user*
        KEYS user
        KEYS user:?
        KEYS *:*
        KEYS *l*o
        KEYS nothing*
        KEYS
        KEYS a b
        SET gone v PXAT 1
        KEYS g*
        SELECT 1
        KEYS *
        "#,
    );
}

#[test]
fn objects() {
    Duel::start().script(
        r#"
        OBJECT ENCODING none
        OBJECT FREQ none
        OBJECT IDLETIME none
        OBJECT REFCOUNT none
        SET k text
        OBJECT ENCODING k
        object encoding k
        OBJECT REFCOUNT k
        OBJECT FREQ k
        OBJECT
        OBJECT ENCODING
        OBJECT ENCODING k k
        OBJECT HELP k
        OBJECT FOO k
        OBJECT FOO
        "#,
    );
    let node = Node::start();
    node.run("SET k v").expect_ok();
    let idle = node.run("OBJECT IDLETIME k");
    assert_eq!(idle, Reply::error("ERR idle time is not tracked by this server"));
    let help = node.run("OBJECT HELP").texts();
    assert!(help.iter().any(|line| line.starts_with("ENCODING")), "{help:?}");
}
