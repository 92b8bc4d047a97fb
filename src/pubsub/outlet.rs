//! Sending out of band, with a bound on what a client that does not read may pile up.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::net::{ClientInfo, Closing, Reply};

/// Unsent bytes up to which the limits are not even looked at.
const UNQUESTIONED: usize = 64 << 10;

/// Sends messages to clients and closes those that are over the `pubsub` class of `client-output-buffer-limit`. It holds for all that is
/// sent out of band, to whatever client: replies need no limit, since nothing is read from a client that does not take them.
pub struct Outlet {
    config: Arc<Config>,
}

impl Outlet {
    /// With the limits of `config`.
    pub fn new(config: Arc<Config>) -> Self {
        Outlet { config }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sends encoded values. Does not wait.
    pub fn send(&self, client: &ClientInfo, encoded: &[u8]) {
        let unsent = client.send(encoded);
        if unsent > UNQUESTIONED {
            self.limit(client, unsent);
        }
    }

    fn limit(&self, client: &ClientInfo, unsent: usize) {
        let limit = self.config.client_output_buffer_limit().pubsub;
        let over_hard = limit.hard > 0 && unsent > limit.hard;
        let over_soft = client.over_soft_limit(unsent, limit.soft);
        if (over_hard || over_soft > Duration::from_secs(limit.seconds)) && client.closing() != Closing::Kill {
            tracing::warn!(client = %client.addr, bytes = unsent, "closed a client over client-output-buffer-limit");
            client.close(Closing::Kill);
        }
    }
}

/// A message to many clients, encoded once for each protocol that is spoken.
pub struct Message {
    resp2: Vec<u8>,
    resp3: Option<Vec<u8>>,
}

impl Message {
    /// A push of these parts.
    pub fn new(parts: &[&[u8]]) -> Self {
        let mut reply = Reply::new(2);
        reply.push(parts.len());
        parts.iter().for_each(|part| reply.bulk(part));
        Message { resp2: reply.as_slice().to_vec(), resp3: None }
    }

    /// Its encoding for clients that speak this version.
    pub fn encoded(&mut self, proto: u8) -> &[u8] {
        if proto < 3 {
            return &self.resp2;
        }
        // An array of bulk strings and a push of them differ in their first byte only.
        self.resp3.get_or_insert_with(|| {
            let mut push = self.resp2.clone();
            if let Some(first) = push.first_mut() {
                *first = b'>';
            }
            push
        })
    }
}
