//! What one client may cost: connections, unread replies, unfinished commands, long pipelines, large values, file descriptors. The one over a
//! limit is told or closed, the others are served, and the memory stays bounded.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::common::resp::encode;
use crate::common::{
    Conn, DEADLINE, Node, NodeOptions, Reply, random_bytes, rng, run_program, wait_caught_up, wait_connected, wait_for,
    wait_some,
};

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";
const MIB: u64 = 1 << 20;

/// A client that sends and does not read.
struct Unread(TcpStream);

impl Unread {
    /// Sends until the server takes no more, or all of it.
    fn send(node: &Node, bytes: &[u8]) -> Unread {
        let mut stream = node.conn().writer();
        stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        match stream.write_all(bytes) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // The server has closed it.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            Err(e) => panic!("sending: {e}"),
        }
        Unread(stream)
    }

    /// What came before the server closed the connection.
    fn rest(mut self) -> Vec<u8> {
        self.0.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("waiting for the server to close: {e}"),
        }
        bytes
    }
}

fn repeated(args: &[&str], times: usize) -> Vec<u8> {
    let mut one = Vec::new();
    encode(&mut one, args);
    one.repeat(times)
}

fn stat(node: &Node, field: &str) -> u64 {
    let info = node.run("INFO everything").text();
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}")).parse().expect("a number")
}

fn clients(node: &Node) -> usize {
    stat(node, "connected_clients") as usize
}

/// Bytes of the key that CLIENT LIST shows for the client of this name.
fn listed(conn: &mut Conn, name: &str, key: &str) -> Option<u64> {
    let list = conn.run("CLIENT LIST").text();
    let line = list.lines().find(|line| line.contains(&format!("name={name} ")))?;
    let word = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    Some(word.expect("the key").parse().expect("a number"))
}

/// Processor time that the process has used.
fn cpu(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).expect("stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("fd").count()
}

/// Sets the process's limit of open files, and leaves the hard one.
fn limit_files(node: &Node, files: usize) {
    let (pid, limit) = (node.pid().to_string(), format!("--nofile={files}:"));
    let output = run_program(Command::new("prlimit").args(["--pid", &pid, &limit]));
    assert!(output.status.success(), "prlimit: {}", String::from_utf8_lossy(&output.stderr));
}

/// Highest resident memory since [`reset_peak`].
fn peak_memory(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn reset_peak(node: &Node) {
    fs::write(format!("/proc/{}/clear_refs", node.pid()), "5").expect("clear_refs");
}

#[test]
fn clients_beyond_maxclients_are_counted() {
    let node = NodeOptions::new().set("maxclients", 3).start();
    let mut first = node.conn();
    // The client that looked whether the server is up.
    wait_for("it to be alone", DEADLINE, || stat_of(&mut first, "clients", "connected_clients") == 1);
    let mut others = [node.conn(), node.conn()];
    others.iter_mut().for_each(|other| drop(other.run("PING")));
    for _ in 0..3 {
        assert_eq!(Conn::to(node.port()).read_to_end(), TOO_MANY);
    }
    first.run("SET k v").expect_ok();
    let info = first.run("INFO").text();
    assert!(info.contains("rejected_connections:3\r\n") && info.contains("connected_clients:3\r\n"), "{info}");
    first.run("CONFIG SET maxclients 4").expect_ok();
    assert_eq!(node.run("GET k"), Reply::bulk("v"));
    assert_eq!(node.output().matches("refused clients").count(), 1, "one line for all");
}

/// As many clients as the system lets this process have, up to ten thousand, that have said something and are silent.
#[test]
fn idle_connections_cost_little() {
    const WANTED: u64 = 10_000;
    const PER_CLIENT: u64 = 16 << 10;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(WANTED * 4), hard).expect("a limit");
    // The server keeps a thousand for itself.
    let count = WANTED.min(hard.saturating_sub(2000)).max(200) as usize;
    let node = NodeOptions::new().set("maxclients", count + 10).start();
    let mut conn = node.conn();
    conn.run("SET k v").expect_ok();
    let before = node.resident_memory();
    let idle: Vec<TcpStream> = (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", node.port())).expect("a connection");
            stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").expect("sent");
            let mut reply = [0; 7];
            stream.read_exact(&mut reply).expect("a reply");
            assert_eq!(&reply, b"$1\r\nv\r\n");
            stream
        })
        .collect();
    assert_eq!(clients(&node), count + 2);
    let each = node.resident_memory().saturating_sub(before) / count as u64;
    println!("{count} idle clients: {each} bytes each");
    assert!(each < PER_CLIENT, "{each} bytes for an idle client");
    let used = cpu(&node);
    thread::sleep(Duration::from_millis(500));
    assert!(cpu(&node) - used < Duration::from_millis(300), "idle clients keep the server busy");
    assert_eq!(conn.run("GET k"), Reply::bulk("v"));
    drop(idle);
    wait_for("the clients to be gone", DEADLINE, || clients(&node) == 2);
}

