//! One try of a transfer: the listing, then the missing bytes of every file, several files at a time.
//!
//! Tokio tasks read the streams; each file has a thread of the blocking pool that checks, writes and hashes what they hand it.
//! Those threads keep the slot busy for others, and the next try waits for them.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use super::client::{Master, Receiver};
use super::folder::{FolderError, PartialFile, ReceiveFolder};
use super::proto::rsync_client::RsyncClient;
use super::proto::{FileRequest, FileResponse, RsyncRequest, RsyncResponse, StatusCode, Type};
use super::{Checksum, FileEntry, Info, Listing, Progress, ReceiveError};
use crate::disk::{self, Point};
use crate::engine::Applied;
use crate::keyspace::Slot;

/// The longest listing: some hundred thousand files.
const MAX_LISTING_LEN: usize = 64 << 20;
/// How long a reply to a call, or the next message of a stream, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a master that is making the snapshot is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How long it may take to make it: large slots are hashed at the speed of the disk.
const MAKING_PATIENCE: Duration = Duration::from_secs(3600);
/// Messages of a stream that are received ahead of the disk.
const WRITE_BEHIND: usize = 4;

/// Why a try ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again does not help.
    Fatal(ReceiveError),
    /// The snapshot was replaced, or a file that had come whole was damaged: this must not go on for ever.
    Restart(String),
    /// The link broke, or what came over it was wrong: resuming may help.
    Broken(String),
}

/// Sets the flag when the transfer ends or is dropped.
pub(super) struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The transfer of one slot's snapshot, over all its tries.
pub(super) struct Transfer {
    receiver: Arc<Receiver>,
    master: Master,
    slot: String,
    db_name: String,
    slot_id: u32,
    folder: ReceiveFolder,
    progress: Arc<Progress>,
    /// Files that this transfer has found whole and made durable.
    verified: Mutex<HashMap<String, FileEntry>>,
    stop: Arc<AtomicBool>,
    _busy: OwnedMutexGuard<()>,
}

impl std::fmt::Debug for Transfer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Lives as long as something of a try still runs.
type Alive = mpsc::Sender<Infallible>;

/// What the tasks of one try share.
struct Attempt {
    transfer: Arc<Transfer>,
    listing: Listing,
    queue: Mutex<VecDeque<FileEntry>>,
    alive: Alive,
}

impl Transfer {
    /// The transfer, and what stops it.
    pub fn new(
        receiver: Arc<Receiver>,
        master: Master,
        slot: &Slot,
        folder: PathBuf,
        progress: Arc<Progress>,
        busy: OwnedMutexGuard<()>,
    ) -> (Arc<Transfer>, StopOnDrop) {
        let stop = Arc::new(AtomicBool::new(false));
        let transfer = Transfer {
            receiver,
            master,
            slot: slot.to_string(),
            db_name: format!("db{}", slot.db()),
            slot_id: slot.number() as u32,
            folder: ReceiveFolder::new(folder),
            progress,
            verified: Mutex::default(),
            stop: stop.clone(),
            _busy: busy,
        };
        (Arc::new(transfer), StopOnDrop(stop))
    }

