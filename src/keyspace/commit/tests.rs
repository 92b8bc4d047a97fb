//! Commits that fail, in whole or in part, and rights to commit that end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::testing::{SLOTS, copy, open};
use super::super::types::hash;
use super::super::{Effect, Error, Keyspace, LockPlan, Locked, RestsOn, Slot};
use crate::binlog::{Draft, Position, Writer, put_effect};

/// A guard against hanging.
const DEADLINE: Duration = Duration::from_secs(120);

/// A key in each slot.
fn keys(keyspace: &Keyspace) -> Vec<Bytes> {
    let of = |slot: &Arc<Slot>| {
        let named = (0..).map(|n| Bytes::from(format!("key{n}")));
        { named }.find(|key| Arc::ptr_eq(keyspace.slot(0, key), slot)).unwrap()
    };
    keyspace.all_slots().map(of).collect()
}

fn set(keyspace: &Keyspace, keys: &[Bytes], value: &'static str) -> Result<(), Error> {
    let mut tx = keyspace.transaction();
    assert_eq!(tx.lock(keys.iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
    keys.iter().for_each(|k| tx.set(0, k, Bytes::from_static(value.as_bytes()), None, 1).unwrap());
    tx.commit()
}

fn value(keyspace: &Keyspace, key: &Bytes) -> Option<Bytes> {
    let mut tx = keyspace.transaction();
    assert_eq!(tx.lock([(0, key.as_ref())].into_iter(), false), Locked::Yes);
    tx.get(0, key, 1).unwrap().map(|entry| entry.value)
}

fn positions(keyspace: &Keyspace) -> Vec<Position> {
    keyspace.all_slots().map(|slot| slot.position()).collect()
}

#[test]
fn what_is_read_without_its_lock_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = open(dir.path());
    let key = Bytes::from_static(b"key");
    set(&keyspace, std::slice::from_ref(&key), "value").unwrap();
    keyspace.reread().unwrap();
    let kept = || keyspace.env.cache.usage().1;
    let mut tx = keyspace.transaction();
    assert_eq!(tx.lock_plan(&mut LockPlan::default()), Locked::Yes);
    assert!(tx.get(0, &key, 1).unwrap().is_some());
    assert_eq!(kept(), 0, "somebody may have changed it meanwhile");
    tx.ensure(&key, false).unwrap();
    assert!(tx.get(0, &key, 1).unwrap().is_some());
    assert_eq!(kept(), 1);
    drop(tx);
    keyspace.reread().unwrap();
    let mut tx = keyspace.transaction();
    assert_eq!(tx.lock([(0, &b"other"[..])].into_iter(), false), Locked::Yes);
    tx.begin_without_keys();
    let before = kept();
    assert!(tx.get(0, &key, 1).unwrap().is_some());
    assert_eq!(kept(), before);
}

#[test]
fn a_commit_that_fails_in_one_slot_concerns_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = open(dir.path());
    let keys = keys(&keyspace);
    set(&keyspace, &keys, "old").unwrap();
    keys.iter().for_each(|key| assert_eq!(value(&keyspace, key).unwrap(), "old"));
    let before = positions(&keyspace);
    drop(keyspace.db(0).slots()[1].close_for_writes("a test"));

    // Commands of one pipeline, each of one slot: they are committed slot by slot.
    let mut tx = keyspace.transaction();
    for key in &keys {
        assert_eq!(tx.lock([(0, key.as_ref())].into_iter(), true), Locked::Yes);
        tx.set(0, key, Bytes::from_static(b"new"), None, 1).unwrap();
    }
    assert!(matches!(tx.commit(), Err(Error::ReadOnly { .. })));
    drop(tx);
    for (n, key) in keys.iter().enumerate() {
        let (expected, records) = if n == 1 { ("old", 0) } else { ("new", 1) };
        assert_eq!(value(&keyspace, key).unwrap(), expected, "slot {n}, by the cache");
        assert_eq!(
            keyspace.slot(0, key).get_from_engine(key).unwrap().unwrap().value,
            expected,
            "slot {n}, by the engine"
        );
        assert_eq!(positions(&keyspace)[n].index, before[n].index + records);
    }
    // One command of all slots: in none.
    let before = positions(&keyspace);
    assert!(set(&keyspace, &keys, "all").is_err());
    assert_eq!(positions(&keyspace), before);
    assert_eq!(value(&keyspace, &keys[0]).unwrap(), "new");
    // And the next start finds the same.
    keyspace.flush_all_engines().unwrap();
    assert!(keyspace.close(DEADLINE));
    drop(keyspace);
    let keyspace = open(dir.path());
    let found: Vec<Bytes> = keys.iter().map(|key| value(&keyspace, key).unwrap()).collect();
    assert_eq!(found, ["new", "old", "new", "new"]);
}

