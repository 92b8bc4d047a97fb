//! Sorted sets. Element: suffix `order(member) u64 big-endian, member`; value: the score, f64 bits little-endian. In the score
//! space: suffix `sortable score u64 big-endian, member`; no value.

use bytes::Bytes;

use super::{Handle, Outcome, name_in, named};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

/// Bytes of a score before the member in the score space.
pub const SCORE_LEN: usize = 8;

/// A change to a sorted set.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `ZADD key score member [score member ...]`
    Add(Vec<(f64, Bytes)>),
    /// `ZREM key member [member ...]`
    Remove(Vec<Bytes>),
}

impl Change {
    /// Adds it to a record's body. A score is written as the shortest decimal that reads back as the same number.
    pub fn encode(&self, key: &[u8], body: &mut Vec<u8>) {
        match self {
            Change::Add(pairs) => {
                let scores: Vec<String> = pairs.iter().map(|(score, _)| score.to_string()).collect();
                let mut args: Vec<&[u8]> = vec![b"ZADD", key];
                args.extend(scores.iter().zip(pairs).flat_map(|(score, (_, member))| [score.as_bytes(), &member[..]]));
                put_effect(body, &args);
            }
            Change::Remove(members) => {
                let args: Vec<&[u8]> = [&b"ZREM"[..], key].into_iter().chain(members.iter().map(|m| &m[..])).collect();
                put_effect(body, &args);
            }
        }
    }

    /// Reads it from its arguments after the key.
    pub fn decode(name: &[u8], args: Vec<Bytes>) -> Option<Change> {
        match name {
            b"ZADD" => {
                let (pairs, []) = args.as_chunks::<2>() else { return None };
                let pair = |[score, member]: &[Bytes; 2]| {
                    let score: f64 = std::str::from_utf8(score).ok()?.parse().ok()?;
                    (!score.is_nan()).then(|| (score, member.clone()))
                };
                Some(Change::Add(pairs.iter().map(pair).collect::<Option<_>>()?))
            }
            b"ZREM" => Some(Change::Remove(args)),
            _ => None,
        }
    }

    /// Makes the change; counts the members that are new or gone. A new score of a member is a change that does not count.
    pub fn apply(&self, zset: &mut Handle, state: &mut dyn State) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        match self {
            Change::Add(pairs) => {
                for (score, member) in pairs {
                    let element = named(zset, member);
                    let old = state.element(Space::Data, &element)?.as_deref().map(decode_score).transpose()?;
                    match old {
                        Some(old) if old == *score => continue,
                        Some(old) => state.put_element(Space::Score, by_score(zset, old, member), None),
                        None => outcome.count += 1,
                    }
                    outcome.changed = true;
                    state.put_element(Space::Data, element, Some(Bytes::copy_from_slice(&score.to_le_bytes())));
                    state.put_element(Space::Score, by_score(zset, *score, member), Some(Bytes::new()));
                }
                zset.collection.count += outcome.count;
            }
            Change::Remove(members) => {
                for member in members {
                    let element = named(zset, member);
                    let Some(old) = state.element(Space::Data, &element)? else { continue };
                    state.put_element(Space::Data, element, None);
                    state.put_element(Space::Score, by_score(zset, decode_score(&old)?, member), None);
                    outcome.count += 1;
                }
                outcome.changed = outcome.count > 0;
                zset.collection.count = zset.collection.count.saturating_sub(outcome.count);
            }
        }
        zset.save(state);
        Ok(outcome)
    }
}

fn decode_score(bytes: &[u8]) -> Result<f64, Error> {
    let malformed = || Error::BadEffect("malformed score".into());
    bytes.first_chunk().map(|bits| f64::from_le_bytes(*bits)).ok_or_else(malformed)
}

/// The bits of a score, so that their order as an unsigned number is the scores' order. 0 and -0 are one.
pub fn sortable(score: f64) -> u64 {
    let bits = if score == 0.0 { 0 } else { score.to_bits() };
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn from_sortable(sortable: u64) -> f64 {
    f64::from_bits(if sortable >> 63 == 1 { sortable & !(1 << 63) } else { !sortable })
}

fn by_score(zset: &Handle, score: f64, member: &[u8]) -> Vec<u8> {
    zset.element_key(&[&sortable(score).to_be_bytes(), member])
}

/// The score of `member`.
pub fn score(state: &mut dyn Read, zset: &Handle, member: &[u8]) -> Result<Option<f64>, Error> {
    state.element(Space::Data, &named(zset, member))?.as_deref().map(decode_score).transpose()
}

/// Calls `f` with member and score in the order of their names' hashes ([`super::order`]), until it returns false.
pub fn each(state: &mut dyn Read, zset: &Handle, f: &mut dyn FnMut(&[u8], f64) -> bool) -> Result<(), Error> {
    zset.each(state, Space::Data, &[], None, false, &mut |suffix, value| {
        decode_score(value).is_ok_and(|score| f(name_in(suffix), score))
    })
}

/// Calls `f` with member and score in the order of scores, and of members where these are equal, from the suffix `from` (see the
/// module; `&[]` = the first) up to `to`, exclusive (`None` = the last), until it returns false.
pub fn each_by_score(
    state: &mut dyn Read,
    zset: &Handle,
    from: &[u8],
    to: Option<&[u8]>,
    reverse: bool,
    f: &mut dyn FnMut(&[u8], f64) -> bool,
) -> Result<(), Error> {
    zset.each(state, Space::Score, from, to, reverse, &mut |suffix, _| match suffix.split_first_chunk::<SCORE_LEN>() {
        Some((score, member)) => f(member, from_sortable(u64::from_be_bytes(*score))),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sortable_keeps_order(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(sortable(a).cmp(&sortable(b)), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(from_sortable(sortable(a)), a);
        }
    }
}
