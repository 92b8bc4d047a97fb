//! Writers that remember what the server acknowledged.
//!
//! Each writer thread owns its keys, so what a key may hold is known: at least the last
//! acknowledged write, at most the last one sent. A writer whose connection breaks (a node
//! was killed, say) connects again and goes on until it is stopped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Conn, DEADLINE, Node, Reply, wait_for};

/// What the writers do.
#[derive(Clone)]
pub struct LoadOptions {
    /// Writer threads, each with a connection of its own.
    pub threads: usize,
    /// Commands sent at a time.
    pub pipeline: usize,
    /// Keys a thread writes, one after the other, again and again.
    pub keys: usize,
    /// Bytes of a value, at least 20.
    pub value_len: usize,
    /// Databases written, from 0.
    pub databases: usize,
    /// Pause after each pipeline.
    pub pace: Duration,
    /// What the keys begin with.
    pub prefix: String,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            threads: 2,
            pipeline: 16,
            keys: 500,
            value_len: 64,
            databases: 1,
            pace: Duration::from_millis(2),
            prefix: "load".into(),
        }
    }
}

/// Running writers; dropped, they stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Acked>>,
}

/// What was acknowledged, and what was sent and may or may not have happened.
#[derive(Default)]
pub struct Acked {
    /// By database and key. Keys that end in `:n` are INCR counters, the others SET.
    keys: HashMap<(usize, String), Range>,
    /// Acknowledged writes in all.
    pub writes: u64,
}

/// The smallest and the largest number a key may hold.
#[derive(Clone, Copy, Default)]
struct Range {
    acked: u64,
    sent: u64,
}

impl Load {
    /// Starts the writers against a node.
    pub fn start(node: &Node, options: LoadOptions) -> Load {
        Load::on_port(node.port(), options)
    }

    /// Starts the writers against a port of 127.0.0.1.
    pub fn on_port(port: u16, options: LoadOptions) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..options.threads).map(|thread| {
            let writer = Writer {
                port,
                thread,
                options: options.clone(),
                stop: Arc::clone(&stop),
                acknowledged: Arc::clone(&acknowledged),
                acked: Acked::default(),
                turn: 0,
                batch: 0,
            };
            thread::spawn(move || writer.run())
        });
        let writers = writers.collect();
        Load { stop, acknowledged, writers }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more writes are acknowledged.
    #[track_caller]
    pub fn wait_more(&self, writes: u64) {
        let goal = self.acknowledged() + writes;
        wait_for("the writers to get on", DEADLINE, || {
            assert!(!self.writers.iter().any(JoinHandle::is_finished), "a writer ended");
            self.acknowledged() >= goal
        });
    }

    /// Stops the writers and takes what they know.
    #[track_caller]
    pub fn stop(mut self) -> Acked {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Acked::default();
        for writer in self.writers.drain(..) {
            let acked = writer.join().expect("a writer that did not fail");
            all.writes += acked.writes;
            all.keys.extend(acked.keys);
        }
        all
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

impl Acked {
    /// Panics unless the node holds every acknowledged write, and nothing that was never sent.
    #[track_caller]
    pub fn verify(&self, node: &Node) {
        assert!(self.writes > 0, "the writers got nothing acknowledged");
        let mut conn = node.conn();
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by_key(|((db, _), _)| *db);
        let mut selected = 0;
        let mut wrong = Vec::new();
        for batch in keys.chunk_by(|((a, _), _), ((b, _), _)| a == b) {
            let db = batch[0].0.0;
            if db != selected {
                conn.select(db);
                selected = db;
            }
            for chunk in batch.chunks(512) {
                for ((_, key), _) in chunk {
                    conn.push(&["GET", key]);
                }
                conn.flush();
                for ((db, key), range) in chunk {
                    let held = conn.read();
                    let number = number_of(&held);
                    if !number.is_some_and(|n| (range.acked..=range.sent).contains(&n)) {
                        let Range { acked, sent } = range;
                        wrong.push(format!("db{db} {key}: {held:?}, not in {acked}..={sent}"));
                    }
                }
            }
        }
        let shown = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "node {}: {} keys are wrong:\n{shown}", node.port(), wrong.len());
    }
}

/// The number a key holds: 0 for a missing key, the leading digits of a value.
fn number_of(held: &Reply) -> Option<u64> {
    match held {
        Reply::Nil => Some(0),
        Reply::Bulk(value) => {
            let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
            std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
        }
        _ => None,
    }
}

struct Writer {
    port: u16,
    thread: usize,
    options: LoadOptions,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    acked: Acked,
    turn: usize,
    batch: usize,
}

impl Writer {
    fn run(mut self) -> Acked {
        while !self.stop.load(Ordering::SeqCst) {
            // Broken connections are what the tests are about: connect again.
            if let Ok(conn) = Conn::try_to(self.port) {
                let _ = self.write_until_broken(conn);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.acked
    }

    fn write_until_broken(&mut self, mut conn: Conn) -> std::io::Result<()> {
        while !self.stop.load(Ordering::SeqCst) {
            self.batch += 1;
            let db = self.batch % self.options.databases;
            conn.push(&["SELECT", &db.to_string()]);
            let sent: Vec<_> = (0..self.options.pipeline).map(|_| self.push(&mut conn, db)).collect();
            conn.try_flush()?;
            if conn.try_read()? != Reply::ok() {
                return Err(std::io::Error::other("SELECT refused"));
            }
            for (key, number) in sent {
                let reply = conn.try_read()?;
                self.take(db, key, number, &reply);
            }
            thread::sleep(self.options.pace);
        }
        Ok(())
    }

    /// Adds the next write to the connection's buffer: its key and its number.
    fn push(&mut self, conn: &mut Conn, db: usize) -> (String, u64) {
        self.turn += 1;
        let LoadOptions { prefix, keys, value_len, .. } = &self.options;
        let (thread, turn) = (self.thread, self.turn);
        // Every fourth write is an INCR: it shows a record applied twice, which SET does not.
        let counts = turn.is_multiple_of(4);
        let key = format!("{prefix}:{thread}:{}{}", turn % keys, if counts { ":n" } else { "" });
        let range = self.acked.keys.entry((db, key.clone())).or_default();
        range.sent += 1;
        if counts {
            conn.push(&["INCR", &key]);
        } else {
            let padding = "v".repeat(value_len.saturating_sub(21));
            conn.push(&["SET", &key, &format!("{:020};{padding}", range.sent)]);
        }
        (key, range.sent)
    }

    /// Takes the reply to write `number` of a key.
    fn take(&mut self, db: usize, key: String, number: u64, reply: &Reply) {
        let range = self.acked.keys.get_mut(&(db, key.clone())).expect("a key that was sent");
        match reply {
            Reply::Simple(_) => range.acked = number,
            Reply::Int(value) => {
                let value = *value as u64;
                let Range { acked, sent } = *range;
                assert!(value > acked && value <= sent, "INCR {key}: {value} after {acked}, {sent} sent");
                range.acked = value;
            }
            // Refused: it may count as sent, it is not acknowledged.
            _ => return,
        }
        self.acked.writes += 1;
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
