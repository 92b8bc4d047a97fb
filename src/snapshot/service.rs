//! The file service of port P + 10001: gives the files of current snapshots to replicas that have a token.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::listing::Checksum;
use super::proto::rsync_server::{Rsync, RsyncServer};
use super::proto::{FileRequest, FileResponse, RsyncRequest, RsyncResponse, StatusCode, Type};
use super::{FileEntry, Snapshot, SnapshotSource, SnapshotState};
use crate::keyspace::{Keyspace, Slot};

/// Bytes of a file in one message.
pub const MESSAGE_LEN: usize = 256 << 10;
/// Messages of a stream that are read ahead of the network.
const READ_AHEAD: usize = 4;
/// The longest request, in bytes.
const MAX_REQUEST_LEN: usize = 64 << 10;
/// Files that a replica may have open at once: as many as `max-rsync-parallel-num` can be. Each takes some 2 MiB while its replica takes nothing.
const MAX_STREAMS: usize = 64;
/// A stream that its replica takes nothing from for so long ends.
const STALLED: Duration = Duration::from_secs(300);
/// How often a stream looks whether its token is still good, which counts as a sign of life.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a snapshot is no longer given: a full sync of this node's own.
const REPLACED: &str = "the master's own data were replaced since the snapshot was taken";

/// Knows the replicas that may fetch.
pub trait ReaderCheck: Send + Sync {
    /// The replica (`ip:port`) that a token was given to, if it is registered for a snapshot of the slot. Counts as a sign of life of it.
    fn reader_of(&self, token: &str, slot: &Slot) -> Result<String, NotAReader>;
    /// Whether [`ReaderCheck::reader_of`] would find it. Counts as nothing.
    fn is_reader(&self, token: &str, slot: &Slot) -> bool;
}

/// Why somebody gets no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAReader {
    #[error("unknown token: MetaSync comes first")]
    UnknownToken,
    #[error("no snapshot of this slot was asked for: DBSync comes first")]
    NotRegistered,
    /// It was registered, but what it needs could not be kept.
    #[error("dropped by the master: {0}")]
    Dropped(Arc<str>),
}

/// The service `Rsync`.
pub struct RsyncService {
    keyspace: Arc<Keyspace>,
    source: Arc<SnapshotSource>,
    readers: Arc<dyn ReaderCheck>,
    streams: Arc<Streams>,
}

/// How many files each replica has open.
#[derive(Default)]
struct Streams(Mutex<HashMap<String, usize>>);

/// A file that a replica has open, until it is dropped.
struct Stream {
    reader: String,
    streams: Arc<Streams>,
}

impl Streams {
    /// One more for this replica, unless it has [`MAX_STREAMS`].
    fn enter(self: &Arc<Self>, reader: &str) -> Option<Stream> {
        let mut open = self.0.lock();
        let count = open.entry(reader.to_string()).or_default();
        if *count >= MAX_STREAMS {
            return None;
        }
        *count += 1;
        Some(Stream { reader: reader.to_string(), streams: self.clone() })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock();
        if let Some(count) = open.get_mut(&self.reader) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.reader);
            }
        }
    }
}

impl RsyncService {
    /// Serves the snapshots of `source`, which are of the slots of `keyspace`.
    pub fn new(keyspace: Arc<Keyspace>, source: Arc<SnapshotSource>, readers: Arc<dyn ReaderCheck>) -> RsyncService {
        RsyncService { keyspace, source, readers, streams: Arc::default() }
    }

    /// The service for a tonic router.
    pub fn into_server(self) -> RsyncServer<RsyncService> {
        RsyncServer::new(self).max_decoding_message_size(MAX_REQUEST_LEN)
    }

    /// The snapshot that a request is about, or the reply that there is none.
    fn find(&self, request: &RsyncRequest) -> Result<Result<Found<'_>, RsyncResponse>, Status> {
        let refuse = |reason: &str, retry: bool| {
            Ok(Err(RsyncResponse {
                reason: Some(reason.into()),
                retry: Some(retry),
                ..reply_to(request, "", StatusCode::KErr)
            }))
        };
        let Some(slot) = self.keyspace.slot_named(&request.db_name, request.slot_id) else {
            return refuse("no such slot", false);
        };
        let reader = match self.readers.reader_of(request.token.as_deref().unwrap_or_default(), slot) {
            Ok(reader) => reader,
            Err(e @ NotAReader::UnknownToken) => return Err(Status::unauthenticated(e.to_string())),
            Err(e @ NotAReader::NotRegistered) => return refuse(&e.to_string(), false),
            Err(e @ NotAReader::Dropped(_)) => return Err(Status::failed_precondition(e.to_string())),
        };
        match self.source.get(slot) {
            SnapshotState::None => refuse(&NotAReader::NotRegistered.to_string(), false),
            SnapshotState::Making => refuse("the snapshot is being made", true),
            SnapshotState::Failed(reason) => {
                Err(Status::failed_precondition(format!("no snapshot could be made: {reason}")))
            }
            SnapshotState::Ready(snapshot) if !snapshot.is_of_log(slot) => {
                self.source.give_up(slot, snapshot.uuid(), REPLACED);
                refuse(REPLACED, false)
            }
            SnapshotState::Ready(snapshot) => {
                snapshot.touch();
                Ok(Ok(Found { slot, reader, snapshot }))
            }
        }
    }
}

