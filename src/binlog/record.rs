//! Records: their header, their body, and how they are chained. Hot path: no allocation per record.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Position;

/// Bytes before a record's body.
pub const RECORD_HEADER_LEN: usize = 36;
/// Largest body, bytes: one 512 MiB value and its surroundings. A length beyond it is no record.
pub const MAX_BODY_LEN: u32 = 1 << 30;

/// Bytes of the header that the chain covers: all before the chain itself.
const CHAINED_LEN: usize = 28;
/// Body flag: the record is one of several that were committed together, one a slot.
const FLAG_MULTI: u8 = 1;
/// Bytes that [`put_varint`] adds at most.
const MAX_VARINT_LEN: usize = 10;
/// Encoded bytes of a [`Participant`].
const PARTICIPANT_LEN: usize = 12;

/// One slot's part in a write that spans slots: the record with `index` in that slot's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Participant {
    pub db: u16,
    pub slot: u16,
    pub index: u64,
}

/// A record before it has its place in a log: execution time, who else takes part, and effects.
#[derive(Debug)]
pub struct Draft {
    /// Unix time of execution, ms. Applying the record takes this as now.
    pub time: u64,
    participants: Vec<Participant>,
    effects: Vec<u8>,
}

impl Draft {
    /// A record with effects still to be added by [`put_effect`] to [`Draft::effects`].
    pub fn new(time: u64) -> Draft {
        Draft { time, participants: Vec::new(), effects: Vec::new() }
    }

    /// The encoded effects, to add more.
    pub fn effects(&mut self) -> &mut Vec<u8> {
        &mut self.effects
    }

    /// Makes the record one of several that are committed together, one a slot.
    pub fn set_participants(&mut self, participants: &[Participant]) {
        self.participants = participants.to_vec();
    }

    /// Bytes that the record takes in the log.
    pub fn encoded_len(&self) -> usize {
        let list = if self.participants.is_empty() { 0 } else { 2 + self.participants.len() * PARTICIPANT_LEN };
        RECORD_HEADER_LEN + 1 + list + self.effects.len()
    }

    /// Appends the record to `out` as the one after `position`, and moves `position` to its end.
    pub fn encode(&self, term: u32, position: &mut Position, out: &mut Vec<u8>) {
        let at = out.len();
        let body_at = at + RECORD_HEADER_LEN;
        out.reserve(self.encoded_len());
        out.resize(body_at, 0);
        if self.participants.is_empty() {
            out.push(0);
        } else {
            out.push(FLAG_MULTI);
            out.extend_from_slice(&(self.participants.len() as u16).to_le_bytes());
            for p in &self.participants {
                out.extend_from_slice(&p.db.to_le_bytes());
                out.extend_from_slice(&p.slot.to_le_bytes());
                out.extend_from_slice(&p.index.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.effects);
        let index = position.index + 1;
        let body_crc = crc32fast::hash(&out[body_at..]);
        let body_len = (out.len() - body_at) as u32;
        let header = &mut out[at..body_at];
        header[0..4].copy_from_slice(&body_len.to_le_bytes());
        header[4..8].copy_from_slice(&body_crc.to_le_bytes());
        header[8..12].copy_from_slice(&term.to_le_bytes());
        header[12..20].copy_from_slice(&index.to_le_bytes());
        header[20..28].copy_from_slice(&self.time.to_le_bytes());
        let chain = xxh3_64_with_seed(&header[..CHAINED_LEN], position.chain);
        header[CHAINED_LEN..].copy_from_slice(&chain.to_le_bytes());
        let offset = position.offset + (out.len() - at) as u64;
        *position = Position { filenum: position.filenum, offset, term, index, chain };
    }
}

/// Adds one effect, a command with absolute values, to a body.
pub fn put_effect(body: &mut Vec<u8>, args: &[&[u8]]) {
    // At once: growing for what follows a large value would copy that.
    body.reserve(args.iter().map(|arg| arg.len() + MAX_VARINT_LEN).sum::<usize>() + MAX_VARINT_LEN);
    put_varint(body, args.len() as u64);
    for arg in args {
        put_varint(body, arg.len() as u64);
        body.extend_from_slice(arg);
    }
}

/// A whole record as it stands in a log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Unix time of execution, ms.
    pub time: u64,
    pub body: &'a [u8],
    /// The record's end.
    pub end: Position,
}

/// Why bytes are not the next record. `Short` may be a torn tail or a read that needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// This many bytes would be needed (at least).
    Short(usize),
    Bad(&'static str),
}

impl<'a> Record<'a> {
    /// The record that starts `bytes` and continues the log at `after`. The chain is always checked, the body's checksum
    /// when `verify_body` is set.
    pub(super) fn parse(bytes: &'a [u8], after: &Position, verify_body: bool) -> Result<Record<'a>, Flaw> {
        Record::parse_after(bytes, after, true, verify_body)
    }

    /// [`Record::parse`] where the chain before the record may be unknown (`chained` = false): then it is taken as it is.
    pub(super) fn parse_after(
        bytes: &'a [u8],
        after: &Position,
        chained: bool,
        verify_body: bool,
    ) -> Result<Record<'a>, Flaw> {
        let header = Header::parse(bytes)?;
        if header.len > MAX_BODY_LEN || header.len == 0 {
            return Err(Flaw::Bad("impossible length"));
        }
        if chained && header.chain != xxh3_64_with_seed(&bytes[..CHAINED_LEN], after.chain) {
            return Err(Flaw::Bad("chain mismatch"));
        }
        if header.index != after.index + 1 {
            return Err(Flaw::Bad("index out of sequence"));
        }
        if header.term < after.term {
            return Err(Flaw::Bad("term falls"));
        }
        let len = RECORD_HEADER_LEN + header.len as usize;
        if bytes.len() < len {
            return Err(Flaw::Short(len));
        }
        let body = &bytes[RECORD_HEADER_LEN..len];
        if verify_body && crc32fast::hash(body) != header.body_crc {
            return Err(Flaw::Bad("checksum mismatch"));
        }
        Ok(Record {
            time: header.time,
            body,
            end: Position {
                filenum: after.filenum,
                offset: after.offset + len as u64,
                term: header.term,
                index: header.index,
                chain: header.chain,
            },
        })
    }
}

/// Whether `bytes` start with something that can only be a record with an index above `index`, whatever
/// precedes it: used to tell a torn tail from corruption in the middle.
pub(super) fn looks_like_record(bytes: &[u8], index: u64, horizon: u64) -> bool {
    let Ok(header) = Header::parse(bytes) else { return false };
    let end = RECORD_HEADER_LEN + header.len as usize;
    header.may_come_after(index, horizon)
        && bytes.len() >= end
        && crc32fast::hash(&bytes[RECORD_HEADER_LEN..end]) == header.body_crc
}

/// The first bytes of a record.
pub(super) struct Header {
    /// Bytes of the body.
    pub len: u32,
    pub body_crc: u32,
    pub term: u32,
    pub index: u64,
    time: u64,
    chain: u64,
}

impl Header {
    /// Whether it can be that of a record some way behind the one with `index`, `horizon` records at most.
    pub fn may_come_after(&self, index: u64, horizon: u64) -> bool {
        (1..=MAX_BODY_LEN).contains(&self.len) && self.index > index && self.index - index <= horizon
    }

