//! A faulty network in front of a node: a TCP proxy that carries what its replicas say, and harms it on demand.
//!
//! The replica is told `slaveof 127.0.0.1 Q` with Q of [`Link::port`]; Q, Q + 2000 and Q + 10001 lead to the node's three
//! ports. Each port has two *wires*, up to the node and down from it; a [`Fault`] is put on any of the six by hand
//! ([`Link::inject`], [`Link::cut`] …) or on a [`Schedule`] made from a seed. What TCP promises holds here too: bytes that
//! arrive do so once and in order. Only flips break a promise, the one of TCP's weak checksum.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `wire` | one direction of one port: what is wrong with it, and the carrying of bytes |
//! | `schedule` | [`Schedule`]: faults at times, from a seed |

pub mod schedule;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::Node;
use super::ports::{OFFSETS, PortBlock, REPLICATION, SNAPSHOT};
pub use schedule::{Kind, Playing, Schedule};
use wire::Wire;

/// How often an acceptor looks for connections and for the end.
const TICK: Duration = Duration::from_millis(10);

/// A direction, as seen from the node behind the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From replicas (and clients) to the node.
    Up,
    /// From the node.
    Down,
}

/// Some of the six wires of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wires {
    ports: [bool; OFFSETS.len()],
    ways: [bool; 2],
}

impl Wires {
    /// All ports, both ways.
    pub const ALL: Wires = Wires { ports: [true; OFFSETS.len()], ways: [true; 2] };

    /// The port P + `offset`, both ways.
    pub const fn port(offset: u16) -> Wires {
        let ports = [OFFSETS[0] == offset, OFFSETS[1] == offset, OFFSETS[2] == offset];
        Wires { ports, ways: [true; 2] }
    }

    /// The replication port, both ways.
    pub fn replication() -> Wires {
        Wires::port(REPLICATION)
    }

    /// The snapshot port, both ways.
    pub fn snapshot() -> Wires {
        Wires::port(SNAPSHOT)
    }

    /// Of these, those of one direction.
    pub fn only(self, way: Way) -> Wires {
        Wires { ways: [way == Way::Up, way == Way::Down], ..self }
    }

    fn includes(&self, port: usize, way: Way) -> bool {
        self.ports[port] && self.ways[way as usize]
    }
}

impl fmt::Display for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> =
            (0..OFFSETS.len()).filter(|&p| self.ports[p]).map(|p| format!("P+{}", OFFSETS[p])).collect();
        let way = match self.ways {
            [true, false] => "up",
            [false, true] => "down",
            _ => "both ways",
        };
        write!(f, "{} {way}", ports.join(","))
    }
}

/// What can be wrong with a wire. All but the half-close and a single flip last until [`Link::restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Closes every connection, and every new one at once. A port is cut whole, whichever way is named.
    Cut,
    /// Connections stay open but no byte gets through: what a network that swallows packets looks like.
    Stall,
    /// Every byte arrives so much later, and up to `jitter_ms` later than that; none overtakes another.
    Delay { ms: u64, jitter_ms: u64 },
    /// All connections of the wire share this rate.
    Throttle { bytes_per_second: u64 },
    /// Each byte is changed with a probability of 1 / `one_in`.
    FlipRate { one_in: u64 },
    /// The byte that comes after `after` others from now on is changed. 0 is the next.
    FlipAt { after: u64 },
    /// Open connections: the receiver is told that no more comes, while what the sender still says vanishes. New ones work.
    HalfClose,
}

/// The network between a node and those that reach it by [`Link::port`].
pub struct Link {
    ports: PortBlock,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    ports: [Port; OFFSETS.len()],
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    connections: AtomicU64,
}

#[derive(Default)]
struct Port {
    cut: AtomicBool,
    /// By [`Way`].
    wires: [Wire; 2],
}

/// One connection through the link.
struct Connection {
    port: usize,
    replica: TcpStream,
    node: TcpStream,
    /// By [`Way`]: what still comes is thrown away.
    half_closed: [AtomicBool; 2],
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

    /// Puts a fault on some wires, beside what is wrong with them already.
    pub fn inject(&self, fault: Fault, wires: Wires) {
        self.shared.inject(fault, wires);
    }

    /// Closes every connection, and every new one at once, until [`Link::restore`].
    pub fn cut(&self) {
        self.inject(Fault::Cut, Wires::ALL);
    }

    /// Keeps connections open but lets no byte through until [`Link::restore`].
    pub fn stall(&self) {
        self.inject(Fault::Stall, Wires::ALL);
    }

    /// Everything gets through again, at once and unchanged.
    pub fn restore(&self) {
        self.shared.restore(Wires::ALL);
    }

    /// Connections are possible again on all ports; what else is wrong stays.
    pub fn restore_cut(&self) {
        self.shared.ports.iter().for_each(|port| port.cut.store(false, Ordering::SeqCst));
    }

    /// [`Link::restore`] of some wires.
    pub fn restore_only(&self, wires: Wires) {
        self.shared.restore(wires);
    }

