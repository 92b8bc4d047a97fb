//! LATENCY: events that took long, and how long the calls of each command took.

use bytes::Bytes;

use super::{Command, CommandError, Ctx, Flags, Group, Keys, Spec, error::lossy};
use crate::observe::latency::{Latest, Sample};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE);

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: ADMIN,
    keys: Keys::None,
    group: Group::Server,
    since: "2.8.13",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static LATENCY: &[Spec] = &[Spec {
    summary: "Commands about what took long.",
    ..Spec::container("latency", Group::Server, "2.8.13", "", SUBCOMMANDS)
}];

static SUBCOMMANDS: &[Spec] = &[
    Spec { name: "doctor", summary: "Explains what was seen, in words.", handler: doctor, ..BASE },
    Spec { name: "graph", arity: 3, summary: "Draws the samples of an event.", usage: "event", handler: graph, ..BASE },
    Spec {
        name: "histogram",
        arity: -2,
        since: "7.0.0",
        complexity: "O(N), N being the number of commands.",
        summary: "Returns, for each command that was called, how many calls took up to how many microseconds.",
        usage: "[command [command ...]]",
        handler: histogram,
        ..BASE
    },
    Spec {
        name: "history",
        arity: 3,
        summary: "Returns the samples of an event: Unix time and milliseconds.",
        usage: "event",
        handler: history,
        ..BASE
    },
    Spec {
        name: "latest",
        summary: "Returns each event with the time and milliseconds of its last sample, and its longest.",
        handler: latest,
        ..BASE
    },
    Spec {
        name: "reset",
        arity: -2,
        summary: "Forgets the samples of these events, or of all.",
        usage: "[event [event ...]]",
        handler: reset,
        ..BASE
    },
    Spec::help(Group::Server, "2.8.13"),
];

fn latest(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let events = ctx.server.latency.latest();
    ctx.reply.array(events.len());
    for Latest { event, last, max } in events {
        ctx.reply.array(4);
        ctx.reply.bulk(event.as_bytes());
        for number in [last.at, last.ms, max] {
            ctx.reply.int(number as i64);
        }
    }
    Ok(())
}

fn history(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let samples = ctx.server.latency.history(&lossy(&args[2], args[2].len()));
    ctx.reply.array(samples.len());
    for Sample { at, ms } in samples {
        ctx.reply.array(2);
        ctx.reply.int(at as i64);
        ctx.reply.int(ms as i64);
    }
    Ok(())
}

fn reset(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let named = args.get(2..).unwrap_or_default();
    let forgotten =
        ctx.server.latency.reset(|event| named.is_empty() || named.iter().any(|name| name == event.as_bytes()));
    ctx.reply.int(forgotten as i64);
    Ok(())
}

fn histogram(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let table = &ctx.server.commands;
    let names = args.get(2..).unwrap_or_default();
    let asked: Vec<&Command> = if names.is_empty() {
        table.all().collect()
    } else {
        // Those of a container are its subcommands'.
        let found = names.iter().filter_map(|name| table.by_full_name(name));
        found.flat_map(|command| std::iter::once(command).chain(table.subcommands(command))).collect()
    };
    let called: Vec<_> = asked
        .into_iter()
        .filter_map(|command| Some((&command.full_name, command.stats.times.distribution()?)))
        .collect();
    ctx.reply.map(called.len());
    for (name, distribution) in called {
        let pairs = distribution.cumulative();
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.map(2);
        ctx.reply.bulk(b"calls");
        ctx.reply.int(distribution.calls as i64);
        ctx.reply.bulk(b"histogram_usec");
        ctx.reply.map(pairs.len());
        for (micros, calls) in pairs {
            ctx.reply.int(micros as i64);
            ctx.reply.int(calls as i64);
        }
    }
    Ok(())
}

fn graph(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let event = lossy(&args[2], 128);
    let samples = ctx.server.latency.history(&event);
    let max = ctx.server.latency.max(&event).unwrap_or_default();
    if samples.is_empty() {
        return Err(CommandError::Text(format!("ERR No samples available for event '{event}'")));
    }
    let text = draw(&event, max, &samples, ctx.now / 1000);
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// Columns of a drawing.
const COLUMNS: usize = 80;
/// Lines of a drawing.
const LINES: u64 = 8;

/// A column for each of the newest samples, as high as the sample is long, and under it, downwards, how long ago it was.
fn draw(event: &str, max: u64, samples: &[Sample], now: u64) -> String {
    let samples = samples.get(samples.len().saturating_sub(COLUMNS)..).unwrap_or(samples);
    let high = samples.iter().map(|sample| sample.ms).max().unwrap_or_default().max(1);
    let low = samples.iter().map(|sample| sample.ms).min().unwrap_or_default();
    let mut text = format!("{event} - high {high} ms, low {low} ms (all time high {max} ms)\n");
    text.push_str(&"-".repeat(COLUMNS));
    text.push('\n');
    for line in (1..=LINES).rev() {
        text.extend(samples.iter().map(|sample| if sample.ms * LINES >= line * high { '#' } else { ' ' }));
        text.push('\n');
    }
    let ages: Vec<String> = samples.iter().map(|sample| age(now.saturating_sub(sample.at))).collect();
    for line in 0..ages.iter().map(String::len).max().unwrap_or_default() {
        text.push('\n');
        text.extend(ages.iter().map(|age| age.chars().nth(line).unwrap_or(' ')));
    }
    text.push('\n');
    text
}

/// `7s`, `12m`, `3h`, `2d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn doctor(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let threshold = ctx.server.config.latency_monitor_threshold();
    let events = ctx.server.latency.latest();
    let mut text = String::new();
    if threshold.is_zero() {
        text.push_str(
            "Latencies are not watched: latency-monitor-threshold is 0. Set it to the milliseconds from which \
             something took too long for your users, for instance CONFIG SET latency-monitor-threshold 100.\n",
        );
    } else if events.is_empty() {
        text.push_str(&format!("Nothing took {} ms or longer since the last LATENCY RESET.\n", threshold.as_millis()));
    }
    for latest in &events {
        text.push_str(&diagnosis(latest, &ctx.server.latency.history(latest.event)));
    }
    if events.iter().any(|latest| latest.event.ends_with("command")) {
        text.push_str(
            "\nSLOWLOG GET names slow commands if slowlog-log-slower-than is below their time, LATENCY HISTOGRAM shows \
             the times of each command. When simple commands are slow, look at the disks: INFO persistence tells whether \
             a slot is held up, and writes wait for them with sync : always.\n",
        );
    }
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// One line about an event.
fn diagnosis(latest: &Latest, samples: &[Sample]) -> String {
    let count = samples.len().max(1) as u64;
    let mean = samples.iter().map(|sample| sample.ms).sum::<u64>() / count;
    let span = samples.last().zip(samples.first()).map_or(0, |(last, first)| last.at - first.at);
    format!(
        "{}: {} seconds of the last {} had one that was too long, {mean} ms on average, {} ms at worst.\n",
        latest.event,
        samples.len(),
        span + 1,
        latest.max
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_a_column_a_sample() {
        let samples = [Sample { at: 100, ms: 10 }, Sample { at: 190, ms: 80 }];
        let text = draw("command", 90, &samples, 200);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "command - high 80 ms, low 10 ms (all time high 90 ms)");
        assert_eq!((lines[2], lines[9]), (" #", "##"));
        assert_eq!(&lines[11..], ["11", "m0", " s"]);
    }
}
