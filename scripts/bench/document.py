"""The table of docs/performance.md, between two marks."""

import os
import platform
import subprocess
from datetime import date
from pathlib import Path

from .report import markdown

PATH = Path("docs/performance.md")
BEGIN, END = "<!-- table: written by scripts/bench.sh --doc -->", "<!-- end of the table -->"


def machine():
    """Cores, memory, system and date, in a sentence."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    version = next((word[2:] for word in redis.split() if word.startswith("v=")), "?")
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Redis {version}; {date.today().isoformat()}."


def write(results, commit, rounds):
    """Replaces the table. Each cell is requests/s · CPU of the server a request · p99 · bytes written to disk a request."""
    text = PATH.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PATH} has not both marks: {BEGIN} and {END}")
    head = f"Haypile {commit} on {machine()} Medians of {rounds} rounds; requests/s · CPU a request · p99 · bytes to disk a request."
    PATH.write_text(f"{before}{BEGIN}\n\n{head}\n\n{markdown(results)}\n\n{END}{after}")
