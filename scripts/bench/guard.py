"""What CI holds Haypile to: not the targets, which a noisy machine misses now and then, but a third of what was once recorded."""

import csv
import sys
from pathlib import Path

from .matrix import READ, TABLE
from .servers import HAYPILE, REDIS, REDIS_AOF

RECORDED = Path(__file__).with_name("recorded.csv")
# A row fails below this share of its recorded ratio.
SHARE = 1 / 3


def ratios(results):
    """Of each row of the table, the server it is held to and Haypile's share of that one's requests a second."""
    for row in TABLE.rows:
        reference = REDIS if row.access == READ else REDIS_AOF
        ratio = results.ratio(row.name, HAYPILE, reference)
        if ratio is not None:
            yield row.name, reference, ratio


def record(results):
    """Writes what later runs are held to."""
    with open(RECORDED, "w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["row", "to", "ratio"])
        lines.writerows((row, reference, f"{ratio:.3f}") for row, reference, ratio in ratios(results))
    print(f"recorded in {RECORDED}", file=sys.stderr)


def recorded():
    """The recorded ratios by row and reference."""
    if not RECORDED.exists():
        raise ValueError(f"nothing is recorded in {RECORDED}: run with --record first")
    with open(RECORDED, newline="") as file:
        return {(line["row"], line["to"]): float(line["ratio"]) for line in csv.DictReader(file)}


def check(results, before):
    """Prints each comparison; whether all hold. A recorded row that was not run fails as well."""
    now = {(row, reference): ratio for row, reference, ratio in ratios(results)}
    holds = True
    for place, ratio in before.items():
        row, reference = place
        measured, least = now.get(place, 0), ratio * SHARE
        fine = measured >= least
        holds &= fine
        print(f"{'ok  ' if fine else 'FAIL'} {row:<14} {measured:5.2f} x {reference:<11} recorded {ratio:.2f}, at least {least:.2f}")
    return holds
