//! A real redis-server to compare replies with.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::ports::PortBlock;
use super::{Conn, DEADLINE, Reply, wait_for};

/// One redis-server process that keeps nothing; killed when dropped.
pub struct RedisServer {
    child: Child,
    ports: PortBlock,
    _dir: TempDir,
}

impl RedisServer {
    /// Starts redis-server on a free port.
    pub fn start() -> RedisServer {
        let ports = PortBlock::reserve();
        let dir = super::node::temp_dir();
        let log = File::create(dir.path().join("redis.log")).expect("a log file");
        let child = Command::new("redis-server")
            .args(["--port", &ports.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--enable-debug-command", "yes"])
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("redis-server is installed (scripts/test.sh does it)");
        let server = RedisServer { child, ports, _dir: dir };
        wait_for("redis-server to answer", DEADLINE, || {
            let pong = Conn::try_to(server.port()).and_then(|mut conn| conn.try_call(&["PING"]));
            matches!(pong, Ok(Reply::Simple(_)))
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.ports.port()
    }

    pub fn conn(&self) -> Conn {
        Conn::to(self.port())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
