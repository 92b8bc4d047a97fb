//! CLIENT: looking at connections, naming them, closing them.

use std::time::Duration;

use bytes::Bytes;

use super::blocking::End;
use super::{CommandError, Ctx, Flags, Group, Keys, Spec, error::lossy, numbers, tracking};
use crate::net::{ClientFilter, ClientKind, Closing, Mode, Replies};
use crate::pubsub::PauseKind;

const PLAIN: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
const ADMIN: Flags = PLAIN.and(Flags::ADMIN);

const BASE: Spec = Spec {
    name: "",
    arity: 2,
    flags: PLAIN,
    keys: Keys::None,
    group: Group::Connection,
    since: "",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The subcommands.
pub static CLIENT: &[Spec] = &[
    Spec {
        name: "caching",
        arity: 3,
        since: "6.0.0",
        summary: "Lets the next command's keys be tracked, or not.",
        usage: "YES|NO",
        handler: tracking::caching,
        ..BASE
    },
    Spec { name: "getname", since: "2.6.9", summary: "Returns the connection's name.", handler: getname, ..BASE },
    Spec {
        name: "getredir",
        since: "6.0.0",
        summary: "Returns the id of the client that invalidations are redirected to.",
        handler: tracking::getredir,
        ..BASE
    },
    Spec { name: "id", since: "5.0.0", summary: "Returns the connection's id.", handler: id, ..BASE },
    Spec { name: "info", since: "6.2.0", summary: "Describes the connection.", handler: info, ..BASE },
    Spec {
        name: "kill",
        arity: -3,
        flags: ADMIN,
        since: "2.4.0",
        complexity: "O(N), N being the number of connections.",
        summary: "Closes the connection of an address, or all that match the filters.",
        usage: "ip:port | [ID client-id] [TYPE NORMAL|MASTER|REPLICA|PUBSUB] [USER username] [ADDR ip:port] \
                [LADDR ip:port] [SKIPME YES|NO] [MAXAGE seconds]",
        handler: kill,
        ..BASE
    },
    Spec {
        name: "list",
        arity: -2,
        flags: ADMIN,
        since: "2.4.0",
        complexity: "O(N), N being the number of connections.",
        summary: "Describes connections, one a line.",
        usage: "[TYPE NORMAL|MASTER|REPLICA|PUBSUB] [ID client-id [client-id ...]]",
        handler: list,
        ..BASE
    },
    Spec {
        name: "no-evict",
        arity: 3,
        flags: ADMIN,
        since: "7.0.0",
        summary: "Exempts the connection from eviction.",
        usage: "ON|OFF",
        handler: no_evict,
        ..BASE
    },
    Spec {
        name: "no-touch",
        arity: 3,
        since: "7.2.0",
        summary: "Keeps reads from counting as accesses. They do not count: when a key was accessed is not kept.",
        usage: "ON|OFF",
        handler: no_touch,
        ..BASE
    },
    Spec {
        name: "pause",
        arity: -3,
        flags: ADMIN,
        since: "3.0.0",
        summary: "Holds back the commands of all clients for a time.",
        usage: "timeout [WRITE|ALL]",
        handler: pause,
        ..BASE
    },
    Spec {
        name: "reply",
        arity: 3,
        since: "3.2.0",
        summary: "Turns replies to the connection off or on.",
        usage: "ON|OFF|SKIP",
        handler: reply,
        ..BASE
    },
    Spec {
        name: "setinfo",
        arity: 4,
        since: "7.2.0",
        summary: "Tells name or version of the client's library.",
        usage: "LIB-NAME libname | LIB-VER libver",
        handler: setinfo,
        ..BASE
    },
    Spec {
        name: "setname",
        arity: 3,
        since: "2.6.9",
        summary: "Names the connection.",
        usage: "connection-name",
        handler: setname,
        ..BASE
    },
    Spec {
        name: "tracking",
        arity: -3,
        since: "6.0.0",
        complexity: "O(1); some options O(N), N being the number of prefixes.",
        summary: "Tells the connection when keys that it has read change.",
        usage: "ON|OFF [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
        handler: tracking::tracking,
        ..BASE
    },
    Spec {
        name: "trackinginfo",
        since: "6.2.0",
        summary: "Describes what is tracked for the connection.",
        handler: tracking::trackinginfo,
        ..BASE
    },
    Spec {
        name: "unblock",
        arity: -3,
        flags: ADMIN,
        since: "5.0.0",
        complexity: "O(1)",
        summary: "Ends the wait of another connection's blocking command.",
        usage: "client-id [TIMEOUT|ERROR]",
        handler: unblock,
        ..BASE
    },
    Spec {
        name: "unpause",
        flags: ADMIN,
        since: "6.2.0",
        complexity: "O(N), N being the number of clients that wait.",
        summary: "Ends CLIENT PAUSE.",
        handler: unpause,
        ..BASE
    },
    Spec::help(Group::Connection, "5.0.0"),
];

fn id(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.int(ctx.client.id() as i64);
    Ok(())
}

fn getname(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let name = ctx.client.info().names().name;
    if name.is_empty() {
        ctx.reply.null()
    } else {
        ctx.reply.bulk(name.as_bytes())
    }
    Ok(())
}

fn setname(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let name = checked_name(&args[2])?;
    ctx.client.info().set_names(|names| names.name = name);
    ctx.reply.ok();
    Ok(())
}

fn setinfo(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (attribute, value) = (&args[2], &args[3]);
    let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
        return Err(CommandError::Text(format!("ERR Unrecognized option '{}'", lossy(attribute, 128))));
    }
    let value = printable(value).ok_or_else(|| {
        let attribute = lossy(attribute, 128);
        CommandError::Text(format!("ERR {attribute} cannot contain spaces, newlines or special characters."))
    })?;
    ctx.client.info().set_names(|names| if is_name { names.lib_name = value } else { names.lib_ver = value });
    ctx.reply.ok();
    Ok(())
}

