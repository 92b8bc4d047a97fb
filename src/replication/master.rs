//! The master's side: which replicas there are, what they have, and the RPCs they call.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::node_state::SlotId;
use super::proto::{self, InnerRequest, InnerResponse, Replication, StatusCode, Type};
use super::proto::{inner_request, inner_response};
use super::{Manager, link, sender, upstream};
use crate::binlog::{self, Position};
use crate::keyspace::{LogPin, Slot};
use crate::server::random_hex;
use crate::snapshot::{NotAReader, Reader, ReaderCheck};

/// A question about a position goes through at most so many replicas: a circle of them must end.
const MAX_HOPS: u32 = 8;
/// Messages to a replica that wait for the network, a slot.
const OUTGOING: usize = 4;

/// What a replica of a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It fetches, or is about to fetch, a snapshot.
    DbSync,
    /// It was accepted by TrySync and has yet to open its stream.
    Accepted,
    /// Records flow.
    BinlogSync,
}

/// What is kept for a slot of a replica.
pub(super) enum Hold {
    /// The log from its position on.
    Log(LogPin),
    /// The snapshot that it fetches, and the log from there on, until it has joined the log.
    Snapshot(Reader),
}

impl Hold {
    /// It has all records in the files below `filenum`.
    pub fn advance(&self, filenum: u32) {
        if let Hold::Log(pin) = self {
            pin.advance(filenum);
        }
    }

    /// Why what it needs is gone, if it is.
    fn lost(&self) -> Option<Arc<str>> {
        match self {
            Hold::Log(pin) => pin.lost(),
            Hold::Snapshot(reader) => reader.lost(),
        }
    }
}

/// One slot of one replica.
pub(super) struct ReplicaSlot {
    pub stage: Stage,
    pub session: i32,
    /// The log in which its position was found.
    pub generation: u64,
    /// Where its stream starts.
    pub from: Position,
    /// Up to here it has told us that it has our records.
    pub acked: Position,
    pub acked_at: Instant,
    /// When it last said that it is busy with this slot: of one that does not stream yet.
    pub claimed_at: Instant,
    pub hold: Hold,
}

/// One replica node.
pub(super) struct Replica {
    pub ip: String,
    pub port: u16,
    pub run_id: String,
    pub token: String,
    pub heard: Instant,
    pub streams: usize,
    /// Bytes of records sent and not acknowledged, over all its streams.
    pub in_flight: Arc<AtomicU64>,
    pub slots: HashMap<SlotId, ReplicaSlot>,
    /// Slots that were dropped because of what they made this node keep, and why; until they have joined the log again.
    pub dropped: BTreeMap<SlotId, Arc<str>>,
}

impl Replica {
    pub fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }

    /// Its address, if it is registered for a snapshot of the slot and the log behind that is still there.
    fn reader(&mut self, slot: &Slot, f: impl FnOnce(&mut ReplicaSlot)) -> Result<String, NotAReader> {
        let address = self.address();
        let id = (slot.db(), slot.number());
        let Some(reader) = self.slots.get_mut(&id).filter(|s| s.stage == Stage::DbSync) else {
            return Err(match self.dropped.get(&id) {
                Some(why) => NotAReader::Dropped(why.clone()),
                None => NotAReader::NotRegistered,
            });
        };
        if let Some(why) = reader.hold.lost() {
            return Err(NotAReader::Dropped(why));
        }
        f(reader);
        Ok(address)
    }
}

/// Counters for INFO, a slot each.
#[derive(Default)]
pub(super) struct SyncCounts {
    pub full: AtomicU64,
    pub partial_ok: AtomicU64,
    pub partial_err: AtomicU64,
    /// Dropped over `binlog-max-pinned-size`.
    pub dropped: AtomicU64,
}

/// What [`Replicas::sweep`] has let go.
#[derive(Default)]
pub(super) struct Swept {
    /// Addresses of replicas not heard from.
    pub silent: Vec<String>,
    /// Slots whose replica no longer works on them.
    pub unclaimed: Vec<(String, SlotId)>,
    /// Slots for which what their replica needs could no longer be kept, and why.
    pub lost: Vec<(String, SlotId, Arc<str>)>,
}

