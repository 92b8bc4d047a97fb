//! Entries and elements as they stand in an engine, damaged: whatever they say, reading and changing them ends.

use bytes::Bytes;

use super::record::{self, EFFECTS, KEYS, NOW};
use super::{Answer, Fuzz, answer};
use crate::binlog::{decode_body, put_effect};
use crate::engine::{Entry, Space};
use crate::keyspace::Kind;
use crate::keyspace::effect::Read;
use crate::keyspace::effect::test_state::Map;
use crate::keyspace::types::{Handle, blob, digest, hash, list, set, stream, zset};
use crate::rdb::StreamId;

/// Elements that are asked for at most.
const SOME: u64 = 100;

/// A key's entry and elements, in the form of a body of effects: they stay apart when their bytes change.
fn pack(state: &Map, key: &str) -> Vec<u8> {
    let mut out = vec![0];
    let entry = &state.0[key.as_bytes()];
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    put_effect(&mut out, &[key.as_bytes(), &bytes]);
    let prefix = Handle::of(&Bytes::copy_from_slice(key.as_bytes()), entry).map(|handle| handle.element_key(&[]));
    for ((space, element), value) in &state.1 {
        if prefix.as_ref().is_some_and(|prefix| element.starts_with(prefix)) {
            let space = if *space == Space::Data { b"d" } else { b"s" };
            put_effect(&mut out, &[space, element, value]);
        }
    }
    out
}

fn unpack(input: &[u8]) -> Map {
    let mut state = Map::default();
    let Some((_, mut items)) = decode_body(input) else { return state };
    let mut args = Vec::new();
    while items.next_into(&mut args) == Some(true) {
        match args[..] {
            [key, entry] => {
                if let Some(entry) = Entry::decode(entry) {
                    state.0.insert(Bytes::copy_from_slice(key), entry);
                }
            }
            [space, element, value] => {
                let space = if space == b"d" { Space::Data } else { Space::Score };
                state.1.insert((space, element.to_vec()), Bytes::copy_from_slice(value));
            }
            _ => {}
        }
    }
    state
}

/// Reads a collection in all ways; whether all of them succeeded.
fn read(state: &mut Map, handle: &Handle) -> bool {
    let mut sound = digest(state, handle, &mut |_| {}).is_ok();
    let name = Bytes::from_static(b"a");
    let (few, len) = (handle.len().min(SOME), handle.len());
    match handle.kind {
        Kind::String => {
            let blob = blob::Blob::of(&handle.key, &state.0[&handle.key].clone());
            sound &= blob.range(state, 0, few).is_ok();
            sound &= blob.range(state, len.saturating_sub(few), len).is_ok();
            sound &= blob.next_data(state, len / 2).is_ok();
        }
        Kind::Hash => {
            sound &= hash::load(state, handle, NOW).is_ok();
            sound &= hash::live_len(state, handle, NOW).is_ok();
            sound &= hash::expired_fields(state, handle, u64::MAX, SOME as usize).is_ok();
            sound &= hash::get(state, handle, &name, NOW).is_ok();
        }
        Kind::List => {
            sound &= list::range(state, handle, 0, few).is_ok();
            sound &= list::range(state, handle, len.saturating_sub(few), len).is_ok();
            sound &= list::get(state, handle, len / 2).is_ok();
        }
        Kind::Set => {
            sound &= set::load(state, handle).is_ok();
            sound &= set::contains(state, handle, &name).is_ok();
        }
        Kind::Zset => {
            sound &= zset::load(state, handle).is_ok();
            sound &= zset::each_by_score(state, handle, &[], None, false, &mut |_, _| true).is_ok();
            if let Ok(Some(score)) = zset::score(state, handle, &name) {
                sound &= zset::rank(state, handle, &name, score, SOME).is_ok();
            }
            sound &= zset::Ends::of(state, handle).is_ok();
        }
        Kind::Stream => {
            let head = stream::Head::of(handle);
            head.nodes();
            head.added_up_to(StreamId { ms: 1, seq: 2 }, len);
            sound &= stream::load(state, handle).is_ok();
            sound &= stream::last_entry(state, handle).is_ok();
            sound &= stream::exists(state, handle, StreamId { ms: 1, seq: 2 }).is_ok();
            if let Ok(groups) = stream::groups(state, handle) {
                for (group, _) in groups {
                    sound &= stream::consumers(state, handle, &group).is_ok();
                    let all = (StreamId::MIN, StreamId::MAX);
                    sound &= stream::each_pending(state, handle, &group, all, &mut |_, _| true).is_ok();
                }
            }
        }
    }
    sound
}

fn check(input: &[u8]) -> Answer {
    let mut state = unpack(input);
    let mut answers = Vec::new();
    for key in KEYS.map(|key| Bytes::from_static(key.as_bytes())) {
        let Some(entry) = state.get(&key).unwrap() else { continue };
        answers.push((entry.kind.name(), 0, Handle::of(&key, &entry).is_none_or(|handle| read(&mut state, &handle))));
        // And changes it in all ways; the entry is put back when one of them removes it.
        for effect in EFFECTS.iter().filter(|effect| effect[0] != "CREATE" && effect[1].as_bytes() == key) {
            let mut body = vec![0];
            put_effect(&mut body, &effect.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>());
            let (done, _) = record::apply(&body.into(), &mut state);
            answers.push((effect[0], done, true));
            if state.get(&key).unwrap().is_none() {
                state.0.insert(key.clone(), entry.clone());
            }
        }
    }
    answer(answers)
}

#[test]
fn elements() {
    let mut state = Map::default();
    for effect in EFFECTS {
        let mut body = vec![0];
        put_effect(&mut body, &effect.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>());
        assert_eq!(record::apply(&body.into(), &mut state), (1, None), "{effect:?}");
    }
    let seeds = KEYS.iter().map(|key| pack(&state, key)).collect();
    Fuzz::new("elements", seeds).run(check);
}
