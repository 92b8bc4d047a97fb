//! Writers whose every write has a place in an order, so that what a node holds afterwards tells how far each slot's history goes, and
//! whether anything is missing in between or half there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use haypile::keyspace::hash_slot;

use crate::common::{Conn, FaultyDisk, Node, NodeOptions, Reply};

/// Slots of a database.
pub const SLOTS: usize = 3;
/// Keys of a slot that the counters go round.
const KEYS: u64 = 8;
/// Counters of one pipeline.
const PIPELINE: u64 = 24;
/// A FLUSHDB of the second database after so many MSETs there.
const FLUSH_EVERY: u64 = 20;

/// Small logs and buffers: files roll, engines flush and logs are purged all the time.
pub fn options(sync: &str) -> NodeOptions {
    NodeOptions::new()
        .set("databases", 2)
        .set("slot-num", SLOTS)
        .set("sync", sync)
        .set("write-buffer-size", "256K")
        .set("max-write-buffer-size", "1M")
        .set("binlog-file-size", "64K")
        .set("expire-logs-nums", 2)
}

/// One hash tag for each slot.
fn tags() -> Vec<String> {
    let of = |slot: usize| (0..).map(|n| format!("t{n}")).find(|tag| slot_of(tag) == slot);
    (0..SLOTS).filter_map(of).collect()
}

/// The slot of a key in its database.
pub fn slot_of(key: &str) -> usize {
    hash_slot(key.as_bytes()) * SLOTS / 16384
}

/// What one writer has done: its writes are numbered from 1.
#[derive(Clone, Default)]
struct Stream {
    /// Trace length when it was known that the writes up to a number had happened.
    acked: Vec<(u64, u64)>,
    /// The last that may have happened.
    sent: u64,
}

impl Stream {
    /// The last write that was acknowledged before a moment of the trace.
    fn acked_by(&self, cut: u64) -> u64 {
        self.acked.iter().take_while(|(at, _)| *at <= cut).last().map_or(0, |(_, number)| *number)
    }
}

/// Everything that was written to a node.
#[derive(Clone, Default)]
pub struct History {
    /// By slot: SET of the numbers from 1 on, to `KEYS` keys in turn.
    counters: Vec<Stream>,
    /// MSETs over all slots.
    msets: Stream,
    /// In turn a SET and a RENAME to another slot.
    renames: Stream,
    /// MSETs over all slots of the second database, and FLUSHDBs: [`Flushed`].
    flushed: Stream,
}

/// Running writers of a [`History`]. They end when their connection breaks, or with [`Writers::stop`].
pub struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Stream>>>,
}

/// What a writer needs.
#[derive(Clone)]
struct Scribe {
    port: u16,
    disk: FaultyDisk,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    /// With each acknowledgement waits for one replica to have it, and takes `disk` for the replica's.
    wait: bool,
}

impl Writers {
    /// Begins to write to a node on a traced disk.
    pub fn start(node: &Node) -> Writers {
        Writers::begin(node, node.disk(), false)
    }

    /// Begins to write to a master whose replica is on a traced disk: what counts as acknowledged is what the replica has acknowledged.
    pub fn through(master: &Node, replica: &Node) -> Writers {
        Writers::begin(master, replica.disk(), true)
    }

    fn begin(node: &Node, disk: FaultyDisk, wait: bool) -> Writers {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let scribe = Scribe { port: node.port(), disk, stop: stop.clone(), written: written.clone(), wait };
        let works: [fn(&Scribe) -> Vec<Stream>; 4] = [counters, msets, renames, flushed];
        let threads = works.map(|work| {
            let scribe = scribe.clone();
            thread::spawn(move || work(&scribe))
        });
        Writers { stop, written, threads: threads.into() }
    }