/// Beginnings of commands that promise much: what is held is what came.
#[test]
fn half_a_command_costs_what_came_of_it() {
    const CLIENTS: usize = 300;
    const PER_CLIENT: u64 = 24 << 10;
    let node = Node::start();
    let mut conn = node.conn();
    conn.run("SET k v").expect_ok();
    let beginnings: [&[u8]; 4] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc",
        b"*1048576\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
        b"*2\r\n$536870912\r\n",
        b"SET k \"an inline command without an end",
    ];
    let before = node.resident_memory();
    let mut halves = Vec::new();
    for beginning in beginnings {
        for _ in 0..CLIENTS {
            let mut stream = TcpStream::connect(("127.0.0.1", node.port())).expect("a connection");
            stream.write_all(beginning).expect("sent");
            halves.push(stream);
        }
    }
    let sent: usize = beginnings.iter().map(|beginning| beginning.len() * CLIENTS).sum();
    wait_for("the halves to come", DEADLINE, || stat(&node, "total_net_input_bytes") as usize >= sent);
    let each = node.resident_memory().saturating_sub(before) / halves.len() as u64;
    println!("{each} bytes for half a command");
    assert!(each < PER_CLIENT, "{each} bytes for half a command");
    assert_eq!(conn.run("GET k"), Reply::bulk("v"));

    // They have said nothing for long enough; who speaks, listens or waits stays.
    let listening = [&["SUBSCRIBE", "channel"][..], &["MONITOR"], &["BLPOP", "nothing", "0"]].map(|command| {
        let mut conn = node.conn();
        conn.push(command);
        conn.flush();
        conn
    });
    conn.run("CONFIG SET timeout 2").expect_ok();
    wait_for("the halves to be closed", DEADLINE, || stat_of(&mut conn, "clients", "connected_clients") == 4);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(stat_of(&mut conn, "clients", "connected_clients"), 4, "who listens was closed");
    drop(listening);
    for mut half in halves {
        let mut rest = Vec::new();
        let _ = half.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

#[test]
fn a_query_buffer_has_a_limit() {
    let node = NodeOptions::new().set("client-query-buffer-limit", "1M").start();
    let mut half = b"*2\r\n$3\r\nGET\r\n$300000000\r\n".to_vec();
    half.resize(4 << 20, b'x');
    let half = Unread::send(&node, &half);
    assert_eq!(half.rest(), b"");
    // It is counted when the connection is gone.
    wait_for("the count", DEADLINE, || stat(&node, "client_query_buffer_limit_disconnections") == 1);
    assert!(node.output().contains("closed a client over client-query-buffer-limit"));
}

/// A browser, a TLS client, and noise: none of what they say is executed.
#[test]
fn other_protocols_are_turned_away() {
    let node = Node::start();
    let http: [&[u8]; 2] = [
        b"POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nSET k evil\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k evil\r\n",
    ];
    for request in http {
        let mut conn = node.conn();
        conn.send_raw(request);
        conn.read_to_end();
    }
    assert!(node.output().contains("speaks HTTP"), "the log tells of it");
    let mut hello = node.conn();
    hello.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a hello of TLS\r\n");
    assert!(hello.read().error_text().starts_with("ERR unknown command"), "not a hello");
    let mut rng = rng();
    for _ in 0..20 {
        let mut noise = node.conn();
        noise.send_raw(&random_bytes(&mut rng, 10_000));
        noise.close_write();
        noise.read_to_end();
    }
    assert_eq!(node.run("GET k"), Reply::Nil);
}

/// The replies to a command or a pipeline over the hard limit are not even sent, as in Redis; what it wrote stays.
#[test]
fn a_hard_limit_of_output() {
    let node = NodeOptions::new().set("client-output-buffer-limit", "normal 100k 0 0").start();
    let mut conn = node.conn();
    let long = "x".repeat(10_000);
    conn.call(&["SET", "long", &long]).expect_ok();
    for _ in 0..30 {
        conn.call(&["RPUSH", "list", &long]);
    }
    let unanswered = |requests: &[Vec<&str>]| {
        let mut conn = node.conn();
        let mut bytes = Vec::new();
        requests.iter().for_each(|args| encode(&mut bytes, args));
        conn.send_raw(&bytes);
        conn.read_to_end()
    };
    assert_eq!(unanswered(&[vec!["LRANGE", "list", "0", "-1"]]), b"");
    assert_eq!(unanswered(&vec![vec!["GET", "long"]; 15]), b"");
    let transaction = [vec!["MULTI"], vec!["SET", "a", "1"], vec!["LRANGE", "list", "0", "-1"], vec!["SET", "b", "2"]];
    let mut conn_in_multi = node.conn();
    for args in &transaction {
        conn_in_multi.call(args);
    }
    conn_in_multi.push(&["EXEC"]);
    conn_in_multi.flush();
    assert_eq!(conn_in_multi.read_to_end(), b"");
    assert_eq!(conn.run("MGET a b"), Reply::bulks(&["1", "2"]));
    assert_eq!(unanswered(&[vec!["LPOP", "list", "20"]]), b"");
    assert_eq!(conn.run("LLEN list"), Reply::Int(10));
    // One that is served while it waits.
    let mut waiting = node.conn();
    waiting.push(&["BLMPOP", "0", "1", "queue", "LEFT", "COUNT", "100"]);
    waiting.flush();
    wait_for("the client to wait", DEADLINE, || stat(&node, "blocked_clients") == 1);
    conn.call(&[&["RPUSH", "queue"][..], &[long.as_str(); 20][..]].concat());
    assert_eq!(waiting.read_to_end(), b"");
    // Who wants no replies is not held to them.
    conn.push(&["CLIENT", "REPLY", "OFF"]);
    (0..20).for_each(|_| conn.push(&["GET", "long"]));
    conn.push(&["CLIENT", "REPLY", "ON"]);
    conn.flush();
    conn.read().expect_ok();
    assert_eq!(stat(&node, "client_output_buffer_limit_disconnections"), 5);
    assert_eq!(node.output().matches("closed a client over client-output-buffer-limit").count(), 5);
}

#[test]
fn a_soft_limit_of_output() {
    let node = NodeOptions::new().set("client-output-buffer-limit", "normal 0 64k 1").start();
    node.conn().call(&["SET", "long", &"x".repeat(10_000)]).expect_ok();
    let stalled = Unread::send(&node, &repeated(&["GET", "long"], 5000));
    // One that asks for as much and reads.
    let mut reader = node.conn();
    let mut writer = reader.writer();
    let sender = thread::spawn(move || writer.write_all(&repeated(&["GET", "long"], 5000)));
    for _ in 0..5000 {
        assert_eq!(reader.read().bytes().len(), 10_000);
    }
    sender.join().expect("the sender").expect("all sent");
    wait_for("the client that does not read to be closed", DEADLINE, || {
        stat(&node, "client_output_buffer_limit_disconnections") == 1
    });
    stalled.rest();
    reader.run("PING");
}

/// Without a limit replies are held back: a client that does not read costs a bounded amount, and stands in nobody's way.
#[test]
fn who_does_not_read_stands_in_nobodys_way() {
    const STALLED: usize = 20;
    let node = Node::start();
    let mut conn = node.conn();
    conn.call(&["SET", "long", &"x".repeat(100_000)]).expect_ok();
    for i in 0..2000 {
        conn.push(&["RPUSH", "list", &format!("{i}:{}", "y".repeat(1000))]);
        conn.push(&["SET", &format!("key{i}"), "v"]);
    }
    conn.flush();
    conn.read_many(4000);
    let before = node.resident_memory();
    let mut stalled: Vec<Unread> =
        (0..STALLED).map(|_| Unread::send(&node, &repeated(&["GET", "long"], 1000))).collect();
    // Large single replies, from the blocking pool and from a view of the data.
    stalled.push(Unread::send(&node, &repeated(&["LRANGE", "list", "0", "-1"], 100)));
    stalled.push(Unread::send(&node, &repeated(&["KEYS", "*"], 2000)));
    stalled.push(Unread::send(&node, &repeated(&["SORT", "list", "ALPHA"], 100)));
    let omem = |line: &str| line.split(" omem=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    wait_for("the replies of all to wait", DEADLINE, || {
        let list = conn.run("CLIENT LIST").text();
        list.lines().filter_map(omem).filter(|bytes| *bytes > 0).count() == stalled.len()
    });
    let grown = node.resident_memory().saturating_sub(before);
    let bound = stalled.len() as u64 * 6 * MIB + 64 * MIB;
    println!("{} clients that do not read: {} MiB", stalled.len(), grown / MIB);
    assert!(grown < bound, "{grown} bytes for {} clients that do not read", stalled.len());
    // Their keys are free, and what they read can be replaced.
    conn.run("SET long short").expect_ok();
    assert_eq!(conn.run("LPOP list").text().split(':').next(), Some("0"));
    conn.run("FLUSHALL").expect_ok();
    assert_eq!(conn.run("DBSIZE"), Reply::Int(0));
    assert!(stat(&node, "client_recent_max_output_buffer") >= MIB);
    drop(stalled);
    wait_for("the clients to be gone", DEADLINE, || clients(&node) <= 2);
}

