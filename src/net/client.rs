//! One client: what its connection owns, and what others may see and do of it.

use std::{
    fmt::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::command::{Multi, Table, Watched};
use crate::pubsub::{Monitors, Subscriptions, Tracked};

/// `ClientInfo::command` of a client that has sent nothing yet.
const NO_COMMAND: u32 = u32::MAX;

/// Whether and how a connection is to end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Closing {
    /// It goes on.
    Open,
    /// It ends when the replies of what has been executed are written.
    Finish,
    /// It ends now; unwritten replies are dropped.
    Kill,
}

/// A limit that a client was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overrun {
    /// `client-output-buffer-limit`
    Output = 1,
    /// `client-query-buffer-limit`
    Query,
    /// `maxmemory-clients`
    Memory,
}

impl Overrun {
    const fn setting(self) -> &'static str {
        match self {
            Overrun::Output => "client-output-buffer-limit",
            Overrun::Query => "client-query-buffer-limit",
            Overrun::Memory => "maxmemory-clients",
        }
    }
}

/// What everyone may know of a client. Shared; cheap to update.
pub struct ClientInfo {
    /// Rising, never used twice by one server.
    pub id: u64,
    /// The peer.
    pub addr: SocketAddr,
    /// Our end.
    pub laddr: SocketAddr,
    /// Number of the file descriptor.
    pub fd: i32,
    created: Instant,
    closing: AtomicU8,
    /// The [`Overrun`] it was closed for; 0 = none.
    overrun: AtomicU8,
    wake: Notify,
    active_ms: AtomicU64,
    busy: AtomicBool,
    command: AtomicU32,
    db: AtomicUsize,
    proto: AtomicU8,
    query_len: AtomicUsize,
    query_free: AtomicUsize,
    reply_capacity: AtomicUsize,
    reply_len: AtomicUsize,
    reply_peak: AtomicUsize,
    net_in: AtomicU64,
    net_out: AtomicU64,
    commands: AtomicU64,
    names: Mutex<Names>,
    outbox: Mutex<Outbox>,
    has_outbox: AtomicBool,
    /// Bytes sent to it that are not with the system yet.
    unsent: AtomicUsize,
    /// Milliseconds of its age since which `unsent` has been over the soft limit; 0 = it is not.
    over_soft_since: AtomicU64,
    modes: AtomicU32,
    gone: AtomicBool,
    channels: AtomicUsize,
    patterns: AtomicUsize,
    shard_channels: AtomicUsize,
    queued: AtomicI64,
    watched: AtomicUsize,
    redirect: AtomicI64,
    queued_bytes: AtomicUsize,
    args_bytes: AtomicUsize,
    blocked: AtomicBool,
}

/// What others have sent to a client and its connection has not taken yet.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// A command of the client runs elsewhere than on its connection; what is sent meanwhile follows its reply.
    held: bool,
}

/// A state of a client that others may see: what CLIENT LIST shows as letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Mode {
    /// `O`: MONITOR.
    Monitor = 1,
    /// `x`: in MULTI.
    Multi = 1 << 1,
    /// `d`: a key under WATCH was changed.
    Dirty = 1 << 2,
    /// `t`: CLIENT TRACKING.
    Tracking = 1 << 3,
    /// `R`: the client that invalidations are redirected to is gone.
    BrokenRedirect = 1 << 4,
    /// `B`: CLIENT TRACKING BCAST.
    Broadcast = 1 << 5,
    /// `e`: CLIENT NO-EVICT.
    NoEvict = 1 << 6,
    /// `T`: CLIENT NO-TOUCH.
    NoTouch = 1 << 7,
}

/// Letters of CLIENT LIST, in Redis's order; `P`, `b` and `c` are found out otherwise.
const MODE_LETTERS: [(Mode, char); 8] = [
    (Mode::Monitor, 'O'),
    (Mode::Multi, 'x'),
    (Mode::Tracking, 't'),
    (Mode::BrokenRedirect, 'R'),
    (Mode::Broadcast, 'B'),
    (Mode::Dirty, 'd'),
    (Mode::NoEvict, 'e'),
    (Mode::NoTouch, 'T'),
];

/// The names that a client gave itself.
#[derive(Clone, Default, Debug)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO lib-name.
    pub lib_name: String,
    /// CLIENT SETINFO lib-ver.
    pub lib_ver: String,
}

