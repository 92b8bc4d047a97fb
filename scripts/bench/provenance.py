"""Of what, where and when figures are: absolute ones mean nothing without it."""

import os
import platform
import subprocess
from datetime import date


def _first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("\n")[0].strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"


def head(binary, rounds):
    """The build, the machine, the date and how often, in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    redis = next((word[2:] for word in _first_line("redis-server", "--version").split() if word.startswith("v=")), "?")
    return (
        f"{_first_line(binary, '--version')} (checkout {_first_line('git', 'describe', '--always', '--dirty')}), Redis {redis}; "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {'.'.join(platform.release().split('.')[:2])}; {date.today().isoformat()}; "
        f"rounds: {rounds}"
    )
