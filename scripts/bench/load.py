"""The loads. Each has `run(port, scale)`, which returns what it measured at the client.

redis-benchmark gives uniform keys. What it cannot do, we do ourselves: keys that are asked for with unequal frequency, reads followed by
writes of what was read, and filling a server with values that differ. There requests are encoded before the clock runs and a reply is only
counted in bytes, so that a batch of 16 costs the generator some ten microseconds; that is still one thread of Python, so these
figures compare servers with each other and not with those of redis-benchmark.
"""

import itertools
import random
import re
import select
import socket
import subprocess
import time
from dataclasses import dataclass

from .resp import encode

CONNECTIONS = 50
KEYS = 500_000
# A run of fewer requests measures its own beginning.
LEAST_REQUESTS = 1000
# The exponent of Zipf's law that YCSB uses.
ZIPF_EXPONENT = 0.99
# Seconds without any reply after which a load gives up.
SILENCE_LIMIT = 60
# Values are cut out of this many random bytes.
RANDOM_BYTES = 8 << 20


@dataclass(frozen=True)
class Result:
    """Requests done, how many a second, and latencies in ms (of a pipeline: until its last reply)."""

    requests: int
    rate: float
    p50: float
    p99: float
    p999: float


def scaled(requests, scale):
    """So many requests times a factor."""
    return max(LEAST_REQUESTS, int(requests * scale))


@dataclass(frozen=True)
class Benchmark:
    """A run of redis-benchmark: one of its tests, or a command of several words."""

    test: str
    requests: int
    pipeline: int = 1
    size: int = 100
    connections: int = CONNECTIONS
    keys: int = KEYS

    def command(self, port, requests):
        """Its command line."""
        what = self.test.split() if " " in self.test else ["-t", self.test]
        return [
            "redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "--precision", "3", "-r", str(self.keys), "-c", str(self.connections),
            "-n", str(requests), "-P", str(self.pipeline), "-d", str(self.size), *what,
        ]

    def run(self, port, scale=1):
        requests = scaled(self.requests, scale)
        done = subprocess.run(self.command(port, requests), capture_output=True, text=True)
        try:
            if done.returncode != 0:
                raise ValueError("it failed")
            return parse(done.stdout, requests)
        except ValueError as error:
            command = " ".join(self.command(port, requests))
            raise RuntimeError(f"{command}: {error}\n{done.stdout[-2000:]}{done.stderr[-2000:]}") from error


def parse(text, requests):
    """Reads what redis-benchmark 7 prints for one test without -q and --csv. Its distribution has no line of 99.9 %: the next is 99.902 %."""
    rate = re.search(r"throughput summary: ([\d.]+) requests per second", text)
    summary = re.search(r"avg +min +p50 +p95 +p99 +max\s+([\d. ]+)", text)
    if not rate or not summary:
        raise ValueError("no summary in the output")
    _, _, p50, _, p99, longest = map(float, summary[1].split())
    distribution = re.findall(r"([\d.]+)% <= ([\d.]+) milliseconds", text.partition("Cumulative distribution")[0])
    p999 = min((float(ms) for percent, ms in distribution if float(percent) >= 99.9), default=longest)
    return Result(requests, float(rate[1]), p50, p99, p999)


@dataclass(frozen=True)
class Batch:
    """Requests that are sent together: their bytes, their number, how many bytes the replies are, and what the same connection sends
    when it has them."""

    data: bytes
    requests: int
    replies: int
    then: "Batch | None" = None


def key(number):
    """A key as redis-benchmark names it."""
    return b"key:%012d" % number


