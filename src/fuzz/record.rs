//! Bodies of records, and applying what they say.

use bytes::Bytes;

use super::{Answer, Fuzz, answer};
use crate::binlog::{decode_body, put_effect};
use crate::keyspace::effect::test_state::Map;
use crate::keyspace::effect::{Effect, Read};
use crate::keyspace::types::{Handle, digest};

pub(super) const NOW: u64 = 1_700_000_000_000;

/// Effects that fill keys of every type, one list of arguments each.
pub(super) const EFFECTS: &[&[&str]] = &[
    &["SET", "s", "value"],
    &["SET", "e", "value", "PXAT", "1800000000000"],
    &["APPEND", "s", "more"],
    &["SETRANGE", "s", "3", "xyz"],
    &["SET", "c", "a string that is to stand in chunks"],
    &["CHUNK", "c", "7"],
    &["SETRANGE", "c", "5000", "far"],
    &["APPEND", "c", "end"],
    &["PEXPIREAT", "s", "1800000000000"],
    &["PERSIST", "s"],
    &["CREATE", "set", "set", "8"],
    &["SADD", "set", "a", "b", "17"],
    &["SREM", "set", "b"],
    &["CREATE", "z", "zset", "9"],
    &["ZADD", "z", "1.5", "a", "-inf", "b", "3", "c"],
    &["ZREM", "z", "c"],
    &["CREATE", "h", "hash", "10"],
    &["HSET", "h", "f", "v", "g", "w"],
    &["HSETEX", "h", "PXAT", "1800000000000", "FIELDS", "1", "x", "y"],
    &["HSETEX", "h", "KEEPTTL", "FIELDS", "1", "x", "z"],
    &["HPEXPIREAT", "h", "1800000000001", "FIELDS", "1", "f"],
    &["HPERSIST", "h", "FIELDS", "1", "f"],
    &["HDEL", "h", "g"],
    &["CREATE", "l", "list", "11"],
    &["RPUSH", "l", "a", "b", "c", "d"],
    &["LPUSH", "l", "z"],
    &["LSET", "l", "1", "A"],
    &["LINSERTAT", "l", "2", "i"],
    &["LREMAT", "l", "0", "3"],
    &["LTRIM", "l", "0", "2"],
    &["RPOP", "l", "1"],
    &["CREATE", "x", "stream", "12"],
    &["XADD", "x", "NEWNODE", "1-1", "f", "v"],
    &["XADD", "x", "1-2", "f", "v", "g", "w"],
    &["XADD", "x", "NEWNODE", "2-0", "f", "v"],
    &["XGROUP", "x", "SETID", "grp", "1-1", "1"],
    &["XGROUP", "x", "CONSUMER", "grp", "con", "5", "6"],
    &["XCLAIM", "x", "grp", "con", "1-1", "5", "1"],
    &["XCLAIM", "x", "grp", "con", "1-2", "5", "2"],
    &["XACK", "x", "grp", "1-1"],
    &["XDEL", "x", "1-1"],
    &["XSETID", "x", "3-0", "ENTRIESADDED", "4", "MAXDELETEDID", "1-1"],
    &["XTRIM", "x", "THROUGH", "1-2"],
];

pub(super) const KEYS: [&str; 8] = ["s", "e", "c", "set", "z", "h", "l", "x"];

fn body(effects: &[&[&str]]) -> Vec<u8> {
    let mut body = vec![0];
    for effect in effects {
        let args: Vec<&[u8]> = effect.iter().map(|arg| arg.as_bytes()).collect();
        put_effect(&mut body, &args);
    }
    body
}

/// Applies what a body says until something is refused.
pub(super) fn apply(body: &Bytes, state: &mut Map) -> (usize, Option<String>) {
    let Some((_, mut effects)) = decode_body(body) else { return (0, Some("no body".into())) };
    let mut args = Vec::new();
    let mut done = 0;
    loop {
        match effects.next_into(&mut args) {
            None => return (done, Some("no effects".into())),
            Some(false) => return (done, None),
            Some(true) => {}
        }
        let effect = match Effect::decode(body, &args) {
            Ok(effect) => effect,
            Err(e) => return (done, Some(e.to_string())),
        };
        let mut again = Vec::new();
        effect.encode(&mut again);
        let again = Bytes::from([&[0][..], &again].concat());
        let decoded = decode_body(&again).and_then(|(_, mut effects)| {
            let mut args = Vec::new();
            effects.next_into(&mut args)?;
            Effect::decode(&again, &args).ok()
        });
        assert_eq!(decoded.as_ref(), Some(&effect), "encoded and decoded again");
        if let Err(e) = effect.apply(state, NOW) {
            return (done, Some(e.to_string()));
        }
        done += 1;
    }
}

fn check(input: &[u8]) -> Answer {
    let body = Bytes::copy_from_slice(input);
    let mut state = Map::default();
    let (done, error) = apply(&body, &mut state);
    // What effects have made can be read.
    let keys: Vec<Bytes> = state.0.keys().cloned().collect();
    for key in &keys {
        let entry = state.get(key).unwrap().unwrap();
        if let Some(handle) = Handle::of(key, &entry) {
            digest(&mut state, &handle, &mut |_| {}).unwrap_or_else(|e| panic!("{}: {e}", key.escape_ascii()));
        }
    }
    let kind = error.map(|e| e.chars().filter(|c| c.is_ascii_alphabetic()).take(40).collect::<String>());
    answer((done, kind, state.0.len(), state.1.len().checked_ilog2()))
}

#[test]
fn record_bodies() {
    let mut seeds: Vec<Vec<u8>> = EFFECTS.iter().map(|effect| body(&[effect])).collect();
    seeds.push(body(EFFECTS));
    for (nth, create) in EFFECTS.iter().enumerate().filter(|(_, effect)| effect[0] == "CREATE") {
        let of_key: Vec<&[&str]> = EFFECTS[nth..].iter().copied().filter(|effect| effect[1] == create[1]).collect();
        seeds.push(body(&of_key));
    }
    let mut tokens: Vec<Vec<u8>> = EFFECTS.iter().map(|effect| body(&[effect])[1..].to_vec()).collect();
    tokens.extend(
        ["18446744073709551615", "9223372036854775807", "0", "-1", "nan", "inf"]
            .map(|t| [&[t.len() as u8], t.as_bytes()].concat()),
    );
    Fuzz::new("record_bodies", seeds).tokens(tokens).run(check);
}
