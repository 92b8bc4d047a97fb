//! Applying records that are not this node's own: those of a master, and those of the own log at recovery.

use bytes::Bytes;

use super::effect::Effect;
use super::flush::wait_for_flusher;
use super::overlay::Overlay;
use super::slot::NOBODY;
use super::{Error, Keyspace, Slot};
use crate::binlog::{self, FILE_HEADER_LEN, Position, RunDecoder, decode_body};

/// Records of a master that are committed as one group at most: bounds how long their keys are locked.
const GROUP_RECORDS: usize = 256;
/// Bytes, likewise.
const GROUP_BYTES: usize = 1 << 20;

/// The effects of a record's body. Some stand alone.
pub(crate) fn effects_of(body: &Bytes) -> Result<Vec<Effect>, Error> {
    let malformed = || Error::BadEffect("malformed record body".into());
    let (_, mut iter) = decode_body(body).ok_or_else(malformed)?;
    let (mut args, mut effects) = (Vec::new(), Vec::new());
    while iter.next_into(&mut args).ok_or_else(malformed)? {
        effects.push(Effect::decode(body, &args)?);
    }
    if effects.len() > 1 && effects.iter().any(Effect::stands_alone) {
        return Err(Error::BadEffect("FLUSHDB or SWAPDB is not alone in its record".into()));
    }
    Ok(effects)
}

/// Records of a run that are committed together.
struct Group {
    effects: Vec<(u64, Effect)>,
    start: usize,
    end: usize,
    position: Position,
    time: u64,
}

impl Group {
    /// The effect of a record that is carried out by the slot itself.
    fn alone(&self) -> Option<&Effect> {
        self.effects.first().map(|(_, effect)| effect).filter(|effect| effect.stands_alone())
    }
}

impl Keyspace {
    /// Applies a run of whole records from a master that ends at `end`, exactly as it stands in the master's log. All of it is checked
    /// before anything is applied: it must continue the slot's log, and end where the master says.
    pub fn apply_run(&self, slot: &Slot, run: &Bytes, end: Position) -> Result<(), Error> {
        let applied = self.apply_groups(slot, run, end);
        // Also where a later group failed: the ones before it are there.
        self.env.settled();
        applied
    }

    fn apply_groups(&self, slot: &Slot, run: &Bytes, end: Position) -> Result<(), Error> {
        for group in split(run, start_of(slot.position(), run, end)?, end)? {
            let bytes = &run[group.start..group.end];
            match group.alone() {
                Some(Effect::SwapDb { a, b }) => {
                    let _all = self.locks.lock_all();
                    slot.swap_databases(*a, *b, group.time, Some((bytes, group.position)))?;
                    continue;
                }
                Some(_) => {
                    slot.flush_data_run(bytes, group.position, group.time, || self.locks.lock_all())?;
                    continue;
                }
                None => {}
            }
            wait_for_flusher(std::iter::once(slot));
            let keys = group.effects.iter().filter_map(|(_, effect)| effect.key());
            let mut stripes: Vec<usize> = keys.map(|key| self.locks.stripe(key)).collect();
            stripes.sort_unstable();
            stripes.dedup();
            let _held: Vec<_> = stripes.into_iter().map(|s| self.locks.lock(s, true)).collect();
            let mut overlay = Overlay::locked(slot);
            for (order, (time, effect)) in group.effects.iter().enumerate() {
                overlay.set_order(order as u64, NOBODY);
                effect.apply(&mut overlay, *time)?;
            }
            let committed = slot.commit_run(bytes, group.position, overlay.batch(), group.time);
            match &committed {
                Ok(()) => Overlay::committed(std::iter::once(&overlay)),
                Err(_) => overlay.uncertain(),
            }
            committed?;
        }
        Ok(())
    }
}

/// The position before a run, as a run starts in a file: the log's end, or the start of the next file.
fn start_of(tail: Position, run: &[u8], end: Position) -> Result<Position, Error> {
    let offset = end.offset.checked_sub(run.len() as u64);
    if end.filenum == tail.filenum && offset == Some(tail.offset) {
        Ok(tail)
    } else if tail.filenum.checked_add(1) == Some(end.filenum) && offset == Some(FILE_HEADER_LEN) {
        Ok(Position { filenum: end.filenum, offset: FILE_HEADER_LEN, ..tail })
    } else {
        let why = "the run starts elsewhere";
        Err(binlog::Error::Discontinuous { filenum: tail.filenum, offset: tail.offset, why }.into())
    }
}

/// Decodes a run into groups.
fn split(run: &Bytes, start: Position, end: Position) -> Result<Vec<Group>, Error> {
    let mut groups: Vec<Group> = Vec::new();
    let mut at = start;
    for record in RunDecoder::new(run, start) {
        let record = record?;
        let effects = effects_of(&run.slice_ref(record.body))?;
        let is_alone = effects.iter().any(Effect::stands_alone);
        let from = (at.offset - start.offset) as usize;
        let to = (record.end.offset - start.offset) as usize;
        at = record.end;
        let full =
            |g: &Group| g.alone().is_some() || g.effects.len() >= GROUP_RECORDS || g.end - g.start >= GROUP_BYTES;
        if is_alone || groups.last().is_none_or(full) {
            groups.push(Group { effects: Vec::new(), start: from, end: from, position: at, time: 0 });
        }
        if let Some(group) = groups.last_mut() {
            group.effects.extend(effects.into_iter().map(|e| (record.time, e)));
            (group.end, group.position, group.time) = (to, at, group.time.max(record.time));
        }
    }
    if at != end {
        let why = "the run does not end where the master says";
        return Err(binlog::Error::Discontinuous { filenum: end.filenum, offset: end.offset, why }.into());
    }
    Ok(groups)
}
