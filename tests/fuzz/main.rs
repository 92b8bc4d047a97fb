//! Fuzzing of running servers: what clients send, and what master and replica say to each other. Everything that can be fuzzed within one
//! process is in src/fuzz.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod peers;

// Named by the generated code of the services: what is changed on the way is sealed again.
use haypile::wire;
