//! What a handler works with.

use bytes::Bytes;

use super::CommandError;
use crate::keyspace::{Entry, Kind, Transaction};
use crate::net::{Client, Reply};
use crate::server::Server;

/// The world of one command: server, connection, reply, transaction and time.
pub struct Ctx<'a, 'k> {
    /// The server.
    pub server: &'a Server,
    /// The connection that asks.
    pub client: &'a mut Client,
    /// Where the reply goes.
    pub reply: &'a mut Reply,
    /// Reads and writes of the data; the keys of the command are locked in it.
    pub tx: &'a mut Transaction<'k>,
    /// Unix time in ms, the same for the whole command.
    pub now: u64,
}

impl Ctx<'_, '_> {
    /// Index of the connection's database.
    pub fn db(&self) -> usize {
        self.client.db()
    }

    /// The live entry of `key` for a command that reads; counts a keyspace hit or miss.
    pub fn read(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        let entry = self.tx.get(self.client.db(), key, self.now)?;
        self.client.tally.lookup(entry.is_some());
        Ok(entry)
    }

    /// The live string at `key` for a command that reads; counts a keyspace hit or miss.
    pub fn read_string(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        string_only(self.read(key)?)
    }

    /// The live entry of `key` for a command that goes on to change it.
    pub fn peek(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        Ok(self.tx.get(self.client.db(), key, self.now)?)
    }

    /// The live string at `key` for a command that goes on to change it.
    pub fn peek_string(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        string_only(self.peek(key)?)
    }
}

fn string_only(entry: Option<Entry>) -> Result<Option<Entry>, CommandError> {
    match entry {
        Some(entry) if entry.kind != Kind::String => Err(CommandError::WrongType),
        other => Ok(other),
    }
}
