//! What a power cut leaves of a folder, rebuilt from the trace of the faulty disk that stood under it.
//!
//! What survives a cut, by the strict reading of POSIX:
//!
//! - the bytes of a file that were written before an fsync or fdatasync of it began which succeeded,
//! - the entries of a folder that were made, replaced or removed before an fsync of that folder, and nothing by an fsync of the file,
//! - of all the rest, what [`Survivors`] says. At random: each block of a file is as it was after any one of the writes to it since
//!   the last sync, whatever became of other blocks, and the file has one of its lengths since then; each name has one of its
//!   meanings since then. Only a rename never loses a file: its old name goes when the new one is there.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes of an event before its paths and data.
const EVENT_LEN: usize = 40;

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    Nothing,
    Everything,
    /// A random part, in blocks of so many bytes.
    Random {
        block: usize,
    },
}

/// One thing that happened to a file since it was last synced.
#[derive(Clone)]
enum Change {
    Write { at: usize, data: std::rc::Rc<[u8]> },
    Length(usize),
}

#[derive(Default)]
struct Node {
    /// Durable bytes of a file.
    durable: Vec<u8>,
    /// In order.
    pending: Vec<Change>,
    is_dir: bool,
    entries: HashMap<String, Entry>,
}

/// One name in a folder.
#[derive(Default)]
struct Entry {
    durable: Option<usize>,
    /// What it came to mean since, and with which change.
    pending: Vec<(Option<usize>, u64)>,
}

impl Entry {
    fn now(&self) -> Option<usize> {
        self.pending.last().map_or(self.durable, |(node, _)| *node)
    }
}

/// A sync under way: what it covers.
enum Covered {
    File { node: usize, changes: usize },
    Folder { node: usize, until: u64 },
}

/// Follows a trace up to a point, and rebuilds the folder as a power cut there would leave it.
pub struct PowerCut<'t> {
    trace: &'t [u8],
    at: usize,
    nodes: Vec<Node>,
    /// Files by inode number; a number is given again when its file is gone.
    inodes: HashMap<u64, usize>,
    syncs: HashMap<u64, Covered>,
    /// Counts changes of names.
    clock: u64,
    /// By change: the one of a rename that gives the new name, by the one that takes the old.
    renames: HashMap<u64, (usize, String)>,
}

const ROOT: usize = 0;

