//! What master and replica say to each other, mutated on the way: a proxy that takes every message of both services apart, changes
//! some of its bytes, and sends on what is still a message. Neither node falls, and a replica that says it is in sync has
//! its master's data.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::common::fuzz::{Mutator, budget, seed};
use crate::common::ports::{PortBlock, REPLICATION, SNAPSHOT};
use crate::common::{DEADLINE, Load, LoadOptions, Node, NodeOptions, wait_for, wait_synced};

#[allow(clippy::all, reason = "generated")]
mod inner {
    tonic::include_proto!("inner_message");
}
#[allow(clippy::all, reason = "generated")]
mod rsync {
    tonic::include_proto!("rsync_service");
}

use inner::replication_client::ReplicationClient;
use inner::replication_server::{Replication, ReplicationServer};
use inner::{InnerRequest, InnerResponse};
use rsync::rsync_client::RsyncClient;
use rsync::rsync_server::{Rsync, RsyncServer};
use rsync::{RsyncRequest, RsyncResponse};

/// Largest message, bytes.
const MAX_MESSAGE: usize = 1 << 30;
/// One message in so many is changed.
const ONE_IN: u64 = 4;

/// Changes messages, as long as it is on.
struct Faults {
    on: AtomicBool,
    messages: AtomicU64,
    changed: AtomicU64,
    mutator: Mutex<Mutator>,
}

impl Faults {
    fn change<M: Message + Default>(&self, message: M) -> M {
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        if !self.on.load(Ordering::Relaxed) || !number.is_multiple_of(ONE_IN) {
            return message;
        }
        let bytes = message.encode_to_vec();
        // Most of what is changed at random is no message, which is tonic's business.
        for _ in 0..20 {
            let other = self.mutator.lock().mutate(&bytes, &[]);
            if let Ok(other) = M::decode(&other[..]) {
                self.changed.fetch_add(1, Ordering::Relaxed);
                return other;
            }
        }
        message
    }
}

/// Both services, in front of a node's.
#[derive(Clone)]
struct Proxy {
    faults: Arc<Faults>,
    replication: Channel,
    rsync: Channel,
}

type Outcome<T> = Result<Response<T>, Status>;
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Proxy {
    fn replication(&self) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.replication.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    fn rsync(&self) -> RsyncClient<Channel> {
        RsyncClient::new(self.rsync.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    fn request<M: Message + Default>(&self, request: Request<M>) -> M {
        self.faults.change(request.into_inner())
    }

    fn response<M: Message + Default>(&self, response: Response<M>) -> Response<M> {
        Response::new(self.faults.change(response.into_inner()))
    }

    fn responses<M: Message + Default + 'static>(&self, from: Streaming<M>) -> Response<Responses<M>> {
        let faults = self.faults.clone();
        Response::new(Box::pin(from.map(move |message| message.map(|message| faults.change(message)))))
    }
}

#[tonic::async_trait]
impl Replication for Proxy {
    async fn meta_sync(&self, request: Request<InnerRequest>) -> Outcome<InnerResponse> {
        Ok(self.response(self.replication().meta_sync(self.request(request)).await?))
    }

    async fn try_sync(&self, request: Request<InnerRequest>) -> Outcome<InnerResponse> {
        Ok(self.response(self.replication().try_sync(self.request(request)).await?))
    }

    async fn db_sync(&self, request: Request<InnerRequest>) -> Outcome<InnerResponse> {
        Ok(self.response(self.replication().db_sync(self.request(request)).await?))
    }

    async fn remove_slave_node(&self, request: Request<InnerRequest>) -> Outcome<InnerResponse> {
        Ok(self.response(self.replication().remove_slave_node(self.request(request)).await?))
    }

    async fn heart_beat(&self, request: Request<InnerRequest>) -> Outcome<InnerResponse> {
        Ok(self.response(self.replication().heart_beat(self.request(request)).await?))
    }

    type BinlogSyncStream = Responses<InnerResponse>;

    async fn binlog_sync(&self, request: Request<Streaming<InnerRequest>>) -> Outcome<Self::BinlogSyncStream> {
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(16);
        let faults = self.faults.clone();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                if sender.send(faults.change(request)).await.is_err() {
                    break;
                }
            }
        });
        Ok(self.responses(self.replication().binlog_sync(ReceiverStream::new(receiver)).await?.into_inner()))
    }
}