def drive(port, batches, connections=CONNECTIONS):
    """Sends an iterator of batches over connections, one a connection at a time."""
    batches = iter(batches)
    events = select.epoll()
    # By descriptor: the socket; the batch sent, the bytes that are missing of its replies, and when it was sent.
    sockets, waiting = {}, {}
    latencies = []
    buffer = bytearray(1 << 20)

    def send(descriptor, batch):
        batch = batch or next(batches, None)
        if batch is None:
            events.unregister(descriptor)
            sockets.pop(descriptor).close()
            del waiting[descriptor]
            return
        waiting[descriptor] = (batch, batch.replies, time.perf_counter())
        sockets[descriptor].sendall(batch.data)

    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        events.register(connection.fileno(), select.EPOLLIN)
        waiting[connection.fileno()] = None
    begin = time.perf_counter()
    try:
        for descriptor in list(sockets):
            send(descriptor, None)
        while sockets:
            ready = events.poll(SILENCE_LIMIT)
            if not ready:
                raise RuntimeError(f"replies are missing: {sum(missing for _, missing, _ in waiting.values())} bytes")
            for descriptor, _ in ready:
                received = sockets[descriptor].recv_into(buffer)
                batch, missing, sent = waiting[descriptor]
                is_error = missing == batch.replies and buffer[0] == ord("-")
                if received == 0 or received > missing or is_error:
                    raise RuntimeError(f"not the replies expected: {bytes(buffer[:min(received, 200)])!r}")
                if received < missing:
                    waiting[descriptor] = (batch, missing - received, sent)
                else:
                    latencies.append((time.perf_counter() - sent, batch.requests))
                    send(descriptor, batch.then)
        elapsed = time.perf_counter() - begin
    finally:
        for connection in sockets.values():
            connection.close()
        events.close()
    requests = sum(requests for _, requests in latencies)
    return Result(requests, requests / elapsed, *percentiles(latencies, (0.5, 0.99, 0.999)))


def percentiles(latencies, fractions):
    """Those of requests, in ms, from pairs of seconds and the requests that took them."""
    latencies = sorted(latencies)
    totals = list(itertools.accumulate(requests for _, requests in latencies))
    for fraction in fractions:
        yield next(seconds for (seconds, _), total in zip(latencies, totals) if total >= fraction * totals[-1]) * 1000


class Values:
    """Values of one size that differ and cannot be compressed."""

    def __init__(self, size, seed=1):
        self.size = size
        self.random = random.Random(seed)
        self.bytes = self.random.randbytes(RANDOM_BYTES + size)

    def next(self):
        """Any."""
        begin = int(self.random.random() * RANDOM_BYTES)
        return self.bytes[begin:begin + self.size]


def sets(numbers, values):
    """A batch that writes so many keys."""
    # As `encode` would, in a fifth of the time.
    form = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%%012d\r\n$%d\r\n%%b\r\n" % values.size
    data = b"".join(form % (number, values.next()) for number in numbers)
    return Batch(data, len(numbers), len(b"+OK\r\n") * len(numbers))


def fill(port, keys, size):
    """Writes each of so many keys once, in order."""
    pipeline = max(1, min(64, (1 << 20) // size))
    values = Values(size)

    def batches():
        for first in range(0, keys, pipeline):
            yield sets(range(first, min(first + pipeline, keys)), values)

    return drive(port, batches(), connections=8)


def zipfian(keys, count, seed=1):
    """So many numbers below `keys` by Zipf's law; which of them are frequent is random."""
    choice = random.Random(seed)
    numbers = list(range(keys))
    choice.shuffle(numbers)
    weights = list(itertools.accumulate((rank + 1) ** -ZIPF_EXPONENT for rank in range(keys)))
    return choice.choices(numbers, cum_weights=weights, k=count)


def chunks(items, length):
    """Consecutive lists of so many items, the last maybe shorter."""
    for first in range(0, len(items), length):
        yield items[first:first + length]


@dataclass(frozen=True)
class Zipfian:
    """Zipfian keys: "get", "set", or "rmw", where each pipeline of GETs is followed by one that SETs half of the keys just read (YCSB's
    workload F). All keys must be there, with values of `size`."""

    command: str
    requests: int
    pipeline: int = 16
    size: int = 100
    keys: int = KEYS

    def run(self, port, scale=1):
        # All of it is made before the clock runs.
        values = Values(self.size, seed=2)
        numbers = zipfian(self.keys, scaled(self.requests, scale))
        if self.command == "rmw":
            # A third of the requests are the writes.
            reads = chunks(numbers[:len(numbers) * 2 // 3], self.pipeline)
            batches = [self._gets(part, then=sets(part[::2], values)) for part in reads]
        elif self.command == "set":
            batches = [sets(part, values) for part in chunks(numbers, self.pipeline)]
        else:
            batches = [self._gets(part) for part in chunks(numbers, self.pipeline)]
        return drive(port, batches)

    def _gets(self, numbers, then=None):
        reply = len(b"$%d\r\n" % self.size) + self.size + len(b"\r\n")
        return Batch(b"".join(encode("GET", key(number)) for number in numbers), len(numbers), reply * len(numbers), then)
