//! CLIENT TRACKING: tells clients which keys they hold in caches of their own have changed.
//!
//! Keys are known by name alone, as in Redis: a change in any database invalidates. A client that reads is entered before its command
//! reads, while the key is locked, so that no change after it is missed. With BCAST nothing is remembered: clients are
//! told of all changes under their prefixes, gathered over a commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::{Mutex, RwLock};

use super::outlet::Outlet;
use crate::config::Config;
use crate::events::KeyEvents;
use crate::net::{ClientInfo, Mode, Reply};

/// Parts of the table of keys, so that clients that read do not wait for each other.
const SHARDS: usize = 16;
/// Where RESP2 clients get the invalidations of those that redirect to them.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Who reads which keys.
pub struct Tracking {
    outlet: Outlet,
    shards: Box<[Mutex<Shard>]>,
    hasher: FixedState,
    /// Where the next eviction begins.
    next_shard: AtomicUsize,
    keys: AtomicUsize,
    items: AtomicUsize,
    trackers: RwLock<HashMap<u64, Tracker>>,
    clients: AtomicUsize,
    prefixes: Mutex<BTreeMap<Bytes, Prefix>>,
    prefix_count: AtomicUsize,
    /// Whether there is something to [`Tracking::deliver`].
    pending: AtomicBool,
    flushed: AtomicBool,
}

/// The clients that have read a key, and whether they have not written it since.
type Readers = BTreeMap<u64, bool>;
type Shard = HashMap<Bytes, Readers, FixedState>;

struct Tracker {
    client: Arc<ClientInfo>,
    redirect: Option<Arc<ClientInfo>>,
    noloop: bool,
    broadcast: bool,
}

#[derive(Default)]
struct Prefix {
    clients: BTreeSet<u64>,
    /// Changed keys, and who changed them; 0 = nobody, or several.
    changed: BTreeMap<Bytes, u64>,
}

/// What a client asks for.
#[derive(Clone, Default)]
pub struct TrackingOptions {
    pub broadcast: bool,
    pub optin: bool,
    pub optout: bool,
    pub noloop: bool,
    pub redirect: Option<Arc<ClientInfo>>,
}

/// What the invalidation is about.
enum Invalid<'a> {
    Keys(&'a [&'a Bytes]),
    Everything,
}

impl Tracking {
    /// Nobody tracks.
    pub fn new(config: Arc<Config>) -> Self {
        Tracking {
            outlet: Outlet::new(config),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: FixedState::default(),
            next_shard: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            trackers: RwLock::default(),
            clients: AtomicUsize::new(0),
            prefixes: Mutex::default(),
            prefix_count: AtomicUsize::new(0),
            pending: AtomicBool::new(false),
            flushed: AtomicBool::new(false),
        }
    }

    /// Whether there is anything to do for anybody: two relaxed loads.
    pub fn is_active(&self) -> bool {
        self.clients.load(Relaxed) > 0 || self.keys.load(Relaxed) > 0
    }

    /// Clients that track.
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Keys remembered.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Readers remembered, summed over the keys.
    pub fn items(&self) -> usize {
        self.items.load(Relaxed)
    }

