//! What the command table says of one command: name, arity, flags, keys, manual, handler.

use bytes::Bytes;

use super::{CommandError, Ctx};

/// Runs a command. `args[0]` is the command's name (for a subcommand `args[1]` is its own);
/// the arity was checked and the keys are locked. Writes exactly one reply into `ctx.reply`, or
/// returns the error to reply with (whatever it wrote before is then taken back).
pub type Handler = fn(&mut Ctx<'_, '_>, &[Bytes]) -> Result<(), CommandError>;

/// One command or subcommand. Declared in a `static` slice of its family.
pub struct Spec {
    /// Lower-case name; a subcommand's own name, without its container's.
    pub name: &'static str,
    /// Number of arguments with the name(s): exactly this many, or at least `-arity` if negative.
    pub arity: i32,
    /// What the dispatcher must know before it runs the handler.
    pub flags: Flags,
    /// Which arguments are keys.
    pub keys: Keys,
    /// The chapter of the manual.
    pub group: Group,
    /// First Redis (or Haypile) version that has it.
    pub since: &'static str,
    /// Cost in the manual's notation, `O(1)`.
    pub complexity: &'static str,
    /// One sentence of manual.
    pub summary: &'static str,
    /// The arguments after the name(s), in the manual's notation.
    pub usage: &'static str,
    /// What runs. For a container: what runs when no subcommand is given.
    pub handler: Handler,
    /// The subcommands of a container; empty for everything else.
    pub subcommands: &'static [Spec],
}

impl Spec {
    /// Whether `argc` arguments (names included) fit.
    pub fn arity_fits(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { argc >= wanted } else { argc == wanted }
    }

    /// A container whose behaviour is in its subcommands alone: `CONFIG`, `CLIENT`, …
    pub const fn container(
        name: &'static str,
        group: Group,
        since: &'static str,
        summary: &'static str,
        subcommands: &'static [Spec],
    ) -> Spec {
        Spec {
            name,
            arity: -2,
            flags: Flags::NONE,
            keys: Keys::None,
            group,
            since,
            complexity: "Depends on subcommand.",
            summary,
            usage: "",
            handler: super::help::container_without_subcommand,
            subcommands,
        }
    }

    /// The `HELP` subcommand of a container: lists the container's subcommands from the table.
    pub const fn help(group: Group, since: &'static str) -> Spec {
        Spec {
            name: "help",
            arity: 2,
            flags: Flags::LOADING.and(Flags::STALE),
            keys: Keys::None,
            group,
            since,
            complexity: "O(1)",
            summary: "Prints this help.",
            usage: "",
            handler: super::help::help,
            subcommands: &[],
        }
    }
}