#[tonic::async_trait]
impl Rsync for Proxy {
    async fn meta(&self, request: Request<RsyncRequest>) -> Outcome<RsyncResponse> {
        Ok(self.response(self.rsync().meta(self.request(request)).await?))
    }

    type FileStream = Responses<RsyncResponse>;

    async fn file(&self, request: Request<RsyncRequest>) -> Outcome<Self::FileStream> {
        Ok(self.responses(self.rsync().file(self.request(request)).await?.into_inner()))
    }
}

/// Starts a proxy in front of `node` on a block of ports of its own.
fn proxy(runtime: &Runtime, node: &Node, seed: u64) -> (PortBlock, Arc<Faults>) {
    let ports = PortBlock::reserve();
    let faults = Arc::new(Faults {
        on: AtomicBool::new(true),
        messages: AtomicU64::new(0),
        changed: AtomicU64::new(0),
        mutator: Mutex::new(Mutator::new(seed)),
    });
    let _inside = runtime.enter();
    let to = |offset: u16| {
        let uri = format!("http://127.0.0.1:{}", node.port() + offset);
        Endpoint::from_shared(uri).expect("an address").connect_lazy()
    };
    let proxy = Proxy { faults: faults.clone(), replication: to(REPLICATION), rsync: to(SNAPSHOT) };
    let services = [
        (
            REPLICATION,
            Server::builder().add_service(ReplicationServer::new(proxy.clone()).max_decoding_message_size(MAX_MESSAGE)),
        ),
        (SNAPSHOT, Server::builder().add_service(RsyncServer::new(proxy))),
    ];
    for (offset, service) in services {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.port() + offset));
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a reserved port");
        runtime.spawn(service.serve_with_incoming(TcpListenerStream::new(listener)));
    }
    (ports, faults)
}

/// Neither has panicked.
fn look_at(nodes: [&Node; 2]) {
    for node in nodes {
        let output = node.output();
        assert!(!output.contains("panicked"), "{}", &output[output.len().saturating_sub(4000)..]);
        node.run("PING");
    }
}

#[test]
fn peers() {
    let seed = seed();
    println!("fuzz peers: seed {seed} (HAYPILE_TEST_SEED={seed} repeats what is changed)");
    let runtime = Runtime::new().expect("a runtime");
    let options = || NodeOptions::new().set("databases", 1).set("slot-num", 2).set("binlog-file-size", "64K");
    let (master, replica) = (options().start(), options().start());
    let (ports, faults) = proxy(&runtime, &master, seed);
    let load =
        Load::start(&master, LoadOptions { databases: 1, pace: Duration::from_millis(20), ..LoadOptions::default() });
    let began = Instant::now();
    let mut rounds = 0u32;
    while began.elapsed() < budget() {
        // Each state of the machine again and again.
        let force = if rounds.is_multiple_of(3) { " FORCE" } else { "" };
        replica.run(&format!("SLAVEOF 127.0.0.1 {}{force}", ports.port()));
        let round = Instant::now();
        wait_for("some messages", DEADLINE, || round.elapsed() > Duration::from_millis(400));
        rounds += 1;
        look_at([&master, &replica]);
    }
    faults.on.store(false, Ordering::Relaxed);
    let acked = load.stop();
    let (messages, changed) = (faults.messages.load(Ordering::Relaxed), faults.changed.load(Ordering::Relaxed));
    println!("fuzz peers: {rounds} rounds, {changed} of {messages} messages changed");
    assert!(changed > 0, "nothing was changed");

    // What was persisted meanwhile may need the operator's word; what says that it is in sync must be.
    let healed = Instant::now();
    while !replica.replication().is_connected() && healed.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(100));
    }
    if !replica.replication().is_connected() {
        replica.run(&format!("SLAVEOF 127.0.0.1 {} FORCE", ports.port()));
    }
    wait_synced(&master, &replica);
    acked.verify(&master);
    acked.verify(&replica);
    look_at([&master, &replica]);
    runtime.shutdown_background();
}
