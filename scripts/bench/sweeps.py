"""Throughput against one quantity, for whether something falls off a cliff as work grows: SET and GET in pipelines of 16.

In the results a row is the test and the quantity, as `SET P16, slots=4`.
"""

from dataclasses import dataclass, field

from .load import KEYS, Benchmark
from .replication import attach, await_markers, write_markers
from .run import fill, measure, note, rounds
from .servers import HAYPILE, Nodes

SET, GET = "SET P16", "GET P16"
SETS, GETS = 500_000, 800_000

# A data set of twenty times the block cache is written in seconds when the caches are small; memtables, too, that they do not hold it all.
SMALL_BLOCK_CACHE_MB = 16
SMALL_CACHES = {
    "block-cache": f"{SMALL_BLOCK_CACHE_MB}M",
    "cache": "8M",
    "write-buffer-size": "2M",
    "max-write-buffer-size": "16M",
}
DATA_VALUE = 1024
# Bytes of values that a point of the value sweep writes, and that it reads.
VALUE_BYTES = 256 << 20
VALUE_KEYS_BYTES = 128 << 20


@dataclass(frozen=True)
class Point:
    """A server prepared in one way, and what is run on it. `keys` are written first."""

    settings: dict = field(default_factory=dict)
    redis_settings: dict = field(default_factory=dict)
    keys: int = KEYS
    size: int = 100
    connections: int = 50
    replicas: int = 0
    sets: int = SETS
    gets: int = GETS

    def loads(self):
        """Reads first: they find the data as they were filled in."""
        yield GET, Benchmark("get", self.gets, 16, self.size, self.connections, self.keys)
        yield SET, Benchmark("set", self.sets, 16, self.size, self.connections, self.keys)


def _connections(count):
    # A connection sends at least 16 pipelines; and one connection alone is slow.
    requests = max(SETS if count >= 10 else SETS // 2, count * 16 * 16)
    limits = {"maxclients": 20000}
    return Point(limits, limits, connections=count, sets=requests, gets=requests)


def _value(size):
    keys = max(1000, min(KEYS, VALUE_KEYS_BYTES // size))
    requests = max(4000, min(SETS, VALUE_BYTES // size))
    return Point(keys=keys, size=size, sets=requests, gets=requests)


def _data(times):
    keys = int(times * SMALL_BLOCK_CACHE_MB * (1 << 20)) // DATA_VALUE
    return Point(SMALL_CACHES, keys=keys, size=DATA_VALUE, sets=200_000, gets=300_000)


@dataclass(frozen=True)
class Sweep:
    """Points by quantity. Where the quantity is nothing to the other servers (`alone`), they do not run."""

    title: str
    points: dict
    alone: bool = False
    logarithmic: bool = True


SWEEPS = {
    "slots": Sweep("slots (slot-num)", {slots: Point({"slot-num": slots}) for slots in (1, 2, 4, 16)}, alone=True),
    "connections": Sweep("connections", {count: _connections(count) for count in (1, 10, 50, 200, 1000, 10000)}),
    "data": Sweep(f"data, in block caches of {SMALL_BLOCK_CACHE_MB} MiB", {times: _data(times) for times in (0.25, 1, 2, 5, 10, 20)}, alone=True),
    "value": Sweep("bytes of a value", {size: _value(size) for size in (10, 100, 1024, 4096, 16384, 65536)}),
    "replicas": Sweep("replicas", {count: Point(replicas=count) for count in range(5)}, logarithmic=False),
}


def run_point(kind, point, label, results, scale):
    """One point on one server, which starts clean; its replicas are in step before the load begins."""
    settings = point.settings if kind.name == HAYPILE else point.redis_settings
    with Nodes(kind.with_settings(settings)) as start:
        node = start()
        replicas = attach(node, start, point.replicas)
        fill(node, point.keys, point.size)
        write_markers(node, "filled")
        for replica in replicas:
            await_markers(replica, "filled")
        for test, load in point.loads():
            figures = measure(node, load, scale)
            note(f"  {test}, {label}: {figures['rate']:,.0f}/s")
            results.add(f"{test}, {label}", kind.name, **figures)


def sweep(name, kinds, results, count, scale):
    """All points on all servers."""
    chosen = SWEEPS[name]
    kinds = [kind for kind in kinds if not chosen.alone or kind.name == HAYPILE]
    for _, kind in rounds(kinds, count):
        for quantity, point in chosen.points.items():
            run_point(kind, point, f"{name}={quantity:g}", results, scale)


def curves(name, results):
    """The curves of a sweep, by server and test."""
    points = {}
    for server in results.servers():
        for test in (SET, GET):
            rates = ((quantity, results.median(f"{test}, {name}={quantity:g}", server, "rate")) for quantity in SWEEPS[name].points)
            points[f"{server}: {test}"] = [(quantity, rate) for quantity, rate in rates if rate]
    return {title: pairs for title, pairs in points.items() if pairs}
