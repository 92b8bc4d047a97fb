//! What the commands on hashes, sets and sorted sets, whose elements have names, share: the arguments of HSCAN and its like, counts of
//! random elements, collections that are gone through as a whole.

use bytes::Bytes;

use super::{CommandError, Ctx, glob, numbers, scan};
use crate::keyspace::Kind;
use crate::keyspace::types::{Handle, ordered};

/// Elements that a call of HSCAN or SSCAN looks at unless COUNT says otherwise.
const DEFAULT_COUNT: u64 = 10;
/// More random elements, with repeats, are not answered at once: their reply could not be held.
const MAX_DRAWN: u64 = 1 << 27;

/// The collection that a command goes through as a whole, for reading; counts a keyspace hit or miss.
pub fn read_whole(ctx: &mut Ctx<'_, '_>, key: &Bytes, kind: Kind) -> Result<Option<Handle>, CommandError> {
    read_costly(ctx, key, kind, Handle::len)
}

/// The collection of which a command goes through so many elements, for reading; counts a keyspace hit or miss.
pub fn read_costly(
    ctx: &mut Ctx<'_, '_>,
    key: &Bytes,
    kind: Kind,
    cost: impl FnOnce(&Handle) -> u64,
) -> Result<Option<Handle>, CommandError> {
    if !ctx.on_pool
        && let Some(handle) = ctx.peek_collection(key, kind)?
    {
        // Before the lookup is counted, since the command may begin anew.
        ctx.heavy(cost(&handle))?;
    }
    ctx.read_collection(key, kind)
}

/// The options of HSCAN and SSCAN.
pub struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    count: u64,
    /// Answer no values.
    pub novalues: bool,
}

impl<'a> ScanOptions<'a> {
    /// Reads the arguments after the cursor. NOVALUES means something where there are values.
    pub fn parse(args: &'a [Bytes], kind: Kind) -> Result<ScanOptions<'a>, CommandError> {
        let mut options = ScanOptions { pattern: None, count: DEFAULT_COUNT, novalues: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg.eq_ignore_ascii_case(b"novalues") {
                if kind != Kind::Hash {
                    return Err(CommandError::Static("ERR NOVALUES option can only be used in HSCAN"));
                }
                options.novalues = true;
                continue;
            }
            let value = args.next().ok_or(CommandError::Syntax)?;
            if arg.eq_ignore_ascii_case(b"match") {
                options.pattern = Some(&value[..]).filter(|pattern| !glob::matches_everything(pattern));
            } else if arg.eq_ignore_ascii_case(b"count") {
                options.count = u64::try_from(numbers::integer(value)?).unwrap_or(0);
                if options.count == 0 {
                    return Err(CommandError::Syntax);
                }
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether an element of this name is wanted.
    pub fn admits(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }
}

/// What an HSCAN or SSCAN of `args` names, and its cursor and options; if there is no such key, answers so.
pub fn open_scan<'a>(
    ctx: &mut Ctx<'_, '_>,
    args: &'a [Bytes],
    kind: Kind,
) -> Result<Option<(Handle, u64, ScanOptions<'a>)>, CommandError> {
    let cursor = scan::parse_cursor(&args[2])?;
    let Some(handle) = ctx.peek_collection(&args[1], kind)? else {
        // For the count of misses.
        ctx.read_collection(&args[1], kind)?;
        ctx.reply.array(2);
        ctx.reply.bulk(b"0");
        ctx.reply.array(0);
        return Ok(None);
    };
    let options = ScanOptions::parse(&args[3..], kind)?;
    ctx.heavy(options.count.min(handle.len()))?;
    ctx.read_collection(&args[1], kind)?;
    Ok(Some((handle, cursor, options)))
}

/// Calls `f` with name and value of the elements from `cursor` on that the options admit; the next cursor. All elements
/// if Redis would keep the collection in one piece, as `whole` says.
pub fn scan(
    ctx: &mut Ctx<'_, '_>,
    handle: &Handle,
    cursor: u64,
    options: &ScanOptions<'_>,
    whole: bool,
    f: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64, CommandError> {
    let (cursor, count) = if whole { (0, u64::MAX) } else { (cursor, options.count) };
    Ok(ordered::walk(&mut ctx.reader(&handle.key), handle, cursor, count, &mut |name, value| {
        if options.admits(name) {
            f(name, value);
        }
    })?)
}

/// How many random elements a command is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many different ones.
    Distinct(u64),
    /// So many, whether or not some of them are the same.
    Any(u64),
}

impl Count {
    /// Reads the count of SRANDMEMBER and HRANDFIELD: negative for elements that may be the same.
    pub fn parse(text: &[u8]) -> Result<Count, CommandError> {
        let count = numbers::integer(text)?;
        if count == i64::MIN {
            let limit = i64::MAX;
            return Err(CommandError::Text(format!(
                "ERR value is out of range, value must between -{limit} and {limit}"
            )));
        }
        match (count, count.unsigned_abs()) {
            (0.., count) => Ok(Count::Distinct(count)),
            (_, count) if count > MAX_DRAWN => Err(CommandError::Static("ERR value is out of range")),
            (_, count) => Ok(Count::Any(count)),
        }
    }

    /// Whether none are asked for.
    pub fn is_zero(self) -> bool {
        matches!(self, Count::Distinct(0) | Count::Any(0))
    }

    /// How many elements the choice goes through.
    pub fn cost(self, handle: &Handle) -> u64 {
        let (Count::Distinct(count) | Count::Any(count)) = self;
        ordered::cost(handle.len(), count)
    }

    /// Chooses among the `len` elements that are eligible.
    pub fn choose(
        self,
        ctx: &mut Ctx<'_, '_>,
        handle: &Handle,
        len: u64,
        eligible: ordered::Eligible<'_>,
    ) -> Result<Vec<ordered::Chosen>, CommandError> {
        let mut reader = ctx.reader(&handle.key);
        Ok(match self {
            Count::Distinct(count) => ordered::sample(&mut reader, handle, len, count, eligible),
            Count::Any(count) => ordered::draw(&mut reader, handle, len, count, eligible),
        }?)
    }
}
