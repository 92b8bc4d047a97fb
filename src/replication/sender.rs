//! One replica's stream of one slot's records, on the master: window, acks, keepalives. Hot path of replication.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as TokioInstant, sleep_until};
use tonic::{Status, Streaming};

use super::Manager;
use super::master::{SILENCE, Stage};
use super::node_state::SlotId;
use super::proto::{self, InnerRequest, InnerResponse, StatusCode, Type, inner_request, inner_response};
use crate::binlog::{self, Chunk, ChunkReader, Position};
use crate::keyspace::{Published, Slot};
use crate::server::Server;

/// A keepalive is sent when nothing else was for this long (PROTOCOL: BinlogSync).
const KEEPALIVE: Duration = Duration::from_secs(2);
/// Bytes of records to a message: larger ones are no faster (PROTOCOL: Messages).
const CHUNK_BYTES: usize = 256 << 10;

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
                Some(s.generation)
            }
            _ => None,
        });
        match known {
            None => Err(Status::unauthenticated("MetaSync first")),
            Some(None) => Err(Status::failed_precondition("no such session: TrySync first")),
            Some(Some(generation)) => Ok(Link {
                manager: manager.clone(),
                slot: slot.clone(),
                id,
                token: token.to_string(),
                session,
                from,
                published,
                generation,
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
        let reader =
            tokio::spawn(read_acks(self.manager.clone(), self.id, self.token.clone(), self.session, acks, acked_tx));
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
        let mut silent_since = TokioInstant::now() - KEEPALIVE;
        loop {
            let published = *self.published.borrow_and_update();
            if published.generation != self.generation {
                // The first log of a slot begins where a slot that was never written is.
                if self.generation != 0 || reader.is_some() {
                    return Status::aborted("the master's log was replaced");
                }
                self.generation = published.generation;
            }
            let (acked_to, heard) = *acked.borrow_and_update();
            if heard.elapsed() > SILENCE {
                return Status::deadline_exceeded("nothing heard from the replica");
            }
            let window = self.manager.config.sync_window_size() as u64;
            let room = window.saturating_sub(sent.index.saturating_sub(acked_to.index));
            let next = tokio::task::block_in_place(|| self.next_chunk(&mut reader, &published.position, room));
            let message = match next {
                Ok(Some(chunk)) => {
                    sent = chunk.end;
                    self.message(chunk.bytes, chunk.end)
                }
                Ok(None) if silent_since.elapsed() >= KEEPALIVE => self.message(Bytes::new(), sent),
                Ok(None) => {
                    tokio::select! {
                        changed = self.published.changed() => if changed.is_err() {
                            return Status::unavailable("the master stops");
                        },
                        changed = acked.changed() => if changed.is_err() {
                            return Status::cancelled("the replica closed the stream");
                        },
                        () = sleep_until(silent_since + KEEPALIVE) => {}
                    }
                    continue;
                }
                Err(e) => return Status::internal(e.to_string()),
            };
            // A replica that takes nothing is one we do not hear from.
            match tokio::time::timeout(SILENCE, outgoing.send(Ok(message))).await {
                Ok(Ok(())) => silent_since = TokioInstant::now(),
                Ok(Err(_)) => return Status::cancelled("the replica closed the stream"),
                Err(_) => return Status::deadline_exceeded("the replica takes nothing"),
            }
        }
    }

    /// The next records up to `end`, at most `room` of them; none for a slot that was never written.
    fn next_chunk(
        &self,
        reader: &mut Option<ChunkReader>,
        end: &Position,
        room: u64,
    ) -> Result<Option<Chunk>, binlog::Error> {
        if reader.is_none() {
            let Some(store) = self.slot.store().clone() else { return Ok(None) };
            *reader = Some(ChunkReader::open(store.log_dir(), self.from)?);
        }
        reader.as_mut().map_or(Ok(None), |r| r.next_chunk(end, CHUNK_BYTES, room))
    }

    fn message(&self, binlog: Bytes, end: Position) -> InnerResponse {
        InnerResponse {
            binlog_sync: vec![inner_response::BinlogSync {
                slot: proto::Slot { db_name: proto::db_name(self.id.0), slot_id: self.id.1 as u32 },
                binlog_offset: end.into(),
                binlog,
                session_id: self.session,
                sent_at: Some(Server::now_ms()),
                master_offset: Some(self.slot.position().into()),
            }],
            ..proto::response(Type::KBinlogSync, StatusCode::KOk)
        }
    }
}

/// Takes the replica's acks: moves its window and its pin. Ends with the replica's half of the stream.
async fn read_acks(
    manager: Arc<Manager>,
    id: SlotId,
    token: String,
    session: i32,
    mut acks: Streaming<InnerRequest>,
    acked: watch::Sender<(Position, Instant)>,
) {
    while let Ok(Some(message)) = acks.message().await {
        let Some(inner_request::BinlogSync { ack_range_end, session_id, .. }) = message.binlog_sync else { return };
        let to = Position::from(&ack_range_end);
        let known = manager.replicas.with_token(&token, |r| {
            let Some(slot) = r.slots.get_mut(&id).filter(|s| s.session == session && session_id == session) else {
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
