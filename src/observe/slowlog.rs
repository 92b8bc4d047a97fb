//! The slow log: the last commands that took longer than `slowlog-log-slower-than`.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    config::{Kind, SETTINGS},
    net::ClientInfo,
};

/// Arguments kept of a command.
const MAX_ARGS: usize = 32;
/// Bytes kept of an argument.
const MAX_ARG: usize = 128;

/// One command that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowCommand {
    /// Rising; not reset with the log.
    pub id: u64,
    /// Unix time in s.
    pub at: u64,
    /// How long it took, its share of the commit included.
    pub took: Duration,
    /// What was sent, shortened.
    pub args: Vec<Bytes>,
    /// The client's address.
    pub addr: String,
    /// The client's name.
    pub name: String,
}

/// The slow log of a server.
#[derive(Default)]
pub struct SlowLog {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    /// Newest first.
    entries: VecDeque<SlowCommand>,
}

impl SlowLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a command that ended at `at` (Unix s); the log keeps `max_len` of them.
    pub fn record(&self, max_len: usize, at: u64, took: Duration, args: &[Bytes], client: &ClientInfo) {
        let mut entry = SlowCommand {
            id: 0,
            at,
            took,
            args: shortened(args),
            addr: client.addr.to_string(),
            name: client.names().name,
        };
        let mut inner = self.inner.lock();
        entry.id = inner.next_id;
        inner.next_id += 1;
        inner.entries.push_front(entry);
        inner.entries.truncate(max_len);
    }

    /// The newest entries, at most `count`.
    pub fn newest(&self, count: usize) -> Vec<SlowCommand> {
        self.inner.lock().entries.iter().take(count).cloned().collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.inner.lock().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all entries.
    pub fn reset(&self) {
        self.inner.lock().entries.clear();
    }
}

fn shortened(args: &[Bytes]) -> Vec<Bytes> {
    let kept = if args.len() > MAX_ARGS { MAX_ARGS - 1 } else { args.len() };
    let mut short: Vec<Bytes> = args
        .iter()
        .take(kept)
        .enumerate()
        .map(|(at, arg)| if is_secret(args, at) { Bytes::from_static(b"(redacted)") } else { shortened_arg(arg) })
        .collect();
    if kept < args.len() {
        short.push(format!("... ({} more arguments)", args.len() - kept).into());
    }
    short
}

fn shortened_arg(arg: &Bytes) -> Bytes {
    match arg.get(..MAX_ARG) {
        Some(start) if arg.len() > MAX_ARG => {
            [start, format!("... ({} more bytes)", arg.len() - MAX_ARG).as_bytes()].concat().into()
        }
        // A copy: the argument itself would keep a whole read buffer alive.
        _ => Bytes::copy_from_slice(arg),
    }
}

/// Whether argument `at` is the value of a secret in a CONFIG SET.
fn is_secret(args: &[Bytes], at: usize) -> bool {
    let is = |at: usize, word: &str| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let mut secrets = SETTINGS.iter().filter(|setting| matches!(setting.kind, Kind::Secret));
    at >= 3
        && at % 2 == 1
        && is(0, "config")
        && is(1, "set")
        && secrets.any(|setting| setting.names().any(|name| is(at - 1, name)))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::net::ClientRegistry;

    fn args(words: &[&str]) -> Vec<Bytes> {
        words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn keeps_the_newest() {
        let log = SlowLog::new();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let client = ClientRegistry::new().register(addr, addr, 3, 1).unwrap();
        for n in 0..5 {
            log.record(3, n, Duration::from_micros(n), &args(&["ping"]), &client);
        }
        assert_eq!(log.newest(2).iter().map(|entry| entry.id).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(log.len(), 3);
        log.reset();
        assert!(log.is_empty());
        log.record(3, 9, Duration::ZERO, &args(&["ping"]), &client);
        assert_eq!(log.newest(1)[0].id, 5);
    }

    #[test]
    fn long_arguments_are_shortened_and_secrets_hidden() {
        let many: Vec<Bytes> = (0..40).map(|n| Bytes::from(n.to_string())).collect();
        let short = shortened(&many);
        assert_eq!((short.len(), &short[31][..]), (32, &b"... (9 more arguments)"[..]));
        let long = shortened(&[Bytes::from(vec![b'x'; 130])]);
        assert_eq!(&long[0][128..], b"... (2 more bytes)");
        assert_eq!(
            shortened(&args(&["CONFIG", "SET", "timeout", "1", "RequirePass", "hush"])),
            args(&["CONFIG", "SET", "timeout", "1", "RequirePass", "(redacted)"])
        );
    }
}
