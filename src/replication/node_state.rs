//! What a node remembers about replication: its term, its master, its history, and which slots still need a full sync.
//!
//! Kept in `<dir>/NODE`, replaced whole and durably at each change. Not in the conf file, which several nodes may share and
//! which is the operator's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{self, Replace};

const FILE: &str = "NODE";
const HEADER: &str = "haypile node 1";

/// A slot by database and number.
pub type SlotId = (usize, usize);

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NodeStateError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: malformed line \"{line}\"", path.display())]
    Malformed { path: PathBuf, line: String },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    path: PathBuf,
    /// The term of the records this node writes as a master; grows with each promotion.
    pub term: u32,
    /// Records of this term and later are this node's own. `None` for a replica.
    pub leading_from: Option<u32>,
    /// The `leading_from` of this replica's last time as a master: its log may hold records of that time that nobody else has.
    pub led_from: Option<u32>,
    /// `slaveof … force` was typed, and no master has answered since.
    pub force: bool,
    /// 50 hex digits, shared by all nodes of one history; empty until this node first has a replica or a master.
    pub replication_id: String,
    /// The master.
    pub master: Option<(String, u16)>,
    /// What the conf file said when `master` was set by a command: a conf changed since then wins.
    conf_master: Option<(String, u16)>,
    /// Slots whose data must not be built upon: they take the master's whole before anything else.
    pub full_sync: BTreeSet<SlotId>,
    /// Databases taken out of replication with `dbslaveof dbN no one`.
    pub detached: BTreeSet<usize>,
}

impl NodeState {
    /// Reads the state of the node in `dir`, as it was when it stopped, or begins a new one. `conf_master` is the conf file's
    /// `slaveof`, which a node that is new takes over.
    pub fn load(dir: &Path, conf_master: Option<(String, u16)>) -> Result<NodeState, NodeStateError> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let state = NodeState::new(path, conf_master);
                state.save()?;
                Ok(state)
            }
            Err(source) => Err(NodeStateError::Io { path, source }),
        }
    }

    /// Reads the state of the node in `dir` and changes nothing; `None` where no node ever ran.
    pub fn read(dir: &Path) -> Result<Option<NodeState>, NodeStateError> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(NodeStateError::Io { path, source }),
        }
    }

    /// Goes on after a start, with logs that reach `newest_term`: a `slaveof` in the conf file that changed since it was last looked
    /// at wins over what was typed meanwhile. Durable when it returns.
    pub fn resume(&mut self, newest_term: u32, conf_master: Option<(String, u16)>) -> Result<(), NodeStateError> {
        self.saw_term(newest_term);
        if self.conf_master != conf_master {
            self.conf_master = conf_master.clone();
            self.follow(conf_master);
        }
        self.save()
    }

    fn new(path: PathBuf, master: Option<(String, u16)>) -> NodeState {
        NodeState {
            path,
            term: 1,
            leading_from: master.is_none().then_some(1),
            led_from: None,
            force: false,
            replication_id: String::new(),
            conf_master: master.clone(),
            master,
            full_sync: BTreeSet::new(),
            detached: BTreeSet::new(),
        }
    }

    /// Sets the master, or with `None` makes the node its own. Not durable before [`NodeState::save`].
    pub fn follow(&mut self, master: Option<(String, u16)>) {
        match &master {
            Some(_) => self.led_from = self.leading_from.take().or(self.led_from),
            None if self.leading_from.is_none() => self.lead(),
            None => {}
        }
        self.detached.clear();
        self.force = false;
        self.master = master;
    }

    /// Begins a new term: what this node writes from now on can be told from what its master writes.
    fn lead(&mut self) {
        self.term += 1;
        self.leading_from = Some(self.term);
    }

    /// Takes note of a term found in a log, so that the next promotion goes beyond it.
    pub fn saw_term(&mut self, term: u32) {
        self.term = self.term.max(term);
    }

    /// Makes the state durable.
    pub fn save(&self) -> Result<(), NodeStateError> {
        disk::replace_file(&Replace::NODE, &self.path, self.encode().as_bytes())
            .map_err(|source| NodeStateError::Io { path: self.path.clone(), source })
    }

    fn encode(&self) -> String {
        let address = |a: &Option<(String, u16)>| a.as_ref().map_or(String::new(), |(h, p)| format!("{h} {p}"));
        let term = |t: Option<u32>| t.map_or(String::new(), |t| t.to_string());
        let slots: Vec<String> = self.full_sync.iter().map(|(db, slot)| format!("{db}:{slot}")).collect();
        let detached: Vec<String> = self.detached.iter().map(usize::to_string).collect();
        format!(
            "{HEADER}\nterm : {}\nleading-from : {}\nled-from : {}\nforce : {}\nreplication-id : {}\nslaveof : {}\n\
             slaveof-in-conf : {}\nfull-sync : {}\ndetached : {}\n",
            self.term,
            term(self.leading_from),
            term(self.led_from),
            if self.force { "yes" } else { "no" },
            self.replication_id,
            address(&self.master),
            address(&self.conf_master),
            slots.join(" "),
            detached.join(" "),
        )
    }
}

