//! The binlog: the one log of a slot, and its write-ahead log.
//!
//! What it promises:
//!
//! - A record is an effect: what a write did, as commands with absolute values. Records have an
//!   index that rises by one, a term that never falls, and a *chain*: a hash over this record's header
//!   and the previous record's chain. Two logs with the same chain at a position hold the same
//!   records up to it.
//! - A group of records is appended by one write. When [`Writer::append`] returns, the group has been handed to
//!   the operating system: it survives a killed process, and a power cut once [`SyncHandle::sync`] has returned.
//!   A failed append leaves the log as it was, or, where even that failed, refuses all further appends.
//! - Nobody reads past the published end ([`Position`]): a half-written group is never seen.
//! - A torn tail is cut back to the last whole record at opening, and so is what a power cut left of records that were never
//!   durable, in whatever order. Any other bad record with good ones behind it is corruption and is reported with file
//!   and offset, never skipped.
//! - Files are purged from the oldest; the file being written never is.
//!
//! The bytes are described in docs/binlog.md.

mod copy;
mod error;
mod file;
mod mark;
mod position;
mod reader;
mod record;
mod recovery;
mod salvage;
mod writer;

pub use copy::{begin_log, copy_records};
pub use error::Error;
pub use file::{FILE_HEADER_LEN, FileInfo, file_path, holds_records, list_files, parse_file_name};
pub use mark::lower_mark;
pub use position::Position;
pub use reader::{Chunk, ChunkReader, RecordStream, locate};
pub use record::{
    Draft, EffectsIter, MAX_BODY_LEN, Participant, RECORD_HEADER_LEN, Record, RunDecoder, decode_body, put_effect,
    put_varint, take_varint,
};
pub use recovery::{Recovered, TornTail, recover};
pub use writer::{SyncHandle, Writer, make_durable};
