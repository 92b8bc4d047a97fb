//! What requests are, and which of them may be executed for whom, at what time.

use bytes::Bytes;

use super::{Command, CommandError, Flags, Group, KeyRef, Spec, admission, debug, error::lossy, scripting};
use crate::{net::Client, server::Server};

/// Bytes of a command name or argument shown in an error.
const SHOWN: usize = 128;

/// What a client is told that would write on a replica.
pub(super) const READONLY: &str = "READONLY You can't write against a read only replica.";

/// Whether a command may do what no transaction takes back: such a one must not be repeated.
pub(super) fn acts_at_once(spec: &Spec) -> bool {
    spec.keys.is_none() && !spec.flags.has(Flags::FAST)
}

/// Whether what a command answers may be gone afterwards, so that its reply is made whatever its size.
pub(super) fn loses_data_with_reply(spec: &Spec) -> bool {
    spec.flags.has(Flags::WRITE) || runs_scripts(spec) && !spec.flags.has(Flags::READONLY)
}

/// Whether a command waits for somebody who may wait for keys: then it must hold none.
pub(super) fn releases_keys(spec: &Spec, args: &[Bytes]) -> bool {
    spec.flags.has(Flags::RELEASES_KEYS) && (spec.name != "debug" || debug::locks_keys(args))
}

pub(super) fn is_exec(spec: &Spec) -> bool {
    spec.name == "exec"
}

/// What a request may do: for scripts that say so, what they declare.
pub(super) fn flags_of(server: &Server, spec: &Spec, args: &[Bytes]) -> Flags {
    let runs_script = spec.group == Group::Scripting && !spec.keys.is_none();
    if runs_script { scripting::flags(server, spec, args) } else { spec.flags }
}

/// Whether a request may be executed, or queued, for this client at this time.
pub(super) fn check(server: &Server, client: &Client, command: &Command, args: &[Bytes]) -> Result<(), CommandError> {
    let spec = command.spec;
    if !spec.arity_fits(args.len()) {
        return Err(CommandError::Arity(command.full_name.clone()));
    }
    let open = client.authenticated() || spec.flags.has(Flags::NO_AUTH);
    if !open && !server.config.requirepass().is_empty() {
        return Err(CommandError::Static("NOAUTH Authentication required."));
    }
    if client.subscriptions.any() && client.info().proto() == 2 && !spec.flags.has(Flags::SUBSCRIBED) {
        return Err(CommandError::Text(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            command.full_name
        )));
    }
    if client.monitors() && (spec.flags.has(Flags::WRITE) || spec.flags.has(Flags::READONLY)) {
        return Err(CommandError::Static("ERR Replica can't interact with the keyspace"));
    }
    if !may_write(server, client.db(), spec, args) {
        return Err(CommandError::Static(READONLY));
    }
    admission::refusal(server, flags_of(server, spec, args)).map_or(Ok(()), Err)
}

/// Whether the command, given in this database, does not write, or this node takes its writes from clients.
pub(super) fn may_write(server: &Server, db: usize, spec: &Spec, args: &[Bytes]) -> bool {
    !server.replication.is_slave()
        || !flags_of(server, spec, args).has(Flags::WRITE)
        || may_write_apart(server, db, spec, args)
}

/// Whether a replica may run this write: with `slave-read-only : no`, and if all its keys are in databases that were
/// taken out of replication. The log of the others is the master's, and no client's to write.
fn may_write_apart(server: &Server, db: usize, spec: &Spec, args: &[Bytes]) -> bool {
    if server.config.slave_read_only() {
        return false;
    }
    let mut keys = Vec::new();
    spec.keys.collect(db, args, &mut keys);
    !keys.is_empty() && keys.iter().all(|key| server.replication.is_detached(server.keyspace.db(key.db).index()))
}

/// The keys of a request, and whether it takes them exclusively.
pub(super) fn keys_of(
    server: &Server,
    command: &Command,
    db: usize,
    args: &[Bytes],
) -> impl Iterator<Item = (KeyRef, bool)> {
    let flags = flags_of(server, command.spec, args);
    let exclusive = flags.has(Flags::WRITE) || flags.has(Flags::MAY_REPLICATE) && !flags.has(Flags::READONLY);
    let mut found = Vec::new();
    command.spec.keys.collect(db, args, &mut found);
    // A database that is not there is the handler's to refuse.
    let databases = server.keyspace.databases();
    found.into_iter().filter(move |key| key.db < databases).map(move |key| (key, exclusive))
}

/// Whether a command shows in MONITOR before those that it runs.
pub(super) fn runs_scripts(spec: &Spec) -> bool {
    spec.group == Group::Scripting && spec.flags.has(Flags::PLANNED)
}

/// Whether a request is of this command.
pub(super) fn is_named(args: &[Bytes], name: &[u8]) -> bool {
    args.first().is_some_and(|arg| arg.eq_ignore_ascii_case(name))
}

/// Whether this is the beginning of an HTTP request, which may be a web page's attempt to make a browser talk to us.
pub(super) fn is_http(args: &[Bytes]) -> bool {
    args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
}

pub(super) fn unknown_command(args: &[Bytes]) -> CommandError {
    let mut shown = String::new();
    for arg in args.iter().skip(1) {
        if shown.len() >= SHOWN {
            break;
        }
        shown.push('\'');
        shown.push_str(&lossy(arg, SHOWN - shown.len()));
        shown.push_str("' ");
    }
    let name = args.first().map(|name| lossy(name, SHOWN)).unwrap_or_default();
    CommandError::Text(format!("ERR unknown command '{name}', with args beginning with: {shown}"))
}

pub(super) fn unknown_subcommand(container: &Command, args: &[Bytes]) -> CommandError {
    let name = args.get(1).map(|name| lossy(name, SHOWN)).unwrap_or_default();
    let container = container.spec.name.to_ascii_uppercase();
    CommandError::Text(format!("ERR unknown subcommand '{name}'. Try {container} HELP."))
}