impl<'t> PowerCut<'t> {
    /// At the beginning of the trace of a folder that was empty.
    pub fn new(trace: &'t [u8]) -> PowerCut<'t> {
        let root = Node { is_dir: true, ..Node::default() };
        PowerCut {
            trace,
            at: 0,
            nodes: vec![root],
            inodes: HashMap::new(),
            syncs: HashMap::new(),
            clock: 0,
            renames: HashMap::new(),
        }
    }

    /// Goes on to the last whole event before `to`, a length of the trace.
    pub fn advance(&mut self, to: u64) {
        let to = (to as usize).min(self.trace.len());
        while self.at + EVENT_LEN <= to {
            let event = Event::parse(&self.trace[self.at..]);
            if self.at + event.size > to {
                return;
            }
            self.at += event.size;
            self.follow(event);
        }
    }

    fn follow(&mut self, event: Event<'t>) {
        match event.kind {
            Kind::Open if event.flag => {
                let node = self.new_node(false);
                self.inodes.insert(event.inode, node);
                self.name(event.path, Some(node));
            }
            Kind::Open => {
                if let Some(node) = self.find(event.path) {
                    self.inodes.insert(event.inode, node);
                }
            }
            Kind::Truncate => self.change(event.inode, Change::Length(event.at as usize)),
            Kind::Write => self.change(event.inode, Change::Write { at: event.at as usize, data: event.data.into() }),
            Kind::SyncBegin => {
                let covered = if event.flag {
                    self.find(event.path).map(|node| Covered::Folder { node, until: self.clock })
                } else {
                    let node = self.inodes.get(&event.inode).copied();
                    node.map(|node| Covered::File { node, changes: self.nodes[node].pending.len() })
                };
                self.syncs.extend(covered.map(|covered| (event.at, covered)));
            }
            Kind::SyncEnd => match self.syncs.remove(&event.at) {
                Some(Covered::File { node, changes }) => self.synced(node, changes),
                Some(Covered::Folder { node, until }) => {
                    for entry in self.nodes[node].entries.values_mut() {
                        let changes = entry.pending.partition_point(|(_, clock)| *clock <= until);
                        if let Some((meaning, _)) = entry.pending.drain(..changes).next_back() {
                            entry.durable = meaning;
                        }
                    }
                }
                None => {}
            },
            Kind::Rename => {
                let Some(node) = self.find(event.path) else { return };
                self.name(event.other, Some(node));
                self.name(event.path, None);
                let (folder, name) = self.place(event.other);
                self.renames.insert(self.clock, (folder, name.to_string()));
            }
            Kind::Link => {
                if let Some(node) = self.find(event.path) {
                    self.name(event.other, Some(node));
                }
            }
            Kind::Unlink | Kind::Rmdir => self.name(event.path, None),
            Kind::Mkdir => {
                let node = self.new_node(true);
                self.name(event.path, Some(node));
            }
        }
    }

    fn new_node(&mut self, is_dir: bool) -> usize {
        self.nodes.push(Node { is_dir, ..Node::default() });
        self.nodes.len() - 1
    }

    fn change(&mut self, inode: u64, change: Change) {
        if let Some(node) = self.inodes.get(&inode) {
            self.nodes[*node].pending.push(change);
        }
    }

    fn synced(&mut self, node: usize, changes: usize) {
        let Node { durable, pending, .. } = &mut self.nodes[node];
        // A sync that ended meanwhile has taken some already; a later one covers them all.
        for change in pending.drain(..changes.min(pending.len())) {
            apply(durable, &change);
        }
        for covered in self.syncs.values_mut() {
            if let Covered::File { node: other, changes: left } = covered
                && *other == node
            {
                *left = left.saturating_sub(changes);
            }
        }
    }

    fn place<'p>(&self, path: &'p str) -> (usize, &'p str) {
        match path.rsplit_once('/') {
            Some((folder, name)) => (self.find(folder).unwrap_or(usize::MAX), name),
            None => (ROOT, path),
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .try_fold(ROOT, |node, part| self.nodes[node].entries.get(part)?.now())
    }

    fn name(&mut self, path: &str, node: Option<usize>) {
        let (folder, name) = self.place(path);
        self.clock += 1;
        let clock = self.clock;
        if let Some(folder) = self.nodes.get_mut(folder) {
            folder.entries.entry(name.to_string()).or_default().pending.push((node, clock));
        }
    }

    /// The ends of all events, and whether each is a mere write.
    pub fn moments(trace: &[u8]) -> Vec<(u64, bool)> {
        let (mut at, mut moments) = (0, Vec::new());
        while at + EVENT_LEN <= trace.len() {
            let event = Event::parse(&trace[at..]);
            at += event.size;
            if at <= trace.len() {
                moments.push((at as u64, event.kind == Kind::Write));
            }
        }
        moments
    }

    /// Makes in the empty or missing folder `into` what a cut at this point leaves.
    pub fn rebuild(&self, into: &Path, survivors: Survivors, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = self.choose_names(survivors, &mut rng);
        fs::create_dir_all(into).expect("a folder");
        let mut made = HashMap::new();
        self.rebuild_folder(ROOT, into, &chosen, survivors, &mut rng, &mut made);
    }

    /// How many of each name's pending meanings have come true.
    fn choose_names(&self, survivors: Survivors, rng: &mut StdRng) -> BTreeMap<(usize, String), usize> {
        let mut chosen = BTreeMap::new();
        for (folder, node) in self.nodes.iter().enumerate() {
            let mut names: Vec<_> = node.entries.iter().collect();
            names.sort_by_key(|(name, _)| *name);
            for (name, entry) in names {
                let count = match survivors {
                    Survivors::Nothing => 0,
                    Survivors::Everything => entry.pending.len(),
                    Survivors::Random { .. } => rng.random_range(0..=entry.pending.len()),
                };
                chosen.insert((folder, name.clone()), count);
            }
        }
        // What a rename took away must be where it went to.
        loop {
            let mut moved = Vec::new();
            for ((folder, name), count) in &chosen {
                let pending = &self.nodes[*folder].entries[name].pending;
                for (_, clock) in &pending[..*count] {
                    let Some((to_folder, to_name)) = self.renames.get(clock) else { continue };
                    let Some(to) = self.nodes.get(*to_folder).and_then(|n| n.entries.get(to_name)) else { continue };
                    let at = to.pending.iter().position(|(_, c)| *c + 1 == *clock);
                    let key = (*to_folder, to_name.clone());
                    if at.is_some_and(|at| chosen[&key] <= at) {
                        moved.push((key, at.unwrap_or(0) + 1));
                    }
                }
            }
            if moved.is_empty() {
                return chosen;
            }
            chosen.extend(moved);
        }
    }

    fn rebuild_folder(
        &self,
        folder: usize,
        into: &Path,
        chosen: &BTreeMap<(usize, String), usize>,
        survivors: Survivors,
        rng: &mut StdRng,
        made: &mut HashMap<usize, PathBuf>,
    ) {
        let mut names: Vec<_> = self.nodes[folder].entries.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        for (name, entry) in names {
            let count = chosen[&(folder, name.clone())];
            let meaning = count.checked_sub(1).map_or(entry.durable, |last| entry.pending[last].0);
            let Some(node) = meaning else { continue };
            let path = into.join(name);
            if self.nodes[node].is_dir {
                fs::create_dir_all(&path).expect("a folder");
                self.rebuild_folder(node, &path, chosen, survivors, rng, made);
            } else if let Some(there) = made.get(&node) {
                fs::hard_link(there, &path).expect("a link");
            } else {
                fs::write(&path, self.nodes[node].after_cut(survivors, rng)).expect("a file");
                made.insert(node, path);
            }
        }
    }
}

impl Node {
    fn after_cut(&self, survivors: Survivors, rng: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match survivors {
            Survivors::Nothing => {}
            Survivors::Everything => self.pending.iter().for_each(|change| apply(&mut bytes, change)),
            Survivors::Random { block } => self.at_random(&mut bytes, block, rng),
        }
        bytes
    }