/// A pipeline of a million commands in one go, before the first reply is read: no deadlock, all replies in order, and others are served.
#[test]
fn a_million_commands_before_the_first_reply() {
    const COMMANDS: usize = 1_000_000;
    let node = Node::start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut conn, mut longest, mut served) = (node.conn(), Duration::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                assert_eq!(conn.run("GET other"), Reply::Nil);
                longest = longest.max(began.elapsed());
                served += 1;
                thread::sleep(Duration::from_millis(2));
            }
            (served, longest)
        });
        let before = node.resident_memory();
        reset_peak(&node);
        let mut conn = node.conn();
        conn.call(&["CLIENT", "SETNAME", "million"]).expect_ok();
        let (incr, get) = (repeated(&["INCR", "n"], 1), repeated(&["GETRANGE", "n", "0", "-1"], 1));
        let both = [incr, get].concat();
        conn.send_raw(&both.repeat(COMMANDS / 2));
        // Replies wait, and commands wait behind them.
        assert!(listed(&mut node.conn(), "million", "qbuf").is_some());
        for i in 1..=COMMANDS / 2 {
            assert_eq!(conn.read(), Reply::Int(i as i64));
            assert_eq!(conn.read(), Reply::bulk(i.to_string()));
        }
        stop.store(true, Ordering::Relaxed);
        let (served, longest) = other.join().expect("the other client");
        let peak = peak_memory(&node).saturating_sub(before);
        println!("{served} commands of another client meanwhile, the longest {longest:?}; {} MiB more", peak / MIB);
        assert!(served > 20, "{served} commands of another client");
        assert!(peak < 400 * MIB, "{peak} bytes for a pipeline of {} bytes", both.len() * COMMANDS / 2);
        wait_for("its buffers to be given back", DEADLINE, || {
            conn.run("PING");
            listed(&mut node.conn(), "million", "tot-mem").is_some_and(|bytes| bytes < MIB)
        });
    });
}

