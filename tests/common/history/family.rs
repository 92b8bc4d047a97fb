//! A family of keys: the keys that one client changes together, what they must hold, and what has been done to them.
//!
//! Only its owner writes a family, one batch after the other, so what it may hold is known exactly: the state after all that was
//! acknowledged and after some first part of what was in flight when a connection broke. The owner looks, once it is connected again,
//! and from then on the state is exact again.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::super::{Conn, Reply, unix_ms};
use super::value::{Change, Kind, Value};

/// What happened last to a family, as a violation shows it.
const EVENTS: usize = 60;

/// A key of a database.
#[derive(Clone, Debug)]
pub struct Key {
    pub db: usize,
    pub name: String,
    pub kind: Kind,
}

/// How the steps of an operation are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One command, of one step.
    Plain,
    /// MSET: all steps are SET, in one database.
    Mset,
    /// MULTI … EXEC.
    Multi,
    /// EVAL of a script that calls the commands; all in one database.
    Eval,
    /// FLUSHDB of the family's database, which is its own: deletes all keys.
    Flush,
}

/// One operation: changes that happen together or not at all.
#[derive(Clone, Debug)]
pub struct Op {
    pub form: Form,
    /// Number of a key in the family, and what is done to it.
    pub steps: Vec<(usize, Change)>,
    /// Rises from operation to operation of a family; the texts that it writes begin with [`stamp`] of it.
    pub number: u64,
}

/// Calls what its arguments say: the number of words of a command, and the words; again and again.
const SCRIPT: &str = "local i = 1
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  redis.call(unpack(ARGV, i + 1, i + n))
  i = i + n + 1
end
return 'done'";

/// See the module.
#[derive(Debug)]
pub struct Family {
    /// Unique; what its keys and texts begin with.
    pub name: String,
    pub keys: Vec<Key>,
    /// What is certain: all acknowledged operations, and nothing else.
    state: Vec<Value>,
    /// Sent on a connection that broke: a first part of these has happened.
    pending: Vec<Op>,
    /// The state that a failover must not undo, and what was done since; kept if `tracked`.
    confirmed: Vec<Value>,
    since: Vec<Op>,
    tracked: bool,
    /// Lossy failovers that the state takes into account.
    pub epoch: u64,
    events: VecDeque<(u64, u64, String, &'static str)>,
}

/// What an operation of a family begins its texts with: found nowhere else.
pub fn stamp(family: &str, number: u64) -> String {
    format!("{family}.n{number};")
}

/// The number in a text that begins with a [`stamp`].
pub fn stamped(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|&b| b == b';')?;
    let head = std::str::from_utf8(&text[..end]).ok()?;
    head.rsplit_once(".n")?.1.parse().ok()
}

impl Family {
    pub fn new(name: String, keys: Vec<Key>, tracked: bool) -> Family {
        let state = vec![Value::default(); keys.len()];
        Family {
            name,
            keys,
            confirmed: state.clone(),
            state,
            pending: Vec::new(),
            since: Vec::new(),
            tracked,
            epoch: 0,
            events: VecDeque::new(),
        }
    }

    /// What each key holds. Exact unless [`Family::is_uncertain`].
    pub fn state(&self) -> &[Value] {
        &self.state
    }

