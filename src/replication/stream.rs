//! BinlogSync on the replica: receives a slot's records, applies them on a thread of the slot's own, acknowledges.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::link::{Link, LinkHealth, Outcome, client};
use super::machine::Event;
use super::proto::{self, InnerRequest, InnerResponse, Type, inner_request, inner_response};
use super::{Epoch, Manager};
use crate::binlog::Position;
use crate::config::SyncMode;
use crate::keyspace::Slot;
use crate::server::Server;

/// Messages received and not yet applied, a slot.
const INCOMING: usize = 4;
/// Acks not yet sent, a slot.
const ACKS: usize = 64;
/// Opening the stream may take this long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of a running stream, for INFO.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamStatus {
    /// The master's end, as it last said.
    pub master: Option<Position>,
    /// When the master sent what we last applied (its clock, unix ms), or when we had nothing more to apply.
    pub caught_up_at: u64,
    /// When a message last came (unix ms).
    pub heard_at: u64,
}

/// Who streams what.
pub(super) struct StreamContext {
    pub manager: Arc<Manager>,
    pub link: Link,
    pub slot: Arc<Slot>,
    pub epoch: Epoch,
    pub session: i32,
    pub status: Arc<Mutex<StreamStatus>>,
}

/// Why the apply thread ends a stream.
enum Ended {
    /// For this slot.
    Here(String),
    /// For the node: its master follows it.
    Circle(String),
}

impl Ended {
    fn outcome(self) -> Outcome {
        match self {
            Ended::Here(why) => Outcome::because(Event::LinkLost, why),
            Ended::Circle(why) => Outcome { link: LinkHealth::Circle, ..Outcome::because(Event::LinkLost, why) },
        }
    }
}

impl StreamContext {
    /// Streams until it breaks; says why.
    pub async fn run(self) -> Outcome {
        let lost = |why: String| Outcome::because(Event::LinkLost, why);
        let context = Arc::new(self);
        let (acks, outgoing) = mpsc::channel(ACKS);
        let at = context.slot.position();
        let mut first = context.ack(at, at);
        if let Some(sync) = &mut first.binlog_sync {
            sync.first_send = true;
        }
        if acks.send(first).await.is_err() {
            return lost("the stream closed before it began".into());
        }
        let mut client = client(&context.link.channel);
        let opening = client.binlog_sync(ReceiverStream::new(outgoing));
        let mut incoming = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Outcome::failed(Event::LinkLost, &status),
            Err(_) => {
                return Outcome {
                    link: LinkHealth::Unanswering,
                    ..lost("the master did not open the stream in time".into())
                };
            }
        };
        let (records, mut to_apply) = mpsc::channel(INCOMING);
        let failure = Arc::new(Mutex::new(None));
        let thread = {
            let (context, failure) = (context.clone(), failure.clone());
            let name = format!("apply-{}", context.slot);
            std::thread::Builder::new().name(name).spawn(move || {
                // Both channels close after the failure is there to be read.
                if let Err(ended) = context.apply_all(&mut to_apply, &acks) {
                    *failure.lock() = Some(ended);
                }
            })
        };
        if let Err(e) = thread {
            return lost(format!("no thread to apply records: {e}"));
        }
        let ended = context.receive(&mut incoming, &records).await;
        // What the apply thread found wrong is the cause, whoever notices first: the master closes the stream when the acknowledgements end.
        failure.lock().take().map_or(ended, Ended::outcome)
    }

    /// Hands what comes to the apply thread until one of them ends.
    async fn receive(
        &self,
        incoming: &mut Streaming<InnerResponse>,
        records: &mpsc::Sender<inner_response::BinlogSync>,
    ) -> Outcome {
        let lost = |why: String| Outcome::because(Event::LinkLost, why);
        loop {
            let patience = self.manager.config.repl_timeout();
            let message = match tokio::time::timeout(patience, incoming.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return lost("the master closed the stream".into()),
                Ok(Err(status)) => return Outcome::failed(Event::LinkLost, &status),
                Err(_) => return lost(format!("nothing heard from the master in {} s", patience.as_secs())),
            };
            self.status.lock().heard_at = Server::now_ms();
            for sync in message.binlog_sync {
                if records.send(sync).await.is_err() {
                    return lost("the slot no longer follows this master".into());
                }
            }
        }
    }

    /// The apply thread: in order, each run once.
    fn apply_all(
        &self,
        records: &mut mpsc::Receiver<inner_response::BinlogSync>,
        acks: &mpsc::Sender<InnerRequest>,
    ) -> Result<(), Ended> {
        while let Some(sync) = records.blocking_recv() {
            if sync.session_id != self.session {
                return Err(Ended::Here(format!(
                    "session {} of the master, ours is {}",
                    sync.session_id, self.session
                )));
            }
            let before = self.slot.position();
            let end = Position::from(&sync.binlog_offset);
            // Under the gate: once the operator has chosen another master, nothing of this one is applied.
            let applied = self.manager.while_following(self.epoch, &self.slot, || self.apply(&sync, before, end));
            match applied {
                None => return Ok(()),
                Some(result) => result?,
            }
            self.note(&sync, end);
            if acks.blocking_send(self.ack(before, self.slot.position())).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn apply(&self, sync: &inner_response::BinlogSync, before: Position, end: Position) -> Result<(), Ended> {
        if sync.binlog.is_empty() {
            // A keepalive tells where the master's stream is: at our end, or we have lost each other.
            return if (end.index, end.chain) == (before.index, before.chain) {
                self.manager.learn_upstream(&self.link.master, &sync.upstream).map_err(Ended::Circle)
            } else {
                Err(Ended::Here(format!("the master's stream is at {end}, this slot at {before}")))
            };
        }
        let failed = |e: crate::keyspace::Error| Ended::Here(e.to_string());
        self.manager.keyspace.apply_run(&self.slot, &sync.binlog, end).map_err(failed)?;
        if self.manager.config.sync() == SyncMode::Always {
            self.slot.sync_to(end.index).map_err(failed)?;
        }
        Ok(())
    }

    fn note(&self, sync: &inner_response::BinlogSync, end: Position) {
        let master = sync.master_offset.as_ref().map(Position::from);
        let mut status = self.status.lock();
        status.master = master;
        if master.is_none_or(|m| m.index <= end.index) {
            status.caught_up_at = Server::now_ms();
        } else if let Some(sent_at) = sync.sent_at {
            status.caught_up_at = sent_at.min(Server::now_ms());
        }
    }

    fn ack(&self, from: Position, to: Position) -> InnerRequest {
        InnerRequest {
            binlog_sync: Some(inner_request::BinlogSync {
                node: self.link.node.clone(),
                db_name: proto::db_name(self.slot.db()),
                slot_id: self.slot.number() as u32,
                ack_range_start: from.into(),
                ack_range_end: to.into(),
                session_id: self.session,
                first_send: false,
                token: Some(self.link.token.clone()),
            }),
            ..proto::request(Type::KBinlogSync)
        }
    }
}
