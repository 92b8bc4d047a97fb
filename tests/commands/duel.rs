//! Two servers, one client: what is sent to both, and how their replies are compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::common::resp::{encode, split_line};
use crate::common::{DEADLINE, Node, RedisServer};

/// Commands that may be under way at once: both servers buffer requests and replies of this many.
const BATCH: usize = 50;

/// How far apart two replies about remaining time may lie: the servers run one after the other.
const SLACK: Duration = Duration::from_secs(1000);

/// How a reply must compare with Redis's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// The same bytes.
    Bytes,
    /// An array or a set of the same elements in any order; so for the arrays in it.
    Elements,
    /// A map, or an array that is one, of the same pairs in any order.
    Pairs,
    /// The same integer, or two counts of this unit less than [`SLACK`] apart.
    Time(Duration),
    /// Of the same type, null or not.
    Type,
    /// What XPENDING lists: how long an entry has been idle may differ by less than [`SLACK`].
    Idle,
    /// The same but for the numbers that tell of Redis's radix trees.
    Tree,
}

impl Same {
    /// What can be asked of a command whose reply depends on order, time or chance.
    pub fn of(command: &[u8]) -> Same {
        match command.to_ascii_uppercase().as_slice() {
            b"KEYS" | b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF" | b"HKEYS" | b"HVALS" | b"HSCAN" | b"SSCAN"
            | b"SPOP" => Same::Elements,
            b"HGETALL" => Same::Pairs,
            b"RANDOMKEY" => Same::Type,
            b"XPENDING" => Same::Idle,
            b"XINFO" => Same::Tree,
            b"TTL" | b"EXPIRETIME" => Same::Time(Duration::from_secs(1)),
            b"PTTL" | b"PEXPIRETIME" => Same::Time(Duration::from_millis(1)),
            _ => Same::Bytes,
        }
    }

    fn holds(self, ours: &[u8], theirs: &[u8]) -> bool {
        if ours == theirs {
            return true;
        }
        match self {
            Same::Bytes => false,
            Same::Elements => elements(ours, 1) == elements(theirs, 1),
            Same::Pairs => elements(ours, 2) == elements(theirs, 2),
            Same::Idle => without_idle(ours) == without_idle(theirs),
            Same::Tree => without_tree(ours) == without_tree(theirs),
            Same::Type => ours.get(..2) == theirs.get(..2) || is_string(ours) && is_string(theirs),
            Same::Time(unit) => match (integer(ours), integer(theirs)) {
                (Some(ours @ 0..), Some(theirs @ 0..)) => {
                    u128::from(ours.abs_diff(theirs)) * unit.as_millis() < SLACK.as_millis()
                }
                _ => false,
            },
        }
    }
}

/// The lines of XPENDING's list without the idle times, which are every second number: deliveries follow them. The summary has but one.
fn without_idle(reply: &[u8]) -> Vec<&[u8]> {
    let lines: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
    let numbers = lines.iter().filter(|line| line.starts_with(b":")).count();
    let mut number = 0;
    let keep = |line: &&[u8]| {
        number += usize::from(line.starts_with(b":"));
        !(numbers.is_multiple_of(2) && line.starts_with(b":") && number % 2 == 1)
    };
    lines.into_iter().filter(keep).collect()
}

/// The lines of XINFO STREAM but for those after the names of what counts nodes.
fn without_tree(reply: &[u8]) -> Vec<&[u8]> {
    let mut kept = Vec::new();
    let mut lines = reply.split(|byte| *byte == b'\n');
    while let Some(line) = lines.next() {
        kept.push(line);
        if line.starts_with(b"radix-tree-") {
            lines.next();
        }
    }
    kept
}

fn is_string(reply: &[u8]) -> bool {
    reply.starts_with(b"$") && !reply.starts_with(b"$-")
}

fn integer(reply: &[u8]) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The kind of an aggregate and its elements in groups of `size`, sorted; the arrays among these are sorted too.
fn elements(reply: &[u8], size: usize) -> Option<(u8, Vec<Vec<u8>>)> {
    let mut elements = Vec::new();
    let mut rest = reply;
    let mut head = Vec::new();
    rest.read_until(b'\n', &mut head).ok()?;
    let kind = *head.first().filter(|kind| b"*~%".contains(kind))?;
    while !rest.is_empty() {
        let mut group = Vec::new();
        for _ in 0..size {
            let mut element = Vec::new();
            read_reply(&mut rest, &mut element);
            match self::elements(&element, 1) {
                Some((kind, elements)) => group.extend([&[kind], &*elements.concat()].concat()),
                None => group.extend(element),
            }
        }
        elements.push(group);
    }
    elements.sort();
    Some((kind, elements))
}

/// Reads one reply, as it is.
fn read_reply(from: &mut impl BufRead, reply: &mut Vec<u8>) {
    let start = reply.len();
    from.read_until(b'\n', reply).expect("a reply");
    let line = &reply[start..];
    assert!(line.ends_with(b"\r\n"), "the connection ended: {}", line.escape_ascii());
    let count = || -> i64 {
        let digits = std::str::from_utf8(&line[1..line.len() - 2]).expect("digits");
        digits.parse().expect("a length")
    };
    match line[0] {
        b'$' | b'=' => {
            let length = usize::try_from(count() + 2).expect("a length");
            if length > 1 {
                from.take(length as u64).read_to_end(reply).expect("a string");
            }
        }
        b'*' | b'~' | b'>' => (0..count()).for_each(|_| read_reply(from, reply)),
        b'%' => (0..2 * count()).for_each(|_| read_reply(from, reply)),
        _ => {}
    }
}

/// A connection that hands out raw replies.
pub struct Wire {
    reader: BufReader<TcpStream>,
}