    /// Fetches what is missing. Returns what the snapshot contains, and the folder of its data, if it has any. Nothing of the try
    /// runs any more when it returns.
    pub async fn attempt(self: &Arc<Self>) -> Result<(Applied, Option<PathBuf>), Failure> {
        let listing = self.listing().await?;
        self.progress.begin(&listing);
        let transfer = self.clone();
        let listing = blocking(move || {
            transfer.folder.begin(&listing).map_err(|e| transfer.local(e))?;
            Ok(listing)
        })
        .await?;
        // The largest first, so that no long one is left alone at the end.
        let mut files: Vec<FileEntry> = listing.files.clone();
        files.sort_by_key(|f| std::cmp::Reverse(f.size));
        let workers = self.receiver.config.max_rsync_parallel_num().clamp(1, files.len().max(1));
        let (alive, mut all_ended) = mpsc::channel(1);
        let attempt = Arc::new(Attempt { transfer: self.clone(), listing, queue: Mutex::new(files.into()), alive });
        let mut tasks = JoinSet::new();
        for index in 0..workers {
            tasks.spawn(work(attempt.clone(), index as i32));
        }
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            let ended = joined(ended);
            if ended.is_err() {
                result = ended;
                tasks.shutdown().await;
            }
        }
        let has_data = attempt.listing.has_data();
        drop(attempt);
        while all_ended.recv().await.is_some() {}
        result?;
        let transfer = self.clone();
        blocking(move || transfer.finish(has_data)).await
    }

    fn finish(&self, has_data: bool) -> Result<(Applied, Option<PathBuf>), Failure> {
        let (slot, master) = (self.slot.clone(), self.master.name.clone());
        let text = self.folder.finish().map_err(|e| self.local(e))?;
        let info = match Info::parse(&text) {
            Ok(info) => info,
            Err(source) => return Err(Failure::Fatal(ReceiveError::BadInfo { slot, master, source })),
        };
        let unfit = if info.slot != slot {
            format!("it is of {}", info.slot)
        } else if info.empty == has_data {
            "its listing and its info file disagree about whether there are data".into()
        } else {
            return Ok((info.applied, has_data.then(|| self.folder.data())));
        };
        Err(Failure::Fatal(ReceiveError::Unfit { slot, master, why: unfit }))
    }

    fn client(&self) -> RsyncClient<Channel> {
        RsyncClient::new(self.master.channel.clone()).max_decoding_message_size(MAX_LISTING_LEN)
    }

    fn request(&self, reader_index: i32, file: Option<(&Listing, FileRequest)>) -> RsyncRequest {
        let (snapshot_uuid, file_req) = file.map(|(listing, file)| (listing.uuid.clone(), file)).unzip();
        RsyncRequest {
            r#type: if file_req.is_some() { Type::KRsyncFile } else { Type::KRsyncMeta }.into(),
            reader_index,
            db_name: self.db_name.clone(),
            slot_id: self.slot_id,
            file_req,
            token: Some(self.master.token.clone()),
            snapshot_uuid,
        }
    }

    /// Asks for the listing until the master has made the snapshot.
    async fn listing(&self) -> Result<Listing, Failure> {
        let asked = Instant::now();
        let (slot, master) = (self.slot.clone(), self.master.name.clone());
        loop {
            let reply = match timeout(PATIENCE, self.client().meta(self.request(0, None))).await {
                Ok(Ok(reply)) => reply.into_inner(),
                Ok(Err(status)) => return Err(self.status(&status)),
                Err(_) => return Err(Failure::Broken("no reply to Meta".into())),
            };
            if reply.code() == StatusCode::KOk {
                let meta =
                    reply.meta_resp.ok_or_else(|| Failure::Broken("a reply to Meta without a listing".into()))?;
                return Listing::from_reply(reply.snapshot_uuid, &meta)
                    .map_err(|source| Failure::Fatal(ReceiveError::BadListing { slot, master, source }));
            }
            if reply.retry != Some(true) {
                let reason = reply.reason.unwrap_or_else(|| "no reason given".into());
                return Err(Failure::Fatal(ReceiveError::Refused { slot, master, reason }));
            }
            let waited = asked.elapsed();
            if waited >= MAKING_PATIENCE {
                return Err(Failure::Fatal(ReceiveError::NotReady { slot, master, waited }));
            }
            sleep(ASK_INTERVAL).await;
        }
    }

    fn status(&self, status: &tonic::Status) -> Failure {
        let text = format!("{:?}: {}", status.code(), status.message());
        let (slot, master, reason) = (self.slot.clone(), self.master.name.clone(), status.message().to_string());
        match status.code() {
            // Nobody but a master says these two: not what a damaged connection looks like.
            Code::FailedPrecondition => Failure::Fatal(ReceiveError::Denied { slot, master, reason }),
            Code::Aborted => Failure::Fatal(ReceiveError::Damaged { slot, master, reason }),
            // A master that does not know this replica (any more).
            Code::Unauthenticated => Failure::Fatal(ReceiveError::Refused { slot, master, reason: text }),
            _ => Failure::Broken(text),
        }
    }

    fn local(&self, FolderError { path, source }: FolderError) -> Failure {
        Failure::Fatal(ReceiveError::Io { slot: self.slot.clone(), path, source })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    joined(spawn_blocking(job).await)
}

/// What a task or thread returned; one that panicked has broken the try.
fn joined<T>(result: Result<Result<T, Failure>, JoinError>) -> Result<T, Failure> {
    result.unwrap_or_else(|e| Err(Failure::Broken(format!("a task that receives failed: {e}"))))
}

/// Fetches one file after the other.
async fn work(attempt: Arc<Attempt>, index: i32) -> Result<(), Failure> {
    loop {
        let Some(file) = attempt.queue.lock().pop_front() else { return Ok(()) };
        let Transfer { receiver, verified, progress, .. } = &*attempt.transfer;
        if verified.lock().get(&file.name) == Some(&file) {
            progress.kept(file.size);
            progress.file_done();
            continue;
        }
        let _turn = receiver.readers.enter(|| receiver.config.max_rsync_parallel_num()).await;
        // What an earlier transfer left may be damaged, by a power cut say; what has just come from the master should not be.
        if !fetch(&attempt, index, &file).await? && !fetch(&attempt, index, &file).await? {
            return Err(Failure::Restart(format!("{}: came whole, but with a wrong checksum", file.name)));
        }
    }
}

/// Fetches the missing bytes of a file. It is whole, verified and durable when this returns true, and gone, because it was damaged, when
/// false.
async fn fetch(attempt: &Attempt, index: i32, file: &FileEntry) -> Result<bool, Failure> {
    let (parts, incoming) = mpsc::channel(WRITE_BEHIND);
    let (opened, is_open) = oneshot::channel();
    let writer = Writing { transfer: attempt.transfer.clone(), file: file.clone(), _alive: attempt.alive.clone() };
    let writer = spawn_blocking(move || writer.run(opened, incoming));
    let pumped = match is_open.await {
        Ok(present) if present < file.size => pump(attempt, index, file, present, parts).await,
        // Nothing is missing, or the writer has failed and says why.
        _ => {
            drop(parts);
            Ok(())
        }
    };
    let written = joined(writer.await);
    // A writer that lacks bytes only repeats what went wrong before.
    match (pumped, written) {
        (_, Err(fatal @ Failure::Fatal(_))) => Err(fatal),
        (Err(e), _) | (Ok(()), Err(e)) => Err(e),
        (Ok(()), Ok(whole)) => Ok(whole),
    }
}

