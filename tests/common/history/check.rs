//! Reading families off a node, and the judgement at the end.

use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::Duration;

use super::super::{Conn, Node, Reply, unix_ms};
use super::family::Family;
use super::value::{Data, Value};
use super::writer::Writer;

/// Families read with one flush.
const CHUNK: usize = 64;
/// Keys that expire within this are waited for at the end, ms.
const SOON: u64 = 60_000;

/// The values of one family, or the error that the node answered.
type Read = Result<Vec<Value>, String>;

/// Reads families; `db` is the connection's database, before and after.
pub fn read(conn: &mut Conn, db: &mut usize, families: &[&Family]) -> io::Result<Vec<Read>> {
    let mut all = Vec::new();
    for chunk in families.chunks(CHUNK) {
        let mut selects = Vec::new();
        for key in chunk.iter().flat_map(|family| &family.keys) {
            selects.push(key.db != *db);
            if key.db != *db {
                conn.push(&["SELECT", &key.db.to_string()]);
                *db = key.db;
            }
            conn.push(&key.kind.read_command(&key.name));
            conn.push(&["EXISTS", &key.name]);
            conn.push(&["PEXPIRETIME", &key.name]);
        }
        conn.try_flush()?;
        let mut selects = selects.into_iter();
        for family in chunk {
            let mut values: Read = Ok(Vec::new());
            for key in &family.keys {
                if selects.next() == Some(true) {
                    conn.try_read()?;
                }
                let (read, exists, expires) = (conn.try_read()?, conn.try_read()?, conn.try_read()?);
                let value = key.kind.value_of(&read, &exists, &expires);
                values = values.and_then(|mut values| {
                    values.push(value.map_err(|e| format!("{}: {e}", key.name))?);
                    Ok(values)
                });
            }
            all.push(values);
        }
    }
    Ok(all)
}

/// What a history came to: what every node must hold, exactly.
pub struct Outcome {
    writers: Vec<Writer>,
    /// Operations acknowledged.
    pub acknowledged: u64,
    /// Times a client found all its writes on the replicas.
    pub confirmed: u64,
    /// Stamps of acknowledged operations that were lost because a replica was promoted that did not have them.
    pub lost: Vec<String>,
}

impl Outcome {
    pub(super) fn of(mut writers: Vec<Writer>, acknowledged: u64, confirmed: u64) -> Outcome {
        let lost = writers.iter_mut().flat_map(|writer| std::mem::take(&mut writer.lost)).collect();
        Outcome { writers, acknowledged, confirmed, lost }
    }

    fn families(&self) -> impl Iterator<Item = &Family> {
        self.writers.iter().flat_map(|writer| writer.sources.iter().map(|source| &source.family))
    }

    /// Waits until no key is about to expire: from then on the nodes' data do not change.
    pub fn wait_expired(&self) {
        let horizon = unix_ms() + SOON;
        let values = self.families().flat_map(|family| family.state());
        let last = values.filter_map(|value| value.expires).filter(|at| *at < horizon).max().unwrap_or(0);
        while unix_ms() < last + 300 {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is wrong on a node, if anything: it must hold every key as it must be, and no other key.
    pub fn difference(&self, port: u16) -> io::Result<Option<String>> {
        let mut conn = Conn::try_to(port)?;
        let families: Vec<&Family> = self.families().collect();
        let from = unix_ms();
        let mut db = 0;
        let seen = read(&mut conn, &mut db, &families)?;
        let to = unix_ms();
        let mut wrong = Vec::new();
        for (family, seen) in families.iter().zip(seen) {
            match seen {
                Ok(seen) if family.matches(&seen, from, to) => {}
                Ok(seen) => wrong.push(family.violation(&family.compare(&seen))),
                Err(text) => wrong.push(family.violation(&text)),
            }
        }
        let mut sizes: BTreeMap<usize, i64> = BTreeMap::new();
        for family in &families {
            for (key, value) in family.keys.iter().zip(family.state()) {
                let live = value.data != Data::Missing && !value.expires_before(from);
                *sizes.entry(key.db).or_default() += i64::from(live);
            }
        }
        for (db, size) in sizes {
            conn.try_call(&["SELECT", &db.to_string()])?;
            let held = conn.try_call(&["DBSIZE"])?;
            if held != Reply::Int(size) {
                wrong.push(format!("db{db} has {held:?} keys, not {size}"));
            }
        }
        let shown = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
        Ok((!wrong.is_empty()).then(|| format!("node {port}: {} things are wrong:\n{shown}", wrong.len())))
    }

    /// Panics unless a node holds exactly what it must.
    #[track_caller]
    pub fn verify(&self, node: &Node) {
        assert!(self.acknowledged > 0, "nothing was acknowledged");
        if let Some(text) = self.difference(node.port()).expect("a node that answers") {
            panic!("{text}");
        }
    }
}
