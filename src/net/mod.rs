//! The network side: listener, connections, the RESP codec, the registry of clients.

mod client;
mod clients;
mod connection;
pub mod listener;
pub mod output;
pub mod reply;
pub mod resp;
mod turns;

pub use client::{Client, ClientInfo, Closing, Mode, Overrun, Replies, Tally};
pub use clients::{ClientFilter, ClientKind, ClientRegistry, TooManyClients};
pub use listener::Listener;
pub use reply::Reply;
pub use turns::Turns;
