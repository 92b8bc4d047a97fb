//! What happens to a cluster under load, from a seed: one fault after the other, most of them mended after a while.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::cluster::{Cluster, Health, NODES};
use crate::common::History;
use crate::common::link::{Kind, Schedule};

const TICK: Duration = Duration::from_millis(5);
/// How often the nodes are asked whether they follow each other.
const LOOK: Duration = Duration::from_millis(150);
/// What a switchover waits for everything to be drained; then it is called off.
const DRAIN: Duration = Duration::from_secs(10);

/// Faults of links. Flips are left out: [`crate::common::link`] has tests of its own for those.
const LINK_FAULTS: [Kind; 5] = [Kind::Cut, Kind::Stall, Kind::Delay, Kind::Throttle, Kind::HalfClose];

#[derive(Clone, Copy, Debug)]
enum Action {
    Kill,
    Pause,
    Stop,
    Link,
    FullSync,
    Save,
    Failover,
    Switchover,
    Repoint,
    Configure,
}

/// How often each is chosen, of a hundred.
const ACTIONS: [(Action, u32); 10] = [
    (Action::Kill, 24),
    (Action::Pause, 12),
    (Action::Stop, 6),
    (Action::Link, 22),
    (Action::FullSync, 8),
    (Action::Save, 6),
    (Action::Failover, 7),
    (Action::Switchover, 5),
    (Action::Repoint, 6),
    (Action::Configure, 4),
];

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Start(usize),
    /// Kills it if it is still starting, and starts it again.
    KillStarting(usize),
    Kill(usize),
    Resume(usize),
    /// The link from the first to the second.
    Restore(usize, usize),
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub kills: u64,
    pub kills_starting: u64,
    pub pauses: u64,
    pub stops: u64,
    pub links: u64,
    pub full_syncs: u64,
    pub saves: u64,
    pub failovers: u64,
    pub switchovers: u64,
    pub repoints: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { kills, kills_starting, pauses, stops, links, .. } = self;
        write!(
            f,
            "{kills} kills ({kills_starting} while starting), {pauses} pauses, {stops} stops, {links} link faults, "
        )?;
        let Counts { full_syncs, saves, failovers, switchovers, repoints, .. } = self;
        write!(
            f,
            "{full_syncs} full syncs, {saves} saves, {failovers} failovers, {switchovers} switchovers, {repoints} moves"
        )
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.kills += other.kills;
        self.kills_starting += other.kills_starting;
        self.pauses += other.pauses;
        self.stops += other.stops;
        self.links += other.links;
        self.full_syncs += other.full_syncs;
        self.saves += other.saves;
        self.failovers += other.failovers;
        self.switchovers += other.switchovers;
        self.repoints += other.repoints;
    }
}

/// What was done; printed when the test fails.
#[derive(Default)]
pub struct Deeds {
    pub counts: Counts,
    log: Vec<String>,
}

/// Who harms the cluster.
pub struct Nemesis<'c> {
    cluster: &'c mut Cluster,
    history: &'c History,
    rng: StdRng,
    begun: Instant,
    due: Vec<(Instant, Then)>,
    looked: Instant,
    /// Whether it is known which replicas confirm writes.
    confirming: bool,
    deeds: Deeds,
}

