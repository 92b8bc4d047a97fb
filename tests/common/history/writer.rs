//! A client of the history: writes its families to whatever node is the master, and looks after each break what has happened.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::super::{Conn, unix_ms};
use super::family::Op;
use super::value::Value;
use super::workload::Source;
use super::{Shared, Target};

/// After this many batches the client asks whether the replicas have all.
const CONFIRM_EVERY: u64 = 15;
/// How long that may take, ms.
const CONFIRM_WAIT: &str = "200";

/// Why a session ended.
pub enum End {
    /// Another master, a pause, the end.
    Told,
    /// The connection broke, or the node does not take writes now.
    Broken,
    Violation(String),
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> End {
        match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                End::Violation(format!("no answer from the master: {e}"))
            }
            io::ErrorKind::InvalidData => End::Violation(format!("not a reply: {e}")),
            _ => End::Broken,
        }
    }
}

pub struct Writer {
    pub sources: Vec<Source>,
    pub rng: StdRng,
    pub shared: Arc<Shared>,
    /// The most commands sent at a time.
    pub pipeline: usize,
    pub pace: Duration,
    /// Stamps of acknowledged operations that failovers lost.
    pub lost: Vec<String>,
}

impl Writer {
    /// Writes until it is told to stop and nothing is uncertain.
    pub fn run(mut self) -> Writer {
        while !self.shared.is_violated() {
            if self.shared.pause.load(Ordering::SeqCst) {
                self.shared.idle.fetch_add(1, Ordering::SeqCst);
                while self.shared.pause.load(Ordering::SeqCst) && !self.shared.is_violated() {
                    thread::sleep(Duration::from_millis(2));
                }
                self.shared.idle.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let target = self.shared.target();
            let settled = self.sources.iter().all(|s| !s.family.is_uncertain() && s.family.epoch == target.epoch);
            if self.shared.stop.load(Ordering::SeqCst) && settled {
                break;
            }
            let end = match Conn::try_to(target.port) {
                Ok(mut conn) => self.session(&mut conn, target),
                Err(_) => End::Broken,
            };
            match end {
                End::Told => {}
                End::Broken => thread::sleep(Duration::from_millis(5)),
                End::Violation(text) => self.shared.violated(text),
            }
        }
        self
    }

    fn session(&mut self, conn: &mut Conn, target: Target) -> End {
        let mut db = 0;
        if let Err(end) = self.look(conn, &mut db, target) {
            return end;
        }
        for batch in 1.. {
            let told = self.shared.pause.load(Ordering::SeqCst) || self.shared.stop.load(Ordering::SeqCst);
            if told || self.shared.target() != target || self.shared.is_violated() {
                return End::Told;
            }
            if let Err(end) = self.batch(conn, &mut db, target) {
                return end;
            }
            if batch % CONFIRM_EVERY == 0
                && let Err(end) = self.confirm(conn)
            {
                return end;
            }
            thread::sleep(self.pace);
        }
        End::Told
    }

    /// Reads all families, and takes what is there for what has happened.
    fn look(&mut self, conn: &mut Conn, db: &mut usize, target: Target) -> Result<(), End> {
        let from = unix_ms();
        let families: Vec<_> = self.sources.iter().map(|source| &source.family).collect();
        let seen = super::check::read(conn, db, &families)?;
        let to = unix_ms();
        for (source, seen) in self.sources.iter_mut().zip(seen) {
            let seen: Vec<Value> = match seen {
                Ok(seen) => seen,
                Err(text) if text.starts_with("LOADING") => return Err(End::Broken),
                Err(text) => return Err(End::Violation(source.family.violation(&text))),
            };
            let family = &mut source.family;
            if family.epoch == target.epoch {
                family.resolve(&seen, from, to).map_err(End::Violation)?;
            } else {
                let lost = family.rebase(&seen, from, to, target.epoch).map_err(End::Violation)?;
                self.lost.extend(lost);
            }
        }
        Ok(())
    }

    fn batch(&mut self, conn: &mut Conn, db: &mut usize, target: Target) -> Result<(), End> {
        let mut sent: Vec<(usize, Op, usize)> = Vec::new();
        for _ in 0..self.rng.random_range(1..=self.pipeline) {
            let at = self.rng.random_range(0..self.sources.len());
            let source = &mut self.sources[at];
            if source.role.is_serial() && sent.iter().any(|(known, ..)| *known == at) {
                continue;
            }
            let op = source.next_op(&mut self.rng);
            let before = source.family.push(&op, conn, db);
            sent.push((at, op, before));
        }
        let flushed = conn.try_flush();
        let mut end = flushed.map_err(End::from);
        let mut refused = false;
        for (at, op, before) in sent {
            let source = &mut self.sources[at];
            let reply = match &end {
                Ok(()) => (0..before).try_for_each(|_| conn.try_read().map(drop)).and_then(|()| conn.try_read()),
                Err(_) => {
                    source.family.left_open(op);
                    continue;
                }
            };
            match reply {
                Ok(reply) => match source.family.replied(op, &reply) {
                    Ok(true) => {
                        source.acknowledged(target.epoch);
                        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(false) => refused = true,
                    Err(text) => end = Err(End::Violation(text)),
                },
                Err(e) => {
                    source.family.left_open(op);
                    end = Err(e.into());
                }
            }
        }
        // A node that refuses is not the master any more, or not yet.
        if refused && end.is_ok() { Err(End::Broken) } else { end }
    }

    /// Asks whether all replicas that a failover may choose from have everything.
    fn confirm(&mut self, conn: &mut Conn) -> Result<(), End> {
        let before = self.shared.confirmable();
        let Some((_, replicas)) = before else { return Ok(()) };
        let reply = conn.try_call(&["WAIT", &replicas.to_string(), CONFIRM_WAIT])?;
        let enough = matches!(reply, super::Reply::Int(have) if have >= replicas as i64);
        if enough && self.shared.confirmable() == before {
            self.sources.iter_mut().for_each(|source| source.family.confirm());
            self.shared.confirmed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
