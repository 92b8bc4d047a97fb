//! MONITOR: every command that is executed, to whoever asked for them.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::RwLock;

use super::outlet::Outlet;
use crate::config::Config;
use crate::net::{ClientInfo, Mode};

/// What stands in the place of an argument that is nobody's business.
const REDACTED: &[u8] = b"(redacted)";

/// The clients in MONITOR.
pub struct Monitors {
    outlet: Outlet,
    clients: RwLock<Vec<Arc<ClientInfo>>>,
    count: AtomicUsize,
}

impl Monitors {
    /// None.
    pub fn new(config: Arc<Config>) -> Self {
        Monitors { outlet: Outlet::new(config), clients: RwLock::default(), count: AtomicUsize::new(0) }
    }

    /// Whether there are any: one relaxed load.
    pub fn any(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Sends a client all commands from now on.
    pub fn add(&self, client: &Arc<ClientInfo>) {
        let mut clients = self.clients.write();
        if !clients.iter().any(|known| known.id == client.id) {
            client.set(Mode::Monitor, true);
            clients.push(client.clone());
            self.count.store(clients.len(), Relaxed);
        }
    }

    /// Sends it none any more.
    pub fn remove(&self, client: &ClientInfo) {
        let mut clients = self.clients.write();
        clients.retain(|known| known.id != client.id);
        client.set(Mode::Monitor, false);
        self.count.store(clients.len(), Relaxed);
    }

    /// The line of a command: `+1700000000.123456 [0 127.0.0.1:1234] "set" "k" "v"`. `by` is the client's address, or `lua`.
    pub fn line(db: usize, by: &dyn std::fmt::Display, args: &[Bytes]) -> Vec<u8> {
        line(db, by, args)
    }

    /// Sends a line made by [`Monitors::line`].
    pub fn feed(&self, line: &[u8]) {
        for client in self.clients.read().iter() {
            self.outlet.send(client, line);
        }
    }
}

/// See [`Monitors::line`].
fn line(db: usize, by: &dyn std::fmt::Display, args: &[Bytes]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut line = String::with_capacity(64);
    // Writing to a String cannot fail.
    let _ = write!(line, "+{}.{:06} [{db} {by}]", now.as_secs(), now.subsec_micros());
    let hidden = secrets(args);
    for (at, arg) in args.iter().enumerate() {
        line.push_str(" \"");
        quote(if hidden.contains(&at) { REDACTED } else { arg }, &mut line);
        line.push('"');
    }
    line.push_str("\r\n");
    line.into_bytes()
}

/// Indexes of the arguments that hold a password.
fn secrets(args: &[Bytes]) -> std::ops::Range<usize> {
    let is = |at: usize, name: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(name));
    if is(0, b"auth") {
        return 1..args.len();
    }
    if is(0, b"hello")
        && let Some(auth) = (2..args.len()).find(|&at| is(at, b"auth"))
    {
        return auth + 1..auth + 3;
    }
    0..0
}

fn quote(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'"' => out.push_str("\\\""),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            b' '..=b'~' => out.push(byte.into()),
            other => {
                let _ = write!(out, "\\x{other:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&'static [u8]]) -> String {
        let args: Vec<Bytes> = words.iter().map(|word| Bytes::from_static(word)).collect();
        let line = String::from_utf8(line(3, &"1.2.3.4:5", &args)).unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn arguments_are_quoted() {
        assert_eq!(
            shown(&[b"set", b"a\"\\\n", b"\x00\xff"]),
            "[3 1.2.3.4:5] \"set\" \"a\\\"\\\\\\n\" \"\\x00\\xff\"\r\n"
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown(&[b"AUTH", b"pw"]), "[3 1.2.3.4:5] \"AUTH\" \"(redacted)\"\r\n");
        let hello = shown(&[b"hello", b"3", b"auth", b"me", b"pw", b"setname", b"x"]);
        assert_eq!(hello, "[3 1.2.3.4:5] \"hello\" \"3\" \"auth\" \"(redacted)\" \"(redacted)\" \"setname\" \"x\"\r\n");
    }
}