/// Half closed, and all of a pipeline unread: it is executed and answered to the end.
#[test]
fn a_pipeline_whose_end_comes_while_replies_wait() {
    let node = Node::start();
    node.conn().call(&["SET", "long", &"x".repeat(10_000)]).expect_ok();
    let mut conn = node.conn();
    conn.send_raw(&repeated(&["GET", "long"], 2000));
    conn.send_raw(b"*1\r\n$4\r\nPING\r\n");
    conn.close_write();
    let all = conn.read_to_end();
    assert_eq!(all.len(), 2000 * 10_010 + 7);
    assert!(all.ends_with(b"+PONG\r\n"));
}

/// Clients together over `maxmemory-clients`: the largest go, those under CLIENT NO-EVICT and the small ones stay.
#[test]
fn clients_that_take_too_much_together_are_evicted() {
    let node = NodeOptions::new().set("maxmemory-clients", "4M").start();
    let mut conn = node.conn();
    conn.call(&["SET", "long", &"x".repeat(10_000)]).expect_ok();
    let mut keeper = node.conn();
    keeper.run("CLIENT NO-EVICT ON").expect_ok();
    keeper.send_raw(&repeated(&["GET", "long"], 1000));
    let _large: Vec<Unread> = (0..6).map(|_| Unread::send(&node, &repeated(&["GET", "long"], 3000))).collect();
    wait_for("clients to be evicted", DEADLINE, || {
        stat(&node, "evicted_clients") >= 4 && stat(&node, "mem_clients_normal") <= 4 * MIB
    });
    for _ in 0..1000 {
        assert_eq!(keeper.read().bytes().len(), 10_000);
    }
    conn.run("PING");
    assert!(node.output().contains("closed a client over maxmemory-clients"));
}

