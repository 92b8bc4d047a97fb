//! One connection: read, execute every whole request in the buffer, alone or in a turn with others ([`super::turns`]), write the replies in
//! one go. Hot path.
//!
//! Memory is bounded: replies beyond [`MAX_REPLIES`] are written before the next command runs. While the client does not read, what it sends is
//! taken in up to `client-query-buffer-limit` and not executed: a client may send a pipeline of any length up to there before it reads
//! the first reply. Beyond that it is not read from either.
//!
//! Others are served meanwhile: after [`SLICE`] of executing, a connection writes its replies and lets other tasks run. It holds no lock, no
//! thread and no view of the data while it writes.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task, time,
};

use super::{
    Client, ClientInfo, Closing, Overrun, Reply,
    resp::RequestParser,
    turns::{self, Job},
};
use crate::{
    command::{
        Outcome, Pipeline, PoolCall, Scratch, Turn,
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
/// How many times as long as what has come of a long bulk string the buffer becomes.
const GROWTH: usize = 8;
/// Bytes of a long bulk string from which on it gets all its room: what is not filled yet takes no memory, moving it would.
const WHOLE_FROM: usize = 8 << 20;
/// A buffer beyond this size that grew for what came ahead is given back once that is executed, in bytes.
const KEPT_INPUT: usize = 2 * MAX_READ;
/// Bytes of replies after which they are written before more commands run.
const MAX_REPLIES: usize = 1 << 20;
/// Bytes of reply buffer that a connection keeps.
const KEPT_REPLY: usize = 64 << 10;
/// Time after which a connection that has more to execute lets others run.
const SLICE: Duration = Duration::from_millis(5);

/// Why the execution of the buffer stopped.
pub(super) enum Pause {
    /// The buffer holds no whole request.
    Starved,
    /// The replies have to be written first, or others are to be served.
    Full,
    /// This command runs on the blocking pool.
    Pool(PoolCall),
    /// This command waits, and its session is parked. With the replies before its own.
    Block(Wait, Reply),
    /// The command in the arguments is held back by CLIENT PAUSE.
    Held,
    /// The command in the arguments is to be run in a turn of its own.
    Later,
    /// The connection ends.
    Close,
    /// The connection ends, and its replies are not written.
    Abort,
}

/// Strikes the client off the registry, however its connection ends.
struct Registered {
    server: Arc<Server>,
    info: Arc<ClientInfo>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let stats = &self.server.stats;
        match self.info.overran() {
            Some(Overrun::Output) => stats.output_limit_disconnections.add(1),
            Some(Overrun::Query) => stats.query_limit_disconnections.add(1),
            Some(Overrun::Memory) => stats.evicted_clients.add(1),
            None => {}
        }
        self.server.clients.remove(self.info.id);
    }
}

/// Serves a registered client until it leaves, is killed, or the server stops.
pub(super) async fn serve(server: Arc<Server>, mut stream: TcpStream, info: Arc<ClientInfo>) {
    let registered = Registered { server: server.clone(), info: info.clone() };
    let ended = run(server, &mut stream, info).await;
    if let Err(error) = &ended {
        tracing::debug!(client = %registered.info.addr, %error, "connection lost");
    }
    // Whoever sees the connection end finds it gone and counted.
    drop(registered);
    if ended.is_ok() {
        // It may be lost already.
        let _ = stream.shutdown().await;
    }
}

async fn run(server: Arc<Server>, stream: &mut TcpStream, info: Arc<ClientInfo>) -> io::Result<()> {
    let authenticated = server.config.requirepass().is_empty();
    let mut session = Some(Box::new(Session {
        client: Client::new(info.clone(), authenticated),
        reply: Reply::new(2),
        scratch: Scratch::default(),
        undurable: Undurable::default(),
    }));
    let mut input = Input::default();
    let mut args: Vec<Bytes> = Vec::new();
    let mut turn = Instant::now();
    loop {
        args.clear();
        if !input.fill(&server, stream, &info).await? {
            return Ok(());
        }
        let mut again = false;
        loop {
            info.set_busy(true);
            let (job, mut pause) = turns::take(&server, Job { session, input, args, again }).await?;
            Job { session, input, args, .. } = job;
            info.set_busy(false);
            if let Pause::Pool(call) = pause {
                let mut running = session.take().ok_or_else(no_session)?;
                flush(&server, stream, &info, &mut input, &mut running.reply).await?;
                info.set_busy(true);
                let server_for_pool = server.clone();
                (session, args, pause) = task::spawn_blocking(move || {
                    let pause = run_alone(&server_for_pool, &mut running, call, &args);
                    let (session, pause) = park(&server_for_pool, running, pause);
                    (session, args, pause)
                })
                .await
                .map_err(io::Error::other)?;
                info.set_busy(false);
            }
            if let Pause::Block(wait, before) = &mut pause {
                session = wait_for(&server, stream, &info, &mut input, wait, before).await?;
                if session.is_none() {
                    return Ok(());
                }
            }
            if matches!(pause, Pause::Abort) || info.overran().is_some() {
                return Ok(());
            }
            again = matches!(pause, Pause::Held | Pause::Later);
            // What they refer to is a part of the input buffer, which the next request may need to grow.
            if !again {
                args.clear();
            }
            let present = session.as_mut().ok_or_else(no_session)?;
            flush(&server, stream, &info, &mut input, &mut present.reply).await?;
            if matches!(pause, Pause::Held) && !hold(&server, stream, &info, &mut input).await? {
                return Ok(());
            }
            if matches!(pause, Pause::Close) || present.client.is_closing() || info.closing() == Closing::Kill {
                return Ok(());
            }
            if turn.elapsed() >= SLICE {
                task::yield_now().await;
                turn = Instant::now();
            }
            if matches!(pause, Pause::Starved) && !input.fresh {
                break;
            }
        }
    }
}

/// A session that is elsewhere: only while its command waits.
fn no_session() -> io::Error {
    io::Error::other("the session is elsewhere")
}

/// Parks the session if its command waits, at once: whoever changes the keys it waits for is to find it.
pub(super) fn park(server: &Server, mut session: Box<Session>, pause: Pause) -> (Option<Box<Session>>, Pause) {
    let Pause::Block(wait, _) = pause else { return (Some(session), pause) };
    // Before its replies are written: who waits behind it must not have to wait for a client that reads slowly.
    let empty = Reply::new(session.reply.proto());
    let before = std::mem::replace(&mut session.reply, empty);
    server.events.blocked.park(server, &wait, session);
    (None, Pause::Block(wait, before))
}

/// Waits until a command that is parked is served, its time has run out, or somebody ends its wait; its reply is in the session. `None` when
/// the connection is to end. What the client sends meanwhile is read, so that its leaving is noticed, and not executed.
async fn wait_for(
    server: &Server,
    stream: &mut TcpStream,
    info: &ClientInfo,
    input: &mut Input,
    wait: &Wait,
    before: &mut Reply,
) -> io::Result<Option<Box<Session>>> {
    let blocked = &server.events.blocked;
    flush(server, stream, info, input, before).await?;
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
                write_outbox(server, stream, info, input).await?;
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
                write_outbox(server, stream, info, input).await?;
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

/// Executes the whole requests that have been read until a pause is due. What they wrote is committed with the turn.
pub(super) fn execute(
    turn: &mut Turn<'_>,
    session: &mut Session,
    input: &mut Input,
    args: &mut Vec<Bytes>,
    again: bool,
) -> Pause {
    let mut again = again;
    let mut pipeline = Pipeline::begin(turn, session);
    input.fresh = false;
    let pause = loop {
        if pipeline.reply_len() >= MAX_REPLIES || pipeline.age() >= SLICE {
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
                // Whoever ends the turn puts the replies before it here.
                Outcome::Block(wait) => break Pause::Block(wait, Reply::new(2)),
                Outcome::Held => break Pause::Held,
                Outcome::Later => break Pause::Later,
                Outcome::Close => break Pause::Close,
                Outcome::Abort => break Pause::Abort,
            },
            Err(error) => {
                pipeline.protocol_error(&error);
                break Pause::Close;
            }
        }
    };
    pipeline.leave(args);
    pause
}

/// Executes one command that may take long, on a thread of the blocking pool.
fn run_alone(server: &Server, session: &mut Session, call: PoolCall, args: &[Bytes]) -> Pause {
    let mut turn = Turn::begin(server);
    let mut pipeline = Pipeline::begin(&mut turn, session);
    let outcome = pipeline.run_alone(call, args);
    pipeline.leave(args);
    turn.end(session);
    match outcome {
        Outcome::Block(wait) => Pause::Block(wait, Reply::new(2)),
        Outcome::Close => Pause::Close,
        Outcome::Abort => Pause::Abort,
        // The pool is where a command is put off to, so it cannot be put off again; it was not held back before.
        Outcome::Next | Outcome::Pool(_) | Outcome::Held | Outcome::Later => Pause::Full,
    }
}

/// What has been read and not been executed.
pub(super) struct Input {
    buf: BytesMut,
    parser: RequestParser,
    /// Bytes to read at a time; grows while the client fills them.
    read_size: usize,
    /// Whether the client sends nothing more.
    ended: bool,
    /// Whether something came that was not looked at.
    fresh: bool,
    /// Whether the allocation grew for a long bulk string, or for what came ahead.
    holds_long: bool,
}

impl Default for Input {
    fn default() -> Self {
        Input {
            buf: BytesMut::new(),
            parser: RequestParser::default(),
            read_size: MIN_READ,
            ended: false,
            fresh: false,
            holds_long: false,
        }
    }
}

impl Input {
    /// Waits for more bytes. False when none will come or the connection is to end.
    async fn fill(&mut self, server: &Server, stream: &mut TcpStream, info: &ClientInfo) -> io::Result<bool> {
        if self.buf.len() > server.config.client_query_buffer_limit() {
            info.overrun(Overrun::Query, self.buf.len());
            return Ok(false);
        }
        if self.ended || info.closing() != Closing::Open {
            return Ok(false);
        }
        self.make_room();
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
                    write_outbox(server, stream, info, self).await?;
                    if self.fresh || self.ended {
                        return Ok(self.fresh);
                    }
                    self.make_room();
                }
            }
        };
        if read == room {
            self.read_size = (self.read_size * 2).min(MAX_READ);
        }
        Ok(self.took(server, info, read))
    }

    /// Whether more may be taken in although what is here is not executed.
    fn admits_more(&self, server: &Server) -> bool {
        !self.ended && self.buf.len() < server.config.client_query_buffer_limit()
    }

    /// Takes in what is there, without waiting.
    fn read_ahead(&mut self, server: &Server, stream: &TcpStream, info: &ClientInfo) -> io::Result<()> {
        self.make_room();
        match stream.try_read_buf(&mut self.buf) {
            Ok(read) => drop(self.took(server, info, read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts what was read. False when that is the end of what the client sends.
    fn took(&mut self, server: &Server, info: &ClientInfo, read: usize) -> bool {
        if read == 0 {
            self.ended = true;
            return false;
        }
        self.fresh = true;
        info.read(read, self.buf.len(), self.buf.capacity() - self.buf.len());
        server.stats.read(read);
        true
    }

    fn make_room(&mut self) {
        let wanted = self.parser.wanted(self.buf.len());
        if wanted > self.read_size {
            // Grow with what really comes, not with what a header promises. Not by `reserve`, which would double the last step too: that is
            // to end where the bulk string does.
            let have = self.buf.len().max(self.read_size);
            let more = if have < WHOLE_FROM { wanted.min((GROWTH - 1) * have) } else { wanted };
            if self.buf.capacity() - self.buf.len() < more.min(MAX_READ) {
                let mut longer = BytesMut::with_capacity(self.buf.len() + more);
                longer.extend_from_slice(&self.buf);
                self.buf = longer;
                self.holds_long = true;
            }
            return;
        }
        if self.holds_long && self.buf.len() <= self.read_size {
            // Give the memory of what was long back instead of reusing it for what is short.
            self.buf = BytesMut::from(&self.buf[..]);
            self.holds_long = false;
        }
        self.holds_long |= self.buf.len() > KEPT_INPUT;
        if self.buf.capacity() - self.buf.len() < self.read_size / 2 {
            self.buf.reserve(self.read_size);
        }
    }
}

/// Writes the replies, and what others have sent to the client; waits for a client that reads slowly, unless it is killed meanwhile.
async fn flush(
    server: &Server,
    stream: &TcpStream,
    info: &ClientInfo,
    input: &mut Input,
    reply: &mut Reply,
) -> io::Result<()> {
    if !reply.is_empty() {
        write_all(server, stream, info, input, reply.as_slice(), reply.capacity()).await?;
        reply.clear(KEPT_REPLY);
        info.replies(0, reply.capacity());
    }
    write_outbox(server, stream, info, input).await
}

/// Writes what others have sent to the client.
async fn write_outbox(server: &Server, stream: &TcpStream, info: &ClientInfo, input: &mut Input) -> io::Result<()> {
    while let Some(sent) = info.take_outbox_to_write() {
        // They count as unsent, not as replies.
        let written = write_all(server, stream, info, input, &sent, 0).await;
        info.outbox_written(sent.len());
        written?;
    }
    Ok(())
}

/// Writes bytes; takes in what the client sends while it does not read. Replies are shown to be waiting, in a buffer of `capacity` bytes.
async fn write_all(
    server: &Server,
    stream: &TcpStream,
    info: &ClientInfo,
    input: &mut Input,
    bytes: &[u8],
    capacity: usize,
) -> io::Result<()> {
    let mut written = 0;
    while let Some(rest @ [_, ..]) = bytes.get(written..) {
        match stream.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                written += bytes;
                info.written(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if capacity > 0 {
                    info.replies(rest.len(), capacity);
                }
                let room = input.admits_more(server);
                tokio::select! {
                    biased;
                    () = info.woken() => {}
                    ready = stream.writable() => ready?,
                    ready = stream.readable(), if room => {
                        ready?;
                        input.read_ahead(server, stream, info)?;
                    }
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
