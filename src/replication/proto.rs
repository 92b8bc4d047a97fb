//! The wire of port P + 2000, and its border to our own types. Public, so that whoever tests a node can speak to it as a replica does.

#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated")]
mod generated {
    tonic::include_proto!("inner_message");
}

pub use generated::inner_request;
pub use generated::inner_response;
pub use generated::replication_client::ReplicationClient;
pub(super) use generated::replication_server::{Replication, ReplicationServer};
pub use generated::{BinlogOffset, Hop, InnerRequest, InnerResponse, Node, Slot, StatusCode, Type};

use crate::binlog::Position;

/// Largest message either side takes, bytes: a binlog record with a 512 MiB value, and more than that with its key.
pub(super) const MAX_MESSAGE: usize = (1 << 30) + (1 << 20);

impl From<Position> for BinlogOffset {
    fn from(p: Position) -> Self {
        BinlogOffset {
            filenum: p.filenum,
            offset: p.offset,
            term: Some(p.term),
            index: Some(p.index),
            chain: Some(p.chain),
        }
    }
}

impl From<&BinlogOffset> for Position {
    /// A peer that sends no term, index or chain is no Haypile node; its position then matches none of ours but the start.
    fn from(o: &BinlogOffset) -> Self {
        Position {
            filenum: o.filenum,
            offset: o.offset,
            term: o.term.unwrap_or(0),
            index: o.index.unwrap_or(0),
            chain: o.chain.unwrap_or(0),
        }
    }
}

/// A request of one type with nothing in it.
pub fn request(kind: Type) -> InnerRequest {
    InnerRequest { r#type: kind.into(), ..InnerRequest::default() }
}

/// A response of one type with nothing in it but its code.
pub(super) fn response(kind: Type, code: StatusCode) -> InnerResponse {
    InnerResponse { r#type: kind.into(), code: code.into(), ..InnerResponse::default() }
}

/// A refusal, in words for the other side's operator.
pub(super) fn refusal(kind: Type, code: StatusCode, reply: impl Into<String>) -> InnerResponse {
    InnerResponse { reply: Some(reply.into()), ..response(kind, code) }
}

/// The name of a database on the wire.
pub(super) fn db_name(db: usize) -> String {
    format!("db{db}")
}
