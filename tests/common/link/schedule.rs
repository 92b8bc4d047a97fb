//! Faults of a link at times, from a seed: printed, so that a failure can be repeated.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::super::ports::{OFFSETS, REPLICATION, SNAPSHOT};
use super::{Fault, Shared, Way, Wires};

/// The kinds of [`Fault`] that a schedule may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cut,
    Stall,
    Delay,
    Throttle,
    Flip,
    HalfClose,
}

impl Kind {
    pub const ALL: [Kind; 6] = [Kind::Cut, Kind::Stall, Kind::Delay, Kind::Throttle, Kind::Flip, Kind::HalfClose];
}

/// One fault: when it comes, how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// After the beginning.
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
    pub wires: Wires,
}

/// Faults in the order of their times, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub seed: u64,
    pub events: Vec<Event>,
}

impl Schedule {
    /// A schedule of every kind of fault that ends within `length`. The same seed and length give the same schedule.
    pub fn from_seed(seed: u64, length: Duration) -> Schedule {
        Schedule::of(&Kind::ALL, seed, length)
    }

    /// [`Schedule::from_seed`] with only these kinds.
    pub fn of(kinds: &[Kind], seed: u64, length: Duration) -> Schedule {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut events = Vec::new();
        let mut now = Duration::ZERO;
        loop {
            let pause = Duration::from_millis(rng.random_range(100..1200));
            let lasts = Duration::from_millis(rng.random_range(50..1500));
            let event = Event { at: now + pause, lasts, fault: fault(kinds, &mut rng), wires: wires(&mut rng) };
            now = event.at + event.lasts;
            if now > length {
                return Schedule { seed, events };
            }
            events.push(event);
        }
    }
}

fn fault(kinds: &[Kind], rng: &mut StdRng) -> Fault {
    match kinds.choose(rng).expect("a kind to choose") {
        Kind::Cut => Fault::Cut,
        Kind::Stall => Fault::Stall,
        Kind::Delay => Fault::Delay { ms: rng.random_range(1..150), jitter_ms: rng.random_range(0..150) },
        Kind::Throttle => Fault::Throttle { bytes_per_second: rng.random_range(2_000..500_000) },
        Kind::Flip if rng.random() => Fault::FlipAt { after: rng.random_range(0..5_000) },
        Kind::Flip => Fault::FlipRate { one_in: rng.random_range(100..50_000) },
        Kind::HalfClose => Fault::HalfClose,
    }
}

/// Half of the time everything, else one port and perhaps one direction.
fn wires(rng: &mut StdRng) -> Wires {
    if rng.random() {
        return Wires::ALL;
    }
    // The client port matters only to those who write through the link.
    let one = Wires::port(*[REPLICATION, REPLICATION, SNAPSHOT, OFFSETS[0]].choose(rng).expect("a port"));
    match rng.random_range(0..3) {
        0 => one,
        1 => one.only(Way::Up),
        _ => one.only(Way::Down),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "schedule of seed {}:", self.seed)?;
        for Event { at, lasts, fault, wires } in &self.events {
            writeln!(f, "  at {:>6} ms for {:>5} ms: {fault:?} on {wires}", at.as_millis(), lasts.as_millis())?;
        }
        Ok(())
    }
}

/// A schedule that runs in the background. The link is restored when it has ended, or when this is dropped.
pub struct Playing {
    stop: Option<Sender<()>>,
    player: Option<JoinHandle<()>>,
}

impl Playing {
    pub(super) fn start(shared: Arc<Shared>, schedule: Schedule) -> Playing {
        println!("{schedule}");
        let (stop, stopped) = mpsc::channel::<()>();
        let player = thread::spawn(move || {
            let begun = Instant::now();
            let still_playing_at = |at: Duration| {
                let rest = at.saturating_sub(begun.elapsed());
                stopped.recv_timeout(rest) == Err(RecvTimeoutError::Timeout)
            };
            for Event { at, lasts, fault, wires } in schedule.events {
                if !still_playing_at(at) {
                    break;
                }
                shared.inject(fault, wires);
                let goes_on = still_playing_at(at + lasts);
                shared.restore(wires);
                if !goes_on {
                    break;
                }
            }
        });
        Playing { stop: Some(stop), player: Some(player) }
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) {
        let player = self.player.take().expect("it runs");
        player.join().expect("a schedule that was played");
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(player) = self.player.take() {
            let _ = player.join();
        }
    }
}