    /// Plays a schedule in the background. At its end, and when what is returned is dropped, the link is restored.
    pub fn play(&self, schedule: Schedule) -> Playing {
        Playing::start(Arc::clone(&self.shared), schedule)
    }

    /// Bytes the node sent through its snapshot port.
    pub fn snapshot_bytes(&self) -> u64 {
        self.bytes_down(SNAPSHOT)
    }

    /// Bytes the node sent through the port P + `offset`, as far as they were delivered.
    pub fn bytes_down(&self, offset: u16) -> u64 {
        self.shared.wire(offset, Way::Down).delivered()
    }

    /// Bytes delivered to the node's port P + `offset`.
    pub fn bytes_up(&self, offset: u16) -> u64 {
        self.shared.wire(offset, Way::Up).delivered()
    }

    /// Bytes changed so far, on all wires.
    pub fn flips(&self) -> u64 {
        self.shared.ports.iter().flat_map(|port| &port.wires).map(Wire::flipped).sum()
    }

    /// Connections that were opened through the link so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.close(Wires::ALL);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
        self.shared.close(Wires::ALL);
    }
}

impl Shared {
    fn wire(&self, offset: u16, way: Way) -> &Wire {
        let port = OFFSETS.iter().position(|known| *known == offset).expect("an offset of a node's port");
        &self.ports[port].wires[way as usize]
    }

    fn each(&self, wires: Wires) -> impl Iterator<Item = &Wire> {
        let named = (0..OFFSETS.len()).flat_map(|port| [(port, Way::Up), (port, Way::Down)]);
        named
            .filter(move |&(port, way)| wires.includes(port, way))
            .map(|(port, way)| &self.ports[port].wires[way as usize])
    }

    fn inject(&self, fault: Fault, wires: Wires) {
        match fault {
            Fault::Cut => {
                let ports = self.ports.iter().enumerate().filter(|(nth, _)| wires.ports[*nth]);
                ports.for_each(|(_, port)| port.cut.store(true, Ordering::SeqCst));
                self.close(wires);
            }
            Fault::HalfClose => self.half_close(wires),
            _ => self.each(wires).for_each(|wire| wire.spoil(fault)),
        }
    }

    fn restore(&self, wires: Wires) {
        let ports = self.ports.iter().enumerate().filter(|(nth, _)| wires.ports[*nth]);
        ports.for_each(|(_, port)| port.cut.store(false, Ordering::SeqCst));
        self.each(wires).for_each(Wire::mend);
    }

    fn close(&self, wires: Wires) {
        self.open.lock().retain(|_, connection| {
            let goes = wires.ports[connection.port];
            if goes {
                connection.close();
            }
            !goes
        });
    }

    fn half_close(&self, wires: Wires) {
        for connection in self.open.lock().values() {
            for way in [Way::Up, Way::Down] {
                if wires.includes(connection.port, way) {
                    connection.half_closed[way as usize].store(true, Ordering::SeqCst);
                    let _ = connection.receiver(way).shutdown(Shutdown::Write);
                }
            }
        }
    }

    fn refuses(&self, port: usize) -> bool {
        self.closed.load(Ordering::SeqCst) || self.ports[port].cut.load(Ordering::SeqCst)
    }
}

impl Connection {
    fn sender(&self, way: Way) -> &TcpStream {
        if way == Way::Up { &self.replica } else { &self.node }
    }

    fn receiver(&self, way: Way) -> &TcpStream {
        if way == Way::Up { &self.node } else { &self.replica }
    }

    fn close(&self) {
        for end in [&self.replica, &self.node] {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, port: usize, target: u16, shared: &Arc<Shared>) {
    while !shared.closed.load(Ordering::SeqCst) {
        let Ok((replica, _)) = listener.accept() else {
            thread::sleep(TICK);
            continue;
        };
        if shared.refuses(port) {
            continue;
        }
        let Ok(node) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
            continue;
        };
        if let Err(e) = join(replica, node, port, shared) {
            eprintln!("link: {e}");
        }
    }
}

fn join(replica: TcpStream, node: TcpStream, port: usize, shared: &Arc<Shared>) -> std::io::Result<()> {
    for end in [&replica, &node] {
        end.set_nonblocking(false)?;
        end.set_nodelay(true)?;
    }
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    let connection = Arc::new(Connection { port, replica, node, half_closed: Default::default() });
    {
        // A cut between the look at the state and here would leave this pair open.
        let mut open = shared.open.lock();
        if shared.refuses(port) {
            return Ok(());
        }
        open.insert(number, Arc::clone(&connection));
    }
    let carriers = [Way::Up, Way::Down].map(|way| {
        let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
        thread::spawn(move || {
            // An end of what one side says leaves the other way open; anything else ends both.
            if wire::carry(&connection, way, &shared.ports[port].wires[way as usize]).is_err() {
                connection.close();
            }
        })
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for carrier in carriers {
            let _ = carrier.join();
        }
        connection.close();
        shared.open.lock().remove(&number);
    });
    Ok(())
}
