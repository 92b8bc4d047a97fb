//! What a client of the history does: the families it owns, and the next operation on each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::super::unix_ms;
use super::HistoryOptions;
use super::family::{Family, Form, Key, Op, stamp};
use super::value::{Change, Data, Kind};

const HOUR: u64 = 3_600_000;

/// What a family is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// SET, DEL, PEXPIREAT, PERSIST.
    Register,
    /// SET of rising numbers, for readers.
    Monotone,
    /// INCR and INCRBY of positive numbers, for readers.
    Counter,
    /// APPEND and SETRANGE of a long string.
    Blob,
    /// RPUSH, and LTRIM when it is long.
    Log,
    /// LPUSH, RPUSH, LPOP, RPOP, LSET.
    Deque,
    Set,
    Hash,
    Zset,
    Stream,
    /// SET PXAT, soon over.
    Volatile,
    /// MSET of the same number over slots.
    Group,
    /// MULTI … EXEC over slots, types and databases.
    Transaction,
    /// EVAL over slots and types.
    Script,
    /// RENAME and COPY between two keys.
    Rename,
    /// LMOVE between two lists.
    ListMove,
    /// SMOVE between two sets.
    SetMove,
    /// Keys of a database of their own, and FLUSHDB.
    Flush,
}

/// How many families of each role a client has.
const ROLES: [(Role, usize); 18] = [
    (Role::Register, 3),
    (Role::Monotone, 2),
    (Role::Counter, 2),
    (Role::Blob, 1),
    (Role::Log, 2),
    (Role::Deque, 1),
    (Role::Set, 1),
    (Role::Hash, 1),
    (Role::Zset, 1),
    (Role::Stream, 1),
    (Role::Volatile, 1),
    (Role::Group, 2),
    (Role::Transaction, 1),
    (Role::Script, 1),
    (Role::Rename, 1),
    (Role::ListMove, 1),
    (Role::SetMove, 1),
    (Role::Flush, 1),
];

/// A family with what its operations are made from.
pub struct Source {
    pub role: Role,
    pub family: Family,
    /// One more than the epoch in which an operation on all keys was acknowledged last; 0 = never.
    pub whole: Arc<AtomicU64>,
    next: u64,
}

impl Role {
    /// The keys: the type of each, and whether it is in the second database.
    fn keys(self) -> Vec<(Kind, bool)> {
        let kinds: &[(Kind, bool)] = match self {
            Role::Register | Role::Monotone | Role::Counter | Role::Blob | Role::Volatile => &[(Kind::Text, false)],
            Role::Log | Role::Deque => &[(Kind::List, false)],
            Role::Set => &[(Kind::Set, false)],
            Role::Hash => &[(Kind::Hash, false)],
            Role::Zset => &[(Kind::Zset, false)],
            Role::Stream => &[(Kind::Stream, false)],
            Role::Group | Role::Flush => &[(Kind::Text, false); 4],
            Role::Transaction => &[
                (Kind::Text, false),
                (Kind::List, false),
                (Kind::Hash, false),
                (Kind::Zset, false),
                (Kind::Text, true),
                (Kind::Text, true),
            ],
            Role::Script => &[(Kind::Text, false), (Kind::List, false), (Kind::Text, false)],
            Role::Rename => &[(Kind::Text, false); 2],
            Role::ListMove => &[(Kind::List, false); 2],
            Role::SetMove => &[(Kind::Set, false); 2],
        };
        kinds.to_vec()
    }

    /// Whether the operations do not all concern the same slots, so that a crash may leave a later one of a pipeline and not an
    /// earlier one: only one at a time is sent.
    pub fn is_serial(self) -> bool {
        matches!(self, Role::Rename | Role::ListMove | Role::SetMove | Role::Flush)
    }

    /// Whether every operation changes all keys, so that readers see all of them at the same number.
    pub fn is_whole(self) -> bool {
        matches!(self, Role::Group | Role::Transaction | Role::Script)
    }
}

