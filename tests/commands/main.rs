//! Commands against the original: the same requests go to a haypile and to a redis-server, and the replies
//! must be the same to the byte.

#[path = "../common/mod.rs"]
mod common;

mod bitmap;
mod duel;
mod dump_format;
mod events;
mod geo;
mod glob;
mod hash;
mod hash_fields;
mod hyperloglog;
mod keys;
mod list;
mod pika;
mod random;
mod random_elements;
mod scan;
mod scripting;
mod server;
mod set;
mod stream;
mod string;
mod values;
mod zset;
