//! The process's log: one line an event, with UTC time, level, message and fields, to standard error or a file.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{fmt as lines, reload};

use super::log_file::LogFile;
use crate::config::{Config, LogLevel};

/// The log folder of a daemon that names none, in `dir`.
const DEFAULT_FOLDER: &str = "log";

/// The process's log. There is one, from [`start`](Self::start) to the end of the process.
pub struct Logging {
    output: Output,
    level: reload::Handle<Targets, Registry>,
}

impl Logging {
    /// Starts logging, as the configuration says: every event and panic from now on. A log file is only touched once
    /// there is a line for it, or by [`open`](Self::open).
    pub fn start(config: &Config) -> io::Result<Logging> {
        let folder: Option<PathBuf> =
            config.log_path().or_else(|| config.daemonize().then(|| config.dir().join(DEFAULT_FOLDER)));
        let output = Output::new(match folder {
            Some(folder) => Sink::File(LogFile::new(&folder, config.log_max_size(), config.log_max_files())),
            None => Sink::Stderr,
        });
        let (subscriber, level) = subscriber(output.clone(), config.loglevel());
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
        log_panics();
        Ok(Logging { output, level })
    }

    /// Opens the log file now. The error names it.
    pub fn open(&self) -> io::Result<()> {
        self.output.with_file(|file| file.open().map(drop))
    }

    /// Opens the log file by its name again, after it was renamed from outside.
    pub fn reopen(&self) -> io::Result<()> {
        self.output.with_file(LogFile::reopen)
    }

    /// Logs `level` and the graver ones from now on.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, and with it the log.
        let _ = self.level.reload(targets(level));
    }
}

fn subscriber(output: Output, level: LogLevel) -> (impl Subscriber, reload::Handle<Targets, Registry>) {
    let (filter, handle) = reload::Layer::new(targets(level));
    let lines = lines::layer().with_ansi(false).with_target(false).with_timer(UtcMillis).with_writer(output);
    (tracing_subscriber::registry().with(filter).with(lines), handle)
}

/// `level` for this program, warnings for the libraries in it.
fn targets(level: LogLevel) -> Targets {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(filter.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), filter)
}

/// A panic is logged where it can be found: a daemon has no standard error.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        tracing::error!(location, thread = thread.name().unwrap_or("unnamed"), "panic: {message}");
    }));
}

/// `2026-01-31T23:59:59.123Z`.
struct UtcMillis;

impl FormatTime for UtcMillis {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let mut micros = String::with_capacity(27);
        SystemTime.format_time(&mut Writer::new(&mut micros))?;
        let millis = micros.get(.."2026-01-31T23:59:59.123".len()).unwrap_or(&micros);
        write!(writer, "{millis}Z")
    }
}

/// Where the lines go.
enum Sink {
    Stderr,
    File(LogFile),
}

/// The sink, shared by all threads; a line is written whole.
#[derive(Clone)]
struct Output(Arc<Mutex<Sink>>);

impl Output {
    fn new(sink: Sink) -> Self {
        Output(Arc::new(Mutex::new(sink)))
    }

    fn with_file(&self, act: impl FnOnce(&mut LogFile) -> io::Result<()>) -> io::Result<()> {
        match &mut *self.0.lock() {
            Sink::Stderr => Ok(()),
            Sink::File(file) => {
                act(file).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.path().display())))
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines(self.0.lock())
    }
}

/// Takes one formatted event at a time.
struct Lines<'a>(MutexGuard<'a, Sink>);

impl Write for Lines<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = one_line(event);
        match &mut *self.0 {
            Sink::Stderr => io::stderr().write_all(&line)?,
            Sink::File(file) => file.write_line(&line)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The event with the line breaks inside it escaped, so that text from outside cannot pose as a line of the log.
fn one_line(event: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let body = event.strip_suffix(b"\n").unwrap_or(event);
    if memchr::memchr2(b'\n', b'\r', body).is_none() {
        return event.into();
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for &byte in body {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(byte),
        }
    }
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_event_above_the_level() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(Sink::File(LogFile::new(dir.path(), 1 << 20, 0)));
        let (subscriber, level) = subscriber(output, LogLevel::Info);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(db = "db0", slot = 3, "opened");
            tracing::debug!("not this");
            level.reload(targets(LogLevel::Debug)).unwrap();
            tracing::debug!("but {}", "this\nhere");
            tracing::info!(target: "h2", "a library's chatter");
        });
        let text = std::fs::read_to_string(dir.path().join("haypile.log")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let (time, rest) = lines[0].split_at(24);
        assert!(time.starts_with("20") && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
        assert_eq!(rest, "  INFO opened db=\"db0\" slot=3");
        assert!(lines[1].ends_with("DEBUG but this\\nhere"), "{}", lines[1]);
    }
}