    pub fn parse(bytes: &[u8]) -> Result<Header, Flaw> {
        let Some(h) = bytes.first_chunk::<RECORD_HEADER_LEN>() else { return Err(Flaw::Short(RECORD_HEADER_LEN)) };
        let u32_at = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Ok(Header {
            len: u32_at(0),
            body_crc: u32_at(4),
            term: u32_at(8),
            index: u64_at(12),
            time: u64_at(20),
            chain: u64_at(28),
        })
    }
}

/// Splits a body into who took part (none for a record of one slot) and its effects.
/// `None` when the bytes are not a body.
pub fn decode_body(body: &[u8]) -> Option<(Vec<Participant>, EffectsIter<'_>)> {
    let (&flags, rest) = body.split_first()?;
    match flags {
        0 => Some((Vec::new(), EffectsIter { rest })),
        FLAG_MULTI => {
            let (count, rest) = rest.split_first_chunk::<2>()?;
            let (list, rest) = rest.split_at_checked(u16::from_le_bytes(*count) as usize * PARTICIPANT_LEN)?;
            let participants = list.chunks_exact(PARTICIPANT_LEN).map(|p| {
                Some(Participant {
                    db: u16::from_le_bytes(p[0..2].try_into().ok()?),
                    slot: u16::from_le_bytes(p[2..4].try_into().ok()?),
                    index: u64::from_le_bytes(p[4..12].try_into().ok()?),
                })
            });
            Some((participants.collect::<Option<_>>()?, EffectsIter { rest }))
        }
        _ => None,
    }
}

/// The effects of a body, in order.
#[derive(Clone, Debug)]
pub struct EffectsIter<'a> {
    rest: &'a [u8],
}

impl<'a> EffectsIter<'a> {
    /// Puts the arguments of the next effect into `args`: `Some(true)` if there was one, `Some(false)` at the
    /// end, `None` when the bytes are malformed.
    pub fn next_into(&mut self, args: &mut Vec<&'a [u8]>) -> Option<bool> {
        args.clear();
        if self.rest.is_empty() {
            return Some(false);
        }
        let argc = take_varint(&mut self.rest)?;
        // Each argument takes a byte at least.
        if argc > self.rest.len() as u64 {
            return None;
        }
        for _ in 0..argc {
            let len = usize::try_from(take_varint(&mut self.rest)?).ok()?;
            let (arg, rest) = self.rest.split_at_checked(len)?;
            args.push(arg);
            self.rest = rest;
        }
        Some(argc > 0)
    }
}

