//! The two ports for other nodes: binding them, and serving on them.

use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::{Router, Server, TcpIncoming};

use super::Manager;
use super::link::{REPLICATION_PORT, RSYNC_PORT};
use super::master::Service;
use super::proto::{MAX_MESSAGE, ReplicationServer};
use crate::config::Config;
use crate::net::listener::BindError;
use crate::snapshot::RsyncService;

/// HTTP/2 windows of what replicas send: acks and requests, all small.
const WINDOW: u32 = 1 << 20;
/// Largest request, bytes: whoever connects has shown no password yet.
const MAX_REQUEST: usize = 1 << 20;
const BACKLOG: i32 = 128;
/// Calls that a replica may have open at once on P + 10001: each file being sent takes some 2 MiB.
const RSYNC_STREAMS: u32 = 256;

/// Bound and listening; nobody is served yet.
pub struct PeerListeners {
    replication: Vec<TcpListener>,
    rsync: Vec<TcpListener>,
}

impl PeerListeners {
    /// Listens on P + 2000 and P + 10001 of every address of `bind`. Must be called inside the runtime.
    pub fn bind(config: &Config) -> Result<PeerListeners, BindError> {
        let listen_on = |plus: u16| -> Result<Vec<TcpListener>, BindError> {
            let bind = |ip| {
                let addr = SocketAddr::new(ip, config.port().saturating_add(plus));
                listen(addr).map_err(|source| BindError { addr, source })
            };
            config.bind().into_iter().map(bind).collect()
        };
        Ok(PeerListeners { replication: listen_on(REPLICATION_PORT)?, rsync: listen_on(RSYNC_PORT)? })
    }

    pub(super) fn serve(self, manager: &Arc<Manager>) -> Vec<JoinHandle<()>> {
        // One a slot, and calls beside them.
        let streams = u32::try_from(manager.keyspace.all_slots().count() * 2).unwrap_or(u32::MAX).saturating_add(64);
        let replication = self.replication.into_iter().map(|listener| {
            let service = ReplicationServer::new(Service(manager.clone()))
                .max_decoding_message_size(MAX_REQUEST)
                .max_encoding_message_size(MAX_MESSAGE);
            (listener, builder(&manager.config, streams).add_service(service))
        });
        let rsync = self.rsync.into_iter().map(|listener| {
            let service = RsyncService::new(manager.keyspace.clone(), manager.snapshots.clone(), manager.clone());
            (listener, builder(&manager.config, RSYNC_STREAMS).add_service(service.into_server()))
        });
        replication.chain(rsync).map(|(listener, router)| spawn(listener, router)).collect()
    }
}

fn builder(config: &Config, streams: u32) -> Server {
    let timeout = config.repl_timeout();
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(timeout / 4))
        .http2_keepalive_timeout(Some(timeout / 2))
        .max_concurrent_streams(streams)
}

fn spawn(listener: TcpListener, router: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        if let Err(e) = router.serve_with_incoming(incoming).await {
            tracing::error!("a port for other nodes is no longer served: {e}");
        }
    })
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