/// Hands the bytes of a file from `offset` on to its writer. Ends without an error when the writer has ended.
async fn pump(
    attempt: &Attempt,
    index: i32,
    file: &FileEntry,
    mut offset: u64,
    parts: mpsc::Sender<FileResponse>,
) -> Result<(), Failure> {
    let Attempt { transfer, listing, .. } = attempt;
    let receiver = &transfer.receiver;
    let wanted = FileRequest { filename: file.name.clone(), count: 0, offset };
    let request = transfer.request(index, Some((listing, wanted)));
    let silent = || Failure::Broken(format!("{}: nothing came for {} s", file.name, PATIENCE.as_secs()));
    let mut client = transfer.client();
    let stream = timeout(PATIENCE, client.file(request)).await.map_err(|_| silent())?;
    let mut stream = stream.map_err(|status| transfer.status(&status))?.into_inner();
    while offset < file.size {
        let message = timeout(PATIENCE, stream.message()).await.map_err(|_| silent())?;
        let message = message.map_err(|status| transfer.status(&status))?;
        let message = message.ok_or_else(|| Failure::Broken(format!("{}: ended at byte {offset}", file.name)))?;
        let part = part_of(message, listing, file, offset)?;
        let len = part.data.len() as u64;
        receiver.throttle.take(len, || receiver.config.throttle_bytes_per_second()).await;
        if parts.send(part).await.is_err() {
            return Ok(());
        }
        offset += len;
    }
    Ok(())
}

/// The part of the file that a message must bring; its checksum is left to the writer.
fn part_of(message: RsyncResponse, listing: &Listing, file: &FileEntry, offset: u64) -> Result<FileResponse, Failure> {
    if message.snapshot_uuid != listing.uuid {
        return Err(Failure::Restart(format!("the master has another snapshot now ({})", message.snapshot_uuid)));
    }
    if message.code() != StatusCode::KOk {
        let reason = message.reason.as_deref().unwrap_or("no reason given");
        return Err(Failure::Broken(format!("{}: {reason}", file.name)));
    }
    let fits = |part: &FileResponse| {
        let len = part.data.len() as u64;
        part.filename == file.name
            && part.offset == offset
            && part.count == len
            && len > 0
            && len <= file.size - offset
            && (part.eof != 0) == (offset + len == file.size)
    };
    let wrong = || Failure::Broken(format!("{}: a message that does not continue it at byte {offset}", file.name));
    message.file_resp.filter(fits).ok_or_else(wrong)
}

/// The blocking half of fetching a file.
struct Writing {
    transfer: Arc<Transfer>,
    file: FileEntry,
    _alive: Alive,
}

impl Writing {
    /// Opens the file, says by `opened` how much of it is there, and appends what comes. Returns what [`fetch`] does.
    fn run(self, opened: oneshot::Sender<u64>, mut parts: mpsc::Receiver<FileResponse>) -> Result<bool, Failure> {
        let Writing { transfer, file, .. } = &self;
        let path = transfer.folder.path_of(file);
        let local = |e| transfer.local(FolderError::at(&path)(e));
        let mut partial = PartialFile::open(&path, file, &|| transfer.is_stopped()).map_err(local)?;
        transfer.progress.kept(partial.len);
        let _ = opened.send(partial.len);
        let mut why = None;
        while let Some(part) = parts.blocking_recv() {
            if transfer.is_stopped() {
                break;
            }
            if Checksum::of(&part.data).to_string() != part.checksum {
                why = Some(format!("bytes from {} on came with a wrong checksum", part.offset));
                break;
            }
            partial.end.append(&part.data).map_err(local)?;
            partial.hasher.update(&part.data);
            partial.len += part.data.len() as u64;
            transfer.progress.fetched(part.data.len() as u64);
        }
        if partial.len != file.size {
            // The next try goes on from there.
            partial.end.write().map_err(local)?;
            let why = why.unwrap_or_else(|| format!("ended at byte {}", partial.len));
            return Err(Failure::Broken(format!("{}: {why}", file.name)));
        }
        if Checksum::of_hasher(&partial.hasher) != file.checksum {
            disk::remove_file(Point::ReceiveRemoveWrong, &path).map_err(local)?;
            transfer.progress.lost(file.size);
            tracing::warn!(slot = transfer.slot, "{} is whole, but has a wrong checksum: removed", path.display());
            return Ok(false);
        }
        partial.end.finish().map_err(local)?;
        transfer.verified.lock().insert(file.name.clone(), file.clone());
        transfer.progress.file_done();
        Ok(true)
    }
}
