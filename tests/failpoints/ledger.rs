//! Writers of several kinds of data, and what their writes allow a node to hold afterwards.
//!
//! A writer sends one command at a time, with a number that grows. What is acknowledged must be there; what was refused or
//! left unanswered may be there, but then whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::{Conn, DEADLINE, Node, Reply, wait_for};

const WRITERS: usize = 2;
/// Keys that a writer's SET goes round.
const STRINGS: u64 = 8;
/// Keys of one MSET or MULTI: enough that they lie in several slots.
const TOGETHER: [&str; 4] = ["a", "b", "c", "d"];
/// Bytes that a string is padded with, so that logs and memtables turn over.
const PADDING: usize = 700;

/// Running writers; dropped, they stop.
pub struct Writers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Book>>,
}

/// What all writers did.
pub struct Ledger(Vec<Book>);

/// What one writer did.
struct Book {
    prefix: String,
    /// By key, or by `key field`: the last number acknowledged and the last sent.
    registers: BTreeMap<String, Sent>,
    /// The numbers pushed to the list that were acknowledged, and the last sent.
    pushed: Vec<u64>,
    last_push: u64,
    increments: Sent,
    turn: u64,
    /// The last error that a write was refused with.
    refused: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Sent {
    acked: u64,
    sent: u64,
}

impl Writers {
    /// Starts writers against database 0 of a node; `prefix` is theirs alone.
    pub fn start(node: &Node, prefix: &str) -> Writers {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let port = node.port();
        let threads = (0..WRITERS).map(|n| {
            let mut book = Book {
                prefix: format!("{prefix}:{n}:"),
                registers: BTreeMap::new(),
                pushed: Vec::new(),
                last_push: 0,
                increments: Sent::default(),
                turn: 0,
                refused: None,
            };
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    // A node that is down is what this is about.
                    if let Ok(mut conn) = Conn::try_to(port) {
                        let mut next = || -> std::io::Result<()> {
                            book.write(&mut conn)?;
                            answered.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        };
                        while !stop.load(Ordering::SeqCst) && next().is_ok() {}
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                book
            })
        });
        let threads = threads.collect();
        Writers { stop, answered, threads }
    }

    /// Waits for so many more answers, be they errors.
    #[track_caller]
    pub fn wait_answers(&self, count: u64) {
        let goal = self.answered.load(Ordering::SeqCst) + count;
        wait_for("answers", DEADLINE, || self.answered.load(Ordering::SeqCst) >= goal);
    }

