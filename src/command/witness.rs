//! Who else is told of commands: MONITOR, the slow log, clients that track what they have read.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use super::{After, Command, CommandError, Flags, Group, Suspend, Within, rules::runs_scripts};
use crate::{
    net::Client,
    pubsub::{Monitors, TrackedBy},
    server::Server,
};

pub(super) fn is_slow(server: &Server, passed: Duration) -> bool {
    u64::try_from(server.config.slowlog_log_slower_than()).is_ok_and(|threshold| passed.as_micros() as u64 >= threshold)
}

/// Enters a command into the slow log; `now` in unix ms.
pub(super) fn log_slow(
    server: &Server,
    client: &Client,
    now: u64,
    command: &Command,
    args: &[Bytes],
    passed: Duration,
) {
    if !command.spec.flags.has(Flags::SKIP_SLOWLOG) {
        server.slowlog.record(server.config.slowlog_max_len(), now / 1000, passed, args, client.info());
    }
}

/// By whom a command is run, as MONITOR shows it.
#[derive(Clone, Copy)]
pub(super) enum Monitored {
    Client(SocketAddr),
    Script,
}

pub(super) fn monitor(after: &mut Vec<After>, command: &Command, db: usize, by: Monitored, args: &[Bytes]) {
    // What operators do is too dangerous to be shown.
    if command.spec.flags.has(Flags::ADMIN) {
        return;
    }
    after.push(After::Monitor(match by {
        Monitored::Client(addr) => Monitors::line(db, &addr, args),
        Monitored::Script => Monitors::line(db, &"lua", args),
    }));
}

/// Whether a command has run to its end, or to the point where it waits.
pub(super) fn is_first_end(result: &Result<(), CommandError>) -> bool {
    match result {
        Err(CommandError::Suspend(suspend)) => matches!(**suspend, Suspend::Until(_)),
        _ => true,
    }
}

/// Remembers what a command is about to read, or write, for a client that tracks it. Its keys are locked.
pub(super) fn remember(client: &mut Client, command: &Command, args: &[Bytes], within: Within) {
    let spec = command.spec;
    let reads = spec.flags.has(Flags::READONLY) && spec.group != Group::Transactions && !runs_scripts(spec);
    if !client.tracked.is_on() || client.tracked.options.broadcast || !(reads || spec.flags.has(Flags::WRITE)) {
        return;
    }
    let by = if within == Within::Script { TrackedBy::Script } else { TrackedBy::Itself };
    let mut keys = Vec::new();
    spec.keys.collect(client.db(), args, &mut keys);
    let keys = keys.iter().map(|key| &key.key);
    if reads { client.tracked.read(by, keys) } else { client.tracked.writes(keys) }
}

/// What a script reads counts as reads of the keys that it declares.
pub(super) fn remember_script(client: &mut Client, command: &Command, args: &[Bytes]) {
    if client.tracked.is_on() && client.tracked.take_script_read() {
        let mut keys = Vec::new();
        command.spec.keys.collect(client.db(), args, &mut keys);
        client.tracked.read(TrackedBy::Itself, keys.iter().map(|key| &key.key));
    }
}
