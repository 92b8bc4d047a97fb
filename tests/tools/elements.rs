//! What is wrong inside of an engine whose blocks are all sound: the rules of docs/encodings.md, each broken in turn.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use haypile::engine::element::prefix;
use haypile::engine::{Applied, Batch, Collection, Engine, EngineOptions, Entry, Kind, Shared, Space};
use haypile::keyspace::slot_of;

use crate::common::haypile;
use crate::folders::{SLOTS, engine_dir, killed};

/// The engine of a key's slot, as one who writes into it sees it.
struct Harm {
    engine: Engine,
    batch: Batch,
    applied: Applied,
    key: Bytes,
}

impl Harm {
    fn of(data: &Path, key: &'static str) -> Harm {
        let shared = Arc::new(Shared::new(EngineOptions::default()));
        let dir = engine_dir(data, 0, slot_of(key.as_bytes(), SLOTS));
        let (engine, applied) = Engine::open(&dir, &shared).expect("an engine");
        Harm { batch: Batch::default(), engine, applied, key: Bytes::from_static(key.as_bytes()) }
    }

    fn entry(&self) -> Entry {
        self.engine.get(&self.key).expect("a lookup").expect("an entry")
    }

    fn collection(&self) -> Collection {
        self.entry().as_collection().expect("a collection")
    }

    fn put(&mut self, entry: &Entry) {
        self.batch.entry(&self.key, Some(entry));
    }

    /// Changes what the entry says of its elements.
    fn edit(&mut self, change: impl FnOnce(&mut Collection)) {
        let (entry, mut collection) = (self.entry(), self.collection());
        change(&mut collection);
        self.put(&Entry::collection(entry.kind, &collection, entry.expire_at));
    }

    fn edit_extra(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.edit(|collection| {
            let mut extra = collection.extra.to_vec();
            change(&mut extra);
            collection.extra = extra.into();
        });
    }

    /// The elements in a space: key and value.
    fn elements(&self, space: Space) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (lower, upper) =
            (prefix(&self.key, self.collection().version, 0), prefix(&self.key, self.collection().version + 1, 0));
        let range = haypile::engine::ElementRange { lower: &lower, upper: &upper, reverse: false };
        let mut found = Vec::new();
        let each = &mut |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            true
        };
        self.engine.elements(space, &range, None, each).expect("the elements");
        found
    }

    fn set(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let value = value.map(Bytes::copy_from_slice);
        self.batch.element(space, key, value.as_ref());
    }

    fn remove_first(&mut self, space: Space) {
        let (key, _) = self.elements(space).remove(0);
        self.set(space, &key, None);
    }

    /// Adds an element with this suffix.
    fn add(&mut self, space: Space, suffix: &[u8], value: &[u8]) {
        let key = [prefix(&self.key, self.collection().version, 0), suffix.to_vec()].concat();
        self.set(space, &key, Some(value));
    }

    /// Gives the first element whose suffix begins with `begin` another value.
    fn spoil(&mut self, space: Space, begin: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
        let start = [prefix(&self.key, self.collection().version, 0), begin.to_vec()].concat();
        let (key, mut value) =
            self.elements(space).into_iter().find(|(key, _)| key.starts_with(&start)).expect("an element");
        change(&mut value);
        self.set(space, &key, Some(&value));
    }

    fn finish(self) {
        self.engine.write(self.batch, self.applied).expect("a write");
        self.engine.flush().expect("a flush");
    }
}

/// A key, what is done to it, and what must be said of it.
type Case = (&'static str, fn(&mut Harm), &'static str);

