//! LCS: the longest common subsequence of two strings.

use bytes::Bytes;

use crate::command::{CommandError, Ctx, numbers};

/// What to answer: the subsequence itself unless one of the two lists is asked for.
#[derive(Default)]
struct Options {
    /// LEN: only how long it is.
    length: bool,
    /// IDX: where its runs lie in both strings.
    ranges: bool,
    /// MINMATCHLEN: leave out shorter runs.
    shortest: i64,
    /// WITHMATCHLEN: add the length of each run.
    with_length: bool,
}

impl Options {
    fn parse(args: &[Bytes]) -> Result<Options, CommandError> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg.eq_ignore_ascii_case(b"len") {
                options.length = true;
            } else if arg.eq_ignore_ascii_case(b"idx") {
                options.ranges = true;
            } else if arg.eq_ignore_ascii_case(b"withmatchlen") {
                options.with_length = true;
            } else if arg.eq_ignore_ascii_case(b"minmatchlen") {
                options.shortest = numbers::integer(args.next().ok_or(CommandError::Syntax)?)?;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if options.length && options.ranges {
            return Err(CommandError::Static("ERR If you want both the length and indexes, please just use IDX."));
        }
        Ok(options)
    }
}

/// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]
pub fn lcs(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let not_strings = |error| match error {
        CommandError::WrongType => CommandError::Static("ERR The specified keys must contain string values"),
        other => other,
    };
    let a = ctx.read_string(&args[1]).map_err(not_strings)?.map_or_else(Bytes::new, |entry| entry.value);
    let b = ctx.read_string(&args[2]).map_err(not_strings)?.map_or_else(Bytes::new, |entry| entry.value);
    let options = Options::parse(&args[3..])?;
    let table = Table::build(&a, &b, ctx.server.config.proto_max_bulk_len())?;
    let reply = &mut *ctx.reply;
    if options.length {
        reply.int(i64::from(table.length()));
    } else if options.ranges {
        let mut runs = table.runs(&a, &b);
        runs.retain(|run| i64::from(run.length) >= options.shortest);
        reply.map(2);
        reply.bulk(b"matches");
        reply.array(runs.len());
        for run in &runs {
            reply.array(if options.with_length { 3 } else { 2 });
            for start in [run.a, run.b] {
                reply.array(2);
                reply.int(i64::from(start));
                reply.int(i64::from(start + run.length - 1));
            }
            if options.with_length {
                reply.int(i64::from(run.length));
            }
        }
        reply.bulk(b"len");
        reply.int(i64::from(table.length()));
    } else {
        let mut subsequence = Vec::with_capacity(table.length() as usize);
        for run in table.runs(&a, &b).iter().rev() {
            let start = run.a as usize;
            subsequence.extend_from_slice(&a[start..start + run.length as usize]);
        }
        reply.bulk(&subsequence);
    }
    Ok(())
}

/// A stretch that both strings share: where it starts in each, and its bytes.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    a: u32,
    b: u32,
    length: u32,
}

/// Row `i`, column `j`: how long the subsequence of the first `i` bytes of one string and the first `j` of the other is.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    /// Fills the table; its memory may not exceed `limit` bytes.
    fn build(a: &[u8], b: &[u8], limit: usize) -> Result<Table, CommandError> {
        let too_long = || CommandError::Static("ERR String too long for LCS");
        let (height, width) = (a.len() + 1, b.len() + 1);
        if height >= u32::MAX as usize || width >= u32::MAX as usize {
            return Err(too_long());
        }
        let size = height.checked_mul(width).ok_or_else(too_long)?;
        if size > limit / size_of::<u32>() {
            return Err(CommandError::Static(
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ));
        }
        let mut cells: Vec<u32> = Vec::new();
        cells
            .try_reserve_exact(size)
            .map_err(|_| CommandError::Static("ERR Insufficient memory, failed allocating transient memory for LCS"))?;
        cells.resize(width, 0);
        for byte in a {
            let above = cells.len() - width;
            cells.push(0);
            for (column, other) in b.iter().enumerate() {
                let cell = if byte == other {
                    cells[above + column] + 1
                } else {
                    cells[above + column + 1].max(cells[above + width + column])
                };
                cells.push(cell);
            }
        }
        Ok(Table { cells, width })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    fn length(&self) -> u32 {
        self.cells.last().copied().unwrap_or(0)
    }

    /// The runs that make up the subsequence, from the ends of the strings to their beginnings.
    fn runs(&self, a: &[u8], b: &[u8]) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut open: Option<Run> = None;
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                let length = open.take().map_or(0, |run| run.length) + 1;
                open = Some(Run { a: i as u32, b: j as u32, length });
            } else {
                runs.extend(open.take());
                // Of two ways of equal worth, Redis keeps its place in the first string.
                if self.at(i - 1, j) > self.at(i, j - 1) { i -= 1 } else { j -= 1 }
            }
        }
        runs.extend(open);
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(a: &[u8], b: &[u8]) -> Vec<(u32, u32, u32)> {
        let table = Table::build(a, b, 1 << 20).unwrap();
        let runs = table.runs(a, b);
        assert_eq!(runs.iter().map(|run| run.length).sum::<u32>(), table.length());
        runs.iter().map(|run| (run.a, run.b, run.length)).collect()
    }

    #[test]
    fn runs_from_the_end() {
        assert_eq!(runs(b"ohmytext", b"mynewtext"), [(4, 5, 4), (2, 0, 2)]);
        assert_eq!(runs(b"abc", b"abc"), [(0, 0, 3)]);
        assert_eq!(runs(b"abc", b"xyz"), []);
        assert_eq!(runs(b"", b"xyz"), []);
    }

    #[test]
    fn memory_is_bounded() {
        assert!(Table::build(&[b'a'; 99], &[b'b'; 99], 40_000).is_ok());
        assert!(Table::build(&[b'a'; 99], &[b'b'; 99], 39_999).is_err());
    }
}