/// All families of client number `client`.
pub fn sources(client: usize, options: &HistoryOptions, rng: &mut StdRng) -> Vec<Source> {
    let roles = ROLES.iter().flat_map(|(role, count)| std::iter::repeat_n(*role, *count));
    let mut sources = Vec::new();
    for (nth, role) in roles.enumerate() {
        // One database cannot be flushed by several clients: each of them would have to know of the others.
        if role == Role::Flush && client > 0 {
            continue;
        }
        let db = rng.random_range(0..options.databases);
        let second = (db + 1) % options.databases;
        let name = format!("{}{client}.{nth}", options.prefix);
        let keys = role.keys().into_iter().enumerate().map(|(key, (kind, elsewhere))| Key {
            db: match role {
                Role::Flush => options.databases,
                _ if elsewhere => second,
                _ => db,
            },
            name: format!("{name}.{key}"),
            kind,
        });
        let family = Family::new(name.clone(), keys.collect(), options.replicas);
        sources.push(Source { role, family, whole: Arc::default(), next: 1 });
    }
    sources
}

/// A stamped text of some length.
fn text(family: &str, number: u64, rng: &mut StdRng) -> Vec<u8> {
    let len = match rng.random_range(0..100) {
        0..60 => rng.random_range(0..40),
        60..92 => rng.random_range(0..300),
        92..99 => rng.random_range(0..3_000),
        _ => rng.random_range(0..30_000),
    };
    let mut text = stamp(family, number).into_bytes();
    let from = text.len();
    text.resize(from + len, 0);
    rng.fill_bytes(&mut text[from..]);
    text
}

fn short(family: &str, number: u64) -> Vec<u8> {
    stamp(family, number).into_bytes()
}

fn name(prefix: &str, rng: &mut StdRng, count: u64) -> Vec<u8> {
    format!("{prefix}{}", rng.random_range(0..count)).into_bytes()
}

fn names(prefix: &str, rng: &mut StdRng, count: u64) -> Vec<Vec<u8>> {
    let wanted = rng.random_range(1..=3);
    let mut names: Vec<_> = (0..wanted).map(|_| name(prefix, rng, count)).collect();
    names.sort();
    names.dedup();
    names
}

impl Source {
    /// How much key number `key` holds: bytes or elements.
    fn len(&self, key: usize) -> usize {
        match &self.family.state()[key].data {
            Data::Missing => 0,
            Data::Text(bytes) => bytes.len(),
            Data::List(items) => items.len(),
            Data::Set(items) => items.len(),
            Data::Hash(items) => items.len(),
            Data::Zset(items) => items.len(),
            Data::Stream(items) => items.len(),
        }
    }

    /// The next operation.
    pub fn next_op(&mut self, rng: &mut StdRng) -> Op {
        let number = self.next;
        self.next += 1;
        let (form, steps) = self.steps(number, rng);
        Op { form, steps, number }
    }

