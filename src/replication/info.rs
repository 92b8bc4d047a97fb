//! INFO replication and ROLE: Redis's fields where Redis has them, then Pika's, then ours (PROTOCOL: What INFO replication shows).

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Manager;
use super::machine::SlotState;
use super::master::{Replica, Stage};
use super::replica::{ReplicaSide, ReplicaSlot, ServerState};
use crate::binlog::Position;
use crate::server::Server;
use crate::snapshot::{SnapshotNow, SnapshotState};

/// What ROLE answers.
pub enum RoleReply {
    Master { offset: u64, replicas: Vec<(String, u16, u64)> },
    Slave { host: String, port: u16, state: &'static str, offset: u64 },
}

/// What this node did for its replicas since the start, a slot each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncCountsNow {
    /// DBSync answered.
    pub full: u64,
    /// TrySync accepted.
    pub partial_ok: u64,
    /// TrySync refused.
    pub partial_err: u64,
    /// Dropped over `binlog-max-pinned-size`.
    pub dropped: u64,
    /// Snapshots made.
    pub snapshots: u64,
}

/// A `name:value` line.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        // Writing to a String cannot fail.
        let _ = write!($out, $($arg)*);
        $out.push_str("\r\n");
    }};
}

impl Manager {
    /// Counts for INFO stats.
    pub fn sync_counts(&self) -> SyncCountsNow {
        let counts = &self.replicas.counts;
        let load = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        SyncCountsNow {
            full: load(&counts.full),
            partial_ok: load(&counts.partial_ok),
            partial_err: load(&counts.partial_err),
            dropped: load(&counts.dropped),
            snapshots: self.snapshots.made(),
        }
    }

    /// Replicas of which every slot streams, heard from within `silence`.
    pub fn online_replicas(&self, silence: Duration) -> usize {
        let is_near = |r: &&Replica| {
            // A sign of life is not enough: it must acknowledge what it is sent.
            r.slots.values().map(|s| s.acked_at.elapsed()).min().is_some_and(|at| at <= silence)
                && r.slots.values().all(|s| s.stage == Stage::BinlogSync)
        };
        self.replicas.with(|replicas| replicas.iter().filter(is_near).count())
    }

    /// Whether all slots of this replica stream from the master.
    pub fn is_linked(&self) -> bool {
        link_state(&self.replica.lock()) == "connected"
    }

    /// Records in all logs: what Redis calls the replication offset, in records instead of bytes.
    fn offset(&self) -> u64 {
        self.keyspace.all_slots().map(|s| s.position().index).sum()
    }

    /// What ROLE answers.
    pub fn role(&self) -> RoleReply {
        if let Some((host, port)) = self.master_address() {
            let state = link_state(&self.replica.lock());
            return RoleReply::Slave { host, port, state, offset: self.offset() };
        }
        let replicas = |nodes: &[Replica]| nodes.iter().map(|r| (r.ip.clone(), r.port, acked(r))).collect();
        RoleReply::Master { offset: self.offset(), replicas: self.replicas.with(replicas) }
    }

    /// The section's fields.
    pub fn info(&self, out: &mut String) {
        let node = self.node.lock().clone();
        line!(out, "role:{}", if node.master.is_some() { "slave" } else { "master" });
        if let Some((host, port)) = &node.master {
            self.slave_info(out, host, *port);
        }
        self.master_info(out);
        {
            let side = self.replica.lock();
            line!(out, "slave_full_syncs:{}", side.full_syncs);
            line!(out, "slave_partial_syncs:{}", side.partial_syncs);
        }
        let role_bits = u8::from(node.master.is_some()) | u8::from(self.replicas.with(|r| !r.is_empty())) << 1;
        line!(out, "role_bits:{role_bits}");
        line!(out, "master_replid:{}", node.replication_id);
        line!(out, "master_repl_offset:{}", self.offset());
        line!(out, "term:{}", self.keyspace.term());
        for slot in self.keyspace.all_slots() {
            let at = slot.position();
            let safe = slot.safe_to_purge_below();
            let purge = safe.checked_sub(1).map_or("none".to_string(), |n| format!("write2file{n}"));
            line!(out, "{slot} binlog_offset={} {},safety_purge={purge}", at.filenum, at.offset);
        }
    }