const CASES: &[Case] = &[
    ("two", |h| h.put(&Entry { kind: Kind::Set, ..Entry::string("v".into(), None) }), "the entry is malformed"),
    ("two", |h| h.key = other_slots_key(b"two"), "the key belongs to slot"),
    ("set", |h| h.edit(|c| c.count += 1), "the set says it has 4 elements, 3 are stored"),
    ("set", |h| h.remove_first(Space::Data), "the set says it has 3 elements, 2 are stored"),
    ("set", |h| h.add(Space::Data, b"\0\0\0\0\0\0\0\0x", b""), "stands in the place of another one"),
    ("set", |h| h.spoil(Space::Data, b"", |v| v.push(1)), "of the set has a value"),
    ("set", |h| h.edit_extra(|e| e.push(1)), "has 1 bytes more than it should"),
    ("set", |h| h.add(Space::Score, b"12345678x", b""), "a set has elements in the order of scores"),
    (
        "set",
        |h| h.edit(|c| *c = Collection { version: c.version + 1, count: 0, extra: Bytes::new() }),
        "an empty set exists",
    ),
    ("zset", |h| h.remove_first(Space::Score), "which the order of scores does not say"),
    ("zset", |h| h.add(Space::Score, b"\xffaaaaaaax", b""), "4 members have a score, 5 stand in the order of scores"),
    ("zset", |h| h.spoil(Space::Data, b"", |v| v[0] ^= 1), "which the order of scores does not say"),
    ("zset", |h| h.spoil(Space::Data, b"", |v| v.truncate(7)), "the score of member"),
    ("hash", |h| h.remove_first(Space::Score), "which the order of expiries does not say"),
    ("hash", |h| h.add(Space::Score, b"\0aaaaaaax", b""), "2 fields expire, 3 stand in the order of expiries"),
    ("hash", |h| h.edit_extra(|e| e[0] ^= 1), "the soonest expiry of its fields is"),
    ("hash", |h| h.edit_extra(Vec::clear), "the entry says none"),
    ("hash", |h| h.spoil(Space::Data, b"", |v| v[0] = 7), "the value of field"),
    ("hash", |h| h.add(Space::Data, b"short", b"\0"), "the key of a field is too short"),
    ("list", |h| h.edit_extra(|e| e[0] ^= 1), "an element of the list stands at place"),
    ("list", |h| h.remove_first(Space::Data), "instead of"),
    ("list", |h| h.add(Space::Data, b"odd", b""), "the key of an element is malformed"),
    ("chunked", |h| h.edit(|c| c.count += 1), "the string says it has 70008 bytes"),
    ("chunked", |h| h.spoil(Space::Data, b"", |v| v.resize(1025, 0)), "has 1025 bytes"),
    ("stream", |h| h.edit(|c| c.count += 1), "the stream says it has 3 entries, 2 are stored"),
    ("stream", |h| h.spoil(Space::Data, b"e", |v| v.truncate(3)), "an element of the stream is malformed"),
    ("stream", |h| h.edit_extra(|e| e[32] ^= 2), "the stream begins with 1-1"),
    ("stream", |h| h.edit_extra(|e| e[0] = 2), "above its last ID"),
    ("stream", |h| h.edit_extra(|e| e[64] ^= 4), "first or last node"),
    (
        "stream",
        |h| h.spoil(Space::Data, b"g", |v| v[24] += 1),
        "says it has 3 pending entries and 2 consumers, 2 and 2",
    ),
    (
        "stream",
        |h| h.spoil(Space::Data, b"c", |v| v[16] += 1),
        "consumer \"alice\" of group \"group\" says it has 2 pending",
    ),
    ("stream", |h| h.spoil(Space::Data, b"p", |v| *v = [&v[..16], b"nobody"].concat()), "who does not have it"),
    ("stream", |h| h.add(Space::Data, b"?", b""), "an element of the stream is malformed"),
    ("one", |h| h.set(Space::Data, b"\xff\xff\xff\xffshort", Some(b"")), "the key of an element is malformed"),
    (
        "one",
        |h| {
            let map = [1u8, 0, 1, 0];
            h.batch.databases(&map);
        },
        "the map of swapped databases is malformed",
    ),
];

/// A key that belongs to the other slot. Its entry is written by whoever makes it the key.
fn other_slots_key(key: &[u8]) -> Bytes {
    let own = slot_of(key, SLOTS);
    let other = (0..100).map(|n| format!("key{n}")).find(|name| slot_of(name.as_bytes(), SLOTS) != own);
    other.expect("such a key").into()
}

#[test]
fn every_broken_rule_is_found() {
    for (key, harm, said) in CASES {
        let data = killed();
        let mut engine = Harm::of(data.path(), key);
        harm(&mut engine);
        if engine.batch.is_empty() {
            engine.put(&Entry::string("v".into(), None));
        }
        engine.finish();
        let slot = slot_of(key.as_bytes(), SLOTS);
        let (code, out, err) = haypile(&["check".as_ref(), "--no-dumps".as_ref(), data.path().as_os_str()]);
        let is_it = |line: &str| line.starts_with(&format!("DAMAGE   db0:{slot}")) && line.contains(said);
        assert!(code == 2 && out.lines().any(is_it), "{key}: exit code {code}, nothing says {said:?}:\n{out}{err}");
    }
}

/// Elements of a version that no entry names are what a deleted collection leaves.
#[test]
fn what_is_nobodys_is_counted() {
    let data = killed();
    let orphans = || {
        let (code, out, _) =
            haypile(&["check".as_ref(), "--json".as_ref(), "--no-dumps".as_ref(), data.path().as_os_str()]);
        let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(code, 0, "{out}");
        document["totals"]["orphans"].as_u64().expect("a number")
    };
    let before = orphans();
    let mut engine = Harm::of(data.path(), "set");
    for (key, version) in [(&b"set"[..], 1), (b"no such key", 7), (b"one", u64::MAX)] {
        let element = [prefix(key, version, 0), b"12345678x".to_vec()].concat();
        engine.set(Space::Data, &element, Some(b""));
    }
    engine.finish();
    assert_eq!(orphans(), before + 3);
}