struct Found<'a> {
    slot: &'a Arc<Slot>,
    reader: String,
    snapshot: Arc<Snapshot>,
}

#[tonic::async_trait]
impl Rsync for RsyncService {
    async fn meta(&self, request: Request<RsyncRequest>) -> Result<Response<RsyncResponse>, Status> {
        let request = request.into_inner();
        let reply = match self.find(&request)? {
            Err(refusal) => refusal,
            Ok(Found { slot, reader, snapshot }) => {
                tracing::debug!(slot = %slot, reader, uuid = snapshot.uuid(), "snapshot listed");
                let meta_resp = Some(snapshot.listing().to_reply());
                RsyncResponse { meta_resp, ..reply_to(&request, snapshot.uuid(), StatusCode::KOk) }
            }
        };
        Ok(Response::new(reply))
    }

    type FileStream = ReceiverStream<Result<RsyncResponse, Status>>;

    async fn file(&self, request: Request<RsyncRequest>) -> Result<Response<Self::FileStream>, Status> {
        let request = request.into_inner();
        let (messages, stream) = mpsc::channel(READ_AHEAD);
        let stream = Response::new(ReceiverStream::new(stream));
        // The channel is new: there is room.
        let refuse = |reply: RsyncResponse| drop(messages.try_send(Ok(reply)));
        let Found { slot, reader, snapshot } = match self.find(&request)? {
            Ok(found) => found,
            Err(refusal) => {
                refuse(refusal);
                return Ok(stream);
            }
        };
        let because = |reason: String| RsyncResponse {
            reason: Some(reason),
            ..reply_to(&request, snapshot.uuid(), StatusCode::KErr)
        };
        if request.snapshot_uuid.as_deref().is_some_and(|uuid| uuid != snapshot.uuid()) {
            refuse(because("replaced: there is another snapshot now".into()));
            return Ok(stream);
        }
        let Some(wanted) = &request.file_req else {
            return Err(Status::invalid_argument("no file_req"));
        };
        match snapshot.listing().file(&wanted.filename).cloned() {
            None => refuse(because(format!("not in the listing: \"{}\"", wanted.filename.escape_debug()))),
            Some(file) if wanted.offset > file.size => {
                refuse(because(format!("{} has {} bytes, not {}", file.name, file.size, wanted.offset)));
            }
            Some(file) => {
                let Some(open) = self.streams.enter(&reader) else {
                    let why = format!("more than {MAX_STREAMS} files at once");
                    return Err(Status::resource_exhausted(why));
                };
                let job = Reading {
                    slot: slot.clone(),
                    source: self.source.clone(),
                    reader,
                    file,
                    template: reply_to(&request, snapshot.uuid(), StatusCode::KOk),
                    snapshot,
                    token: request.token.unwrap_or_default(),
                    readers: self.readers.clone(),
                };
                tokio::spawn(job.run(wanted.clone(), messages, open));
            }
        }
        Ok(stream)
    }
}

fn reply_to(request: &RsyncRequest, uuid: &str, code: StatusCode) -> RsyncResponse {
    RsyncResponse {
        r#type: if request.file_req.is_some() { Type::KRsyncFile } else { Type::KRsyncMeta }.into(),
        reader_index: request.reader_index,
        snapshot_uuid: uuid.into(),
        db_name: request.db_name.clone(),
        slot_id: request.slot_id,
        code: code.into(),
        ..RsyncResponse::default()
    }
}

/// One file being read for one stream. Holds the snapshot.
struct Reading {
    slot: Arc<Slot>,
    source: Arc<SnapshotSource>,
    reader: String,
    file: FileEntry,
    template: RsyncResponse,
    snapshot: Arc<Snapshot>,
    token: String,
    readers: Arc<dyn ReaderCheck>,
}

type Messages = mpsc::Sender<Result<RsyncResponse, Status>>;
type Room<'a> = mpsc::Permit<'a, Result<RsyncResponse, Status>>;

/// Why a stream ended before its end.
enum Ended {
    /// The file is not what was listed: in words, with path and offset.
    Damaged(String),
    /// The replica is to have no more of it.
    Refused(String),
    /// The replica takes nothing.
    Stalled,
    /// The replica has hung up.
    Gone,
    Panicked,
}

