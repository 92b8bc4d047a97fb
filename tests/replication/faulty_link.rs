//! The faulty link itself: each fault does what it says, or the tests that use it prove nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::link::{Fault, Kind, Link, Schedule, Way, Wires};
use crate::common::{Conn, DEADLINE, Reply, rng, wait_for};
use crate::small;
use rand::RngExt;

const CLIENTS: Wires = Wires::port(0);

fn through(link: &Link) -> Conn {
    Conn::to(link.port())
}

#[test]
fn each_fault_does_what_it_says() {
    let node = small().start();
    let link = Link::to(&node);
    let value = "v".repeat(100_000);
    through(&link).call(&["SET", "k", &value]).expect_ok();

    link.inject(Fault::Delay { ms: 50, jitter_ms: 20 }, CLIENTS);
    let began = Instant::now();
    assert_eq!(through(&link).run("PING"), Reply::Simple("PONG".into()));
    assert!(began.elapsed() >= Duration::from_millis(100), "50 ms each way");
    link.restore();

    link.inject(Fault::Throttle { bytes_per_second: 200_000 }, CLIENTS.only(Way::Down));
    let began = Instant::now();
    assert_eq!(through(&link).run("GET k"), Reply::bulk(&value));
    assert!(began.elapsed() >= Duration::from_millis(400), "100 KB at 200 KB/s");
    link.restore();

    // "$100000\r\n", then the value.
    link.inject(Fault::FlipAt { after: 9 + 500 }, CLIENTS.only(Way::Down));
    let damaged = through(&link).run("GET k");
    assert_eq!(damaged.bytes().iter().position(|b| *b != b'v'), Some(500));
    assert_eq!(through(&link).run("GET k"), Reply::bulk(&value), "one byte only");
    link.inject(Fault::FlipRate { one_in: 1000 }, CLIENTS.only(Way::Down));
    let mut stream = TcpStream::connect(("127.0.0.1", link.port())).expect("a connection");
    stream.write_all(b"GET k\r\n").expect("sent");
    let sent = format!("$100000\r\n{value}\r\n");
    let mut came = vec![0; sent.len()];
    stream.read_exact(&mut came).expect("a reply of that length");
    link.restore();
    let changed = came.iter().zip(sent.bytes()).filter(|(a, b)| **a != *b).count();
    assert!((20..500).contains(&changed), "{changed} bytes of 100000 changed");
    assert_eq!(link.flips(), changed as u64 + 1);

    let mut conn = through(&link);
    conn.run("PING");
    link.cut();
    assert!(conn.try_call(&["PING"]).is_err());
    assert!(Conn::try_to(link.port()).and_then(|mut conn| conn.try_call(&["PING"])).is_err());
    link.restore();
    assert_eq!(through(&link).run("GET k"), Reply::bulk(&value));
}

#[test]
fn stalled_bytes_arrive_later_and_a_half_close_ends_one_way() {
    let node = small().start();
    let link = Link::to(&node);
    let connect = || TcpStream::connect(("127.0.0.1", link.port())).expect("a connection");
    let mut reply = [0; 7];

    let mut stream = connect();
    link.inject(Fault::Stall, CLIENTS.only(Way::Down));
    stream.write_all(b"SET k stalled\r\n").expect("sent");
    wait_for("the command to arrive", DEADLINE, || node.run("GET k") == Reply::bulk("stalled"));
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    assert!(stream.read(&mut reply).is_err(), "nothing comes back");
    link.restore();
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    assert_eq!(stream.read(&mut reply).expect("a reply"), 5);
    assert_eq!(&reply[..5], b"+OK\r\n");

    // The client is told that no more comes; the node still hears it.
    link.inject(Fault::HalfClose, CLIENTS.only(Way::Down));
    assert_eq!(stream.read(&mut reply).expect("an end"), 0);
    stream.write_all(b"SET k half\r\n").expect("sent");
    wait_for("the command to arrive", DEADLINE, || node.run("GET k") == Reply::bulk("half"));
    // New connections are whole.
    let mut stream = connect();
    stream.write_all(b"PING\r\n").expect("sent");
    assert_eq!(stream.read(&mut reply).expect("a reply"), 7);
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    let seed = rng().random();
    let length = Duration::from_secs(60);
    let schedule = Schedule::from_seed(seed, length);
    assert_eq!(schedule, Schedule::from_seed(seed, length));
    assert!(schedule.events.len() > 10, "{schedule}");
    let last = schedule.events.last().expect("events");
    assert!(last.at + last.lasts <= length);
    let cuts = Schedule::of(&[Kind::Cut], seed, length);
    assert!(cuts.events.iter().all(|event| event.fault == Fault::Cut), "{cuts}");
}
