//! Commands about the connection: PING, ECHO, HELLO, SELECT, AUTH, QUIT, RESET. CLIENT is in `client`.

use bytes::Bytes;

use super::{CommandError, Ctx, Flags, Group, Keys, Spec, client, error::lossy, numbers};
use crate::net::{Mode, Replies};
use crate::observe::info::REDIS_VERSION;

/// The only user; its password is `requirepass`.
const DEFAULT_USER: &[u8] = b"default";
const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const ANY_TIME: Flags = Flags::FAST.and(Flags::LOADING).and(Flags::STALE);
const BEFORE_AUTH: Flags = ANY_TIME.and(Flags::NOSCRIPT).and(Flags::NO_AUTH);
const LEAVE: Flags = BEFORE_AUTH.and(Flags::SUBSCRIBED).and(Flags::IN_MULTI);

const BASE: Spec = Spec {
    name: "",
    arity: 0,
    flags: ANY_TIME,
    keys: Keys::None,
    group: Group::Connection,
    since: "1.0.0",
    complexity: "O(1)",
    summary: "",
    usage: "",
    handler: super::help::container_without_subcommand,
    subcommands: &[],
};

/// The family's part of the command table.
pub static CONNECTION: &[Spec] = &[
    Spec {
        name: "auth",
        arity: -2,
        flags: BEFORE_AUTH.and(Flags::SKIP_SLOWLOG),
        summary: "Gives the password that the server asks for.",
        usage: "[username] password",
        handler: auth,
        ..BASE
    },
    Spec {
        summary: "Commands about client connections.",
        ..Spec::container("client", Group::Connection, "2.4.0", "", client::CLIENT)
    },
    Spec { name: "echo", arity: 2, summary: "Returns its argument.", usage: "message", handler: echo, ..BASE },
    Spec {
        name: "hello",
        arity: -1,
        flags: BEFORE_AUTH.and(Flags::SKIP_SLOWLOG),
        since: "6.0.0",
        summary: "Chooses the protocol version, and may authenticate and name the connection.",
        usage: "[protover [AUTH username password] [SETNAME clientname]]",
        handler: hello,
        ..BASE
    },
    Spec {
        name: "ping",
        arity: -1,
        flags: ANY_TIME.and(Flags::SUBSCRIBED),
        summary: "Returns PONG, or its argument.",
        usage: "[message]",
        handler: ping,
        ..BASE
    },
    Spec { name: "quit", arity: -1, flags: LEAVE, summary: "Closes the connection.", handler: quit, ..BASE },
    Spec {
        name: "reset",
        arity: 1,
        flags: LEAVE,
        since: "6.2.0",
        summary: "Puts the connection back into its first state.",
        handler: reset,
        ..BASE
    },
    Spec { name: "select", arity: 2, summary: "Chooses the database.", usage: "index", handler: select, ..BASE },
];

fn ping(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    match args {
        [_] | [_, _] if ctx.client.subscriptions.any() && ctx.reply.proto() == 2 => {
            ctx.reply.array(2);
            ctx.reply.bulk(b"pong");
            ctx.reply.bulk(args.get(1).map_or(&[], |message| message));
        }
        [_] => ctx.reply.simple("PONG"),
        [_, message] => ctx.reply.bulk(message),
        _ => return Err(CommandError::Arity("ping".into())),
    }
    Ok(())
}

fn echo(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.bulk(&args[1]);
    Ok(())
}

fn select(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let index = numbers::integer_32(&args[1])?;
    let db = usize::try_from(index)
        .ok()
        .filter(|db| *db < ctx.server.keyspace.databases())
        .ok_or(CommandError::Static("ERR DB index is out of range"))?;
    ctx.client.select(db);
    ctx.reply.ok();
    Ok(())
}

fn quit(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    ctx.client.close();
    ctx.reply.ok();
    Ok(())
}

