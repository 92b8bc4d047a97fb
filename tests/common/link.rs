//! A TCP proxy in front of a node, to cut the wire between two nodes.
//!
//! The replica is told `slaveof 127.0.0.1 Q` with Q of [`Link::port`]; Q, Q + 2000 and
//! Q + 10001 lead to the node's three ports.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::Node;
use super::ports::{OFFSETS, PortBlock, SNAPSHOT};

const UP: u8 = 0;
const CUT: u8 = 1;
const STALLED: u8 = 2;
const CLOSED: u8 = 3;

/// How often a stalled or idle thread of the proxy looks at the state.
const TICK: Duration = Duration::from_millis(10);

/// The wire to one node.
pub struct Link {
    ports: PortBlock,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    /// Bytes from the node to its replica, one count a port in the order of [`OFFSETS`].
    down: [AtomicU64; OFFSETS.len()],
    /// Bytes from the replica to the node.
    up: [AtomicU64; OFFSETS.len()],
    /// Both ends of every open connection, by its number.
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
    connections: AtomicU64,
}

impl Link {
    /// A working link to `node`, which may be down or not yet started.
    pub fn to(node: &Node) -> Link {
        let ports = PortBlock::reserve();
        let shared = Arc::new(Shared::default());
        let acceptors = (0..OFFSETS.len()).map(|which| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.port() + OFFSETS[which]));
            let listener = listener.expect("a reserved port");
            listener.set_nonblocking(true).expect("a listener");
            let target = node.port() + OFFSETS[which];
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, which, target, &shared))
        });
        let acceptors = acceptors.collect();
        Link { ports, shared, acceptors }
    }

    /// Q.
    pub fn port(&self) -> u16 {
        self.ports.port()
    }

    /// Closes every connection, and every new one at once, until [`Link::restore`].
    pub fn cut(&self) {
        self.shared.state.store(CUT, Ordering::SeqCst);
        self.shared.close_all();
    }

    /// Keeps connections open but lets no byte through until [`Link::restore`]: what a
    /// network that swallows packets looks like.
    pub fn stall(&self) {
        self.shared.state.store(STALLED, Ordering::SeqCst);
    }

    /// Lets everything through again.
    pub fn restore(&self) {
        self.shared.state.store(UP, Ordering::SeqCst);
    }

    /// Bytes the node sent through its snapshot port.
    pub fn snapshot_bytes(&self) -> u64 {
        self.bytes_down(SNAPSHOT)
    }

    /// Bytes the node sent through the port P + `offset`.
    pub fn bytes_down(&self, offset: u16) -> u64 {
        self.shared.down[index(offset)].load(Ordering::SeqCst)
    }

    /// Bytes sent to the node's port P + `offset`.
    pub fn bytes_up(&self, offset: u16) -> u64 {
        self.shared.up[index(offset)].load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state.store(CLOSED, Ordering::SeqCst);
        self.shared.close_all();
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
        self.shared.close_all();
    }
}

fn index(offset: u16) -> usize {
    let found = OFFSETS.iter().position(|known| *known == offset);
    found.expect("an offset of a node's port")
}

impl Shared {
    fn state(&self) -> u8 {
        self.state.load(Ordering::SeqCst)
    }

    fn close_all(&self) {
        for (_, pair) in self.open.lock().drain() {
            for end in pair {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Waits while the link is stalled; whether bytes may pass.
    fn passes(&self) -> bool {
        while self.state() == STALLED {
            thread::sleep(TICK);
        }
        self.state() == UP
    }
}

fn accept(listener: &TcpListener, which: usize, target: u16, shared: &Arc<Shared>) {
    while shared.state() != CLOSED {
        let Ok((replica, _)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        if shared.state() != UP && shared.state() != STALLED {
            continue;
        }
        let Ok(node) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
            continue;
        };
        if let Err(e) = join(replica, node, which, shared) {
            eprintln!("link: {e}");
        }
    }
}

fn join(replica: TcpStream, node: TcpStream, which: usize, shared: &Arc<Shared>) -> std::io::Result<()> {
    for end in [&replica, &node] {
        end.set_nonblocking(false)?;
        end.set_nodelay(true)?;
    }
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    let (replica_too, node_too) = (replica.try_clone()?, node.try_clone()?);
    {
        // A cut between the look at the state and here would leave this pair open.
        let mut open = shared.open.lock();
        if matches!(shared.state(), CUT | CLOSED) {
            return Ok(());
        }
        open.insert(number, [replica.try_clone()?, node.try_clone()?]);
    }
    let (up, down) = (Arc::clone(shared), Arc::clone(shared));
    thread::spawn(move || {
        pump(replica, node, &up, &up.up[which]);
        up.open.lock().remove(&number);
    });
    thread::spawn(move || pump(node_too, replica_too, &down, &down.down[which]));
    Ok(())
}

/// Carries bytes one way until either end closes, then closes both.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !shared.passes() || to.write_all(&buffer[..read]).is_err() {
            break;
        }
        count.fetch_add(read as u64, Ordering::SeqCst);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