impl ClientInfo {
    pub(super) fn new(id: u64, addr: SocketAddr, laddr: SocketAddr, fd: i32) -> Self {
        ClientInfo {
            id,
            addr,
            laddr,
            fd,
            created: Instant::now(),
            closing: AtomicU8::new(Closing::Open as u8),
            overrun: AtomicU8::new(0),
            wake: Notify::new(),
            active_ms: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            command: AtomicU32::new(NO_COMMAND),
            db: AtomicUsize::new(0),
            proto: AtomicU8::new(2),
            query_len: AtomicUsize::new(0),
            query_free: AtomicUsize::new(0),
            reply_capacity: AtomicUsize::new(0),
            reply_len: AtomicUsize::new(0),
            reply_peak: AtomicUsize::new(0),
            net_in: AtomicU64::new(0),
            net_out: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            names: Mutex::new(Names::default()),
            outbox: Mutex::default(),
            has_outbox: AtomicBool::new(false),
            unsent: AtomicUsize::new(0),
            over_soft_since: AtomicU64::new(0),
            modes: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            channels: AtomicUsize::new(0),
            patterns: AtomicUsize::new(0),
            shard_channels: AtomicUsize::new(0),
            queued: AtomicI64::new(-1),
            watched: AtomicUsize::new(0),
            redirect: AtomicI64::new(-1),
            queued_bytes: AtomicUsize::new(0),
            args_bytes: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
        }
    }

    /// Time since the client connected.
    pub fn age(&self) -> Duration {
        self.created.elapsed()
    }

    /// Time since something was last received from the client or sent to it.
    pub fn idle(&self) -> Duration {
        self.age().saturating_sub(Duration::from_millis(self.active_ms.load(Relaxed)))
    }

