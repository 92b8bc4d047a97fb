//! Fields of hashes that expire, as Redis 7.4 has them. The installed redis-server knows none, so the replies stand here.

use std::thread::sleep;
use std::time::Duration;

use crate::common::{Conn, Node, Reply, unix_ms};

/// A reply in a line: the elements of an array one after the other, those of HKEYS and HGETALL sorted.
fn shown(reply: &Reply, sorted: bool) -> String {
    match reply {
        Reply::Int(number) => number.to_string(),
        Reply::Error(text) => text.clone(),
        Reply::Nil => "nil".to_owned(),
        Reply::Array(items) => {
            let mut items: Vec<String> = items.iter().map(|item| shown(item, sorted)).collect();
            if sorted {
                items.sort();
            }
            items.join(" ")
        }
        text => text.text(),
    }
}

/// Runs lines of `command => reply`.
#[track_caller]
fn script(conn: &mut Conn, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once("=>").expect("an arrow");
        let sorted = command.starts_with("HKEYS") || command.starts_with("HGETALL") || command.starts_with("HSCAN");
        assert_eq!(shown(&conn.run(command.trim()), sorted).trim(), expected.trim(), "{command}");
    }
}

#[test]
fn arguments() {
    let node = Node::start();
    let far = 1u64 << 46;
    script(
        &mut node.conn(),
        &format!(
            "HEXPIRE h 100 FIELDS 2 a b => -2 -2
            HTTL h FIELDS 2 a b => -2 -2
            HPERSIST h FIELDS 1 a => -2
            EXISTS h => 0
            HSET h a 1 b 2 => 2
            SET s v => OK
            HEXPIRE s 100 FIELDS 1 a => WRONGTYPE Operation against a key holding the wrong kind of value
            HTTL s FIELDS 1 a => WRONGTYPE Operation against a key holding the wrong kind of value
            HPERSIST s FIELDS 1 a => WRONGTYPE Operation against a key holding the wrong kind of value
            HEXPIRE h 100 FIELDS 1 => ERR wrong number of arguments for 'hexpire' command
            HTTL h FIELDS 1 => ERR wrong number of arguments for 'httl' command
            HEXPIRE h x FIELDS 1 a => ERR value is not an integer or out of range
            HEXPIRE h -1 FIELDS 1 a => ERR invalid expire time, must be >= 0
            HEXPIRE h 9223372036854775807 FIELDS 1 a => ERR invalid expire time in 'hexpire' command
            HPEXPIREAT h {far} FIELDS 1 a => ERR invalid expire time in 'hpexpireat' command
            HEXPIRE h 100 NX a b c => ERR Mandatory argument FIELDS is missing or not at the right position
            HEXPIRE h 100 NX XX FIELDS 1 a => ERR Mandatory argument FIELDS is missing or not at the right position
            HTTL h a b c => ERR Mandatory argument FIELDS is missing or not at the right position
            HEXPIRE h 100 FIELDS 0 a => ERR Parameter `numFields` should be greater than 0
            HEXPIRE h 100 FIELDS x a => ERR Parameter `numFields` should be greater than 0
            HTTL h FIELDS 0 a => ERR Number of fields must be a positive integer
            HEXPIRE h 100 FIELDS 2 a => ERR The `numfields` parameter must match the number of arguments
            HTTL h FIELDS 1 a b => ERR The `numfields` parameter must match the number of arguments
            HPERSIST h FIELDS 1 a b => ERR The `numfields` parameter must match the number of arguments
            HTTL h FIELDS 3 a b c => -1 -1 -2"
        ),
    );
}

#[test]
fn conditions_and_answers() {
    let node = Node::start();
    let at = unix_ms() / 1000 * 1000 + 1_000_000;
    let (sooner, later) = (at - 5000, at + 5000);
    script(
        &mut node.conn(),
        &format!(
            "HSET h a 1 b 2 c 3 => 3
            HPEXPIREAT h {at} XX FIELDS 1 a => 0
            HPEXPIREAT h {at} GT FIELDS 1 a => 0
            HPEXPIREAT h {at} NX FIELDS 3 a a nothing => 1 0 -2
            HPEXPIREAT h {at} LT FIELDS 1 b => 1
            HPEXPIREAT h {sooner} GT FIELDS 2 a b => 0 0
            HPEXPIREAT h {sooner} LT FIELDS 2 a a => 1 0
            HPEXPIREAT h {later} GT FIELDS 2 b c => 1 0
            HPEXPIREAT h {later} xx FIELDS 3 a b c => 1 1 0
            HPEXPIRETIME h FIELDS 4 a b c d => {later} {later} -1 -2
            HEXPIRETIME h FIELDS 1 a => {}
            HPERSIST h FIELDS 4 a a c d => 1 -1 -1 -2
            HPEXPIRETIME h FIELDS 2 a b => -1 {later}
            HSET h b 5 => 0
            HPEXPIRETIME h FIELDS 1 b => -1
            HEXPIREAT h {} FIELDS 1 b => 1
            HINCRBY h b 1 => 6
            HINCRBYFLOAT h b 0.5 => 6.5
            HPEXPIRETIME h FIELDS 1 b => {later}
            HSETNX h b 1 => 0
            HEXPIREAT h 1 GT FIELDS 1 b => 0
            HEXPIREAT h 1 FIELDS 4 b b nothing a => 2 -2 -2 2
            HGETALL h => 3 c
            HEXPIRE h 0 FIELDS 1 c => 2
            EXISTS h => 0",
            later / 1000,
            later / 1000,
        ),
    );
}

#[test]
fn an_expired_field_exists_for_nobody() {
    let mut node = Node::start();
    let mut conn = node.conn();
    script(
        &mut conn,
        "HSET h a 1 b 2 c 3 => 3
        HSET gone a 1 b 2 => 2
        HSET kept a 1 => 1
        EXPIRE kept 100000 => 1
        HPEXPIRE h 60 FIELDS 2 a b => 1 1
        HPEXPIRE gone 60 FIELDS 2 a b => 1 1
        HLEN h => 3",
    );
    sleep(Duration::from_millis(80));
    let look = "HLEN h => 1
        HEXISTS h a => 0
        HGET h a => nil
        HMGET h a c => nil 3
        HSTRLEN h a => 0
        HGETALL h => 3 c
        HKEYS h => c
        HVALS h => 3
        HRANDFIELD h => c
        HRANDFIELD h 5 => c
        HRANDFIELD h -2 => c c
        HSCAN h 0 => 0 3 c
        HTTL h FIELDS 2 a c => -2 -1
        HPERSIST h FIELDS 1 a => -2
        HEXPIRE h 100 FIELDS 1 a => -2
        HLEN gone => 0
        HGETALL gone =>
        HRANDFIELD gone => nil
        HRANDFIELD gone 3 =>
        HSCAN gone 0 => 0";
    script(&mut conn, look);
    node.crash();
    let mut conn = node.conn();
    script(&mut conn, look);
    script(
        &mut conn,
        "HDEL h a => 0
        HINCRBY h b 5 => 5
        HTTL h FIELDS 1 b => -1
        HSETNX gone a 1 => 1
        HGETALL gone => 1 a
        HDEL gone a => 1
        EXISTS gone => 0
        HLEN h => 2
        HDEL h b c => 2
        EXISTS h => 0",
    );
}