#[test]
fn what_is_pending_with_an_effect_that_failed_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = open(dir.path());
    let keys = keys(&keyspace);
    set(&keyspace, &keys, "old").unwrap();
    let before = positions(&keyspace);
    let mut tx = keyspace.transaction();
    assert_eq!(tx.lock(keys.iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
    tx.set(0, &keys[0], Bytes::from_static(b"new"), None, 1).unwrap();
    // No hash is there.
    let broken = Effect::Hash(keys[1].clone(), hash::Change::Del(vec![Bytes::from_static(b"field")]));
    assert!(tx.apply(0, broken, 1).is_err());
    tx.set(0, &keys[2], Bytes::from_static(b"new"), None, 1).unwrap();
    assert!(matches!(tx.commit(), Err(Error::BadEffect(_))));
    drop(tx);
    assert_eq!(positions(&keyspace), before);
    keys.iter().for_each(|key| assert_eq!(value(&keyspace, key).unwrap(), "old"));
    set(&keyspace, &keys, "next").unwrap();
    keys.iter().for_each(|key| assert_eq!(value(&keyspace, key).unwrap(), "next"));
}

#[test]
fn a_record_that_cannot_be_replayed_closes_its_slot() {
    // What stands before it is replayed at once, or, as a part of a write over several slots, when all logs have been read.
    [true, false].into_iter().for_each(stop_at_a_bad_record);
}

fn stop_at_a_bad_record(after_a_span: bool) {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = open(dir.path());
    let keys = keys(&keyspace);
    match after_a_span {
        true => set(&keyspace, &keys, "old").unwrap(),
        false => keys.chunks(1).for_each(|key| set(&keyspace, key, "old").unwrap()),
    }
    let tail = keyspace.db(0).slots()[2].position();
    let log = keyspace.db(0).slots()[2].store().as_ref().unwrap().log_dir().to_path_buf();
    assert!(keyspace.close(DEADLINE));
    drop(keyspace);
    let mut writer = Writer::resume(&log, tail, 1 << 20).unwrap();
    // The first effect could be applied; a record is applied whole or not at all.
    let mut draft = Draft::new(1);
    put_effect(draft.effects(), &[b"SET", &keys[2], b"half"]);
    put_effect(draft.effects(), &[b"FROBNICATE", &keys[2]]);
    writer.append([&draft].into_iter(), 1).unwrap();
    drop(writer);

    let keyspace = open(dir.path());
    let faults: Vec<bool> = keyspace.all_slots().map(|slot| slot.fault().is_some()).collect();
    assert_eq!(faults, [false, false, true, false]);
    let slot = &keyspace.db(0).slots()[2];
    assert!(slot.fault().unwrap().contains("cannot be replayed"), "{:?}", slot.fault());
    assert_eq!(slot.position(), tail);
    keys.iter().for_each(|key| assert_eq!(value(&keyspace, key).unwrap(), "old"));
    assert!(matches!(set(&keyspace, &keys[2..3], "new"), Err(Error::ReadOnly { .. })));
    set(&keyspace, &keys[3..], "new").unwrap();
}

#[test]
fn nothing_of_a_client_is_committed_after_the_right_to_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = open(dir.path());
    let keys = keys(&keyspace);
    set(&keyspace, &keys, "old").unwrap();
    let (stop, refused) = (AtomicBool::new(false), AtomicU64::new(0));
    let wait_for = |condition: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < DEADLINE);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::thread::scope(|scope| {
        let work = |keys: &[Bytes]| {
            while !stop.load(Relaxed) {
                match set(&keyspace, keys, "new") {
                    Ok(()) => {}
                    Err(Error::NotMaster) => drop(refused.fetch_add(1, Relaxed)),
                    Err(e) => panic!("{e}"),
                }
            }
        };
        // Of one slot, two of the same that join each other's groups, and over several.
        for part in [0..1, 0..1, 1..2, 1..4] {
            let keys = &keys[part];
            scope.spawn(move || work(keys));
        }
        for _ in 0..50 {
            let first = positions(&keyspace);
            wait_for(&|| positions(&keyspace).iter().zip(&first).all(|(now, then)| now.index > then.index));
            keyspace.set_owned(|_| false);
            let end = positions(&keyspace);
            let seen = refused.load(Relaxed);
            wait_for(&|| refused.load(Relaxed) > seen + 10);
            assert_eq!(positions(&keyspace), end);
            keyspace.set_owned(|_| true);
        }
        stop.store(true, Relaxed);
    });
}