/// All replicas of this node.
#[derive(Default)]
pub(super) struct Replicas {
    nodes: Mutex<Vec<Replica>>,
    sessions: AtomicI32,
    pub counts: SyncCounts,
}

impl Replicas {
    /// Looks at all of them.
    pub fn with<R>(&self, f: impl FnOnce(&[Replica]) -> R) -> R {
        f(&self.nodes.lock())
    }

    /// Works on the replica that shows this token; counts as a sign of life.
    pub fn with_token<R>(&self, token: &str, f: impl FnOnce(&mut Replica) -> R) -> Option<R> {
        let mut nodes = self.nodes.lock();
        let replica = nodes.iter_mut().find(|r| r.token == token)?;
        replica.heard = Instant::now();
        Some(f(replica))
    }

    /// Replicas that have acknowledged these records (slot, index), and so all before them.
    pub fn with_records(&self, records: impl Iterator<Item = (SlotId, u64)> + Clone) -> usize {
        let has = |replica: &Replica, (id, index): (SlotId, u64)| {
            replica.slots.get(&id).is_some_and(|s| s.stage == Stage::BinlogSync && s.acked.index >= index)
        };
        let has_all = |replica: &&Replica| replica.streams > 0 && records.clone().all(|record| has(replica, record));
        self.nodes.lock().iter().filter(has_all).count()
    }

    fn next_session(&self) -> i32 {
        self.sessions.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// A stream has ended. Returns the replica's address, if it is still known, and why it was dropped, if it was.
    pub fn stream_ended(&self, token: &str, id: SlotId, session: i32) -> (Option<String>, Option<Arc<str>>) {
        let ended = self.with_token(token, |r| {
            r.streams = r.streams.saturating_sub(1);
            if let Some(slot) = r.slots.remove(&id) {
                if slot.session != session {
                    r.slots.insert(id, slot);
                    return (r.address(), None);
                }
                if let Some(why) = slot.hold.lost() {
                    self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                    r.dropped.insert(id, why);
                }
            }
            (r.address(), r.dropped.get(&id).cloned())
        });
        ended.map_or((None, None), |(address, why)| (Some(address), why))
    }

    /// Forgets what no replica works on any more, with all that is kept for it: replicas not heard from for `silence`, slots that a
    /// replica neither streams nor has claimed for as long, slots whose log had to be purged.
    pub fn sweep(&self, silence: Duration) -> Swept {
        let mut swept = Swept::default();
        self.nodes.lock().retain_mut(|r| {
            let address = r.address();
            if r.streams == 0 && r.heard.elapsed() > silence {
                swept.silent.push(address);
                return false;
            }
            let Replica { slots, dropped, .. } = r;
            slots.retain(|&id, slot| {
                if let Some(why) = slot.hold.lost() {
                    dropped.insert(id, why.clone());
                    swept.lost.push((address.clone(), id, why));
                    return false;
                }
                let unclaimed = slot.stage != Stage::BinlogSync && slot.claimed_at.elapsed() > silence;
                if unclaimed {
                    swept.unclaimed.push((address.clone(), id));
                }
                !unclaimed
            });
            true
        });
        self.counts.dropped.fetch_add(swept.lost.len() as u64, Ordering::Relaxed);
        swept
    }

    /// Forgets all replicas: their tokens are no longer good, and they must begin with MetaSync again.
    pub fn clear(&self) {
        self.nodes.lock().clear();
    }
}

impl ReaderCheck for Manager {
    fn reader_of(&self, token: &str, slot: &Slot) -> Result<String, NotAReader> {
        let known = self.replicas.with_token(token, |r| r.reader(slot, |claimed| claimed.claimed_at = Instant::now()));
        known.unwrap_or(Err(NotAReader::UnknownToken))
    }

    fn is_reader(&self, token: &str, slot: &Slot) -> bool {
        let mut nodes = self.replicas.nodes.lock();
        nodes.iter_mut().find(|r| r.token == token).is_some_and(|r| r.reader(slot, |_| ()).is_ok())
    }
}

/// The service on port P + 2000.
pub(super) struct Service(pub Arc<Manager>);

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} missing"))
}

