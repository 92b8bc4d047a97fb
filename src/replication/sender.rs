//! One replica's stream of one slot's records, on the master: window, acks, keepalives. Hot path of replication.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as TokioInstant, sleep_until};
use tonic::{Status, Streaming};

use super::Manager;
use super::master::Stage;
use super::node_state::SlotId;
use super::pace::Pace;
use super::proto::{self, InnerRequest, InnerResponse, StatusCode, Type, inner_request, inner_response};
use crate::binlog::{self, Chunk, ChunkReader, Position};
use crate::keyspace::{Published, Slot};
use crate::server::Server;

/// A keepalive is sent when nothing else was for this part of `repl-timeout` (PROTOCOL: BinlogSync).
const KEEPALIVES: u32 = 10;
/// Bytes of records to a message: larger ones are no faster (PROTOCOL: Messages).
const CHUNK_BYTES: usize = 256 << 10;

/// What lies at most so many bytes before the log's end was written just now, and is read from memory: no other task has to be told to go on
/// without this thread.
const HOT_BYTES: u64 = 1 << 20;
/// A message with at least so many records tells of a slot that is written all the time: what comes next may gather for a moment, since a
/// message costs as much as several records. One that somebody waits for alone goes at once.
const BUSY_RECORDS: u64 = 16;
/// For how long.
const GATHER: Duration = Duration::from_millis(1);

/// A stream that was accepted.
pub(super) struct Link {
    manager: Arc<Manager>,
    slot: Arc<Slot>,
    id: SlotId,
    token: String,
    session: i32,
    from: Position,
    published: watch::Receiver<Published>,
    generation: u64,
    pace: Pace,
    /// The end of what was sent: no acknowledgement goes beyond it.
    sent: Arc<Mutex<Position>>,
}

impl Link {
    /// Checks that the replica was accepted by TrySync with this session and position.
    pub fn open(
        manager: &Arc<Manager>,
        slot: &Arc<Slot>,
        token: &str,
        session: i32,
        from: Position,
    ) -> Result<Link, Status> {
        let id = (slot.db(), slot.number());
        let published = slot.subscribe();
        let known = manager.replicas.with_token(token, |r| match r.slots.get_mut(&id) {
            Some(s) if s.session == session && s.stage == Stage::Accepted && s.from == from => {
                s.stage = Stage::BinlogSync;
                r.streams += 1;
                Some((s.generation, r.in_flight.clone()))
            }
            _ => None,
        });
        match known {
            None => Err(Status::unauthenticated("MetaSync first")),
            Some(None) => Err(Status::failed_precondition("no such session: TrySync first")),
            Some(Some((generation, in_flight))) => Ok(Link {
                manager: manager.clone(),
                slot: slot.clone(),
                id,
                token: token.to_string(),
                session,
                from,
                published,
                generation,
                pace: Pace::new(in_flight),
                sent: Arc::new(Mutex::new(from)),
            }),
        }
    }

    /// Streams until the replica leaves, falls silent, or the log is replaced.
    pub async fn run(mut self, acks: Streaming<InnerRequest>, outgoing: mpsc::Sender<Result<InnerResponse, Status>>) {
        let ended = self.stream(acks, &outgoing).await;
        let (address, dropped) = self.manager.replicas.stream_ended(&self.token, self.id, self.session);
        let ended = match dropped {
            Some(why) => Status::failed_precondition(format!("dropped by the master: {why}")),
            None => ended,
        };
        tracing::info!(slot = %self.slot, replica = address.as_deref().unwrap_or("gone"), "stream ended: {}", ended.message());
        // The replica may be gone already.
        let _ = outgoing.try_send(Err(ended));
    }

    async fn stream(
        &mut self,
        acks: Streaming<InnerRequest>,
        outgoing: &mpsc::Sender<Result<InnerResponse, Status>>,
    ) -> Status {
        let (acked_tx, mut acked) = watch::channel((self.from, Instant::now()));
        let reader = AckReader {
            manager: self.manager.clone(),
            id: self.id,
            token: self.token.clone(),
            session: self.session,
            sent: self.sent.clone(),
        };
        let reader = tokio::spawn(reader.run(acks, acked_tx));
        let result = self.send_records(&mut acked, outgoing).await;
        reader.abort();
        result
    }

