"""The rows of the matrix: what is asked of each server.

`table` is the table of the project's targets: these rows in this order on one server that starts empty, as the peers were measured when the
targets were set. `full` adds groups, each on a server of its own that starts clean.
"""

from dataclasses import dataclass, field

from .load import KEYS, Benchmark, Zipfian

READ, WRITE, MIXED = "read", "write", "mixed"

# Bytes of requests or replies that a pipeline may take: redis-benchmark has 50 of them under way.
PIPELINE_BYTES = 2 << 20
# Bytes of values that a row writes.
ROW_BYTES = 256 << 20


@dataclass(frozen=True)
class Row:
    """A line of the table: a load on a server that the rows before it have left as it is. `needs` is the row that wrote what it reads."""

    name: str
    access: str
    load: object
    needs: str = ""


@dataclass(frozen=True)
class Group:
    """Rows that are run one after the other on one server, which starts clean and is filled first with so many keys of `size` bytes."""

    name: str
    rows: tuple
    keys: int = 0
    size: int = 100
    settings: dict = field(default_factory=dict)


# Requests of each row are for two to four seconds at the rates of Redis on two cores.
TABLE = Group(
    "table",
    (
        Row("SET 100B P1", WRITE, Benchmark("set", 200_000)),
        Row("GET 100B P1", READ, Benchmark("get", 200_000), needs="SET 100B P1"),
        Row("SET 100B P16", WRITE, Benchmark("set", 1_000_000, 16)),
        Row("GET 100B P16", READ, Benchmark("get", 1_500_000, 16), needs="SET 100B P16"),
        Row("INCR P16", WRITE, Benchmark("incr", 1_000_000, 16)),
        Row("HSET P16", WRITE, Benchmark("hset", 1_000_000, 16)),
        Row("LPUSH P16", WRITE, Benchmark("lpush", 1_000_000, 16)),
        Row("SADD P16", WRITE, Benchmark("sadd", 1_000_000, 16)),
        Row("ZADD P16", WRITE, Benchmark("zadd", 500_000, 16)),
        Row("MSET10 P1", WRITE, Benchmark("mset", 100_000)),
        Row("LRANGE100 P1", READ, Benchmark("lrange mylist 0 99", 100_000), needs="LPUSH P16"),
        Row("SET 4K P4", WRITE, Benchmark("set", 100_000, 4, 4096)),
        Row("GET 4K P4", READ, Benchmark("get", 400_000, 4, 4096), needs="SET 4K P4"),
    ),
)

# The operations of the full matrix: redis-benchmark's test, access, values a request has or asks for (0: its size does not depend on
# them), and requests at P1, P16 and P64. What reads a list comes after what pushes, and RPOP takes as many as were pushed.
OPERATIONS = {
    "SET": ("set", WRITE, 1, (200_000, 1_000_000, 1_000_000)),
    "GET": ("get", READ, 1, (200_000, 1_500_000, 1_500_000)),
    "INCR": ("incr", WRITE, 0, (200_000, 1_000_000, 1_000_000)),
    "LPUSH": ("lpush", WRITE, 1, (200_000, 1_000_000, 1_500_000)),
    "LRANGE100": ("lrange mylist 0 99", READ, 100, (100_000, 100_000, 100_000)),
    "RPOP": ("rpop", WRITE, 1, (200_000, 1_000_000, 1_500_000)),
    "SADD": ("sadd", WRITE, 0, (200_000, 1_000_000, 1_000_000)),
    "HSET": ("hset", WRITE, 1, (200_000, 1_000_000, 1_000_000)),
    "ZADD": ("zadd", WRITE, 0, (200_000, 500_000, 500_000)),
    "MSET10": ("mset", WRITE, 10, (100_000, 100_000, 100_000)),
}
PIPELINES = (1, 16, 64)


def size_name(size):
    """100B, 4K."""
    return f"{size // 1024}K" if size >= 1024 else f"{size}B"


def operations(size, keys):
    """All operations with values of one size."""
    rows = []
    for pipeline, place in zip(PIPELINES, range(len(PIPELINES))):
        for name, (test, access, values, counts) in OPERATIONS.items():
            # Where values do not matter, those of 100 bytes have the row.
            if (values == 0 and size > 100) or pipeline * values * size > PIPELINE_BYTES:
                continue
            requests = counts[place]
            if values:
                requests = min(requests, max(4000, ROW_BYTES // (values * size)))
            needs = f"LPUSH {size_name(size)} P{pipeline}" if name in ("LRANGE100", "RPOP") else ""
            load = Benchmark(test, requests, pipeline, size, keys=keys)
            rows.append(Row(f"{name} {size_name(size)} P{pipeline}" if values else f"{name} P{pipeline}", access, load, needs))
    return Group(f"values of {size_name(size)}", tuple(rows), keys=keys, size=size)


ZIPFIAN = Group(
    "zipfian keys",
    (
        Row("GET 100B P16 zipfian", READ, Zipfian("get", 1_000_000)),
        Row("SET 100B P16 zipfian", WRITE, Zipfian("set", 500_000)),
        Row("read-modify-write P16 zipfian", MIXED, Zipfian("rmw", 600_000)),
    ),
    keys=KEYS,
)


def cached(name, keys):
    """Uniform keys of a data set of so many KiB."""
    return Group(
        name,
        (
            Row(f"GET 1K P16, {name}", READ, Benchmark("get", 400_000, 16, 1024, keys=keys)),
            Row(f"SET 1K P16, {name}", WRITE, Benchmark("set", 200_000, 16, 1024, keys=keys)),
            Row(f"GET 1K P16, {name}, after it", READ, Benchmark("get", 400_000, 16, 1024, keys=keys)),
        ),
        keys=keys,
        size=1024,
    )


# Against Haypile's block-cache of 128M by default.
FULL = (
    TABLE,
    operations(100, KEYS),
    operations(1024, 200_000),
    operations(16 * 1024, 16_000),
    ZIPFIAN,
    cached("half the block cache", 64_000),
    cached("8 times the block cache", 1_000_000),
)

MATRICES = {"table": (TABLE,), "full": FULL}


def selected(group, wanted):
    """The group with the rows whose names `wanted` accepts, and those that they need; None when there are none."""
    names = {row.name for row in group.rows if wanted(row.name)}
    for row in reversed(group.rows):
        if row.name in names and row.needs:
            names.add(row.needs)
    if not names:
        return None
    return Group(group.name, tuple(row for row in group.rows if row.name in names), group.keys, group.size, group.settings)