fn unknown_token() -> Status {
    Status::unauthenticated("MetaSync first")
}

impl Service {
    /// The slot a request names.
    fn slot(&self, slot: &proto::Slot) -> Result<&Arc<Slot>, Status> {
        self.0
            .keyspace
            .slot_named(&slot.db_name, slot.slot_id)
            .ok_or_else(|| Status::not_found(format!("no slot {}:{}", slot.db_name, slot.slot_id)))
    }

    fn meta_sync_reply(&self, ask: &inner_request::MetaSync) -> InnerResponse {
        let manager = &self.0;
        let refuse = |code, reply: String| proto::refusal(Type::KMetaSync, code, reply);
        if *manager.config.requirepass() != *ask.auth.as_deref().unwrap_or_default() {
            return refuse(StatusCode::KError, "Auth with master error, Invalid masterauth".into());
        }
        let run_id = ask.run_id.clone().unwrap_or_default();
        if run_id == manager.run_id {
            return refuse(StatusCode::KError, "the master address is this node's own".into());
        }
        let above = manager.upstream.lock().clone();
        if let Some(at) = above.iter().position(|hop| hop.run_id == run_id) {
            let way = upstream::addresses(&above[..=at]);
            return refuse(
                StatusCode::KOther,
                format!(
                    "a circle of replicas: the master follows this node, by way of {way}; on the one that is to be the master, type: slaveof no one"
                ),
            );
        }
        let Ok(port) = u16::try_from(ask.node.port) else {
            return refuse(StatusCode::KError, format!("impossible port {}", ask.node.port));
        };
        // A replica without a history of its own yet has nothing to give: ask again.
        let replication_id = match manager.replication_id_for_replicas() {
            Ok(id) => id,
            Err(e) => return refuse(StatusCode::KOther, e.to_string()),
        };
        let token = random_hex(32);
        {
            let mut nodes = manager.replicas.nodes.lock();
            let same = |r: &Replica| r.ip == ask.node.ip && r.port == port;
            if nodes.iter().any(|r| same(r) && r.run_id != run_id && r.streams > 0) {
                return refuse(StatusCode::KOther, "Slave AlreadyExist".into());
            }
            // One that was restarted in the middle of a full sync will want the same snapshots again.
            let (mut slots, mut dropped) = (HashMap::new(), BTreeMap::new());
            if let Some(at) = nodes.iter().position(same) {
                let before = nodes.remove(at);
                slots = before.slots;
                slots.retain(|_, slot| slot.stage == Stage::DbSync);
                dropped = before.dropped;
            }
            nodes.push(Replica {
                ip: ask.node.ip.clone(),
                port,
                run_id,
                token: token.clone(),
                heard: Instant::now(),
                streams: 0,
                in_flight: Arc::default(),
                slots,
                dropped,
            });
        }
        tracing::info!(replica = %format!("{}:{port}", ask.node.ip), "replica registered");
        let slots = manager.keyspace.slots_per_database();
        let info = |db| inner_response::meta_sync::DbInfo { db_name: proto::db_name(db), slot_num: slots as i32 };
        InnerResponse {
            meta_sync: Some(inner_response::MetaSync {
                classic_mode: false,
                dbs_info: (0..manager.keyspace.databases()).map(info).collect(),
                run_id: manager.run_id.clone(),
                replication_id: Some(replication_id),
                token: Some(token),
                upstream: above,
            }),
            ..proto::response(Type::KMetaSync, StatusCode::KOk)
        }
    }

