//! One setting's current value, readable at any time without a lock.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::output_limits::OutputLimits;
use super::table::Setting;
use super::value::{Kind, Value, parse_percentiles, split_master};

/// A setting and its value. A number is one relaxed load, a text one `Arc` clone.
pub(super) struct Cell {
    pub(super) setting: &'static Setting,
    number: AtomicI64,
    /// Holds the value of settings that are text; empty for the others.
    text: ArcSwap<Arc<str>>,
    /// What the text says, of the one setting that is asked for with every pipeline.
    limits: ArcSwap<OutputLimits>,
    is_text: bool,
    /// Changed by CONFIG SET since the start: what CONFIG REWRITE writes.
    changed: AtomicBool,
}

impl Cell {
    pub(super) fn new(setting: &'static Setting) -> Self {
        let value = setting.default_value();
        let cell = Cell {
            setting,
            number: AtomicI64::new(0),
            text: ArcSwap::from_pointee("".into()),
            limits: ArcSwap::from_pointee(OutputLimits::default()),
            is_text: matches!(value, Value::Text(_)),
            changed: AtomicBool::new(false),
        };
        cell.store(value);
        cell
    }

    /// Sets the value; it must come from the setting's own kind.
    pub(super) fn store(&self, value: Value) {
        match value {
            Value::Number(number) => self.number.store(number, Ordering::Relaxed),
            Value::Text(text) if matches!(self.setting.kind, Kind::OutputLimits) => {
                let merged = OutputLimits::merge(&self.text(), &text);
                self.limits.store(Arc::new(OutputLimits::parse(&merged)));
                self.text.store(Arc::new(merged.into()));
            }
            Value::Text(text) => self.text.store(Arc::new(text)),
        }
    }

    pub(super) fn value(&self) -> Value {
        if self.is_text { Value::Text(self.text()) } else { Value::Number(self.number()) }
    }

    pub(super) fn mark_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    pub(super) fn number(&self) -> i64 {
        self.number.load(Ordering::Relaxed)
    }

    pub(super) fn limits(&self) -> OutputLimits {
        **self.limits.load()
    }

    pub(super) fn text(&self) -> Arc<str> {
        Arc::clone(&self.text.load())
    }
}

/// A Rust type that a setting's value reads as. The setting's range keeps numbers within the type.
pub(super) trait Typed {
    fn read(cell: &Cell) -> Self;
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Typed for $type {
            fn read(cell: &Cell) -> Self {
                let number = cell.number();
                <$type>::try_from(number).unwrap_or(if number < 0 { <$type>::MIN } else { <$type>::MAX })
            }
        })*
    };
}

numbers!(u16 u32 u64 usize i32 i64);

impl Typed for bool {
    fn read(cell: &Cell) -> Self {
        cell.number() != 0
    }
}

impl Typed for Duration {
    fn read(cell: &Cell) -> Self {
        match cell.setting.kind {
            Kind::Milliseconds { .. } => Duration::from_millis(Typed::read(cell)),
            _ => Duration::from_secs(Typed::read(cell)),
        }
    }
}

/// Percentages.
impl Typed for Vec<f64> {
    fn read(cell: &Cell) -> Self {
        parse_percentiles(&cell.text()).unwrap_or_default()
    }
}

impl Typed for Arc<str> {
    fn read(cell: &Cell) -> Self {
        cell.text()
    }
}

impl Typed for PathBuf {
    fn read(cell: &Cell) -> Self {
        PathBuf::from(&*cell.text())
    }
}

/// A path that may be empty.
impl Typed for Option<PathBuf> {
    fn read(cell: &Cell) -> Self {
        Some(PathBuf::read(cell)).filter(|path| !path.as_os_str().is_empty())
    }
}

impl Typed for Vec<IpAddr> {
    fn read(cell: &Cell) -> Self {
        cell.text().split_whitespace().filter_map(|address| address.parse().ok()).collect()
    }
}

/// A master: host and port.
impl Typed for Option<(String, u16)> {
    fn read(cell: &Cell) -> Self {
        split_master(&cell.text()).map(|(host, port)| (host.to_string(), port))
    }
}
