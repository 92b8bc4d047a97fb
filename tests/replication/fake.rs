//! A replica that does what no replica should: it takes nothing, acknowledges nothing, or what it was not sent.

use haypile::binlog::Position;
use haypile::replication::proto::{
    self, BinlogOffset, InnerRequest, InnerResponse, ReplicationClient, Type, inner_request, inner_response,
};
use haypile::wire;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::common::Node;
use crate::common::ports::REPLICATION;

/// Registered with its master by MetaSync.
pub struct FakeReplica {
    runtime: Runtime,
    channel: Channel,
    node: proto::Node,
    /// To be shown with every call, on both ports.
    pub token: String,
}

/// A slot's stream: what it says goes up `acks`.
pub struct FakeStream {
    pub session: i32,
    acks: mpsc::Sender<InnerRequest>,
    records: Streaming<InnerResponse>,
}

impl FakeReplica {
    /// Asks MetaSync under the port `port` of 127.0.0.1, where nobody needs to listen.
    pub fn join(master: &Node, port: u16) -> FakeReplica {
        let runtime = Runtime::new().expect("a runtime");
        let address = format!("http://127.0.0.1:{}", master.port() + REPLICATION);
        let endpoint = Endpoint::from_shared(address).expect("an address").tcp_nodelay(true);
        let node = proto::Node { ip: "127.0.0.1".into(), port: i32::from(port) };
        let ask = InnerRequest {
            meta_sync: Some(inner_request::MetaSync {
                node: node.clone(),
                auth: Some(String::new()),
                run_id: Some(format!("fake{port}")),
            }),
            ..proto::request(Type::KMetaSync)
        };
        let (channel, answer) = runtime.block_on(async {
            let channel = endpoint.connect().await.expect("a connection");
            let answer = ReplicationClient::new(channel.clone()).meta_sync(ask).await.expect("an answer");
            (channel, answer.into_inner())
        });
        let token = answer.meta_sync.and_then(|meta| meta.token).expect("a token");
        FakeReplica { runtime, channel, node, token }
    }