    /// Whether operations are pending.
    pub fn is_uncertain(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Adds the commands of `op` to the connection's buffer, whose database is `db` from then on; how many replies come before the one
    /// that counts.
    pub fn push(&self, op: &Op, conn: &mut Conn, db: &mut usize) -> usize {
        let names: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
        let first = op.steps.first().map_or(self.keys[0].db, |(key, _)| self.keys[*key].db);
        let mut before = select(first, conn, db);
        match op.form {
            Form::Plain => {
                let (key, change) = &op.steps[0];
                conn.push(&change.command(*key, &names));
            }
            Form::Mset => {
                let mut args = vec![b"MSET".to_vec()];
                args.extend(op.steps.iter().flat_map(|(key, change)| change.command(*key, &names).split_off(1)));
                conn.push(&args);
            }
            Form::Multi => {
                conn.push(&["MULTI"]);
                before += 1;
                for (key, change) in &op.steps {
                    before += select(self.keys[*key].db, conn, db);
                    conn.push(&change.command(*key, &names));
                    before += 1;
                }
                // Back, so that it does not matter for what follows whether the transaction was refused.
                before += select(first, conn, db);
                conn.push(&["EXEC"]);
            }
            Form::Eval => {
                let mut args = vec![b"EVAL".to_vec(), SCRIPT.into(), op.steps.len().to_string().into()];
                args.extend(op.steps.iter().map(|(key, _)| names[*key].into()));
                for (key, change) in &op.steps {
                    let command = change.command(*key, &names);
                    args.push(command.len().to_string().into());
                    args.extend(command);
                }
                conn.push(&args);
            }
            Form::Flush => conn.push(&["FLUSHDB"]),
        }
        before
    }

    /// The reply to `op` came: whether it has happened, or was refused. The message if it cannot have this reply.
    pub fn replied(&mut self, op: Op, reply: &Reply) -> Result<bool, String> {
        if let Reply::Error(text) = reply
            && is_refusal(text)
        {
            self.note(&op, "refused");
            return Ok(false);
        }
        let expected = op.carry_out(&self.keys, &mut self.state);
        if *reply != expected {
            self.note(&op, "answered wrongly");
            let text = format!("{}: the reply is {reply:?}, not {expected:?}", op.describe(&self.keys));
            return Err(self.violation(&text));
        }
        self.note(&op, "acknowledged");
        if self.tracked {
            self.since.push(op);
        }
        Ok(true)
    }

    /// The connection broke before the reply to `op` came.
    pub fn left_open(&mut self, op: Op) {
        self.note(&op, "sent, not answered");
        self.pending.push(op);
    }

    /// All that is certain has been confirmed by the replicas that a failover may choose from.
    pub fn confirm(&mut self) {
        if !self.since.is_empty() && self.pending.is_empty() {
            self.confirmed.clone_from(&self.state);
            self.since.clear();
        }
    }

    /// Takes what was read of the keys, between two times (unix ms), on the node that has taken all writes since the state was exact: it must
    /// be the state after some first part of what is pending.
    pub fn resolve(&mut self, seen: &[Value], from: u64, to: u64) -> Result<(), String> {
        let mut found = self.matches(seen, from, to).then(|| (0, self.state.clone()));
        let mut state = self.state.clone();
        for (nth, op) in self.pending.iter().enumerate() {
            op.carry_out(&self.keys, &mut state);
            if agree(&state, seen, from, to) {
                found = Some((nth + 1, state.clone()));
            }
        }
        let Some((happened, state)) = found else {
            let pending = self.pending.len();
            return Err(self.violation(&format!(
                "the node holds no state after 0 to {pending} pending operations:\n{}",
                self.compare(seen)
            )));
        };
        self.state = state;
        let pending = std::mem::take(&mut self.pending);
        for (nth, op) in pending.into_iter().enumerate() {
            self.note(&op, if nth < happened { "found to have happened" } else { "found not to have happened" });
            if nth < happened && self.tracked {
                self.since.push(op);
            }
        }
        Ok(())
    }

    /// Takes what was read on a node that was promoted without having everything: each key must be as it was after some first part of what
    /// was done to it since it was last confirmed. Returns the stamps of the acknowledged operations that are lost.
    pub fn rebase(&mut self, seen: &[Value], from: u64, to: u64, epoch: u64) -> Result<Vec<String>, String> {
        let ops: Vec<&Op> = self.since.iter().chain(&self.pending).collect();
        let mut state = self.confirmed.clone();
        // After how many operations each key was last as it is now.
        let mut kept: Vec<Option<usize>> = vec![None; self.keys.len()];
        for done in 0..=ops.len() {
            if done > 0 {
                ops[done - 1].carry_out(&self.keys, &mut state);
            }
            for (key, kept) in kept.iter_mut().enumerate() {
                if state[key].may_be_seen_as(&seen[key], from, to) {
                    *kept = Some(done);
                }
            }
        }
        if let Some(key) = kept.iter().position(Option::is_none) {
            let name = &self.keys[key].name;
            let text = format!(
                "{name} holds, after a failover, no state between what was confirmed and {} operations later:\n{}confirmed: {}",
                ops.len(),
                self.compare(seen),
                self.confirmed[key].describe()
            );
            return Err(self.violation(&text));
        }
        let lost = |nth: usize, op: &Op| match op.form {
            Form::Flush => false,
            _ => op.steps.iter().any(|(key, _)| kept[*key].is_none_or(|kept| kept <= nth)),
        };
        let acknowledged = self.since.iter().enumerate();
        // Only a lost part that has the stamp in it can be found by it.
        let findable = |nth: usize, op: &Op| {
            let gone = |key: &usize| kept[*key].is_none_or(|kept| kept <= nth);
            op.steps.iter().any(|(key, change)| gone(key) && op.is_stamped_in(change, from))
        };
        let stamps = acknowledged.filter(|(nth, op)| findable(*nth, op));
        let stamps: Vec<String> = stamps.map(|(_, op)| stamp(&self.name, op.number)).collect();
        self.state = seen.to_vec();
        self.confirmed.clone_from(&self.state);
        let all = std::mem::take(&mut self.since).into_iter().chain(std::mem::take(&mut self.pending));
        let fates: Vec<_> = all.enumerate().map(|(nth, op)| (lost(nth, &op), op)).collect();
        for (lost, op) in fates {
            if lost {
                self.note(&op, "lost by a failover");
            }
        }
        self.epoch = epoch;
        Ok(stamps)
    }

    /// Whether the keys hold exactly this.
    pub fn matches(&self, seen: &[Value], from: u64, to: u64) -> bool {
        agree(&self.state, seen, from, to)
    }

    /// Each key that differs: what it must hold, and what was seen.
    pub fn compare(&self, seen: &[Value]) -> String {
        let mut text = String::new();
        for ((key, expected), seen) in self.keys.iter().zip(&self.state).zip(seen) {
            if expected != seen {
                let (expected, seen) = (expected.describe(), seen.describe());
                let _ = writeln!(text, "db{} {}\n  must be: {expected}\n  but is:  {seen}", key.db, key.name);
            }
        }
        text
    }

    /// `text` with the history of the family.
    pub fn violation(&self, text: &str) -> String {
        let now = unix_ms();
        let mut all = format!("{text}\nhistory of {}, ms ago:\n", self.name);
        for (at, number, what, outcome) in &self.events {
            let _ = writeln!(all, "{:>8}  n{number} {what}: {outcome}", now.saturating_sub(*at));
        }
        for op in &self.pending {
            let _ = writeln!(all, " pending  n{} {}", op.number, op.describe(&self.keys));
        }
        all
    }

    fn note(&mut self, op: &Op, outcome: &'static str) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back((unix_ms(), op.number, op.describe(&self.keys), outcome));
    }
}

/// Whether an error reply says that the command has not happened, for a reason that a fault may cause.
fn is_refusal(text: &str) -> bool {
    ["READONLY", "LOADING", "EXECABORT"].iter().any(|code| text.starts_with(code))
}

fn agree(state: &[Value], seen: &[Value], from: u64, to: u64) -> bool {
    state.iter().zip(seen).all(|(state, seen)| state.may_be_seen_as(seen, from, to))
}

/// Adds a SELECT where the connection is in another database; how many commands that is.
fn select(wanted: usize, conn: &mut Conn, db: &mut usize) -> usize {
    if *db == wanted {
        return 0;
    }
    conn.push(&["SELECT", &wanted.to_string()]);
    *db = wanted;
    1
}

impl Op {
    /// Carries it out; the reply that it must have.
    fn carry_out(&self, keys: &[Key], values: &mut [Value]) -> Reply {
        if self.form == Form::Flush {
            values.fill(Value::default());
            return Reply::ok();
        }
        let first = keys[self.steps[0].0].db;
        let mut db = first;
        let mut replies = Vec::new();
        for (key, change) in &self.steps {
            if keys[*key].db != db {
                db = keys[*key].db;
                replies.push(Reply::ok());
            }
            replies.push(change.apply(*key, values));
        }
        if db != first {
            replies.push(Reply::ok());
        }
        match self.form {
            Form::Plain => replies.remove(0),
            Form::Mset | Form::Flush => Reply::ok(),
            Form::Multi => Reply::Array(replies),
            Form::Eval => Reply::bulk("done"),
        }
    }

    /// Whether its stamp stands in what the change has left in the log by `now`.
    fn is_stamped_in(&self, change: &Change, now: u64) -> bool {
        match change {
            Change::Set(text) => stamped(text) == Some(self.number),
            // A node that was stopped meanwhile may have come to it when it had expired: then it is logged as a DEL.
            Change::SetUntil(text, at) => *at > now && stamped(text) == Some(self.number),
            Change::RPush(items) => items.iter().any(|item| stamped(item) == Some(self.number)),
            _ => false,
        }
    }

    /// The operation, short.
    fn describe(&self, keys: &[Key]) -> String {
        const SHOWN: usize = 48;
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let step = |(key, change): &(usize, Change)| {
            let words = change.command(*key, &names);
            let words = words.iter().map(|word| word[..word.len().min(SHOWN)].escape_ascii().to_string());
            words.take(6).collect::<Vec<_>>().join(" ")
        };
        let steps = self.steps.iter().map(step).collect::<Vec<_>>().join("; ");
        match self.form {
            Form::Plain => steps,
            form => format!("{form:?} [{steps}]"),
        }
    }
}