    /// Stops the writers.
    pub fn stop(mut self) -> Ledger {
        self.stop.store(true, Ordering::SeqCst);
        Ledger(self.threads.drain(..).map(|thread| thread.join().expect("a writer")).collect())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Book {
    /// One write and its answer.
    fn write(&mut self, conn: &mut Conn) -> std::io::Result<()> {
        self.turn += 1;
        let turn = self.turn;
        let key = |name: &str| format!("{}{name}", self.prefix);
        match turn % 6 {
            0 | 3 => {
                let name = key(&format!("s{}", turn % STRINGS));
                let value = format!("{turn};{}", "x".repeat(PADDING));
                self.set(std::slice::from_ref(&name), turn, conn.try_call(&["SET", &name, &value]))
            }
            1 => {
                let keys = TOGETHER.map(key);
                let mut args = vec!["MSET".to_string()];
                args.extend(keys.iter().flat_map(|key| [key.clone(), turn.to_string()]));
                self.set(&keys, turn, conn.try_call(&args))
            }
            2 => {
                let (name, number) = (key("h"), turn.to_string());
                let fields = ["f", "g"].map(|field| format!("{name} {field}"));
                self.set(&fields, turn, conn.try_call(&["HSET", &name, "f", &number, "g", &number]))
            }
            4 => {
                self.increments.sent += 1;
                let reply = conn.try_call(&["INCR", &key("n")])?;
                if self.is_acknowledged(&reply) {
                    let Sent { acked, sent } = self.increments;
                    let value = reply.int() as u64;
                    assert!(acked < value && value <= sent, "INCR: {value} after {acked}, {sent} sent");
                    self.increments.acked = value;
                }
                Ok(())
            }
            _ => {
                self.last_push = turn;
                let reply = conn.try_call(&["RPUSH", &key("l"), &turn.to_string()])?;
                if self.is_acknowledged(&reply) {
                    self.pushed.push(turn);
                }
                Ok(())
            }
        }
    }

    fn is_acknowledged(&mut self, reply: &Reply) -> bool {
        if let Reply::Error(text) = reply {
            self.refused = Some(text.clone());
        }
        !reply.is_error()
    }

    /// Notes that `turn` was sent to registers, and acknowledged if it was.
    fn set(&mut self, names: &[String], turn: u64, reply: std::io::Result<Reply>) -> std::io::Result<()> {
        let acked = reply.as_ref().is_ok_and(|reply| self.is_acknowledged(reply));
        for name in names {
            let register = self.registers.entry(name.clone()).or_default();
            register.sent = turn;
            if acked {
                register.acked = turn;
            }
        }
        reply.map(drop)
    }

    /// What is wrong with what the node holds. `whole`: writes of several keys must be there in all of them or in none.
    fn wrong(&self, conn: &mut Conn, whole: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut held = BTreeMap::new();
        for (name, Sent { acked, sent }) in &self.registers {
            let reply = match name.split_once(' ') {
                Some((key, field)) => conn.call(&["HGET", key, field]),
                None => conn.call(&["GET", name]),
            };
            let number = number(&reply);
            if !number.is_some_and(|n| (*acked..=*sent).contains(&n)) {
                wrong.push(format!("{name}: {number:?}, not in {acked}..={sent}"));
            }
            held.insert(name.clone(), number);
        }
        let mut equal = |names: &[String]| {
            let values: Vec<_> = names.iter().filter_map(|name| held.get(name)).collect();
            if whole && values.windows(2).any(|two| two[0] != two[1]) {
                wrong.push(format!("half there: {names:?}: {values:?}"));
            }
        };
        equal(&TOGETHER.map(|name| format!("{}{name}", self.prefix)));
        equal(&["f", "g"].map(|field| format!("{}h {field}", self.prefix)));
        let counter = number(&conn.call(&["GET", &format!("{}n", self.prefix)]));
        let Sent { acked, sent } = self.increments;
        if !counter.is_some_and(|n| (acked..=sent).contains(&n)) {
            wrong.push(format!("{}n: {counter:?}, not in {acked}..={sent}", self.prefix));
        }
        let list = conn.call(&["LRANGE", &format!("{}l", self.prefix), "0", "-1"]);
        let list: Vec<u64> = list.texts().iter().map(|text| text.parse().expect("a number")).collect();
        if list.windows(2).any(|two| two[0] >= two[1]) || list.last().is_some_and(|last| *last > self.last_push) {
            wrong.push(format!("{}l: pushed twice or never: {list:?}", self.prefix));
        }
        let lost: Vec<_> = self.pushed.iter().filter(|turn| list.binary_search(turn).is_err()).collect();
        if !lost.is_empty() {
            wrong.push(format!("{}l: acknowledged and not there: {lost:?}", self.prefix));
        }
        wrong
    }
}

impl Ledger {
    /// What a writer was refused with, if one was.
    pub fn refused(&self) -> Option<String> {
        self.0.iter().find_map(|book| book.refused.clone())
    }

    /// Panics unless the node holds all that was acknowledged, and nothing by half.
    #[track_caller]
    pub fn verify(&self, node: &Node) {
        self.check(node, true);
    }

    /// The same for a node in trouble: a slot that takes no writes may lack the last part of one over several.
    #[track_caller]
    pub fn verify_readable(&self, node: &Node) {
        self.check(node, false);
    }

    #[track_caller]
    fn check(&self, node: &Node, whole: bool) {
        let mut conn = node.conn();
        let wrong: Vec<String> = self.0.iter().flat_map(|book| book.wrong(&mut conn, whole)).collect();
        assert!(wrong.is_empty(), "node {}:\n{}", node.port(), wrong.join("\n"));
    }
}

/// The number that a value begins with: 0 for what is not there, `None` for an error.
fn number(held: &Reply) -> Option<u64> {
    match held {
        Reply::Nil => Some(0),
        Reply::Bulk(value) => {
            let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
        }
        _ => None,
    }
}