    fn master_info(&self, out: &mut String) {
        let now = std::time::Instant::now();
        self.replicas.with(|nodes| {
            line!(out, "connected_slaves:{}", nodes.len());
            for (nth, r) in nodes.iter().enumerate() {
                let syncing = r.slots.values().any(|s| s.stage == Stage::DbSync);
                let online = !r.slots.is_empty() && r.slots.values().all(|s| s.stage == Stage::BinlogSync);
                let state = if online {
                    "online"
                } else if syncing {
                    "send_bulk"
                } else {
                    "connecting"
                };
                let heard = r.slots.values().map(|s| s.acked_at).max().unwrap_or(r.heard);
                let lag = now.saturating_duration_since(heard).as_secs();
                line!(out, "slave{nth}:ip={},port={},state={state},offset={},lag={lag}", r.ip, r.port, acked(r));
                let mut slots: Vec<_> = r.slots.iter().collect();
                slots.sort_by_key(|(id, _)| **id);
                let states: String = slots
                    .iter()
                    .map(|((db, number), s)| {
                        let stage = match s.stage {
                            Stage::DbSync => "SlaveDbSync",
                            Stage::Accepted => "SlaveNotSync",
                            Stage::BinlogSync => "SlaveBinlogSync",
                        };
                        let end = self.keyspace.db_on_disk(*db).slots()[*number].position();
                        let lag = end.index.saturating_sub(s.acked.index);
                        format!("(db{db}:{number}:{stage}:lag={lag})")
                    })
                    .collect();
                line!(out, "slave{nth}_slots:{states}");
                line!(out, "slave{nth}_in_flight:{}", r.in_flight.load(Ordering::Relaxed));
                if !r.dropped.is_empty() {
                    let whys =
                        r.dropped.iter().map(|((db, number), why)| format!("(db{db}:{number}:{})", unbracketed(why)));
                    line!(out, "slave{nth}_dropped:{}", whys.collect::<String>());
                }
            }
        });
        for snapshot in self.snapshots.list() {
            snapshot_line(out, &snapshot);
        }
    }

    fn slave_info(&self, out: &mut String, host: &str, port: u16) {
        let now = Server::now_ms();
        let side = self.replica.lock();
        let up = link_state(&side) == "connected";
        line!(out, "master_host:{host}");
        line!(out, "master_port:{port}");
        line!(out, "master_link_status:{}", if up { "up" } else { "down" });
        let heard = side.slots.iter().map(|s| s.stream.lock().heard_at).max().unwrap_or(0);
        let silent = if heard == 0 { -1 } else { (now.saturating_sub(heard) / 1000) as i64 };
        line!(out, "master_last_io_seconds_ago:{silent}");
        line!(out, "master_sync_in_progress:{}", u8::from(side.slots.iter().any(ReplicaSlot::is_transferring)));
        line!(out, "slave_repl_offset:{}", self.offset());
        line!(out, "slave_priority:{}", self.config.slave_priority());
        line!(out, "slave_read_only:{}", u8::from(self.config.slave_read_only()));
        line!(out, "master_server_state:{} ({})", side.server.name(), side.server as u8);
        if let Some(reason) = trouble(&side) {
            line!(out, "master_link_error:{}", reason.replace(['\r', '\n'], " "));
        }
        let states: String = side.slots.iter().map(|s| format!("({}:{})", s.slot, s.state.name())).collect();
        line!(out, "db_repl_state:{states}");
        let tails: String =
            side.slots.iter().filter_map(|s| Some(format!("({}:{})", s.slot, s.tail.as_ref()?.display()))).collect();
        if !tails.is_empty() {
            line!(out, "diverged_tail:{tails}");
        }
        for slot in &side.slots {
            slot_line(out, slot, now);
        }
    }
}