/// A set of command flags. Combine with [`Flags::and`], which works in statics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// May change data: refused on a read-only replica, takes its keys exclusively.
    pub const WRITE: Flags = Flags(1);
    /// Reads data and never changes it.
    pub const READONLY: Flags = Flags(1 << 1);
    /// May grow the data set.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// An operator's command.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// O(1) or O(log n) and never waits: may run inside an open group of uncommitted writes.
    pub const FAST: Flags = Flags(1 << 4);
    /// Not allowed from scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 5);
    /// Allowed while the data set is loading.
    pub const LOADING: Flags = Flags(1 << 6);
    /// Allowed on a replica that has lost its master.
    pub const STALE: Flags = Flags(1 << 7);
    /// Allowed before authentication.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// May scan much or sleep: runs on the blocking pool, with nothing pending.
    pub const BLOCKING_POOL: Flags = Flags(1 << 9);
    /// Names no key but touches all of them.
    pub const ALL_KEYS: Flags = Flags(1 << 10);
    /// Can hurt in the wrong hands (ACL category `@dangerous`); ADMIN implies it.
    pub const DANGEROUS: Flags = Flags(1 << 11);
    /// Never enters the slow log: its arguments are secrets, or the commands that it runs enter it themselves.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 12);

    /// Comes to know its keys only while it runs: scripts, EXEC, SORT. Runs by itself, with what it turns out to need locked
    /// ([`crate::keyspace::LockPlan`]); all it writes is one write.
    pub const PLANNED: Flags = Flags(1 << 13);
    /// Not queued by MULTI, but carried out at once.
    pub const IN_MULTI: Flags = Flags(1 << 14);
    /// Refused inside of MULTI.
    pub const NO_MULTI: Flags = Flags(1 << 15);
    /// Allowed while a RESP2 connection is subscribed to channels.
    pub const SUBSCRIBED: Flags = Flags(1 << 16);
    /// May wait for other clients.
    pub const BLOCKING: Flags = Flags(1 << 17);
    /// Publishes, or runs commands that may.
    pub const PUBSUB: Flags = Flags(1 << 18);
    /// Its key positions depend on its arguments.
    pub const MOVABLE_KEYS: Flags = Flags(1 << 19);
    /// Is no write, but may lead to one or reach other nodes: it publishes, counts a HyperLogLog, or calls other commands, which are refused
    /// or not by themselves. Held back by CLIENT PAUSE WRITE, and not for read-only scripts.
    pub const MAY_REPLICATE: Flags = Flags(1 << 20);

    /// Waits for others who may wait for keys: inside of EXEC what is before it is committed, and all keys are let go of. Never called
    /// from scripts.
    pub const RELEASES_KEYS: Flags = Flags(1 << 21);

    /// Both sets together.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of this set that are not in `other`.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// The flags that Redis also has, by the names it shows in COMMAND INFO.
    pub fn redis_names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: &[(Flags, &str)] = &[
            (Flags::WRITE, "write"),
            (Flags::READONLY, "readonly"),
            (Flags::DENYOOM, "denyoom"),
            (Flags::ADMIN, "admin"),
            (Flags::NOSCRIPT, "noscript"),
            (Flags::LOADING, "loading"),
            (Flags::STALE, "stale"),
            (Flags::FAST, "fast"),
            (Flags::NO_AUTH, "no_auth"),
            (Flags::NO_MULTI, "no_multi"),
            (Flags::BLOCKING, "blocking"),
            (Flags::PUBSUB, "pubsub"),
            (Flags::MOVABLE_KEYS, "movablekeys"),
            (Flags::MAY_REPLICATE, "may_replicate"),
        ];
        NAMES.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name)
    }
}

/// Which arguments of a command are keys.
#[derive(Clone, Copy)]
pub enum Keys {
    /// None.
    None,
    /// Arguments `first`, `first + step`, … up to `last`, which counts from the end when negative
    /// (-1 is the last argument).
    Range {
        /// Index of the first key; 1 for most commands.
        first: usize,
        /// Index of the last key, or from the end when negative.
        last: i32,
        /// Distance from key to key; 2 for MSET.
        step: usize,
    },
    /// The command's own rule; it pushes what it finds. `db` is the connection's database.
    Find(fn(db: usize, args: &[Bytes], found: &mut Vec<KeyRef>)),
}

impl Keys {
    /// Argument 1 alone, as in GET.
    pub const ONE: Keys = Keys::Range { first: 1, last: 1, step: 1 };
    /// Arguments 1 and 2, as in RENAME.
    pub const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
    /// All arguments, as in DEL.
    pub const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
    /// Every second argument, as in MSET.
    pub const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };

    /// Whether the command names no key.
    pub fn is_none(&self) -> bool {
        matches!(self, Keys::None)
    }

    /// Indexes of the keys of a `Range` in a request of `argc` arguments.
    pub fn range(first: usize, last: i32, step: usize, argc: usize) -> impl Iterator<Item = usize> + Clone {
        let end = if last < 0 {
            (argc as i64 + i64::from(last)).max(-1) as usize
        } else {
            (last as usize).min(argc.saturating_sub(1))
        };
        let empty = argc == 0 || end >= argc || first > end;
        (first..if empty { first } else { end + 1 }).step_by(step.max(1))
    }

    /// Pushes the keys of this request to `found`.
    pub fn collect(&self, db: usize, args: &[Bytes], found: &mut Vec<KeyRef>) {
        match *self {
            Keys::None => {}
            Keys::Range { first, last, step } => found.extend(
                Keys::range(first, last, step, args.len())
                    .filter_map(|at| args.get(at))
                    .map(|key| KeyRef { db, key: key.clone() }),
            ),
            Keys::Find(find) => find(db, args, found),
        }
    }
}

