//! The registry of clients: who is connected, and closing them by filter.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{ClientInfo, Closing, Mode, Overrun, output};
use crate::config::OutputLimits;

/// Kinds of clients, as in CLIENT LIST TYPE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    /// Everyone.
    Normal,
    /// A master that feeds this node over the client port.
    Master,
    /// A replica that is fed over the client port.
    Replica,
    /// A subscriber.
    Pubsub,
}

impl ClientKind {
    /// What a client is now.
    pub fn of(client: &ClientInfo) -> ClientKind {
        if client.is_subscriber() { ClientKind::Pubsub } else { ClientKind::Normal }
    }

    /// The kind of this name in any case.
    pub fn parse(name: &[u8]) -> Option<ClientKind> {
        const NAMES: &[(&str, ClientKind)] = &[
            ("normal", ClientKind::Normal),
            ("master", ClientKind::Master),
            ("replica", ClientKind::Replica),
            ("slave", ClientKind::Replica),
            ("pubsub", ClientKind::Pubsub),
        ];
        NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
    }
}

/// Which clients are meant; a client must match everything that is set.
#[derive(Clone, Default, Debug)]
pub struct ClientFilter {
    /// One of these ids.
    pub ids: Option<Vec<u64>>,
    /// Peer address, as CLIENT LIST shows it.
    pub addr: Option<String>,
    /// Own address, as CLIENT LIST shows it.
    pub laddr: Option<String>,
    /// Kind.
    pub kind: Option<ClientKind>,
    /// At least this old.
    pub min_age: Option<Duration>,
    /// Not this one.
    pub except: Option<u64>,
}

impl ClientFilter {
    fn matches(&self, client: &ClientInfo) -> bool {
        self.except != Some(client.id)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.addr.as_ref().is_none_or(|addr| *addr == client.addr.to_string())
            && self.laddr.as_ref().is_none_or(|laddr| *laddr == client.laddr.to_string())
            && self.kind.is_none_or(|kind| kind == ClientKind::of(client))
            && self.min_age.is_none_or(|age| client.age() >= age)
    }
}

/// `maxclients` are connected already.
#[derive(Debug, thiserror::Error)]
#[error("ERR max number of clients reached")]
pub struct TooManyClients;

/// Every client of a server.
#[derive(Default)]
pub struct ClientRegistry {
    last_id: AtomicU64,
    clients: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    left: Notify,
}

impl ClientRegistry {
    /// No clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a client, unless `max` are in.
    pub fn register(
        &self,
        addr: SocketAddr,
        laddr: SocketAddr,
        fd: i32,
        max: usize,
    ) -> Result<Arc<ClientInfo>, TooManyClients> {
        let mut clients = self.clients.lock();
        if clients.len() >= max {
            return Err(TooManyClients);
        }
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let client = Arc::new(ClientInfo::new(id, addr, laddr, fd));
        clients.insert(id, client.clone());
        Ok(client)
    }

    /// Strikes a client off.
    pub fn remove(&self, id: u64) {
        if let Some(client) = self.clients.lock().remove(&id) {
            client.set_gone();
        }
        self.left.notify_waiters();
    }

    /// A client by its id.
    pub fn get(&self, id: u64) -> Option<Arc<ClientInfo>> {
        self.clients.lock().get(&id).cloned()
    }

    /// Clients of a kind.
    pub fn count(&self, kind: ClientKind) -> usize {
        self.clients.lock().values().filter(|client| ClientKind::of(client) == kind).count()
    }

    /// Clients that watch keys.
    pub fn watching(&self) -> usize {
        self.clients.lock().values().filter(|client| client.watches()).count()
    }

