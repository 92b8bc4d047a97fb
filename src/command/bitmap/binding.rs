//! How bit commands reach the strings of the keyspace.

use bytes::Bytes;

use super::bits::BitString;
use crate::command::{CommandError, Ctx};

/// A string held as a whole; by default the empty one, which a missing key counts as.
#[derive(Default)]
pub struct Whole(Bytes);

impl BitString for Whole {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), CommandError> {
        let stored = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let (data, beyond) = buf.split_at_mut(stored.len().min(buf.len()));
        data.copy_from_slice(&stored[..data.len()]);
        beyond.fill(0);
        Ok(())
    }

    fn next_data(&mut self, from: u64) -> Result<Option<u64>, CommandError> {
        Ok((from < self.len()).then_some(from))
    }
}

/// The string at `key`, for a command that reads.
pub fn read(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<Option<Whole>, CommandError> {
    Ok(ctx.read_string(key)?.map(|entry| Whole(entry.value)))
}

/// The string at `key`, for a command that goes on to change it.
pub fn peek(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<Option<Whole>, CommandError> {
    Ok(ctx.peek_string(key)?.map(|entry| Whole(entry.value)))
}

/// Changes some bytes of the string at `key`, which is made or lengthened as needed and keeps its expiry.
pub fn patch(ctx: &mut Ctx<'_, '_>, key: &Bytes, offset: u64, bytes: Vec<u8>) -> Result<(), CommandError> {
    let db = ctx.db();
    Ok(ctx.tx.set_range(db, key, offset, &bytes.into(), ctx.now)?)
}

/// Makes `value` the string at `key`, whatever was there.
pub fn replace(ctx: &mut Ctx<'_, '_>, key: &Bytes, value: Vec<u8>) -> Result<(), CommandError> {
    let db = ctx.db();
    Ok(ctx.tx.set(db, key, value.into(), None, ctx.now)?)
}
