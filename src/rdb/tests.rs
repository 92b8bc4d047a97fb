//! Dumps of every type: round trips, damage, and what older versions of Redis wrote.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn string() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (any::<i64>(), 0u32..64).prop_map(|(n, shift)| Bytes::from((n >> shift).to_string())),
        proptest::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from),
        (any::<u8>(), 0usize..6000).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn strings() -> impl Strategy<Value = Vec<Bytes>> {
    proptest::collection::vec(string(), 1..40)
}

fn integers() -> impl Strategy<Value = Vec<Bytes>> {
    let numbers = proptest::collection::btree_set(any::<i32>().prop_map(|n| i64::from(n) << 8), 1..40);
    numbers.prop_map(|numbers| numbers.into_iter().map(|n| Bytes::from(n.to_string())).collect())
}

fn distinct() -> impl Strategy<Value = BTreeSet<Bytes>> {
    proptest::collection::btree_set(string(), 1..40)
}

fn zset() -> impl Strategy<Value = Value> {
    let score = any::<f64>().prop_filter("a number", |score| !score.is_nan());
    let scores = prop_oneof![score, any::<i64>().prop_map(|n| n as f64), Just(f64::INFINITY)];
    distinct().prop_flat_map(move |members| {
        let scores = proptest::collection::vec(scores.clone(), members.len());
        scores.prop_map(move |scores| Value::Zset(members.iter().cloned().zip(scores).collect()))
    })
}

fn hash() -> impl Strategy<Value = Value> {
    let fields =
        proptest::collection::btree_map(string(), (string(), proptest::option::of(1..=MAX_FIELD_EXPIRY)), 1..30);
    (fields, any::<bool>()).prop_map(|(fields, expires)| {
        let field = |(field, (value, at)): (Bytes, (Bytes, Option<u64>))| HashField {
            field,
            value,
            expire_at: at.filter(|_| expires),
        };
        Value::Hash(fields.into_iter().map(field).collect())
    })
}

fn id() -> impl Strategy<Value = StreamId> {
    let part = prop_oneof![0u64..5, any::<u64>()];
    (part.clone(), part).prop_map(|(ms, seq)| StreamId { ms, seq })
}

fn group() -> impl Strategy<Value = StreamGroup> {
    let pending = proptest::collection::btree_map(id(), (any::<Index>(), 0..u64::MAX >> 1, any::<u64>()), 0..8);
    let consumers = proptest::collection::btree_map(string(), 0..u64::MAX >> 1, 0..4);
    let read = proptest::option::of(0..u64::MAX >> 1);
    (string(), id(), read, pending, consumers).prop_map(|(name, last_id, entries_read, pending, consumers)| {
        let consumers: Vec<_> = consumers
            .into_iter()
            .map(|(name, seen_time)| StreamConsumer { name, seen_time, active_time: Some(seen_time) })
            .collect();
        let mut pending: Vec<_> = pending
            .into_iter()
            .filter(|_| !consumers.is_empty())
            .map(|(id, (consumer, delivery_time, delivery_count))| Pending {
                id,
                consumer: consumer.index(consumers.len()),
                delivery_time,
                delivery_count,
            })
            .collect();
        pending.sort_by_key(|pending| pending.id);
        StreamGroup { name, last_id, entries_read, pending, consumers }
    })
}