/// All that takes locks of several kinds, at the same time. Its end is the test.
#[test]
fn nobody_waits_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = Arc::new(open(dir.path()));
    let keys = keys(&keyspace);
    set(&keyspace, &keys, "old").unwrap();
    let until = Instant::now() + Duration::from_millis(1500);
    let (ended, ends) = std::sync::mpsc::channel();
    type Work = Box<dyn Fn(&Keyspace, &[Bytes], usize) + Send>;
    let received = dir.path().join("received");
    let work: Vec<(&str, Work)> = vec![
        ("write", Box::new(|k, keys, n| set(k, &keys[n % 4..n % 4 + 1], "new").unwrap())),
        ("write over slots", Box::new(|k, keys, _| set(k, keys, "new").unwrap())),
        (
            "everything",
            Box::new(|k, keys, n| {
                let mut plan = LockPlan::default();
                plan.add_everything();
                let mut tx = k.transaction();
                assert_eq!(tx.lock_plan(&mut plan), Locked::Yes);
                tx.set(0, &keys[n % 4], Bytes::from_static(b"x"), None, 1).unwrap();
                if n % 4 == 0 {
                    tx.flush_db(None, 1).unwrap();
                }
                tx.commit().unwrap();
            }),
        ),
        ("flush a database", Box::new(|k, _, _| k.transaction().flush_db(Some(0), 1).unwrap())),
        ("flush a slot", Box::new(|k, _, n| k.flush_slot(&k.db(0).slots()[n % 4]).unwrap())),
        (
            "full sync",
            Box::new(move |k, _, n| {
                let slot = &k.db(0).slots()[n % 4];
                let dir = received.join(n.to_string());
                std::fs::create_dir_all(&received).unwrap();
                let applied = slot.checkpoint(&dir).unwrap().unwrap();
                k.install(slot, Some(&dir), applied).unwrap();
            }),
        ),
        ("become a replica and a master", Box::new(|k, _, _| k.set_owned(|_| true))),
    ];
    let names: Vec<&str> = work.iter().map(|(name, _)| *name).collect();
    for (name, work) in work {
        let (keyspace, keys, ended) = (keyspace.clone(), keys.clone(), ended.clone());
        std::thread::spawn(move || {
            let mut n = 0;
            while Instant::now() < until || n < 3 {
                work(&keyspace, &keys, n);
                n += 1;
            }
            let _ = ended.send(name);
        });
    }
    let mut left = names.clone();
    for _ in &names {
        let name = ends.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("still at work: {left:?}"));
        left.retain(|of| *of != name);
    }
}

