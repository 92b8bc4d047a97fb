//! The records of a write buffer: keys and values, one behind the other in large pieces of memory. Hot path.
//!
//! ```text
//! record   key length u32, value length u32 (or DELETED, SHARED, REPLACED), room for the value u32, key, value
//! ```
//! in the machine's byte order: it never leaves the process.
//!
//! Pieces are written while they are [`Open`], and never again once they are [`Closed`]: then whoever reads them needs no lock.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

/// Bytes before a record's key.
const HEADER: usize = 12;
/// As a value's length: the key is deleted.
const DELETED: u32 = u32::MAX;
/// As a value's length: the value is one of `shared`, whose index stands in its place.
const SHARED: u32 = u32::MAX - 1;
/// As a value's length: there is a newer record of the key.
const REPLACED: u32 = u32::MAX - 2;
/// Values of at least so many bytes are kept by themselves, so that readers need not copy them while writers wait.
pub(super) const SHARED_FROM: usize = 16 << 10;
/// Records whose keys and values have more bytes together are [`Lane::Long`].
const LONG_FROM: usize = 1 << 10;
/// Bytes of the first piece of memory; each is twice as large as the one before, up to the largest. A slot that is hardly written
/// takes little.
const FIRST_PIECE: usize = 4 << 10;
pub(super) const LARGEST_PIECE: usize = 256 << 10;
/// The room for a value is a multiple of so many bytes.
const ROOM_STEP: usize = 8;

/// Records stand in one of two rows of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Most.
    Short,
    /// Of which one takes the room of many: they are not kept for longer than they must be.
    Long,
}

impl Lane {
    pub const ALL: [Lane; 2] = [Lane::Short, Lane::Long];
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from the first piece of its lane there ever was; the highest bit is the lane.
    piece: u32,
    at: u32,
}

impl Place {
    const LONG: u32 = 1 << 31;

    fn new(lane: Lane, piece: u32, at: usize) -> Place {
        let lane = if lane == Lane::Long { Place::LONG } else { 0 };
        Place { piece: piece & !Place::LONG | lane, at: at as u32 }
    }

    pub fn lane(self) -> Lane {
        if self.piece & Place::LONG == 0 { Lane::Short } else { Lane::Long }
    }

    /// The piece's number.
    pub fn piece(self) -> u32 {
        self.piece & !Place::LONG
    }
}

/// A value in a buffer.
#[derive(Clone, Copy, Debug)]
pub enum Value<'t> {
    Deleted,
    Inline(&'t [u8]),
    /// To be kept without a copy.
    Shared(&'t Bytes),
}

impl<'t> Value<'t> {
    /// `None` when the key is deleted.
    pub fn bytes(self) -> Option<&'t [u8]> {
        match self {
            Value::Deleted => None,
            Value::Inline(bytes) => Some(bytes),
            Value::Shared(bytes) => Some(bytes),
        }
    }

    /// A copy of its own, unless it is shared already; `None` when the key is deleted.
    pub fn to_bytes(self) -> Option<Bytes> {
        match self {
            Value::Deleted => None,
            Value::Inline(bytes) => Some(Bytes::copy_from_slice(bytes)),
            Value::Shared(bytes) => Some(bytes.clone()),
        }
    }
}

/// Pieces of a lane, in the order of their numbers.
struct Pieces<P> {
    /// The first one's number.
    first: u32,
    pieces: VecDeque<P>,
}

impl<P> Default for Pieces<P> {
    fn default() -> Self {
        Pieces { first: 0, pieces: VecDeque::new() }
    }
}

impl<P> Pieces<P> {
    /// The number that the next one will have.
    fn end(&self) -> u32 {
        self.first + self.pieces.len() as u32
    }
}

/// Records in the order in which they were put, a lane after the other.
pub struct Records<P> {
    lanes: [Pieces<P>; Lane::ALL.len()],
    /// Values that are kept by themselves.
    shared: Arc<Vec<Bytes>>,
}

pub type Open = Records<Vec<u8>>;
pub type Closed = Records<Bytes>;

impl<P> Default for Records<P> {
    fn default() -> Self {
        Records { lanes: Default::default(), shared: Arc::default() }
    }
}