/// Clients take all descriptors that they may: the last ones are for the data, which can still be written.
#[test]
fn clients_do_not_take_the_last_files() {
    const FILES: usize = 200;
    let node = NodeOptions::new()
        .set("databases", 1)
        .set("slot-num", 1)
        .set("binlog-file-size", "64K")
        .set("write-buffer-size", "64K")
        .start();
    let mut conn = node.conn();
    conn.run("SET k v").expect_ok();
    limit_files(&node, FILES);
    let mut admitted = Vec::new();
    let mut refused = 0;
    for _ in 0..2 * FILES {
        let mut client = Conn::to(node.port());
        match client.try_call(&["PING"]) {
            Ok(reply) if !reply.is_error() => admitted.push(client),
            Ok(reply) => {
                assert_eq!(reply.error_text().as_bytes(), TOO_MANY[1..TOO_MANY.len() - 2].as_ref());
                refused += 1;
            }
            // It was closed with the request unread.
            Err(_) => refused += 1,
        }
    }
    println!("{} clients of {FILES} files, {refused} refused", admitted.len());
    assert!(admitted.len() > FILES / 3 && admitted.len() < FILES * 3 / 4, "{} clients", admitted.len());
    assert_eq!(stat_of(&mut conn, "stats", "rejected_connections"), refused);
    // New log files and flushes, all the while.
    let value = "x".repeat(10_000);
    for i in 0..200 {
        conn.call(&["SET", &format!("k{i}"), &value]).expect_ok();
    }
    let used = cpu(&node);
    thread::sleep(Duration::from_millis(500));
    assert!(cpu(&node) - used < Duration::from_millis(400), "the server is busy with refusing");
    assert!(node.output().matches("refused clients").count() <= 1 + refused as usize / 50, "{}", node.output());
    drop(admitted);
    wait_for("clients to be admitted again", DEADLINE, || {
        Conn::try_to(node.port()).and_then(|mut conn| conn.try_call(&["PING"])).is_ok_and(|reply| !reply.is_error())
    });
}

fn stat_of(conn: &mut Conn, section: &str, field: &str) -> u64 {
    let info = conn.call(&["INFO", section]).text();
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the field").parse().expect("a number")
}

/// No descriptor is left at all: errors to those who need one, and everything as before when there are some again.
#[test]
fn out_of_files_and_back() {
    let node = NodeOptions::new().set("databases", 1).set("slot-num", 2).set("binlog-file-size", "64K").start();
    let mut conn = node.conn();
    let value = "x".repeat(10_000);
    for i in 0..10 {
        conn.call(&["SET", &format!("k{i}"), &value]).expect_ok();
    }
    limit_files(&node, open_files(&node));
    let mut errors = Vec::new();
    for i in 0..100 {
        let reply = conn.call(&["SET", &format!("k{}", i % 10), &value]);
        if reply.is_error() {
            errors.push(reply.error_text().to_string());
        }
        assert_eq!(conn.call(&["GET", &format!("k{}", i % 10)]), Reply::bulk(&value));
    }
    assert!(errors.iter().all(|error| error.contains("Too many open files")), "{errors:?}");
    assert!(!errors.is_empty(), "no new log file was needed");
    let told = Conn::to(node.port()).read_to_end();
    assert!(told == TOO_MANY || told.is_empty(), "{}", told.escape_ascii());
    let used = cpu(&node);
    thread::sleep(Duration::from_millis(500));
    assert!(cpu(&node) - used < Duration::from_millis(400), "the server is busy with waiting for descriptors");
    limit_files(&node, 1000);
    wait_some("writes to succeed again", DEADLINE, || {
        (0..10).all(|i| !conn.call(&["SET", &format!("k{i}"), &value]).is_error()).then_some(())
    });
    assert!(conn.run("INFO persistence").text().contains("slots_read_only:0\r\n"));
    assert_eq!(node.run("PING"), Reply::Simple("PONG".into()));
}

