//! The replica's side: where each slot is on its way to the master, and the tasks that carry it there.
//!
//! The auxiliary thread alone changes the states, by [`super::machine::step`]. Tasks do the talking; each carries the *ticket* of its
//! slot, and what a task reports after its slot has moved on is ignored.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::link::{self, Link, LinkHealth, MetaAnswer, MetaFailure, Outcome, Then};
use super::machine::{Action, Asked, Event, SlotState, step};
use super::node_state::SlotId;
use super::stream::{StreamContext, StreamStatus};
use super::{Epoch, Manager};
use crate::binlog::Position;
use crate::keyspace::Slot;
use crate::server::Server;
use crate::snapshot::{self, Progress};

/// MetaSync is sent again after this long, and then ever more rarely.
const META_FIRST_RETRY: Duration = Duration::from_secs(1);
/// But at least this often (PROTOCOL: at most once per 10 s).
const META_LAST_RETRY: Duration = Duration::from_secs(10);
/// A slot asks again after this long, and then ever more rarely.
const SLOT_FIRST_RETRY: Duration = Duration::from_millis(100);
pub(super) const SLOT_LAST_RETRY: Duration = Duration::from_secs(2);
/// After full syncs that cost the master a snapshot and the network a transfer, and came to nothing.
const FULL_SYNC_LAST_RETRY: Duration = Duration::from_secs(300);
/// While this node's disk is full: nobody says when it no longer is.
const DISK_FULL_LAST_RETRY: Duration = Duration::from_secs(30);
/// How often the master is told that this node is there, at least.
const HEART_BEAT: Duration = Duration::from_secs(5);
/// And how many times within `repl-timeout`.
const HEART_BEATS: u32 = 4;

/// A connection that lasted for so long was a good one: the next try is not delayed by those before.
const STEADY: Duration = Duration::from_secs(5);

/// Where the node is with its master. Numbers are Pika's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ServerState {
    #[default]
    NoConnect = 0,
    ShouldMetaSync = 1,
    MetaSyncDone = 2,
    Error = 3,
}

impl ServerState {
    pub fn name(self) -> &'static str {
        match self {
            ServerState::NoConnect => "no_connect",
            ServerState::ShouldMetaSync => "should_meta_sync",
            ServerState::MetaSyncDone => "meta_sync_done",
            ServerState::Error => "error",
        }
    }
}

/// A growing pause between tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Instant,
    pause: Duration,
    first: Duration,
    last: Duration,
}

impl Backoff {
    fn new(first: Duration, last: Duration) -> Backoff {
        Backoff { next: Instant::now(), pause: first, first, last }
    }

