//! A node, or a master and its replica, under one [`Scenario`]: struck by one fault after the other, started again, checked.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use haypile::snapshot::Manifest;
use rand::RngExt;
use rand::rngs::StdRng;

use super::common::node::files_under;
use super::common::{Conn, DEADLINE, Node, NodeOptions, Reply, wait_synced};
use super::ledger::{Ledger, Writers};
use super::points::{Fault, Scenario, companions};

/// Keys in both slots of a database.
pub const BOTH_SLOTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// A full sync or a link that takes longer is begun anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// Faults that strike one set of nodes.
pub const CHAIN: usize = 12;
/// Databases of a node when each fault takes one that was never written.
const DATABASES: usize = 2 + CHAIN;
/// The folder of a save from long ago.
const OLD_SAVE: &str = "20200101-000000";
/// A fault in the midst of much of the same strikes at one of the first so many times.
const COUNTED: u32 = 6;

/// Small files and buffers: a few hundred writes meet flushes, new log files and purges.
pub fn options(databases: usize) -> NodeOptions {
    NodeOptions::new()
        .set("databases", databases)
        .set("slot-num", 2)
        .set("binlog-file-size", "32K")
        .set("write-buffer-size", "64K")
        .set("expire-logs-nums", 2)
}

pub struct Rig {
    pub scenario: Scenario,
    pub master: Node,
    pub replica: Option<Node>,
    pub rng: StdRng,
    ledgers: Vec<Ledger>,
    struck: usize,
    turn: u64,
    /// The last number written to database 1, and what is known of it.
    cycle: Cycle,
    /// The next database to be written first.
    fresh_db: usize,
    fresh_acked: bool,
    timeout: (u64, u64),
    last_try: Option<Instant>,
}

/// How far a round of MSET and FLUSHDB came.
#[derive(Clone, Copy, Default)]
struct Cycle {
    number: u64,
    set_acked: bool,
    flush_sent: bool,
    flush_acked: bool,
}

impl Rig {
    pub fn new(scenario: Scenario, rng: StdRng) -> Rig {
        let grows = matches!(scenario, Scenario::FirstWrite | Scenario::GrowingSave);
        let mut options = options(if grows { DATABASES } else { 2 });
        if scenario == Scenario::OldSave {
            options = options.set("dump-expire", 1);
        }
        if scenario == Scenario::Always {
            options = options.set("sync", "always");
        }
        let master = options.clone().start();
        let mut conn = master.conn();
        for db in 0..2 {
            conn.select(db);
            BOTH_SLOTS.iter().for_each(|key| conn.call(&["SET", key, "0"]).expect_ok());
        }
        if scenario == Scenario::GrowingSave {
            conn.select(DATABASES - 1);
            BOTH_SLOTS.iter().for_each(|key| conn.call(&["SET", key, "0"]).expect_ok());
        }
        let replica = scenario.has_replica().then(|| options.start());
        if let Some(replica) = &replica {
            replica.slaveof(master.port());
            wait_synced(&master, replica);
        }
        Rig {
            scenario,
            master,
            replica,
            rng,
            ledgers: Vec::new(),
            struck: 0,
            turn: 0,
            cycle: Cycle::default(),
            fresh_db: 2,
            fresh_acked: false,
            timeout: (0, 0),
            last_try: None,
        }
    }

    /// The node that the fault strikes.
    pub fn victim(&mut self) -> &mut Node {
        match &mut self.replica {
            Some(replica) if self.scenario.strikes_replica() => replica,
            _ => &mut self.master,
        }
    }

    pub fn writers(&mut self) -> Writers {
        self.struck += 1;
        Writers::start(&self.master, &format!("w{}", self.struck))
    }

