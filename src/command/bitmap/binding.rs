//! How bit commands reach the strings of the keyspace.

use std::cell::RefCell;

use bytes::Bytes;

use super::bits::BitString;
use crate::command::{CommandError, Ctx};
use crate::keyspace::types::blob::{Blob, CHUNK, WHOLE_MAX};
use crate::keyspace::{Effect, Transaction};

/// A string of the keyspace, read in parts. Several of them share the transaction.
pub struct Stored<'s, 't, 'k> {
    tx: &'s RefCell<&'t mut Transaction<'k>>,
    db: usize,
    key: &'s Bytes,
    blob: Blob,
}

impl BitString for Stored<'_, '_, '_> {
    fn len(&self) -> u64 {
        self.blob.len()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), CommandError> {
        let mut tx = self.tx.borrow_mut();
        let end = offset.saturating_add(buf.len() as u64);
        let stored = self.blob.range(&mut tx.reader(self.db, self.key), offset, end)?;
        let (data, beyond) = buf.split_at_mut(stored.len());
        data.copy_from_slice(&stored);
        beyond.fill(0);
        Ok(())
    }

    fn next_data(&mut self, from: u64) -> Result<Option<u64>, CommandError> {
        let mut tx = self.tx.borrow_mut();
        Ok(self.blob.next_data(&mut tx.reader(self.db, self.key), from)?)
    }
}

/// A string that a command reads or changes in parts; a missing key counts as the empty one.
pub fn missing() -> Blob {
    Blob::Whole(Bytes::new())
}

/// Lets `work` read strings that were looked up.
pub fn with<'k, T>(
    ctx: &mut Ctx<'_, 'k>,
    strings: Vec<(&Bytes, Blob)>,
    work: impl FnOnce(&mut [Stored<'_, '_, 'k>]) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let db = ctx.db();
    ctx.heavy(strings.iter().map(|(_, blob)| blob.len()).max().unwrap_or(0) / CHUNK)?;
    let tx = RefCell::new(&mut *ctx.tx);
    let mut stored: Vec<_> = strings.into_iter().map(|(key, blob)| Stored { tx: &tx, db, key, blob }).collect();
    work(&mut stored)
}

/// [`with`] one string.
pub fn with_one<'k, T>(
    ctx: &mut Ctx<'_, 'k>,
    key: &Bytes,
    blob: Blob,
    work: impl FnOnce(Stored<'_, '_, 'k>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let db = ctx.db();
    let tx = RefCell::new(&mut *ctx.tx);
    work(Stored { tx: &tx, db, key, blob })
}

/// Changes some bytes of the string at `key`, which is made or lengthened as needed and keeps its expiry.
pub fn patch(ctx: &mut Ctx<'_, '_>, key: &Bytes, offset: u64, bytes: Vec<u8>) -> Result<(), CommandError> {
    let db = ctx.db();
    Ok(ctx.tx.set_range(db, key, offset, &bytes.into(), ctx.now)?)
}

/// Makes the string at `key`, whatever was there, one of `len` bytes (at least one) that is zero but for `parts`, which are in order.
pub fn replace(ctx: &mut Ctx<'_, '_>, key: &Bytes, len: u64, parts: Vec<(u64, Vec<u8>)>) -> Result<(), CommandError> {
    let (db, now) = (ctx.db(), ctx.now);
    if len <= WHOLE_MAX {
        let mut value = vec![0; len as usize];
        for (offset, part) in parts {
            let at = offset as usize;
            if let Some(place) = value.get_mut(at..at + part.len()) {
                place.copy_from_slice(&part);
            }
        }
        return Ok(ctx.tx.set(db, key, value.into(), None, now)?);
    }
    ctx.apply(Effect::Del { key: key.clone() })?;
    // The last byte first: so the string has its length, and stands in chunks.
    patch(ctx, key, len - 1, vec![0])?;
    for (offset, part) in parts {
        for (nth, piece) in part.chunks(CHUNK as usize).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                patch(ctx, key, offset + nth as u64 * CHUNK, piece.to_vec())?;
            }
        }
    }
    Ok(())
}
