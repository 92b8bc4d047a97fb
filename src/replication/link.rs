//! The replica's calls to its master: MetaSync, TrySync, DBSync, and leaving.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::diverged::{self, Probe};
use super::machine::Event;
use super::proto::{self, InnerRequest, InnerResponse, ReplicationClient, StatusCode, Type};
use super::proto::{inner_request, inner_response};
use super::replica::SLOT_LAST_RETRY;
use super::{Epoch, Manager};
use crate::binlog::{self, Position};
use crate::keyspace::Slot;
use crate::server::Server;
use crate::wire::is_damage;

/// Ports above the client port.
pub const REPLICATION_PORT: u16 = 2000;
pub const RSYNC_PORT: u16 = 10001;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer that takes longer is no answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 windows (PROTOCOL: the default would cap a stream at 64 KiB a round trip).
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The receiver's word decides how large the sender's frames are: room for a message of snapshot data or of records.
const MAX_FRAME: u32 = 256 << 10;

/// A master that answered MetaSync.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub channel: Channel,
    pub rsync: Channel,
    pub token: String,
    pub node: proto::Node,
    /// Whom it leads to.
    pub master: proto::Hop,
}

/// Why MetaSync did not work.
#[derive(Clone, Debug)]
pub(super) struct MetaFailure {
    pub reason: String,
    /// What becomes of it.
    pub then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Asking again may help.
    Retry,
    /// An error that somebody may mend on either side: shown as an error, and asked again.
    RetryError,
    /// An error until the operator says `slaveof` again.
    Stop,
}

/// What a master said of itself.
#[derive(Clone, Debug)]
pub(super) struct MetaAnswer {
    pub link: Link,
    pub replication_id: String,
    /// The nodes above the master.
    pub upstream: Vec<proto::Hop>,
}

/// What a slot's task found out about the link that all slots share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkHealth {
    /// Nothing against it.
    Good,
    /// A call was not answered in time.
    Unanswering,
    /// The master does not know us (any more), or what comes over the connection is damaged: a new one, and MetaSync.
    Unusable,
    /// This node's master follows this node.
    Circle,
}

impl LinkHealth {
    /// What a call or a stream that failed says about it.
    fn of(status: &Status) -> LinkHealth {
        match status.code() {
            Code::Unauthenticated => LinkHealth::Unusable,
            Code::DeadlineExceeded => LinkHealth::Unanswering,
            code if is_damage(code) => LinkHealth::Unusable,
            _ => LinkHealth::Good,
        }
    }
}

/// What a task found out for its slot.
#[derive(Debug)]
pub(super) struct Outcome {
    pub event: Event,
    pub reason: Option<String>,
    pub link: LinkHealth,
    pub session: i32,
    pub tail: Option<PathBuf>,
    /// The last position that the slot's log has in common with the master's; of [`Event::TailSaved`].
    pub common: Option<Position>,
    /// How long the pauses before the next tries may become.
    pub longest_pause: Duration,
}

impl Outcome {
    pub fn of(event: Event) -> Outcome {
        let longest_pause = SLOT_LAST_RETRY;
        Outcome { event, reason: None, link: LinkHealth::Good, session: 0, tail: None, common: None, longest_pause }
    }

    pub fn because(event: Event, reason: impl Into<String>) -> Outcome {
        Outcome { reason: Some(reason.into()), ..Outcome::of(event) }
    }

    /// A call or a stream that failed. A status alone is never final: it has no checksum.
    pub fn failed(event: Event, status: &Status) -> Outcome {
        Outcome { link: LinkHealth::of(status), ..Outcome::because(event, explain(status)) }
    }
}

