"""The rows of two nodes, both on this machine: a stream under load, a full sync; and that of a server that was killed."""

import time

from . import load
from .resp import Client, ReplyError
from .run import fill, measure, note
from .servers import REDIS, Nodes

REPLICATED = "SET 100B P16, one replica"
LAG = "the replica has that load's last write"
FULL_SYNC = "full sync of 1.5 M keys x 400 B"
RECOVERY = "PONG after SIGKILL, 1 M x 200 B just written"

SYNC_KEYS, SYNC_SIZE = 1_500_000, 400
# So many keys that every slot of a server with slots has some of them: each has its own stream.
MARKERS = 256
# Seconds after which a replica is given up.
LIMIT = 600


def write_markers(node, generation):
    """Writes keys, over all slots, that a replica is then watched for."""
    with Client(node.port) as client:
        client.pipeline([("SET", f"marker:{number}", generation) for number in range(MARKERS)])


def await_markers(node, generation):
    """Waits until a replica has all of them."""
    begin = time.monotonic()
    client, missing = None, MARKERS
    while missing:
        try:
            client = client or Client(node.port)
            if client.call("GET", f"marker:{missing - 1}") == str(generation).encode():
                missing -= 1
                continue
        except ReplyError:
            # It loads, or is in a full sync.
            pass
        except OSError:
            client = None
        if time.monotonic() - begin > LIMIT:
            raise RuntimeError(f"{node.kind.name}: the replica is without {missing} of the last writes")
        time.sleep(0.002)


def follow(replica, master):
    """SLAVEOF, which all of them know."""
    with Client(replica.port) as client:
        client.call("SLAVEOF", "127.0.0.1", master.port)


def attach(master, start, count=1):
    """Starts replicas of a master; they are in step when it returns."""
    replicas = [start() for _ in range(count)]
    for replica in replicas:
        follow(replica, master)
    write_markers(master, "attached")
    for replica in replicas:
        await_markers(replica, "attached")
    return replicas


def stream(kind, results, scale):
    """Writes with a replica attached, and how long it then takes to have the last of them, in every slot."""
    with Nodes(kind) as start:
        master = start()
        replica, = attach(master, start)
        figures = measure(master, load.Benchmark("set", 1_000_000, 16), scale)
        begin = time.monotonic()
        write_markers(master, "last")
        await_markers(replica, "last")
        seconds = time.monotonic() - begin
    note(f"  {REPLICATED}: {figures['rate']:,.0f}/s, {seconds:.3f} s behind")
    results.add(REPLICATED, kind.name, **figures)
    results.add(LAG, kind.name, seconds=seconds)


def full_sync(kind, results, scale):
    """From SLAVEOF on an empty replica until it has what was written just after it."""
    with Nodes(kind) as start:
        master, replica = start(), start()
        fill(master, load.scaled(SYNC_KEYS, scale), SYNC_SIZE)
        begin = time.monotonic()
        follow(replica, master)
        write_markers(master, "fresh")
        await_markers(replica, "fresh")
        seconds = time.monotonic() - begin
    note(f"  {FULL_SYNC}: {seconds:.3f} s")
    results.add(FULL_SYNC, kind.name, seconds=seconds)


def recovery(kind, results, scale):
    """From the start of a server that was killed under load until it answers. Redis without a log has nothing to recover."""
    if kind.name == REDIS:
        return
    with Nodes(kind) as start:
        node = start()
        load.Benchmark("set", 1_000_000, 16, 200).run(node.port, scale)
        node.kill()
        seconds = node.start()
    note(f"  {RECOVERY}: {seconds:.3f} s")
    results.add(RECOVERY, kind.name, seconds=seconds)


# Names of their rows, and what measures them.
EXTRAS = (((REPLICATED, LAG), stream), ((FULL_SYNC,), full_sync), ((RECOVERY,), recovery))
