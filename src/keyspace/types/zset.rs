//! Sorted sets. Element: suffix `order(member) u64 big-endian, member`; value: the score, f64 bits little-endian. In the score
//! space: suffix `sortable score u64 big-endian, member`; no value. A score of minus zero is kept as zero, as in Redis's small
//! sorted sets.
//!
//! Nothing counts the elements before another one: what concerns ranks goes through the elements between a rank and the nearer
//! end of the set.

use std::ops::Bound;

use bytes::Bytes;

use super::{CHUNK, Handle, Outcome, name_in, named};
use crate::binlog::put_effect;
use crate::engine::Space;
use crate::keyspace::Error;
use crate::keyspace::effect::{Read, State};

/// Bytes of a score before the member in the score space.
pub const SCORE_LEN: usize = 8;

/// Scores in decimals of this many digits or more are logged with an exponent.
const LONG_DECIMAL: usize = 25;

/// Elements that [`rank`] goes through from one end before it tries the other one.
const FIRST_TURN: u64 = 256;

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
                let scores: Vec<String> = pairs.iter().map(|(score, _)| decimal(*score)).collect();
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
                    let score = unsigned_zero(*score);
                    let element = named(zset, member);
                    let old = state.element(Space::Data, &element)?.as_deref().map(decode_score).transpose()?;
                    match old {
                        Some(old) if old == score => continue,
                        Some(old) => state.put_element(Space::Score, by_score(zset, old, member), None),
                        None => outcome.count += 1,
                    }
                    outcome.changed = true;
                    state.put_element(Space::Data, element, Some(Bytes::copy_from_slice(&score.to_le_bytes())));
                    state.put_element(Space::Score, by_score(zset, score, member), Some(Bytes::new()));
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
        if outcome.changed {
            zset.save(state);
        }
        Ok(outcome)
    }
}

/// The changes that put these members into a sorted set, a few thousand each.
pub fn changes(members: Vec<(Bytes, f64)>) -> Vec<Change> {
    let mut changes = Vec::with_capacity(members.len().div_ceil(CHUNK));
    let mut members = members.into_iter().map(|(member, score)| (score, member)).peekable();
    while members.peek().is_some() {
        changes.push(Change::Add(members.by_ref().take(CHUNK).collect()));
    }
    changes
}

/// The shortest decimal that reads back as the same number.
fn decimal(score: f64) -> String {
    let plain = score.to_string();
    if plain.len() < LONG_DECIMAL { plain } else { format!("{score:e}") }
}

fn unsigned_zero(score: f64) -> f64 {
    if score == 0.0 { 0.0 } else { score }
}

/// Reads the value of an element.
pub fn decode_score(bytes: &[u8]) -> Result<f64, Error> {
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

pub(super) fn by_score(zset: &Handle, score: f64, member: &[u8]) -> Vec<u8> {
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

/// A range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    pub min: Bound<f64>,
    pub max: Bound<f64>,
}

impl Scores {
    /// Whether every score is in it.
    pub fn is_everything(&self) -> bool {
        let least = matches!(self.min, Bound::Unbounded | Bound::Included(f64::NEG_INFINITY));
        least && matches!(self.max, Bound::Unbounded | Bound::Included(f64::INFINITY))
    }

    /// The suffixes in the score space from which on, and before which, exactly the members with these scores stand.
    fn suffixes(&self) -> ([u8; SCORE_LEN], [u8; SCORE_LEN]) {
        // No number's bits are the greatest ones, so there is always a next suffix.
        let from = match self.min {
            Bound::Included(min) => sortable(min),
            Bound::Excluded(min) => sortable(min) + 1,
            Bound::Unbounded => 0,
        };
        let to = match self.max {
            Bound::Included(max) => sortable(max) + 1,
            Bound::Excluded(max) => sortable(max),
            Bound::Unbounded => u64::MAX,
        };
        (from.to_be_bytes(), to.to_be_bytes())
    }
}

/// A range of members in the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Names<'a> {
    pub min: Bound<&'a [u8]>,
    pub max: Bound<&'a [u8]>,
}

