//! What the server tells of itself: counters, the slow log, latencies, INFO.

pub mod info;
pub mod latency;
mod slowlog;
mod stats;
mod switches;

pub use latency::{CallTimes, LatencyMonitor};
pub use slowlog::{SlowCommand, SlowLog};
pub use stats::{Counter, ErrorStats, Stats};
pub use switches::Switches;
