//! DEBUG: what tests need. Who may use it is up to `enable-debug-command`.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::{
    CommandError, Ctx,
    error::lossy,
    help::{heading, reply_lines},
    keys::encoding_at,
    numbers,
};
use crate::config::DebugAccess;
use crate::keyspace::types::{self, Handle};

const NOT_ALLOWED: &str = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", \
                           you can run it from a local connection, otherwise you need to set this option in the \
                           configuration file, and then restart the server.";

type Run = fn(&mut Ctx<'_, '_>, &[Bytes]) -> Result<(), CommandError>;

/// One subcommand. `run` gets the arguments after the names, as many as `args` says.
struct Subcommand {
    name: &'static str,
    args: RangeInclusive<usize>,
    usage: &'static str,
    summary: &'static str,
    run: Run,
}

const ANY: usize = usize::MAX;

static SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "digest",
        args: 0..=0,
        usage: "",
        summary: "Returns a digest of all data, equal on two nodes with equal data.",
        run: digest,
    },
    Subcommand {
        name: "digest-value",
        args: 0..=ANY,
        usage: "<key> [<key> ...]",
        summary: "Returns a digest of the value of each key, without name and expiry.",
        run: digest_value,
    },
    #[cfg(feature = "failpoints")]
    Subcommand {
        name: "failpoint",
        args: 1..=2,
        usage: "<name> [<action>]",
        summary: "Arms a failpoint, or returns how often a fault struck there.",
        run: failpoint,
    },
    Subcommand { name: "help", args: 0..=0, usage: "", summary: "Prints this help.", run: help },
    Subcommand {
        name: "loadaof",
        args: 0..=0,
        usage: "",
        summary: "Writes all data to the engines' files and forgets what is cached of them.",
        run: reload,
    },
    Subcommand { name: "log", args: 1..=1, usage: "<message>", summary: "Writes the message to the log.", run: log },
    Subcommand {
        name: "object",
        args: 1..=1,
        usage: "<key>",
        summary: "Tells about the value of the key, also of one that expired and was not deleted yet.",
        run: object,
    },
    Subcommand {
        name: "pause-cron",
        args: 1..=1,
        usage: "<0|1>",
        summary: "Pauses chores in the background, as trimming the table of CLIENT TRACKING.",
        run: pause_cron,
    },
    Subcommand {
        name: "protocol",
        args: 1..=1,
        usage: "<string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false>",
        summary: "Replies with a value of this type.",
        run: protocol,
    },
    Subcommand {
        name: "quicklist-packed-threshold",
        args: 1..=1,
        usage: "<size>",
        summary: "Does nothing: lists have no nodes in memory here.",
        run: |ctx, _| {
            ctx.reply.ok();
            Ok(())
        },
    },
    Subcommand {
        name: "reload",
        args: 0..=3,
        usage: "[NOSAVE] [NOFLUSH] [MERGE]",
        summary: "As LOADAOF. Nothing is loaded over anything, so the options change nothing.",
        run: reload,
    },
    Subcommand {
        name: "set-active-expire",
        args: 1..=1,
        usage: "<0|1>",
        summary: "Stops or resumes the deletion of expired keys that nobody asks for.",
        run: set_active_expire,
    },
    Subcommand {
        name: "set-disable-deny-scripts",
        args: 1..=1,
        usage: "<0|1>",
        summary: "Lets scripts call commands that are refused to them, or refuses these again.",
        run: set_disable_deny_scripts,
    },
    Subcommand {
        name: "sleep",
        args: 1..=1,
        usage: "<seconds>",
        summary: "Answers after this many seconds; decimals are allowed.",
        run: sleep,
    },
];

/// Whether the subcommand that is asked for locks keys itself, all of them.
pub fn locks_keys(args: &[Bytes]) -> bool {
    args.get(1).is_some_and(|name| name.eq_ignore_ascii_case(b"reload") || name.eq_ignore_ascii_case(b"loadaof"))
}

/// Runs on the blocking pool: a sleep stalls nobody but the one who asked for it.
pub fn debug(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let allowed = match ctx.server.config.enable_debug_command() {
        DebugAccess::Yes => true,
        DebugAccess::Local => ctx.client.info().addr.ip().to_canonical().is_loopback(),
        DebugAccess::No => false,
    };
    if !allowed {
        return Err(CommandError::Static(NOT_ALLOWED));
    }
    let [_, name, args @ ..] = args else { return Err(CommandError::Arity("debug".into())) };
    let found = SUBCOMMANDS.iter().find(|sub| name.eq_ignore_ascii_case(sub.name.as_bytes()));
    match found.filter(|sub| sub.args.contains(&args.len())) {
        Some(sub) => (sub.run)(ctx, args),
        None => Err(CommandError::SubcommandForm { subcommand: lossy(name, 128), container: "DEBUG" }),
    }
}

fn help(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let mut lines = vec![heading("debug")];
    for sub in SUBCOMMANDS {
        lines.push(format!("{} {}", sub.name.to_ascii_uppercase(), sub.usage).trim_end().to_owned());
        lines.push(format!("    {}", sub.summary));
    }
    reply_lines(ctx, &lines);
    Ok(())
}

