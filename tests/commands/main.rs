//! Commands against the original: the same requests go to a haypile and to a redis-server, and the replies
//! must be the same to the byte.

#[path = "../common/mod.rs"]
mod common;

mod bitmap;
mod duel;
mod dump_format;
mod geo;
mod glob;
mod hyperloglog;
mod keys;
mod random;
mod scan;
mod stream;
mod string;