/// A status in words: tonic's own say little of what is below them.
pub(super) fn explain(status: &Status) -> String {
    let mut text = status.message().to_string();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

pub(super) fn client(channel: &Channel) -> ReplicationClient<Channel> {
    ReplicationClient::new(channel.clone())
        .max_decoding_message_size(proto::MAX_MESSAGE)
        .max_encoding_message_size(proto::MAX_MESSAGE)
}

fn endpoint(host: &str, port: u16, timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    Ok(Endpoint::from_shared(format!("http://{host}:{port}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_keep_alive_interval(timeout / 4)
        .keep_alive_timeout(timeout / 2)
        .keep_alive_while_idle(true))
}

/// The address under which this node reaches `master`, as it should name itself.
async fn own_address(master: &str, port: u16) -> std::io::Result<IpAddr> {
    let target: SocketAddr = tokio::net::lookup_host((master, port))
        .await?
        .next()
        .ok_or_else(|| std::io::Error::other(format!("no address for {master}")))?;
    let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    // Connecting a UDP socket sends nothing; it only picks the route.
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(REPLY_TIMEOUT, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Connects and asks; `host` and `port` are the master's client address.
pub(super) async fn meta_sync(manager: &Arc<Manager>, host: &str, port: u16) -> Result<MetaAnswer, MetaFailure> {
    let retry = |reason: String| MetaFailure { reason, then: Then::Retry };
    let stop = |reason: String| MetaFailure { reason, then: Then::Stop };
    let far = |plus: u16| {
        port.checked_add(plus).ok_or_else(|| stop(format!("port {port} leaves no room for the replication ports")))
    };
    let (repl_port, rsync_port) = (far(REPLICATION_PORT)?, far(RSYNC_PORT)?);
    let config = &manager.config;
    let ip = match config.announce_ip() {
        ip if !ip.is_empty() => ip.to_string(),
        _ => own_address(host, port).await.map_err(|e| retry(format!("{host}: {e}")))?.to_string(),
    };
    let own_port = if config.announce_port() == 0 { config.port() } else { config.announce_port() };
    let node = proto::Node { ip, port: i32::from(own_port) };
    let timeout = config.repl_timeout();
    let dial = endpoint(host, repl_port, timeout).map_err(|e| stop(format!("{host}:{repl_port}: {e}")))?;
    let channel = dial.connect().await.map_err(|e| {
        let mut status = Status::unavailable("");
        status.set_source(Arc::new(e));
        retry(format!("cannot reach a Haypile master at {host}:{repl_port}: {}", explain(&status)))
    })?;
    let rsync =
        endpoint(host, rsync_port, timeout).map_err(|e| stop(format!("{host}:{rsync_port}: {e}")))?.connect_lazy();
    let ask = InnerRequest {
        meta_sync: Some(inner_request::MetaSync {
            node: node.clone(),
            auth: Some(config.masterauth().to_string()),
            run_id: Some(manager.run_id.clone()),
        }),
        ..proto::request(Type::KMetaSync)
    };
    let answer = within(client(&channel).meta_sync(ask))
        .await
        .map_err(|e| retry(format!("{host}:{repl_port} does not answer as a Haypile node: {}", explain(&e))))?
        .into_inner();
    let reply = answer.reply.clone().unwrap_or_default();
    match answer.code() {
        StatusCode::KOk => {}
        StatusCode::KOther => return Err(retry(reply)),
        StatusCode::KError => {
            let auth = reply.starts_with("Auth");
            return Err(MetaFailure { reason: reply, then: if auth { Then::RetryError } else { Then::Stop } });
        }
    }
    let Some(meta) = answer.meta_sync else {
        return Err(retry(format!("{host}:{repl_port} answered MetaSync without content")));
    };
    let slots = manager.keyspace.slots_per_database() as i32;
    let ours: Vec<String> = (0..manager.keyspace.databases()).map(proto::db_name).collect();
    let theirs: Vec<&str> = meta.dbs_info.iter().map(|d| d.db_name.as_str()).collect();
    if ours != theirs || meta.dbs_info.iter().any(|d| d.slot_num != slots) {
        let their_slots = meta.dbs_info.first().map_or(0, |d| d.slot_num);
        return Err(stop(format!(
            "the master has databases : {} and slot-num : {their_slots}, this node has databases : {} and slot-num : {slots}",
            theirs.len(),
            ours.len(),
        )));
    }
    let replication_id = meta.replication_id.unwrap_or_default();
    if replication_id.is_empty() {
        return Err(retry("the master has no replication id yet".into()));
    }
    let token = meta.token.unwrap_or_default();
    let master = proto::Hop { run_id: meta.run_id, address: format!("{host}:{port}") };
    Ok(MetaAnswer { link: Link { channel, rsync, token, node, master }, replication_id, upstream: meta.upstream })
}

fn wire_slot(slot: &Slot) -> proto::Slot {
    proto::Slot { db_name: proto::db_name(slot.db()), slot_id: slot.number() as u32 }
}

/// Asks whether a position is in the master's log; `probe`: and no more, `hops` being the replicas that the question went through.
async fn ask_try_sync(
    link: &Link,
    slot: &Slot,
    at: Position,
    probe: Option<u32>,
) -> Result<inner_response::TrySync, Status> {
    let ask = InnerRequest {
        try_sync: Some(inner_request::TrySync {
            node: link.node.clone(),
            slot: wire_slot(slot),
            binlog_offset: at.into(),
            probe: Some(probe.is_some()),
            hops: probe,
            token: Some(link.token.clone()),
        }),
        ..proto::request(Type::KTrySync)
    };
    let answer: InnerResponse = within(client(&link.channel).try_sync(ask)).await?.into_inner();
    let said = answer
        .try_sync
        .ok_or_else(|| Status::internal(answer.reply.unwrap_or_else(|| "empty answer to TrySync".into())))?;
    // HTTP/2 tells calls apart by a number: an answer whose number was damaged may come to another call.
    if said.slot == wire_slot(slot) { Ok(said) } else { Err(another_slot()) }
}

fn another_slot() -> Status {
    Status::data_loss("an answer that is about another slot")
}

/// Offers our position to the master.
pub(super) async fn try_sync(manager: &Arc<Manager>, link: &Link, slot: &Arc<Slot>, epoch: Epoch) -> Outcome {
    use inner_response::try_sync::ReplyCode;
    let at = slot.position();
    let answer = match ask_try_sync(link, slot, at, None).await {
        Ok(answer) => answer,
        Err(status) => return Outcome::failed(Event::NoAnswer, &status),
    };
    match answer.reply_code() {
        ReplyCode::KOk => Outcome { session: answer.session_id(), ..Outcome::of(Event::SyncAccepted) },
        ReplyCode::KSyncPointBePurged => {
            let why = format!("the master no longer has the records after {at}");
            // What this node wrote as a master the other may never have had, and it can no longer tell.
            match manager.led_from().filter(|led| at.term >= *led) {
                None => Outcome::because(Event::Purged, why),
                Some(led) => saved(save_diverged(manager, link, slot, Some(led)).await, &why),
            }
        }
        _ if answer.retry() => {
            // Where nobody streams yet, no keepalive tells who is above.
            let learn = || manager.learn_upstream(&link.master, &answer.upstream);
            let learned = tokio::task::block_in_place(|| manager.while_following(epoch, slot, learn));
            match learned {
                Some(Err(circle)) => Outcome { link: LinkHealth::Circle, ..Outcome::because(Event::NotYet, circle) },
                _ => Outcome::because(Event::NotYet, "the master is not ready for this position yet"),
            }
        }
        _ if answer.diverged() => {
            let why = format!("the log at {at} is not the master's");
            saved(save_diverged(manager, link, slot, None).await, &why)
        }
        _ => Outcome::because(Event::Refused, format!("the master refuses position {at}")),
    }
}

/// Whether our own master has a record that ends at `at`, asked for a replica of ours; `None` if it cannot tell.
pub(super) async fn is_upstream(link: &Link, slot: &Slot, at: Position, hops: u32) -> Option<bool> {
    use inner_response::try_sync::ReplyCode;
    let answer = ask_try_sync(link, slot, at, Some(hops)).await.ok()?;
    match answer.reply_code() {
        ReplyCode::KOk => Some(true),
        _ if answer.diverged() && !answer.retry() => Some(false),
        _ => None,
    }
}

/// Where a log parted from the master's, and its own records after that.
struct Diverged {
    /// The last common position, if there is one.
    common: Option<Position>,
    /// Where the records are saved, if there were any.
    tail: Option<PathBuf>,
}

/// What follows from having saved the tail, or not.
fn saved(result: Result<Diverged, String>, why: &str) -> Outcome {
    match result {
        Ok(Diverged { common, tail }) => {
            let what = tail.as_ref().map_or("this node had nothing of its own".into(), |path| {
                format!("this node's own records are saved in {}", path.display())
            });
            Outcome { tail, common, ..Outcome::because(Event::TailSaved, format!("{why}; {what}")) }
        }
        Err(e) => Outcome::because(Event::NotYet, format!("{why}, but saving this node's own records failed: {e}")),
    }
}

/// Finds the last common record and saves what follows it. `led_from`: where the master can vouch for nothing, only records
/// of this term and later are this node's own.
async fn save_diverged(
    manager: &Arc<Manager>,
    link: &Link,
    slot: &Arc<Slot>,
    led_from: Option<u32>,
) -> Result<Diverged, String> {
    use inner_response::try_sync::ReplyCode;
    let probe = |at: Position| async move {
        let answer = ask_try_sync(link, slot, at, Some(0)).await?;
        Ok::<_, Status>(match answer.reply_code() {
            ReplyCode::KOk => Probe::Same,
            ReplyCode::KSyncPointBePurged => Probe::Unknown,
            _ => Probe::Other,
        })
    };
    let generation = slot.published().generation;
    // Of a log that is damaged nothing is given up: it is set aside as a whole, and the next try finds nothing to save.
    let text = |e: binlog::Error| match tokio::task::block_in_place(|| slot.replace_damaged_log(&e, generation)) {
        Ok(true) => format!("{e}; all of the log is kept"),
        Ok(false) => e.to_string(),
        Err(failed) => format!("{e}; {failed}"),
    };
    let coarse = tokio::task::block_in_place(|| diverged::coarse(slot)).map_err(text)?;
    let mut common = diverged::last_same(&coarse, probe).await.map_err(|e| explain(&e))?;
    if let Some(from) = common {
        let fine = tokio::task::block_in_place(|| diverged::fine(slot, from)).map_err(text)?;
        common = diverged::last_same(&fine, probe).await.map_err(|e| explain(&e))?.or(common);
    } else if let Some(term) = led_from {
        common = tokio::task::block_in_place(|| diverged::last_before(slot, term)).map_err(text)?;
    }
    let dir = manager.config.dir().join("diverged");
    let save = || diverged::save_tail(slot, &dir, common, Server::now_ms());
    Ok(Diverged { common, tail: tokio::task::block_in_place(save).map_err(text)? })
}

/// Asks for a snapshot, which contains at least what `holds` says if the master has come as far.
pub(super) async fn db_sync(link: &Link, slot: &Arc<Slot>, holds: Position) -> Outcome {
    let ask = InnerRequest {
        db_sync: Some(inner_request::DbSync {
            node: link.node.clone(),
            slot: wire_slot(slot),
            binlog_offset: holds.into(),
            token: Some(link.token.clone()),
        }),
        ..proto::request(Type::KDbSync)
    };
    match within(client(&link.channel).db_sync(ask)).await.map(tonic::Response::into_inner) {
        Ok(answer) => match answer.code() {
            StatusCode::KOk if answer.db_sync.is_none_or(|said| said.slot != wire_slot(slot)) => {
                Outcome::failed(Event::NoAnswer, &another_slot())
            }
            StatusCode::KOk => Outcome::of(Event::SnapshotPromised),
            StatusCode::KOther => Outcome::because(Event::NotYet, answer.reply.unwrap_or_default()),
            StatusCode::KError => Outcome::because(Event::Refused, answer.reply.unwrap_or_default()),
        },
        Err(status) => Outcome::failed(Event::NoAnswer, &status),
    }
}

/// Tells the master that this node is there, and for which slots it still needs a snapshot.
pub(super) async fn heart_beat(link: &Link, full_sync: &[Arc<Slot>]) -> LinkHealth {
    let ask = InnerRequest {
        heart_beat: Some(inner_request::HeartBeat {
            full_sync: full_sync.iter().map(|slot| wire_slot(slot)).collect(),
            token: Some(link.token.clone()),
        }),
        ..proto::request(Type::KHeatBeat)
    };
    match within(client(&link.channel).heart_beat(ask)).await {
        Err(status) => {
            tracing::debug!("heartbeat: {}", explain(&status));
            LinkHealth::of(&status)
        }
        Ok(_) => LinkHealth::Good,
    }
}

/// Tells the master that we leave. A courtesy: it would find out by itself.
pub(super) async fn leave(link: Link, slots: Vec<Arc<Slot>>) {
    let asks = slots.iter().map(|slot| inner_request::RemoveSlaveNode {
        node: link.node.clone(),
        slot: wire_slot(slot),
        token: Some(link.token.clone()),
    });
    let ask = InnerRequest { remove_slave_node: asks.collect(), ..proto::request(Type::KRemoveSlaveNode) };
    if let Err(e) = within(client(&link.channel).remove_slave_node(ask)).await {
        tracing::debug!("leaving the master: {}", explain(&e));
    }
}