    /// How long is left of the pause.
    pub fn left(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn wait(&mut self) {
        self.wait_at_most(self.last);
    }

    /// As [`Backoff::wait`], with another longest pause this time.
    fn wait_at_most(&mut self, last: Duration) {
        let pause = self.pause.min(last);
        self.next = Instant::now() + pause;
        self.pause = (pause * 2).min(last).max(self.pause);
    }

    fn reset(&mut self) {
        *self = Backoff::new(self.first, self.last);
    }
}

/// One slot's way.
pub(super) struct ReplicaSlot {
    pub slot: Arc<Slot>,
    pub state: SlotState,
    /// Why it is in its state, if that is not as it should be.
    pub reason: Option<String>,
    /// Whether this master has accepted the slot's position: from then on what the slot holds is the master's.
    pub accepted: bool,
    /// Where this node's own records went when its log had gone another way.
    pub tail: Option<PathBuf>,
    /// What of its log is the master's too, when the rest is this node's own and has been given up: the full sync must not go back behind that.
    common: Option<Position>,
    pub progress: Arc<Progress>,
    pub stream: Arc<Mutex<StreamStatus>>,
    /// When it came into its state.
    since: Instant,
    ticket: u64,
    task: Option<AbortHandle>,
    pub backoff: Backoff,
    session: i32,
    /// Full syncs in a row that were in vain: they failed, or what they brought was too old when it was in place.
    pub in_vain: u32,
    /// Why the last of them was; shown until a connection has lasted.
    pub last_failure: Option<String>,
    /// A snapshot was put in place, and no connection has lasted since.
    installed: bool,
    /// Of what was reported last.
    longest_pause: Duration,
}

/// All of the replica's side.
pub(super) struct ReplicaSide {
    pub epoch: Epoch,
    pub server: ServerState,
    /// Why the server state is what it is.
    pub reason: Option<String>,
    pub slots: Vec<ReplicaSlot>,
    pub link: Option<Link>,
    pub full_syncs: u64,
    pub partial_syncs: u64,
    /// Whether the error is one that is asked about again.
    retry_error: bool,
    meta_task: Option<AbortHandle>,
    meta_backoff: Backoff,
    beat_at: Instant,
}

/// What a task tells the auxiliary thread.
pub(super) enum Report {
    Meta {
        epoch: Epoch,
        result: Result<MetaAnswer, MetaFailure>,
    },
    Slot {
        id: SlotId,
        ticket: u64,
        outcome: Outcome,
    },
    /// A heartbeat found out that the link with this token is [`LinkHealth::Unusable`].
    Unusable {
        token: String,
    },
    /// Something changed that is worth looking at before the next tick.
    Wake,
    Stop,
}

impl ReplicaSide {
    pub fn new(slots: impl Iterator<Item = Arc<Slot>>) -> ReplicaSide {
        let slot = |slot| ReplicaSlot {
            slot,
            state: SlotState::NoConnect,
            reason: None,
            accepted: false,
            tail: None,
            common: None,
            progress: Arc::default(),
            stream: Arc::default(),
            since: Instant::now(),
            ticket: 0,
            task: None,
            backoff: Backoff::new(SLOT_FIRST_RETRY, SLOT_LAST_RETRY),
            session: 0,
            in_vain: 0,
            last_failure: None,
            installed: false,
            longest_pause: SLOT_LAST_RETRY,
        };
        ReplicaSide {
            epoch: 0,
            server: ServerState::NoConnect,
            reason: None,
            slots: slots.map(slot).collect(),
            link: None,
            full_syncs: 0,
            partial_syncs: 0,
            retry_error: false,
            meta_task: None,
            meta_backoff: Backoff::new(META_FIRST_RETRY, META_LAST_RETRY),
            beat_at: Instant::now(),
        }
    }

    /// Leaves the present master, if any, for the next one (or none).
    pub fn begin(&mut self, manager: &Arc<Manager>, epoch: Epoch, following: bool) {
        if let Some(task) = self.meta_task.take() {
            task.abort();
        }
        let left: Vec<_> = self.slots.iter().map(|s| s.slot.clone()).collect();
        for index in 0..self.slots.len() {
            self.feed(manager, index, Event::Stop);
            // Another master is for all databases.
            if !manager.is_detached(self.slots[index].slot.db()) {
                self.feed(manager, index, Event::Attach);
            }
            self.slots[index].reason = None;
            self.slots[index].accepted = false;
            self.slots[index].common = None;
        }
        if let Some(link) = self.link.take() {
            manager.runtime.spawn(link::leave(link, left));
        }
        self.epoch = epoch;
        self.server = if following { ServerState::ShouldMetaSync } else { ServerState::NoConnect };
        self.reason = None;
        self.meta_backoff.reset();
    }

    /// Ends everything, for good.
    pub fn stop(&mut self) {
        for slot in &mut self.slots {
            if let Some(task) = slot.task.take() {
                task.abort();
            }
        }
        if let Some(task) = self.meta_task.take() {
            task.abort();
        }
        self.link = None;
    }