/// A connection's name, if it is one.
pub fn checked_name(name: &[u8]) -> Result<String, CommandError> {
    printable(name)
        .ok_or(CommandError::Static("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn printable(text: &[u8]) -> Option<String> {
    text.iter().all(u8::is_ascii_graphic).then(|| text.iter().copied().map(char::from).collect())
}

fn no_evict(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let on = yes_or_no(&args[2], "on", "off")?;
    ctx.client.set_no_evict(on);
    ctx.reply.ok();
    Ok(())
}

fn no_touch(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let on = yes_or_no(&args[2], "on", "off")?;
    ctx.client.info().set(Mode::NoTouch, on);
    ctx.reply.ok();
    Ok(())
}

/// CLIENT PAUSE timeout [WRITE|ALL]
fn pause(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let kind = match args.get(3..).unwrap_or_default() {
        [] => PauseKind::All,
        [kind] if kind.eq_ignore_ascii_case(b"all") => PauseKind::All,
        [kind] if kind.eq_ignore_ascii_case(b"write") => PauseKind::Write,
        [_] => return Err(CommandError::Static("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => {
            let subcommand = lossy(&args[1], 128);
            return Err(CommandError::SubcommandForm { subcommand, container: "CLIENT" });
        }
    };
    let ms =
        numbers::parse_i64(&args[2]).ok_or(CommandError::Static("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| CommandError::Static("ERR timeout is negative"))?;
    ctx.server.pause.begin(kind, Duration::from_millis(ms));
    ctx.reply.ok();
    Ok(())
}

/// CLIENT UNPAUSE
fn unpause(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.pause.end();
    ctx.reply.ok();
    Ok(())
}

/// CLIENT REPLY ON|OFF|SKIP
/// What is silenced here is taken back by the dispatcher.
fn reply(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let is = |word: &str| args[2].eq_ignore_ascii_case(word.as_bytes());
    if is("on") {
        ctx.client.set_replies(Replies::On);
    } else if is("off") {
        ctx.client.set_replies(Replies::Off);
    } else if is("skip") {
        if ctx.client.replies() != Replies::Off {
            ctx.client.set_replies(Replies::SkipNext);
        }
    } else {
        return Err(CommandError::Syntax);
    }
    ctx.reply.ok();
    Ok(())
}

fn yes_or_no(word: &[u8], yes: &str, no: &str) -> Result<bool, CommandError> {
    if word.eq_ignore_ascii_case(yes.as_bytes()) {
        Ok(true)
    } else if word.eq_ignore_ascii_case(no.as_bytes()) {
        Ok(false)
    } else {
        Err(CommandError::Syntax)
    }
}

fn info(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let line = ctx.client.info().line(&ctx.server.commands) + "\n";
    ctx.reply.verbatim("txt", line.as_bytes());
    Ok(())
}

fn list(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let mut filter = ClientFilter::default();
    match args.get(2..).unwrap_or_default() {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"type") => filter.kind = Some(client_kind(kind)?),
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let id = |id: &Bytes| numbers::parse_i64(id).and_then(|id| u64::try_from(id).ok());
            filter.ids =
                Some(ids.iter().map(id).collect::<Option<_>>().ok_or(CommandError::Static("ERR Invalid client ID"))?);
        }
        _ => return Err(CommandError::Syntax),
    }
    let mut text = String::new();
    for client in ctx.server.clients.list(&filter) {
        text.push_str(&client.line(&ctx.server.commands));
        text.push('\n');
    }
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn client_kind(name: &[u8]) -> Result<ClientKind, CommandError> {
    ClientKind::parse(name).ok_or_else(|| CommandError::Text(format!("ERR Unknown client type '{}'", lossy(name, 128))))
}

/// CLIENT UNBLOCK client-id [TIMEOUT | ERROR]
fn unblock(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let end = match &args[3..] {
        [] => End::Timeout,
        [how] if how.eq_ignore_ascii_case(b"timeout") => End::Timeout,
        [how] if how.eq_ignore_ascii_case(b"error") => End::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK"),
        [_] => return Err(CommandError::Static("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => {
            let container = "CLIENT";
            return Err(CommandError::SubcommandForm { subcommand: lossy(&args[1], 128), container });
        }
    };
    let id = numbers::integer(&args[2])?;
    let ended = u64::try_from(id).is_ok_and(|id| ctx.server.events.blocked.end_of_client(id, end));
    ctx.reply.int(i64::from(ended));
    Ok(())
}

fn kill(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let by_address = args.len() == 3;
    let filter = match args {
        [_, _, addr] => ClientFilter { addr: Some(lossy(addr, addr.len())), ..ClientFilter::default() },
        _ => kill_filter(ctx.client.id(), args.get(2..).unwrap_or_default())?,
    };
    let mut killed = 0;
    for client in ctx.server.clients.list(&filter) {
        // The one that asks still gets its answer.
        if client.id == ctx.client.id() {
            ctx.client.close()
        } else {
            client.close(Closing::Kill);
            // At once: what comes from now on is not for it any more.
            ctx.server.events.blocked.end_of_client(client.id, End::Gone);
        }
        killed += 1;
    }
    match (by_address, killed) {
        (true, 0) => return Err(CommandError::Static("ERR No such client")),
        (true, _) => ctx.reply.ok(),
        (false, killed) => ctx.reply.int(killed),
    }
    Ok(())
}

fn kill_filter(own_id: u64, options: &[Bytes]) -> Result<ClientFilter, CommandError> {
    let mut filter = ClientFilter { except: Some(own_id), ..ClientFilter::default() };
    let (pairs, []) = options.as_chunks::<2>() else { return Err(CommandError::Syntax) };
    for [option, value] in pairs {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        if is("id") {
            let id = numbers::parse_i64(value).filter(|id| *id >= 1);
            let id = id.ok_or(CommandError::Static("ERR client-id should be greater than 0"))?;
            filter.ids = Some(vec![id as u64]);
        } else if is("type") {
            filter.kind = Some(client_kind(value)?);
        } else if is("addr") {
            filter.addr = Some(lossy(value, value.len()));
        } else if is("laddr") {
            filter.laddr = Some(lossy(value, value.len()));
        } else if is("user") {
            if &**value != b"default" {
                return Err(CommandError::Text(format!("ERR No such user '{}'", lossy(value, 128))));
            }
        } else if is("skipme") {
            filter.except = yes_or_no(value, "yes", "no")?.then_some(own_id);
        } else if is("maxage") {
            let age = numbers::parse_i64(value)
                .ok_or(CommandError::Static("ERR maxage is not an integer or out of range"))?;
            let age = u64::try_from(age).ok().filter(|age| *age > 0);
            filter.min_age =
                Some(Duration::from_secs(age.ok_or(CommandError::Static("ERR maxage should be greater than 0"))?));
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<ClientFilter, String> {
        let words: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        kill_filter(7, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn kill_options() {
        let filter = parse(&["ID", "3", "skipme", "no", "maxage", "10"]).unwrap();
        assert_eq!((filter.ids, filter.except, filter.min_age), (Some(vec![3]), None, Some(Duration::from_secs(10))));
        assert_eq!(parse(&["user", "default"]).unwrap().except, Some(7));
        for (words, error) in [
            (&["id", "0"][..], "ERR client-id should be greater than 0"),
            (&["id"], "ERR syntax error"),
            (&["type", "x"], "ERR Unknown client type 'x'"),
            (&["user", "x"], "ERR No such user 'x'"),
            (&["skipme", "x"], "ERR syntax error"),
            (&["what", "x"], "ERR syntax error"),
        ] {
            assert_eq!(parse(words).unwrap_err(), error);
        }
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(checked_name(b"web-1").unwrap(), "web-1");
        assert_eq!(checked_name(b"").unwrap(), "");
        assert!(checked_name(b"a b").is_err() && checked_name("ä".as_bytes()).is_err());
    }
}