    fn at_random(&self, bytes: &mut Vec<u8>, block: usize, rng: &mut StdRng) {
        // The length after each change, and which changes cut the file.
        let mut lengths = vec![bytes.len()];
        let mut cuts = Vec::new();
        for (nth, change) in self.pending.iter().enumerate() {
            let before = lengths[nth];
            lengths.push(match change {
                Change::Length(len) => {
                    if *len < before {
                        cuts.push(nth);
                    }
                    *len
                }
                Change::Write { at, data } => before.max(at + data.len()),
            });
        }
        let length_of = rng.random_range(0..lengths.len());
        let length = lengths[length_of];
        // Nothing from before a cut that has happened, nothing written behind one that has not.
        let from = cuts.iter().copied().filter(|cut| *cut < length_of).max();
        let until = cuts.iter().copied().find(|cut| *cut >= length_of).unwrap_or(self.pending.len());
        let mut result = vec![0; length];
        for start in (0..length).step_by(block) {
            let end = (start + block).min(length);
            let touching: Vec<usize> = (0..until)
                .filter(|nth| match &self.pending[*nth] {
                    Change::Write { at, data } => *at < end && at + data.len() > start,
                    Change::Length(_) => from.is_some_and(|cut| *nth <= cut),
                })
                .collect();
            let least = touching.iter().filter(|nth| from.is_some_and(|cut| **nth <= cut)).count();
            let count = rng.random_range(least..=touching.len());
            let piece = &mut result[start..end];
            let old = bytes.get(start..end.min(bytes.len())).unwrap_or_default();
            piece[..old.len()].copy_from_slice(old);
            for nth in &touching[..count] {
                match &self.pending[*nth] {
                    Change::Length(len) => piece[len.saturating_sub(start).min(end - start)..].fill(0),
                    Change::Write { at, data } => {
                        let (low, high) = ((*at).max(start), (at + data.len()).min(end));
                        piece[low - start..high - start].copy_from_slice(&data[low - at..high - at]);
                    }
                }
            }
        }
        *bytes = result;
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(len) => bytes.resize(*len, 0),
        Change::Write { at, data } => {
            let end = at + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(data);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Truncate,
    Write,
    SyncBegin,
    SyncEnd,
    Rename,
    Link,
    Unlink,
    Mkdir,
    Rmdir,
}

/// `struct event` of `faulty_disk.c`, with what follows it.
struct Event<'t> {
    size: usize,
    kind: Kind,
    flag: bool,
    inode: u64,
    at: u64,
    path: &'t str,
    other: &'t str,
    data: &'t [u8],
}

impl<'t> Event<'t> {
    fn parse(bytes: &'t [u8]) -> Event<'t> {
        let short = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let size = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
        let kinds = [
            Kind::Open,
            Kind::Truncate,
            Kind::Write,
            Kind::SyncBegin,
            Kind::SyncEnd,
            Kind::Rename,
            Kind::Link,
            Kind::Unlink,
            Kind::Mkdir,
            Kind::Rmdir,
        ];
        let path_end = EVENT_LEN + short(6) as usize;
        let other_end = path_end + short(8) as usize;
        let text = |range| std::str::from_utf8(bytes.get(range).unwrap_or_default()).expect("a path");
        Event {
            size,
            kind: kinds[short(4) as usize - 1],
            flag: short(10) != 0,
            inode: long(16),
            at: long(24),
            path: text(EVENT_LEN..path_end),
            other: text(path_end..other_end),
            data: bytes.get(other_end..size).unwrap_or_default(),
        }
    }
}