    /// One look at everything that may be due.
    pub fn poll(&mut self, manager: &Arc<Manager>) {
        let asks = match self.server {
            ServerState::ShouldMetaSync => true,
            ServerState::Error => self.retry_error,
            ServerState::NoConnect | ServerState::MetaSyncDone => false,
        };
        if asks && self.meta_task.is_none() && self.meta_backoff.due() {
            self.meta_backoff.wait();
            self.meta_task = self.ask_meta(manager);
        }
        if self.server == ServerState::MetaSyncDone {
            self.beat(manager);
            for index in 0..self.slots.len() {
                let slot = &mut self.slots[index];
                if slot.is_steady() {
                    slot.forget_failures();
                }
                if matches!(slot.state, SlotState::TryConnect | SlotState::Connected)
                    && let Some(fault) = slot.slot.fault()
                {
                    tracing::warn!(slot = %slot.slot, "needs a full sync: {fault}");
                    slot.reason = Some(fault.to_string());
                    self.feed(manager, index, Event::Faulty);
                }
                let slot = &self.slots[index];
                if matches!(slot.state, SlotState::TryConnect | SlotState::TryDbSync) && slot.backoff.due() {
                    self.feed(manager, index, Event::Poll);
                }
            }
        }
    }

    /// Tells the master now and then that this node is there. Nothing else does while a snapshot is put in place, or between tries.
    fn beat(&mut self, manager: &Arc<Manager>) {
        let pause = HEART_BEAT.min(manager.config.repl_timeout() / HEART_BEATS);
        let Some(link) = self.link.clone().filter(|_| self.beat_at.elapsed() >= pause) else { return };
        self.beat_at = Instant::now();
        let full_sync: Vec<_> = self.slots.iter().filter(|s| s.is_transferring()).map(|s| s.slot.clone()).collect();
        let manager = manager.clone();
        manager.runtime.clone().spawn(async move {
            if link::heart_beat(&link, &full_sync).await == LinkHealth::Unusable {
                manager.report(Report::Unusable { token: link.token });
            }
        });
    }

    /// The link with this token is of no more use. A master that does not know us was restarted, or has not heard from us for too long.
    pub fn unusable(&mut self, token: &str) {
        if self.server == ServerState::MetaSyncDone && self.link.as_ref().is_some_and(|link| link.token == token) {
            self.renew_link();
        }
    }

    /// Asks for a new link with MetaSync, at once.
    fn renew_link(&mut self) {
        self.server = ServerState::ShouldMetaSync;
        self.meta_backoff.reset();
    }

    fn ask_meta(&self, manager: &Arc<Manager>) -> Option<AbortHandle> {
        let (host, port) = manager.master_address()?;
        let (manager, epoch) = (manager.clone(), self.epoch);
        let task = manager.runtime.clone().spawn(async move {
            let result = link::meta_sync(&manager, &host, port).await;
            manager.report(Report::Meta { epoch, result });
        });
        Some(task.abort_handle())
    }

    /// MetaSync was answered, or not.
    pub fn meta_answered(&mut self, manager: &Arc<Manager>, epoch: Epoch, result: Result<MetaAnswer, MetaFailure>) {
        if epoch != self.epoch {
            return;
        }
        self.meta_task = None;
        let result = result.and_then(|answer| {
            // The epoch is this one: nobody changes the master while the auxiliary thread has this side.
            let circle = manager.learn_upstream(&answer.link.master, &answer.upstream);
            circle.map_err(|reason| MetaFailure { reason, then: Then::RetryError })?;
            manager.adopt(&answer.replication_id).map_err(|reason| MetaFailure { reason, then: Then::Stop })?;
            Ok(answer)
        });
        match result {
            Ok(answer) => {
                tracing::info!(replication_id = %answer.replication_id, "the master answered MetaSync");
                self.link = Some(answer.link);
                self.server = ServerState::MetaSyncDone;
                self.reason = None;
                self.meta_backoff.reset();
                for index in 0..self.slots.len() {
                    let slot = &self.slots[index].slot;
                    let full = manager.awaits_full_sync(slot) || slot.fault().is_some();
                    self.feed(manager, index, Event::MetaSynced { full });
                }
            }
            Err(failure) => {
                if self.reason.as_deref() != Some(&failure.reason) {
                    tracing::warn!("MetaSync: {}", failure.reason);
                }
                self.reason = Some(failure.reason);
                self.retry_error = failure.then == Then::RetryError;
                self.server = match failure.then {
                    Then::Retry => ServerState::ShouldMetaSync,
                    Then::RetryError | Then::Stop => ServerState::Error,
                };
            }
        }
    }