    fn steps(&self, n: u64, rng: &mut StdRng) -> (Form, Vec<(usize, Change)>) {
        let family = self.family.name.as_str();
        let percent = rng.random_range(0..100);
        let later = |rng: &mut StdRng| unix_ms() + HOUR + rng.random_range(0..HOUR);
        let plain = |change| (Form::Plain, vec![(0, change)]);
        match self.role {
            Role::Register => plain(match percent {
                0..80 => Change::Set(text(family, n, rng)),
                80..90 => Change::ExpireAt(later(rng)),
                90..95 => Change::Persist,
                _ => Change::Del,
            }),
            Role::Monotone => plain(Change::Set(text(family, n, rng))),
            Role::Counter => plain(Change::Incr(if percent < 70 { 1 } else { rng.random_range(2..100) })),
            Role::Blob => plain(match percent {
                _ if self.len(0) > 100_000 => Change::Set(text(family, n, rng)),
                0..70 => Change::Append(text(family, n, rng)),
                _ => Change::SetRange(rng.random_range(0..self.len(0) + 1000), text(family, n, rng)),
            }),
            Role::Log if self.len(0) > 1200 => plain(Change::KeepLast(400)),
            Role::Log => plain(Change::RPush(vec![text(family, n, rng); if percent < 90 { 1 } else { 3 }])),
            Role::Deque => plain(match percent {
                0..30 => Change::LPush(vec![short(family, n)]),
                30..60 => Change::RPush(vec![text(family, n, rng), b"x".to_vec()]),
                60..75 => Change::LPop(rng.random_range(1..4)),
                75..90 => Change::RPop(rng.random_range(1..4)),
                90..98 => Change::LSet(rng.random_range(0..self.len(0) + 1), short(family, n)),
                98 => Change::ExpireAt(later(rng)),
                _ => Change::Del,
            }),
            Role::Set => plain(match percent {
                0..60 => Change::SAdd(names("m", rng, 60)),
                60..97 => Change::SRem(names("m", rng, 60)),
                97..99 => Change::ExpireAt(later(rng)),
                _ => Change::Del,
            }),
            Role::Hash => plain(match percent {
                0..50 => Change::HSet(names("f", rng, 30).into_iter().map(|f| (f, text(family, n, rng))).collect()),
                50..75 => Change::HIncr(name("c", rng, 5), rng.random_range(-10..50)),
                75..97 => Change::HDel(names("f", rng, 30)),
                97..99 => Change::ExpireAt(later(rng)),
                _ => Change::Del,
            }),
            Role::Zset => plain(match percent {
                0..40 => Change::ZAdd(names("m", rng, 60).into_iter().map(|m| (m, n as i64)).collect()),
                40..70 => Change::ZIncr(name("m", rng, 60), rng.random_range(-10..50)),
                70..97 => Change::ZRem(names("m", rng, 60)),
                97..99 => Change::ExpireAt(later(rng)),
                _ => Change::Del,
            }),
            Role::Stream => plain(match percent {
                0..85 => Change::XAdd(n, text(family, n, rng)),
                85..92 => Change::XTrim(50),
                _ => Change::XDel(rng.random_range(1..=n)),
            }),
            Role::Volatile => plain(Change::SetUntil(text(family, n, rng), unix_ms() + rng.random_range(200..1500))),
            Role::Group => {
                let value = text(family, n, rng);
                (Form::Mset, (0..self.family.keys.len()).map(|key| (key, Change::Set(value.clone()))).collect())
            }
            Role::Transaction => {
                let value = text(family, n, rng);
                let mut steps = vec![
                    (0, Change::Set(value.clone())),
                    (1, Change::RPush(vec![short(family, n)])),
                    (2, Change::HSet(vec![(b"last".to_vec(), short(family, n)), (name("f", rng, 20), value.clone())])),
                    (3, Change::ZAdd(vec![(b"last".to_vec(), n as i64)])),
                    (4, Change::Set(value)),
                    (5, Change::Incr(1)),
                ];
                if self.len(1) > 300 {
                    steps.insert(2, (1, Change::KeepLast(50)));
                }
                (Form::Multi, steps)
            }
            Role::Script => {
                let mut steps = vec![
                    (0, Change::Set(text(family, n, rng))),
                    (1, Change::RPush(vec![short(family, n)])),
                    (2, Change::Incr(1)),
                ];
                if self.len(1) > 300 {
                    steps.push((1, Change::KeepLast(50)));
                }
                (Form::Eval, steps)
            }
            Role::Rename => {
                let from = usize::from(percent % 2 == 0);
                let change = match percent {
                    0..50 => Change::Set(text(family, n, rng)),
                    50..75 => Change::RenameTo(1 - from),
                    75..90 => Change::CopyTo(1 - from),
                    _ => Change::Del,
                };
                (Form::Plain, vec![(from, change)])
            }
            Role::ListMove => {
                let from = usize::from(percent % 2 == 0);
                let change = match percent {
                    0..40 => Change::RPush(vec![short(family, n)]),
                    40..80 => Change::MoveTo(1 - from),
                    _ => Change::LPop(1),
                };
                (Form::Plain, vec![(from, change)])
            }
            Role::SetMove => {
                let from = usize::from(percent % 2 == 0);
                let change = match percent {
                    0..40 => Change::SAdd(names("m", rng, 20)),
                    40..80 => Change::SMoveTo(1 - from, name("m", rng, 20)),
                    _ => Change::SRem(names("m", rng, 20)),
                };
                (Form::Plain, vec![(from, change)])
            }
            Role::Flush if percent < 3 => (Form::Flush, Vec::new()),
            Role::Flush => {
                let key = rng.random_range(0..self.family.keys.len());
                (Form::Plain, vec![(key, Change::Set(text(family, n, rng)))])
            }
        }
    }

    /// An operation was acknowledged in `epoch`.
    pub fn acknowledged(&self, epoch: u64) {
        self.whole.store(epoch + 1, Ordering::SeqCst);
    }
}
