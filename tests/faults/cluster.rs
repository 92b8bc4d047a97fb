//! Three nodes, a link between each two, and who is to follow whom.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::sync::Position;
use crate::common::{Conn, DEADLINE, Link, Node, NodeOptions, Reply};

/// A replica each, and a replica of the replica, or two of the master.
pub const NODES: usize = 3;

/// How long a clean stop may take on a busy machine.
const STOP: Duration = Duration::from_secs(60);

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up,
    /// Started, and has not answered yet.
    Starting,
    /// Under SIGSTOP.
    Paused,
    /// Under SIGTERM.
    Stopping,
    Down,
}

/// What a node may lack of that which others have confirmed to a client, since it was told whom to follow. Being connected says nothing of it: a
/// node is that as soon as its slots stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lacks {
    Anything,
    /// Nothing any more, as soon as it has the master's log up to here, slot by slot.
    Until(BTreeMap<String, Position>),
    Nothing,
}

/// One node and what it was told.
pub struct Member {
    pub node: Node,
    pub health: Health,
    /// Since when its health is what it is.
    since: Instant,
    /// Whom it was told to follow last.
    told: Option<usize>,
    /// Whom it is to follow; it is told when it is up, and not before `hold`.
    wanted: Option<usize>,
    hold: Instant,
    lacks: Lacks,
}

/// See the module.
pub struct Cluster {
    pub members: Vec<Member>,
    /// From the second to the first.
    links: Vec<Vec<Link>>,
    pub master: usize,
}

impl Cluster {
    /// Nodes that are up; none follows another yet.
    pub fn start(options: &NodeOptions) -> Cluster {
        let member = |_| Member {
            node: options.clone().start(),
            health: Health::Up,
            since: Instant::now(),
            told: None,
            wanted: None,
            hold: Instant::now(),
            lacks: Lacks::Anything,
        };
        let members: Vec<Member> = (0..NODES).map(member).collect();
        let links = members.iter().map(|to| (0..NODES).map(|_| Link::to(&to.node)).collect());
        Cluster { links: links.collect(), members, master: 0 }
    }

    pub fn health(&self, node: usize) -> Health {
        self.members[node].health
    }

    pub fn port(&self, node: usize) -> u16 {
        self.members[node].node.port()
    }