impl Reading {
    /// Reads and sends, at most [`READ_AHEAD`] messages ahead of the network. Ends early when nobody takes them. A stream that waits for its
    /// replica holds no thread: however many stand still, others are served.
    async fn run(self, wanted: FileRequest, messages: Messages, _open: Stream) {
        let job = Arc::new(self);
        let Err(ended) = job.read(&wanted, &messages).await else { return };
        let Reading { slot, reader, file, snapshot, .. } = &*job;
        let status = match ended {
            Ended::Gone => return,
            Ended::Damaged(why) => {
                tracing::error!(slot = %slot, reader, "a snapshot was damaged after it was listed: {why}");
                job.source.give_up(slot, snapshot.uuid(), &why);
                Status::aborted(why)
            }
            Ended::Refused(why) => Status::failed_precondition(why),
            Ended::Stalled => Status::deadline_exceeded(format!(
                "the replica took nothing of {} for {} s",
                file.name,
                STALLED.as_secs()
            )),
            Ended::Panicked => Status::internal(format!("{}: the thread that read it panicked", file.name)),
        };
        tracing::warn!(slot = %slot, reader, "sending {} of a snapshot: {}", file.name, status.message());
        // The snapshot's folder does not wait for a replica that may take nothing.
        drop(job);
        let _ = tokio::time::timeout(STALLED, messages.send(Err(status))).await;
    }

    async fn read(self: &Arc<Self>, wanted: &FileRequest, messages: &Messages) -> Result<(), Ended> {
        let job = self.clone();
        let file = Arc::new(blocking(move || job.open().map_err(|e| job.damaged(e))).await?);
        let size = self.file.size;
        let end = if wanted.count == 0 { size } else { wanted.offset.saturating_add(wanted.count).min(size) };
        let mut offset = wanted.offset;
        let mut checked = Instant::now();
        loop {
            let room = self.room(messages).await?;
            if checked.elapsed() >= CHECK_INTERVAL {
                checked = Instant::now();
                self.check()?;
            }
            let (job, file) = (self.clone(), file.clone());
            let part = blocking(move || job.part(&file, offset, end)).await?;
            offset += part.count;
            self.snapshot.touch();
            room.send(Ok(RsyncResponse { file_resp: Some(part), ..self.template.clone() }));
            if offset == end {
                return Ok(());
            }
        }
    }

    /// What is sent of the bytes from `offset` to `end` in the next message.
    fn part(&self, file: &File, offset: u64, end: u64) -> Result<FileResponse, Ended> {
        let size = self.file.size;
        // Always whole pieces, as they were listed.
        let begin = offset - offset % MESSAGE_LEN as u64;
        let mut piece = vec![0; (size - begin).min(MESSAGE_LEN as u64) as usize];
        let until = begin + piece.len() as u64;
        file.read_exact_at(&mut piece, begin).map_err(|e| self.damaged(format_args!("offset {begin}: {e}")))?;
        if !piece.is_empty() && !self.snapshot.is_intact(&self.file, begin, &piece) {
            let what = format_args!("offset {begin}: the bytes up to {until} are not those that were listed");
            return Err(self.damaged(what));
        }
        let len = (end.min(until) - offset) as usize;
        let data = Bytes::from(piece).slice((offset - begin) as usize..).slice(..len);
        Ok(FileResponse {
            eof: i32::from(offset + len as u64 == size),
            count: len as u64,
            offset,
            checksum: Checksum::of(&data).to_string(),
            data,
            filename: self.file.name.clone(),
        })
    }

    fn damaged(&self, what: impl fmt::Display) -> Ended {
        Ended::Damaged(format!("{}: {what}", self.snapshot.path_of(&self.file).display()))
    }

    /// Whether the replica is still to have it. Counts as a sign of life.
    fn check(&self) -> Result<(), Ended> {
        if !self.snapshot.is_of_log(&self.slot) {
            return Err(Ended::Refused(REPLACED.into()));
        }
        let known = self.readers.reader_of(&self.token, &self.slot);
        known.map(drop).map_err(|e| Ended::Refused(e.to_string()))
    }

    /// Waits until the replica has taken enough of what was sent before. A replica that was dropped meanwhile keeps nothing, not even the
    /// snapshot's folder.
    async fn room<'a>(&self, messages: &'a Messages) -> Result<Room<'a>, Ended> {
        let began = Instant::now();
        loop {
            match tokio::time::timeout(CHECK_INTERVAL, messages.reserve()).await {
                Ok(Ok(room)) => return Ok(room),
                Ok(Err(_)) => return Err(Ended::Gone),
                Err(_) if began.elapsed() >= STALLED => return Err(Ended::Stalled),
                Err(_) if !self.readers.is_reader(&self.token, &self.slot) => return Err(Ended::Gone),
                Err(_) => {}
            }
        }
    }

    /// Opens the file, which must be what was listed and not a link to something else.
    fn open(&self) -> io::Result<File> {
        let path = self.snapshot.path_of(&self.file);
        let options = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(options.bits()).open(&path)?;
        let meta = file.metadata()?;
        match (meta.is_file(), meta.len(), self.file.size) {
            (false, ..) => Err(io::Error::other("is not the file that was listed")),
            (_, found, listed) if found != listed => {
                Err(io::Error::other(format!("has {found} bytes, {listed} were listed")))
            }
            _ => Ok(file),
        }
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T, Ended> + Send + 'static) -> Result<T, Ended> {
    tokio::task::spawn_blocking(job).await.unwrap_or(Err(Ended::Panicked))
}