    /// Kills the victim at a point, starts it again, and looks for everything.
    pub fn kill(&mut self, fault: &Fault) {
        self.last_try = None;
        let writers = self.writers();
        writers.wait_answers(5);
        let often = matches!(self.scenario, Scenario::Load | Scenario::ReplicaLoad | Scenario::Always);
        let passes = if often && companions(fault.point).is_empty() { self.rng.random_range(0..COUNTED) } else { 0 };
        let action = match passes {
            0 => fault.action.to_string(),
            _ => format!("{passes}*off->{}", fault.action),
        };
        self.arm(fault, &action);
        let began = Instant::now();
        while self.victim().is_alive() {
            let _ = self.act();
            assert!(began.elapsed() < DEADLINE, "{} was not reached", fault.name());
        }
        let status = self.victim().wait_exit();
        assert_eq!(status.signal(), Some(9), "{status}");
        let ledger = writers.stop();
        self.victim().start_again();
        if let Some(replica) = self.replica.as_ref().filter(|_| self.scenario.strikes_replica()) {
            // It has its old data or the new ones, and both hold what was synced before.
            self.ledgers.iter().for_each(|earlier| earlier.verify(replica));
        }
        self.settle(ledger);
    }

    /// Lets a step fail, and looks that nobody is lied to, then that nothing is lost.
    pub fn fail(&mut self, fault: &Fault) {
        self.last_try = None;
        let writers = self.writers();
        writers.wait_answers(5);
        let logged = self.victim().output().len();
        self.arm(fault, fault.action);
        let began = Instant::now();
        let mut refused = None;
        while self.struck(fault) == 0 {
            refused = self.act().err().or(refused);
            assert!(self.victim().is_alive(), "it died of {}", fault.action);
            assert!(began.elapsed() < DEADLINE, "{} was not reached", fault.name());
        }
        refused = self.act().err().or(refused);
        writers.wait_answers(10);
        let ledger = writers.stop();
        assert!(self.victim().is_alive(), "it died of {}", fault.action);
        if !self.scenario.strikes_replica() {
            ledger.verify_readable(&self.master);
        }
        self.disarm(fault);
        let read_only = self.read_only();
        // A flush that nobody asked for may have met it: then the operator is told.
        let noted = || {
            let log = self.master.output();
            let mut errors = log
                .get(logged..)
                .unwrap_or_default()
                .lines()
                .filter(|line| line.contains("ERROR") && !line.contains("BGSAVE failed"));
            errors.next_back().map(str::to_string)
        };
        let told = read_only.clone().or(refused).or(ledger.refused()).or_else(noted);
        if fault.must_be_told() && self.scenario.tells() {
            assert!(told.is_some(), "nobody was told of {} at {}", fault.action, fault.name());
        }
        if !self.scenario.strikes_replica() {
            let seen = self.master.digest();
            self.master.crash();
            // A slot that still takes writes holds what its log says.
            assert!(read_only.is_some() || self.master.digest() == seen, "what was read before the crash is not there");
        }
        self.settle(ledger);
    }

    /// Why a slot of the victim takes no writes, if one does not; any other refusal is none of a healthy disk.
    fn read_only(&mut self) -> Option<String> {
        if self.scenario.strikes_replica() {
            return None;
        }
        let mut conn = self.master.conn();
        let mut reason = None;
        for db in 0..2 {
            conn.select(db);
            for key in BOTH_SLOTS {
                if let Reply::Error(text) = conn.call(&["SET", &format!("probe:{key}"), "1"]) {
                    assert!(text.contains("is read-only: "), "refused without need: {text}");
                    reason = Some(text);
                }
            }
        }
        reason
    }

    pub fn arm(&mut self, fault: &Fault, action: &str) {
        let mut conn = self.victim().conn();
        let own = [(fault.name(), action)].into_iter();
        for (name, action) in
            own.chain(companions(fault.point).iter().map(|(name, action)| (name.to_string(), *action)))
        {
            // A node that is killed at once may not get to its answer.
            if let Ok(reply) = conn.try_call(&["DEBUG", "FAILPOINT", &name, action]) {
                reply.expect_ok();
            }
        }
    }