impl Wire {
    pub fn to(port: u16) -> Wire {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Wire { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("send");
    }

    pub fn reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        read_reply(&mut self.reader, &mut reply);
        reply
    }
}

/// A haypile and a redis-server, and a connection to each.
pub struct Duel {
    haypile: Node,
    redis: RedisServer,
    ours: Wire,
    theirs: Wire,
}

impl Duel {
    #[track_caller]
    pub fn start() -> Duel {
        let (haypile, redis) = (Node::start(), RedisServer::start());
        let (ours, theirs) = (Wire::to(haypile.port()), Wire::to(redis.port()));
        Duel { haypile, redis, ours, theirs }
    }

    /// Ours.
    pub fn haypile(&self) -> &Node {
        &self.haypile
    }

    /// Sends both these commands, `depth` at a time, and compares the replies; panics where they first differ.
    #[track_caller]
    pub fn compare(&mut self, commands: &[(Same, Vec<Vec<u8>>)], depth: usize) {
        for (batch, commands) in commands.chunks(depth).enumerate() {
            let mut request = Vec::new();
            commands.iter().for_each(|(_, command)| encode(&mut request, command));
            self.ours.send(&request);
            self.theirs.send(&request);
            for (at, (same, command)) in commands.iter().enumerate() {
                let (ours, theirs) = (self.ours.reply(), self.theirs.reply());
                assert!(
                    same.holds(&ours, &theirs),
                    "command {} ({same:?}): {}\n  haypile: {}\n    redis: {}",
                    batch * depth + at,
                    show(command),
                    ours.escape_ascii(),
                    theirs.escape_ascii(),
                );
            }
        }
    }

    /// Compares the replies to a script: one at a time, in pipelines, and in RESP3; each time on empty servers.
    ///
    /// A line is a command as in redis-cli. `~` before it: its reply is a time and may differ a little, or names a
    /// random key. Empty lines and those that begin with `#` say nothing.
    #[track_caller]
    pub fn script(&mut self, script: &str) {
        let mut commands = Vec::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (line, loose) = line.strip_prefix('~').map_or((line, false), |line| (line, true));
            let command = split_line(line);
            let same = match Same::of(&command[0]) {
                Same::Time(_) | Same::Type if !loose => Same::Bytes,
                same => same,
            };
            commands.push((same, command));
        }
        for (protocol, depth) in [(2, 1), (2, BATCH), (3, BATCH)] {
            println!("script in RESP{protocol}, {depth} at a time");
            self.protocol(protocol);
            self.compare(&lines(&["FLUSHALL", "SELECT 0"]), 1);
            self.compare(&commands, depth);
        }
        self.protocol(2);
    }

    /// Compares the replies to a script, one at a time, and the keyspace notifications that it leads to, in their order.
    #[track_caller]
    pub fn events(&mut self, script: &str) {
        self.compare(&lines(&["FLUSHALL", "CONFIG SET notify-keyspace-events AKEn"]), 1);
        let mut listeners = [Wire::to(self.haypile.port()), Wire::to(self.redis.port())];
        for listener in &mut listeners {
            listener.send(b"PSUBSCRIBE *\r\n");
            listener.reply();
        }
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.compare(&lines(&[line]), 1);
            // What comes before this message comes of the line.
            self.compare(&lines(&["PUBLISH line done"]), 1);
            let [ours, theirs] = listeners.each_mut().map(|listener| {
                let mut messages = Vec::new();
                while !messages.ends_with(b"line\r\n$4\r\ndone\r\n") {
                    messages.extend(listener.reply());
                }
                messages
            });
            assert!(
                ours == theirs,
                "events of {line}\n  haypile: {}\n    redis: {}",
                ours.escape_ascii(),
                theirs.escape_ascii()
            );
        }
        self.compare(&lines(&["CONFIG SET notify-keyspace-events ''"]), 1);
    }

    /// Compares the replies to some commands, in pipelines.
    #[track_caller]
    pub fn stream(&mut self, commands: Vec<Vec<Vec<u8>>>) {
        let commands: Vec<_> = commands.into_iter().map(|command| (Same::of(&command[0]), command)).collect();
        self.compare(&commands, BATCH);
    }

    /// Compares every key of these databases: its value, type and expiry. `keys` are all that were ever written.
    #[track_caller]
    pub fn state(&mut self, databases: std::ops::Range<usize>, keys: &[Vec<u8>]) {
        for db in databases {
            let word = |word: &str| word.as_bytes().to_vec();
            let mut commands = vec![vec![word("SELECT"), word(&db.to_string())]];
            for key in keys {
                for question in ["GET", "TYPE", "PEXPIRETIME"] {
                    commands.push(vec![word(question), key.clone()]);
                }
            }
            commands.extend([vec![word("KEYS"), word("*")], vec![word("DBSIZE")]]);
            self.stream(commands);
        }
    }

    /// Kills the haypile and starts it again.
    #[track_caller]
    pub fn crash(&mut self) {
        self.haypile.crash();
        self.ours = Wire::to(self.haypile.port());
    }

    fn protocol(&mut self, version: u8) {
        for wire in [&mut self.ours, &mut self.theirs] {
            wire.send(format!("HELLO {version}\r\n").as_bytes());
            let reply = wire.reply();
            assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        }
    }
}

/// Commands written as in redis-cli.
pub fn lines(lines: &[&str]) -> Vec<(Same, Vec<Vec<u8>>)> {
    lines.iter().map(|line| (Same::Bytes, split_line(line))).collect()
}

fn show(command: &[Vec<u8>]) -> String {
    let shown = |arg: &Vec<u8>| format!("\"{}\"", arg[..arg.len().min(200)].escape_ascii());
    command.iter().map(shown).collect::<Vec<_>>().join(" ")
}
