//! One connection: read, execute every whole request in the buffer, write the replies in one go. Hot path.
//!
//! Memory is bounded: replies beyond [`MAX_REPLIES`] are written before the next command runs, and nothing is read while the
//! client does not read.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task, time,
};

use super::{Client, ClientInfo, Closing, Reply, resp::RequestParser};
use crate::{
    command::{
        Outcome, Pipeline, PoolCall, Scratch,
        blocking::{End, Session, Wait},
    },
    keyspace::Undurable,
    pubsub::PauseKind,
    server::Server,
};

/// Bytes that a new connection reads at a time.
const MIN_READ: usize = 4 << 10;
/// Bytes that a busy connection reads at a time.
const MAX_READ: usize = 64 << 10;
/// Step by which the buffer grows for a long bulk string whose rest has not come yet.
const LONG_BULK_STEP: usize = 1 << 20;
/// Bytes of replies after which they are written before more commands run.
const MAX_REPLIES: usize = 1 << 20;
/// Bytes of reply buffer that a connection keeps.
const KEPT_REPLY: usize = 64 << 10;

/// Why the execution of the buffer stopped.
enum Pause {
    /// The buffer holds no whole request.
    Starved,
    /// The replies have to be written first.
    Full,
    /// This command runs on the blocking pool.
    Pool(PoolCall),
    /// This command waits.
    Block(Wait),
    /// The command in the arguments is held back by CLIENT PAUSE.
    Held,
    /// The connection ends.
    Close,
}

/// Strikes the client off the registry, however its connection ends.
struct Registered {
    server: Arc<Server>,
    info: Arc<ClientInfo>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.server.clients.remove(self.info.id);
    }
}

/// Serves a registered client until it leaves, is killed, or the server stops.
pub(super) async fn serve(server: Arc<Server>, stream: TcpStream, info: Arc<ClientInfo>) {
    let registered = Registered { server: server.clone(), info: info.clone() };
    if let Err(error) = run(server, stream, info).await {
        tracing::debug!(client = %registered.info.addr, %error, "connection lost");
    }
}

async fn run(server: Arc<Server>, mut stream: TcpStream, info: Arc<ClientInfo>) -> io::Result<()> {
    let authenticated = server.config.requirepass().is_empty();
    let mut session = Box::new(Session {
        client: Client::new(info.clone(), authenticated),
        reply: Reply::new(2),
        scratch: Scratch::default(),
        undurable: Undurable::default(),
    });
    let mut input = Input::default();
    let mut args: Vec<Bytes> = Vec::new();
    loop {
        args.clear();
        if !input.fill(&server, &mut stream, &info).await? {
            return stream.shutdown().await;
        }
        let mut again = false;
        loop {
            info.set_busy(true);
            let mut pause = execute(&server, &mut session, &mut input, &mut args, again);
            again = false;
            info.set_busy(false);
            if let Pause::Pool(call) = pause {
                flush(&server, &stream, &info, &mut session.reply).await?;
                info.set_busy(true);
                let server_for_pool = server.clone();
                (session, args, pause) = task::spawn_blocking(move || {
                    let pause = run_alone(&server_for_pool, &mut session, call, &args);
                    (session, args, pause)
                })
                .await
                .map_err(io::Error::other)?;
                info.set_busy(false);
            }
            if let Pause::Block(wait) = &pause {
                match wait_for(&server, &mut stream, &info, &mut input, session, wait).await? {
                    Some(served) => session = served,
                    None => return stream.shutdown().await,
                }
            }
            flush(&server, &stream, &info, &mut session.reply).await?;
            if matches!(pause, Pause::Held) {
                if !hold(&server, &mut stream, &info, &mut input).await? {
                    return stream.shutdown().await;
                }
                again = true;
            }
            if matches!(pause, Pause::Close) || session.client.is_closing() || info.closing() == Closing::Kill {
                return stream.shutdown().await;
            }
            if matches!(pause, Pause::Starved) {
                break;
            }
        }
    }
}