    fn try_sync_reply(&self, ask: &inner_request::TrySync, slot: &Arc<Slot>) -> Result<InnerResponse, Status> {
        use inner_response::try_sync::ReplyCode;
        let manager = &self.0;
        let token = ask.token.as_deref().unwrap_or_default();
        let reply = |code: ReplyCode, session: Option<i32>, diverged: bool, retry: bool| InnerResponse {
            try_sync: Some(inner_response::TrySync {
                reply_code: code.into(),
                slot: ask.slot.clone(),
                binlog_offset: Some(slot.position().into()),
                session_id: session,
                diverged: Some(diverged),
                retry: Some(retry),
                upstream: if retry { manager.upstream.lock().clone() } else { Vec::new() },
            }),
            ..proto::response(Type::KTrySync, StatusCode::KOk)
        };
        let id = (slot.db(), slot.number());
        let claim = |r: &mut Replica| {
            if let Some(slot) = r.slots.get_mut(&id) {
                slot.claimed_at = Instant::now();
            }
        };
        manager.replicas.with_token(token, claim).ok_or_else(unknown_token)?;
        if manager.awaits_full_sync(slot) || slot.fault().is_some() || !manager.vouches_for(slot) {
            // What this slot holds is about to be replaced, or may be, or is not known to be right.
            return Ok(reply(ReplyCode::KError, None, false, true));
        }
        let theirs = Position::from(&ask.binlog_offset);
        // Read before the position is looked for: a log replaced meanwhile has another generation.
        let generation = slot.published().generation;
        // Pinned before it is looked for: it cannot be purged between the check and the stream.
        let pin = slot.pin_log(theirs.filenum);
        let counts = &manager.replicas.counts;
        let failed = |code, diverged, retry: bool| {
            if !ask.probe() {
                counts.partial_err.fetch_add(1, Ordering::Relaxed);
                if !retry {
                    // Nothing that was kept for this position is of use to it.
                    manager.replicas.with_token(token, |r| r.slots.remove(&id));
                }
            }
            Ok(reply(code, None, diverged, retry))
        };
        let found = find(slot, theirs).or_else(|e| match slot.replace_damaged_log(&e, generation) {
            // With a new log in its place it can be said.
            Ok(true) => find(slot, theirs),
            Ok(false) => Err(e),
            Err(failed) => {
                tracing::error!(slot = %slot, "a damaged log stays: {failed}");
                Err(e)
            }
        });
        match found {
            Ok(Found::Here) if ask.probe() => Ok(reply(ReplyCode::KOk, None, false, false)),
            Ok(Found::Here) => {
                let session = manager.replicas.next_session();
                let now = Instant::now();
                let state = ReplicaSlot {
                    stage: Stage::Accepted,
                    session,
                    generation,
                    from: theirs,
                    acked: theirs,
                    acked_at: now,
                    claimed_at: now,
                    hold: Hold::Log(pin),
                };
                // Takes the place of the claim on a snapshot, if it had one: until here that kept the log.
                let address = manager.replicas.with_token(token, |r| {
                    r.slots.insert(id, state);
                    r.dropped.remove(&id);
                    r.address()
                });
                let address = address.ok_or_else(unknown_token)?;
                counts.partial_ok.fetch_add(1, Ordering::Relaxed);
                tracing::info!(slot = %slot, replica = %address, position = %theirs, "replica continues from its position");
                Ok(reply(ReplyCode::KOk, Some(session), false, false))
            }
            Ok(Found::Purged) => failed(ReplyCode::KSyncPointBePurged, false, false),
            // A replica of ours that was a replica of our master may be ahead of us for a moment: see `judge_beyond`.
            Ok(Found::Beyond) => failed(ReplyCode::KSyncPointLarger, true, manager.is_slave()),
            Ok(Found::Elsewhere) => failed(ReplyCode::KError, true, false),
            Err(e) => {
                tracing::error!(slot = %slot, "cannot look for a replica's position: {e}");
                failed(ReplyCode::KError, false, true)
            }
        }
    }

    /// The position is beyond the end of a slot that is a replica's. Whether we lag or the asker's log has gone another way, our own master
    /// knows; waiting for our end to get there could be for ever, when nobody writes.
    async fn judge_beyond(&self, ask: &inner_request::TrySync, slot: &Slot, mut reply: InnerResponse) -> InnerResponse {
        let Some(answer) = reply.try_sync.as_mut().filter(|answer| answer.diverged() && answer.retry()) else {
            return reply;
        };
        let hops = ask.hops() + 1;
        if hops < MAX_HOPS
            && let Some(link) = self.0.upstream_of(slot)
        {
            let theirs = Position::from(&ask.binlog_offset);
            answer.retry = Some(link::is_upstream(&link, slot, theirs, hops).await != Some(false));
        }
        reply
    }

