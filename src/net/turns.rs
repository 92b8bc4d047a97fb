//! Who executes what connections have read. Hot path.
//!
//! A connection that writes, and has company, does not execute at once: it puts what it has read into the queue of its worker thread and
//! lets the thread go through the other tasks that are ready, which do the same. The first to come back executes all that wait, in one
//! [`Turn`], so that they share a log append and an engine write a slot; the others find their replies made. No lock, and no thread, is held
//! while a connection waits, and nobody waits for a clock: a turn begins as soon as the thread has read from everybody who had
//! sent something.
//!
//! A connection without company pays nothing for this, but for a try now and then whether it has got some.
//!
//! Connections whose turns had to wait for a key that another thread held would go on to do so: threads that write one hot key hand it to and
//! fro, each waiting for the other to be woken. What they read goes into one queue for all threads instead, which one task at a time works off
//! ([`combine`]), while the threads read and write for the connections.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task;

use super::connection::{Input, Pause, execute, park};
use crate::command::Turn;
use crate::command::blocking::Session;
use crate::server::Server;

/// A connection without company looks for some once in so many turns.
const PROBE: usize = 16;

/// What a connection is told whose turn came to nothing.
const NOT_ENDED: &str = "its turn was not ended";

/// The queues of a server, one a worker thread.
pub struct Turns {
    queues: Box<[Queue]>,
    /// That of connections which write what others write.
    shared: Queue,
}

/// What a connection hands over to have it executed.
pub(super) struct Job {
    /// Not there when it comes back parked ([`Pause::Block`]).
    pub session: Option<Box<Session>>,
    pub input: Input,
    pub args: Vec<Bytes>,
    /// Whether the command in the arguments is to be run before what is in the input.
    pub again: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Connections in the last turn.
    company: AtomicUsize,
    /// Turns without company.
    alone: AtomicUsize,
    /// Whether a task works it off. Changed while `waiting` is locked.
    combined: AtomicBool,
}

struct Waiting {
    session: Box<Session>,
    input: Input,
    args: Vec<Bytes>,
    done: oneshot::Sender<(Job, Pause)>,
}

impl Turns {
    /// For so many worker threads.
    pub fn new(threads: usize) -> Turns {
        Turns { queues: (0..threads.max(1)).map(|_| Queue::default()).collect(), shared: Queue::default() }
    }

    fn queue(&self) -> &Queue {
        &self.queues[thread_number() % self.queues.len()]
    }
}

/// A number that no other thread has.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let own = NEXT.fetch_add(1, Relaxed);
            number.set(Some(own));
            own
        })
    })
}

/// Executes the whole requests that a connection has read, until a pause is due. What they wrote is committed, and as durable as it has to
/// be, when this returns.
pub(super) async fn take(server: &Arc<Server>, job: Job) -> io::Result<(Job, Pause)> {
    let Job { session, mut input, mut args, again } = job;
    let mut session = session.ok_or_else(|| io::Error::other("a turn without a session"))?;
    // What is run again may have to wait, which must keep nobody else.
    if !again && session.scratch.is_contended() {
        let (done, result) = oneshot::channel();
        server.turns.shared.hand_over(server, Waiting { session, input, args, done });
        return result.await.map_err(|_| io::Error::other(NOT_ENDED));
    }
    let queue = server.turns.queue();
    if again || !session.scratch.writes() || !queue.expects_company() {
        let mut turn = Turn::begin(server);
        let pause = execute(&mut turn, &mut session, &mut input, &mut args, again);
        session.scratch.took_turn(turn.has_waited());
        turn.end(&mut session);
        let (session, pause) = park(server, session, pause);
        return Ok((Job { session, input, args, again: false }, pause));
    }
    let client = session.client.id();
    let (done, mut result) = oneshot::channel();
    queue.waiting.lock().push_back(Waiting { session, input, args, done });
    task::yield_now().await;
    loop {
        match result.try_recv() {
            Ok(done) => return Ok(done),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Closed) => return Err(io::Error::other(NOT_ENDED)),
        }
        if !queue.holds(client) {
            // Somebody else has it in hand.
            return result.await.map_err(io::Error::other);
        }
        queue.serve(server, Turn::begin(server), || ());
    }
}

