//! One server: how it starts and stops, what it keeps through a crash, how it speaks RESP,
//! what it does with data across slots and databases.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod blocking;
mod daemon;
mod data;
mod durability;
mod hot_key;
mod latency;
mod limits;
mod protocol;
mod push;
mod refused;
mod scripting;
mod shutdown;
mod transactions;