/// Commands of one slot and of several in one transaction, as those of many clients are: one append a log, and each write over several
/// slots whole or not at all wherever one of the logs is cut.
#[test]
fn a_group_with_writes_over_slots_is_torn_between_them_only() {
    let live = tempfile::tempdir().unwrap();
    let keyspace = open(live.path());
    let first = keys(&keyspace);
    set(&keyspace, &first, "old").unwrap();
    let before = positions(&keyspace);
    // In which slots each command of the group writes a key of its own.
    let commands: [&[usize]; 6] = [&[0], &[0, 1], &[2], &[1, 2, 3], &[3], &[0, 3]];
    let key = |nth: usize, slot: usize| {
        let named = (0..).map(|n| Bytes::from(format!("command{nth}:{n}")));
        { named }.find(|key| std::ptr::eq(&**keyspace.slot(0, key), &**keyspace.slot(0, &first[slot]))).unwrap()
    };
    let keys: Vec<Vec<Bytes>> =
        commands.iter().enumerate().map(|(nth, slots)| slots.iter().map(|&slot| key(nth, slot)).collect()).collect();
    let mut tx = keyspace.transaction();
    for keys in &keys {
        assert_eq!(tx.lock(keys.iter().map(|k| (0, k.as_ref())), true), Locked::Yes);
        keys.iter().for_each(|k| tx.set(0, k, Bytes::from_static(b"new"), None, 1).unwrap());
    }
    tx.commit().unwrap();
    drop(tx);
    let after = positions(&keyspace);
    for slot in 0..SLOTS {
        let records = commands.iter().filter(|command| command.contains(&slot)).count() as u64;
        assert_eq!(after[slot].index, before[slot].index + records);
    }
    for slot in 0..SLOTS {
        for end in before[slot].offset..=after[slot].offset {
            // Every length would take long; those around the records' ends are among these.
            if end != after[slot].offset && !(end - before[slot].offset).is_multiple_of(7) {
                continue;
            }
            let image = tempfile::tempdir().unwrap();
            copy(live.path(), image.path());
            let log = crate::binlog::file_path(&image.path().join(format!("binlog/db0/{slot}/log-000001")), 0);
            std::fs::OpenOptions::new().write(true).open(log).unwrap().set_len(end).unwrap();
            let recovered = open(image.path());
            for keys in &keys {
                let found = keys.iter().filter(|key| value(&recovered, key).is_some()).count();
                assert!(found == 0 || found == keys.len(), "slot {slot} cut at {end}: {found} of {keys:?}");
            }
            let kept = positions(&recovered);
            assert!(kept.iter().zip(&before).all(|(kept, before)| kept.index >= before.index));
            set(&recovered, &first, "again").unwrap();
        }
    }
}

/// What a command answers falls only with the slots that it concerns.
#[test]
fn answers_rest_on_what_their_commands_wrote_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let keyspace = open(dir.path());
    let keys = keys(&keyspace);
    let mut tx = keyspace.transaction();
    let lock = |tx: &mut crate::keyspace::Transaction<'_>, of: &[usize], exclusive| {
        let keys: Vec<&[u8]> = of.iter().map(|&n| keys[n].as_ref()).collect();
        tx.lock(keys.iter().map(|k| (0, *k)), exclusive)
    };
    assert_eq!(lock(&mut tx, &[0], true), Locked::Yes);
    assert_eq!(tx.rests_on(), RestsOn::NOTHING);
    tx.set(0, &keys[0], Bytes::new(), None, 1).unwrap();
    let first = tx.rests_on();
    assert_ne!(first, RestsOn::NOTHING);
    assert_eq!(lock(&mut tx, &[1], false), Locked::Yes);
    assert_eq!(tx.rests_on(), RestsOn::NOTHING, "it reads what nobody has changed");
    assert_eq!(lock(&mut tx, &[0, 1], false), Locked::Yes);
    assert_eq!(tx.rests_on(), first, "it reads what is not committed");
    tx.begin_without_keys();
    assert_eq!(tx.rests_on(), RestsOn::NOTHING);
    assert_eq!(
        lock(&mut tx, &[0, 2], true),
        Locked::CommitFirst,
        "it may carry what is not committed into another slot"
    );
    assert_eq!(lock(&mut tx, &[1, 2], true), Locked::Yes);
    tx.set(0, &keys[1], Bytes::new(), None, 1).unwrap();
    let second = tx.rests_on();
    tx.set(0, &keys[2], Bytes::new(), None, 1).unwrap();
    let both = tx.rests_on();
    assert!(both.falls_with(second) && second.falls_with(both) && !both.falls_with(first) && both != second);
    assert!(first.falls_with(RestsOn::EVERYTHING) && !RestsOn::NOTHING.falls_with(RestsOn::EVERYTHING));
    tx.commit().unwrap();
    assert_eq!(tx.failed_in(), RestsOn::NOTHING);
    // One of the slots fails.
    drop(keyspace.db(0).slots()[1].close_for_writes("a test"));
    for nth in [0, 1] {
        assert_eq!(lock(&mut tx, &[nth], true), Locked::Yes);
        tx.set(0, &keys[nth], Bytes::new(), None, 1).unwrap();
    }
    assert!(tx.commit().is_err());
    assert_eq!(tx.failed_in(), second);
}
