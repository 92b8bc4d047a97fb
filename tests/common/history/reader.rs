//! Readers beside the writers: no number ever goes back, and no write of several keys is ever seen half.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::super::{Conn, Reply};
use super::Shared;
use super::family::stamped;
use super::workload::{Role, Source};

/// Between two looks.
const PACE: Duration = Duration::from_millis(4);

/// What readers look at.
#[derive(Clone)]
pub struct Watched {
    role: Role,
    /// Database and name of the keys.
    keys: Vec<(usize, String)>,
    whole: Arc<AtomicU64>,
}

impl Watched {
    pub fn of(source: &Source) -> Option<Watched> {
        let watched = source.role.is_whole() || matches!(source.role, Role::Monotone | Role::Counter);
        let keys = source.family.keys.iter().map(|key| (key.db, key.name.clone())).collect();
        watched.then(|| Watched { role: source.role, keys, whole: source.whole.clone() })
    }
}

/// Reads one node.
pub struct Reader {
    pub port: u16,
    pub shared: Arc<Shared>,
    pub watched: Arc<Vec<Watched>>,
}

impl Reader {
    pub fn run(self) {
        // The largest number seen of each key, in the epoch.
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut epoch = 0;
        while !self.shared.done.load(Ordering::SeqCst) && !self.shared.is_violated() {
            if let Ok(mut conn) = Conn::try_to(self.port) {
                while !self.shared.done.load(Ordering::SeqCst) && !self.shared.is_violated() {
                    if self.look(&mut conn, &mut last, &mut epoch).is_err() {
                        break;
                    }
                    thread::sleep(PACE);
                }
            }
            thread::sleep(PACE);
        }
    }

    fn look(&self, conn: &mut Conn, last: &mut HashMap<String, u64>, epoch: &mut u64) -> io::Result<()> {
        for watched in self.watched.iter() {
            let (before, settled) = (self.shared.target(), self.shared.settled.load(Ordering::SeqCst));
            if before.epoch != *epoch {
                *epoch = before.epoch;
                last.clear();
            }
            let is_master = before.port == self.port;
            let whole = watched.whole.load(Ordering::SeqCst);
            if watched.role.is_whole() {
                if !is_master || whole != before.epoch + 1 {
                    continue;
                }
                let Some((numbers, shown)) = read_together(conn, watched)? else { continue };
                let after = self.shared.target();
                let same = numbers.windows(2).all(|pair| pair[0] == pair[1]);
                if after == before && watched.whole.load(Ordering::SeqCst) == whole && !same {
                    self.violated(&format!("{:?} seen half: {shown}", watched.keys));
                }
                self.compare(last, watched, numbers[0], before.epoch, &shown);
            } else {
                if !is_master && settled != before.epoch {
                    continue;
                }
                let (db, name) = &watched.keys[0];
                conn.push(&["SELECT", &db.to_string()]);
                conn.push(&["GET", name]);
                conn.try_flush()?;
                conn.try_read()?;
                let reply = conn.try_read()?;
                let Some(number) = number(&reply) else { continue };
                self.compare(last, watched, number, before.epoch, &format!("{reply:?}"));
            }
        }
        Ok(())
    }

    /// The number must not be below what was seen before in the epoch.
    fn compare(&self, last: &mut HashMap<String, u64>, watched: &Watched, number: u64, epoch: u64, shown: &str) {
        if self.shared.target().epoch != epoch {
            return;
        }
        let name = &watched.keys[0].1;
        let known = last.entry(name.clone()).or_default();
        if number < *known {
            self.violated(&format!("{name} went back from {known}: {shown}"));
        }
        *known = number;
    }

    fn violated(&self, text: &str) {
        self.shared.violated(format!("a reader of node {}: {text}", self.port));
    }
}

/// Reads the keys of a write of several keys, in one transaction or by one command; their numbers, and all of it for a message.
fn read_together(conn: &mut Conn, watched: &Watched) -> io::Result<Option<(Vec<u64>, String)>> {
    let keys = &watched.keys;
    let names: Vec<&str> = keys.iter().map(|(_, name)| name.as_str()).collect();
    let first = keys[0].0.to_string();
    conn.push(&["SELECT", &first]);
    let replies = match watched.role {
        Role::Group => {
            let mut args = vec!["MGET"];
            args.extend(&names);
            conn.push(&args);
            conn.try_flush()?;
            conn.try_read()?;
            match conn.try_read()? {
                Reply::Array(items) => items,
                _ => return Ok(None),
            }
        }
        _ => {
            let mut commands: Vec<Vec<&str>> = vec![vec!["GET", names[0]], vec!["LINDEX", names[1], "-1"]];
            let second = keys.last().map_or(0, |(db, _)| *db).to_string();
            if watched.role == Role::Transaction {
                commands.push(vec!["HGET", names[2], "last"]);
                commands.push(vec!["ZSCORE", names[3], "last"]);
                commands.push(vec!["SELECT", &second]);
                commands.push(vec!["GET", names[4]]);
                commands.push(vec!["SELECT", &first]);
            }
            conn.push(&["MULTI"]);
            commands.iter().for_each(|command| conn.push(command));
            conn.push(&["EXEC"]);
            conn.try_flush()?;
            for _ in 0..commands.len() + 2 {
                conn.try_read()?;
            }
            match conn.try_read()? {
                Reply::Array(items) => items.into_iter().filter(|item| *item != Reply::ok()).collect(),
                _ => return Ok(None),
            }
        }
    };
    let shown = format!("{replies:?}");
    let numbers: Option<Vec<u64>> = replies.iter().map(number).collect();
    Ok(numbers.map(|numbers| (numbers, shown)))
}

/// The number that a value stands for: a plain one or that of its stamp; 0 for a missing key. `None` where the node does not answer.
fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Nil => Some(0),
        Reply::Bulk(bytes) => stamped(bytes).or_else(|| std::str::from_utf8(bytes).ok()?.parse().ok()),
        _ => None,
    }
}
