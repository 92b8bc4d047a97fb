"""Rounds of rows over servers, one server at a time, interleaved: each round takes all servers, each round another one first."""

import sys
import time

from . import load
from .matrix import TABLE, selected
from .servers import Nodes

MB = 1_000_000
# After it was filled a server is waited for until it takes less of a core than this, seconds at a time and at most.
SETTLED, SETTLE_STEP, SETTLE_LIMIT = 0.05, 0.4, 60
# The row with the memory that the table leaves behind.
MEMORY = "resident memory after the table"


def note(text):
    """Tells on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)


def measure(node, work, scale=1):
    """Runs a load; what it measured, and what the server used meanwhile, as figures of a row."""
    before = node.usage()
    result = work.run(node.port, scale)
    after = node.usage()
    return {
        "rate": result.rate,
        "p50_ms": result.p50,
        "p99_ms": result.p99,
        "p999_ms": result.p999,
        "cpu_s_per_million": (after.cpu - before.cpu) / result.requests * 1e6,
        "written_bytes": (after.written - before.written) / result.requests,
        "resident_mb": after.resident / MB,
        "peak_mb": after.peak / MB,
    }


def fill(node, keys, size):
    """Writes so many keys, and waits until the server has digested them: flushed, compacted, or whatever else it does by itself."""
    load.fill(node.port, keys, size)
    end = time.monotonic() + SETTLE_LIMIT
    busy = True
    while busy and time.monotonic() < end:
        before = node.usage().cpu
        time.sleep(SETTLE_STEP)
        busy = node.usage().cpu - before > SETTLE_STEP * SETTLED


def run_group(kind, group, results, scale):
    """One group on one server, which starts clean."""
    with Nodes(kind.with_settings(group.settings)) as start:
        node = start()
        if group.keys:
            fill(node, group.keys, group.size)
        for row in group.rows:
            figures = measure(node, row.load, scale)
            note(f"  {row.name}: {figures['rate']:,.0f}/s")
            results.add(row.name, kind.name, **figures)
        if group == TABLE:
            usage = node.usage()
            results.add(MEMORY, kind.name, resident_mb=usage.resident / MB, peak_mb=usage.peak / MB)


def rounds(kinds, count):
    """The servers in the order of a run: round, server."""
    for number in range(count):
        first = number % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            note(f"round {number + 1} of {count}: {kind.name}")
            yield number, kind


def run(kinds, groups, extras, results, count, scale, wanted):
    """All groups, then the extras (functions of kind, results, scale), of rows whose names `wanted` accepts."""
    groups = [chosen for group in groups if (chosen := selected(group, wanted))]
    extras = [extra for names, extra in extras if any(wanted(name) for name in names)]
    for _, kind in rounds(kinds, count):
        for group in groups:
            run_group(kind, group, results, scale)
        for extra in extras:
            extra(kind, results, scale)