    /// Why no snapshot of a slot is given at present.
    fn why_no_snapshot(&self, slot: &Slot) -> Option<String> {
        if self.0.awaits_full_sync(slot) {
            return Some("this node is in a full sync itself".into());
        }
        if !self.0.vouches_for(slot) {
            return Some("this node's own master has not accepted its data yet".into());
        }
        slot.fault().map(|fault| format!("the master's own slot is read-only: {fault}"))
    }

    /// Whether this node, a replica itself, lags behind a replica of it: what its own master wrote and the other one has shown already must
    /// not be taken from it. What is not its master's is no reason to wait.
    async fn lags_behind(&self, theirs: Position, slot: &Slot) -> bool {
        let manager = &self.0;
        if !manager.is_slave() || manager.is_detached(slot.db()) || theirs.index <= slot.position().index {
            return false;
        }
        match manager.upstream_of(slot) {
            Some(link) => link::is_upstream(&link, slot, theirs, 1).await != Some(false),
            None => true,
        }
    }

    fn db_sync_reply(&self, ask: &inner_request::DbSync, slot: &Arc<Slot>) -> Result<InnerResponse, Status> {
        let manager = &self.0;
        if let Some(why) = self.why_no_snapshot(slot) {
            return Ok(proto::refusal(Type::KDbSync, StatusCode::KOther, why));
        }
        let token = ask.token.as_deref().unwrap_or_default();
        let session = manager.replicas.next_session();
        // One that has only our records does not go back behind them. Whether it does is not asked: the worst is a snapshot more. One that has
        // more than we must give up some of what it has.
        let has = Some(Position::from(&ask.binlog_offset).index).filter(|has| *has <= slot.position().index);
        // From here on nothing that the snapshot will need is purged.
        let Some(reader) = manager.snapshots.prepare(slot, has.unwrap_or(0)) else {
            return Ok(proto::refusal(Type::KDbSync, StatusCode::KOther, "the master is stopping"));
        };
        let now = Instant::now();
        let state = ReplicaSlot {
            stage: Stage::DbSync,
            session,
            generation: slot.published().generation,
            from: slot.position(),
            acked: Position::START,
            acked_at: now,
            claimed_at: now,
            hold: Hold::Snapshot(reader),
        };
        let id = (slot.db(), slot.number());
        // What was kept for an earlier try goes only now.
        let insert = |r: &mut Replica| {
            r.slots.insert(id, state);
            r.address()
        };
        let address = manager.replicas.with_token(token, insert).ok_or_else(unknown_token)?;
        manager.replicas.counts.full.fetch_add(1, Ordering::Relaxed);
        tracing::info!(slot = %slot, replica = %address, "replica takes a snapshot");
        Ok(InnerResponse {
            db_sync: Some(inner_response::DbSync { slot: ask.slot.clone(), session_id: session }),
            ..proto::response(Type::KDbSync, StatusCode::KOk)
        })
    }
}

/// Where a replica's position is in our log.
enum Found {
    /// A record ends there, and it is the same record.
    Here,
    Purged,
    /// We have not come that far.
    Beyond,
    /// Our log has something else there.
    Elsewhere,
}