    /// Whether a command of the client runs.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Relaxed);
    }

    /// Whether and how the connection is to end.
    pub fn closing(&self) -> Closing {
        match self.closing.load(Acquire) {
            0 => Closing::Open,
            1 => Closing::Finish,
            _ => Closing::Kill,
        }
    }

    /// Asks the connection to end, from any thread. Does not wait for it.
    pub fn close(&self, how: Closing) {
        self.closing.fetch_max(how as u8, Release);
        self.wake.notify_one();
    }

    /// Closes it at once because `bytes` of it are over a limit, and says so once.
    pub fn overrun(&self, limit: Overrun, bytes: usize) {
        if self.overrun.swap(limit as u8, Relaxed) == 0 {
            let name = self.names().name;
            tracing::warn!(client = %self.addr, id = self.id, %name, bytes, "closed a client over {}", limit.setting());
        }
        self.close(Closing::Kill);
    }

    /// The limit that it was closed for.
    pub fn overran(&self) -> Option<Overrun> {
        [Overrun::Output, Overrun::Query, Overrun::Memory]
            .into_iter()
            .find(|limit| *limit as u8 == self.overrun.load(Relaxed))
    }

    /// Bytes that were sent to it out of band and are not with the system yet.
    pub fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }

    /// Bytes of replies that its connection is writing.
    pub fn waiting_replies(&self) -> usize {
        self.reply_len.load(Relaxed)
    }

    /// Bytes of the buffer that holds what it has sent.
    pub fn query_memory(&self) -> usize {
        self.query_len.load(Relaxed) + self.query_free.load(Relaxed)
    }

    /// Bytes of its replies, and of what was sent to it out of band.
    pub fn output_memory(&self) -> usize {
        self.reply_capacity.load(Relaxed) + self.unsent()
    }

    /// Bytes that it takes, as far as they are known: `tot-mem` in CLIENT LIST.
    pub fn memory(&self) -> usize {
        let parts = [&self.args_bytes, &self.queued_bytes];
        let parts: usize = parts.iter().map(|bytes| bytes.load(Relaxed)).sum();
        self.query_memory() + self.output_memory() + parts + size_of::<Self>()
    }

    /// Resolves when somebody wants something of the connection: its end ([`ClientInfo::closing`]), that it writes what was sent to it
    /// ([`ClientInfo::take_outbox`]).
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Sends encoded values to the client, out of band. Does not wait. Returns the bytes that wait for it now.
    pub fn send(&self, encoded: &[u8]) -> usize {
        let mut outbox = self.outbox.lock();
        outbox.bytes.extend_from_slice(encoded);
        self.has_outbox.store(true, Release);
        let unsent = self.unsent.fetch_add(encoded.len(), Relaxed) + encoded.len();
        let held = outbox.held;
        drop(outbox);
        if !held {
            self.wake.notify_one();
        }
        unsent
    }

    /// Whether something was sent to the client that its connection has not taken.
    pub fn has_outbox(&self) -> bool {
        self.has_outbox.load(Acquire)
    }

    /// Takes what was sent to the client, to put it behind a reply.
    pub fn take_outbox(&self) -> Option<Vec<u8>> {
        let sent = self.take_from_outbox(true)?;
        self.outbox_written(sent.len());
        Some(sent)
    }

    /// Takes what was sent to the client, to write it now; nothing while the outbox is held. [`ClientInfo::outbox_written`] is to
    /// follow.
    pub(super) fn take_outbox_to_write(&self) -> Option<Vec<u8>> {
        self.take_from_outbox(false)
    }

    fn take_from_outbox(&self, even_held: bool) -> Option<Vec<u8>> {
        if !self.has_outbox() {
            return None;
        }
        let mut outbox = self.outbox.lock();
        if outbox.held && !even_held {
            return None;
        }
        self.has_outbox.store(false, Release);
        Some(std::mem::take(&mut outbox.bytes))
    }

    /// So many bytes of what was sent have found their way.
    pub(super) fn outbox_written(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Relaxed);
    }

    /// Keeps what is sent to the client from being written, until told otherwise: while somebody else runs a command of it.
    pub fn hold_outbox(&self, hold: bool) {
        self.outbox.lock().held = hold;
        if !hold && self.has_outbox() {
            self.wake.notify_one();
        }
    }

    /// How long so many unsent bytes have been over a limit of `soft` bytes.
    pub fn over_soft_limit(&self, unsent: usize, soft: usize) -> Duration {
        if soft == 0 || unsent <= soft {
            self.over_soft_since.store(0, Relaxed);
            return Duration::ZERO;
        }
        let now = (self.age().as_millis() as u64).max(1);
        let _ = self.over_soft_since.compare_exchange(0, now, Relaxed, Relaxed);
        Duration::from_millis(now.saturating_sub(self.over_soft_since.load(Relaxed)))
    }

    /// Whether the connection has ended or is about to.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Acquire) || self.closing() != Closing::Open
    }

    pub(super) fn set_gone(&self) {
        self.gone.store(true, Release);
    }

    /// The protocol version that it speaks.
    pub fn proto(&self) -> u8 {
        self.proto.load(Relaxed)
    }

    /// Whether it is in this mode.
    pub fn is(&self, mode: Mode) -> bool {
        self.modes.load(Relaxed) & mode as u32 != 0
    }

    /// Enters or leaves a mode.
    pub fn set(&self, mode: Mode, on: bool) {
        if on {
            self.modes.fetch_or(mode as u32, Relaxed);
        } else {
            self.modes.fetch_and(!(mode as u32), Relaxed);
        }
    }

    /// Shows how many channels, patterns and shard channels it listens to.
    pub fn set_subscriptions(&self, channels: usize, patterns: usize, shard_channels: usize) {
        self.channels.store(channels, Relaxed);
        self.patterns.store(patterns, Relaxed);
        self.shard_channels.store(shard_channels, Relaxed);
    }

    /// Whether it listens to any channel.
    pub fn is_subscriber(&self) -> bool {
        self.channels.load(Relaxed) + self.patterns.load(Relaxed) + self.shard_channels.load(Relaxed) > 0
    }

    /// Shows how many commands MULTI has queued, of how many bytes; `None` outside of MULTI.
    pub fn set_queued(&self, queued: Option<usize>, bytes: usize) {
        self.queued.store(queued.map_or(-1, |queued| queued as i64), Relaxed);
        self.queued_bytes.store(bytes, Relaxed);
        self.set(Mode::Multi, queued.is_some());
    }

    /// Shows how many keys it watches.
    pub fn set_watched(&self, keys: usize) {
        self.watched.store(keys, Relaxed);
    }

    /// Whether it watches keys.
    pub fn watches(&self) -> bool {
        self.watched.load(Relaxed) > 0
    }

    /// Shows where its invalidations go: a client's id, 0 = itself, -1 = it does not track.
    pub fn set_redirect(&self, redirect: i64) {
        self.redirect.store(redirect, Relaxed);
    }

    /// Whether a command of the client waits.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Acquire)
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Release);
    }

    /// The names that the client gave itself.
    pub fn names(&self) -> Names {
        self.names.lock().clone()
    }

    /// Changes the names.
    pub fn set_names(&self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names.lock());
    }

    fn touch(&self) {
        self.active_ms.store(self.created.elapsed().as_millis() as u64, Relaxed);
    }

    pub(super) fn read(&self, bytes: usize, query_len: usize, query_free: usize) {
        self.touch();
        self.net_in.fetch_add(bytes as u64, Relaxed);
        self.query(query_len, query_free);
    }

    pub(super) fn query(&self, len: usize, free: usize) {
        self.query_len.store(len, Relaxed);
        self.query_free.store(free, Relaxed);
    }

    pub(super) fn replies(&self, len: usize, capacity: usize) {
        self.reply_len.store(len, Relaxed);
        self.reply_capacity.store(capacity, Relaxed);
        self.reply_peak.fetch_max(capacity, Relaxed);
        if len == 0 && self.unsent() == 0 {
            self.over_soft_since.store(0, Relaxed);
        }
    }

    pub(super) fn written(&self, bytes: usize) {
        self.touch();
        self.net_out.fetch_add(bytes as u64, Relaxed);
    }

    /// Its line in CLIENT LIST, without the line's end.
    pub fn line(&self, table: &Table) -> String {
        let load = |counter: &AtomicUsize| counter.load(Relaxed);
        let names = self.names();
        let (query, query_free) = (load(&self.query_len), load(&self.query_free));
        let (reply_len, reply_capacity) = (load(&self.reply_len), load(&self.reply_capacity));
        let command = table.get(self.command.load(Relaxed)).map_or("NULL", |command| command.full_name.as_str());
        let (unsent, argv, queued) = (load(&self.unsent), load(&self.args_bytes), load(&self.queued_bytes));
        let total = self.memory();
        // What is held for it because it does not read: a buffer that waits for its next reply does not count.
        let held = unsent + if reply_len > 0 { reply_capacity } else { 0 };
        let mut line = String::with_capacity(384);
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} \
             qbuf={query} qbuf-free={query_free} argv-mem={argv} multi-mem={queued} rbs={reply_capacity} rbp={} obl={reply_len} \
             oll={} omem={held} tot-mem={total} events={} cmd={command} user=default redir={} resp={} watch={} \
             lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
            self.id,
            self.addr,
            self.laddr,
            self.fd,
            names.name,
            self.age().as_secs(),
            self.idle().as_secs(),
            self.letters(),
            load(&self.db),
            load(&self.channels),
            load(&self.patterns),
            load(&self.shard_channels),
            self.queued.load(Relaxed),
            load(&self.reply_peak),
            usize::from(unsent > 0) + usize::from(reply_len > 0),
            if reply_len + unsent > 0 { "rw" } else { "r" },
            self.redirect.load(Relaxed),
            self.proto(),
            load(&self.watched),
            names.lib_name,
            names.lib_ver,
            self.net_in.load(Relaxed),
            self.net_out.load(Relaxed),
            self.commands.load(Relaxed),
        );
        line
    }

    /// Its `flags` in CLIENT LIST.
    fn letters(&self) -> String {
        let mut letters: String =
            MODE_LETTERS.iter().filter(|(mode, _)| self.is(*mode)).map(|(_, letter)| *letter).collect();
        if self.is_subscriber() {
            letters.insert(usize::from(self.is(Mode::Monitor)), 'P');
        }
        if self.is_blocked() {
            letters.push('b');
        }
        match self.closing() {
            Closing::Open => {}
            Closing::Finish => letters.push('c'),
            Closing::Kill => letters.push('A'),
        }
        if letters.is_empty() {
            letters.push('N');
        }
        letters
    }
}