/// A text as one of several in brackets.
fn unbracketed(text: &str) -> String {
    text.replace(['(', ')'], "").replace(['\r', '\n'], " ")
}

/// A snapshot for replicas.
fn snapshot_line(out: &mut String, s: &SnapshotNow) {
    let (db, number) = s.slot;
    let (readers, age) = (s.readers, s.age.as_secs());
    let _ = write!(out, "db{db}:{number}_snapshot:");
    match &s.state {
        SnapshotState::Ready(snapshot) => {
            let (listing, at) = (snapshot.listing(), snapshot.info().applied.position);
            let (files, bytes) = (listing.files.len(), listing.bytes());
            let place = format!("{} {}", at.filenum, at.offset);
            let _ = write!(
                out,
                "state=ready,readers={readers},seconds={age},uuid={},position={place},files={files},bytes={bytes}",
                listing.uuid
            );
        }
        SnapshotState::Making => {
            let _ = write!(out, "state=making,readers={readers},seconds={age}");
        }
        SnapshotState::Failed(why) => {
            let why = why.replace(['\r', '\n', ','], " ");
            let _ = write!(out, "state=failed,readers={readers},seconds={age},reason={why}");
        }
        SnapshotState::None => {
            let _ = write!(out, "state=none,readers={readers},seconds={age}");
        }
    }
    out.push_str("\r\n");
}

/// A replica's slot: its state, both positions, lag, and how far a full sync is.
fn slot_line(out: &mut String, s: &ReplicaSlot, now: u64) {
    let place = |p: Position| format!("{} {}", p.filenum, p.offset);
    let own = s.slot.position();
    let _ = write!(out, "{}_repl:state={},own={}", s.slot, s.state.name(), place(own));
    if s.state == SlotState::Connected {
        let status = *s.stream.lock();
        if let Some(master) = status.master {
            let behind = master.index.saturating_sub(own.index);
            let seconds = if behind == 0 { 0 } else { now.saturating_sub(status.caught_up_at) / 1000 };
            let _ = write!(out, ",master={},lag_records={behind},lag_seconds={seconds}", place(master));
        }
    }
    if s.is_transferring() {
        let p = s.progress.now();
        let _ = write!(
            out,
            ",files={}/{},bytes={}/{},bytes_per_second={}",
            p.files_done, p.files_total, p.bytes_done, p.bytes_total, p.bytes_per_second
        );
        if let Some(left) = p.seconds_left {
            let _ = write!(out, ",seconds_left={left}");
        }
    }
    if s.state != SlotState::Connected && s.in_vain > 0 {
        let _ = write!(out, ",full_syncs_in_vain={}", s.in_vain);
        let left = s.backoff.left().as_secs();
        if s.state == SlotState::TryDbSync && left > 0 {
            let _ = write!(out, ",next_try_seconds={left}");
        }
    }
    if let Some(reason) = s.why() {
        let _ = write!(out, ",reason={}", reason.replace(['\r', '\n', ','], " "));
    }
    out.push_str("\r\n");
}

/// Why the link is not as it should be, if it is not.
fn trouble(side: &ReplicaSide) -> Option<&String> {
    let of_slot = || {
        let broken = |s: &&ReplicaSlot| !matches!(s.state, SlotState::Connected | SlotState::DbNoConnect);
        side.slots.iter().filter(broken).find_map(ReplicaSlot::why)
    };
    side.reason.as_ref().or_else(of_slot)
}

/// ROLE's word for the link.
fn link_state(side: &ReplicaSide) -> &'static str {
    let any = |test: fn(&ReplicaSlot) -> bool| side.slots.iter().any(test);
    if side.server != ServerState::MetaSyncDone {
        "connect"
    } else if any(ReplicaSlot::is_transferring) {
        "sync"
    } else if any(|s| !matches!(s.state, SlotState::Connected | SlotState::DbNoConnect)) {
        "connecting"
    } else {
        "connected"
    }
}

/// Records that a replica has acknowledged, over all slots.
fn acked(replica: &Replica) -> u64 {
    replica.slots.values().map(|s| s.acked.index).sum()
}