/// An engine that finds no descriptor for its data file: its slot refuses writes with the reason, reads go on, the server stops as ever, and the next start
/// has everything.
#[test]
fn an_engine_out_of_files() {
    let mut node = NodeOptions::new()
        .set("databases", 1)
        .set("slot-num", 1)
        .set("max-write-buffer-size", "2M")
        .set("write-buffer-size", "1M")
        .start();
    let mut conn = node.conn();
    conn.run("SET first v").expect_ok();
    limit_files(&node, open_files(&node));
    let value = "x".repeat(50_000);
    let mut acknowledged = 0;
    let refused = wait_some("the engine to fail", DEADLINE, || {
        let reply = conn.call(&["SET", &format!("k{acknowledged}"), &value]);
        if reply.is_error() {
            return Some(reply);
        }
        acknowledged += 1;
        None
    });
    assert!(refused.error_text().contains("Too many open files"), "{refused:?}");
    assert_eq!(conn.run("GET first"), Reply::bulk("v"));
    let began = Instant::now();
    let status = node.terminate();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(10), "the stop took {:?}", began.elapsed());
    node.start_again();
    let mut conn = node.conn();
    for i in 0..acknowledged {
        assert_eq!(conn.call(&["GET", &format!("k{i}")]), Reply::bulk(&value));
    }
    conn.run("SET first w").expect_ok();
}

/// A value of the largest size, or of 64 MiB unless HAYPILE_TEST_LONG is set: kept, replicated, changed in place, and its memory given back.
#[test]
fn a_large_value() {
    let mib = if std::env::var_os("HAYPILE_TEST_LONG").is_some() { 512 } else { 64 };
    let bytes = (mib * MIB) as usize;
    let mut node = NodeOptions::new().set("databases", 1).set("slot-num", 1).set("proto-max-bulk-len", bytes).start();
    let replica = NodeOptions::new().set("databases", 1).set("slot-num", 1).set("proto-max-bulk-len", bytes).start();
    replica.slaveof(node.port());
    wait_connected(&replica);
    let value = random_bytes(&mut rng(), MIB as usize).repeat(mib as usize);
    let mut conn = node.conn();
    let before = node.resident_memory();
    reset_peak(&node);
    conn.call(&[b"SET".as_slice(), b"whole", &value]).expect_ok();
    let peak = peak_memory(&node).saturating_sub(before);
    println!("SET of {mib} MiB: {} MiB more at the peak", peak / MIB);
    assert!(peak < 6 * bytes as u64 + 32 * MIB, "{peak} bytes for a value of {bytes}");
    assert_eq!(conn.run("STRLEN whole"), Reply::Int(bytes as i64));
    assert_eq!(conn.run("APPEND whole x").error_text(), "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    assert_eq!(
        conn.call(&["SETRANGE", "whole", &(bytes - 1).to_string(), "xy"]).error_text(),
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    );
    assert_eq!(conn.call(&["SETRANGE", "whole", &(bytes - 2).to_string(), "yz"]), Reply::Int(bytes as i64));
    assert_eq!(conn.call(&["GETRANGE", "whole", "-3", "-1"]).bytes(), [&value[bytes - 3..bytes - 2], b"yz"].concat());
    assert_eq!(conn.call(&[b"HSET".as_slice(), b"hash", b"field", &value]), Reply::Int(1));
    assert!(conn.call(&["HGET", "hash", "field"]).bytes() == value);
    let mut over = node.conn();
    over.send_raw(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", bytes + 1).as_bytes());
    assert_eq!(over.read(), Reply::error("ERR Protocol error: invalid bulk length"));
    wait_caught_up(&node, &replica);
    let whole = [&value[..bytes - 2], b"yz"].concat();
    assert!(replica.conn().call(&["GET", "whole"]).bytes() == whole);
    drop((conn, over));
    node.restart();
    assert!(node.conn().call(&["GET", "whole"]).bytes() == whole);
    node.run("PING");
    wait_for("the memory to be given back", DEADLINE, || node.resident_memory() < before + 2 * bytes as u64);
}
