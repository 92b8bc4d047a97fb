//! The file service of port P + 10001: gives the files of current snapshots to replicas that have a token.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Knows the replicas that may fetch.
pub trait TokenCheck: Send + Sync {
    /// The replica (`ip:port`) that a token was given to, or `None`. Counts as a sign of life of it.
    fn reader_of(&self, token: &str) -> Option<String>;
}

/// The service `Rsync`.
pub struct RsyncService {
    keyspace: Arc<Keyspace>,
    source: Arc<SnapshotSource>,
    tokens: Arc<dyn TokenCheck>,
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
    pub fn new(keyspace: Arc<Keyspace>, source: Arc<SnapshotSource>, tokens: Arc<dyn TokenCheck>) -> RsyncService {
        RsyncService { keyspace, source, tokens, streams: Arc::default() }
    }

    /// The service for a tonic router.
    pub fn into_server(self) -> RsyncServer<RsyncService> {
        RsyncServer::new(self).max_decoding_message_size(MAX_REQUEST_LEN)
    }

    /// The snapshot that a request is about, or the reply that there is none.
    fn find(&self, request: &RsyncRequest) -> Result<Result<Found<'_>, RsyncResponse>, Status> {
        let reader = request.token.as_deref().and_then(|token| self.tokens.reader_of(token));
        let reader = reader.ok_or_else(|| Status::unauthenticated("unknown token: MetaSync comes first"))?;
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
        match self.source.get(slot) {
            SnapshotState::None => refuse("no snapshot of this slot was asked for: DBSync comes first", false),
            SnapshotState::Making => refuse("the snapshot is being made", true),
            SnapshotState::Failed(reason) => refuse(&format!("no snapshot could be made: {reason}"), false),
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
                    _open: open,
                    slot: slot.to_string(),
                    reader,
                    file,
                    template: reply_to(&request, snapshot.uuid(), StatusCode::KOk),
                    snapshot,
                    token: request.token.unwrap_or_default(),
                    tokens: self.tokens.clone(),
                };
                tokio::spawn(job.run(wanted.clone(), messages));
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
    slot: String,
    reader: String,
    file: FileEntry,
    template: RsyncResponse,
    snapshot: Arc<Snapshot>,
    token: String,
    tokens: Arc<dyn TokenCheck>,
    _open: Stream,
}

type Messages = mpsc::Sender<Result<RsyncResponse, Status>>;

impl Reading {
    /// Reads and sends, at most [`READ_AHEAD`] messages ahead of the network. Ends early when nobody takes them. A stream that waits for its
    /// replica holds no thread: however many stand still, others are served.
    async fn run(self, wanted: FileRequest, messages: Messages) {
        let job = Arc::new(self);
        let Err(e) = job.read(&wanted, &messages).await else { return };
        tracing::warn!(slot = job.slot, reader = job.reader, "sending {} of a snapshot: {e}", job.file.name);
        let failed = Status::internal(format!("{}: {e}", job.file.name));
        let _ = tokio::time::timeout(STALLED, messages.send(Err(failed))).await;
    }

    async fn read(self: &Arc<Self>, wanted: &FileRequest, messages: &Messages) -> io::Result<()> {
        let job = self.clone();
        let file = Arc::new(blocking(move || job.open()).await?);
        let size = self.file.size;
        let end = if wanted.count == 0 { size } else { wanted.offset.saturating_add(wanted.count).min(size) };
        let mut offset = wanted.offset;
        let mut checked = Instant::now();
        loop {
            let room = match tokio::time::timeout(STALLED, messages.reserve()).await {
                Ok(Ok(room)) => room,
                // The replica has hung up.
                Ok(Err(_)) => return Ok(()),
                Err(_) => {
                    let why = format!("the replica took nothing for {} s", STALLED.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
            };
            if checked.elapsed() >= CHECK_INTERVAL {
                checked = Instant::now();
                if self.tokens.reader_of(&self.token).is_none() {
                    return Err(io::Error::other("the replica's token is no longer good"));
                }
            }
            let len = (end - offset).min(MESSAGE_LEN as u64);
            let (job, file) = (self.clone(), file.clone());
            let message = blocking(move || job.part(&file, offset, len)).await?;
            self.snapshot.touch();
            room.send(Ok(message));
            offset += len;
            if offset == end {
                return Ok(());
            }
        }
    }

    /// The message with `len` bytes from `offset` on.
    fn part(&self, file: &File, offset: u64, len: u64) -> io::Result<RsyncResponse> {
        let mut data = vec![0; len as usize];
        file.read_exact_at(&mut data, offset)?;
        let part = FileResponse {
            eof: i32::from(offset + len == self.file.size),
            count: len,
            offset,
            checksum: Checksum::of(&data).to_string(),
            data: data.into(),
            filename: self.file.name.clone(),
        };
        Ok(RsyncResponse { file_resp: Some(part), ..self.template.clone() })
    }

    /// Opens the file, which must be what was listed and not a link to something else.
    fn open(&self) -> io::Result<File> {
        let path = self.snapshot.path_of(&self.file);
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path)?;
        let meta = file.metadata()?;
        if meta.is_file() && meta.len() == self.file.size {
            Ok(file)
        } else {
            Err(io::Error::other(format!("{} is not the file that was listed", path.display())))
        }
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}
