//! What a handler works with.

use bytes::Bytes;

use super::blocking::Block;
use super::error::Suspend;
use super::{After, CommandError};
use crate::keyspace::types::blob::{self, Blob};
use crate::keyspace::types::{Handle, Outcome};
use crate::keyspace::{Effect, Entry, Kind, Reader, Transaction};
use crate::net::{Client, Reply};
use crate::pubsub::EventClass;
use crate::server::Server;

/// Elements that a command may go through on the thread that read it.
const MAX_INLINE: u64 = 4096;

/// Inside of what a command runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Within {
    /// By itself.
    Nothing,
    /// An EXEC.
    Exec,
    /// A script or function.
    Script,
}

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
    /// What is to happen once the writes are committed.
    pub after: &'a mut Vec<After>,
    /// Unix time in ms, the same for the whole command.
    pub now: u64,
    /// Inside of what it runs.
    pub within: Within,
    /// Whether it runs on the blocking pool, where it may take long.
    pub on_pool: bool,
    /// Whether it has waited ([`Ctx::block`]) and is tried again.
    pub waited: bool,
}

impl<'k> Ctx<'_, 'k> {
    /// Index of the connection's database.
    pub fn db(&self) -> usize {
        self.client.db()
    }

    /// The connection's id.
    pub fn client_id(&self) -> u64 {
        self.client.id()
    }

    /// The live entry of `key` for a command that reads; counts a keyspace hit or miss.
    pub fn read(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        let entry = self.tx.get(self.client.db(), key, self.now)?;
        self.client.tally.lookup(entry.is_some());
        if entry.is_none() {
            self.notify(EventClass::KeyMiss, "keymiss", key);
        }
        Ok(entry)
    }

    /// The live string at `key` for a command that reads; counts a keyspace hit or miss.
    pub fn read_string(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        let entry = string_only(self.read(key)?)?;
        self.whole(key, entry)
    }

    /// A string's entry with all its bytes in it, also where they stand in chunks.
    fn whole(&mut self, key: &Bytes, entry: Option<Entry>) -> Result<Option<Entry>, CommandError> {
        match entry {
            Some(entry) if entry.has_elements() => {
                let blob = Blob::of(key, &entry);
                self.heavy(blob.len() / blob::CHUNK)?;
                let value = blob.whole(&mut self.reader(key))?;
                Ok(Some(Entry::string(value, entry.expire_at)))
            }
            other => Ok(other),
        }
    }

    /// The live string at `key` for a command that reads only parts of it; counts a keyspace hit or miss.
    pub fn read_blob(&mut self, key: &Bytes) -> Result<Option<Blob>, CommandError> {
        Ok(string_only(self.read(key)?)?.map(|entry| Blob::of(key, &entry)))
    }

    /// The live string at `key` for a command that goes on to change parts of it.
    pub fn peek_blob(&mut self, key: &Bytes) -> Result<Option<Blob>, CommandError> {
        Ok(string_only(self.peek(key)?)?.map(|entry| Blob::of(key, &entry)))
    }

    /// The live entry of `key` for a command that goes on to change it.
    pub fn peek(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        Ok(self.tx.get(self.client.db(), key, self.now)?)
    }

    /// The live string at `key` for a command that goes on to change it.
    pub fn peek_string(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        let entry = string_only(self.peek(key)?)?;
        self.whole(key, entry)
    }

    /// The live collection of this kind at `key` for a command that reads; counts a keyspace hit or miss.
    pub fn read_collection(&mut self, key: &Bytes, kind: Kind) -> Result<Option<Handle>, CommandError> {
        let entry = self.read(key)?;
        collection_of(key, entry, kind)
    }

    /// The live collection of this kind at `key` for a command that goes on to change it.
    pub fn peek_collection(&mut self, key: &Bytes, kind: Kind) -> Result<Option<Handle>, CommandError> {
        let entry = self.peek(key)?;
        collection_of(key, entry, kind)
    }

    /// [`Ctx::peek_collection`] for a key that the command would wait for. Something else there is an error when the command looks first; while it
    /// waits it is no reason to end the wait.
    pub fn peek_awaited(&mut self, key: &Bytes, kind: Kind) -> Result<Option<Handle>, CommandError> {
        match self.peek_collection(key, kind) {
            Err(CommandError::WrongType) if self.waited => Ok(None),
            other => other,
        }
    }

    /// What lies in the slot of `key`: for the functions of [`crate::keyspace::types`].
    pub fn reader(&mut self, key: &[u8]) -> Reader<'_, 'k> {
        self.tx.reader(self.client.db(), key)
    }

    /// Applies and logs an effect on a key of the connection's database.
    pub fn apply(&mut self, effect: Effect) -> Result<Outcome, CommandError> {
        Ok(self.tx.apply(self.client.db(), effect, self.now)?)
    }

    /// Makes an empty collection at `key` if nothing is there; the command must fill it. What is there must be of this kind.
    pub fn create_if_missing(&mut self, key: &Bytes, kind: Kind) -> Result<(), CommandError> {
        self.notify_if_new(self.client.db(), key)?;
        Ok(self.tx.create_if_missing(self.client.db(), key, kind, self.now)?)
    }

    /// To be called, before anything is done, by a command that will go through so many elements: many are for the blocking
    /// pool.
    pub fn heavy(&self, elements: u64) -> Result<(), CommandError> {
        if elements <= MAX_INLINE || self.on_pool { Ok(()) } else { Err(Suspend::OnPool.into()) }
    }

    /// Elements that a command which cannot tell before may go through where it runs. When they turn out to be more, and nothing is
    /// changed yet, [`Ctx::heavy`] sends it to the blocking pool.
    pub fn budget(&self) -> u64 {
        if self.on_pool { u64::MAX } else { MAX_INLINE }
    }

    /// Whether the command may wait: not in EXEC and scripts.
    pub fn may_block(&self) -> bool {
        self.within == Within::Nothing && !self.client.denies_blocking()
    }

    /// To be returned by a command that finds nothing to serve and is to wait. Where it cannot wait (in EXEC and scripts) it is answered as if its time had
    /// run out.
    pub fn block(&mut self, block: Block) -> Result<(), CommandError> {
        if self.may_block() {
            return Err(Suspend::Until(block).into());
        }
        block.on_timeout.write(self.reply);
        Ok(())
    }

    /// Tells subscribers of keyspace notifications of an event on a key of the connection's database, once it is committed.
    pub fn notify(&mut self, class: EventClass, event: &'static str, key: &Bytes) {
        self.notify_in(self.client.db(), class, event, key);
    }

    /// Tells of a key of any type that is about to be made, if it is: where nobody wants to know, that is not even looked up.
    pub fn notify_if_new(&mut self, db: usize, key: &Bytes) -> Result<(), CommandError> {
        if self.server.pubsub.wants(EventClass::New) && self.tx.get(db, key, self.now)?.is_none() {
            self.notify_in(db, EventClass::New, "new", key);
        }
        Ok(())
    }

    /// [`Ctx::notify`] for a key of another database.
    pub fn notify_in(&mut self, db: usize, class: EventClass, event: &'static str, key: &Bytes) {
        if self.server.pubsub.wants(class) {
            self.after.push(After::Notify { db, class, event, key: key.clone() });
        }
    }
}

fn string_only(entry: Option<Entry>) -> Result<Option<Entry>, CommandError> {
    match entry {
        Some(entry) if entry.kind != Kind::String => Err(CommandError::WrongType),
        other => Ok(other),
    }
}

fn collection_of(key: &Bytes, entry: Option<Entry>, kind: Kind) -> Result<Option<Handle>, CommandError> {
    match entry {
        Some(entry) if entry.kind != kind => Err(CommandError::WrongType),
        Some(entry) => Ok(Handle::of(key, &entry)),
        None => Ok(None),
    }
}
