//! Source, service and receiver together, on a loopback port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use super::proto::rsync_client::RsyncClient;
use super::proto::rsync_server::{Rsync, RsyncServer};
use super::proto::{FileRequest, FileResponse, RsyncRequest, RsyncResponse, StatusCode, Type};
use super::*;
use crate::binlog::Position;
use crate::config::Config;
use crate::engine::EngineOptions;
use crate::keyspace::{Keyspace, KeyspaceOptions, NEVER_WRITTEN, Slot};

const TOKEN: &str = "secret";
const WINDOW: u32 = 8 << 20;

struct OneToken;

impl ReaderCheck for OneToken {
    fn reader_of(&self, token: &str, _: &Slot) -> Result<String, NotAReader> {
        if token == TOKEN { Ok("127.0.0.1:9321".to_string()) } else { Err(NotAReader::UnknownToken) }
    }

    fn is_reader(&self, token: &str, _: &Slot) -> bool {
        token == TOKEN
    }
}

struct Node {
    config: Arc<Config>,
    keyspace: Arc<Keyspace>,
}

impl Node {
    fn new(dir: &Path) -> Node {
        let dir = ("dir".to_string(), dir.to_str().unwrap().to_string());
        let config = Arc::new(Config::load(None, &[dir]).unwrap());
        let keyspace = Arc::new(
            Keyspace::open(KeyspaceOptions {
                db_path: config.db_path(),
                binlog_path: config.binlog_path(),
                databases: 2,
                slots: 1,
                cache: 0,
                engine: EngineOptions { write_buffer_size: 4 << 20, ..EngineOptions::default() },
                binlog_file_size: Box::new(|| 4 << 20),
                sync_always: Box::new(|| false),
                term: 1,
                leading_from: Some(1),
            })
            .unwrap(),
        );
        Node { config, keyspace }
    }

    /// Values that do not compress.
    fn write(&self, keys: std::ops::Range<u32>, value_len: usize) {
        let mut tx = self.keyspace.transaction();
        for key in keys {
            let name = Bytes::from(format!("key-{key}"));
            let value: Vec<u8> = (0..value_len.div_ceil(8)).flat_map(|_| rand::random::<u64>().to_le_bytes()).collect();
            let _ = tx.lock([(0, name.as_ref())].into_iter(), true);
            tx.set(0, &name, value.into(), None, 1).unwrap();
            if tx.size().0 > 1 << 20 {
                tx.commit().unwrap();
            }
        }
        tx.commit().unwrap();
    }

    fn slot(&self) -> &Arc<Slot> {
        &self.keyspace.db(0).slots()[0]
    }

    fn untouched_slot(&self) -> &Arc<Slot> {
        &self.keyspace.db(1).slots()[0]
    }

    fn source(&self) -> Arc<SnapshotSource> {
        Arc::new(SnapshotSource::new(self.config.dump_path().join("sync"), self.config.clone()))
    }
}

async fn serve(node: &Node, source: &Arc<SnapshotSource>) -> Master {
    serve_with(RsyncService::new(node.keyspace.clone(), source.clone(), Arc::new(OneToken)).into_server()).await
}

async fn serve_with<S: Rsync>(service: RsyncServer<S>) -> Master {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let router = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .add_service(service);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(MESSAGE_LEN as u32)
        .connect_lazy();
    Master { channel, token: TOKEN.into(), name: address.to_string() }
}