/// Counts of a connection that have not been added to the server's yet: added once a pipeline, so that
/// connections do not fight for the server's counters at every command.
#[derive(Default, Debug)]
pub struct Tally {
    /// Keys found by reads.
    pub hits: u64,
    /// Keys not found by reads.
    pub misses: u64,
    /// Commands executed.
    pub commands: u64,
}

impl Tally {
    /// Counts a read of one key.
    pub fn lookup(&mut self, found: bool) {
        if found { self.hits += 1 } else { self.misses += 1 }
    }
}

/// Which replies a client is sent (CLIENT REPLY).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// Not that of the command that is running, nor the next one's.
    SkipNext,
    /// Not that of the command that is running.
    Skip,
}

/// The last record of a connection in each slot that it has written to.
#[derive(Default, Debug)]
pub struct Written {
    /// Database (on disk) and slot, and the record's index; in order.
    slots: Vec<((usize, usize), u64)>,
}

impl Written {
    /// The connection has written the record with `index`.
    pub fn note(&mut self, slot: (usize, usize), index: u64) {
        match self.slots.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => self.slots[at].1 = self.slots[at].1.max(index),
            Err(at) => self.slots.insert(at, (slot, index)),
        }
    }

    /// Slots, and the index of the last record in each.
    pub fn iter(&self) -> impl Iterator<Item = ((usize, usize), u64)> + Clone {
        self.slots.iter().copied()
    }
}

