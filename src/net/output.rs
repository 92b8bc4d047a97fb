//! `client-output-buffer-limit`: what may wait for a client that does not read, by its class.
//!
//! Two kinds of bytes wait for a client. *Replies* can be held back: no command of a client is executed while its connection writes, so at most
//! one pipeline's replies wait ([`super::connection`]), limit or no limit. *Messages* (of channels, MONITOR, CLIENT TRACKING) come from others
//! and cannot be held back: they need a limit. So a client of class `normal` that gets messages while that class has no limit is held to the one
//! of `pubsub` with them.
//!
//! The hard limit is kept where bytes are added, the soft one and a limit that was lowered by a look at all clients every second.

use std::time::Duration;

use super::{ClientInfo, ClientKind, client::Overrun};
use crate::config::{OutputLimit, OutputLimits};

/// The limit that a client is held to, and how many bytes count for it; `replies` are those that wait.
fn measure(limits: &OutputLimits, client: &ClientInfo, replies: usize) -> (OutputLimit, usize) {
    let messages = client.unsent();
    match class_limit(limits, client) {
        limit if limit.is_off() => (limits.pubsub, messages),
        limit => (limit, messages + replies),
    }
}

/// The limit of the client's class.
pub fn class_limit(limits: &OutputLimits, client: &ClientInfo) -> OutputLimit {
    match ClientKind::of(client) {
        ClientKind::Pubsub => limits.pubsub,
        ClientKind::Replica | ClientKind::Master => limits.slave,
        ClientKind::Normal => limits.normal,
    }
}

/// Closes the client if more waits for it than it may, with the `replies` that wait.
pub fn enforce(limits: &OutputLimits, client: &ClientInfo, replies: usize) {
    let (limit, waiting) = measure(limits, client, replies);
    let over_hard = limit.hard > 0 && waiting > limit.hard;
    let over_soft = client.over_soft_limit(waiting, limit.soft);
    if over_hard || over_soft > Duration::from_secs(limit.seconds) {
        client.overrun(Overrun::Output, waiting);
    }
}