fn wait_ready(source: &SnapshotSource, slot: &Slot) -> Arc<Snapshot> {
    let began = Instant::now();
    loop {
        match source.get(slot) {
            SnapshotState::Ready(snapshot) => return snapshot,
            SnapshotState::Making if began.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(dir).into_iter().flatten().flatten();
    folders
        .flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten().map(|f| f.path()))
        .collect()
}

fn folders(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, |entries| entries.count())
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn eight_readers_share_a_snapshot_until_the_last_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path());
    node.write(0..1000, 100);
    let leftover = node.config.dump_path().join("sync/db0-0-old");
    std::fs::create_dir_all(&leftover).unwrap();
    let source = node.source();
    assert!(!leftover.exists());
    let (slot, dump) = (node.slot(), node.config.dump_path().join("sync"));
    assert!(matches!(source.get(slot), SnapshotState::None));
    let mut readers: Vec<Reader> = (0..8).map(|_| source.prepare(slot, 0).unwrap()).collect();
    let first = wait_ready(&source, slot);
    assert_eq!(source.made(), 1);
    assert_eq!(folders(&dump), 1);
    assert_eq!(first.info().applied.position, slot.position());
    // Another binlog file is no reason for another snapshot.
    node.write(1000..3000, 4000);
    assert!(slot.position().filenum > first.info().applied.position.filenum);
    assert_eq!(slot.safe_to_purge_below(), 0);
    readers.push(source.prepare(slot, 0).unwrap());
    assert_eq!(wait_ready(&source, slot).uuid(), first.uuid());
    // A position whose file is gone is.
    let log = slot.store().as_ref().unwrap().log_dir().to_path_buf();
    std::fs::remove_file(crate::binlog::file_path(&log, first.info().applied.position.filenum)).unwrap();
    readers.push(source.prepare(slot, 0).unwrap());
    let second = wait_ready(&source, slot);
    assert_ne!(second.uuid(), first.uuid());
    // The first lives as long as somebody holds it.
    assert_eq!(folders(&dump), 2);
    drop(first);
    wait_for("the replaced snapshot goes", || folders(&dump) == 1);
    let last = readers.pop();
    readers.clear();
    assert!(matches!(source.get(slot), SnapshotState::Ready(_)));
    // Too young, then in use, then not.
    source.sweep();
    node.config.set(&[("snapshot-ttl", "1")]).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    source.sweep();
    assert!(matches!(source.get(slot), SnapshotState::Ready(_)));
    drop(second);
    drop(last);
    assert!(matches!(source.get(slot), SnapshotState::None));
    wait_for("a snapshot without readers goes", || folders(&dump) == 0);
    let late_from = slot.position().filenum;
    let late = source.prepare(slot, 0).unwrap();
    drop(wait_ready(&source, slot));
    std::thread::sleep(Duration::from_millis(1100));
    source.sweep();
    assert!(matches!(source.get(slot), SnapshotState::None));
    wait_for("an unused snapshot goes", || folders(&dump) == 0);
    // But the log stays for a reader that may be installing it.
    assert_eq!(slot.safe_to_purge_below(), late_from);
    drop(late);
    wait_for("its pin goes", || slot.safe_to_purge_below() == slot.flushed_filenum());
}

