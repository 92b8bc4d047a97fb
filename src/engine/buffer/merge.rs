//! Reading a range of keys from buffers and RocksDB together, in order.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DBAccess, DBRawIteratorWithThreadMode};

use super::super::batch::Family;
use super::{Buffer, Generation, Value};

/// Records that are first taken from a generation.
const FIRST_STEP: usize = 64;
/// Each step takes so many times as many as the one before, up to the largest.
const GROWTH: usize = 4;
const LARGEST_STEP: usize = 4096;

/// Which keys of a family, and in which direction.
#[derive(Clone, Copy)]
pub struct Range<'r> {
    pub family: Family,
    pub lower: Bound<&'r [u8]>,
    pub upper: Bound<&'r [u8]>,
    /// From the last to the first.
    pub reverse: bool,
}

/// Called once nothing that is written from now on can be seen.
type Fixed<'f> = &'f mut dyn FnMut();

/// What stands in a range, from one generation. It is copied in steps, so that neither a reader of a few keys copies many nor writers
/// wait for long. Only keys that are not written meanwhile read as they were at the beginning.
struct Source<'r> {
    buffer: &'r Buffer,
    generation: Arc<Generation>,
    range: Range<'r>,
    /// Keys and inline values of the last step.
    bytes: Vec<u8>,
    items: Vec<Item>,
    next: usize,
    /// Records the next step takes; `None` when there are no more.
    step: Option<usize>,
}

struct Item {
    key: std::ops::Range<usize>,
    value: Held,
}

enum Held {
    Deleted,
    Inline(std::ops::Range<usize>),
    Shared(Bytes),
}

impl Source<'_> {
    /// Takes the next records if those at hand are used up.
    fn fill(&mut self) {
        if self.next < self.items.len() {
            return;
        }
        if let Some(step) = self.step {
            let last = self.items.last().map(|item| self.bytes[item.key.clone()].to_vec());
            self.items.clear();
            self.bytes.clear();
            self.next = 0;
            self.take(step, last);
        }
    }

    /// Takes all that are left.
    fn fill_whole(&mut self) {
        while self.step.is_some() {
            let last = self.items.last().map(|item| self.bytes[item.key.clone()].to_vec());
            self.take(LARGEST_STEP, last);
        }
    }

    /// Takes so many records that come after `last`.
    fn take(&mut self, step: usize, last: Option<Vec<u8>>) {
        let Range { mut lower, mut upper, reverse, family } = self.range;
        if let Some(last) = &last {
            let end = if reverse { &mut upper } else { &mut lower };
            *end = Bound::Excluded(last);
        }
        let (items, bytes) = (&mut self.items, &mut self.bytes);
        let had = items.len();
        self.buffer.range(&self.generation, family, ((lower, upper), reverse), &mut |key, value| {
            let mut hold = |what: &[u8]| {
                let start = bytes.len();
                bytes.extend_from_slice(what);
                start..bytes.len()
            };
            let key = hold(key);
            let value = match value {
                Value::Deleted => Held::Deleted,
                Value::Inline(value) => Held::Inline(hold(value)),
                Value::Shared(value) => Held::Shared(value.clone()),
            };
            items.push(Item { key, value });
            items.len() < had + step
        });
        self.step = (items.len() == had + step).then(|| (step * GROWTH).min(LARGEST_STEP));
    }

    fn key(&self) -> Option<&[u8]> {
        self.items.get(self.next).map(|item| &self.bytes[item.key.clone()])
    }

    fn value(&self) -> Option<&[u8]> {
        match &self.items.get(self.next)?.value {
            Held::Deleted => None,
            Held::Inline(at) => Some(&self.bytes[at.clone()]),
            Held::Shared(bytes) => Some(bytes),
        }
    }

    /// Whether all that is left has been copied.
    fn is_whole(&self) -> bool {
        self.step.is_none()
    }
}

/// The keys of a range that RocksDB may lack.
pub struct Merge<'r> {
    /// Those that hide others first.
    sources: Vec<Source<'r>>,
    reverse: bool,
}

impl<'r> Merge<'r> {
    /// To be made before the iterator over RocksDB that goes with it.
    pub fn new(buffer: &'r Buffer, range: Range<'r>) -> Merge<'r> {
        let source = |generation| Source {
            buffer,
            generation,
            range,
            bytes: Vec::new(),
            items: Vec::new(),
            next: 0,
            step: Some(FIRST_STEP),
        };
        Merge { sources: buffer.generations(range.family).map(source).collect(), reverse: range.reverse }
    }

    fn order(&self, a: &[u8], b: &[u8]) -> Ordering {
        if self.reverse { b.cmp(a) } else { a.cmp(b) }
    }

    /// The source that holds what comes next, and the order of that to `key`.
    fn first(&self, key: Option<&[u8]>) -> Option<(usize, Ordering)> {
        let mut first: Option<(usize, &[u8])> = None;
        for (nth, source) in self.sources.iter().enumerate() {
            if let Some(own) = source.key()
                && first.is_none_or(|(_, best)| self.order(own, best).is_lt())
            {
                first = Some((nth, own));
            }
        }
        let (nth, own) = first?;
        Some((nth, key.map_or(Ordering::Less, |key| self.order(own, key))))
    }

    /// Steps over a key wherever it stands.
    fn pass(&mut self, nth: usize) {
        let (before, from) = self.sources.split_at_mut(nth);
        let Some((source, after)) = from.split_first_mut() else { return };
        if let Some(key) = source.key() {
            for other in before.iter_mut().chain(after) {
                if other.key() == Some(key) {
                    other.next += 1;
                }
            }
        }
        source.next += 1;
    }

    /// Calls `f` with what there is, until it returns false. `iter` stands at its first entry of the range. With `fixed`, all that is
    /// in the buffers is copied after the first step; and it is called, once, as soon as that is done and if it comes to that.
    pub fn run<D: DBAccess>(
        mut self,
        iter: &mut DBRawIteratorWithThreadMode<'_, D>,
        mut fixed: Option<Fixed<'_>>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), rocksdb::Error> {
        let mut started = false;
        let mut disk_ended = false;
        loop {
            let used_up = self.sources.iter().any(|source| source.next == source.items.len() && !source.is_whole());
            self.sources.iter_mut().for_each(Source::fill);
            if let Some(call) = &mut fixed {
                if started && used_up {
                    self.sources.iter_mut().for_each(Source::fill_whole);
                }
                if self.sources.iter().all(Source::is_whole) {
                    call();
                    fixed = None;
                }
            }
            started = true;
            // It may have ended because it could not go on, and what it would have said comes before what the buffers say.
            if !disk_ended && !iter.valid() {
                iter.status()?;
                disk_ended = true;
            }
            let advance = |iter: &mut DBRawIteratorWithThreadMode<'_, D>, reverse: bool| {
                if reverse { iter.prev() } else { iter.next() }
            };
            match self.first(iter.key()) {
                None | Some((_, Ordering::Greater)) => {
                    let Some((key, value)) = iter.item() else { return Ok(()) };
                    if !f(key, value) {
                        return Ok(());
                    }
                    advance(iter, self.reverse);
                }
                Some((nth, order)) => {
                    if let Some((key, value)) = self.sources[nth].key().zip(self.sources[nth].value())
                        && !f(key, value)
                    {
                        return Ok(());
                    }
                    self.pass(nth);
                    if order.is_eq() {
                        advance(iter, self.reverse);
                    }
                }
            }
        }
    }
}