    /// The link by which `from` reaches `to`.
    pub fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[to][from]
    }

    /// Whom a node is to follow.
    pub fn upstream(&self, node: usize) -> Option<usize> {
        self.members[node].wanted
    }

    /// Those that are to follow a node.
    pub fn followers(&self, node: usize) -> Vec<usize> {
        (0..NODES).filter(|follower| self.members[*follower].wanted == Some(node)).collect()
    }

    /// Lets a node follow another one, as soon as it is up and `after` has passed.
    pub fn follow(&mut self, node: usize, upstream: usize, after: Duration) {
        let member = &mut self.members[node];
        member.wanted = Some(upstream);
        member.hold = Instant::now() + after;
        member.lacks = Lacks::Anything;
    }

    /// Lets a node get all data anew, if it takes the command.
    pub fn sync_again(&mut self, node: usize, upstream: usize) {
        self.members[node].lacks = Lacks::Anything;
        let port = self.link(node, upstream).port();
        self.tell(node, &format!("SLAVEOF 127.0.0.1 {port} FORCE"));
    }

    /// Makes a node that is up the master.
    #[track_caller]
    pub fn promote(&mut self, node: usize) {
        let reply = self.tell(node, "SLAVEOF NO ONE");
        assert_eq!(reply, Some(Reply::ok()), "promoting node {}", self.port(node));
        let member = &mut self.members[node];
        (member.told, member.wanted) = (None, None);
        self.master = node;
    }

    /// One command to a node that is up; `None` if the connection broke.
    pub fn tell(&self, node: usize, line: &str) -> Option<Reply> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Conn::try_to(self.port(node)).and_then(|mut conn| conn.try_call(&words)).ok()
    }

    fn set(&mut self, node: usize, health: Health) {
        let member = &mut self.members[node];
        (member.health, member.since) = (health, Instant::now());
    }

    /// SIGKILL, whatever the node is doing.
    pub fn kill(&mut self, node: usize) {
        self.members[node].node.kill9();
        self.set(node, Health::Down);
    }

    /// Starts a node and does not wait.
    pub fn spawn(&mut self, node: usize) {
        self.members[node].node.spawn();
        self.set(node, Health::Starting);
    }

    /// SIGSTOP.
    pub fn pause(&mut self, node: usize) {
        self.members[node].node.signal(Signal::SIGSTOP);
        self.set(node, Health::Paused);
    }

    /// SIGCONT.
    pub fn resume(&mut self, node: usize) {
        self.members[node].node.signal(Signal::SIGCONT);
        self.set(node, Health::Up);
    }

    /// SIGTERM.
    pub fn stop(&mut self, node: usize) {
        self.members[node].node.signal(Signal::SIGTERM);
        self.set(node, Health::Stopping);
    }

    /// Takes note of what has happened to the processes, and tells those that came up whom to follow. Panics when one ended that was not
    /// to end, or does not come up or end as it should.
    #[track_caller]
    pub fn poll(&mut self) {
        for node in 0..NODES {
            let has_place = self.has_place(self.members[node].wanted);
            let member = &mut self.members[node];
            let port = member.node.port();
            match member.health {
                Health::Up => {
                    assert!(member.node.exited().is_none(), "node {port} ended by itself: {:?}", member.node.exited());
                    if member.told != member.wanted && Instant::now() >= member.hold && has_place {
                        self.tell_upstream(node);
                    }
                }
                Health::Starting if member.node.answers() => self.set(node, Health::Up),
                Health::Starting => assert!(member.since.elapsed() < DEADLINE, "node {port} does not start"),
                Health::Stopping if member.node.exited().is_some() => {
                    let status = member.node.wait_exit();
                    assert!(status.success(), "a clean stop of node {port} ended with {status}");
                    self.set(node, Health::Down);
                }
                Health::Stopping => assert!(member.since.elapsed() < STOP, "node {port} does not stop"),
                Health::Paused | Health::Down => {}
            }
        }
    }

    /// Whether a node is the master, or knows that it is not. One that was it, and has yet to be told, would take those that follow it back
    /// to where it stands.
    fn has_place(&self, node: Option<usize>) -> bool {
        node.is_some_and(|node| node == self.master || self.members[node].told.is_some())
    }

    fn tell_upstream(&mut self, node: usize) {
        let Some(upstream) = self.members[node].wanted else { return };
        let port = self.link(node, upstream).port();
        match self.tell(node, &format!("SLAVEOF 127.0.0.1 {port}")) {
            Some(Reply::Simple(_)) => self.members[node].told = Some(upstream),
            Some(other) => panic!("node {}: SLAVEOF answers {other:?}", self.port(node)),
            None => {}
        }
    }

    /// Whether a node is up and all its slots stream from whom it is to follow.
    pub fn is_connected(&self, node: usize) -> bool {
        let member = &self.members[node];
        let Some(upstream) = member.wanted else { return false };
        if member.health != Health::Up || member.told != member.wanted {
            return false;
        }
        let seen = member.node.replication();
        seen.is_connected() && seen.number("master_port") == u64::from(self.link(node, upstream).port())
    }

    /// Whether a replica that is connected to the master has all of it, now that nobody writes.
    pub fn has_all(&self, node: usize) -> bool {
        let both = [self.master, node].map(|one| self.members[one].node.replication());
        self.is_connected(node) && both[0].positions() == both[1].positions()
    }

    /// Takes note of which nodes have caught up with the master since they were told to follow. What was confirmed before that is in the
    /// master's log when it is asked, so one that has this much of it lacks none of that; what is confirmed later, it has had a part in.
    pub fn note_progress(&mut self) {
        for node in (0..NODES).filter(|node| *node != self.master) {
            if self.members[node].lacks == Lacks::Nothing || !self.is_connected(node) {
                continue;
            }
            let positions = |node: usize| {
                let seen = self.members[node].node.replication();
                seen.positions()
                    .into_iter()
                    .map(|(slot, position)| (slot.to_string(), position))
                    .collect::<BTreeMap<_, _>>()
            };
            let lacks = match &self.members[node].lacks {
                Lacks::Anything if self.health(self.master) == Health::Up => Lacks::Until(positions(self.master)),
                Lacks::Until(aim) => {
                    let has = positions(node);
                    if aim.iter().any(|(slot, position)| has.get(slot) < Some(position)) {
                        continue;
                    }
                    Lacks::Nothing
                }
                Lacks::Anything | Lacks::Nothing => continue,
            };
            self.members[node].lacks = lacks;
        }
    }

    /// The master's replicas that have all that was confirmed, as far as is known: a failover chooses from these.
    pub fn successors(&self) -> Vec<usize> {
        let mut nodes = self.followers(self.master);
        nodes.retain(|node| self.members[*node].lacks == Lacks::Nothing && self.is_connected(*node));
        nodes
    }

    /// How many replicas a write has reached when it has reached every node that a failover may promote; `None` while others count too, or
    /// not all of them.
    pub fn confirming(&self) -> Option<usize> {
        if self.health(self.master) != Health::Up {
            return None;
        }
        let seen = self.members[self.master].node.replication();
        let port = |nth: u64| {
            // One without slots has left, and confirms nothing.
            seen.groups(&format!("slave{nth}_slots")).first()?;
            let line = seen.field(&format!("slave{nth}")).to_string();
            line.split(',').find_map(|part| part.strip_prefix("port="))?.parse::<u16>().ok()
        };
        let mut registered: Vec<_> = (0..seen.number("connected_slaves")).filter_map(port).collect();
        let mut followers: Vec<u16> = self.followers(self.master).into_iter().map(|node| self.port(node)).collect();
        registered.sort_unstable();
        followers.sort_unstable();
        (!followers.is_empty() && registered == followers).then_some(followers.len())
    }

    /// Whether every node is up and was told whom to follow.
    pub fn is_healed(&self) -> bool {
        self.members.iter().all(|member| member.health == Health::Up && member.told == member.wanted)
    }
}
