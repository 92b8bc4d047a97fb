//! The listening sockets: binding, accepting, and letting clients finish when the server stops.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};

use super::{Closing, connection};
use crate::{config::Config, server::Server};

/// Wait before accepting again after it failed, as it does when file descriptors run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often idle clients are looked for.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// How long clients may take to receive their last replies when the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Unanswered keepalive probes after which a connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct BindError {
    /// What was asked for.
    pub addr: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Bound and listening; nobody is accepted yet.
pub struct Listener {
    sockets: Vec<TcpListener>,
}

impl Listener {
    /// Listens on `port` of every address of `bind`. Must be called inside the runtime that will serve.
    pub fn bind(config: &Config) -> Result<Listener, BindError> {
        let sockets = config
            .bind()
            .into_iter()
            .map(|ip| {
                let addr = SocketAddr::new(ip, config.port());
                listen(addr, config.tcp_backlog()).map_err(|source| BindError { addr, source })
            })
            .collect::<Result<_, _>>()?;
        Ok(Listener { sockets })
    }

    /// The addresses that are listened on.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Accepts and serves clients until `stop` resolves. Then accepts no more, lets every client's running pipeline finish
    /// and its replies be received (for at most 10 s), and returns when the last connection is closed.
    pub async fn serve(self, server: Arc<Server>, stop: impl Future<Output = ()>) {
        let (stopped, stopping) = watch::channel(false);
        let mut acceptors = JoinSet::new();
        for socket in self.sockets {
            acceptors.spawn(accept_loop(socket, server.clone(), stopping.clone()));
        }
        let mut idle_check = time::interval(IDLE_CHECK);
        idle_check.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = idle_check.tick() => server.clients.close_idle(server.config.timeout()),
            }
        }
        stopped.send_replace(true);
        while acceptors.join_next().await.is_some() {}
        server.clients.close_all(Closing::Finish);
        if time::timeout(DRAIN, server.clients.drained()).await.is_err() {
            tracing::warn!(clients = server.clients.len(), "closing clients that did not take their replies in time");
            server.clients.close_all(Closing::Kill);
            // What is left is commands that still run; their threads are waited for by the runtime.
            let _ = time::timeout(DRAIN, server.clients.drained()).await;
        }
    }
}

fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if matches!(addr.ip(), IpAddr::V6(_)) {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

async fn accept_loop(socket: TcpListener, server: Arc<Server>, mut stopping: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                if let Err(error) = admit(&server, stream, addr) {
                    tracing::debug!(client = %addr, %error, "client left before it was served");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Registers a client and starts serving it, or tells it that there are too many.
fn admit(server: &Arc<Server>, stream: TcpStream, addr: SocketAddr) -> io::Result<()> {
    server.stats.connections_received.add(1);
    stream.set_nodelay(true)?;
    keep_alive(&stream, server.config.tcp_keepalive())?;
    let laddr = stream.local_addr()?;
    match server.clients.register(addr, laddr, stream.as_raw_fd(), server.config.maxclients()) {
        Ok(info) => {
            tokio::spawn(connection::serve(server.clone(), stream, info));
        }
        Err(full) => {
            server.stats.connections_rejected.add(1);
            // The socket is new and its send buffer empty: this does not block.
            let socket = SockRef::from(&stream);
            socket.send(format!("-{full}\r\n").as_bytes())?;
        }
    }
    Ok(())
}

fn keep_alive(stream: &TcpStream, idle: Duration) -> io::Result<()> {
    if idle.is_zero() {
        return Ok(());
    }
    let probing = TcpKeepalive::new()
        .with_time(idle)
        .with_interval((idle / KEEPALIVE_PROBES).max(Duration::from_secs(1)))
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probing)
}