fn parse(path: &Path, text: &str) -> Result<NodeState, NodeStateError> {
    let malformed = |line: &str| NodeStateError::Malformed { path: path.to_path_buf(), line: line.to_string() };
    let mut state = NodeState::new(path.to_path_buf(), None);
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(malformed(text.lines().next().unwrap_or_default()));
    }
    for line in lines {
        let (key, value) = line.split_once(" :").map(|(k, v)| (k, v.trim())).ok_or_else(|| malformed(line))?;
        let known = match key {
            "term" => value.parse().map(|t| state.term = t).is_ok(),
            "leading-from" => optional(value).map(|v| state.leading_from = v).is_some(),
            "led-from" => optional(value).map(|v| state.led_from = v).is_some(),
            "force" => {
                state.force = value == "yes";
                matches!(value, "yes" | "no")
            }
            "replication-id" => {
                state.replication_id = value.to_string();
                true
            }
            "slaveof" => address(value).map(|v| state.master = v).is_some(),
            "slaveof-in-conf" => address(value).map(|v| state.conf_master = v).is_some(),
            "full-sync" => value
                .split_whitespace()
                .map(|s| s.split_once(':').and_then(|(db, slot)| Some((db.parse().ok()?, slot.parse().ok()?))))
                .collect::<Option<_>>()
                .map(|v| state.full_sync = v)
                .is_some(),
            "detached" => {
                let parsed: Result<_, _> = value.split_whitespace().map(str::parse).collect();
                parsed.map(|v| state.detached = v).is_ok()
            }
            _ => false,
        };
        if !known {
            return Err(malformed(line));
        }
    }
    Ok(state)
}

fn optional(value: &str) -> Option<Option<u32>> {
    if value.is_empty() { Some(None) } else { value.parse().ok().map(Some) }
}

fn address(value: &str) -> Option<Option<(String, u16)>> {
    if value.is_empty() {
        return Some(None);
    }
    let (host, port) = value.split_once(' ')?;
    Some(Some((host.to_string(), port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_and_grows_terms() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = NodeState::load(dir.path(), None).unwrap();
        assert_eq!((state.term, state.leading_from), (1, Some(1)));
        state.follow(Some(("10.0.0.1".into(), 9221)));
        assert_eq!((state.leading_from, state.led_from), (None, Some(1)));
        state.saw_term(4);
        state.force = true;
        state.replication_id = "ab".into();
        state.full_sync.extend([(0, 1), (15, 3)]);
        state.detached.insert(2);
        state.save().unwrap();
        let mut again = NodeState::load(dir.path(), None).unwrap();
        assert_eq!(again, state);
        again.follow(None);
        assert_eq!((again.term, again.leading_from), (5, Some(5)));
        again.follow(None);
        assert_eq!(again.term, 5, "already leading");
    }

    #[test]
    fn a_changed_conf_wins_an_unchanged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Some(("a".to_string(), 1)), Some(("b".to_string(), 2)));
        let started = |conf: &Option<(String, u16)>, newest| {
            let mut state = NodeState::load(dir.path(), conf.clone()).unwrap();
            state.resume(newest, conf.clone()).unwrap();
            state
        };
        let mut state = started(&a, 0);
        assert_eq!(state.master, a);
        state.follow(None);
        state.save().unwrap();
        assert_eq!(started(&a, 0).master, None);
        assert_eq!(started(&b, 0).master, b);
        // Promoted by the conf file: beyond every term in the logs.
        let state = started(&None, 7);
        assert_eq!((state.master, state.term, state.leading_from), (None, 8, Some(8)));
    }

    #[test]
    fn garbage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "haypile node 2\n", "haypile node 1\nterm : x\n", "haypile node 1\nwhat : 1\n"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(NodeState::load(dir.path(), None).is_err(), "{text:?}");
        }
    }
}
