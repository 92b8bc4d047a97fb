//! Sending out of band, with a bound on what a client that does not read may pile up.

use std::sync::Arc;

use crate::config::Config;
use crate::net::{ClientInfo, Reply, output};

/// Unsent bytes up to which the limits are not looked at with each message; every second they are.
const UNQUESTIONED: usize = 4 << 10;

/// Sends messages to clients and closes those that are over `client-output-buffer-limit` with them ([`output`]).
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
            output::enforce(&self.config.client_output_buffer_limit(), client, client.waiting_replies());
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
