//! docs/commands.md: which commands of Redis there are here, and where they differ.
//!
//! What exists is read from the command table; what does not, and what differs, is said in [`absent`] and [`differences`]. Tests hold all
//! of them together, with `redis-7.4.txt`: the commands that there should be.

mod absent;
mod differences;

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Group, Table};
use absent::{ABSENT, REFUSED};
use differences::{DIFFERENCES, EVERYWHERE};

/// The commands of Redis 7.4, without those of modules and of Sentinel: name, first version and group, one a line.
const REDIS: &str = include_str!("manual/redis-7.4.txt");

/// A command in the document.
struct Row {
    group: Group,
    since: &'static str,
    is_redis: bool,
    is_supported: bool,
    note: &'static str,
}

/// A line of [`REDIS`].
struct Listed {
    name: &'static str,
    since: &'static str,
    group: Group,
}

fn listed() -> impl Iterator<Item = Listed> {
    REDIS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split(' ');
        let (name, since, group) = (words.next()?, words.next()?, words.next()?);
        let group = Group::ALL.into_iter().find(|known| known.name() == group)?;
        Some(Listed { name, since, group })
    })
}

/// The pairs of a list that gives several names one text.
fn each(
    list: &'static [(&'static [&'static str], &'static str)],
) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.iter().flat_map(|(names, text)| names.iter().map(|name| (*name, *text)))
}

/// Every command by its full name, `client|list`.
fn rows() -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = Table::new()
        .all()
        .map(|command| {
            let spec = command.spec;
            let row = Row { group: spec.group, since: spec.since, is_redis: false, is_supported: true, note: "" };
            (command.full_name.clone(), row)
        })
        .collect();
    for Listed { name, since, group } in listed() {
        let absent = Row { group, since, is_redis: true, is_supported: false, note: "" };
        rows.entry(name.to_owned()).or_insert(absent).is_redis = true;
    }
    for (name, note) in each(DIFFERENCES).chain(each(ABSENT)) {
        rows.entry(name.to_owned()).and_modify(|row| row.note = note);
    }
    for (name, note) in each(REFUSED) {
        rows.entry(name.to_owned()).and_modify(|row| (row.is_supported, row.note) = (false, note));
    }
    rows
}

/// The document, in Markdown.
pub fn markdown() -> String {
    let rows = rows();
    let count = |wanted: &dyn Fn(&Row) -> bool| rows.values().filter(|row| wanted(row)).count();
    let redis = count(&|row| row.is_redis);
    let supported = count(&|row| row.is_redis && row.is_supported);
    let own = count(&|row| !row.is_redis);
    let mut page = format!(
        "# Commands\n\n\
         <!-- Made by scripts/commands.sh from the command table; a test holds it to that. -->\n\n\
         {supported} of the {redis} commands and subcommands of Redis 7.4 (modules and Sentinel apart) are supported, and \
         {own} more. Replies, errors, events and counters are those of Redis 7.0.15: its own test suite says so \
         (`scripts/redis-suite.sh`), and tests that compare replies byte by byte (`tests/commands`); commands that are newer \
         follow Redis 7.4. `COMMAND DOCS name` tells what a command takes and costs.\n\n\
         What is different everywhere:\n\n"
    );
    EVERYWHERE.iter().for_each(|text| page += &format!("- {text}\n"));
    for group in Group::ALL {
        let mut of_group = rows.iter().filter(|(_, row)| row.group == group).peekable();
        if of_group.peek().is_none() {
            continue;
        }
        page += &format!(
            "\n## {}\n\n| Command | Since | Supported | Where it differs |\n| --- | --- | --- | --- |\n",
            title(group)
        );
        for (name, row) in of_group {
            // Writing to a string does not fail.
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                name.to_ascii_uppercase().replace('|', " "),
                if row.is_redis { row.since } else { "Haypile" },
                if row.is_supported { "yes" } else { "no" },
                row.note.replace('|', "\\|"),
            );
        }
    }
    page
}

fn title(group: Group) -> &'static str {
    match group {
        Group::String => "Strings",
        Group::Bitmap => "Bitmaps",
        Group::HyperLogLog => "HyperLogLogs",
        Group::Geo => "Geo",
        Group::Generic => "Keys",
        Group::List => "Lists",
        Group::Set => "Sets",
        Group::SortedSet => "Sorted sets",
        Group::Hash => "Hashes",
        Group::Stream => "Streams",
        Group::PubSub => "Channels",
        Group::Transactions => "Transactions",
        Group::Scripting => "Scripts and functions",
        Group::Connection => "Connection",
        Group::Cluster => "Cluster",
        Group::Server => "Server",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_document_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(document == markdown(), "docs/commands.md is not of this table: run scripts/commands.sh");
    }

    #[test]
    fn every_line_of_the_list_is_understood() {
        assert_eq!(listed().count() + 1, REDIS.lines().count());
    }

    #[test]
    fn a_command_of_redis_is_here_or_there_is_a_reason() {
        let table = Table::new();
        let absent: HashSet<&str> = each(ABSENT).map(|(name, _)| name).collect();
        let mut unexplained = Vec::new();
        for Listed { name, since, group } in listed() {
            match table.by_full_name(name.as_bytes()) {
                Some(command) => {
                    assert_eq!((command.spec.since, command.spec.group), (since, group), "{name}");
                    assert!(!absent.contains(name), "{name} is there: not for the list of what is absent");
                }
                None if absent.contains(name) => {}
                None => unexplained.push(name),
            }
        }
        assert!(unexplained.is_empty(), "absent without a reason: {unexplained:?}");
    }

    #[test]
    fn the_lists_name_commands() {
        let table = Table::new();
        let redis: HashSet<&str> = listed().map(|listed| listed.name).collect();
        for (name, _) in each(ABSENT) {
            assert!(redis.contains(name), "{name} is no command of Redis 7.4");
        }
        let mut seen = HashSet::new();
        for (name, _) in each(DIFFERENCES).chain(each(REFUSED)) {
            assert!(table.by_full_name(name.as_bytes()).is_some(), "there is no {name} to say something about");
            assert!(seen.insert(name), "{name} is named twice");
        }
    }
}
