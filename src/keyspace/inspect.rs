//! What offline tools need of a slot's data: the collections of an engine that no server runs on, and whether they keep their invariants.

use bytes::Bytes;

use super::effect::Read;
use super::types::{Handle, verify};
use super::{ElementRange, Entry, Error, Space};
use crate::engine::{Applied, EXPIRY_GRACE_MS, Engine};

pub use super::recovery::{Multi, SlotKey, UNKNOWN_END, torn_writes};
pub(crate) use super::replay::effects_of;

/// What is in an engine's files, as types read it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'e>(pub &'e Engine);

impl super::types::verify::Lookup for Reader<'_> {
    fn lookup(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.element(space, key)?)
    }
}

impl Read for Reader<'_> {
    fn get(&mut self, key: &Bytes) -> Result<Option<Entry>, Error> {
        Ok(self.0.get(key)?)
    }

    fn element(&mut self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.0.element(space, key)?)
    }

    fn elements(
        &mut self,
        space: Space,
        range: &ElementRange<'_>,
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        Ok(self.0.elements(space, range, None, f)?)
    }
}

/// Whether compaction may have dropped the elements of an entry, or may drop them at any time.
pub fn may_be_pruned(entry: &Entry, applied: &Applied) -> bool {
    entry.expire_at.is_some_and(|at| at <= applied.time.saturating_sub(EXPIRY_GRACE_MS))
}

/// Verifies what docs/encodings.md says of the collection at `key`: that its elements decode, are as many as the entry says, and agree
/// with each other. Calls `flaw` with each thing that is wrong. Where elements may have been pruned, only what is there is verified.
/// Returns how many elements it has.
pub fn verify_collection(
    engine: &Engine,
    key: &Bytes,
    entry: &Entry,
    pruned: bool,
    flaw: &mut dyn FnMut(String),
) -> Result<u64, Error> {
    let Some(handle) = Handle::of(key, entry) else {
        flaw("its entry is too short for a collection".into());
        return Ok(0);
    };
    verify::verify(Reader(engine), &handle, pruned, flaw)
}
