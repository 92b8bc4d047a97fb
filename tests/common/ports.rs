//! Blocks of ports that are free and belong to one test process at a time.
//!
//! A node on port P also listens on P + 2000 and P + 10001. With P in 20000..22000 the three
//! ranges do not overlap and lie below Linux's ephemeral ports (32768 and up), so no outgoing
//! connection can take one of them.
//!
//! A block is held through an abstract unix socket named after it: such a name is exclusive
//! among all processes that share the network, needs no file, and vanishes with the process
//! however that ends.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rand::RngExt;

/// What a node adds to its port for the replication service.
pub const REPLICATION: u16 = 2000;
/// What a node adds to its port for the snapshot service.
pub const SNAPSHOT: u16 = 10001;
/// All three ports of a block, as offsets.
pub const OFFSETS: [u16; 3] = [0, REPLICATION, SNAPSHOT];

const RANGE: Range<u16> = 20000..22000;

/// P, P + 2000 and P + 10001, reserved until dropped.
pub struct PortBlock {
    port: u16,
    _name: UnixListener,
}

impl PortBlock {
    /// Takes a block nobody uses; nothing listens on it yet.
    pub fn reserve() -> PortBlock {
        let start = rand::rng().random_range(RANGE);
        let ports = (start..RANGE.end).chain(RANGE.start..start);
        for port in ports {
            let name = format!("haypile-test-port-{port}");
            let address = SocketAddr::from_abstract_name(name).expect("a short name");
            let Ok(held) = UnixListener::bind_addr(&address) else {
                continue;
            };
            if OFFSETS.iter().all(|offset| is_free(port + offset)) {
                return PortBlock { port, _name: held };
            }
        }
        panic!("no free block of ports in {RANGE:?}");
    }

    /// P.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