    /// Number of clients.
    pub fn len(&self) -> usize {
        self.clients.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The clients that match, oldest first.
    pub fn list(&self, filter: &ClientFilter) -> Vec<Arc<ClientInfo>> {
        self.clients.lock().values().filter(|client| filter.matches(client)).cloned().collect()
    }

    /// Kills the clients that match and returns how many. They end soon, not at once; who is about to end already does not count.
    pub fn kill(&self, filter: &ClientFilter) -> usize {
        let mut victims = self.list(filter);
        victims.retain(|client| client.closing() != Closing::Kill);
        victims.iter().for_each(|client| client.close(Closing::Kill));
        victims.len()
    }

    /// Asks everyone to end.
    pub fn close_all(&self, how: Closing) {
        self.clients.lock().values().for_each(|client| client.close(how));
    }

    /// Ends the clients that have neither sent nor received anything for `timeout`, unless a command of theirs runs or waits or they are there to be
    /// told of something; zero means that they may stay.
    pub fn close_idle(&self, timeout: Duration) {
        if timeout.is_zero() {
            return;
        }
        let listens = |client: &ClientInfo| client.is_subscriber() || client.is(Mode::Monitor);
        let rests = |client: &&Arc<ClientInfo>| {
            !client.is_busy() && !client.is_blocked() && !listens(client) && client.idle() >= timeout
        };
        for client in self.clients.lock().values().filter(rests) {
            client.close(Closing::Kill);
        }
    }

    /// Closes the clients that more waits for than they may.
    pub fn limit_output(&self, limits: &OutputLimits) {
        for client in self.clients.lock().values() {
            output::enforce(limits, client, client.waiting_replies());
        }
    }

    /// Closes the clients that take the most memory until the others take no more than `limit` bytes together; zero means no limit.
    /// Who asked for CLIENT NO-EVICT counts and stays.
    pub fn limit_memory(&self, limit: usize) {
        if limit == 0 {
            return;
        }
        let sizes = |clients: &BTreeMap<u64, Arc<ClientInfo>>| -> Vec<_> {
            let open = clients.values().filter(|client| client.closing() != Closing::Kill);
            open.map(|client| (client.memory(), client.clone())).collect()
        };
        let mut clients = sizes(&self.clients.lock());
        let mut total: usize = clients.iter().map(|(bytes, _)| bytes).sum();
        if total <= limit {
            return;
        }
        clients.retain(|(_, client)| !client.is(Mode::NoEvict));
        clients.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (bytes, client) in clients {
            if total <= limit {
                return;
            }
            client.overrun(Overrun::Memory, bytes);
            total -= bytes;
        }
    }

    /// The largest buffer of what a client has sent, and the largest of what waits for one, in bytes.
    pub fn largest_buffers(&self) -> (usize, usize) {
        let clients = self.clients.lock();
        let most = |bytes: fn(&ClientInfo) -> usize| clients.values().map(|client| bytes(client)).max();
        (most(ClientInfo::query_memory).unwrap_or(0), most(ClientInfo::output_memory).unwrap_or(0))
    }

    /// Bytes that all clients take.
    pub fn memory(&self) -> usize {
        self.clients.lock().values().map(|client| client.memory()).sum()
    }

    /// Waits until no client is left.
    pub async fn drained(&self) {
        loop {
            let left = self.left.notified();
            if self.is_empty() {
                return;
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn limit_filters_and_kill() {
        let registry = ClientRegistry::new();
        let first = registry.register(address(1), address(9), 7, 2).unwrap();
        let second = registry.register(address(2), address(9), 8, 2).unwrap();
        assert!(registry.register(address(3), address(9), 9, 2).is_err());
        assert_eq!((first.id, second.id), (1, 2));

        let by_addr = ClientFilter { addr: Some("127.0.0.1:2".into()), ..Default::default() };
        assert_eq!(registry.list(&by_addr).iter().map(|client| client.id).collect::<Vec<_>>(), [2]);
        let others = ClientFilter { laddr: Some("127.0.0.1:9".into()), except: Some(2), ..Default::default() };
        assert_eq!(registry.kill(&others), 1);
        assert_eq!((first.closing(), second.closing()), (Closing::Kill, Closing::Open));
        let replicas = ClientFilter { kind: Some(ClientKind::Replica), ..Default::default() };
        assert!(registry.list(&replicas).is_empty());

        registry.remove(1);
        assert_eq!(registry.len(), 1);
        registry.close_all(Closing::Finish);
        assert_eq!(second.closing(), Closing::Finish);
    }

    #[test]
    fn the_idle_are_closed() {
        let registry = ClientRegistry::new();
        let client = registry.register(address(1), address(9), 7, 1).unwrap();
        registry.close_idle(Duration::ZERO);
        assert_eq!(client.closing(), Closing::Open);
        std::thread::sleep(Duration::from_millis(5));
        client.set_busy(true);
        registry.close_idle(Duration::from_millis(1));
        assert_eq!(client.closing(), Closing::Open);
        client.set_busy(false);
        registry.close_idle(Duration::from_millis(1));
        assert_eq!(client.closing(), Closing::Kill);
    }
}