/// A key that a request names, with the database it lies in (COPY … DB names another one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Index of the database.
    pub db: usize,
    /// The key.
    pub key: Bytes,
}

/// A chapter of the manual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Strings.
    String,
    /// Strings as arrays of bits.
    Bitmap,
    /// HyperLogLogs.
    HyperLogLog,
    /// Sorted sets of positions.
    Geo,
    /// Keys of any type.
    Generic,
    /// Lists.
    List,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Hashes.
    Hash,
    /// Streams.
    Stream,
    /// Channels.
    PubSub,
    /// MULTI and WATCH.
    Transactions,
    /// Scripts and functions.
    Scripting,
    /// The connection itself.
    Connection,
    /// Redis Cluster.
    Cluster,
    /// The server.
    Server,
}

impl Group {
    /// All chapters, in the order of the manual.
    pub const ALL: [Group; 16] = [
        Group::String,
        Group::Hash,
        Group::List,
        Group::Set,
        Group::SortedSet,
        Group::Stream,
        Group::Bitmap,
        Group::HyperLogLog,
        Group::Geo,
        Group::Generic,
        Group::PubSub,
        Group::Transactions,
        Group::Scripting,
        Group::Connection,
        Group::Server,
        Group::Cluster,
    ];

    /// Its name in COMMAND DOCS.
    pub const fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::HyperLogLog => "hyperloglog",
            Group::Geo => "geo",
            Group::Generic => "generic",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::Stream => "stream",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Scripting => "scripting",
            Group::Connection => "connection",
            Group::Cluster => "cluster",
            Group::Server => "server",
        }
    }

    /// The ACL category that the chapter stands for, if it does.
    pub const fn category(self) -> Option<&'static str> {
        match self {
            Group::String => Some("@string"),
            Group::Bitmap => Some("@bitmap"),
            Group::HyperLogLog => Some("@hyperloglog"),
            Group::Geo => Some("@geo"),
            Group::Generic => Some("@keyspace"),
            Group::List => Some("@list"),
            Group::Set => Some("@set"),
            Group::SortedSet => Some("@sortedset"),
            Group::Hash => Some("@hash"),
            Group::Stream => Some("@stream"),
            Group::PubSub => Some("@pubsub"),
            Group::Transactions => Some("@transaction"),
            Group::Scripting => Some("@scripting"),
            Group::Connection => Some("@connection"),
            Group::Cluster | Group::Server => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(keys: Keys, argc: usize) -> Vec<usize> {
        match keys {
            Keys::Range { first, last, step } => Keys::range(first, last, step, argc).collect(),
            _ => vec![],
        }
    }

    #[test]
    fn key_positions() {
        assert_eq!(indexes(Keys::ONE, 2), [1]);
        assert_eq!(indexes(Keys::ONE, 5), [1]);
        assert_eq!(indexes(Keys::ALL, 4), [1, 2, 3]);
        assert_eq!(indexes(Keys::PAIRS, 5), [1, 3]);
        assert_eq!(indexes(Keys::TWO, 3), [1, 2]);
        assert_eq!(indexes(Keys::ALL, 1), [] as [usize; 0]);
        assert_eq!(indexes(Keys::Range { first: 2, last: 2, step: 1 }, 3), [2]);
        assert_eq!(indexes(Keys::Range { first: 1, last: -2, step: 1 }, 4), [1, 2]);
    }

    #[test]
    fn flag_sets() {
        let flags = Flags::WRITE.and(Flags::FAST);
        assert!(flags.has(Flags::WRITE) && flags.has(Flags::FAST) && !flags.has(Flags::ADMIN));
        assert_eq!(flags.redis_names().collect::<Vec<_>>(), ["write", "fast"]);
    }
}