impl<P: Deref<Target = [u8]>> Records<P> {
    fn record(&self, place: Place) -> &[u8] {
        let lane = &self.lanes[place.lane() as usize];
        &lane.pieces[(place.piece() - lane.first) as usize][place.at as usize..]
    }

    pub fn key(&self, place: Place) -> &[u8] {
        record_key(self.record(place))
    }

    pub fn first_byte(&self, place: Place) -> u8 {
        self.record(place)[0]
    }

    pub fn is_deleted(&self, place: Place) -> bool {
        number(self.record(place), 4) == DELETED
    }

    pub fn value(&self, place: Place) -> Value<'_> {
        let record = self.record(place);
        let start = HEADER + number(record, 0) as usize;
        match number(record, 4) {
            DELETED => Value::Deleted,
            SHARED => Value::Shared(&self.shared[number(record, start) as usize]),
            len => Value::Inline(&record[start..start + len as usize]),
        }
    }

    /// Memory they take, about.
    pub fn bytes(&self) -> usize {
        let pieces = self.lanes.iter().flat_map(|lane| &lane.pieces).map(|piece| piece.len());
        pieces.chain(self.shared.iter().map(Bytes::len)).sum()
    }

    /// Keys and places of all records that are not replaced.
    pub fn live(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.since(Cursor::default())
    }

    /// Keys and places of the records after `cursor` that are not replaced.
    pub fn since(&self, cursor: Cursor) -> impl Iterator<Item = (&[u8], Place)> {
        Lane::ALL.into_iter().flat_map(move |lane| {
            let (pieces, (piece, at)) = (&self.lanes[lane as usize], cursor.0[lane as usize]);
            let (first, at) = if piece < pieces.first { (pieces.first, 0) } else { (piece, at) };
            let skipped = (first - pieces.first) as usize;
            pieces.pieces.iter().zip(pieces.first..).skip(skipped).flat_map(move |(bytes, piece)| {
                let at = if piece == first { at } else { 0 };
                let live = walk(lane, piece, bytes, at).filter(|(record, _)| number(record, 4) != REPLACED);
                live.map(|(record, place)| (record_key(record), place))
            })
        })
    }

    /// Behind the last record.
    pub fn end(&self) -> Cursor {
        Cursor(self.lanes.each_ref().map(|lane| match lane.pieces.back() {
            Some(last) => (lane.end() - 1, last.len()),
            None => (lane.first, 0),
        }))
    }
}

/// How far somebody has read of each lane: the piece's number, and bytes of it.
#[derive(Clone, Copy, Default)]
pub struct Cursor([(u32, usize); Lane::ALL.len()]);

impl Open {
    /// Whether it has the piece that a record is in.
    pub fn has(&self, place: Place) -> bool {
        place.piece() >= self.lanes[place.lane() as usize].first
    }

    fn record_mut(&mut self, place: Place) -> &mut [u8] {
        let lane = &mut self.lanes[place.lane() as usize];
        &mut lane.pieces[(place.piece() - lane.first) as usize][place.at as usize..]
    }

    /// Puts a value in the place of a record's present one, if there is room.
    pub fn overwrite(&mut self, place: Place, value: Option<&[u8]>) -> bool {
        let record = self.record_mut(place);
        let (start, room) = (HEADER + number(record, 0) as usize, number(record, 8) as usize);
        // What is shared keeps its place until the generation is drained.
        let len = match value {
            _ if number(record, 4) == SHARED => return false,
            None => DELETED,
            Some(value) if value.len() <= room && value.len() < SHARED_FROM => {
                record[start..start + value.len()].copy_from_slice(value);
                value.len() as u32
            }
            Some(_) => return false,
        };
        set_len(record, len);
        true
    }

    /// There is a newer record of the key.
    pub fn replace(&mut self, place: Place) {
        set_len(self.record_mut(place), REPLACED);
    }

