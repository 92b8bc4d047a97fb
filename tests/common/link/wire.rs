//! One direction of one port of a link: what is wrong with it, and the carrying of a connection's bytes along it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Connection, Fault, Way};

/// Bytes on their way before the sender is kept from sending more.
const IN_FLIGHT: usize = 64 << 10;
/// The same of a wire with a delay: enough for some MB/s at some 100 ms.
const IN_FLIGHT_DELAYED: usize = 4 << 20;
/// How often a wire that holds bytes back looks whether they may pass.
const TICK: Duration = Duration::from_millis(5);
/// How long an idle wire waits for a byte; being closed wakes it.
const IDLE: Duration = Duration::from_secs(5);
/// A throttled wire delivers at most so much at a time.
const SLICE: Duration = Duration::from_millis(20);

/// See the module.
pub struct Wire {
    state: Mutex<State>,
    delivered: AtomicU64,
    flipped: AtomicU64,
}

struct State {
    stalled: bool,
    delay: Duration,
    jitter: Duration,
    /// Bytes a second; 0 = no limit.
    rate: u64,
    /// When what was let through so far will have passed at `rate`.
    free_at: Instant,
    /// 0 = none.
    flip_one_in: u64,
    /// Bytes to pass before each of these flips, in order.
    flips: Vec<u64>,
    rng: StdRng,
}

impl Default for Wire {
    fn default() -> Wire {
        let state = State {
            stalled: false,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: 0,
            free_at: Instant::now(),
            flip_one_in: 0,
            flips: Vec::new(),
            rng: StdRng::seed_from_u64(0),
        };
        Wire { state: Mutex::new(state), delivered: AtomicU64::new(0), flipped: AtomicU64::new(0) }
    }
}

impl Wire {
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::SeqCst)
    }

    pub fn flipped(&self) -> u64 {
        self.flipped.load(Ordering::SeqCst)
    }

    pub fn spoil(&self, fault: Fault) {
        let mut state = self.state.lock();
        match fault {
            Fault::Stall => state.stalled = true,
            Fault::Delay { ms, jitter_ms } => {
                (state.delay, state.jitter) = (Duration::from_millis(ms), Duration::from_millis(jitter_ms));
            }
            Fault::Throttle { bytes_per_second } => state.rate = bytes_per_second,
            Fault::FlipRate { one_in } => state.flip_one_in = one_in,
            Fault::FlipAt { after } => state.flips.push(after),
            // Of connections, not of a wire.
            Fault::Cut | Fault::HalfClose => {}
        }
    }

    pub fn mend(&self) {
        let mut state = self.state.lock();
        *state = State { rng: StdRng::from_rng(&mut state.rng), ..Wire::default().state.into_inner() };
    }

    /// When bytes that come now arrive.
    fn due(&self) -> Instant {
        let state = &mut *self.state.lock();
        let jitter = state.jitter;
        // Without jitter flips depend on nothing but the bytes that came.
        let jitter = if jitter.is_zero() { jitter } else { jitter.mul_f64(state.rng.random()) };
        Instant::now() + state.delay + jitter
    }

    fn in_flight(&self) -> usize {
        if self.state.lock().delay.is_zero() { IN_FLIGHT } else { IN_FLIGHT_DELAYED }
    }

    /// How many of `len` bytes may pass now. They count as passed.
    fn admit(&self, len: usize) -> usize {
        let mut state = self.state.lock();
        if state.stalled {
            return 0;
        }
        if state.rate == 0 {
            return len;
        }
        let now = Instant::now();
        if state.free_at > now {
            return 0;
        }
        let slice = (state.rate as f64 * SLICE.as_secs_f64()) as usize;
        let passed = len.min(slice.max(1));
        state.free_at = now + Duration::from_secs_f64(passed as f64 / state.rate as f64);
        passed
    }

    /// Changes some of the bytes.
    fn flip(&self, bytes: &mut [u8]) {
        let state = &mut *self.state.lock();
        let mut changed = 0;
        let mut change = |byte: &mut u8, rng: &mut StdRng| {
            *byte ^= rng.random_range(1..=255u8);
            changed += 1;
        };
        if state.flip_one_in > 0 {
            for byte in bytes.iter_mut() {
                if state.rng.random_ratio(1, u32::try_from(state.flip_one_in).unwrap_or(u32::MAX)) {
                    change(byte, &mut state.rng);
                }
            }
        }
        state.flips.retain_mut(|left| match bytes.get_mut(*left as usize) {
            Some(byte) => {
                change(byte, &mut state.rng);
                false
            }
            None => {
                *left -= bytes.len() as u64;
                true
            }
        });
        self.flipped.fetch_add(changed, Ordering::SeqCst);
    }
}

/// Carries one direction of a connection until its sender has said all. An error is a connection that broke.
pub fn carry(connection: &Connection, way: Way, wire: &Wire) -> io::Result<()> {
    let (mut from, mut to) = (connection.sender(way), connection.receiver(way));
    let half_closed = || connection.half_closed[way as usize].load(Ordering::SeqCst);
    let mut buffer = vec![0; IN_FLIGHT];
    let mut on_the_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut in_flight, mut ended, mut last_due) = (0, false, Instant::now());
    loop {
        let full = in_flight >= wire.in_flight();
        if ended || full {
            thread::sleep(TICK);
        } else {
            let patience = if on_the_way.is_empty() { IDLE } else { TICK };
            from.set_read_timeout(Some(patience))?;
            match from.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(read) => {
                    let mut bytes = buffer[..read].to_vec();
                    wire.flip(&mut bytes);
                    last_due = wire.due().max(last_due);
                    in_flight += read;
                    on_the_way.push_back((last_due, bytes));
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        while let Some((due, bytes)) = on_the_way.front_mut() {
            if half_closed() {
                in_flight = 0;
                on_the_way.clear();
                break;
            }
            let passed = if *due <= Instant::now() { wire.admit(bytes.len()) } else { 0 };
            if passed == 0 {
                break;
            }
            if let Err(e) = to.write_all(&bytes[..passed])
                && !half_closed()
            {
                return Err(e);
            }
            wire.delivered.fetch_add(passed as u64, Ordering::SeqCst);
            in_flight -= passed;
            bytes.drain(..passed);
            if bytes.is_empty() {
                on_the_way.pop_front();
            }
        }
        if ended && on_the_way.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
            return Ok(());
        }
    }
}
