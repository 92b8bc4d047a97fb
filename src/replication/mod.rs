//! Replication between nodes of ours (docs/replication.md): what each says, remembers and decides.
//!
//! - [`node_state`]: what survives a restart: term, master, history, slots that need a full sync
//! - [`machine`]: the state machine of a slot, as a pure function
//! - [`replica`], [`link`], [`stream`], [`diverged`]: the replica's side
//! - [`master`], [`sender`], [`pace`]: the master's side
//! - [`upstream`]: who is above this node, and circles
//! - [`auxiliary`]: the thread that polls all of it
//! - [`info`]: INFO replication and ROLE

mod auxiliary;
mod diverged;
mod info;
mod link;
pub mod machine;
mod master;
mod node_state;
mod pace;
mod peers;
pub mod proto;
mod replica;
mod sender;
mod stream;
mod upstream;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::task::JoinHandle as TaskHandle;

use crate::config::Config;
use crate::keyspace::{Keyspace, Slot};
use crate::server::random_hex;
use crate::snapshot::{Receiver, SnapshotSource};
use master::Replicas;
use replica::{ReplicaSide, Report};

pub use info::RoleReply;
pub use node_state::{NodeState, NodeStateError};
pub use peers::PeerListeners;

/// Under dump-path: snapshots for replicas.
const SYNC_FOLDER: &str = "sync";
/// Hex digits of a replication id, as Pika's.
const REPLICATION_ID_LEN: usize = 50;

/// Counts the masters a node has had, "none" included. What began under another one is void.
type Epoch = u64;

/// What `slaveof` can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    Yes,
    /// It is the master already.
    Already,
}