    /// Whether what a slot holds is known to be this master's.
    pub fn is_accepted(&self, id: SlotId) -> bool {
        self.slots.iter().any(|s| (s.slot.db(), s.slot.number()) == id && s.accepted)
    }

    /// The way to the master of a slot that streams from it.
    pub fn connected_link(&self, id: SlotId) -> Option<Link> {
        let connected = |s: &ReplicaSlot| (s.slot.db(), s.slot.number()) == id && s.state == SlotState::Connected;
        self.slots.iter().any(connected).then(|| self.link.clone()).flatten()
    }

    /// A slot's task is done.
    pub fn task_done(&mut self, manager: &Arc<Manager>, id: SlotId, ticket: u64, outcome: Outcome) {
        let Some(index) = self.slots.iter().position(|s| (s.slot.db(), s.slot.number()) == id) else { return };
        let slot = &mut self.slots[index];
        if slot.ticket != ticket {
            return;
        }
        slot.task = None;
        slot.session = outcome.session;
        if outcome.tail.is_some() {
            slot.tail.clone_from(&outcome.tail);
        }
        if outcome.reason.is_some() && slot.reason != outcome.reason {
            tracing::warn!(slot = %slot.slot, "{:?}: {}", outcome.event, outcome.reason.as_deref().unwrap_or_default());
        }
        slot.reason = outcome.reason;
        match outcome.event {
            Event::SyncAccepted => {
                self.partial_syncs += 1;
                slot.accepted = true;
                slot.common = None;
            }
            Event::TailSaved => {
                slot.accepted = false;
                // With nothing in common, nothing is asked for.
                slot.common = Some(outcome.common.unwrap_or(Position::START));
            }
            Event::Installed => {
                slot.common = None;
                self.full_syncs += 1;
                slot.installed = true;
            }
            _ => {}
        }
        slot.longest_pause = outcome.longest_pause;
        let reason = slot.reason.clone();
        if self.server == ServerState::MetaSyncDone {
            let timeout = manager.config.repl_timeout();
            match outcome.link {
                LinkHealth::Good => {}
                LinkHealth::Unanswering if self.hears(timeout) => {}
                LinkHealth::Unanswering | LinkHealth::Unusable => self.renew_link(),
                LinkHealth::Circle => return self.leave_circle(manager, reason),
            }
        }
        self.feed(manager, index, outcome.event);
    }

    /// Whether something comes from the master on any stream.
    fn hears(&self, within: Duration) -> bool {
        let since = Server::now_ms().saturating_sub(within.as_millis() as u64);
        self.slots.iter().any(|s| s.state == SlotState::Connected && s.stream.lock().heard_at >= since)
    }

    /// Ends what is under way with a master that follows this node, and asks it now and then whether it still does.
    fn leave_circle(&mut self, manager: &Arc<Manager>, reason: Option<String>) {
        self.server = ServerState::Error;
        self.retry_error = true;
        self.reason = reason;
        self.meta_backoff.reset();
        self.meta_backoff.wait();
        for index in 0..self.slots.len() {
            self.feed(manager, index, Event::Stop);
        }
        if let Some(link) = self.link.take() {
            let left = self.slots.iter().map(|s| s.slot.clone()).collect();
            manager.runtime.spawn(link::leave(link, left));
        }
    }

