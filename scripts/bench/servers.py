"""The servers to compare, how they are started, and what their processes have used."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .resp import Client, ReplyError

HAYPILE = "Haypile"
REDIS = "Redis"
REDIS_AOF = "Redis + AOF"

# What a port takes with it: replication and the files of a full sync (Haypile and Pika: + 2000, + 1000; Haypile: + 10001).
PORT_OFFSETS = (0, 1000, 2000, 10001)
FIRST_PORT = 17400
# Seconds a server may take until it answers.
START_LIMIT = 120
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Kind:
    """A server to compare: a shell line with {port} and {dir}, and how a setting is appended to it.

    `settings` are those of measurements that ask for others than the defaults.
    """

    name: str
    command: str
    setting: str = ""
    settings: tuple = ()

    def with_settings(self, settings):
        """The same with more settings, a dict; a peer's settings are in its command alone."""
        return Kind(self.name, self.command, self.setting, self.settings + tuple(settings.items()))

    def line(self, port, directory):
        """The shell line."""
        settings = [self.setting % setting for setting in self.settings] if self.setting else []
        line = " ".join([self.command, *settings])
        return line.replace("{port}", str(port)).replace("{dir}", str(directory))


def haypile(binary):
    """The server at `binary` with the conf that is shipped."""
    return Kind(HAYPILE, f"exec '{binary}' conf/haypile.conf --port {{port}} --dir {{dir}}", "--set %s=%s")


def redis():
    """Redis in memory: it writes nothing to disk."""
    line = "exec redis-server --port {port} --bind 127.0.0.1 --dir {dir} --save '' --loglevel warning --appendonly no"
    return Kind(REDIS, line, "--%s %s")


def redis_aof():
    """Redis with an append-only file, forced to disk every second as Haypile's log; it is not rewritten during a run."""
    line = (
        "exec redis-server --port {port} --bind 127.0.0.1 --dir {dir} --save '' --loglevel warning "
        "--appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0"
    )
    return Kind(REDIS_AOF, line, "--%s %s")


def peer(argument):
    """A peer named on the command line as NAME=COMMAND."""
    name, separator, command = argument.partition("=")
    if not separator or not name or "{port}" not in command or "{dir}" not in command:
        raise ValueError(f"a peer is NAME=COMMAND, with {{port}} and {{dir}} in the command: {argument}")
    return Kind(name, command)


@dataclass
class Usage:
    """What a server's processes have used so far: seconds of CPU, bytes written to disk; and resident memory in bytes, now and at its peak."""

    cpu: float = 0
    written: int = 0
    resident: int = 0
    peak: int = 0


def _session(pid):
    """The process ids of a session."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.getsid(int(entry)) == pid:
                    yield int(entry)
            except ProcessLookupError:
                pass


def _is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port(first):
    port = first
    while not all(_is_free(port + offset) for offset in PORT_OFFSETS):
        port += 1
    return port


@dataclass
class Node:
    """A server that was started in `directory`; it is the session leader of its processes."""

    kind: Kind
    directory: Path
    port: int
    process: subprocess.Popen = field(default=None)

    def start(self):
        """Starts it; the seconds until it answered PONG (an error, as LOADING, is none)."""
        with open(self.directory / "log", "ab") as log:
            begin = time.monotonic()
            self.process = subprocess.Popen(
                ["bash", "-c", self.kind.line(self.port, self.directory)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        while True:
            try:
                with Client(self.port) as client:
                    client.call("PING")
                return time.monotonic() - begin
            except (OSError, ReplyError):
                pass
            if self.process.poll() is not None or time.monotonic() - begin > START_LIMIT:
                text = (self.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"{self.kind.name} does not start:\n{text[-4000:]}")
            time.sleep(0.002)

    def kill(self):
        """Ends all its processes with SIGKILL."""
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def usage(self):
        """What its processes have used."""
        usage = Usage()
        for pid in _session(self.process.pid):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                status = Path(f"/proc/{pid}/status").read_text()
                io = Path(f"/proc/{pid}/io").read_text()
            except OSError:
                continue
            # utime, stime, and those of its children that have ended.
            usage.cpu += sum(int(ticks) for ticks in stat[11:15]) / TICKS_PER_SECOND
            usage.written += _number(io, "write_bytes:")
            usage.resident += _number(status, "VmRSS:") * 1024
            usage.peak += _number(status, "VmHWM:") * 1024
        return usage


def _number(text, key):
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


class Nodes:
    """Servers of one kind in a folder that goes with them: `with Nodes(kind) as start: node = start()`."""

    def __init__(self, kind):
        self.kind = kind
        self.nodes = []

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="haypile-bench-"))
        return self.start

    def __exit__(self, *_):
        try:
            self._clean()
        except BaseException:
            # A signal came in the middle of it.
            self._clean()
            raise

    def _clean(self):
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        """Starts one more, clean; returns when it answers."""
        directory = self.directory / str(len(self.nodes))
        directory.mkdir()
        first = self.nodes[-1].port + 1 if self.nodes else FIRST_PORT
        node = Node(self.kind, directory, _free_port(first))
        self.nodes.append(node)
        node.start()
        return node