fn sleep(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    // Like Redis, takes what is no number for zero.
    let seconds: f64 = std::str::from_utf8(&args[0]).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    std::thread::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    ctx.reply.ok();
    Ok(())
}

fn log(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    tracing::info!(client = %ctx.client.info().addr, "DEBUG LOG: {}", lossy(&args[0], 1024));
    ctx.reply.ok();
    Ok(())
}

#[cfg(feature = "failpoints")]
fn failpoint(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    use crate::disk::failpoints;
    let name = lossy(&args[0], 128);
    match args.get(1) {
        Some(action) => {
            failpoints::arm(&name, &lossy(action, 1024)).map_err(|e| CommandError::Text(format!("ERR {e}")))?;
            ctx.reply.ok();
        }
        None => {
            let struck = failpoints::struck(&name);
            ctx.reply.int(struck.ok_or_else(|| CommandError::Text(format!("ERR no failpoint \"{name}\"")))? as i64);
        }
    }
    Ok(())
}

/// Hex of a SHA-1.
fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 40 hex digits that are equal on two nodes exactly when their data is.
fn digest(ctx: &mut Ctx<'_, '_>, _: &[Bytes]) -> Result<(), CommandError> {
    let digest = ctx.server.keyspace.digest()?;
    ctx.reply.simple(&hex(&digest));
    Ok(())
}

/// 40 hex digits a key, zeros for one that does not exist.
fn digest_value(ctx: &mut Ctx<'_, '_>, keys: &[Bytes]) -> Result<(), CommandError> {
    ctx.reply.array(keys.len());
    for key in keys {
        let Some(entry) = ctx.peek(key)? else {
            ctx.reply.simple(&"0".repeat(40));
            continue;
        };
        let mut hash = Sha1::new().chain_update([entry.kind as u8]);
        match Handle::of(key, &entry) {
            Some(handle) => types::digest(&mut ctx.reader(key), &handle, &mut |bytes| hash.update(bytes))?,
            None => hash.update(&entry.value),
        }
        ctx.reply.simple(&hex(hash.finalize().as_slice()));
    }
    Ok(())
}

/// Redis's words where they mean something. A value has no address; its slot is where it is.
fn object(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let db = ctx.db();
    // At the beginning of time no key has expired.
    let entry = ctx.tx.get(db, &args[0], 0)?.ok_or(CommandError::NoSuchKey)?;
    let encoding = encoding_at(ctx, &args[0], &entry)?;
    ctx.reply.simple(&format!(
        "Value at:{} refcount:1 encoding:{encoding} serializedlength:{}",
        ctx.server.keyspace.slot(db, &args[0]),
        entry.value.len()
    ));
    Ok(())
}

fn reload(ctx: &mut Ctx<'_, '_>, options: &[Bytes]) -> Result<(), CommandError> {
    let known = ["nosave", "noflush", "merge"];
    if !options.iter().all(|option| known.iter().any(|known| option.eq_ignore_ascii_case(known.as_bytes()))) {
        return Err(CommandError::Static("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options."));
    }
    ctx.server.keyspace.reread()?;
    ctx.reply.ok();
    Ok(())
}

/// Anything but 0 is on, as in Redis.
fn is_on(arg: &Bytes) -> bool {
    numbers::parse_i64(arg).unwrap_or(0) != 0
}

fn set_active_expire(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.switches.set_active_expire(is_on(&args[0]));
    ctx.reply.ok();
    Ok(())
}

fn set_disable_deny_scripts(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.switches.set_deny_scripts(!is_on(&args[0]));
    ctx.reply.ok();
    Ok(())
}

fn pause_cron(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    ctx.server.switches.set_cron(!is_on(&args[0]));
    ctx.reply.ok();
    Ok(())
}

/// The values are those of Redis, which client libraries test themselves with.
fn protocol(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let reply = &mut *ctx.reply;
    let kind = lossy(&args[0], 16).to_ascii_lowercase();
    match kind.as_str() {
        "string" => reply.bulk(b"Hello World"),
        "integer" => reply.int(12345),
        "double" => reply.double(3141.0 / 1000.0),
        "null" => reply.null(),
        "array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.int(number));
        }
        "set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.int(number));
        }
        "map" => {
            reply.map(3);
            for number in 0..3 {
                reply.int(number);
                reply.bool(number == 1);
            }
        }
        "attrib" => {
            if reply.proto() >= 3 {
                reply.attribute(1);
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.int(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        "push" => {
            if reply.proto() < 3 {
                return Err(CommandError::Static("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.int(42);
            // What was pushed is not the answer.
            reply.bulk(b"Some real reply following the push reply");
        }
        "true" => reply.bool(true),
        "false" => reply.bool(false),
        "verbatim" => reply.verbatim("txt", b"This is a verbatim\nstring"),
        "bignum" => reply.big_number("1234567999999999999999999999999999999"),
        _ => {
            return Err(CommandError::Static(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}