    /// Attaches a database to the master again, or takes it out.
    pub fn attach(&mut self, manager: &Arc<Manager>, db: usize, attach: bool, full: bool) {
        let mut left = Vec::new();
        for index in 0..self.slots.len() {
            if self.slots[index].slot.db() != db {
                continue;
            }
            if !attach {
                self.feed(manager, index, Event::Detach);
                left.push(self.slots[index].slot.clone());
                continue;
            }
            self.feed(manager, index, Event::Attach);
            if self.server == ServerState::MetaSyncDone {
                let slot = &self.slots[index].slot;
                let full = full || manager.awaits_full_sync(slot) || slot.fault().is_some();
                self.feed(manager, index, Event::MetaSynced { full });
            }
        }
        if let Some(link) = self.link.clone().filter(|_| !left.is_empty()) {
            manager.runtime.spawn(link::leave(link, left));
        }
    }

    fn feed(&mut self, manager: &Arc<Manager>, index: usize, event: Event) {
        let slot = &mut self.slots[index];
        let (to, action) = step(slot.state, event);
        if to != slot.state {
            let (from, position) = (slot.state.name(), slot.slot.position());
            // What lasts is news; the steps in between are for whoever looks closely.
            if matches!(to, SlotState::WaitReply(_) | SlotState::TryConnect) {
                tracing::debug!(slot = %slot.slot, from, to = to.name(), %position, "{event:?}");
            } else {
                tracing::info!(slot = %slot.slot, from, to = to.name(), %position, "{event:?}");
            }
        }
        if slot.is_steady() {
            slot.forget_failures();
        }
        match event {
            Event::MetaSynced { .. } | Event::Faulty | Event::Stop | Event::Attach | Event::Detach => {
                slot.backoff.reset()
            }
            Event::NotYet | Event::NoAnswer | Event::LinkLost if to != slot.state => slot.backoff.wait(),
            Event::TransferFailed if to != slot.state => slot.failed_in_vain(),
            // What brings a slot to full sync is no reason to wait, but a full sync that leads straight to the next one is.
            Event::Purged | Event::TailSaved if to != slot.state && std::mem::take(&mut slot.installed) => {
                slot.longest_pause = FULL_SYNC_LAST_RETRY;
                slot.failed_in_vain();
            }
            _ => {}
        }
        if to != slot.state {
            slot.since = Instant::now();
        }
        slot.state = to;
        self.perform(manager, index, action);
    }

