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
    /// Only to a new generation.
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
    /// Wherever a key stands (active generation, frozen one, RocksDB, among what was flushed last), it reads as it was last written.
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
    // Whether what is flushed stays in memory or not.
    [0, 64 << 20].into_iter().for_each(a_fixed_view);
}

fn a_fixed_view(recent: usize) {
    const ELEMENTS: u64 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let engine = new_with(dir.path(), EngineOptions { recent, ..EngineOptions::default() });
    let key = |n: u64| n.to_be_bytes();
    // Every third on disk, every third in a frozen generation, the rest in the active one.
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

/// Two engines are written, flushed, read and made to forget at the same time, and share the memory for what was flushed last: there is none, too
/// little, or enough. Whoever reads a key again never finds an older value, nor none.
#[test]
fn readers_find_everything_while_records_move() {
    const KEYS: u64 = 1000;
    const ROUNDS: u64 = 25;
    /// The round in which a key was written, in values of all lengths.
    fn value(round: u64, key: u64) -> Vec<u8> {
        let len = match key % 100 {
            0 => 17 << 10,
            1 => 2 << 10,
            short => short as usize,
        };
        [&round.to_be_bytes()[..], &vec![b'x'; len]].concat()
    }
    let round_of = |value: &[u8]| u64::from_be_bytes(*value.first_chunk().expect("a round"));
    for recent in [0, 90 << 10, 64 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::new(EngineOptions { recent, ..EngineOptions::default() }));
        let engines = ["one", "two"]
            .map(|name| Engine::create(&dir.path().join(name), &shared, applied(0), &Kept::default()).unwrap());
        let done = [AtomicBool::new(false), AtomicBool::new(false)];
        std::thread::scope(|scope| {
            for (engine, done) in engines.iter().zip(&done) {
                let write = move |round: u64, key: u64| {
                    put(engine, round * KEYS + key + 1, &key.to_be_bytes(), Some(&value(round, key)));
                };
                (0..KEYS).for_each(|key| write(0, key));
                scope.spawn(move || {
                    let _ends = Ends(done);
                    for round in 1..ROUNDS {
                        // Others stay what they were, for one round or for long.
                        (0..KEYS).filter(|key| round % (key % 7 + 1) == 0).for_each(|key| write(round, key));
                        let flush = engine.begin_flush().unwrap();
                        write(round, 0);
                        engine.finish_flush(flush).unwrap();
                    }
                });
                scope.spawn(move || {
                    let mut last = vec![0; KEYS as usize];
                    let mut see = |key: u64, found: &[u8]| {
                        let last = &mut last[key as usize];
                        assert!(found == value(round_of(found), key) && round_of(found) >= *last);
                        *last = round_of(found);
                    };
                    while !done.load(Ordering::Relaxed) {
                        for (key, found) in elements(engine, &all(b"", false), usize::MAX) {
                            see(u64::from_be_bytes(key.try_into().unwrap()), &found);
                        }
                        for key in 0..KEYS {
                            see(key, &engine.get(&key.to_be_bytes()).unwrap().expect("an entry").value);
                            see(key, &engine.element(Space::Data, &key.to_be_bytes()).unwrap().expect("an element"));
                        }
                        assert_eq!(elements(engine, &all(b"", true), usize::MAX).len() as u64, KEYS);
                    }
                });
            }
            scope.spawn(|| {
                while !done.iter().all(|done| done.load(Ordering::Relaxed)) {
                    engines[0].forget_recent();
                    std::thread::yield_now();
                }
            });
        });
        let sum: usize = engines.iter().map(Engine::buffered).sum();
        assert!(shared.recent_usage() <= recent && sum < 1 << 20, "{} and {sum} bytes", shared.recent_usage());
    }
}

#[test]
fn what_a_crash_would_leave_is_what_was_flushed_last() {
    let dir = tempfile::tempdir().unwrap();
    let engine = new(dir.path());
    put(&engine, 1, b"k", Some(b"v"));
    let flush = engine.begin_flush().unwrap();
    engine.finish_flush(flush).unwrap();
    put(&engine, 2, b"later", Some(b"v"));
    let copy = dir.path().join("copy");
    engine.checkpoint(&copy).unwrap();
    assert_eq!((Engine::applied_in(&copy).unwrap(), flush.applied), (applied(1), applied(1)));
    assert_eq!(engine.applied().unwrap(), applied(2));
}

#[test]
fn places_are_read_along_up_to_what_is_long_or_in_memory() {
    const MUCH: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    let engine = new(dir.path());
    let at = |place: u64| [b"list", &place.to_be_bytes()[..]].concat();
    let len = |place: u64| if place == 70 { 5000 } else { 30 };
    (50..100)
        .filter(|place| *place != 90)
        .for_each(|place| put(&engine, place, &at(place), Some(&vec![1; len(place)])));
    engine.flush().unwrap();
    let read = |places: std::ops::Range<u64>, left| {
        let values = engine.flushed_places(b"list", places, left, MUCH).unwrap();
        values.iter().map(Bytes::len).collect::<Vec<_>>()
    };
    assert!(read(95..100, false).is_empty(), "all is in memory");
    engine.forget_recent();
    // To the gap, and to the beginning of what is asked for.
    assert_eq!(
        (read(60..100, false), read(91..100, true), read(95..100, false)),
        (vec![30; 9], vec![30; 9], vec![30; 5])
    );
    assert_eq!((read(90..100, true), read(90..91, true)), (vec![], vec![]));
    // Not with what is long, and that only by itself.
    assert_eq!((read(65..90, true), read(70..90, true)), (vec![30; 5], vec![5000]));
    assert_eq!((read(50..90, false), read(50..71, false)), (vec![30; 19], vec![5000]));
    // No more than is much.
    assert_eq!(engine.flushed_places(b"list", 50..70, true, 100).unwrap().len(), 3);
    put(&engine, 200, &at(80), Some(b"new"));
    put(&engine, 201, &at(81), None);
    assert_eq!((read(76..90, true), read(76..90, false)), (vec![30; 4], vec![30; 8]));
}