/// Why replication could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error(transparent)]
    NodeState(#[from] NodeStateError),
    #[error("no auxiliary thread: {0}")]
    Thread(#[from] io::Error),
}

/// Replication of one node.
pub struct Manager {
    config: Arc<Config>,
    keyspace: Arc<Keyspace>,
    run_id: String,
    node: Mutex<NodeState>,
    slave: AtomicBool,
    /// The current epoch. Held for reading while a master's data are applied, for writing while the master is changed.
    gate: RwLock<Epoch>,
    replica: Mutex<ReplicaSide>,
    replicas: Replicas,
    /// The nodes above this one, as far as they are known. Changes under the gate.
    upstream: Mutex<Vec<proto::Hop>>,
    snapshots: Arc<SnapshotSource>,
    receiver: Arc<Receiver>,
    reports: Sender<Report>,
    runtime: Handle,
    auxiliary: Mutex<Option<JoinHandle<()>>>,
    services: Mutex<Vec<TaskHandle<()>>>,
}

impl Manager {
    /// Begins to serve replicas, and to follow the master that `node` names. Must be called inside the runtime.
    pub fn start(
        config: Arc<Config>,
        keyspace: Arc<Keyspace>,
        mut node: NodeState,
        run_id: String,
        peers: PeerListeners,
    ) -> Result<Arc<Manager>, ManagerError> {
        node.resume(keyspace.newest_term(), config.slaveof())?;
        keyspace.set_term(node.term);
        let (reports, inbox) = crossbeam_channel::unbounded();
        let slots = keyspace.all_slots().cloned().collect::<Vec<_>>();
        let manager = Arc::new(Manager {
            slave: AtomicBool::new(node.master.is_some()),
            gate: RwLock::new(0),
            replica: Mutex::new(ReplicaSide::new(slots.into_iter())),
            replicas: Replicas::default(),
            upstream: Mutex::default(),
            snapshots: Arc::new(SnapshotSource::new(config.dump_path().join(SYNC_FOLDER), config.clone())),
            receiver: Arc::new(Receiver::new(config.clone())),
            reports,
            runtime: Handle::current(),
            auxiliary: Mutex::new(None),
            services: Mutex::new(Vec::new()),
            config,
            keyspace,
            run_id,
            node: Mutex::new(node),
        });
        manager.own(&manager.node.lock());
        *manager.services.lock() = peers.serve(&manager);
        {
            let mut replica = manager.replica.lock();
            for db in manager.node.lock().detached.clone() {
                replica.attach(&manager, db, false, false);
            }
            if manager.is_slave() {
                replica.begin(&manager, 0, true);
            }
        }
        manager.discard_received();
        *manager.auxiliary.lock() = Some(auxiliary::spawn(manager.clone(), inbox)?);
        Ok(manager)
    }

    /// Ends replication in both directions. Nothing of a master is applied after it returns.
    pub fn stop(&self) {
        self.stop_following();
        self.services.lock().drain(..).for_each(|service| service.abort());
        self.snapshots.stop();
    }

    /// The first half of [`Manager::stop`], which does not wait for the disk: nothing of a master is applied any more.
    pub fn stop_following(&self) {
        // The thread may be gone already, if it panicked.
        let _ = self.reports.send(Report::Stop);
        if let Some(thread) = self.auxiliary.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the auxiliary thread panicked");
        }
        *self.gate.write() += 1;
        self.replica.lock().stop();
    }

    /// Replicas that have acknowledged these records (slot, index), and so all before them.
    pub fn replicas_with(&self, records: impl Iterator<Item = (node_state::SlotId, u64)> + Clone) -> usize {
        self.replicas.with_records(records)
    }

    /// Whether this node has a master.
    pub fn is_slave(&self) -> bool {
        self.slave.load(Ordering::Acquire)
    }

    /// The master's client address.
    pub fn master_address(&self) -> Option<(String, u16)> {
        self.node.lock().master.clone()
    }

    /// Follows a master from now on; with `force`, every slot takes the master's data whole and this node's own history is given up. The
    /// choice is durable when this returns.
    pub fn slaveof(self: &Arc<Self>, host: &str, port: u16, force: bool) -> Result<Followed, NodeStateError> {
        let target = Some((host.to_string(), port));
        let in_error = self.replica.lock().server == replica::ServerState::Error;
        if !force && !in_error && self.is_slave() && self.master_address() == target && !self.any_slot_in_error() {
            return Ok(Followed::Already);
        }
        self.change_master(target, force)?;
        tracing::info!("following {host}:{port}{}", if force { " (force)" } else { "" });
        Ok(Followed::Yes)
    }

    /// Becomes a master of its own, in a new term. Durable when this returns. Nothing of the old master is applied any more.
    pub fn slaveof_no_one(self: &Arc<Self>) -> Result<(), NodeStateError> {
        if self.is_slave() {
            self.change_master(None, false)?;
            tracing::info!(term = self.keyspace.term(), "no longer a replica");
        }
        Ok(())
    }

    fn change_master(self: &Arc<Self>, target: Option<(String, u16)>, force: bool) -> Result<(), NodeStateError> {
        let following = target.is_some();
        let mut replica = self.replica.lock();
        let epoch = {
            // Waits for what is being applied; from here on nothing of the old master is.
            let mut epoch = self.gate.write();
            let mut node = self.node.lock();
            let mut next = node.clone();
            next.saw_term(self.keyspace.newest_term());
            next.follow(target);
            next.force = force;
            if !following {
                // The data are this node's own now, whatever they were to become.
                next.full_sync.clear();
            }
            if following {
                // Before anything is remembered: what is this node's own ends here.
                self.own(&next);
            }
            next.save().inspect_err(|_| self.own(&node))?;
            // The term first, then what is written in it.
            self.keyspace.set_term(next.term);
            *node = next;
            *epoch += 1;
            self.upstream.lock().clear();
            self.slave.store(following, Ordering::Release);
            self.own(&node);
            *epoch
        };
        replica.begin(self, epoch, following);
        drop(replica);
        self.report(Report::Wake);
        if !following {
            self.discard_received();
        }
        Ok(())
    }

    /// Removes, in the background, what was received for slots that need no full sync (any more).
    fn discard_received(self: &Arc<Self>) {
        let manager = self.clone();
        self.runtime.spawn(async move {
            for slot in manager.keyspace.all_slots() {
                manager.receiver.discard_unless(slot, || manager.awaits_full_sync(slot)).await;
            }
        });
    }

    /// Takes a database out of replication, or puts it back (`full`: with a full sync). Durable when this returns.
    pub fn attach_database(self: &Arc<Self>, db: usize, attach: bool, full: bool) -> Result<(), NodeStateError> {
        let mut replica = self.replica.lock();
        {
            // Waits for what is being applied; nothing is to a database that was taken out.
            let _gate = self.gate.write();
            let mut node = self.node.lock();
            let mut next = node.clone();
            if attach {
                next.detached.remove(&db);
            } else {
                next.detached.insert(db);
            }
            if full {
                next.full_sync.extend(self.keyspace.db_on_disk(db).slots().iter().map(|s| (s.db(), s.number())));
            }
            if attach {
                self.own(&next);
            }
            next.save().inspect_err(|_| self.own(&node))?;
            self.own(&next);
            *node = next;
        }
        replica.attach(self, db, attach, full);
        Ok(())
    }

    /// Lets clients write what is theirs to write, and nothing else any more when this returns.
    fn own(&self, node: &NodeState) {
        self.keyspace.set_owned(|db| node.master.is_none() || node.detached.contains(&db));
    }

    /// The first term of this node's last time as a master, if it was one.
    fn led_from(&self) -> Option<u32> {
        self.node.lock().led_from
    }

    /// Whether the database was taken out of replication.
    pub fn is_detached(&self, db: usize) -> bool {
        self.node.lock().detached.contains(&db)
    }

    fn any_slot_in_error(&self) -> bool {
        self.replica.lock().slots.iter().any(|s| s.state == machine::SlotState::Error)
    }

    /// Takes note of who is above this node's master. An error is a circle. The caller has made sure that it is still the master.
    fn learn_upstream(&self, master: &proto::Hop, reported: &[proto::Hop]) -> Result<(), String> {
        let (chain, circle) = upstream::above(&self.run_id, master, reported);
        let mut known = self.upstream.lock();
        if *known != chain {
            known.clone_from(&chain);
        }
        if circle {
            let way = upstream::addresses(&chain);
            return Err(format!(
                "a circle of replicas: this node would follow itself by way of {way}; on the one that is to be the master, type: slaveof \
                 no one"
            ));
        }
        Ok(())
    }

    fn report(&self, report: Report) {
        // The receiver goes with the auxiliary thread, when nobody cares any more.
        let _ = self.reports.send(report);
    }

    /// Runs `f` if the slot still follows the master of `epoch`, and keeps that from being changed meanwhile.
    fn while_following<R>(&self, epoch: Epoch, slot: &Slot, f: impl FnOnce() -> R) -> Option<R> {
        let current = self.gate.read();
        (*current == epoch && !self.is_detached(slot.db())).then(f)
    }

    /// Whether the slot's data are to be replaced by the master's before anything else.
    fn awaits_full_sync(&self, slot: &Slot) -> bool {
        self.node.lock().full_sync.contains(&(slot.db(), slot.number()))
    }

    /// Whether a slot's data may be given to replicas. A replica's only once its own master has found them in its log: until then they
    /// may be those of an old master that has yet to learn that its records are not part of the history.
    fn vouches_for(&self, slot: &Slot) -> bool {
        let id = (slot.db(), slot.number());
        !self.is_slave() || self.is_detached(slot.db()) || self.replica.lock().is_accepted(id)
    }

    /// The way to this node's own master, if the slot streams from it.
    fn upstream_of(&self, slot: &Slot) -> Option<link::Link> {
        self.replica.lock().connected_link((slot.db(), slot.number()))
    }

    /// Remembers, durably, that a slot needs a full sync, or that it has had it.
    fn note_full_sync(&self, slot: &Slot, needed: bool) -> Result<(), NodeStateError> {
        let id = (slot.db(), slot.number());
        let mut node = self.node.lock();
        if node.full_sync.contains(&id) == needed {
            return Ok(());
        }
        let mut next = node.clone();
        if needed {
            next.full_sync.insert(id);
        } else {
            next.full_sync.remove(&id);
        }
        next.save()?;
        *node = next;
        Ok(())
    }

    /// Takes over the master's history, or finds that this node has another one.
    fn adopt(&self, replication_id: &str) -> Result<(), String> {
        let mut node = self.node.lock();
        let force = node.force;
        if node.replication_id == replication_id && !force {
            return Ok(());
        }
        if !node.replication_id.is_empty() && !force {
            let (host, port) = node.master.clone().unwrap_or_default();
            return Err(format!(
                "this node's data belong to another history (replication id {}, the master's is {replication_id}); to discard them and \
                 take the master's, type: slaveof {host} {port} force",
                node.replication_id
            ));
        }
        let mut next = node.clone();
        next.replication_id = replication_id.to_string();
        next.force = false;
        next.full_sync = self.keyspace.all_slots().map(|s| (s.db(), s.number())).collect();
        next.save().map_err(|e| e.to_string())?;
        *node = next;
        drop(node);
        // Replicas of ours were told of the old history.
        self.replicas.clear();
        Ok(())
    }

    /// The id of this node's history, made now if this is its first replica. Empty while a replica has yet to learn it.
    fn replication_id_for_replicas(&self) -> Result<String, NodeStateError> {
        let mut node = self.node.lock();
        if node.replication_id.is_empty() && !self.is_slave() {
            let mut next = node.clone();
            next.replication_id = random_hex(REPLICATION_ID_LEN);
            next.save()?;
            *node = next;
        }
        Ok(node.replication_id.clone())
    }
}