/// Decodes a run of whole records that continues a log, as a master sends them. All is checked: chain, order, checksums.
#[derive(Debug)]
pub struct RunDecoder<'a> {
    rest: &'a [u8],
    position: Position,
}

impl<'a> RunDecoder<'a> {
    /// `after` is where the run starts: the end of the record before it, with the run's file number and
    /// start offset.
    pub fn new(run: &'a [u8], after: Position) -> RunDecoder<'a> {
        RunDecoder { rest: run, position: after }
    }
}

impl<'a> Iterator for RunDecoder<'a> {
    type Item = Result<Record<'a>, super::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match Record::parse(self.rest, &self.position, true) {
            Ok(record) => {
                self.rest = &self.rest[(record.end.offset - self.position.offset) as usize..];
                self.position = record.end;
                Some(Ok(record))
            }
            Err(flaw) => {
                self.rest = &[];
                Some(Err(super::Error::Discontinuous {
                    filenum: self.position.filenum,
                    offset: self.position.offset,
                    why: match flaw {
                        Flaw::Short(_) => "cut off in a record",
                        Flaw::Bad(why) => why,
                    },
                }))
            }
        }
    }
}

/// Adds a number as LEB128, as protobuf's varint.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes what [`put_varint`] put off the front; `None` when it is not whole.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(time: u64, effects: &[Vec<Vec<u8>>], participants: &[Participant]) -> Draft {
        let mut draft = Draft::new(time);
        draft.set_participants(participants);
        for effect in effects {
            let args: Vec<&[u8]> = effect.iter().map(Vec::as_slice).collect();
            put_effect(draft.effects(), &args);
        }
        draft
    }

    fn effects_strategy() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let args = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5);
        proptest::collection::vec(args, 1..4)
    }

    proptest! {
        #[test]
        fn round_trips(
            records in proptest::collection::vec((any::<u64>(), effects_strategy(), any::<bool>()), 1..8),
            term in 1u32..,
        ) {
            let participants =
                [Participant { db: 1, slot: 2, index: 3 }, Participant { db: 1, slot: 700, index: u64::MAX }];
            let mut run = Vec::new();
            let mut position = Position::START;
            for (time, effects, multi) in &records {
                draft(*time, effects, if *multi { &participants } else { &[] }).encode(term, &mut position, &mut run);
            }
            let decoded: Vec<_> = RunDecoder::new(&run, Position::START).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(decoded.len(), records.len());
            prop_assert_eq!(decoded.last().unwrap().end, position);
            for (record, (time, effects, multi)) in decoded.iter().zip(&records) {
                prop_assert_eq!(record.time, *time);
                let (who, mut iter) = decode_body(record.body).unwrap();
                prop_assert_eq!(who.as_slice(), if *multi { &participants[..] } else { &[] });
                let mut args = Vec::new();
                for effect in effects {
                    prop_assert_eq!(iter.next_into(&mut args), Some(true));
                    prop_assert_eq!(&args, &effect.iter().map(Vec::as_slice).collect::<Vec<_>>());
                }
                prop_assert_eq!(iter.next_into(&mut args), Some(false));
            }
        }

        #[test]
        fn a_flipped_bit_is_found(effects in effects_strategy(), byte in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut run = Vec::new();
            draft(1, &effects, &[]).encode(1, &mut { Position::START }, &mut run);
            let at = byte.index(run.len());
            run[at] ^= 1u8 << bit;
            prop_assert!(RunDecoder::new(&run, Position::START).any(|r| r.is_err()));
        }

        #[test]
        fn malformed_bodies_do_not_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some((_, mut effects)) = decode_body(&body) {
                let mut args = Vec::new();
                while effects.next_into(&mut args) == Some(true) {}
            }
        }
    }

    #[test]
    fn records_of_another_history_do_not_fit() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let (mut a, mut b) = (Position::START, Position::START);
        draft(1, &[vec![b"SET".into(), b"k".into(), b"1".into()]], &[]).encode(1, &mut a, &mut ours);
        draft(1, &[vec![b"SET".into(), b"k".into(), b"2".into()]], &[]).encode(1, &mut b, &mut theirs);
        assert_eq!((a.offset, a.term, a.index), (b.offset, b.term, b.index));
        assert_ne!(a.chain, b.chain);
        theirs.clear();
        draft(2, &[vec![b"DEL".into(), b"k".into()]], &[]).encode(1, &mut b, &mut theirs);
        assert!(RunDecoder::new(&theirs, a).next().unwrap().is_err());
    }
}