    async fn send_records(
        &mut self,
        acked: &mut watch::Receiver<(Position, Instant)>,
        outgoing: &mpsc::Sender<Result<InnerResponse, Status>>,
    ) -> Status {
        // A slot that was never written has no log to read yet.
        let mut reader: Option<ChunkReader> = None;
        let mut sent = self.from;
        // The first message goes out at once: it tells the replica where our end is.
        let mut told = false;
        let mut silent_since = TokioInstant::now();
        loop {
            let timeout = self.manager.config.repl_timeout();
            let keepalive = timeout / KEEPALIVES;
            let published = *self.published.borrow_and_update();
            if published.generation != self.generation {
                // The first log of a slot begins where a slot that was never written is.
                if self.generation != 0 || reader.is_some() {
                    return Status::aborted("the master's log was replaced");
                }
                self.generation = published.generation;
            }
            let (acked_to, heard) = *acked.borrow_and_update();
            if heard.elapsed() > timeout {
                return Status::deadline_exceeded("nothing heard from the replica");
            }
            let bytes = self.manager.config.sync_window_bytes();
            self.pace.acked(acked_to.index, Instant::now(), timeout, bytes);
            let window = self.manager.config.sync_window_size() as u64;
            let records = window.saturating_sub(sent.index.saturating_sub(acked_to.index));
            let room = (self.pace.room(bytes), records);
            let end = &published.position;
            let hot =
                reader.is_some() && end.filenum == sent.filenum && end.offset.saturating_sub(sent.offset) <= HOT_BYTES;
            let next = match hot {
                true => self.next_chunk(&mut reader, end, room),
                false => tokio::task::block_in_place(|| self.next_chunk(&mut reader, end, room)),
            };
            let mut gather = false;
            let message = match next {
                Ok(Some(chunk)) => {
                    gather = chunk.end == *end && chunk.end.index - sent.index >= BUSY_RECORDS;
                    sent = chunk.end;
                    *self.sent.lock() = sent;
                    self.pace.sent(sent.index, chunk.bytes.len() as u64, Instant::now());
                    self.message(chunk.bytes, chunk.end)
                }
                Ok(None) if !told || silent_since.elapsed() >= keepalive => self.message(Bytes::new(), sent),
                Ok(None) => {
                    tokio::select! {
                        changed = self.published.changed() => if changed.is_err() {
                            return Status::unavailable("the master stops");
                        },
                        changed = acked.changed() => if changed.is_err() {
                            return Status::cancelled("the replica closed the stream");
                        },
                        () = sleep_until(silent_since + keepalive) => {}
                    }
                    continue;
                }
                Err(e) => return self.cannot_read(&e),
            };
            // A replica that takes nothing is one we do not hear from.
            match tokio::time::timeout(timeout, outgoing.send(Ok(message))).await {
                Ok(Ok(())) => (told, silent_since) = (true, TokioInstant::now()),
                Ok(Err(_)) => return Status::cancelled("the replica closed the stream"),
                Err(_) => return Status::deadline_exceeded("the replica takes nothing"),
            }
            if gather {
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// The next records up to `end`, at most about so many bytes and so many of them; none for a slot that was never written.
    fn next_chunk(
        &self,
        reader: &mut Option<ChunkReader>,
        end: &Position,
        (bytes, records): (u64, u64),
    ) -> Result<Option<Chunk>, binlog::Error> {
        if bytes == 0 {
            return Ok(None);
        }
        if reader.is_none() {
            let Some(store) = self.slot.store().clone() else { return Ok(None) };
            *reader = Some(ChunkReader::open(store.log_dir(), self.from)?);
        }
        let bytes = usize::try_from(bytes).map_or(CHUNK_BYTES, |bytes| bytes.min(CHUNK_BYTES));
        reader.as_mut().map_or(Ok(None), |r| r.next_chunk(end, bytes, records))
    }

    /// The log cannot be read: where it is damaged it is replaced, and the replica told to begin again.
    fn cannot_read(&self, error: &binlog::Error) -> Status {
        match tokio::task::block_in_place(|| self.slot.replace_damaged_log(error, self.generation)) {
            Ok(true) => Status::aborted("the master's log was damaged, and is replaced"),
            Ok(false) => Status::internal(error.to_string()),
            Err(failed) => {
                tracing::error!(slot = %self.slot, "a damaged log stays: {failed}");
                Status::internal(error.to_string())
            }
        }
    }

    fn message(&self, binlog: Bytes, end: Position) -> InnerResponse {
        let upstream = if binlog.is_empty() { self.manager.upstream.lock().clone() } else { Vec::new() };
        InnerResponse {
            binlog_sync: vec![inner_response::BinlogSync {
                slot: proto::Slot { db_name: proto::db_name(self.id.0), slot_id: self.id.1 as u32 },
                binlog_offset: end.into(),
                binlog,
                session_id: self.session,
                sent_at: Some(Server::now_ms()),
                master_offset: Some(self.slot.position().into()),
                upstream,
            }],
            ..proto::response(Type::KBinlogSync, StatusCode::KOk)
        }
    }
}

/// Takes the replica's acks: moves its window and its pin. Ends with the replica's half of the stream.
struct AckReader {
    manager: Arc<Manager>,
    id: SlotId,
    token: String,
    session: i32,
    sent: Arc<Mutex<Position>>,
}

impl AckReader {
    async fn run(self, mut acks: Streaming<InnerRequest>, acked: watch::Sender<(Position, Instant)>) {
        loop {
            let message = match acks.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(status) => {
                    tracing::debug!(slot = %format_args!("db{}:{}", self.id.0, self.id.1), "acknowledgements end: {}", status.message());
                    return;
                }
            };
            let Some(inner_request::BinlogSync { ack_range_end, session_id, .. }) = message.binlog_sync else { return };
            let to = Position::from(&ack_range_end);
            // What is acknowledged unpins the log and counts for WAIT: it lies between the last acknowledgement and what was sent.
            let (from, sent) = (acked.borrow().0, *self.sent.lock());
            let between = |from: Position, to: Position| from.index <= to.index && from.place() <= to.place();
            if !between(from, to) || !between(to, sent) {
                tracing::warn!(slot = %format_args!("db{}:{}", self.id.0, self.id.1),
                    "a replica acknowledges {to} after {from}, and was sent up to {sent}: not believed");
                return;
            }
            let known = self.manager.replicas.with_token(&self.token, |r| {
                let session =
                    |s: &&mut super::master::ReplicaSlot| s.session == self.session && session_id == self.session;
                let Some(slot) = r.slots.get_mut(&self.id).filter(session) else {
                    return false;
                };
                slot.acked = to;
                slot.acked_at = Instant::now();
                slot.hold.advance(to.filenum);
                true
            });
            if known != Some(true) {
                return;
            }
            acked.send_replace((to, Instant::now()));
        }
    }
}
