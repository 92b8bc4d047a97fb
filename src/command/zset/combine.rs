//! Unions, intersections and differences of sorted sets and sets. A member of a set counts as one with the score 1.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::{Rows, numkeys, store};
use crate::command::{CommandError, Ctx, float, numbers};
use crate::keyspace::Kind;
use crate::keyspace::types::{Handle, set, zset};

/// Elements that an iteration goes through in the time of one lookup.
const STEPS_A_LOOKUP: u64 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How the scores that a member has in several inputs become one.
#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// Infinities that cancel each other out are 0. What is no number is neither less nor greater than anything.
    fn join(self, score: f64, other: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(score + other),
            Aggregate::Min if other < score => other,
            Aggregate::Max if other > score => other,
            Aggregate::Min | Aggregate::Max => score,
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One of the keys that are combined.
struct Input {
    /// `None` when nothing is there.
    handle: Option<Handle>,
    weight: f64,
}

impl Input {
    fn len(&self) -> u64 {
        self.handle.as_ref().map_or(0, Handle::len)
    }

    /// Calls `f` with the members and their scores, not weighted.
    fn each(&self, ctx: &mut Ctx<'_, '_>, f: &mut dyn FnMut(&[u8], f64)) -> Result<(), CommandError> {
        let Some(handle) = &self.handle else { return Ok(()) };
        let mut reader = ctx.reader(&handle.key);
        match handle.kind {
            Kind::Zset => zset::each(&mut reader, handle, &mut |member, score| {
                f(member, score);
                true
            })?,
            _ => set::each(&mut reader, handle, &mut |member| {
                f(member, 1.0);
                true
            })?,
        }
        Ok(())
    }

    /// The score of a member, not weighted.
    fn score(&self, ctx: &mut Ctx<'_, '_>, member: &[u8]) -> Result<Option<f64>, CommandError> {
        let Some(handle) = &self.handle else { return Ok(None) };
        let mut reader = ctx.reader(&handle.key);
        Ok(match handle.kind {
            Kind::Zset => zset::score(&mut reader, handle, member)?,
            _ => set::contains(&mut reader, handle, member)?.then_some(1.0),
        })
    }
}

type Scored = HashMap<Bytes, f64, RandomState>;

/// A combination that was asked for.
struct Request {
    operation: Operation,
    inputs: Vec<Input>,
    aggregate: Aggregate,
    with_scores: bool,
    /// Of ZINTERCARD: members that are counted at most.
    limit: Option<u64>,
}

/// What a command takes beside keys.
#[derive(Clone, Copy)]
struct Form {
    /// Name of the command, for errors.
    name: &'static str,
    operation: Operation,
    stores: bool,
    counts: bool,
}

impl Request {
    /// Looks the keys up and reads the arguments from the number of keys on.
    fn parse(ctx: &mut Ctx<'_, '_>, args: &[Bytes], form: Form) -> Result<Request, CommandError> {
        let numbers = args.first().map_or(Err(CommandError::Syntax), |arg| numbers::integer(arg))?;
        if numbers < 1 {
            let name = form.name;
            return Err(CommandError::Text(format!("ERR at least 1 input key is needed for '{name}' command")));
        }
        let keys = numkeys(args, 0).ok_or(CommandError::Syntax)?;
        let mut request = Request {
            operation: form.operation,
            inputs: keys.iter().map(|key| Input::look_up(ctx, key)).collect::<Result<_, _>>()?,
            aggregate: Aggregate::Sum,
            with_scores: false,
            limit: None,
        };
        let weighs = form.operation != Operation::Difference && !form.counts;
        let mut rest = &args[1 + keys.len()..];
        while let [option, values @ ..] = rest {
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            rest = match values {
                _ if is(b"weights") && weighs && values.len() >= keys.len() => {
                    let (weights, rest) = values.split_at(keys.len());
                    for (input, weight) in request.inputs.iter_mut().zip(weights) {
                        const NOT_FLOAT: CommandError = CommandError::Static("ERR weight value is not a float");
                        input.weight = float::parse_f64(weight).ok_or(NOT_FLOAT)?;
                    }
                    rest
                }
                [aggregate, rest @ ..] if is(b"aggregate") && weighs => {
                    request.aggregate = match aggregate.to_ascii_lowercase().as_slice() {
                        b"sum" => Aggregate::Sum,
                        b"min" => Aggregate::Min,
                        b"max" => Aggregate::Max,
                        _ => return Err(CommandError::Syntax),
                    };
                    rest
                }
                rest if is(b"withscores") && !form.stores && !form.counts => {
                    request.with_scores = true;
                    rest
                }
                [limit, rest @ ..] if is(b"limit") && form.counts => {
                    const NEGATIVE: CommandError = CommandError::Static("ERR LIMIT can't be negative");
                    let limit = numbers::parse_i64(limit).and_then(|limit| u64::try_from(limit).ok());
                    request.limit = Some(limit.ok_or(NEGATIVE)?).filter(|limit| *limit > 0);
                    rest
                }
                _ => return Err(CommandError::Syntax),
            };
        }
        Ok(request)
    }

    /// Carries it out. Nothing is changed before, so it may suspend the command.
    fn result(mut self, ctx: &mut Ctx<'_, '_>) -> Result<Scored, CommandError> {
        match self.operation {
            Operation::Union => {
                ctx.heavy(self.inputs.iter().map(Input::len).sum())?;
                self.union(ctx)
            }
            Operation::Intersection => {
                // The smallest first; sums of more than two scores depend on the order.
                self.inputs.sort_by_key(Input::len);
                ctx.heavy(self.inputs.first().map_or(0, Input::len).saturating_mul(self.inputs.len() as u64))?;
                self.intersection(ctx)
            }
            Operation::Difference => {
                ctx.heavy(self.inputs.first().map_or(0, Input::len).saturating_mul(self.inputs.len() as u64))?;
                self.difference(ctx)
            }
        }
    }

    fn union(mut self, ctx: &mut Ctx<'_, '_>) -> Result<Scored, CommandError> {
        self.inputs.sort_by_key(Input::len);
        let mut found = Scored::default();
        for input in &self.inputs {
            input.each(ctx, &mut |member, score| {
                let score = number_or_zero(input.weight * score);
                match found.get_mut(member) {
                    Some(known) => *known = self.aggregate.join(*known, score),
                    None => {
                        found.insert(Bytes::copy_from_slice(member), score);
                    }
                }
            })?;
        }
        Ok(found)
    }

    /// The members of the first input, and how to go on with the others: goes through those that are small beside what is left, and
    /// looks members up in those that are large.
    fn first(&self, ctx: &mut Ctx<'_, '_>) -> Result<Scored, CommandError> {
        let mut found = Scored::default();
        if let Some(input) = self.inputs.first() {
            input.each(ctx, &mut |member, score| {
                let score = number_or_zero(input.weight * score);
                found.insert(Bytes::copy_from_slice(member), score);
            })?;
        }
        Ok(found)
    }

    fn intersection(self, ctx: &mut Ctx<'_, '_>) -> Result<Scored, CommandError> {
        if self.inputs.iter().any(|input| input.len() == 0) {
            return Ok(Scored::default());
        }
        let mut found = self.first(ctx)?;
        for input in self.inputs.iter().skip(1) {
            let join = |known: f64, score: f64| self.aggregate.join(known, input.weight * score);
            let mut both = Scored::default();
            if is_small_beside(input, &found) {
                input.each(ctx, &mut |member, score| {
                    if let Some((member, known)) = found.remove_entry(member) {
                        both.insert(member, join(known, score));
                    }
                })?;
            } else {
                for (member, known) in found {
                    if let Some(score) = input.score(ctx, &member)? {
                        both.insert(member, join(known, score));
                    }
                }
            }
            found = both;
        }
        Ok(found)
    }

    fn difference(self, ctx: &mut Ctx<'_, '_>) -> Result<Scored, CommandError> {
        let mut found = self.first(ctx)?;
        for input in self.inputs.iter().skip(1) {
            if is_small_beside(input, &found) {
                input.each(ctx, &mut |member, _| {
                    found.remove(member);
                })?;
                continue;
            }
            let mut left = Scored::default();
            for (member, score) in found {
                if input.score(ctx, &member)?.is_none() {
                    left.insert(member, score);
                }
            }
            found = left;
        }
        Ok(found)
    }
}

impl Input {
    fn look_up(ctx: &mut Ctx<'_, '_>, key: &Bytes) -> Result<Input, CommandError> {
        let handle = match ctx.read(key)? {
            Some(entry) if matches!(entry.kind, Kind::Zset | Kind::Set) => Handle::of(key, &entry),
            Some(_) => return Err(CommandError::WrongType),
            None => None,
        };
        Ok(Input { handle, weight: 1.0 })
    }
}

/// Whether going through an input costs less than looking up all that was found.
fn is_small_beside(input: &Input, found: &Scored) -> bool {
    input.len() <= (found.len() as u64).saturating_mul(STEPS_A_LOOKUP)
}

fn in_order(found: Scored) -> Vec<(Bytes, f64)> {
    let mut members: Vec<(Bytes, f64)> = found.into_iter().collect();
    members.sort_unstable_by(|(a, left), (b, right)| {
        zset::sortable(*left).cmp(&zset::sortable(*right)).then_with(|| a.cmp(b))
    });
    members
}

fn answer(ctx: &mut Ctx<'_, '_>, args: &[Bytes], name: &'static str, operation: Operation) -> Result<(), CommandError> {
    let request = Request::parse(ctx, &args[1..], Form { name, operation, stores: false, counts: false })?;
    let mut rows = Rows::new(ctx, request.with_scores);
    for (member, score) in in_order(request.result(ctx)?) {
        rows.push(&member, score);
    }
    rows.reply(ctx);
    Ok(())
}

fn save(ctx: &mut Ctx<'_, '_>, args: &[Bytes], name: &'static str, operation: Operation) -> Result<(), CommandError> {
    let request = Request::parse(ctx, &args[2..], Form { name, operation, stores: true, counts: false })?;
    let members = in_order(request.result(ctx)?);
    store(ctx, &args[1], members, name)
}

/// ZUNION numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]
pub fn zunion(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, "zunion", Operation::Union)
}

/// ZINTER numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]
pub fn zinter(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, "zinter", Operation::Intersection)
}

/// ZDIFF numkeys key [key ...] [WITHSCORES]
pub fn zdiff(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    answer(ctx, args, "zdiff", Operation::Difference)
}

/// ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX]
pub fn zunionstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    save(ctx, args, "zunionstore", Operation::Union)
}

/// ZINTERSTORE destination numkeys key [key ...] [WEIGHTS weight ...] [AGGREGATE SUM | MIN | MAX]
pub fn zinterstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    save(ctx, args, "zinterstore", Operation::Intersection)
}

/// ZDIFFSTORE destination numkeys key [key ...]
pub fn zdiffstore(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    save(ctx, args, "zdiffstore", Operation::Difference)
}

/// ZINTERCARD numkeys key [key ...] [LIMIT limit]
pub fn zintercard(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let form = Form { name: "zintercard", operation: Operation::Intersection, stores: false, counts: true };
    let request = Request::parse(ctx, &args[1..], form)?;
    let limit = request.limit.unwrap_or(u64::MAX);
    let count = request.result(ctx)?.len() as u64;
    ctx.reply.int(count.min(limit) as i64);
    Ok(())
}