fn reset(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let client = &mut *ctx.client;
    client.multi = None;
    client.watched.clear();
    client.tracked.stop();
    client.subscriptions.clear();
    client.monitor(None);
    client.set_replies(Replies::On);
    client.select(0);
    client.set_no_evict(false);
    client.info().set(Mode::NoTouch, false);
    client.show_transaction();
    ctx.client.info().set_names(|names| names.name.clear());
    ctx.client.set_authenticated(ctx.server.config.requirepass().is_empty());
    speak(ctx, 2);
    ctx.reply.simple("RESET");
    Ok(())
}

fn auth(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let (user, password) = match args {
        [_, password] => {
            if ctx.server.config.requirepass().is_empty() {
                return Err(CommandError::Static(
                    "ERR AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            (DEFAULT_USER, password)
        }
        [_, user, password] => (&**user, password),
        _ => return Err(CommandError::Syntax),
    };
    authenticate(ctx, user, password)?;
    ctx.reply.ok();
    Ok(())
}

fn authenticate(ctx: &mut Ctx<'_, '_>, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let wanted = ctx.server.config.requirepass();
    if user != DEFAULT_USER || !(wanted.is_empty() || equal_in_constant_time(wanted.as_bytes(), password)) {
        ctx.server.stats.auth_failures.add(1);
        tracing::debug!(client = %ctx.client.info().addr, "wrong password");
        return Err(CommandError::Static(WRONG_PASSWORD));
    }
    ctx.client.set_authenticated(true);
    Ok(())
}

/// Compares so that the time tells nothing but the length of what was given.
fn equal_in_constant_time(secret: &[u8], given: &[u8]) -> bool {
    let differs = given.iter().enumerate().fold(0u8, |differs, (at, byte)| {
        differs | (byte ^ secret.get(at % secret.len().max(1)).copied().unwrap_or_default())
    });
    std::hint::black_box(differs) == 0 && secret.len() == given.len()
}

fn hello(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let proto = match args.get(1) {
        None => None,
        Some(version) => match numbers::parse_i64(version) {
            None => return Err(CommandError::Static("ERR Protocol version is not an integer or out of range")),
            Some(version @ (2 | 3)) => Some(version as u8),
            Some(_) => return Err(CommandError::Static("NOPROTO unsupported protocol version")),
        },
    };
    let (mut credentials, mut name) = (None, None);
    let mut options = args.get(2..).unwrap_or_default();
    while let [option, rest @ ..] = options {
        options = match rest {
            [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                credentials = Some((user, password));
                rest
            }
            [given, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                name = Some(client::checked_name(given)?);
                rest
            }
            _ => {
                return Err(CommandError::Text(format!("ERR Syntax error in HELLO option '{}'", lossy(option, 128))));
            }
        };
    }
    if let Some((user, password)) = credentials {
        authenticate(ctx, user, password)?;
    }
    if !ctx.client.authenticated() && !ctx.server.config.requirepass().is_empty() {
        return Err(CommandError::Static(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        ctx.client.info().set_names(|names| names.name = name);
    }
    if let Some(proto) = proto {
        speak(ctx, proto);
    }
    let role = if ctx.server.replication.is_slave() { "replica" } else { "master" };
    let (proto, id) = (ctx.reply.proto(), ctx.client.id());
    let reply = &mut *ctx.reply;
    reply.map(7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.int(i64::from(proto));
    reply.bulk(b"id");
    reply.int(id as i64);
    for (field, value) in [("mode", "standalone"), ("role", role)] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn speak(ctx: &mut Ctx<'_, '_>, proto: u8) {
    ctx.reply.set_proto(proto);
    ctx.client.set_proto(proto);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_compare() {
        assert!(equal_in_constant_time(b"secret", b"secret"));
        for wrong in [&b""[..], b"secre", b"secretsecret", b"Secret", b"secretx"] {
            assert!(!equal_in_constant_time(b"secret", wrong));
        }
    }
}
