//! Random changes to a stream: what its entry and its groups say of it stays true, and it survives a conversion.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;
use crate::engine::{Collection, Kind};
use crate::keyspace::effect::test_state::Map;

const EVERYTHING: (StreamId, StreamId) = (StreamId::MIN, StreamId::MAX);

fn empty() -> Handle {
    let collection = Collection { version: 1, count: 0, extra: Bytes::new() };
    Handle { key: Bytes::from_static(b"k"), kind: Kind::Stream, expire_at: None, collection }
}

fn id() -> impl Strategy<Value = StreamId> {
    (0u64..40, 0u64..2).prop_map(|(ms, seq)| StreamId { ms, seq })
}

fn name() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(""), Just("a"), Just("ab")].prop_map(|name| Bytes::from_static(name.as_bytes()))
}

fn change() -> impl Strategy<Value = Change> {
    let claim = (id(), 0u64..9, 0u64..9).prop_map(|(id, time, count)| Claim { id, time, count });
    let elements = || vec![Bytes::from_static(b"field"), Bytes::from_static(b"value")];
    prop_oneof![
        6 => (id(), any::<bool>()).prop_map(move |(id, opens_node)| Change::Add { id, opens_node, elements: elements() }),
        2 => proptest::collection::vec(id(), 1..4).prop_map(Change::Del),
        1 => id().prop_map(|through| Change::Trim { through }),
        2 => (name(), id()).prop_map(|(name, last_id)| Change::Group { name, last_id, entries_read: None }),
        1 => name().prop_map(Change::DestroyGroup),
        2 => (name(), name()).prop_map(|(group, name)| Change::Consumer { group, name, seen: 5, active: None }),
        1 => (name(), name()).prop_map(|(group, name)| Change::DelConsumer { group, name }),
        6 => (name(), name(), proptest::collection::vec(claim, 1..4))
            .prop_map(|(group, consumer, claims)| Change::Claim { group, consumer, claims }),
        2 => (name(), proptest::collection::vec(id(), 1..4)).prop_map(|(group, ids)| Change::Ack { group, ids }),
    ]
}

/// Applies a change unless it is one that no command makes.
fn apply(change: Change, stream: &mut Handle, state: &mut Map) {
    let group = match &change {
        Change::Add { id, .. } if *id <= Head::of(stream).last_id => return,
        Change::Consumer { group, .. }
        | Change::DelConsumer { group, .. }
        | Change::Claim { group, .. }
        | Change::Ack { group, .. } => Some(group.clone()),
        _ => None,
    };
    if let Some(group) = group
        && super::group(state, stream, &group).unwrap().is_none()
    {
        return;
    }
    if let Change::Claim { group, consumer, .. } = &change
        && super::consumer(state, stream, group, consumer).unwrap().is_none()
    {
        return;
    }
    let change = match change {
        Change::Add { id, opens_node, elements } => {
            Change::Add { id, opens_node: opens_node || Head::of(stream).tail.len == 0, elements }
        }
        other => other,
    };
    change.apply(stream, state).unwrap();
}

fn check(stream: &Handle, state: &mut Map) {
    let head = Head::of(stream);
    let mut entries = Vec::new();
    each(state, stream, StreamId::MIN, StreamId::MAX, false, &mut |id, entry| {
        entries.push((id, entry.node));
        true
    })
    .unwrap();
    assert_eq!(entries.len() as u64, stream.len());
    let (first_id, first_node) = entries.first().copied().unwrap_or_default();
    assert_eq!((head.first_id, head.first_node), (first_id, first_node));
    let in_node = |node: u64| entries.iter().filter(|(_, own)| *own == node).count() as u64;
    assert_eq!(head.first_node_len, in_node(first_node));
    assert_eq!(head.tail.len, in_node(head.tail.node));
    for (name, group) in groups(state, stream).unwrap() {
        let mut by_consumer: BTreeMap<Bytes, Vec<StreamId>> = BTreeMap::new();
        each_pending(state, stream, &name, EVERYTHING, &mut |id, delivery| {
            by_consumer.entry(delivery.consumer).or_default().push(id);
            true
        })
        .unwrap();
        assert_eq!(group.pending, by_consumer.values().map(|ids| ids.len() as u64).sum::<u64>());
        let consumers = consumers(state, stream, &name).unwrap();
        assert_eq!(group.consumers, consumers.len() as u64);
        for (consumer, record) in consumers {
            let mut owned = Vec::new();
            each_owned(state, stream, (&name, &consumer), EVERYTHING, &mut |id| {
                owned.push(id);
                true
            })
            .unwrap();
            assert_eq!(record.pending, owned.len() as u64);
            assert_eq!(by_consumer.remove(&consumer).unwrap_or_default(), owned);
        }
        assert!(by_consumer.is_empty());
    }
}

fn digest_of(state: &mut Map, stream: &Handle) -> Vec<u8> {
    let mut all = Vec::new();
    digest(state, stream, &mut |bytes| all.extend_from_slice(bytes)).unwrap();
    all
}

proptest! {
    #[test]
    fn what_is_counted_is_there(changes in proptest::collection::vec(change(), 0..120)) {
        let (mut stream, mut state) = (empty(), Map::default());
        for change in changes {
            apply(change, &mut stream, &mut state);
        }
        check(&stream, &mut state);
        let value = load(&mut state, &stream).unwrap();
        let (mut copy, mut copied) = (empty(), Map::default());
        for change in super::changes(value.clone()) {
            change.apply(&mut copy, &mut copied).unwrap();
        }
        check(&copy, &mut copied);
        prop_assert_eq!(load(&mut copied, &copy).unwrap(), value);
        prop_assert_eq!(digest_of(&mut copied, &copy), digest_of(&mut state, &stream));
    }
}