/// The state of one connection that commands read and change. Owned by the connection.
pub struct Client {
    info: Arc<ClientInfo>,
    db: usize,
    authenticated: bool,
    closing: bool,
    replies: Replies,
    /// Counts not yet added to the server's.
    pub tally: Tally,
    /// The commands queued since MULTI.
    pub multi: Option<Multi>,
    /// The keys under WATCH.
    pub watched: Watched,
    denies_blocking: bool,
    /// Where its writes are: for WAIT.
    pub written: Written,
    /// The channels that it listens to.
    pub subscriptions: Subscriptions,
    /// What it asked for of CLIENT TRACKING.
    pub tracked: Tracked,
    monitors: Option<Arc<Monitors>>,
}

impl Client {
    /// A client just connected; `authenticated` when no password is set.
    pub fn new(info: Arc<ClientInfo>, authenticated: bool) -> Self {
        Client {
            info,
            db: 0,
            authenticated,
            closing: false,
            replies: Replies::On,
            tally: Tally::default(),
            multi: None,
            watched: Watched::default(),
            denies_blocking: false,
            written: Written::default(),
            subscriptions: Subscriptions::default(),
            tracked: Tracked::default(),
            monitors: None,
        }
    }

    /// What others see of it.
    pub fn info(&self) -> &Arc<ClientInfo> {
        &self.info
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.info.id
    }

    /// Index of its database.
    pub fn db(&self) -> usize {
        self.db
    }

    /// Changes its database.
    pub fn select(&mut self, db: usize) {
        self.db = db;
        self.info.db.store(db, Relaxed);
    }

    /// Whether it has given the password, or came when none was set.
    pub fn authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether its commands may not wait: those that scripts and functions run do not.
    pub fn denies_blocking(&self) -> bool {
        self.denies_blocking
    }

    /// Lets its commands answer at once where they would wait.
    pub fn set_denies_blocking(&mut self, denies: bool) {
        self.denies_blocking = denies;
    }

    /// Records whether it may do anything but authenticate.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Shows this protocol version in CLIENT LIST.
    pub fn set_proto(&mut self, proto: u8) {
        self.info.proto.store(proto, Relaxed);
    }

    /// Sends it all commands from now on, or none any more.
    pub fn monitor(&mut self, monitors: Option<&Arc<Monitors>>) {
        if let Some(old) = self.monitors.take() {
            old.remove(&self.info);
        }
        if let Some(new) = monitors {
            new.add(&self.info);
            self.monitors = Some(new.clone());
        }
    }

    /// Whether it is in MONITOR.
    pub fn monitors(&self) -> bool {
        self.monitors.is_some()
    }

    /// Shows others how many commands and keys it has in MULTI and WATCH.
    pub fn show_transaction(&self) {
        let multi = self.multi.as_ref();
        self.info.set_queued(multi.map(|multi| multi.queue().len()), multi.map_or(0, Multi::bytes));
        self.info.set_watched(self.watched.keys().count());
    }

    /// Exempts it from eviction.
    pub fn set_no_evict(&mut self, on: bool) {
        self.info.set(Mode::NoEvict, on);
    }

    /// Chooses which replies it is sent.
    pub fn set_replies(&mut self, replies: Replies) {
        self.replies = replies;
    }

    /// Which replies it is sent.
    pub fn replies(&self) -> Replies {
        self.replies
    }

    /// Whether it is sent the reply of the command that just ended. To be asked once a command.
    pub fn wants_reply(&mut self) -> bool {
        let wants = self.replies == Replies::On;
        self.replies = match self.replies {
            Replies::SkipNext => Replies::Skip,
            Replies::Skip => Replies::On,
            unchanged => unchanged,
        };
        wants
    }

    /// Ends the connection after this command: what is encoded is written, what the client sent after it is dropped.
    pub fn close(&mut self) {
        self.closing = true;
        self.info.set_gone();
    }

    /// Whether the connection ends after this command.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Notes the command that runs now.
    pub fn begin_command(&mut self, index: u32) {
        self.info.command.store(index, Relaxed);
        self.tally.commands += 1;
    }

    /// Takes the counts that the server has not got yet.
    pub fn take_tally(&mut self) -> Tally {
        let tally = std::mem::take(&mut self.tally);
        self.info.commands.fetch_add(tally.commands, Relaxed);
        tally
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.monitor(None);
    }
}
