//! The command table: lookup by name without allocation, and per-command counters.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::{FAMILIES, Spec};
use crate::observe::CallTimes;

/// Longer names are no command's.
const MAX_NAME: usize = 32;

/// A command or subcommand with its place in the table and its counters.
pub struct Command {
    /// What was declared.
    pub spec: &'static Spec,
    /// Its index in the table.
    pub index: u32,
    /// `get`; `client|list` for a subcommand.
    pub full_name: String,
    /// Indexes of its subcommands.
    pub subcommands: Vec<u32>,
    /// Its counters.
    pub stats: CommandStats,
}

/// Counters of one command, as in INFO commandstats.
#[derive(Default)]
pub struct CommandStats {
    /// Times it ran.
    pub calls: AtomicU64,
    /// Microseconds it ran, its share of commits included.
    pub usec: AtomicU64,
    /// Times it was refused before it ran.
    pub rejected: AtomicU64,
    /// Times it ran and answered an error.
    pub failed: AtomicU64,
    /// How long it took each time, if `latency-tracking` is on.
    pub times: CallTimes,
}

impl CommandStats {
    fn reset(&self) {
        for counter in [&self.calls, &self.usec, &self.rejected, &self.failed] {
            counter.store(0, Relaxed);
        }
        self.times.reset();
    }
}

/// What a request's name means.
pub enum Lookup<'t> {
    /// This command (the subcommand, if it has subcommands and one was given).
    Found(&'t Command),
    /// No such command.
    UnknownCommand,
    /// This container has no such subcommand.
    UnknownSubcommand(&'t Command),
}

/// All commands of a server.
pub struct Table {
    commands: Vec<Command>,
    by_name: HashMap<&'static str, u32, FixedState>,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// The table of [`FAMILIES`], counters at zero.
    pub fn new() -> Self {
        let mut table = Table { commands: Vec::new(), by_name: HashMap::default() };
        for spec in FAMILIES.iter().copied().flatten() {
            let index = table.push(spec, spec.name.to_owned());
            table.by_name.insert(spec.name, index);
            for sub in spec.subcommands {
                let sub_index = table.push(sub, format!("{}|{}", spec.name, sub.name));
                if let Some(container) = table.commands.get_mut(index as usize) {
                    container.subcommands.push(sub_index);
                }
            }
        }
        table
    }

    fn push(&mut self, spec: &'static Spec, full_name: String) -> u32 {
        let index = self.commands.len() as u32;
        self.commands.push(Command { spec, index, full_name, subcommands: Vec::new(), stats: CommandStats::default() });
        index
    }

    /// The command that `args` (name first) ask for.
    pub fn lookup(&self, args: &[Bytes]) -> Lookup<'_> {
        let Some(command) = args.first().and_then(|name| self.by_name(name)) else {
            return Lookup::UnknownCommand;
        };
        if command.subcommands.is_empty() {
            return Lookup::Found(command);
        }
        match args.get(1) {
            None => Lookup::Found(command),
            Some(name) => match self.subcommand(command, name) {
                Some(sub) => Lookup::Found(sub),
                None => Lookup::UnknownSubcommand(command),
            },
        }
    }

    /// The top-level command of this name in any case.
    pub fn by_name(&self, name: &[u8]) -> Option<&Command> {
        let mut lower = [0u8; MAX_NAME];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let name = std::str::from_utf8(lower).ok()?;
        self.by_name.get(name).and_then(|index| self.get(*index))
    }

    /// The command of this full name (`get`, `client|list`) in any case.
    pub fn by_full_name(&self, name: &[u8]) -> Option<&Command> {
        match memchr::memchr(b'|', name) {
            None => self.by_name(name),
            Some(bar) => self.subcommand(self.by_name(&name[..bar])?, &name[bar + 1..]),
        }
    }

    fn subcommand<'t>(&'t self, container: &'t Command, name: &[u8]) -> Option<&'t Command> {
        self.subcommands(container).find(|sub| sub.spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The subcommands of `container`, in order of declaration.
    pub fn subcommands<'t>(&'t self, container: &'t Command) -> impl Iterator<Item = &'t Command> {
        container.subcommands.iter().filter_map(|index| self.get(*index))
    }

    /// The command at this index.
    pub fn get(&self, index: u32) -> Option<&Command> {
        self.commands.get(index as usize)
    }

    /// Top-level commands, in order of declaration.
    pub fn top_level(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(|command| !command.full_name.contains('|'))
    }

    /// Commands and subcommands.
    pub fn all(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// Sets all counters to zero.
    pub fn reset_stats(&self) {
        self.commands.iter().for_each(|command| command.stats.reset());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::Flags;
    use super::*;

    #[test]
    fn declarations_are_sound() {
        let mut names = HashSet::new();
        for spec in FAMILIES.iter().copied().flatten() {
            assert!(names.insert(spec.name), "{} is declared twice", spec.name);
            for spec in std::iter::once(spec).chain(spec.subcommands) {
                assert_eq!(spec.name, spec.name.to_ascii_lowercase());
                assert!(spec.name.len() <= MAX_NAME);
                assert!(spec.arity != 0);
                assert!(!spec.summary.is_empty() && !spec.since.is_empty(), "{} has no manual", spec.name);
                let has = |flag| spec.flags.has(flag);
                let (write, read) = (has(Flags::WRITE), has(Flags::READONLY));
                assert!(!(write && read), "{} both writes and only reads", spec.name);
                assert!(
                    spec.keys.is_none() || write || read || has(Flags::MAY_REPLICATE),
                    "{} has keys but neither reads nor writes",
                    spec.name
                );
            }
        }
    }

    #[test]
    fn lookup_ignores_case() {
        let table = Table::new();
        let request =
            |words: &[&str]| words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect::<Vec<_>>();
        for (words, wanted) in [
            (&["PiNg"][..], Some("ping")),
            (&["client", "LIST"], Some("client|list")),
            (&["command"], Some("command")),
            (&["client", "nope"], None),
            (&["nope"], None),
            (&["a name that is longer than any command's name can be"], None),
            (&["p\u{fc}ng"], None),
        ] {
            let found = match table.lookup(&request(words)) {
                Lookup::Found(command) => Some(command.full_name.as_str()),
                _ => None,
            };
            assert_eq!(found, wanted, "{words:?}");
        }
        assert!(table.by_full_name(b"CONFIG|GET").is_some());
        assert!(table.by_full_name(b"config|nope").is_none());
    }
}