    fn perform(&mut self, manager: &Arc<Manager>, index: usize, action: Action) {
        let epoch = self.epoch;
        let slot = &mut self.slots[index];
        if action == Action::Nothing {
            return;
        }
        slot.ticket += 1;
        if let Some(task) = slot.task.take() {
            task.abort();
        }
        let Some(link) = self.link.clone() else { return };
        let id = (slot.slot.db(), slot.slot.number());
        let (ticket, data) = (slot.ticket, slot.slot.clone());
        let manager = manager.clone();
        let runtime = manager.runtime.clone();
        let done = move |manager: &Manager, outcome| manager.report(Report::Slot { id, ticket, outcome });
        let task = match action {
            Action::Nothing | Action::Cancel => return,
            Action::SendTrySync => runtime.spawn(async move {
                let outcome = link::try_sync(&manager, &link, &data, epoch).await;
                done(&manager, outcome);
            }),
            Action::SendDbSync => {
                let holds = slot.common.unwrap_or(data.position());
                runtime.spawn(async move {
                    // Remembered before anything is asked for: after a restart, too, the slot needs the master's data whole.
                    let outcome = match tokio::task::block_in_place(|| manager.note_full_sync(&data, true)) {
                        Ok(()) => link::db_sync(&link, &data, holds).await,
                        Err(e) => Outcome::because(Event::NoAnswer, e.to_string()),
                    };
                    done(&manager, outcome);
                })
            }
            Action::Transfer => {
                let progress = slot.progress.clone();
                runtime.spawn(async move {
                    let outcome = transfer(&manager, &link, &data, &progress, epoch).await;
                    done(&manager, outcome);
                })
            }
            Action::Stream => {
                let (session, status) = (slot.session, slot.stream.clone());
                *status.lock() = StreamStatus::default();
                let context = StreamContext { manager: manager.clone(), link, slot: data, epoch, session, status };
                runtime.spawn(async move {
                    let outcome = context.run().await;
                    done(&manager, outcome);
                })
            }
        };
        slot.task = Some(task.abort_handle());
    }
}

/// Fetches a snapshot and puts it in place.
async fn transfer(
    manager: &Arc<Manager>,
    link: &Link,
    slot: &Arc<Slot>,
    progress: &Arc<Progress>,
    epoch: Epoch,
) -> Outcome {
    let master = snapshot::Master {
        channel: link.rsync.clone(),
        token: link.token.clone(),
        name: manager.master_address().map_or(String::new(), |(host, port)| format!("{host}:{port}")),
    };
    let received = match manager.receiver.receive(&master, slot, progress).await {
        Ok(received) => received,
        Err(e) => {
            // A connection over which nothing came in many tries is not tried again.
            let given_up = matches!(e, snapshot::ReceiveError::GivenUp { .. });
            let link = if given_up { LinkHealth::Unusable } else { LinkHealth::Good };
            let longest_pause = match &e {
                e if e.is_disk_full() => DISK_FULL_LAST_RETRY,
                e if e.is_costly() => FULL_SYNC_LAST_RETRY,
                _ => SLOT_LAST_RETRY,
            };
            return Outcome { link, longest_pause, ..Outcome::because(Event::TransferFailed, e.to_string()) };
        }
    };
    let installed = tokio::task::block_in_place(|| {
        manager.while_following(epoch, slot, || {
            // The log of a damaged slot was not looked through for what only this node has.
            let keep_log = slot.fault().is_some() && manager.led_from().is_some();
            let kept = manager.keyspace.install_over(slot, received.data.as_deref(), received.applied, keep_log)?;
            // Still under the gate: what the next master may have noted by then is another matter.
            if let Err(e) = manager.note_full_sync(slot, false) {
                // The data are in place; after a restart they would be fetched once more.
                tracing::warn!(slot = %slot, "{e}");
            }
            Ok::<_, crate::keyspace::Error>(kept)
        })
    });
    let kept = match installed {
        None => return Outcome::because(Event::TransferFailed, "the master changed meanwhile"),
        Some(Err(e)) => {
            let longest_pause = FULL_SYNC_LAST_RETRY;
            return Outcome { longest_pause, ..Outcome::because(Event::TransferFailed, e.to_string()) };
        }
        Some(Ok(kept)) => kept,
    };
    if let Some(kept) = &kept {
        tracing::warn!(slot = %slot, "the log of the damaged slot may hold records that no other node has, and is kept in {}", kept.display());
    }
    if let Err(e) = snapshot::discard(&manager.config, slot) {
        tracing::warn!(slot = %slot, "the receive folder stays: {e}");
    }
    Outcome { tail: kept, ..Outcome::of(Event::Installed) }
}

impl ReplicaSlot {
    /// A full sync has come to nothing.
    fn failed_in_vain(&mut self) {
        self.in_vain += 1;
        self.last_failure.clone_from(&self.reason);
        self.backoff.wait_at_most(self.longest_pause);
    }

    /// Why it is in its state, or why the full syncs before were in vain, if there is anything to say.
    pub fn why(&self) -> Option<&String> {
        let last_failure = || self.last_failure.as_ref().filter(|_| self.state != SlotState::Connected);
        self.reason.as_ref().or_else(last_failure)
    }

    /// Whether its connection is a good one.
    fn is_steady(&self) -> bool {
        self.state == SlotState::Connected && self.since.elapsed() >= STEADY
    }

    /// Failures before a good connection do not count for what comes after it.
    fn forget_failures(&mut self) {
        self.backoff.reset();
        self.in_vain = 0;
        self.last_failure = None;
        self.installed = false;
    }

    /// Whether a snapshot is on its way.
    pub fn is_transferring(&self) -> bool {
        matches!(self.state, SlotState::WaitDbSync | SlotState::WaitReply(Asked::DbSync))
    }
}
