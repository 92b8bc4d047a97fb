//! DUMP payloads: what RESTORE takes from clients, and what MIGRATE and RDB files are made of.

use bytes::Bytes;

use super::{Answer, Fuzz, answer_of};
use crate::rdb::{
    DumpOptions, HashField, NEWEST_VERSION, RestoreOptions, Stream, StreamEntry, StreamId, Thresholds, Value, dump,
    restore, seal,
};

/// What a payload may take, bytes.
const MEMORY: u64 = 8 << 20;

fn bytes(n: usize) -> Bytes {
    match n % 3 {
        0 => Bytes::from(n.to_string()),
        1 => Bytes::from(format!("element {n}")),
        _ => Bytes::from("ab".repeat(n)),
    }
}

fn values() -> Vec<Value> {
    let entry =
        |ms: u64| StreamEntry { id: StreamId { ms, seq: ms % 2 }, fields: vec![(bytes(1), bytes(ms as usize))] };
    let stream =
        Stream { entries: (1..9).map(entry).collect(), last_id: StreamId { ms: 9, seq: 0 }, ..Stream::default() };
    vec![
        Value::String("a string".into()),
        Value::String("-129".into()),
        Value::String("abc".repeat(100).into()),
        Value::List((0..12).map(bytes).collect()),
        Value::Set((0..12).map(bytes).collect()),
        Value::Set((0..9).map(|n| Bytes::from((n * 70_000).to_string())).collect()),
        Value::Zset((0..9).map(|n| (bytes(n), n as f64 / 3.0)).collect()),
        Value::Hash((0..9).map(|n| HashField { field: bytes(n), value: bytes(n + 1), expire_at: None }).collect()),
        Value::Hash((0..9).map(|n| HashField { field: bytes(n), value: bytes(n + 1), expire_at: Some(5) }).collect()),
        Value::Stream(stream),
    ]
}

/// Each value small and large: packed, and element by element.
fn seeds() -> Vec<Vec<u8>> {
    let large = Thresholds {
        hash_entries: 1,
        intset_entries: 1,
        zset_entries: 1,
        list_node_bytes: 16,
        stream_node_entries: 2,
        ..Thresholds::default()
    };
    let options = [
        DumpOptions::default(),
        DumpOptions { thresholds: large, compress: true },
        DumpOptions { compress: false, ..DumpOptions::default() },
    ];
    let all = values();
    let mut seeds: Vec<Vec<u8>> = all.iter().flat_map(|value| options.iter().map(|o| dump(value, o))).collect();
    // Encodings that only older versions write have the values of newer ones under other numbers.
    for number in 0..30 {
        let other = &seeds[number as usize % seeds.len()];
        let mut body = other[..other.len() - 10].to_vec();
        body[0] = number;
        seeds.push(body.into_iter().chain([0; 10]).collect());
    }
    seeds.iter_mut().for_each(|seed| seed.truncate(seed.len() - 10));
    seeds
}

/// The order of members and fields means nothing.
fn in_order(mut value: Value) -> String {
    match &mut value {
        Value::Set(members) => members.sort(),
        Value::Zset(members) => {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            // No listpack has a negative zero.
            members.iter_mut().for_each(|(_, score)| *score += 0.0);
        }
        Value::Hash(fields) => fields.sort_by(|a, b| a.field.cmp(&b.field)),
        Value::String(_) | Value::List(_) | Value::Stream(_) => {}
    }
    format!("{value:?}")
}

fn check(input: &[u8]) -> Answer {
    let mut payload = input.to_vec();
    seal(&mut payload, NEWEST_VERSION);
    let options = RestoreOptions { memory: MEMORY, ..RestoreOptions::default() };
    let read = restore(&Bytes::from(payload), &options);
    if let Ok(value) = &read {
        let again = Bytes::from(dump(value, &DumpOptions::default()));
        let same = restore(&again, &RestoreOptions::default()).unwrap_or_else(|e| panic!("{e}: {value:?}"));
        assert_eq!(in_order(same), in_order(value.clone()));
    }
    // And as it came: most are refused for their checksum.
    let _ = restore(&Bytes::copy_from_slice(input), &RestoreOptions { memory: MEMORY, verify_checksum: true });
    answer_of(&read, |value| format!("{value:?}").len())
}

#[test]
fn dumps() {
    Fuzz::new("dumps", seeds()).run(check);
}