    /// Prefixes of BCAST.
    pub fn prefixes(&self) -> usize {
        self.prefix_count.load(Relaxed)
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn remember(&self, client: u64, key: &Bytes) {
        let mut shard = self.shard(key).lock();
        let readers = match shard.get_mut(key) {
            Some(readers) => readers,
            None => {
                self.keys.fetch_add(1, Relaxed);
                // A copy: the bytes at hand may be a small part of a large buffer.
                shard.entry(Bytes::copy_from_slice(key)).or_default()
            }
        };
        // What it read before a write of its own that is not committed yet stays to be invalidated by that.
        readers.entry(client).or_insert_with(|| {
            self.items.fetch_add(1, Relaxed);
            true
        });
    }

    /// A client is about to write a key: what it read of it before is old then. What it reads after it, still before the write is
    /// committed, is not.
    fn writes(&self, client: u64, key: &Bytes) {
        if let Some(fresh) = self.shard(key).lock().get_mut(key).and_then(|readers| readers.get_mut(&client)) {
            *fresh = false;
        }
    }

    /// A key has changed; `by` is the client that did it, 0 = none.
    pub fn changed(&self, key: &Bytes, by: u64) {
        if !self.is_active() {
            return;
        }
        self.forget(key, by);
        if self.prefix_count.load(Relaxed) > 0 {
            for (_, state) in self.prefixes.lock().iter_mut().filter(|(prefix, _)| key.starts_with(prefix)) {
                state
                    .changed
                    .entry(key.clone())
                    .and_modify(|first| *first = if *first == by { by } else { 0 })
                    .or_insert(by);
                self.pending.store(true, Relaxed);
            }
        }
    }

    /// Invalidates a key for those who have read it.
    fn forget(&self, key: &Bytes, by: u64) {
        let mut shard = self.shard(key).lock();
        let Some((key, mut readers)) = shard.remove_entry(key) else { return };
        // Only of a client that tracks it is known whether it has written since.
        let tracks = || self.trackers.read().get(&by).is_some_and(|tracker| !tracker.broadcast);
        if by != 0 && readers.get(&by) == Some(&true) && tracks() {
            readers.remove(&by);
            shard.insert(key.clone(), Readers::from([(by, true)]));
        } else {
            self.keys.fetch_sub(1, Relaxed);
        }
        drop(shard);
        self.items.fetch_sub(readers.len(), Relaxed);
        let trackers = self.trackers.read();
        for tracker in readers.keys().filter_map(|id| trackers.get(id)) {
            let own = tracker.noloop && tracker.client.id == by;
            if !tracker.broadcast && !own {
                self.tell(tracker, &Invalid::Keys(&[&key]));
            }
        }
    }

    /// A database was emptied or replaced.
    pub fn replaced(&self) {
        if self.is_active() {
            self.flushed.store(true, Relaxed);
            self.pending.store(true, Relaxed);
        }
    }

    /// Sends what was gathered. To be called after every commit: one relaxed load when there is nothing.
    pub fn deliver(&self) {
        if !self.pending.load(Relaxed) || !self.pending.swap(false, Relaxed) {
            return;
        }
        if self.flushed.swap(false, Relaxed) {
            for shard in &self.shards {
                let shard = std::mem::take(&mut *shard.lock());
                self.keys.fetch_sub(shard.len(), Relaxed);
                self.items.fetch_sub(shard.values().map(Readers::len).sum(), Relaxed);
            }
            self.trackers.read().values().for_each(|tracker| self.tell(tracker, &Invalid::Everything));
        }
        let mut prefixes = self.prefixes.lock();
        let trackers = self.trackers.read();
        for state in prefixes.values_mut().filter(|state| !state.changed.is_empty()) {
            let changed = std::mem::take(&mut state.changed);
            let all: Vec<&Bytes> = changed.keys().collect();
            for tracker in state.clients.iter().filter_map(|id| trackers.get(id)) {
                if !tracker.noloop {
                    self.tell(tracker, &Invalid::Keys(&all));
                    continue;
                }
                let others = changed.iter().filter(|(_, by)| **by != tracker.client.id);
                let others: Vec<&Bytes> = others.map(|(key, _)| key).collect();
                if !others.is_empty() {
                    self.tell(tracker, &Invalid::Keys(&others));
                }
            }
        }
    }

    /// Sends an invalidation to a client, or to where it redirects.
    fn tell(&self, tracker: &Tracker, invalid: &Invalid<'_>) {
        let target = tracker.redirect.as_ref().unwrap_or(&tracker.client);
        if target.is_gone() {
            if tracker.redirect.is_some() {
                tracker.client.set(Mode::BrokenRedirect, true);
                if tracker.client.proto() >= 3 {
                    let mut reply = Reply::new(3);
                    reply.push(2);
                    reply.bulk(b"tracking-redir-broken");
                    reply.int(target.id as i64);
                    self.outlet.send(&tracker.client, reply.as_slice());
                }
            }
            return;
        }
        let mut reply = Reply::new(target.proto());
        if target.proto() >= 3 {
            reply.push(2);
            reply.bulk(b"invalidate");
        } else if tracker.redirect.is_some() && target.is_subscriber() {
            reply.push(3);
            reply.bulk(b"message");
            reply.bulk(CHANNEL);
        } else {
            // RESP2 has no way to tell it.
            return;
        }
        match invalid {
            Invalid::Everything => reply.null(),
            Invalid::Keys(keys) => {
                reply.array(keys.len());
                keys.iter().for_each(|key| reply.bulk(key));
            }
        }
        self.outlet.send(target, reply.as_slice());
    }

    /// Invalidates as many keys as there are more than `tracking-table-max-keys`.
    pub fn limit(&self) {
        let max = self.outlet.config().tracking_table_max_keys();
        let mut over = if max == 0 { 0 } else { self.keys().saturating_sub(max) };
        for _ in 0..SHARDS {
            if over == 0 {
                return;
            }
            let shard = &self.shards[self.next_shard.fetch_add(1, Relaxed) % SHARDS];
            let victims: Vec<Bytes> = shard.lock().keys().take(over).cloned().collect();
            over -= victims.len();
            victims.iter().for_each(|key| self.forget(key, 0));
        }
    }

    fn enter(&self, client: &Arc<ClientInfo>, options: &TrackingOptions, prefixes: impl Iterator<Item = Bytes>) {
        let tracker = Tracker {
            client: client.clone(),
            redirect: options.redirect.clone(),
            noloop: options.noloop,
            broadcast: options.broadcast,
        };
        if self.trackers.write().insert(client.id, tracker).is_none() {
            self.clients.fetch_add(1, Relaxed);
        }
        let mut known = self.prefixes.lock();
        for prefix in prefixes {
            known.entry(prefix).or_default().clients.insert(client.id);
        }
        self.prefix_count.store(known.len(), Relaxed);
    }

    fn leave(&self, client: u64, prefixes: &BTreeSet<Bytes>) {
        if self.trackers.write().remove(&client).is_some() {
            self.clients.fetch_sub(1, Relaxed);
        }
        let mut known = self.prefixes.lock();
        for prefix in prefixes {
            if let Some(state) = known.get_mut(prefix) {
                state.clients.remove(&client);
                if state.clients.is_empty() {
                    known.remove(prefix);
                }
            }
        }
        self.prefix_count.store(known.len(), Relaxed);
    }
}

/// By what a command that reads is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrackedBy {
    /// By its own keys.
    Itself,
    /// By the declared keys of the script that it runs in.
    Script,
}

