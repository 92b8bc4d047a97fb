"""The command line of scripts/bench.sh."""

import argparse
import os
import re
import resource
import shutil
import signal
import sys

from . import chart, document, guard, provenance, report, servers
from .matrix import MATRICES
from .replication import EXTRAS
from .results import Results
from .run import run
from .sweeps import SWEEPS, curves, sweep

ROUNDS = 3
# Requests of the short version, as a share.
SHORT = 0.4


def arguments(words):
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="Haypile against Redis and peers; docs/performance.md explains it.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--matrix", choices=MATRICES, default="table", help="rows to run (default: table), then replication and recovery")
    what.add_argument("--sweep", choices=SWEEPS, help="throughput against one quantity instead")
    what.add_argument("--guard", action="store_true", help="the short version; exits with 1 when a ratio is below a third of what is recorded")
    what.add_argument("--record", action="store_true", help="the short version in three rounds; records its ratios for --guard")
    parser.add_argument("--from", dest="source", metavar="CSV", help="no run: the results that --csv has written")
    parser.add_argument("--short", action="store_true", help="the table alone, fewer requests, one round")
    parser.add_argument("--rounds", type=int, help=f"rounds over all servers, whose medians count (default: {ROUNDS}; a sweep: 1)")
    parser.add_argument("--rows", type=re.compile, default=re.compile(""), metavar="REGEX", help="rows to run, and those they need")
    parser.add_argument("--scale", type=float, default=1, help="factor of each row's requests")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="one more server: a shell line with {port} and {dir}")
    parser.add_argument("--servers", metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--csv", metavar="FILE", help="writes the medians")
    parser.add_argument("--chart", metavar="FILE", help="draws a chart: .svg or .png")
    parser.add_argument("--doc", action="store_true", help="writes the table into docs/performance.md")
    options = parser.parse_args(words)
    if options.guard or options.record:
        options.short = True
    if options.short:
        options.scale *= SHORT
    if options.rounds is None:
        options.rounds = 1 if options.sweep or (options.short and not options.record) else ROUNDS
    if options.rounds < 1 or options.scale <= 0:
        parser.error("--rounds and --scale are above 0")
    if options.source and (options.guard or options.record):
        parser.error("--guard and --record measure for themselves")
    if options.doc and options.sweep:
        parser.error("--doc writes the table of a matrix")
    try:
        options.kinds = kinds(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def kinds(options):
    """The servers to run."""
    binary = os.environ.get("HAYPILE", "")
    if not options.source and not shutil.which(binary):
        raise ValueError("HAYPILE names no server to measure")
    chosen = [servers.haypile(binary), servers.redis(), servers.redis_aof(), *map(servers.peer, options.peer)]
    if options.servers:
        names = options.servers.split(",")
        unknown = set(names) - {kind.name for kind in chosen}
        if unknown:
            raise ValueError(f"no such servers: {', '.join(unknown)}")
        chosen = [kind for kind in chosen if kind.name in names]
    return chosen


def measure(options, results):
    """Runs what is asked for."""
    if options.sweep:
        sweep(options.sweep, options.kinds, results, options.rounds, options.scale)
    else:
        extras = () if options.short else EXTRAS
        run(options.kinds, MATRICES[options.matrix], extras, results, options.rounds, options.scale, options.rows.search)


def present(options, results):
    """Prints and writes what is asked for."""
    print(results.head, report.table(results), sep="\n")
    if options.csv:
        results.write(options.csv)
    if options.doc:
        document.write(results)
    if options.chart and options.sweep:
        chosen = SWEEPS[options.sweep]
        chart.lines(curves(options.sweep, results), chosen.title, chosen.logarithmic, options.chart)
    elif options.chart:
        chart.bars(results, options.chart)


def raise_limits():
    """As many open files as this process may have: there are sweeps over ten thousand connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(words=None):
    """Runs it; the exit code."""
    options = arguments(words)
    # A run that is stopped must end its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    raise_limits()
    try:
        if options.source:
            present(options, Results.read(options.source))
            return 0
        before = guard.recorded() if options.guard else None
        results = Results(provenance.head(os.environ["HAYPILE"], options.rounds))
        try:
            measure(options, results)
        except RuntimeError:
            # What came before is not lost.
            print(report.table(results))
            raise
        present(options, results)
        if options.record:
            guard.record(results)
        return 0 if before is None or guard.check(results, before) else 1
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