    fn disarm(&mut self, fault: &Fault) {
        let mut conn = self.victim().conn();
        conn.call(&["DEBUG", "FAILPOINT", &fault.name(), "off"]).expect_ok();
        for (name, _) in companions(fault.point) {
            conn.call(&["DEBUG", "FAILPOINT", name, "off"]).expect_ok();
        }
    }

    fn struck(&mut self, fault: &Fault) -> i64 {
        self.victim().conn().call(&["DEBUG", "FAILPOINT", &fault.name()]).int()
    }

    /// After the victim was started again, or the fault is over: all that was acknowledged is there, and nothing by half.
    pub fn settle(&mut self, ledger: Ledger) {
        ledger.verify(&self.master);
        if self.scenario.strikes_replica()
            && let Some(replica) = &self.replica
        {
            wait_synced(&self.master, replica);
            ledger.verify(replica);
        }
        self.ledgers.push(ledger);
        match self.scenario {
            Scenario::FirstWrite => self.check_first_write(),
            Scenario::Flush => self.check_cycle(),
            Scenario::Bgsave | Scenario::GrowingSave | Scenario::OldSave => self.check_saves(),
            Scenario::Rewrite => self.check_conf(),
            _ => {}
        }
    }

    /// At the end: all nodes hold the same, and everything that was ever acknowledged, also after one more crash.
    pub fn finish(mut self) {
        if self.scenario.strikes_replica() {
            self.victim().crash();
        }
        if let Some(replica) = &self.replica {
            wait_synced(&self.master, replica);
            self.ledgers.iter().for_each(|ledger| ledger.verify(replica));
        }
        self.ledgers.iter().for_each(|ledger| ledger.verify(&self.master));
    }

    /// What leads to the points of the scenario; why it was refused, if it was. A node that is gone is no refusal.
    fn act(&mut self) -> Result<(), String> {
        self.turn += 1;
        match self.scenario {
            Scenario::Load | Scenario::ReplicaLoad => pause(),
            Scenario::Always => self.call_master(&["SET", "always", "1"])?,
            Scenario::FirstWrite => {
                let db = self.fresh_db.to_string();
                let written = self.on_master(|conn| {
                    conn.try_call(&["SELECT", &db])?;
                    conn.try_call(&["SET", "first", "1"])
                });
                match written {
                    Some(Reply::Error(text)) => return Err(text),
                    Some(_) => self.fresh_acked = true,
                    None => {}
                }
            }
            Scenario::Flush | Scenario::ReplicaFlush => self.flush()?,
            Scenario::Bgsave | Scenario::GrowingSave | Scenario::OldSave => {
                if self.scenario == Scenario::OldSave {
                    self.make_old_save();
                }
                self.call_master(&["BGSAVE"])?;
                if self.scenario == Scenario::GrowingSave {
                    self.grow()?;
                }
                while self.info_of_master("rdb_bgsave_in_progress").as_deref() == Some("1") {
                    pause();
                }
                if self.info_of_master("rdb_last_bgsave_status").as_deref() == Some("err") {
                    return Err("rdb_last_bgsave_status:err".into());
                }
            }
            Scenario::Rewrite => {
                self.timeout.1 = 1000 + self.turn;
                self.call_master(&["CONFIG", "SET", "timeout", &self.timeout.1.to_string()])?;
                match self.on_master(|conn| conn.try_call(&["CONFIG", "REWRITE"])) {
                    Some(Reply::Error(text)) => return Err(text),
                    Some(_) => self.timeout.0 = self.timeout.1,
                    None => {}
                }
            }
            Scenario::MasterSync | Scenario::FullSync => {
                if self.is_due() {
                    self.follow(true)?;
                }
                pause();
            }
            Scenario::Diverged => {
                if self.is_due() {
                    self.call_replica(&["SLAVEOF", "NO", "ONE"])?;
                    for key in BOTH_SLOTS {
                        self.call_replica(&["SET", &format!("own:{key}"), &self.turn.to_string()])?;
                    }
                    self.call_master(&["SET", "passed", &self.turn.to_string()])?;
                    self.follow(false)?;
                }
                pause();
            }
            Scenario::FirstStart | Scenario::Restart(_) | Scenario::Resume => unreachable!("starts of their own"),
        }
        Ok(())
    }

