//! Which entries a trimming removes: always the first ones, up to some ID.

use super::{Handle, Head, each};
use crate::keyspace::Error;
use crate::keyspace::effect::Read;
use crate::rdb::StreamId;

/// What is to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// So many entries.
    MaxLen(u64),
    /// Those from this ID on.
    MinId(StreamId),
}

/// A trimming.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    pub strategy: Strategy,
    /// Only whole nodes, and no more entries than this (`None` = any number).
    pub approximate: Option<Option<u64>>,
}

/// What a trimming removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The last of the entries that go.
    pub through: StreamId,
    /// How many go.
    pub count: u64,
}

/// Entries of one node.
struct Run {
    node: u64,
    len: u64,
    last: StreamId,
}

/// The nodes looked at so far.
struct Plan {
    strategy: Strategy,
    limit: Option<u64>,
    room: u64,
    /// Entries left.
    len: u64,
    cut: Option<Cut>,
    /// The node being looked at.
    run: Option<Run>,
    /// Whether that node, and what comes after it, stays.
    stopped: bool,
}

impl Plan {
    fn removed(&self) -> u64 {
        self.cut.map_or(0, |cut| cut.count)
    }

    /// Whether a node of so many entries may go, as far as its length tells.
    fn fits(&self, run_len: u64) -> bool {
        let within = self.limit.is_none_or(|limit| self.removed() + run_len <= limit);
        let above = match self.strategy {
            Strategy::MaxLen(max) => self.len > max && self.len - run_len.min(self.len) >= max,
            Strategy::MinId(_) => true,
        };
        within && above
    }

    fn keeps(&self, id: StreamId) -> bool {
        matches!(self.strategy, Strategy::MinId(min) if id >= min)
    }

    /// Removes the node being looked at, if it may go.
    fn close_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        self.stopped |= !self.fits(run.len) || self.keeps(run.last) || self.removed() > self.room;
        if !self.stopped {
            self.len -= run.len;
            self.cut = Some(Cut { through: run.last, count: self.removed() + run.len });
        }
    }

    /// Looks at the next entry; false if it stays.
    fn visit(&mut self, id: StreamId, node: u64) -> bool {
        if self.run.as_ref().is_some_and(|run| run.node != node) {
            self.close_run();
        }
        let run = self.run.get_or_insert(Run { node, len: 0, last: id });
        run.len += 1;
        run.last = id;
        let len = run.len;
        // A node that stays in part stays.
        self.stopped |= self.keeps(id) || !self.fits(len);
        !self.stopped
    }
}

impl Trim {
    /// What it removes from a stream to which the entry `added`, if any, is about to be added: with its ID and whether it opens a
    /// node. Goes through no more than about `room` entries: a cut of more than that is not the whole one.
    pub fn plan(
        &self,
        state: &mut dyn Read,
        stream: &Handle,
        added: Option<(StreamId, bool)>,
        room: u64,
    ) -> Result<Option<Cut>, Error> {
        let head = Head::of(stream);
        let added = added.map(|(id, opens_node)| (id, head.tail.node + u64::from(opens_node)));
        match self.approximate {
            None => self.plan_exactly(state, stream, added, room),
            Some(limit) => self.plan_nodes(state, stream, &head, added, limit, room),
        }
    }

    fn plan_exactly(
        &self,
        state: &mut dyn Read,
        stream: &Handle,
        added: Option<(StreamId, u64)>,
        room: u64,
    ) -> Result<Option<Cut>, Error> {
        let len = stream.len() + u64::from(added.is_some());
        let (most, last) = match self.strategy {
            Strategy::MaxLen(max) => (len.saturating_sub(max), StreamId::MAX),
            Strategy::MinId(min) => match min.previous() {
                Some(last) => (len, last),
                None => return Ok(None),
            },
        };
        let mut cut: Option<Cut> = None;
        let mut remove = |id: StreamId| {
            let count = cut.map_or(0, |cut| cut.count);
            if count < most && id <= last {
                cut = Some(Cut { through: id, count: count + 1 });
            }
            count + 1 < most && count <= room
        };
        if most > 0 {
            each(state, stream, StreamId::MIN, last, false, &mut |id, _| remove(id))?;
            if let Some((id, _)) = added {
                remove(id);
            }
        }
        Ok(cut)
    }

    fn plan_nodes(
        &self,
        state: &mut dyn Read,
        stream: &Handle,
        head: &Head,
        added: Option<(StreamId, u64)>,
        limit: Option<u64>,
        room: u64,
    ) -> Result<Option<Cut>, Error> {
        let len = stream.len() + u64::from(added.is_some());
        let mut plan = Plan { strategy: self.strategy, limit, room, len, cut: None, run: None, stopped: false };
        let first_node_grows = added.is_some_and(|(_, node)| stream.is_empty() || node == head.first_node);
        let first_node_len = head.first_node_len + u64::from(first_node_grows);
        if !plan.fits(first_node_len) || self.keeps_first_node(state, stream, head)? {
            return Ok(None);
        }
        each(state, stream, StreamId::MIN, StreamId::MAX, false, &mut |id, entry| plan.visit(id, entry.node))?;
        if let Some((id, node)) = added.filter(|_| !plan.stopped) {
            plan.visit(id, node);
        }
        plan.close_run();
        Ok(plan.cut)
    }

    /// Whether the first node has an entry that is to be left, found without going through all of it.
    fn keeps_first_node(&self, state: &mut dyn Read, stream: &Handle, head: &Head) -> Result<bool, Error> {
        let Strategy::MinId(min) = self.strategy else { return Ok(false) };
        let mut kept = false;
        each(state, stream, min, StreamId::MAX, false, &mut |_, entry| {
            kept = entry.node == head.first_node;
            false
        })?;
        Ok(kept)
    }
}