fn stream() -> impl Strategy<Value = Value> {
    let fields = prop_oneof![
        proptest::collection::vec((string(), string()), 1..4),
        (string(), string()).prop_map(|(a, b)| vec![(Bytes::from("x"), a), (Bytes::from("y"), b)]),
    ];
    let entries = proptest::collection::btree_map(id(), fields, 0..20);
    let groups = proptest::collection::vec(group(), 0..3);
    (entries, id(), id(), any::<u64>(), groups).prop_map(|(entries, last, max_deleted_id, entries_added, groups)| {
        let entries: Vec<_> = entries.into_iter().map(|(id, fields)| StreamEntry { id, fields }).collect();
        let last_id = entries.last().map_or(last, |entry| entry.id.max(last));
        let groups: BTreeMap<_, _> = groups.into_iter().map(|group| (group.name.clone(), group)).collect();
        let groups = groups.into_values().collect();
        Value::Stream(Stream { entries, last_id, max_deleted_id, entries_added, groups })
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        string().prop_map(Value::String),
        strings().prop_map(Value::List),
        integers().prop_map(Value::Set),
        distinct().prop_map(|members| Value::Set(members.into_iter().collect())),
        zset(),
        hash(),
        stream(),
    ]
}

fn options() -> impl Strategy<Value = DumpOptions> {
    (any::<bool>(), any::<bool>()).prop_map(|(tiny, compress)| {
        let tiny = tiny.then_some(Thresholds {
            hash_entries: 0,
            hash_value: 0,
            intset_entries: 0,
            zset_entries: 0,
            zset_value: 0,
            list_node_bytes: 0,
            stream_node_bytes: 1,
            stream_node_entries: 1,
        });
        DumpOptions { thresholds: tiny.unwrap_or_default(), compress }
    })
}

/// The same value with everything in order that has none.
fn ordered(mut value: Value) -> Value {
    match &mut value {
        Value::Set(members) => members.sort(),
        Value::Zset(members) => members.sort_by(|(a, _), (b, _)| a.cmp(b)),
        Value::Hash(fields) => fields.sort_by(|a, b| a.field.cmp(&b.field)),
        Value::String(_) | Value::List(_) | Value::Stream(_) => {}
    }
    value
}

/// A dump of what stands in `body`, encoding included.
fn sealed(body: &[u8], version: u16) -> Bytes {
    let mut payload = body.to_vec();
    seal(&mut payload, version);
    payload.into()
}

fn restored(body: &[u8]) -> Result<Value, Error> {
    restore(&sealed(body, NEWEST_VERSION), &RestoreOptions::default())
}

proptest! {
    #[test]
    fn round_trips(value in value(), options in options()) {
        let payload = Bytes::from(dump(&value, &options));
        let restored = restore(&payload, &RestoreOptions::default()).unwrap();
        prop_assert_eq!(ordered(restored), ordered(value));
    }

    #[test]
    fn damage_is_found_or_harmless(
        value in value(),
        options in options(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut: Option<Index>,
    ) {
        let payload = dump(&value, &options);
        let mut body = unseal(&payload, true).unwrap().to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        // What is read, right or wrong, can be written and read again.
        if let Ok(value) = restored(&body) {
            let payload = Bytes::from(dump(&value, &options));
            let again = restore(&payload, &RestoreOptions::default()).unwrap();
            prop_assert_eq!(ordered(again), ordered(value));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(encoding in 0u8..27, body: Vec<u8>) {
        let _ = restored(&[&[encoding], &body[..]].concat());
    }

    #[test]
    fn packed_bytes_are_read_or_refused(
        encoding in 9u8..26,
        listpack: bool,
        body in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut packed = ((body.len() + if listpack { 7 } else { 11 }) as u32).to_le_bytes().to_vec();
        packed.extend_from_slice(if listpack { &[0xff, 0xff][..] } else { &[10, 0, 0, 0, 0xff, 0xff] });
        packed.extend_from_slice(&body);
        packed.push(0xff);
        let mut writer = Writer::new(false);
        writer.byte(encoding);
        match encoding {
            14 => writer.length(1),
            18 => writer.raw(&[1, 2]),
            15 | 19 | 21 => {
                writer.length(1);
                writer.string(&[0; 16]);
            }
            25 => writer.time(0),
            _ => {}
        }
        writer.string(&packed);
        let _ = restored(&writer.finish());
    }
}

#[test]
fn the_footer_is_checked() {
    let payload = dump(&Value::String("hello".into()), &DumpOptions::default());
    // What Redis 7.0 answers to SET k hello, DUMP k.
    assert_eq!(payload, b"\x00\x05hello\x0a\x00cr\xdfve4 \x0a");
    let restore = |payload: &[u8]| restore(&Bytes::copy_from_slice(payload), &RestoreOptions::default());
    assert!(restore(&payload).is_ok());
    assert_eq!(restore(&payload[..9]), Err(Error::NoFooter));
    let newer = restore(&sealed(b"\x00\x05hello", NEWEST_VERSION + 1)).unwrap_err();
    assert_eq!(newer, Error::Version(13));
    assert_eq!(newer.reply(), "ERR DUMP payload version or checksum are wrong");
    assert!(restore(&sealed(b"\x00\x05hello", 6)).is_ok());

    let mut wrong = payload.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(restore(&wrong), Err(Error::Checksum));
    let options = RestoreOptions { verify_checksum: false, ..RestoreOptions::default() };
    assert_eq!(super::restore(&wrong.into(), &options), Ok(Value::String("hello".into())));
    assert_eq!(restored(b"").unwrap_err().reply(), "ERR Bad data format");
}

#[test]
fn versions_are_the_oldest_that_will_do() {
    let field = |expire_at| HashField { field: "f".into(), value: "v".into(), expire_at };
    let version = |fields: Vec<HashField>| {
        let payload = dump(&Value::Hash(fields), &DumpOptions::default());
        u16::from_le_bytes(payload[payload.len() - 10..][..2].try_into().unwrap())
    };
    assert_eq!(version(vec![field(None)]), 10);
    assert_eq!(version(vec![field(Some(1))]), 12);
}

#[test]
fn values_of_modules_and_unknown_types_are_refused() {
    assert_eq!(restored(b"\x06"), Err(Error::Module));
    assert_eq!(restored(b"\x07\x81\0\0\0\0\0\0\0\0"), Err(Error::Module));
    assert_eq!(restored(b"\x08"), Err(Error::UnknownType(8)));
    assert_eq!(restored(b"\x1a"), Err(Error::UnknownType(26)));
    assert_eq!(restored(b"\x00\x01ab"), Err(Error::Corrupt("bytes after the value")));
}

#[test]
fn empty_collections_and_duplicates_are_refused() {
    for body in [&b"\x01\0"[..], b"\x02\0", b"\x03\0", b"\x04\0", b"\x05\0", b"\x0e\0", b"\x12\0", b"\x12\x01\x01\0"] {
        assert!(restored(body).is_err(), "{body:?}");
    }
    for body in [
        &b"\x02\x02\x01a\x01a"[..],
        b"\x03\x02\x01a\x011\x01a\x012",
        b"\x04\x02\x01a\x01x\x01a\x01y",
        b"\x09\x0c\x02\x01a\x01\x00x\x01a\x01\x00y\xff",
    ] {
        assert!(matches!(restored(body), Err(Error::Corrupt(why)) if why.ends_with("twice")), "{body:?}");
    }
    // A zset of Redis 2 with a score that is no number.
    assert!(restored(b"\x03\x01\x01a\xfd").is_err());
}

#[test]
fn memory_is_bounded() {
    let list = Value::List(vec!["".into(); 100_000]);
    let payload = Bytes::from(dump(&list, &DumpOptions::default()));
    assert!(payload.len() < 10_000);
    let options = RestoreOptions { memory: 1 << 20, ..RestoreOptions::default() };
    assert_eq!(restore(&payload, &options), Err(Error::TooLarge));
    assert_eq!(restore(&payload, &RestoreOptions::default()), Ok(list));
    // Counts that nothing stands behind.
    for encoding in [1, 2, 3, 4, 5, 14, 15, 18, 19, 21, 22] {
        let claim = [&[encoding, 0x81][..], &[0x7f; 8]].concat();
        assert!(restored(&claim).is_err());
    }
}

#[test]
fn hashes_of_redis_7_4() {
    let field = |field: &'static str, expire_at| HashField { field: field.into(), value: "v".into(), expire_at };
    let both = Value::Hash(vec![field("a", Some(1005)), field("b", None)]);
    let listpack = b"\x18\0\0\0\x06\0\x81a\x02\x81v\x02\xc3\xed\x02\x81b\x02\x81v\x02\x00\x01\xff";
    let len = [listpack.len() as u8];
    let early = [&[23][..], &len, listpack].concat();
    let released = [&[25][..], &1005u64.to_le_bytes(), &len, listpack].concat();
    assert_eq!(restored(&early), Ok(both.clone()));
    assert_eq!(restored(&released), Ok(both.clone()));
    assert_eq!(dump(&both, &DumpOptions { compress: false, ..DumpOptions::default() }), sealed(&released, 12));

    let early = b"\x16\x02\x43\xed\x01a\x01v\x00\x01b\x01v";
    let released = [&[24][..], &1000u64.to_le_bytes(), b"\x02\x06\x01a\x01v\x00\x01b\x01v"].concat();
    assert_eq!(restored(early), Ok(both.clone()));
    assert_eq!(restored(&released), Ok(both));
    let late = [&[24][..], &(MAX_FIELD_EXPIRY).to_le_bytes(), b"\x01\x02\x01a\x01v"].concat();
    assert!(restored(&late).is_err());
}

#[test]
fn packed_values_of_older_versions() {
    let ziplist = b"\x12\x12\0\0\0\x0e\0\0\0\x02\0\x00\x02hi\x04\xfe\x80\xff";
    let packed = |head: &[u8]| restored(&[head, ziplist].concat());
    let (hi, number) = (Bytes::from("hi"), Bytes::from("-128"));
    assert_eq!(packed(b"\x0a"), Ok(Value::List(vec![hi.clone(), number.clone()])));
    assert_eq!(packed(b"\x0e\x01"), Ok(Value::List(vec![hi.clone(), number.clone()])));
    assert_eq!(packed(b"\x0c"), Ok(Value::Zset(vec![(hi.clone(), -128.0)])));
    let field = HashField { field: hi.clone(), value: number.clone(), expire_at: None };
    assert_eq!(packed(b"\x0d"), Ok(Value::Hash(vec![field.clone()])));
    assert_eq!(restored(b"\x09\x0b\x01\x02hi\x04\x00-128\xff"), Ok(Value::Hash(vec![field])));
    assert_eq!(restored(b"\x01\x02\x02hi\xc0\x80"), Ok(Value::List(vec![hi.clone(), number.clone()])));
    assert_eq!(restored(b"\x03\x01\x02hi\x03-.5"), Ok(Value::Zset(vec![(hi.clone(), -0.5)])));
    let listpack = b"\x14\x0e\x0e\0\0\0\x02\0\x82hi\x03\xdf\x80\x02\xff";
    assert_eq!(restored(listpack), Ok(Value::Set(vec![hi, number])));
}

/// A stream as before Redis 7.0, and as in 7.2.
#[test]
fn streams_of_other_versions() {
    let id = |seq| StreamId { ms: 0, seq };
    let stream = Stream {
        entries: vec![StreamEntry { id: id(3), fields: vec![("f".into(), "v".into())] }],
        last_id: id(5),
        entries_added: 1,
        groups: vec![StreamGroup {
            name: "g".into(),
            last_id: id(3),
            entries_read: Some(1),
            pending: vec![Pending { id: id(3), consumer: 0, delivery_time: 7, delivery_count: 2 }],
            consumers: vec![StreamConsumer { name: "c".into(), seen_time: 9, active_time: Some(9) }],
        }],
        ..Stream::default()
    };
    let payload = dump(&Value::Stream(stream.clone()), &DumpOptions { compress: false, ..DumpOptions::default() });
    let body = unseal(&payload, true).unwrap();
    let (nodes, rest) = body.split_at(body.windows(7).position(|w| w == b"\x01\0\x05\0\x03\0\0").unwrap() + 3);
    let (facts, groups) = rest.split_at(5);
    assert_eq!(facts, b"\x00\x03\x00\x00\x01");
    // Name and last ID; then the number of entries read, which version 1 does not have.
    let (name, rest) = groups.split_at(5);
    assert_eq!((name, rest[0]), (&b"\x01\x01g\x00\x03"[..], 1));
    let first = [&[15], &nodes[1..], name, &rest[1..]].concat();
    assert_eq!(restored(&first), Ok(Value::Stream(stream.clone())));

    let mut third = stream;
    third.groups[0].consumers[0].active_time = Some(8);
    let (before, after) = rest.split_at(rest.len() - 17);
    let third_body = [&[21], &nodes[1..], facts, name, before, &8u64.to_le_bytes(), after].concat();
    assert_eq!(restored(&third_body), Ok(Value::Stream(third.clone())));
    third.groups[0].consumers[0].active_time = None;
    let third_body = [&[21], &nodes[1..], facts, name, before, &(-1i64).to_le_bytes(), after].concat();
    assert_eq!(restored(&third_body), Ok(Value::Stream(third)));
}
