use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

pub(super) fn applied(index: u64) -> Applied {
    Applied { position: Position { index, ..Position::START }, time: index * 1000 }
}

#[test]
fn position_and_data_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::new(EngineOptions::default()));
    let path = dir.path().join("engine");
    let engine = Engine::create(&path, &shared, applied(0), &Kept::default()).unwrap();
    let put = |engine: &Engine, index: u64| {
        let mut batch = Batch::default();
        let entry = Entry::string(Bytes::from(index.to_string()), None);
        batch.entry(b"k", Some(&entry));
        engine.write(batch, applied(index)).unwrap();
    };
    put(&engine, 1);
    assert_eq!(engine.flush().unwrap(), applied(1));
    put(&engine, 2);
    engine.stop_background_work();
    drop(engine);
    // Whether the close flushed the second write or not: position and data tell of the same record.
    let (engine, at) = Engine::open(&path, &shared).unwrap();
    assert_eq!(engine.get(b"k").unwrap().unwrap().value, at.position.index.to_string());
    assert!(at == applied(1) || at == applied(2));
}

#[test]
fn a_folder_that_is_no_engine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Arc::new(Shared::new(EngineOptions::default()));
    assert!(Engine::open(&dir.path().join("missing"), &shared).is_err());
    assert!(Engine::open(dir.path(), &shared).is_err());
}

fn new(dir: &Path) -> Engine {
    new_with(dir, EngineOptions::default())
}

fn new_with(dir: &Path, options: EngineOptions) -> Engine {
    let shared = Arc::new(Shared::new(options));
    Engine::create(&dir.join("engine"), &shared, applied(0), &Kept::default()).unwrap()
}

fn all(lower: &[u8], reverse: bool) -> ElementRange<'_> {
    ElementRange { lower, upper: &[0xff; 8], reverse }
}

fn elements(engine: &Engine, range: &ElementRange<'_>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let read = engine.elements(Space::Data, range, None, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        found.len() < limit
    });
    read.unwrap();
    found
}