fn find(slot: &Slot, theirs: Position) -> Result<Found, binlog::Error> {
    let ours = slot.position();
    if theirs == ours {
        return Ok(Found::Here);
    }
    if theirs.index > ours.index || theirs.place() > ours.place() {
        return Ok(Found::Beyond);
    }
    let Some(store) = slot.store().clone() else { return Ok(Found::Elsewhere) };
    match binlog::locate(store.log_dir(), theirs.filenum, theirs.offset) {
        Ok(Some(found)) if found == theirs => Ok(Found::Here),
        Ok(_) => Ok(Found::Elsewhere),
        Err(binlog::Error::NotInLog { .. }) => Ok(Found::Purged),
        Err(binlog::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Found::Purged),
        Err(e) => Err(e),
    }
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<InnerResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Replication for Service {
    async fn meta_sync(&self, request: Request<InnerRequest>) -> Result<Response<InnerResponse>, Status> {
        let ask = request.into_inner().meta_sync.ok_or_else(|| missing("meta_sync"))?;
        Ok(Response::new(tokio::task::block_in_place(|| self.meta_sync_reply(&ask))))
    }

    async fn try_sync(&self, request: Request<InnerRequest>) -> Result<Response<InnerResponse>, Status> {
        let ask = request.into_inner().try_sync.ok_or_else(|| missing("try_sync"))?;
        let slot = self.slot(&ask.slot)?;
        let reply = tokio::task::block_in_place(|| self.try_sync_reply(&ask, slot))?;
        Ok(Response::new(self.judge_beyond(&ask, slot, reply).await))
    }

    async fn db_sync(&self, request: Request<InnerRequest>) -> Result<Response<InnerResponse>, Status> {
        let ask = request.into_inner().db_sync.ok_or_else(|| missing("db_sync"))?;
        let slot = self.slot(&ask.slot)?;
        let token = ask.token.as_deref().unwrap_or_default();
        self.0.replicas.with_token(token, |_| ()).ok_or_else(unknown_token)?;
        let theirs = Position::from(&ask.binlog_offset);
        if self.why_no_snapshot(slot).is_none() && self.lags_behind(theirs, slot).await {
            let why = format!("the master, a replica itself, has yet to get as far as {theirs}");
            return Ok(Response::new(proto::refusal(Type::KDbSync, StatusCode::KOther, why)));
        }
        Ok(Response::new(tokio::task::block_in_place(|| self.db_sync_reply(&ask, slot))?))
    }

    type BinlogSyncStream = Outgoing;

    async fn binlog_sync(&self, request: Request<Streaming<InnerRequest>>) -> Result<Response<Outgoing>, Status> {
        let mut acks = request.into_inner();
        let first = acks.message().await?.and_then(|m| m.binlog_sync).ok_or_else(|| missing("binlog_sync"))?;
        if !first.first_send {
            return Err(Status::failed_precondition("the first message of a stream must say so"));
        }
        let named = proto::Slot { db_name: first.db_name.clone(), slot_id: first.slot_id };
        let slot = self.slot(&named)?.clone();
        let token = first.token.clone().unwrap_or_default();
        let link = sender::Link::open(&self.0, &slot, &token, first.session_id, Position::from(&first.ack_range_end))?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        tokio::spawn(link.run(acks, outgoing));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn remove_slave_node(&self, request: Request<InnerRequest>) -> Result<Response<InnerResponse>, Status> {
        let asks = request.into_inner().remove_slave_node;
        let mut removed = Vec::with_capacity(asks.len());
        for ask in asks {
            let slot = self.slot(&ask.slot)?;
            let address = self
                .0
                .replicas
                .with_token(ask.token.as_deref().unwrap_or_default(), |r| {
                    r.slots.remove(&(slot.db(), slot.number()));
                    r.address()
                })
                .ok_or_else(unknown_token)?;
            tracing::info!(slot = %slot, replica = %address, "replica left");
            removed.push(inner_response::RemoveSlaveNode { node: ask.node, slot: ask.slot });
        }
        Ok(Response::new(InnerResponse {
            remove_slave_node: removed,
            ..proto::response(Type::KRemoveSlaveNode, StatusCode::KOk)
        }))
    }

    async fn heart_beat(&self, request: Request<InnerRequest>) -> Result<Response<InnerResponse>, Status> {
        let ask = request.into_inner().heart_beat.ok_or_else(|| missing("heart_beat"))?;
        let manager = &self.0;
        let slots = ask.full_sync.iter().map(|slot| self.slot(slot)).collect::<Result<Vec<_>, _>>()?;
        let claim = |r: &mut Replica| {
            for slot in &slots {
                if let Some(claimed) = r.slots.get_mut(&(slot.db(), slot.number())) {
                    claimed.claimed_at = Instant::now();
                }
            }
        };
        let token = ask.token.as_deref().unwrap_or_default();
        manager.replicas.with_token(token, claim).ok_or_else(unknown_token)?;
        slots.into_iter().for_each(|slot| manager.snapshots.touch(slot));
        Ok(Response::new(proto::response(Type::KHeatBeat, StatusCode::KOk)))
    }
}