impl Names<'_> {
    fn above_min(&self, member: &[u8]) -> bool {
        match self.min {
            Bound::Included(min) => member >= min,
            Bound::Excluded(min) => member > min,
            Bound::Unbounded => true,
        }
    }

    fn below_max(&self, member: &[u8]) -> bool {
        match self.max {
            Bound::Included(max) => member <= max,
            Bound::Excluded(max) => member < max,
            Bound::Unbounded => true,
        }
    }

    /// The suffixes for members that all have one score.
    fn suffixes(&self, score: f64) -> (Vec<u8>, Vec<u8>) {
        let score = sortable(score);
        // What follows a name in the order is the name and a zero byte.
        let suffix =
            |name: &[u8], next: bool| [&score.to_be_bytes()[..], name, if next { b"\0" } else { b"" }].concat();
        let from = match self.min {
            Bound::Included(min) => suffix(min, false),
            Bound::Excluded(min) => suffix(min, true),
            Bound::Unbounded => suffix(b"", false),
        };
        let to = match self.max {
            Bound::Included(max) => suffix(max, true),
            Bound::Excluded(max) => suffix(max, false),
            Bound::Unbounded => (score + 1).to_be_bytes().to_vec(),
        };
        (from, to)
    }
}

/// [`each_by_score`] of the members with these scores.
pub fn each_in_scores(
    state: &mut dyn Read,
    zset: &Handle,
    scores: &Scores,
    reverse: bool,
    f: &mut dyn FnMut(&[u8], f64) -> bool,
) -> Result<(), Error> {
    let (from, to) = scores.suffixes();
    each_by_score(state, zset, &from, Some(&to), reverse, f)
}

/// The first and the last member in the order of scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Ends {
    pub first: (Bytes, f64),
    pub last: (Bytes, f64),
}

impl Ends {
    /// Looks them up; `None` where there are no members.
    pub fn of(state: &mut dyn Read, zset: &Handle) -> Result<Option<Ends>, Error> {
        let mut end = |last| -> Result<_, Error> {
            let mut found = None;
            each_by_score(state, zset, &[], None, last, &mut |member, score| {
                found = Some((Bytes::copy_from_slice(member), score));
                false
            })?;
            Ok(found)
        };
        Ok(end(false)?.zip(end(true)?).map(|(first, last)| Ends { first, last }))
    }

    /// Whether all members have one score: then they are in the order of their names.
    pub fn is_by_name(&self) -> bool {
        self.first.1 == self.last.1
    }
}

/// [`each_by_score`] of the members in a range of names, which means something where all scores are equal. Where they are not, all
/// are gone through, and those answered stand between the first (in the direction) that is inside one bound and the next that is
/// outside the other, if neither the first nor the last of all says at once that there are none: what Redis does with its small
/// sorted sets.
pub fn each_in_names(
    state: &mut dyn Read,
    zset: &Handle,
    ends: &Ends,
    names: &Names<'_>,
    reverse: bool,
    f: &mut dyn FnMut(&[u8], f64) -> bool,
) -> Result<(), Error> {
    if ends.is_by_name() {
        let (from, to) = names.suffixes(ends.first.1);
        return each_by_score(state, zset, &from, Some(&to), reverse, f);
    }
    if !names.above_min(&ends.last.0) || !names.below_max(&ends.first.0) {
        return Ok(());
    }
    let mut begun = false;
    each_by_score(state, zset, &[], None, reverse, &mut |member, score| {
        let (after_begin, before_end) = match reverse {
            false => (names.above_min(member), names.below_max(member)),
            true => (names.below_max(member), names.above_min(member)),
        };
        begun |= after_begin;
        !begun || (before_end && f(member, score))
    })
}

/// [`each_by_score`] of `count` members from the one of rank `first` on; with `reverse`, ranks count from the last member. Goes through
/// what is between the range and the nearer end: see [`steps_to_ranks`].
pub fn each_in_ranks(
    state: &mut dyn Read,
    zset: &Handle,
    first: u64,
    count: u64,
    reverse: bool,
    f: &mut dyn FnMut(&[u8], f64) -> bool,
) -> Result<(), Error> {
    let count = count.min(zset.len().saturating_sub(first));
    let behind = zset.len().saturating_sub(first).saturating_sub(count);
    if first <= behind {
        let (mut skip, mut left) = (first, count);
        if left == 0 {
            return Ok(());
        }
        return each_by_score(state, zset, &[], None, reverse, &mut |member, score| {
            if skip > 0 {
                skip -= 1;
                return true;
            }
            left -= 1;
            f(member, score) && left > 0
        });
    }
    // From the other end, and then the other way round.
    let mut found = Vec::new();
    each_in_ranks(state, zset, behind, count, !reverse, &mut |member, score| {
        found.push((Bytes::copy_from_slice(member), score));
        true
    })?;
    found.into_iter().rev().all(|(member, score)| f(&member, score));
    Ok(())
}