    pub fn append(&mut self, key: &[u8], value: Option<&[u8]>) -> Place {
        let lane = if key.len() + value.map_or(0, <[u8]>::len) > LONG_FROM { Lane::Long } else { Lane::Short };
        let index;
        let (len, value): (u32, &[u8]) = match value {
            None => (DELETED, &[]),
            Some(value) if value.len() < SHARED_FROM => (value.len() as u32, value),
            Some(value) => {
                index = (self.shared.len() as u32).to_ne_bytes();
                Arc::make_mut(&mut self.shared).push(Bytes::copy_from_slice(value));
                (SHARED, &index)
            }
        };
        // A counter that grows a digit stays where it is.
        let room = value.len().next_multiple_of(ROOM_STEP);
        let needed = HEADER + key.len() + room;
        let pieces = &mut self.lanes[lane as usize];
        if pieces.pieces.back().is_none_or(|last| last.capacity() - last.len() < needed) {
            let next = pieces.pieces.back().map_or(FIRST_PIECE, |last| (last.capacity() * 2).min(LARGEST_PIECE));
            pieces.pieces.push_back(Vec::with_capacity(next.max(needed)));
        }
        let last = pieces.pieces.len() - 1;
        let piece = &mut pieces.pieces[last];
        let at = piece.len();
        for header in [key.len() as u32, len, room as u32] {
            piece.extend_from_slice(&header.to_ne_bytes());
        }
        piece.extend_from_slice(key);
        piece.extend_from_slice(value);
        piece.resize(at + needed, 0);
        Place::new(lane, pieces.first + last as u32, at)
    }

    /// Everything so far; what comes from now on goes into new pieces.
    pub fn close(&mut self) -> Closed {
        let lanes = self.lanes.each_mut().map(|lane| {
            let first = lane.first;
            lane.first = lane.end();
            let close = |mut piece: Vec<u8>| {
                // Only the last one has room left.
                piece.shrink_to_fit();
                Bytes::from(piece)
            };
            Pieces { first, pieces: lane.pieces.drain(..).map(close).collect() }
        });
        Records { lanes, shared: std::mem::take(&mut self.shared) }
    }
}

impl Closed {
    /// Adds records that were closed after those that are here, without copying them. Of values that are kept by themselves only the last
    /// ones added are found.
    pub fn extend(&mut self, newer: &Closed) {
        for (lane, newer) in self.lanes.iter_mut().zip(&newer.lanes) {
            if lane.pieces.is_empty() {
                lane.first = newer.first;
            }
            lane.pieces.extend(newer.pieces.iter().cloned());
        }
        self.shared.clone_from(&newer.shared);
    }

    /// Bytes of each piece of a lane.
    pub fn pieces(&self, lane: Lane) -> impl ExactSizeIterator<Item = usize> {
        self.lanes[lane as usize].pieces.iter().map(Bytes::len)
    }

    /// The first piece of a lane, with its number.
    pub fn oldest(&self, lane: Lane) -> Option<(u32, Bytes)> {
        let pieces = &self.lanes[lane as usize];
        Some((pieces.first, pieces.pieces.front()?.clone()))
    }

    /// Lets go of the first piece of a lane.
    pub fn drop_oldest(&mut self, lane: Lane) {
        let pieces = &mut self.lanes[lane as usize];
        if pieces.pieces.pop_front().is_some() {
            pieces.first += 1;
        }
    }

    /// Lets go of the values that are kept by themselves.
    pub fn drop_shared(&mut self) {
        self.shared = Arc::default();
    }
}

/// Keys and places of all records of a piece, replaced or not.
pub fn in_piece(lane: Lane, number: u32, bytes: &[u8]) -> impl Iterator<Item = (&[u8], Place)> {
    walk(lane, number, bytes, 0).map(|(record, place)| (record_key(record), place))
}

/// The records of a piece from byte `at` on, each with all that comes after it.
fn walk(lane: Lane, number: u32, bytes: &[u8], mut at: usize) -> impl Iterator<Item = (&[u8], Place)> {
    std::iter::from_fn(move || {
        let record = bytes.get(at..).filter(|record| !record.is_empty())?;
        let place = Place::new(lane, number, at);
        at += record_len(record);
        Some((record, place))
    })
}

fn set_len(record: &mut [u8], len: u32) {
    record[4..8].copy_from_slice(&len.to_ne_bytes());
}

fn number(record: &[u8], at: usize) -> u32 {
    record[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn record_key(record: &[u8]) -> &[u8] {
    &record[HEADER..HEADER + number(record, 0) as usize]
}

/// Bytes of a record with its room.
fn record_len(record: &[u8]) -> usize {
    HEADER + number(record, 0) as usize + number(record, 8) as usize
}