/// Works off the shared queue until it is empty.
async fn combine(combiner: Combiner) {
    let server = &combiner.server;
    let queue = &server.turns.shared;
    while !combiner.ended.get() {
        // The threads read from everybody who has sent something.
        task::yield_now().await;
        // Those that are served now may have to wait for keys; who comes next in the queue must not.
        queue.serve(server, Turn::begin_shared(server), || combiner.end());
        if !combiner.ended.get() && queue.waiting.lock().is_empty() {
            combiner.end();
        }
    }
}

/// The one task that works off the shared queue. However it ends, nobody waits for it in vain.
struct Combiner {
    server: Arc<Server>,
    /// Whether it leaves the queue to others.
    ended: Cell<bool>,
}

impl Combiner {
    fn spawn(server: &Arc<Server>) {
        task::spawn(combine(Combiner { server: server.clone(), ended: Cell::new(false) }));
    }

    /// Leaves what waits to another one. If there is nothing, the next that comes has one made.
    fn end(&self) {
        let queue = &self.server.turns.shared;
        let waiting = queue.waiting.lock();
        self.ended.set(true);
        match waiting.is_empty() {
            true => queue.combined.store(false, Relaxed),
            false => Combiner::spawn(&self.server),
        }
    }
}

impl Drop for Combiner {
    fn drop(&mut self) {
        if !self.ended.get() {
            let queue = &self.server.turns.shared;
            let mut waiting = queue.waiting.lock();
            queue.combined.store(false, Relaxed);
            waiting.clear();
        }
    }
}

impl Queue {
    fn expects_company(&self) -> bool {
        self.company.load(Relaxed) > 1
            || !self.waiting.lock().is_empty()
            || self.alone.fetch_add(1, Relaxed) % PROBE == PROBE - 1
    }

    /// Whether what this client has handed over still waits. It is among the first, unless somebody has it.
    fn holds(&self, client: u64) -> bool {
        self.waiting.lock().iter().any(|waiting| waiting.session.client.id() == client)
    }

    /// Adds to what [`combine`] works off.
    fn hand_over(&self, server: &Arc<Server>, job: Waiting) {
        let mut waiting = self.waiting.lock();
        waiting.push_back(job);
        if !self.combined.swap(true, Relaxed) {
            drop(waiting);
            Combiner::spawn(server);
        }
    }

    /// Takes a turn with those that wait, as many as it has room for. `first` as in [`Turn::finish`].
    fn serve(&self, server: &Arc<Server>, mut turn: Turn<'_>, first: impl FnOnce()) {
        let mut served = Vec::new();
        while turn.has_room()
            && let Some(Waiting { mut session, mut input, mut args, done }) = self.next()
        {
            let pause = execute(&mut turn, &mut session, &mut input, &mut args, false);
            turn.join(session);
            // Who waits must be parked before anybody can pass it over.
            let ends = matches!(pause, Pause::Block(..) | Pause::Later);
            served.push((input, args, pause, done));
            if ends {
                break;
            }
        }
        if !served.is_empty() {
            self.company.store(served.len(), Relaxed);
        }
        let waited = turn.has_waited();
        for (mut session, (input, args, pause, done)) in turn.finish(first).into_iter().zip(served) {
            session.scratch.took_turn(waited);
            let (session, pause) = park(server, session, pause);
            // A connection that was dropped meanwhile has no use for it.
            let _ = done.send((Job { session, input, args, again: false }, pause));
        }
    }

    fn next(&self) -> Option<Waiting> {
        self.waiting.lock().pop_front()
    }
}