/// What one client has asked for of CLIENT TRACKING. Ends with the client.
#[derive(Default)]
pub struct Tracked {
    /// Where it is entered while it tracks.
    entered: Option<(Arc<KeyEvents>, Arc<ClientInfo>)>,
    pub options: TrackingOptions,
    prefixes: BTreeSet<Bytes>,
    /// CLIENT CACHING was given for the next command.
    pub caching: bool,
    /// A script has read.
    script_read: bool,
}

impl Tracked {
    /// Whether the client tracks.
    pub fn is_on(&self) -> bool {
        self.entered.is_some()
    }

    /// The prefixes of BCAST.
    pub fn prefixes(&self) -> &BTreeSet<Bytes> {
        &self.prefixes
    }

    /// Tracks from now on; options of before that are not given again end, prefixes stay.
    pub fn start(
        &mut self,
        events: &Arc<KeyEvents>,
        client: &Arc<ClientInfo>,
        options: TrackingOptions,
        prefixes: impl Iterator<Item = Bytes>,
    ) {
        self.options = options;
        self.prefixes.extend(prefixes);
        events.tracking.enter(client, &self.options, self.prefixes.iter().cloned());
        client.set(Mode::Tracking, true);
        client.set(Mode::Broadcast, self.options.broadcast);
        client.set(Mode::BrokenRedirect, false);
        client.set_redirect(self.redirect());
        self.entered = Some((events.clone(), client.clone()));
    }

    /// Tracks no more.
    pub fn stop(&mut self) {
        if let Some((events, client)) = self.entered.take() {
            events.tracking.leave(client.id, &self.prefixes);
            for mode in [Mode::Tracking, Mode::Broadcast, Mode::BrokenRedirect] {
                client.set(mode, false);
            }
            client.set_redirect(-1);
        }
        self.options = TrackingOptions::default();
        self.prefixes.clear();
        self.caching = false;
    }

    /// Where invalidations go: a client's id, 0 = itself, -1 = it does not track.
    pub fn redirect(&self) -> i64 {
        match (&self.entered, &self.options.redirect) {
            (_, Some(redirect)) => redirect.id as i64,
            (Some(_), None) => 0,
            (None, None) => -1,
        }
    }

    /// Whether a command that reads now is to be remembered.
    pub fn remembers(&self) -> bool {
        let options = &self.options;
        let wanted = match (options.optin, options.optout) {
            (true, _) => self.caching,
            (_, true) => !self.caching,
            _ => true,
        };
        self.is_on() && !options.broadcast && wanted
    }

    /// A command reads these keys, which are locked.
    pub fn read<'k>(&mut self, by: TrackedBy, keys: impl Iterator<Item = &'k Bytes>) {
        if !self.remembers() {
            return;
        }
        match (by, &self.entered) {
            (TrackedBy::Script, _) => self.script_read = true,
            (TrackedBy::Itself, Some((events, client))) => {
                keys.for_each(|key| events.tracking.remember(client.id, key));
            }
            (TrackedBy::Itself, None) => {}
        }
    }

    /// A command of the client writes these keys, which are locked.
    pub fn writes<'k>(&self, keys: impl Iterator<Item = &'k Bytes>) {
        if let Some((events, client)) = &self.entered {
            keys.for_each(|key| events.tracking.writes(client.id, key));
        }
    }

    /// Whether a script has read since this was last asked.
    pub fn take_script_read(&mut self) -> bool {
        std::mem::take(&mut self.script_read)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.stop();
    }
}