/// Waits until a command is served, its time has run out, or somebody ends its wait; its reply is in the session. `None` when the connection is
/// to end. What the client sends meanwhile is read, so that its leaving is noticed, and not executed.
async fn wait_for(
    server: &Server,
    stream: &mut TcpStream,
    info: &ClientInfo,
    input: &mut Input,
    mut session: Box<Session>,
    wait: &Wait,
) -> io::Result<Option<Box<Session>>> {
    let blocked = &server.events.blocked;
    let empty = Reply::new(session.reply.proto());
    let mut before = std::mem::replace(&mut session.reply, empty);
    // Before its replies are written: who waits behind it must not have to wait for a client that reads slowly.
    blocked.park(server, wait, session);
    flush(server, stream, info, &mut before).await?;
    let timeout = async {
        match wait.deadline {
            Some(deadline) => time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    let mut timed_out = false;
    loop {
        let room = input.buf.len() < server.config.client_query_buffer_limit();
        if room {
            input.make_room();
        }
        tokio::select! {
            biased;
            (mut session, end) = wait.ended() => {
                if end == End::Gone {
                    return Ok(None);
                }
                wait.answer(server, &mut session, end);
                return Ok(Some(session));
            }
            () = &mut timeout, if !timed_out => {
                timed_out = true;
                blocked.end(wait, End::Timeout);
            }
            () = time::sleep(wait.poll.unwrap_or_default()), if wait.poll.is_some() => blocked.poll(server, wait),
            () = info.woken() => {
                if info.closing() != Closing::Open {
                    return Ok(None);
                }
                write_outbox(server, stream, info).await?;
            }
            read = stream.read_buf(&mut input.buf), if room => {
                let read = read?;
                if read == 0 {
                    return Ok(None);
                }
                info.read(read, input.buf.len(), input.buf.capacity() - input.buf.len());
                server.stats.read(read);
            }
        }
    }
}

/// Waits until CLIENT PAUSE is over. False when the connection is to end.
async fn hold(server: &Server, stream: &mut TcpStream, info: &ClientInfo, input: &mut Input) -> io::Result<bool> {
    let _held = server.pause.hold();
    while server.pause.kind() != PauseKind::None {
        let room = input.buf.len() < server.config.client_query_buffer_limit();
        if room {
            input.make_room();
        }
        tokio::select! {
            biased;
            () = server.pause.ended() => {}
            () = info.woken() => {
                if info.closing() != Closing::Open {
                    return Ok(false);
                }
                write_outbox(server, stream, info).await?;
            }
            read = stream.read_buf(&mut input.buf), if room => {
                let read = read?;
                info.read(read, input.buf.len(), input.buf.capacity() - input.buf.len());
                server.stats.read(read);
                if read == 0 {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Executes the whole requests in the buffer, before them the one in `args` if it is to be run `again`, until a pause is due.
/// What they wrote is committed when this returns.
fn execute(server: &Server, session: &mut Session, input: &mut Input, args: &mut Vec<Bytes>, mut again: bool) -> Pause {
    let mut pipeline = Pipeline::begin(server, &mut session.client, &mut session.reply, &mut session.scratch);
    let pause = loop {
        if pipeline.reply_len() >= MAX_REPLIES {
            break Pause::Full;
        }
        let next = if std::mem::take(&mut again) {
            Ok(true)
        } else {
            input.parser.next(&mut input.buf, args, &pipeline.limits())
        };
        match next {
            Ok(false) => break Pause::Starved,
            Ok(true) => match pipeline.run(args) {
                Outcome::Next => {}
                Outcome::Pool(call) => break Pause::Pool(call),
                Outcome::Block(wait) => break Pause::Block(wait),
                Outcome::Held => break Pause::Held,
                Outcome::Close => break Pause::Close,
            },
            Err(error) => {
                pipeline.protocol_error(&error);
                break Pause::Close;
            }
        }
    };
    pipeline.finish(args);
    pause
}

/// Executes one command that may take long, on a thread of the blocking pool.
fn run_alone(server: &Server, session: &mut Session, call: PoolCall, args: &[Bytes]) -> Pause {
    let mut pipeline = Pipeline::begin(server, &mut session.client, &mut session.reply, &mut session.scratch);
    let outcome = pipeline.run_alone(call, args);
    pipeline.finish(args);
    match outcome {
        Outcome::Block(wait) => Pause::Block(wait),
        Outcome::Close => Pause::Close,
        // The pool is where a command is put off to, so it cannot be put off again; it was not held back before.
        Outcome::Next | Outcome::Pool(_) | Outcome::Held => Pause::Full,
    }
}

/// What has been read and not been executed.
struct Input {
    buf: BytesMut,
    parser: RequestParser,
    /// Bytes to read at a time; grows while the client fills them.
    read_size: usize,
    /// Whether the allocation grew for a long bulk string.
    holds_long: bool,
}

impl Default for Input {
    fn default() -> Self {
        Input { buf: BytesMut::new(), parser: RequestParser::default(), read_size: MIN_READ, holds_long: false }
    }
}

impl Input {
    /// Waits for more bytes. False when none will come or the connection is to end.
    async fn fill(&mut self, server: &Server, stream: &mut TcpStream, info: &ClientInfo) -> io::Result<bool> {
        if self.buf.len() > server.config.client_query_buffer_limit() {
            tracing::warn!(client = %info.addr, bytes = self.buf.len(), "closed a client over client-query-buffer-limit");
            return Ok(false);
        }
        self.make_room();
        if info.closing() != Closing::Open {
            return Ok(false);
        }
        let room = self.buf.capacity() - self.buf.len();
        info.query(self.buf.len(), room);
        let read = loop {
            tokio::select! {
                biased;
                read = stream.read_buf(&mut self.buf) => break read?,
                () = info.woken() => {
                    if info.closing() != Closing::Open {
                        return Ok(false);
                    }
                    write_outbox(server, stream, info).await?;
                }
            }
        };
        if read == 0 {
            return Ok(false);
        }
        if read == room {
            self.read_size = (self.read_size * 2).min(MAX_READ);
        }
        info.read(read, self.buf.len(), self.buf.capacity() - self.buf.len());
        server.stats.read(read);
        Ok(true)
    }

    fn make_room(&mut self) {
        let wanted = self.parser.wanted(self.buf.len());
        if wanted > self.read_size {
            // Grow with what really comes, not with what a header promises.
            self.buf.reserve(wanted.min(self.buf.len().max(LONG_BULK_STEP)));
            self.holds_long = true;
            return;
        }
        if self.holds_long && self.buf.len() <= self.read_size {
            // Give a long request's memory back instead of reusing it for short ones.
            self.buf = BytesMut::from(&self.buf[..]);
            self.holds_long = false;
        }
        if self.buf.capacity() - self.buf.len() < self.read_size / 2 {
            self.buf.reserve(self.read_size);
        }
    }
}

/// Writes the replies, and what others have sent to the client; waits for a client that reads slowly, unless it is killed meanwhile.
async fn flush(server: &Server, stream: &TcpStream, info: &ClientInfo, reply: &mut Reply) -> io::Result<()> {
    if !reply.is_empty() {
        write_all(server, stream, info, reply.as_slice()).await?;
        reply.clear(KEPT_REPLY);
        info.replies(0, reply.capacity());
    }
    write_outbox(server, stream, info).await
}

/// Writes what others have sent to the client.
async fn write_outbox(server: &Server, stream: &TcpStream, info: &ClientInfo) -> io::Result<()> {
    while let Some(sent) = info.take_outbox_to_write() {
        write_all(server, stream, info, &sent).await?;
        info.outbox_written(sent.len());
    }
    Ok(())
}

async fn write_all(server: &Server, stream: &TcpStream, info: &ClientInfo, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while let Some(rest @ [_, ..]) = bytes.get(written..) {
        match stream.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                written += bytes;
                info.written(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                info.replies(rest.len(), rest.len());
                tokio::select! {
                    biased;
                    ready = stream.writable() => ready?,
                    () = info.woken() => {}
                }
                if info.closing() == Closing::Kill {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    server.stats.written(written);
    Ok(())
}
