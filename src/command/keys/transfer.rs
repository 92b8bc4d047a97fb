//! RENAME, RENAMENX, COPY and MOVE: values that go to another key.

use bytes::Bytes;

use super::values::copy_value;
use crate::command::{CommandError, Ctx, KeyRef, numbers};
use crate::keyspace::Entry;
use crate::pubsub::EventClass;

/// RENAME key newkey
pub fn rename(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, new) = (&args[1], &args[2]);
    let entry = ctx.peek(key)?.ok_or(CommandError::NoSuchKey)?;
    if key != new {
        give_name(ctx, key, &entry, new)?;
    }
    ctx.reply.ok();
    Ok(())
}

/// RENAMENX key newkey
pub fn renamenx(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (key, new) = (&args[1], &args[2]);
    let entry = ctx.peek(key)?.ok_or(CommandError::NoSuchKey)?;
    let free = ctx.peek(new)?.is_none();
    if free {
        give_name(ctx, key, &entry, new)?;
    }
    ctx.reply.int(i64::from(free));
    Ok(())
}

fn give_name(ctx: &mut Ctx<'_, '_>, key: &Bytes, entry: &Entry, new: &Bytes) -> Result<(), CommandError> {
    let db = ctx.db();
    copy_value(ctx, (db, key), entry, (db, new))?;
    ctx.tx.del(db, key, ctx.now)?;
    ctx.notify(EventClass::Generic, "rename_from", key);
    ctx.notify(EventClass::Generic, "rename_to", new);
    Ok(())
}

const DB_OUT_OF_RANGE: CommandError = CommandError::Static("ERR DB index is out of range");
const SAME: CommandError = CommandError::Static("ERR source and destination objects are the same");

/// The options of COPY.
#[derive(Default)]
struct CopyOptions {
    /// The database to copy to, if it is named.
    db: Option<usize>,
    replace: bool,
}

impl CopyOptions {
    fn parse(args: &[Bytes], databases: usize) -> Result<CopyOptions, CommandError> {
        let mut options = CopyOptions::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg.eq_ignore_ascii_case(b"replace") {
                options.replace = true;
            } else if arg.eq_ignore_ascii_case(b"db") {
                options.db = Some(database(args.next().ok_or(CommandError::Syntax)?, databases)?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// A database by its number, below `databases`.
fn database(arg: &[u8], databases: usize) -> Result<usize, CommandError> {
    let db = numbers::integer_32(arg)?;
    usize::try_from(db).ok().filter(|db| *db < databases).ok_or(DB_OUT_OF_RANGE)
}

/// The keys of COPY: the second lies in the database that the request names, if it names one. Of
/// a request that COPY will refuse nothing needs to be locked.
pub fn keys_of_copy(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    if let [_, source, destination, options @ ..] = args
        && let Ok(options) = CopyOptions::parse(options, usize::MAX)
    {
        found.push(KeyRef { db, key: source.clone() });
        found.push(KeyRef { db: options.db.unwrap_or(db), key: destination.clone() });
    }
}

/// COPY source destination [DB destination-db] [REPLACE]
pub fn copy(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (source, destination) = (&args[1], &args[2]);
    let options = CopyOptions::parse(&args[3..], ctx.server.keyspace.databases())?;
    let (db, target) = (ctx.db(), options.db.unwrap_or(ctx.db()));
    if target == db && source == destination {
        return Err(SAME);
    }
    let copied = match ctx.read(source)? {
        Some(entry) if options.replace || ctx.tx.get(target, destination, ctx.now)?.is_none() => {
            copy_value(ctx, (db, source), &entry, (target, destination))?;
            ctx.notify_in(target, EventClass::Generic, "copy_to", destination);
            true
        }
        _ => false,
    };
    ctx.reply.int(i64::from(copied));
    Ok(())
}

/// The key of MOVE, in both databases.
pub fn keys_of_move(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    if let [_, key, target] = args {
        found.push(KeyRef { db, key: key.clone() });
        if let Ok(target) = database(target, usize::MAX) {
            found.push(KeyRef { db: target, key: key.clone() });
        }
    }
}

/// MOVE key db
pub fn move_key(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (db, key) = (ctx.db(), &args[1]);
    let target = database(&args[2], ctx.server.keyspace.databases())?;
    if target == db {
        return Err(SAME);
    }
    let moved = match ctx.peek(key)? {
        Some(entry) if ctx.tx.get(target, key, ctx.now)?.is_none() => {
            copy_value(ctx, (db, key), &entry, (target, key))?;
            ctx.tx.del(db, key, ctx.now)?;
            ctx.notify_in(db, EventClass::Generic, "move_from", key);
            ctx.notify_in(target, EventClass::Generic, "move_to", key);
            true
        }
        _ => false,
    };
    ctx.reply.int(i64::from(moved));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_a_copy_to_another_database() {
        let find = |text: &str| {
            let args: Vec<Bytes> = text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            let mut found = Vec::new();
            keys_of_copy(3, &args, &mut found);
            found.iter().map(|key| (key.db, key.key.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(find("copy a b"), [(3, b"a".to_vec()), (3, b"b".to_vec())]);
        assert_eq!(find("copy a b replace db 5"), [(3, b"a".to_vec()), (5, b"b".to_vec())]);
        assert_eq!(find("copy a b db"), []);
        assert_eq!(find("copy a b db -1"), []);
    }
}
