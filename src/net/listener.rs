//! The listening sockets: binding, accepting, and letting clients finish when the server stops.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time,
};

use super::{Closing, TooManyClients, connection};
use crate::{config::Config, daemon::limits as files, server::Server};

/// Wait before accepting again after it failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often clients are looked for that are idle, or do not read.
const CLIENT_CHECK: Duration = Duration::from_secs(1);
/// How long clients may take to receive their last replies when the server stops.
const DRAIN: Duration = Duration::from_secs(3);
/// At most how often refused clients are told of in the log.
const TELL_EVERY: Duration = Duration::from_secs(10);
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
    /// and its replies be received, and returns when the last connection is closed, but after 3 s at the latest.
    pub async fn serve(self, server: Arc<Server>, stop: impl Future<Output = ()>) {
        let (stopped, stopping) = watch::channel(false);
        let mut acceptors = JoinSet::new();
        for socket in self.sockets {
            acceptors.spawn(accept_loop(socket, server.clone(), stopping.clone()));
        }
        let mut client_check = time::interval(CLIENT_CHECK);
        client_check.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = client_check.tick() => {
                    server.clients.close_idle(server.config.timeout());
                    server.clients.limit_output(&server.config.client_output_buffer_limit());
                }
            }
        }
        stopped.send_replace(true);
        while acceptors.join_next().await.is_some() {}
        server.clients.close_all(Closing::Finish);
        let _ = time::timeout(DRAIN, server.clients.drained()).await;
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
    let mut refused = Refused::default();
    let mut spare = spare_file();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            accepted = socket.accept() => accepted,
        };
        let error = match accepted {
            Ok((stream, addr)) => {
                match admit(&server, stream, addr) {
                    Ok(None) => {}
                    Ok(Some(reason)) => refused.tell(&reason),
                    Err(error) => tracing::debug!(client = %addr, %error, "client left before it was served"),
                }
                continue;
            }
            Err(error) => error,
        };
        refused.tell(&format!("cannot accept a client: {error}"));
        // Without a descriptor the client could not even be told: the spare one is for that.
        drop(spare.take());
        match time::timeout(ACCEPT_RETRY, socket.accept()).await {
            Ok(Ok((stream, _))) => drop(refuse(&server, &stream)),
            _ => time::sleep(ACCEPT_RETRY).await,
        }
        spare = spare_file();
    }
}

/// Holds a descriptor.
fn spare_file() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Clients that are turned away, for the log.
#[derive(Default)]
struct Refused {
    /// Since the last line.
    count: u64,
    told: Option<Instant>,
}

impl Refused {
    fn tell(&mut self, reason: &str) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(clients = self.count, "refused clients: {reason}");
            *self = Refused { count: 0, told: Some(Instant::now()) };
        }
    }
}

/// Registers a client and starts serving it, or tells it that there are too many, and returns why.
fn admit(server: &Arc<Server>, stream: TcpStream, addr: SocketAddr) -> io::Result<Option<String>> {
    let fd = stream.as_raw_fd();
    if let Some(limit) = files::without_room(fd) {
        refuse(server, &stream)?;
        return Ok(Some(format!("of the {limit} files that the process may open the last ones are for data")));
    }
    stream.set_nodelay(true)?;
    keep_alive(&stream, server.config.tcp_keepalive())?;
    let laddr = stream.local_addr()?;
    match server.clients.register(addr, laddr, fd, server.config.maxclients()) {
        Ok(info) => {
            server.stats.connections_received.add(1);
            tokio::spawn(connection::serve(server.clone(), stream, info));
            Ok(None)
        }
        Err(TooManyClients) => {
            refuse(server, &stream)?;
            Ok(Some("maxclients are connected".into()))
        }
    }
}

/// Tells a client that there are too many.
fn refuse(server: &Server, stream: &TcpStream) -> io::Result<()> {
    server.stats.connections_received.add(1);
    server.stats.connections_rejected.add(1);
    // The socket is new and its send buffer empty: this does not block.
    SockRef::from(stream).send(format!("-{TooManyClients}\r\n").as_bytes())?;
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