fn put(engine: &Engine, index: u64, key: &[u8], value: Option<&[u8]>) {
    let mut batch = Batch::default();
    batch.element(Space::Data, key, value.map(Bytes::copy_from_slice).as_ref());
    batch.entry(key, value.map(|v| Entry::string(Bytes::copy_from_slice(v), None)).as_ref());
    engine.write(batch, applied(index)).unwrap();
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Option<Vec<u8>>),
    /// Everything to disk.
    Flush,
    /// Only out of the active buffer.
    Freeze,
    /// Reads from a key, so many.
    Read(Vec<u8>, bool, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || prop::collection::vec(0u8..5, 0..4);
    prop_oneof![
        1 => key().prop_map(|k| Op::Put(k, Some(vec![7; 17 << 10]))),
        20 => (key(), prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..20))).prop_map(|(k, v)| Op::Put(k, v)),
        1 => Just(Op::Flush),
        2 => Just(Op::Freeze),
        6 => (key(), any::<bool>(), 1usize..100).prop_map(|(key, reverse, limit)| Op::Read(key, reverse, limit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Wherever a key stands (active buffer, frozen buffer, RocksDB, among what was flushed last), it reads as it was last written.
    #[test]
    fn reads_what_was_written(
        ops in prop::collection::vec(op(), 1..300),
        recent in prop_oneof![Just(0usize), Just(9 << 10), Just(1 << 20)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let engine = new_with(dir.path(), EngineOptions { recent, ..EngineOptions::default() });
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Put(key, value) => {
                    put(&engine, n as u64 + 1, &key, value.as_deref());
                    prop_assert_eq!(engine.element(Space::Data, &key).unwrap().map(|v| v.to_vec()), value.clone());
                    prop_assert_eq!(engine.get(&key).unwrap().map(|e| e.value.to_vec()), value.clone());
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
                Op::Flush => {
                    engine.flush().unwrap();
                    for key in (0..5).flat_map(|a| (0..5).map(move |b| vec![a, b])).chain(model.keys().cloned()) {
                        let value = model.get(&key).cloned();
                        prop_assert_eq!(engine.element(Space::Data, &key).unwrap().map(|v| v.to_vec()), value.clone());
                        prop_assert_eq!(engine.get(&key).unwrap().map(|e| e.value.to_vec()), value);
                    }
                }
                Op::Freeze => drop(engine.freeze().unwrap()),
                Op::Read(from, reverse, limit) => {
                    let expected = || model.range(from.clone()..).map(|(k, v)| (k.clone(), v.clone()));
                    let expected: Vec<_> =
                        if reverse { expected().rev().take(limit).collect() } else { expected().take(limit).collect() };
                    prop_assert_eq!(elements(&engine, &all(&from, reverse), limit), expected);
                    let mut entries = Vec::new();
                    let mut visit = |key: &[u8], entry: Entry| {
                        entries.push((key.to_vec(), entry.value.to_vec()));
                        Ok(entries.len() < limit)
                    };
                    let expected: Vec<_> = if reverse {
                        engine.scan_back(Some(&from), &mut visit).unwrap();
                        model.range(..=from).rev().take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
                    } else {
                        engine.scan(Some(&from), &mut visit).unwrap();
                        let after = (Bound::Excluded(from), Bound::Unbounded);
                        model.range(after).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect()
                    };
                    prop_assert_eq!(entries, expected);
                }
            }
        }
        let ends = model.keys().next().cloned().zip(model.keys().next_back().cloned());
        prop_assert_eq!(engine.key_range().unwrap().map(|(low, high)| (low.to_vec(), high.to_vec())), ends);
    }
}

#[test]
fn a_fixed_view_does_not_see_what_is_written_later() {
    const ELEMENTS: u64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let engine = new(dir.path());
    let key = |n: u64| n.to_be_bytes();
    // Every third on disk, every third in a frozen buffer, the rest in the active one.
    for third in 0..3 {
        (0..ELEMENTS).filter(|n| n % 3 == third).for_each(|n| put(&engine, n + 1, &key(n), Some(b"old")));
        match third {
            0 => drop(engine.flush().unwrap()),
            1 => drop(engine.freeze().unwrap()),
            _ => {}
        }
    }
    let (fixed, seen) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut write = || {
        fixed.set(fixed.get() + 1);
        assert!(seen.get() < ELEMENTS / 10, "only after {} elements", seen.get());
        (0..2 * ELEMENTS).for_each(|n| put(&engine, ELEMENTS + n, &key(n), (n % 2 == 0).then_some(b"new")));
        engine.flush().unwrap();
    };
    let read = engine.elements(Space::Data, &all(b"", false), Some(&mut write), &mut |at, value| {
        assert_eq!((at, value), (&key(seen.get())[..], &b"old"[..]));
        seen.set(seen.get() + 1);
        true
    });
    read.unwrap();
    assert_eq!((fixed.get(), seen.get()), (1, ELEMENTS));
}

/// Says so when it goes, also when a check has failed.
struct Ends<'d>(&'d AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_find_everything_while_buffers_move() {
    const KEYS: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let engine = new(dir.path());
    (0..KEYS).for_each(|n| put(&engine, n + 1, &n.to_be_bytes(), Some(b"v")));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let read = || {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(elements(&engine, &all(b"", true), usize::MAX).len() as u64, KEYS);
                let step_by = 7;
                (0..KEYS).step_by(step_by).for_each(|n| assert!(engine.get(&n.to_be_bytes()).unwrap().is_some()));
            }
        };
        let ends = Ends(&done);
        scope.spawn(read);
        for round in 1..40 {
            (0..KEYS).for_each(|n| put(&engine, round * KEYS + n + 1, &n.to_be_bytes(), Some(b"v")));
            let flush = engine.begin_flush().unwrap();
            put(&engine, (round + 1) * KEYS, &[0; 8], Some(b"v"));
            engine.finish_flush(flush).unwrap();
        }
        drop(ends);
    });
    // What a crash would leave is what was flushed last, and not what came after.
    let flush = engine.begin_flush().unwrap();
    engine.finish_flush(flush).unwrap();
    put(&engine, 100 * KEYS, b"later", Some(b"v"));
    let copy = dir.path().join("copy");
    engine.checkpoint(&copy).unwrap();
    assert_eq!(Engine::applied_in(&copy).unwrap(), flush.applied);
    assert_eq!(engine.applied().unwrap(), applied(100 * KEYS));
}