impl<'c> Nemesis<'c> {
    /// The other nodes follow the first.
    pub fn new(cluster: &'c mut Cluster, history: &'c History, mut rng: StdRng) -> Nemesis<'c> {
        cluster.follow(1, 0, Duration::ZERO);
        cluster.follow(2, rng.random_range(0..2), Duration::ZERO);
        let now = Instant::now();
        Nemesis {
            cluster,
            history,
            rng,
            begun: now,
            due: Vec::new(),
            looked: now,
            confirming: false,
            deeds: Deeds::default(),
        }
    }

    /// Does harm for a time, then mends everything.
    pub fn run(mut self, length: Duration) -> Deeds {
        let end = self.begun + length;
        let mut next = self.begun + Duration::from_millis(self.rng.random_range(0..2000));
        while Instant::now() < end {
            self.tick();
            if Instant::now() >= next {
                self.act();
                next = Instant::now() + Duration::from_millis(self.rng.random_range(30..900));
            }
        }
        self.heal();
        self.deeds
    }

    fn note(&mut self, text: &str) {
        let at = self.begun.elapsed().as_millis();
        self.deeds.log.push(format!("{at:>7} ms  {text}"));
    }

    fn later(&mut self, ms: std::ops::Range<u64>, then: Then) {
        let at = Instant::now() + Duration::from_millis(self.rng.random_range(ms));
        self.due.push((at, then));
    }

    fn name(&self, node: usize) -> String {
        format!("node {}{}", self.cluster.port(node), if node == self.cluster.master { " (master)" } else { "" })
    }

    fn tick(&mut self) {
        self.history.check();
        self.cluster.poll();
        let now = Instant::now();
        for (_, then) in self.due.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            self.mend(then);
        }
        // A node that was stopped comes back.
        for node in 0..NODES {
            let starts = self.due.iter().any(|(_, then)| *then == Then::Start(node));
            if self.cluster.health(node) == Health::Down && !starts {
                self.later(0..300, Then::Start(node));
            }
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = now;
            self.look();
        }
        thread::sleep(TICK);
    }

    /// Tells the history what it may rely on.
    fn look(&mut self) {
        self.cluster.note_progress();
        if !self.confirming
            && let Some(replicas) = self.cluster.confirming()
        {
            self.history.confirm_by(Some(replicas));
            self.confirming = true;
        }
        if (0..NODES).all(|node| node == self.cluster.master || self.cluster.is_connected(node)) {
            self.history.settled();
        }
    }

    /// From now on it is not clear which replicas confirm a write.
    fn confirm_nothing(&mut self) {
        self.history.confirm_by(None);
        self.confirming = false;
    }

    fn mend(&mut self, then: Then) {
        match then {
            Then::Start(node) if self.cluster.health(node) == Health::Down => self.cluster.spawn(node),
            Then::KillStarting(node) if self.cluster.health(node) == Health::Starting => {
                self.note(&format!("SIGKILL of {} while it starts", self.name(node)));
                self.cluster.kill(node);
                self.cluster.spawn(node);
                self.deeds.counts.kills_starting += 1;
            }
            Then::Kill(node) if matches!(self.cluster.health(node), Health::Up | Health::Paused) => self.kill(node),
            Then::Resume(node) if self.cluster.health(node) == Health::Paused => {
                self.note(&format!("SIGCONT of {}", self.name(node)));
                self.cluster.resume(node);
            }
            Then::Restore(from, to) => {
                self.note(&format!("the link from {} to {} is mended", self.name(from), self.name(to)));
                self.cluster.link(from, to).restore();
            }
            // What was to be mended is not so any more.
            Then::Start(_) | Then::KillStarting(_) | Then::Kill(_) | Then::Resume(_) => {}
        }
    }

    fn kill(&mut self, node: usize) {
        self.note(&format!("SIGKILL of {}, {:?}", self.name(node), self.cluster.health(node)));
        self.cluster.kill(node);
        self.deeds.counts.kills += 1;
        let pause = if self.rng.random_range(0..4) == 0 { 500..3000 } else { 0..200 };
        self.later(pause, Then::Start(node));
    }

    fn act(&mut self) {
        let (action, _) = ACTIONS.choose_weighted(&mut self.rng, |(_, weight)| *weight).expect("actions");
        let node = self.rng.random_range(0..NODES);
        let up = self.cluster.health(node) == Health::Up;
        match action {
            Action::Kill if self.cluster.health(node) != Health::Down => {
                self.kill(node);
                if self.rng.random_range(0..3) == 0 {
                    self.due.retain(|(_, then)| *then != Then::Start(node));
                    self.later(0..1, Then::Start(node));
                    self.later(5..80, Then::KillStarting(node));
                }
            }
            Action::Pause if up => {
                self.note(&format!("SIGSTOP of {}", self.name(node)));
                self.cluster.pause(node);
                self.deeds.counts.pauses += 1;
                self.later(20..2500, Then::Resume(node));
            }
            Action::Stop if up => {
                self.note(&format!("SIGTERM of {}", self.name(node)));
                self.cluster.stop(node);
                self.deeds.counts.stops += 1;
            }
            Action::Link => self.harm_link(),
            Action::FullSync if up && self.cluster.is_connected(node) => {
                let Some(upstream) = self.cluster.upstream(node) else { return };
                self.note(&format!("a full sync of {}", self.name(node)));
                self.cluster.sync_again(node, upstream);
                self.deeds.counts.full_syncs += 1;
                self.perhaps_kill_in(&[node, upstream]);
            }
            Action::Save if up => {
                self.note(&format!("BGSAVE on {}", self.name(node)));
                self.cluster.tell(node, "BGSAVE");
                self.deeds.counts.saves += 1;
                self.perhaps_kill_in(&[node]);
            }
            Action::Failover => self.failover(),
            Action::Switchover => self.switchover(),
            Action::Repoint => self.repoint(),
            Action::Configure if up => {
                let setting =
                    ["sync no", "sync everysec", "sync always", "binlog-file-size 64K", "binlog-file-size 1M"];
                let setting = setting.choose(&mut self.rng).expect("a setting");
                self.note(&format!("CONFIG SET {setting} on {}", self.name(node)));
                self.cluster.tell(node, &format!("CONFIG SET {setting}"));
            }
            _ => {}
        }
    }

    /// What was begun is interrupted now and then.
    fn perhaps_kill_in(&mut self, nodes: &[usize]) {
        if self.rng.random() {
            let node = *nodes.choose(&mut self.rng).expect("a node");
            self.later(0..400, Then::Kill(node));
        }
    }

    fn harm_link(&mut self) {
        let from = self.rng.random_range(0..NODES);
        let Some(to) = self.cluster.upstream(from) else { return };
        let schedule = Schedule::of(&LINK_FAULTS, self.rng.random(), Duration::from_secs(3));
        let Some(event) = schedule.events.first() else { return };
        let (from_name, to_name) = (self.name(from), self.name(to));
        self.note(&format!("{:?} on {} of the link from {from_name} to {to_name}", event.fault, event.wires));
        self.cluster.link(from, to).inject(event.fault, event.wires);
        self.deeds.counts.links += 1;
        let at = Instant::now() + event.lasts;
        self.due.push((at, Then::Restore(from, to)));
    }

    /// A replica takes over that may lack something, but nothing that was confirmed, whatever the master is doing; the old master comes
    /// back as a replica.
    fn failover(&mut self) {
        let old = self.cluster.master;
        let Some(&new) = self.cluster.successors().choose(&mut self.rng) else { return };
        self.confirm_nothing();
        match (self.rng.random_range(0..4), self.cluster.health(old)) {
            (0, Health::Up) => {
                self.kill(old);
                self.due.retain(|(_, then)| *then != Then::Start(old));
                self.later(0..2000, Then::Start(old));
            }
            (1, Health::Up) => {
                self.cluster.pause(old);
                self.later(100..2500, Then::Resume(old));
            }
            (2, _) => {
                for follower in self.cluster.followers(old) {
                    self.cluster.link(follower, old).cut();
                    self.later(0..2000, Then::Restore(follower, old));
                }
                // It goes on alone for a while.
                let while_alone = Instant::now() + Duration::from_millis(self.rng.random_range(0..500));
                while Instant::now() < while_alone {
                    self.tick();
                }
                if self.cluster.health(new) != Health::Up {
                    return;
                }
            }
            _ => {}
        }
        self.note(&format!("failover from {} to {}", self.name(old), self.name(new)));
        self.cluster.promote(new);
        self.history.retarget(self.cluster.port(new), true);
        self.deeds.counts.failovers += 1;
        self.arrange(new, old);
    }

    /// Everything is drained before the roles change: nothing may be lost.
    fn switchover(&mut self) {
        let old = self.cluster.master;
        let mut ready = self.cluster.followers(old);
        ready.retain(|node| self.cluster.is_connected(*node));
        let Some(&new) = ready.choose(&mut self.rng) else { return };
        self.history.pause(true);
        let begun = Instant::now();
        loop {
            self.tick();
            let both_up = [old, new].iter().all(|node| self.cluster.health(*node) == Health::Up);
            if both_up && self.history.is_paused() && self.cluster.has_all(new) {
                break;
            }
            if begun.elapsed() > DRAIN {
                self.note("a switchover is called off");
                self.history.pause(false);
                return;
            }
        }
        self.note(&format!("switchover from {} to {}", self.name(old), self.name(new)));
        self.confirm_nothing();
        self.cluster.promote(new);
        self.history.retarget(self.cluster.port(new), false);
        self.history.pause(false);
        self.deeds.counts.switchovers += 1;
        self.arrange(new, old);
    }

    /// After a change of masters: a star or one of the two chains.
    fn arrange(&mut self, new: usize, old: usize) {
        let third = NODES - new - old;
        let (old_follows, third_follows) =
            *[(new, new), (new, old), (third, new)].choose(&mut self.rng).expect("three ways");
        for (node, upstream) in [(old, old_follows), (third, third_follows)] {
            let after = Duration::from_millis(self.rng.random_range(0..1500));
            self.cluster.follow(node, upstream, after);
        }
    }

    /// The node that is not needed for confirmation moves to another master.
    fn repoint(&mut self) {
        let master = self.cluster.master;
        let others: Vec<usize> = (0..NODES).filter(|node| *node != master).collect();
        let [a, b] = others[..] else { return };
        // In a chain its end; in a star any.
        let node = match (self.cluster.upstream(a), self.cluster.upstream(b)) {
            (Some(up), _) if up == b => a,
            (_, Some(up)) if up == a => b,
            _ => others[self.rng.random_range(0..2)],
        };
        let other = a + b - node;
        let upstream = if self.cluster.upstream(node) == Some(master) { other } else { master };
        self.note(&format!("{} moves to {}", self.name(node), self.name(upstream)));
        self.confirm_nothing();
        self.cluster.follow(node, upstream, Duration::ZERO);
        self.deeds.counts.repoints += 1;
    }

    /// Ends all faults.
    fn heal(&mut self) {
        self.note("healing");
        for (_, then) in std::mem::take(&mut self.due) {
            if !matches!(then, Then::Kill(_) | Then::KillStarting(_)) {
                self.mend(then);
            }
        }
        for from in 0..NODES {
            (0..NODES).for_each(|to| self.cluster.link(from, to).restore());
        }
        while !self.cluster.is_healed() {
            self.tick();
        }
    }
}

impl Drop for Deeds {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- what was done:\n{}", self.log.join("\n"));
        }
    }
}
