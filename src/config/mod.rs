//! The configuration of a node: one table of settings, read from the conf file and the command line, then shared.
//!
//! [`SETTINGS`] declares every setting once. [`Config`] holds their values and has a method for each that reads the
//! current one; settings that CONFIG SET may change are read again each time they are used.

mod cell;
mod choice;
mod error;
mod events;
mod file;
mod output_limits;
mod rewrite;
mod table;
mod value;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::sync::watch;

pub use choice::{Compression, DebugAccess, LogLevel, SyncMode};
pub use error::{ConfigError, ConfigSetError, Place, Problem, RewriteError};
pub use events::EventClasses;
pub use output_limits::{OutputLimit, OutputLimits};
pub use table::{SETTINGS, Setting, TakesEffect};
pub use value::{Kind, MAX_PORT, Value, ValueError};

use cell::Cell;
use file::{Line, parse_line};
use table::Cells;

/// The settings that have a flag of their own on the command line; the others are given with `--set`.
const FLAGS: [&str; 5] = ["port", "bind", "dir", "slaveof", "daemonize"];

/// The settings of one node, shared by all that read them.
pub struct Config {
    cells: Cells,
    /// The conf file, absolute.
    file: Option<PathBuf>,
    /// Taken by those that change settings or write them to the file.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
    /// What was set at the start, and where; the last one counts.
    places: Vec<(&'static Setting, Place)>,
}

impl Config {
    /// Worker threads: `thread-num`, or as many as the machine has processors.
    pub fn threads(&self) -> usize {
        match self.thread_num() {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// Reads the conf file at `path` (without one: the defaults), then applies `overrides`, pairs of a setting's name
    /// and value from the command line. Nothing is created. Paths come out absolute: `dir` is taken from the current
    /// folder, the others from `dir`.
    pub fn load(path: Option<&Path>, overrides: &[(String, String)]) -> Result<Config, ConfigError> {
        let mut loader = Loader { cells: Cells::defaults(), places: Vec::new(), of_earlier_sources: 0 };
        let file = path.map(|path| loader.file(path)).transpose()?;
        loader.overrides(overrides)?;
        loader.resolve_paths()?;
        Ok(Config {
            cells: loader.cells,
            file,
            writing: Mutex::new(()),
            changes: watch::Sender::new(0),
            places: loader.places,
        })
    }

    /// Where the value that a setting had at the start came from.
    pub fn place_of(&self, name: &str) -> Place {
        last_place(&self.places, |setting| setting.is_named(name))
    }

    /// The conf file this configuration was read from, absolute.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Names and values, as CONFIG GET answers them, of the settings whose name `matches` (given in lower case). One
    /// that matches under several names is answered under each, as Redis does.
    pub fn get(&self, matches: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for cell in self.cells.all() {
            for name in cell.setting.names().filter(|name| matches(name)) {
                found.push((name.to_string(), cell.setting.kind.format(&cell.value())));
            }
        }
        found
    }

    /// Changes settings at run time, all of them or, on an error, none. One that needs a restart, or is fixed, may be
    /// set to what it is: tools write back what they read.
    pub fn set(&self, pairs: &[(&str, &str)]) -> Result<(), ConfigSetError> {
        let _writing = self.writing.lock();
        let mut changes: Vec<(&Cell, Value)> = Vec::with_capacity(pairs.len());
        for &(name, text) in pairs {
            let cell = self.cells.named(name).ok_or_else(|| ConfigSetError::Unknown(name.to_string()))?;
            let refused = |why: String| ConfigSetError::Refused { name: name.to_string(), why };
            if cell.setting.takes_effect == TakesEffect::AtStart {
                let kind = cell.setting.kind;
                if kind.format(&cell.value()) == text || kind.parse(text).is_ok_and(|value| value == cell.value()) {
                    continue;
                }
                return Err(refused("can't set immutable config".into()));
            }
            if changes.iter().any(|(other, _)| std::ptr::eq(*other, cell)) {
                return Err(refused("duplicate parameter".into()));
            }
            let value = cell.setting.kind.parse(text).map_err(|error| refused(error.redis_text()))?;
            changes.push((cell, value));
        }
        for (cell, value) in changes {
            cell.store(value);
            cell.mark_changed();
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Writes what [`set`](Self::set) changed since the start into the conf file. Its comments, order and other lines
    /// stay, and what the command line overrides is not written: it belongs to the command line. Durable when it returns.
    pub fn rewrite(&self) -> Result<(), RewriteError> {
        let _writing = self.writing.lock();
        let file = self.file.as_deref().ok_or(RewriteError::NoFile)?;
        let changed = self.cells.all().filter(|cell| cell.is_changed());
        let changes: Vec<_> =
            changed.map(|cell| (cell.setting, cell.setting.kind.format_for_file(&cell.value()))).collect();
        Ok(rewrite::rewrite_file(file, &changes)?)
    }

    /// Counts the calls of [`set`](Self::set), for those who must act on a change instead of reading the value anew.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Cells {
    fn named(&self, name: &str) -> Option<&Cell> {
        self.all().find(|cell| cell.setting.is_named(name))
    }
}

/// A configuration that is being read.
struct Loader {
    cells: Cells,
    /// What was set, and where, in this order.
    places: Vec<(&'static Setting, Place)>,
    /// How many of `places` came before the source being read, which may override them but not repeat itself.
    of_earlier_sources: usize,
}

impl Loader {
    /// Reads the conf file and returns its absolute path.
    fn file(&mut self, path: &Path) -> Result<PathBuf, ConfigError> {
        let at_file = |error| ConfigError { place: Place::File(path.to_path_buf()), problem: Problem::Io(error) };
        let text = fs::read_to_string(path).map_err(at_file)?;
        for (number, line) in text.lines().enumerate() {
            let place = Place::Line(path.to_path_buf(), number + 1);
            match parse_line(line) {
                Line::Blank => {}
                Line::Setting { key, value } => self.assign(key, value, place)?,
                Line::Malformed => {
                    return Err(ConfigError { place, problem: Problem::Malformed });
                }
            }
        }
        std::path::absolute(path).map_err(at_file)
    }

    /// Applies the command line.
    fn overrides(&mut self, pairs: &[(String, String)]) -> Result<(), ConfigError> {
        self.of_earlier_sources = self.places.len();
        for (key, value) in pairs {
            let flag = if FLAGS.contains(&key.as_str()) { format!("--{key}") } else { format!("--set {key}") };
            self.assign(key, value, Place::Flag(flag))?;
        }
        Ok(())
    }

    fn assign(&mut self, key: &str, value: &str, place: Place) -> Result<(), ConfigError> {
        let fail = |place, problem| Err(ConfigError { place, problem });
        let Some(cell) = self.cells.named(key) else {
            return fail(place, Problem::UnknownKey(key.to_string()));
        };
        let setting = cell.setting;
        let mut of_this_source = self.places.iter().skip(self.of_earlier_sources);
        if let Some((_, first)) = of_this_source.find(|(other, _)| std::ptr::eq(*other, setting)) {
            let problem = Problem::Duplicate { key: key.to_string(), first: first.clone() };
            return fail(place, problem);
        }
        match setting.kind.parse(value) {
            Ok(value) => cell.store(value),
            Err(error) => {
                let shown = if matches!(setting.kind, Kind::Secret) { String::new() } else { value.to_string() };
                return fail(place, Problem::Value { key: setting.name, value: shown, error });
            }
        }
        self.places.push((setting, place));
        Ok(())
    }

    /// Makes the paths absolute and sees to it that no folder of data is, holds or lies in another.
    fn resolve_paths(&self) -> Result<(), ConfigError> {
        let paths = || self.cells.all().filter(|cell| matches!(cell.setting.kind, Kind::Path { .. }));
        let mut dir = PathBuf::new();
        // `dir` stands before the others in the table.
        for cell in paths().filter(|cell| !cell.text().is_empty()) {
            let text = cell.text();
            let error = |error| ConfigError { place: self.place(cell.setting), problem: Problem::Io(error) };
            let path = std::path::absolute(dir.join(&*text)).map_err(error)?;
            let text =
                path.to_str().ok_or_else(|| error(io::Error::other("the current folder's name is not UTF-8")))?;
            cell.store(Value::Text(text.into()));
            if cell.setting.name == "dir" {
                dir = path;
            }
        }
        let mut folders: Vec<(&'static Setting, PathBuf)> = Vec::new();
        for cell in paths().filter(|cell| !matches!(cell.setting.name, "dir" | "pidfile") && !cell.text().is_empty()) {
            let path = PathBuf::from(&*cell.text());
            if let Some((other, _)) =
                folders.iter().find(|(_, other)| path.starts_with(other) || other.starts_with(&path))
            {
                let problem = Problem::SharedFolder { key: cell.setting.name, path, other: other.name };
                return Err(ConfigError { place: self.place(cell.setting), problem });
            }
            folders.push((cell.setting, path));
        }
        Ok(())
    }

    fn place(&self, setting: &'static Setting) -> Place {
        last_place(&self.places, |other| std::ptr::eq(other, setting))
    }
}

/// Where a setting was last set.
fn last_place(places: &[(&'static Setting, Place)], is: impl Fn(&Setting) -> bool) -> Place {
    places.iter().rfind(|(setting, _)| is(setting)).map_or(Place::Default, |(_, place)| place.clone())
}

#[cfg(test)]
mod tests;