    fn client(&self) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.channel.clone()).max_decoding_message_size(1 << 30)
    }

    fn slot(db: usize, slot: u32) -> proto::Slot {
        proto::Slot { db_name: format!("db{db}"), slot_id: slot }
    }

    /// Makes each of the calls that carry a position, a token or a registration, with each byte of what it says changed in turn. What
    /// the master answered, by the call's name.
    pub fn damaged_calls(&self, db: usize, slot: u32) -> Vec<(&'static str, Code)> {
        let slot = FakeReplica::slot(db, slot);
        let (node, token) = (self.node.clone(), Some(self.token.clone()));
        let binlog_offset = BinlogOffset::from(Position::START);
        let meta =
            inner_request::MetaSync { node: node.clone(), auth: Some(String::new()), run_id: Some("another".into()) };
        let try_sync = inner_request::TrySync {
            node: node.clone(),
            slot: slot.clone(),
            binlog_offset,
            probe: Some(false),
            token: token.clone(),
            hops: None,
        };
        let db_sync =
            inner_request::DbSync { node: node.clone(), slot: slot.clone(), binlog_offset, token: token.clone() };
        let leaving = inner_request::RemoveSlaveNode { node, slot, token };
        let calls = [
            ("MetaSync", InnerRequest { meta_sync: Some(meta), ..proto::request(Type::KMetaSync) }),
            ("TrySync", InnerRequest { try_sync: Some(try_sync), ..proto::request(Type::KTrySync) }),
            ("DBSync", InnerRequest { db_sync: Some(db_sync), ..proto::request(Type::KDbSync) }),
            (
                "RemoveSlaveNode",
                InnerRequest { remove_slave_node: vec![leaving], ..proto::request(Type::KRemoveSlaveNode) },
            ),
        ];
        let mut answers = Vec::new();
        self.runtime.block_on(async {
            for (name, ask) in calls {
                for at in 0..wire::seal(&ask).len() {
                    let mut grpc = tonic::client::Grpc::new(self.channel.clone());
                    grpc.ready().await.expect("a connection");
                    let path = format!("/InnerMessage.Replication/{name}").parse().expect("a path");
                    let answer = grpc.unary(tonic::Request::new(ask.clone()), path, Damaging(at)).await;
                    answers.push((name, answer.err().map_or(Code::Ok, |status| status.code())));
                }
            }
        });
        answers
    }

    /// DBSync of a slot.
    pub fn db_sync(&self, db: usize, slot: u32) {
        let ask = InnerRequest {
            db_sync: Some(inner_request::DbSync {
                node: self.node.clone(),
                slot: FakeReplica::slot(db, slot),
                binlog_offset: Position::START.into(),
                token: Some(self.token.clone()),
            }),
            ..proto::request(Type::KDbSync)
        };
        self.runtime.block_on(self.client().db_sync(ask)).expect("an answer to DBSync");
    }

    /// TrySync from the log's beginning, and the stream; its first acknowledgement is that beginning.
    pub fn stream(&self, db: usize, slot: u32) -> FakeStream {
        let ask = InnerRequest {
            try_sync: Some(inner_request::TrySync {
                node: self.node.clone(),
                slot: FakeReplica::slot(db, slot),
                binlog_offset: Position::START.into(),
                probe: Some(false),
                token: Some(self.token.clone()),
                hops: None,
            }),
            ..proto::request(Type::KTrySync)
        };
        self.runtime.block_on(async {
            let answer = self.client().try_sync(ask).await.expect("an answer to TrySync").into_inner();
            let session = answer.try_sync.and_then(|said| said.session_id).expect("a session");
            let (acks, up) = mpsc::channel(16);
            let mut first = self.ack_message(db, slot, session, Position::START);
            first.binlog_sync.as_mut().expect("content").first_send = true;
            acks.send(first).await.expect("room");
            let records = self.client().binlog_sync(ReceiverStream::new(up)).await.expect("a stream").into_inner();
            FakeStream { session, acks, records }
        })
    }

    fn ack_message(&self, db: usize, slot: u32, session: i32, to: Position) -> InnerRequest {
        let to = BinlogOffset::from(to);
        InnerRequest {
            binlog_sync: Some(inner_request::BinlogSync {
                node: self.node.clone(),
                db_name: format!("db{db}"),
                slot_id: slot,
                ack_range_start: to,
                ack_range_end: to,
                session_id: session,
                first_send: false,
                token: Some(self.token.clone()),
            }),
            ..proto::request(Type::KBinlogSync)
        }
    }

    /// Acknowledges up to `to`, sent or not.
    pub fn ack(&self, stream: &FakeStream, db: usize, slot: u32, to: Position) {
        let message = self.ack_message(db, slot, stream.session, to);
        // The master may have ended the stream.
        let _ = self.runtime.block_on(stream.acks.send(message));
    }

    /// The next message; `None` when the master has ended the stream.
    pub fn next(&self, stream: &mut FakeStream) -> Option<inner_response::BinlogSync> {
        let message = self.runtime.block_on(stream.records.message()).ok().flatten()?;
        message.binlog_sync.into_iter().next()
    }
}

/// Changes the byte at a place of what is sent.
struct Damaging(usize);

impl Codec for Damaging {
    type Encode = InnerRequest;
    type Decode = InnerResponse;
    type Encoder = Damaging;
    type Decoder = wire::Opening<InnerResponse>;

    fn encoder(&mut self) -> Damaging {
        Damaging(self.0)
    }

    fn decoder(&mut self) -> Self::Decoder {
        wire::SealedCodec::<InnerRequest, InnerResponse>::default().decoder()
    }
}

impl Encoder for Damaging {
    type Item = InnerRequest;
    type Error = Status;

    fn encode(&mut self, message: InnerRequest, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let mut bytes = wire::seal(&message).to_vec();
        bytes[self.0] ^= 1;
        bytes::BufMut::put_slice(out, &bytes);
        Ok(())
    }
}