    /// Writes acknowledged so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the writers and takes what they know.
    pub fn stop(mut self) -> History {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = self.threads.drain(..).map(|thread| thread.join().expect("a writer"));
        let mut next = || all.next().unwrap_or_default();
        let (counters, mut others) = (next(), [next(), next(), next()].map(|mut streams| streams.remove(0)));
        let [msets, renames, flushed] = others.each_mut().map(std::mem::take);
        History { counters, msets, renames, flushed }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Scribe {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Sends commands as one pipeline; false when the connection broke. A reply that is an error breaks it too.
    fn send(&self, conn: &mut Conn, commands: &[Vec<String>]) -> bool {
        commands.iter().for_each(|command| conn.push(command));
        if conn.try_flush().is_err() {
            return false;
        }
        for command in commands {
            match conn.try_read() {
                Ok(Reply::Error(e)) => panic!("{command:?}: {e}"),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        if self.wait && !matches!(conn.try_call(&["WAIT", "1", "60000"]), Ok(Reply::Int(1))) {
            return false;
        }
        self.written.fetch_add(commands.len() as u64, Ordering::Relaxed);
        true
    }

    /// Writes numbers `stream.sent + 1` … as one pipeline.
    fn step(&self, conn: &mut Conn, stream: &mut Stream, commands: &[Vec<String>]) -> bool {
        stream.sent += commands.len() as u64;
        if !self.send(conn, commands) {
            return false;
        }
        stream.acked.push((self.disk.now(), stream.sent));
        true
    }

    fn run(&self, db: usize, mut step: impl FnMut(&mut Conn) -> bool) {
        let mut conn = Conn::to(self.port);
        conn.select(db);
        while self.goes_on() && step(&mut conn) {}
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// A number as the start of a value that is not small.
fn value(number: u64, len: usize) -> String {
    // Not to be compressed away.
    let noise =
        (0..len as u64 / 16).map(|n| format!("{:016x}", (number * 1000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    format!("{number};{}", noise.collect::<String>())
}

fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Nil => None,
        reply => Some(reply.text().split(';').next().and_then(|digits| digits.parse().ok()).expect("a number")),
    }
}

fn counters(scribe: &Scribe) -> Vec<Stream> {
    let tags = tags();
    let mut streams = vec![Stream::default(); tags.len()];
    let mut turn = 0;
    scribe.run(0, |conn| {
        let nth = turn % tags.len();
        turn += 1;
        let from = streams[nth].sent + 1;
        let set = |n: u64| words(&["SET", &format!("c{}{{{}}}", n % KEYS, tags[nth]), &value(n, 400)]);
        let commands: Vec<_> = (from..from + PIPELINE).map(set).collect();
        scribe.step(conn, &mut streams[nth], &commands)
    });
    streams
}

/// The key of each slot that an MSET of this name writes.
fn keys(name: &str) -> Vec<String> {
    tags().iter().map(|tag| format!("{name}{{{tag}}}")).collect()
}

fn mset(name: &str, number: u64) -> Vec<String> {
    let pairs = keys(name).into_iter().flat_map(|key| [key, value(number, 60)]);
    std::iter::once("MSET".to_string()).chain(pairs).collect()
}

fn msets(scribe: &Scribe) -> Vec<Stream> {
    let mut stream = Stream::default();
    scribe.run(0, |conn| {
        let next = mset("m", stream.sent + 1);
        scribe.step(conn, &mut stream, &[next])
    });
    vec![stream]
}

fn renames(scribe: &Scribe) -> Vec<Stream> {
    let mut stream = Stream::default();
    let [here, there] = rename_keys();
    scribe.run(0, |conn| {
        let next = stream.sent + 1;
        // 1: SET here, 2: RENAME to there, 3: SET there, 4: RENAME to here …
        let (from, to) = if (next - 1) / 2 % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let command = match next % 2 {
            1 => words(&["SET", from, &value(next, 60)]),
            _ => words(&["RENAME", from, to]),
        };
        scribe.step(conn, &mut stream, &[command])
    });
    vec![stream]
}

fn rename_keys() -> [String; 2] {
    let tags = tags();
    [0, 1].map(|nth: usize| format!("r{{{}}}", tags[nth]))
}

fn flushed(scribe: &Scribe) -> Vec<Stream> {
    let mut stream = Stream::default();
    scribe.run(1, |conn| {
        let next = stream.sent + 1;
        let command = if next % FLUSH_EVERY == 0 { words(&["FLUSHDB"]) } else { mset("f", next) };
        if next % (2 * FLUSH_EVERY) == 1 {
            // One may be under way.
            let _ = conn.try_call(&["BGSAVE"]);
        }
        scribe.step(conn, &mut stream, &[command])
    });
    vec![stream]
}

impl History {
    /// Checks what a master holds: each slot some prefix of its history, writes over several slots whole or not at all. With `durable`, the
    /// prefixes reach as far as what was acknowledged when the trace had that length.
    pub fn verify(&self, node: &Node, durable: Option<u64>) -> Result<(), String> {
        self.verify_slots(node, durable)?;
        let least = |stream: &Stream| durable.map_or(0, |cut| stream.acked_by(cut));
        let mut conn = node.conn();
        for name in ["m", "f"] {
            conn.select(usize::from(name == "f"));
            let held = mget(&mut conn, &keys(name));
            if held.iter().any(|one| *one != held[0]) {
                return Err(format!("half of a write over several slots: {held:?}"));
            }
        }
        conn.select(0);
        self.verify_renames(&mut conn, least(&self.renames))
    }

    /// [`History::verify`] of a replica, which receives the parts of a write over several slots one by one.
    pub fn verify_slots(&self, node: &Node, durable: Option<u64>) -> Result<(), String> {
        let least = |stream: &Stream| durable.map_or(0, |cut| stream.acked_by(cut));
        let mut conn = node.conn();
        for (tag, stream) in tags().iter().zip(&self.counters) {
            let held: Vec<Option<u64>> =
                (0..KEYS).map(|key| number(&conn.call(&["GET", &format!("c{key}{{{tag}}}")]))).collect();
            let end = held.iter().flatten().copied().max().unwrap_or(0);
            let prefix: Vec<Option<u64>> =
                (0..KEYS).map(|key| (1..=end).rev().take(KEYS as usize).find(|n| n % KEYS == key)).collect();
            if held != prefix {
                return Err(format!("counters of {tag}: {held:?} is no prefix of the history"));
            }
            expect(&format!("counters of {tag}"), end, least(stream), stream.sent)?;
        }
        for held in mget(&mut conn, &keys("m")) {
            expect("MSET", held.unwrap_or(0), least(&self.msets), self.msets.sent)?;
        }
        conn.select(1);
        let (least, most) = (least(&self.flushed), self.flushed.sent);
        for held in mget(&mut conn, &keys("f")) {
            match held {
                Some(number) => expect("MSET and FLUSHDB", number, least, most)?,
                // Nothing is there after any FLUSHDB, and at the beginning.
                None if (least..=most).any(|n| n % FLUSH_EVERY == 0) => {}
                None => return Err(format!("MSET and FLUSHDB: nothing is there, after {least} was acknowledged")),
            }
        }
        Ok(())
    }

    fn verify_renames(&self, conn: &mut Conn, least: u64) -> Result<(), String> {
        let held = mget(conn, &rename_keys());
        let at = match held[..] {
            [None, None] => 0,
            // The number of the SET; it was renamed if it stands where an odd pair does not begin.
            [Some(set), None] if (set - 1) / 2 % 2 == 0 => set,
            [None, Some(set)] if (set - 1) / 2 % 2 == 1 => set,
            [Some(set), None] | [None, Some(set)] => set + 1,
            _ => return Err(format!("RENAME: both keys are there: {held:?}")),
        };
        expect("RENAME", at, least, self.renames.sent)
    }
}

fn mget(conn: &mut Conn, keys: &[String]) -> Vec<Option<u64>> {
    let mut command = vec!["MGET".to_string()];
    command.extend(keys.iter().cloned());
    conn.call(&command).items().iter().map(number).collect()
}

fn expect(what: &str, held: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&held) {
        Ok(())
    } else {
        Err(format!("{what}: {held} is there, {least} was acknowledged, {most} sent"))
    }
}