/// How many elements [`each_in_ranks`] goes through.
pub fn steps_to_ranks(zset: &Handle, first: u64, count: u64) -> u64 {
    let behind = zset.len().saturating_sub(first).saturating_sub(count);
    count.saturating_add(first.min(behind))
}

/// How many members come before `member`, which has this score; `None` when more than about `limit` elements would have to be gone
/// through. Searches from both ends in turns, so it goes through few where one of them is near.
pub fn rank(state: &mut dyn Read, zset: &Handle, member: &[u8], score: f64, limit: u64) -> Result<Option<u64>, Error> {
    let target = [&sortable(score).to_be_bytes()[..], member].concat();
    // What has been gone through: all below `low`, and all from `high` on.
    let (mut low, mut below) = (Vec::new(), 0);
    let (mut high, mut above) = (None::<Vec<u8>>, 0);
    let mut turn = FIRST_TURN;
    while below + above <= limit {
        let (mut left, mut there) = (turn, true);
        zset.each(state, Space::Score, &low.clone(), Some(&target), false, &mut |suffix, _| {
            (below, left) = (below + 1, left - 1);
            there = left > 0;
            if !there {
                low = [suffix, b"\0"].concat();
            }
            there
        })?;
        if there {
            return Ok(Some(below));
        }
        let (mut left, mut there) = (turn, true);
        zset.each(state, Space::Score, &target, high.clone().as_deref(), true, &mut |suffix, _| {
            (above, left) = (above + 1, left - 1);
            there = left > 0;
            if !there {
                high = Some(suffix.to_vec());
            }
            there
        })?;
        if there {
            // The member itself is the last one on the way.
            return Ok(Some(zset.len().saturating_sub(above)));
        }
        turn *= 2;
    }
    Ok(None)
}

/// All members with their scores, in the order of these.
pub fn load(state: &mut dyn Read, zset: &Handle) -> Result<Vec<(Bytes, f64)>, Error> {
    let mut members = Vec::with_capacity(zset.len().min(CHUNK as u64) as usize);
    each_by_score(state, zset, &[], None, false, &mut |member, score| {
        members.push((Bytes::copy_from_slice(member), score));
        true
    })?;
    Ok(members)
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

    #[test]
    fn bounds_are_suffixes() {
        let range = |min, max| Scores { min, max }.suffixes();
        let at = |score: f64| sortable(score).to_be_bytes();
        let after = |score: f64| (sortable(score) + 1).to_be_bytes();
        assert_eq!(range(Bound::Included(1.0), Bound::Included(2.0)), (at(1.0), after(2.0)));
        assert_eq!(range(Bound::Excluded(-1.0), Bound::Excluded(2.0)), (after(-1.0), at(2.0)));
        assert!(range(Bound::Unbounded, Bound::Unbounded).0 < at(f64::NEG_INFINITY));
        assert!(range(Bound::Unbounded, Bound::Unbounded).1 > at(f64::INFINITY));
        let everything = Scores { min: Bound::Included(f64::NEG_INFINITY), max: Bound::Unbounded };
        assert!(everything.is_everything());
        assert!(!Scores { min: Bound::Excluded(f64::NEG_INFINITY), ..everything }.is_everything());
    }

    #[test]
    fn logged_scores_are_short() {
        for (score, text) in [(1.5, "1.5"), (1e300, "1e300"), (-5e-324, "-5e-324"), (f64::INFINITY, "inf")] {
            assert_eq!(decimal(score), text);
            assert_eq!(text.parse::<f64>(), Ok(score));
        }
    }

    #[test]
    fn many_members_are_several_changes() {
        let members: Vec<(Bytes, f64)> = (0..CHUNK * 2 + 1).map(|n| (n.to_string().into(), n as f64)).collect();
        let sizes: Vec<usize> = changes(members)
            .iter()
            .map(|change| match change {
                Change::Add(pairs) => pairs.len(),
                Change::Remove(_) => 0,
            })
            .collect();
        assert_eq!(sizes, [CHUNK, CHUNK, 1]);
        assert!(changes(Vec::new()).is_empty());
    }
}
