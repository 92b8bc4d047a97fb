//! What the replication tests ask a node, and what they wait for.

use std::collections::{BTreeMap, HashMap};

use super::{DEADLINE, Node, Reply, wait_for, wait_some};

/// A position in a slot's binlog: file number and offset.
pub type Position = (u64, u64);

/// INFO replication, taken apart.
pub struct Replication {
    /// As it came.
    pub text: String,
    fields: HashMap<String, String>,
}

impl Replication {
    /// A field's value, empty when it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// A field that is a number, 0 when it is not there.
    pub fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }

    /// `db_repl_state:(db0:0:Connected)…`: slot and state.
    pub fn states(&self) -> Vec<(&str, &str)> {
        self.groups("db_repl_state")
    }

    /// Whether the node is a replica all of whose slots are Connected.
    pub fn is_connected(&self) -> bool {
        let states = self.states();
        self.field("master_link_status") == "up"
            && !states.is_empty()
            && states.iter().all(|(_, state)| *state == "Connected")
    }

    /// A value made of `(db0:1:text)` groups: slot and text.
    pub fn groups(&self, name: &str) -> Vec<(&str, &str)> {
        let groups = self.field(name).split_terminator(')');
        let groups = groups.map(|group| group.trim_start_matches([',', ' ', '(']));
        groups.filter_map(split_slot).collect()
    }

    /// The position of each slot, from the lines `db0:0 binlog_offset=1 2,safety_purge=…`.
    pub fn positions(&self) -> BTreeMap<&str, Position> {
        let lines = self.text.lines();
        lines
            .filter_map(|line| {
                let (slot, rest) = line.split_once(" binlog_offset=")?;
                let (file, rest) = rest.split_once(' ')?;
                let (offset, _) = rest.split_once(',').unwrap_or((rest, ""));
                Some((slot, (file.parse().ok()?, offset.parse().ok()?)))
            })
            .collect()
    }
}

/// Splits `db0:1:text` after the slot's number.
fn split_slot(group: &str) -> Option<(&str, &str)> {
    let (second, _) = group.match_indices(':').nth(1)?;
    Some((&group[..second], &group[second + 1..]))
}

impl Node {
    /// INFO of one section, its `field:value` lines.
    #[track_caller]
    pub fn info(&self, section: &str) -> HashMap<String, String> {
        fields(&self.run(&format!("INFO {section}")).text())
    }

    /// INFO replication.
    #[track_caller]
    pub fn replication(&self) -> Replication {
        let text = self.run("INFO replication").text();
        Replication { fields: fields(&text), text }
    }

    /// A number of INFO stats, 0 when it is not there.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.info("stats");
        stats.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// How many slots this replica has synchronized in full since it started.
    #[track_caller]
    pub fn full_syncs(&self) -> u64 {
        self.replication().number("slave_full_syncs")
    }

    /// How many slots this replica has joined to its master without a full sync.
    #[track_caller]
    pub fn partial_syncs(&self) -> u64 {
        self.replication().number("slave_partial_syncs")
    }

    /// DEBUG DIGEST.
    #[track_caller]
    pub fn digest(&self) -> String {
        self.run("DEBUG DIGEST").text()
    }

    /// `SLAVEOF 127.0.0.1 port`.
    #[track_caller]
    pub fn slaveof(&self, port: u16) {
        self.run(&format!("SLAVEOF 127.0.0.1 {port}")).expect_ok();
    }

    /// `SLAVEOF NO ONE`.
    #[track_caller]
    pub fn slaveof_no_one(&self) {
        self.run("SLAVEOF NO ONE").expect_ok();
    }

    /// Every key of every database with its value, for a message about two nodes that differ.
    fn contents(&self) -> HashMap<(usize, String), Reply> {
        let mut conn = self.conn();
        let mut all = HashMap::new();
        for db in 0.. {
            if conn.call(&["SELECT", &db.to_string()]).is_error() {
                return all;
            }
            for key in conn.run("KEYS *").items() {
                let value = conn.call(&[b"GET".as_slice(), key.bytes()]);
                all.insert((db, key.bytes().escape_ascii().to_string()), value);
            }
        }
        all
    }
}

fn fields(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Waits until every slot of a replica is Connected.
#[track_caller]
pub fn wait_connected(replica: &Node) {
    let connected = || replica.replication().is_connected();
    guarded("every slot to be Connected", connected, |what| format!("{what}\n{}", replica.replication().text));
}

/// Waits until a replica's binlogs end where its master's do. The master must be at rest.
#[track_caller]
pub fn wait_caught_up(master: &Node, replica: &Node) {
    let caught_up = || {
        let (ours, theirs) = (master.replication(), replica.replication());
        !ours.positions().is_empty() && ours.positions() == theirs.positions()
    };
    guarded("equal positions", caught_up, |what| {
        let (ours, theirs) = (master.replication().text, replica.replication().text);
        format!("{what}\nmaster:\n{ours}\nreplica:\n{theirs}")
    });
}

/// Waits until two nodes hold the same data. Both must be at rest but for replication.
#[track_caller]
pub fn wait_equal_digest(a: &Node, b: &Node) {
    guarded("equal digests", || a.digest() == b.digest(), |what| format!("{what}\n{}", difference(a, b)));
}

/// Waits until a replica is connected, has caught up and holds its master's data.
#[track_caller]
pub fn wait_synced(master: &Node, replica: &Node) {
    wait_connected(replica);
    wait_caught_up(master, replica);
    wait_equal_digest(master, replica);
}

/// Waits until a replica gives a reason why it cannot follow its master; the reason.
#[track_caller]
pub fn wait_link_error(replica: &Node) -> String {
    wait_some("a reason in master_link_error", DEADLINE, || {
        let seen = replica.replication();
        let reason = seen.field("master_link_error").trim();
        (!reason.is_empty()).then(|| reason.to_string())
    })
}

/// [`wait_for`] with a message made when the wait was in vain.
#[track_caller]
fn guarded(what: &str, mut condition: impl FnMut() -> bool, explain: impl FnOnce(&str) -> String) {
    let start = std::time::Instant::now();
    while !condition() {
        if start.elapsed() > DEADLINE {
            panic!("{}", explain(&format!("waited {:?} in vain for {what}", start.elapsed())));
        }
        std::thread::sleep(super::POLL);
    }
}

/// The first keys that differ, and where both nodes stand.
fn difference(a: &Node, b: &Node) -> String {
    const SHOWN: usize = 10;
    let (ours, theirs) = (a.contents(), b.contents());
    let keys = ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(key)));
    let mut lines: Vec<String> = keys
        .filter(|key| ours.get(key) != theirs.get(key))
        .take(SHOWN)
        .map(|key| format!("db{} {}: {:?} / {:?}", key.0, key.1, ours.get(key), theirs.get(key)))
        .collect();
    lines.push(format!("keys: {} / {}", ours.len(), theirs.len()));
    lines.push(format!("{}:\n{}", a.port(), a.replication().text));
    lines.push(format!("{}:\n{}", b.port(), b.replication().text));
    lines.join("\n")
}
