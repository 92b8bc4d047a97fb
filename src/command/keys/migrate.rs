//! MIGRATE: keys that go to another server, as a client of it.
//!
//! The keys stay locked until the other server has answered: nobody changes them meanwhile, as nobody does in Redis.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;

use super::dump::dump_of;
use crate::command::{CommandError, Ctx, KeyRef, error::lossy, numbers};
use crate::pubsub::EventClass;

/// What a timeout of zero or less means.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest line of a reply that is read.
const MAX_LINE: u64 = 64 << 10;

// Redis's words.
const CONNECTING: CommandError = CommandError::Static("IOERR error or timeout connecting to the client");
const WRITING: CommandError = CommandError::Static("IOERR error or timeout writing to target instance");
const READING: CommandError = CommandError::Static("IOERR error or timeout reading to target instance");

fn refusal(error: &str) -> CommandError {
    CommandError::Text(format!("ERR Target instance replied with error: {error}"))
}

/// A request, understood.
struct Request<'a> {
    host: &'a Bytes,
    port: &'a Bytes,
    keys: &'a [Bytes],
    db: i64,
    timeout: Duration,
    copy: bool,
    replace: bool,
    user: Option<&'a Bytes>,
    password: Option<&'a Bytes>,
}

impl<'a> Request<'a> {
    fn parse(args: &'a [Bytes]) -> Result<Request<'a>, CommandError> {
        let mut keys = &args[3..4];
        let (mut copy, mut replace, mut user, mut password) = (false, false, None, None);
        let mut at = 6;
        while let Some(option) = args.get(at) {
            let left = args.len() - at - 1;
            if option.eq_ignore_ascii_case(b"copy") {
                copy = true;
            } else if option.eq_ignore_ascii_case(b"replace") {
                replace = true;
            } else if option.eq_ignore_ascii_case(b"auth") && left >= 1 {
                password = args.get(at + 1);
                at += 1;
            } else if option.eq_ignore_ascii_case(b"auth2") && left >= 2 {
                (user, password) = (args.get(at + 1), args.get(at + 2));
                at += 2;
            } else if option.eq_ignore_ascii_case(b"keys") {
                if !args[3].is_empty() {
                    return Err(CommandError::Static(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                keys = &args[at + 1..];
                break;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        let ms = numbers::integer(&args[5])?;
        let timeout = u64::try_from(ms).ok().filter(|ms| *ms > 0).map_or(DEFAULT_TIMEOUT, Duration::from_millis);
        let db = numbers::integer(&args[4])?;
        Ok(Request { host: &args[1], port: &args[2], keys, db, timeout, copy, replace, user, password })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let host = std::str::from_utf8(self.host).map_err(|_| invalid())?;
        let port: u16 = std::str::from_utf8(self.port).ok().and_then(|port| port.parse().ok()).ok_or_else(invalid)?;
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(self.timeout))?;
                    stream.set_write_timeout(Some(self.timeout))?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }
}

/// The keys of MIGRATE.
pub fn keys_of_migrate(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
    if let Some(Ok(request)) = (args.len() >= 6).then(|| Request::parse(args)) {
        found.extend(request.keys.iter().map(|key| KeyRef { db, key: key.clone() }));
    }
}

/// MIGRATE host port key|"" destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] [KEYS key [key ...]]
pub fn migrate(ctx: &mut Ctx<'_, '_>, args: &[Bytes]) -> Result<(), CommandError> {
    let request = Request::parse(args)?;
    let mut sent = Vec::new();
    let mut out = Vec::new();
    let mut greetings = 0;
    if let Some(password) = request.password {
        let words = [Some(&b"AUTH"[..]), request.user.map(|user| &user[..]), Some(password)];
        put_request(&mut out, &words.into_iter().flatten().collect::<Vec<_>>());
        greetings += 1;
    }
    put_request(&mut out, &[b"SELECT", request.db.to_string().as_bytes()]);
    greetings += 1;
    for key in request.keys {
        let Some(entry) = ctx.peek(key)? else { continue };
        let Some(payload) = dump_of(ctx, key, &entry)? else { continue };
        let ttl = entry.expire_at.map_or(0, |at| at.saturating_sub(ctx.now).max(1)).to_string();
        let words = [b"RESTORE", &key[..], ttl.as_bytes(), &payload, b"REPLACE"];
        put_request(&mut out, if request.replace { &words } else { &words[..4] });
        sent.push(key);
    }
    if sent.is_empty() {
        ctx.reply.simple("NOKEY");
        return Ok(());
    }
    let Ok(stream) = request.connect() else {
        return Err(CONNECTING);
    };
    if (&stream).write_all(&out).is_err() {
        return Err(WRITING);
    }
    let mut replies = BufReader::new(&stream);
    let mut refused = None;
    let mut lost = false;
    // The database must have been chosen before a key may count as received.
    for _ in 0..greetings {
        match read_status(&mut replies) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(refusal(&error)),
            Err(_) => return Err(READING),
        }
    }
    let db = ctx.db();
    for key in sent {
        match read_status(&mut replies) {
            Ok(Ok(())) if !request.copy => {
                ctx.tx.del(db, key, ctx.now)?;
                ctx.notify(EventClass::Generic, "del", key);
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => refused = refused.or(Some(error)),
            Err(_) => {
                lost = true;
                break;
            }
        }
    }
    // What the other server has is gone here, whatever became of the rest.
    match refused {
        Some(error) => Err(refusal(&error)),
        None if lost => Err(READING),
        None => {
            ctx.reply.ok();
            Ok(())
        }
    }
}

/// Adds a request in RESP.
fn put_request(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads a one-line reply: done, or the text of an error.
fn read_status(replies: &mut impl BufRead) -> io::Result<Result<(), String>> {
    let mut line = Vec::new();
    replies.take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some([b'+', ..]) => Ok(Ok(())),
        Some([b'-', error @ ..]) => Ok(Err(lossy(error, error.len()))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
