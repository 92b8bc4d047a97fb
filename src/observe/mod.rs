//! What the server tells of itself: counters, the slow log, INFO.

pub mod info;
mod slowlog;
mod stats;

pub use slowlog::{SlowCommand, SlowLog};
pub use stats::{Counter, ErrorStats, Stats};