#[test]
fn no_reader_gets_a_snapshot_from_before_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(dir.path());
    let source = node.source();
    let (slot, dump) = (node.slot(), node.config.dump_path().join("sync"));
    // Most of the making comes after the checkpoint.
    node.write(0..8000, 4000);
    let first = source.prepare(slot, 0).unwrap();
    wait_for("a checkpoint", || files(&dump).iter().any(|path| path.ends_with(INFO)));
    node.write(0..10, 10);
    let has = slot.position().index;
    let while_making = source.prepare(slot, has).unwrap();
    let second = wait_ready(&source, slot);
    assert_eq!(second.info().applied.position.index, has);
    drop(first);
    // One that is ready serves whoever has no more than it contains.
    node.write(0..10, 10);
    let _equal = source.prepare(slot, has).unwrap();
    assert_eq!(wait_ready(&source, slot).uuid(), second.uuid());
    let _more = source.prepare(slot, has + 1).unwrap();
    let third = wait_ready(&source, slot);
    assert!(third.info().applied.position.index > has);
    assert!(slot.safe_to_purge_below() <= second.info().applied.position.filenum);
    drop(while_making);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_transfer_is_resumed() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (master, replica) = (Node::new(a.path()), Node::new(b.path()));
    master.write(0..6000, 4000);
    let source = master.source();
    let from = serve(&master, &source).await;
    let _reader = source.prepare(master.slot(), 0).unwrap();
    let receiver = Arc::new(Receiver::new(replica.config.clone()));
    let progress = Arc::new(Progress::default());
    replica.config.set(&[("throttle-bytes-per-second", "20M")]).unwrap();
    let enough = async {
        while progress.now().bytes_done < 4 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        received = receiver.receive(&from, replica.slot(), &progress) => panic!("{received:?}"),
        () = enough => {}
    }
    let at = progress.now();
    assert!(at.bytes_total > 20 << 20 && at.bytes_done < at.bytes_total / 2, "{at:?}");
    // Another process goes on.
    replica.config.set(&[("throttle-bytes-per-second", "0")]).unwrap();
    let receiver = Arc::new(Receiver::new(replica.config.clone()));
    let again = Arc::new(Progress::default());
    // The aborted transfer may write one more message of each stream.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let received = receiver.receive(&from, replica.slot(), &again).await.unwrap();
    assert!(received.bytes_fetched + at.bytes_done <= at.bytes_total + (4 << 20), "{received:?} after {at:?}");
    assert!(received.bytes_fetched < at.bytes_total, "{received:?}");
    let now = again.now();
    assert_eq!((now.files_done, now.bytes_done), (now.files_total, now.bytes_total));
    assert_eq!(received.applied.position, master.slot().position());

    replica.keyspace.install(replica.slot(), received.data.as_deref(), received.applied).unwrap();
    assert_eq!(replica.keyspace.digest().unwrap(), master.keyspace.digest().unwrap());
    assert_eq!(replica.slot().position(), master.slot().position());
    discard(&replica.config, replica.slot()).unwrap();
    assert_eq!(folders(&replica.config.db_sync_path().join("db0")), 0);
    source.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_snapshot_keeps_what_is_the_same() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (master, replica) = (Node::new(a.path()), Node::new(b.path()));
    master.write(0..3000, 4000);
    let source = master.source();
    let from = serve(&master, &source).await;
    let reader = source.prepare(master.slot(), 0).unwrap();
    let receiver = Arc::new(Receiver::new(replica.config.clone()));
    let progress = Arc::new(Progress::default());
    let first = receiver.receive(&from, replica.slot(), &progress).await.unwrap();
    let (data, first_applied, first_fetched) = (first.data.clone().unwrap(), first.applied, first.bytes_fetched);
    // While it is held, no other transfer touches the folder.
    drop(first);
    drop(reader);
    let refused = receiver.receive(&from, replica.slot(), &progress).await;
    assert!(matches!(refused, Err(ReceiveError::Refused { .. })), "{refused:?}");
    master.write(3000..3010, 100);
    let _reader = source.prepare(master.slot(), 0).unwrap();
    // A damaged file is found out and fetched anew.
    let damaged = std::fs::read_dir(&data)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|x| x == "sst"));
    let damaged = damaged.unwrap();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    let second = receiver.receive(&from, replica.slot(), &progress).await.unwrap();
    assert!(second.applied.position.index > first_applied.position.index);
    assert!(second.bytes_fetched < first_fetched, "{second:?}");
    assert!(second.bytes_fetched >= bytes.len() as u64, "{second:?}");
    replica.keyspace.install(replica.slot(), second.data.as_deref(), second.applied).unwrap();
    assert_eq!(replica.keyspace.digest().unwrap(), master.keyspace.digest().unwrap());
    source.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_slot_is_synced_without_data() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (master, replica) = (Node::new(a.path()), Node::new(b.path()));
    let source = master.source();
    let from = serve(&master, &source).await;
    let _reader = source.prepare(master.untouched_slot(), 0).unwrap();
    let receiver = Arc::new(Receiver::new(replica.config.clone()));
    let received = receiver.receive(&from, replica.untouched_slot(), &Arc::default()).await.unwrap();
    assert_eq!((received.data, received.applied), (None, NEVER_WRITTEN));
    assert_eq!(NEVER_WRITTEN.position, Position::START);
    source.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_gives_only_what_is_listed_and_only_with_a_token() {
    let a = tempfile::tempdir().unwrap();
    let master = Node::new(a.path());
    master.write(0..500, 1000);
    let source = master.source();
    let from = serve(&master, &source).await;
    let mut client = RsyncClient::new(from.channel.clone());
    let request = |token: &str, file: Option<(&str, u64, u64)>, uuid: Option<&str>| RsyncRequest {
        r#type: if file.is_some() { Type::KRsyncFile } else { Type::KRsyncMeta }.into(),
        reader_index: 0,
        db_name: "db0".into(),
        slot_id: 0,
        file_req: file.map(|(name, offset, count)| FileRequest { filename: name.into(), count, offset }),
        token: Some(token.into()),
        snapshot_uuid: uuid.map(Into::into),
    };
    let status = client.meta(request("wrong", None, None)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    let reply = client.meta(request(TOKEN, None, None)).await.unwrap().into_inner();
    assert!(reply.code() == StatusCode::KErr && reply.retry == Some(false), "{reply:?}");
    let unknown = RsyncRequest { slot_id: 7, ..request(TOKEN, None, None) };
    assert_eq!(client.meta(unknown).await.unwrap().into_inner().code(), StatusCode::KErr);
    let _reader = source.prepare(master.slot(), 0).unwrap();
    let snapshot = wait_ready(&source, master.slot());
    let reply = client.meta(request(TOKEN, None, None)).await.unwrap().into_inner();
    let listing = Listing::from_reply(reply.snapshot_uuid, &reply.meta_resp.unwrap()).unwrap();
    assert_eq!(&listing, snapshot.listing());
    for name in ["../../db0/0/CURRENT", "/etc/passwd", "LISTING", "", "data"] {
        let mut stream = client.file(request(TOKEN, Some((name, 0, 0)), None)).await.unwrap().into_inner();
        let reply = stream.message().await.unwrap().unwrap();
        assert!(reply.code() == StatusCode::KErr && reply.file_resp.is_none(), "{name}");
    }
    let mut stream = client.file(request(TOKEN, Some(("CURRENT", 0, 0)), Some("old"))).await.unwrap().into_inner();
    let reply = stream.message().await.unwrap().unwrap();
    assert!(reply.code() == StatusCode::KErr && reply.snapshot_uuid == snapshot.uuid(), "{reply:?}");
    // A piece from the middle, and the rest.
    let text = snapshot.info().encode();
    for (count, expected) in [(5, &text[3..8]), (0, &text[3..])] {
        let mut stream = client.file(request(TOKEN, Some(("info", 3, count)), None)).await.unwrap().into_inner();
        let part = stream.message().await.unwrap().unwrap().file_resp.unwrap();
        assert_eq!((&part.data[..], part.eof != 0), (expected.as_bytes(), count == 0));
        assert_eq!(part.checksum, Checksum::of(&part.data).to_string());
        assert!(stream.message().await.unwrap().is_none());
    }
    // A file that was exchanged for a link is not followed.
    let file = listing.file("CURRENT").unwrap();
    let path = snapshot.path_of(file);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let mut stream = client.file(request(TOKEN, Some(("CURRENT", 0, 0)), None)).await.unwrap().into_inner();
    assert!(stream.message().await.is_err());
    source.stop();
}

/// A master that lists one file beside `info` and sends `sent` for every file.
struct Liar {
    name: &'static str,
    contents: &'static [u8],
    sent: &'static [u8],
}

#[tonic::async_trait]
impl Rsync for Liar {
    async fn meta(&self, _: Request<RsyncRequest>) -> Result<Response<RsyncResponse>, Status> {
        let file = |name: &str| proto::FileInfo {
            filename: name.into(),
            size: self.contents.len() as u64,
            checksum: Checksum::of(self.contents).to_string(),
        };
        let meta_resp = Some(proto::MetaResponse { filenames: vec![], files: vec![file("info"), file(self.name)] });
        let code = StatusCode::KOk.into();
        Ok(Response::new(RsyncResponse { code, snapshot_uuid: "lie".into(), meta_resp, ..Default::default() }))
    }

    type FileStream = tokio_stream::Once<Result<RsyncResponse, Status>>;

    async fn file(&self, request: Request<RsyncRequest>) -> Result<Response<Self::FileStream>, Status> {
        let wanted = request.into_inner().file_req.unwrap();
        let part = FileResponse {
            eof: 1,
            count: self.sent.len() as u64,
            offset: wanted.offset,
            data: self.sent.into(),
            checksum: Checksum::of(self.sent).to_string(),
            filename: wanted.filename,
        };
        let code = StatusCode::KOk.into();
        let reply = RsyncResponse { code, snapshot_uuid: "lie".into(), file_resp: Some(part), ..Default::default() };
        Ok(Response::new(tokio_stream::once(Ok(reply))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_master_sends_is_not_believed() {
    let b = tempfile::tempdir().unwrap();
    let replica = Node::new(b.path());
    let receiver = Arc::new(Receiver::new(replica.config.clone()));
    let receive = async |name, contents, sent| {
        let from = serve_with(RsyncServer::new(Liar { name, contents, sent })).await;
        receiver.receive(&from, replica.slot(), &Arc::default()).await.unwrap_err()
    };
    let error = receive("../escaped", b"x", b"x").await;
    assert!(matches!(error, ReceiveError::BadListing { source: BadListing::Name(_), .. }), "{error}");
    // Every message is right in itself, but the file is not the one that was listed.
    let error = receive("CURRENT", b"right", b"wrong").await;
    assert!(error.to_string().contains("wrong checksum"), "{error}");
    // Verified, but no info file.
    let error = receive("CURRENT", b"right", b"right").await;
    assert!(matches!(error, ReceiveError::BadInfo { source: BadInfo::Header, .. }), "{error}");
    assert_eq!(replica.slot().position(), Position::START);
}

#[test]
fn a_save_can_be_restored_by_hand() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::new(a.path());
    node.write(0..2000, 100);
    let bgsave = Bgsave::new(node.config.dump_path());
    bgsave.start(node.keyspace.clone(), Origin::of(&node.config), Duration::ZERO).unwrap();
    wait_for("the save ends", || !bgsave.in_progress());
    let (mut info, changes) = (String::new(), node.keyspace.changes());
    assert!(changes >= 2000);
    bgsave.info(changes, &mut info);
    assert!(info.contains("rdb_changes_since_last_save:0\r\n"), "{info}");
    let path = info.lines().find_map(|l| l.strip_prefix("bgsave_path:")).unwrap_or_else(|| panic!("{info}"));
    let saved = Path::new(path).join("db0/0");
    assert!(!Path::new(path).join("db1").exists());
    let text = std::fs::read_to_string(saved.join("info")).unwrap();
    assert_eq!(Info::parse(&text).unwrap().applied.position, node.slot().position());
    // As docs/snapshots.md says.
    let (db, log) = (b.path().join("db/db0/0"), b.path().join("binlog/db0/0/log-000001"));
    std::fs::create_dir_all(&db).unwrap();
    std::fs::create_dir_all(log).unwrap();
    std::fs::rename(saved.join("data"), db.join("engine-000001")).unwrap();
    std::fs::write(db.join("CURRENT"), "haypile slot 1\nengine : 1\nbinlog : 1\n").unwrap();
    let restored = Node::new(b.path());
    assert_eq!(restored.keyspace.digest().unwrap(), node.keyspace.digest().unwrap());
    restored.write(0..10, 100);
    assert_eq!(restored.slot().fault(), None);
    assert!(restored.slot().position().index > node.slot().position().index);
}
