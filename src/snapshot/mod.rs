//! Snapshots: checkpoints of slots, the service that ships them to replicas, the client that fetches them, BGSAVE.
//!
//! A snapshot is a checkpoint of a slot's engine and an `info` file that says what it contains ([`Info`]). The master side
//! makes them and shares them between replicas ([`SnapshotSource`]) and serves their files ([`RsyncService`], port P + 10001).
//! The replica side ([`Receiver`]) fetches the files of one snapshot into a receive folder, resumes what an earlier try left
//! there, and hands out nothing that was not received whole and verified. Formats and rules: docs/snapshots.md.

mod append;
mod bgsave;
mod checkpoint;
mod client;
mod error;
mod fetch;
mod folder;
mod info;
pub mod inspect;
mod listing;
mod manifest;
mod progress;
pub mod proto;
mod readers;
mod save;
mod service;
mod source;
mod throttle;

pub use bgsave::{Bgsave, BgsaveError};
pub use checkpoint::Origin;
pub use client::{Master, Received, Receiver, discard};
pub use error::{Error, ReceiveError};
pub use info::{BadInfo, Info};
pub use listing::{BadListing, Checksum, FileEntry, Listing};
pub use manifest::{BadManifest, MANIFEST, Manifest, SavedSlot};
pub use progress::{Progress, ProgressNow};
pub use save::folder_of;
pub use service::{MESSAGE_LEN, NotAReader, ReaderCheck, RsyncService};
pub use source::{Reader, Snapshot, SnapshotNow, SnapshotSource, SnapshotState};

/// The folder of the engine's files, in a snapshot's folder and in a receive folder.
const DATA: &str = "data";
/// The folder of a saved slot's binlog.
pub const LOG: &str = "log";
/// The file beside it that says what they contain.
const INFO: &str = "info";

/// A slot by its database's and its own number.
pub type SlotKey = (usize, usize);

fn key_of(slot: &crate::keyspace::Slot) -> SlotKey {
    (slot.db(), slot.number())
}

#[cfg(test)]
mod tests;