    /// Whether it is time to sync the replica anew: it is connected, or nothing came of it for a while.
    fn is_due(&mut self) -> bool {
        if !self.replica.as_mut().is_some_and(Node::is_alive) || !self.master.is_alive() {
            return false;
        }
        let Some(replica) = &self.replica else { return false };
        let connected = || {
            let info = Conn::try_to(replica.port())?.try_call(&["INFO", "replication"])?.text();
            Ok::<_, std::io::Error>(info.contains("master_link_status:up"))
        };
        let due = match self.last_try {
            None => true,
            Some(at) => connected().unwrap_or(false) || at.elapsed() > PATIENCE,
        };
        if due {
            self.last_try = Some(Instant::now());
        }
        due
    }

    fn follow(&mut self, whole: bool) -> Result<(), String> {
        let port = self.master.port().to_string();
        let args = ["SLAVEOF", "127.0.0.1", &port, "FORCE"];
        self.call_replica(if whole { &args } else { &args[..3] })
    }

    /// MSET over both slots of database 1, then FLUSHDB.
    fn flush(&mut self) -> Result<(), String> {
        self.cycle = Cycle { number: self.turn, ..Cycle::default() };
        let mut mset = vec!["MSET".to_string()];
        mset.extend(BOTH_SLOTS.iter().flat_map(|key| [key.to_string(), self.turn.to_string()]));
        let set = self.on_master(|conn| {
            conn.try_call(&["SELECT", "1"])?;
            conn.try_call(&mset)
        });
        match set {
            Some(Reply::Error(text)) => return Err(text),
            Some(_) => self.cycle.set_acked = true,
            None => return Ok(()),
        }
        self.cycle.flush_sent = true;
        let flushed = self.on_master(|conn| {
            conn.try_call(&["SELECT", "1"])?;
            conn.try_call(&["FLUSHDB"])
        });
        match flushed {
            Some(Reply::Error(text)) => Err(text),
            Some(_) => {
                self.cycle.flush_acked = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn check_cycle(&self) {
        let mut conn = self.master.conn();
        conn.select(1);
        let held: BTreeSet<String> = BOTH_SLOTS.iter().map(|key| format!("{:?}", conn.call(&["GET", key]))).collect();
        let held: Vec<_> = held.into_iter().collect();
        let Cycle { number, set_acked, flush_sent, flush_acked } = self.cycle;
        let gone = format!("{:?}", Reply::Nil);
        let there = format!("{:?}", Reply::bulk(number.to_string()));
        assert_eq!(held.len(), 1, "half there: {held:?} of {number}");
        if flush_acked {
            assert_eq!(held, [gone], "after FLUSHDB");
        } else if set_acked && !flush_sent {
            assert_eq!(held, [there], "after MSET");
        }
    }

    fn check_first_write(&mut self) {
        let mut conn = self.master.conn();
        conn.select(self.fresh_db);
        let held = conn.call(&["GET", "first"]);
        let expected = if self.fresh_acked { vec![Reply::bulk("1")] } else { vec![Reply::bulk("1"), Reply::Nil] };
        assert!(expected.contains(&held), "db{}: {held:?}, not {expected:?}", self.fresh_db);
        BOTH_SLOTS.iter().for_each(|key| conn.call(&["SET", key, "1"]).expect_ok());
        self.fresh_db += 1;
        self.fresh_acked = false;
    }

    /// Writes a database first when a save has passed it and is at the last one.
    fn grow(&mut self) -> Result<(), String> {
        let last = format!(".tmp/db{}/", DATABASES - 1);
        let dump = self.master.data_dir().join("dump");
        let at_last = || files_under(&dump).iter().any(|path| path.to_string_lossy().contains(&last));
        while !at_last() && self.info_of_master("rdb_bgsave_in_progress").as_deref() == Some("1") {
            pause();
        }
        let db = self.fresh_db.to_string();
        self.fresh_db = (self.fresh_db + 1).min(DATABASES - 2);
        let written = self.on_master(|conn| {
            conn.try_call(&["SELECT", &db])?;
            conn.try_call(&["SET", "first", "1"])
        });
        written.map_or(Ok(()), refusal)
    }

    /// A save that is older than `dump-expire`.
    fn make_old_save(&self) {
        let save = self.master.data_dir().join("dump").join(OLD_SAVE);
        let manifest = Manifest {
            taken: 1_577_836_800_000,
            node: String::new(),
            version: String::new(),
            slot_num: 2,
            databases: 2,
            slots: Vec::new(),
            files: Vec::new(),
        };
        fs::create_dir_all(&save).expect("a folder for a save");
        fs::write(save.join("MANIFEST"), manifest.encode()).expect("a manifest");
    }

    /// A save that has its name is whole.
    fn check_saves(&self) {
        let saves = fs::read_dir(self.master.data_dir().join("dump")).into_iter().flatten().flatten();
        for save in saves.filter(|save| save.file_name().to_string_lossy().starts_with("20")) {
            let name = save.file_name().to_string_lossy().into_owned();
            if name.ends_with(".tmp") {
                continue;
            }
            assert!(save.path().join("MANIFEST").is_file(), "{name} lacks its MANIFEST");
            if name == OLD_SAVE {
                continue;
            }
            for slot in ["db0/0", "db0/1", "db1/0", "db1/1"] {
                for file in ["info", "data/CURRENT"] {
                    assert!(save.path().join(slot).join(file).is_file(), "{name}/{slot} lacks {file}");
                }
            }
        }
        let left = files_under(&self.master.data_dir().join("dump"));
        let left = left.iter().filter(|path| path.to_string_lossy().contains(".tmp/")).count();
        assert_eq!(left, 0, "unfinished saves after a start");
    }

    /// The conf file holds the old value or the new one.
    fn check_conf(&self) {
        let text = fs::read_to_string(self.master.conf_path()).expect("a conf file");
        let line = text.lines().find_map(|line| line.strip_prefix("timeout : ")).expect("a line for timeout");
        let held: u64 = line.parse().expect("a number");
        let (acked, sent) = self.timeout;
        assert!(held == sent || held >= acked, "timeout : {held}, acknowledged {acked}, sent {sent}");
        assert!(text.ends_with('\n') && text.len() > 10_000, "{} bytes are left", text.len());
    }

    fn call_master(&mut self, args: &[&str]) -> Result<(), String> {
        self.on_master(|conn| conn.try_call(args)).map_or(Ok(()), refusal)
    }

    fn call_replica(&mut self, args: &[&str]) -> Result<(), String> {
        let port = self.replica.as_ref().map_or(0, Node::port);
        let reply = Conn::try_to(port).and_then(|mut conn| conn.try_call(args));
        reply.ok().map_or(Ok(()), refusal)
    }

    /// What the master answers; `None` when it is gone.
    fn on_master(&self, ask: impl FnOnce(&mut Conn) -> std::io::Result<Reply>) -> Option<Reply> {
        let mut conn = Conn::try_to(self.master.port()).ok()?;
        ask(&mut conn).ok()
    }

    fn info_of_master(&self, field: &str) -> Option<String> {
        let text = self.on_master(|conn| conn.try_call(&["INFO", "persistence"]))?.text();
        text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_string()))
    }
}

fn refusal(reply: Reply) -> Result<(), String> {
    match reply {
        Reply::Error(text) => Err(text),
        _ => Ok(()),
    }
}

fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
