"""What Haypile is to reach, by row: the one place that says so. Ratios are to another server in the same run."""

from dataclasses import dataclass

from .replication import FULL_SYNC, LAG, RECOVERY, REPLICATED
from .run import MEMORY
from .servers import HAYPILE, REDIS, REDIS_AOF

KVROCKS = "Kvrocks"


@dataclass(frozen=True)
class AtLeast:
    """A share of another server's requests a second."""

    share: float
    of: str
    metric: str = "rate"

    def __str__(self):
        return f"≥ {self.share:g} × {self.of}"

    def value(self, row, results):
        """What was reached; None when one of the two did not run."""
        return results.ratio(row, HAYPILE, self.of)

    def is_met(self, value):
        """Whether that is enough."""
        return value >= self.share


@dataclass(frozen=True)
class AtMost:
    """A bound, in the metric's unit."""

    bound: float
    metric: str
    unit: str

    def __str__(self):
        return f"≤ {self.bound:g} {self.unit}"

    def value(self, row, results):
        """What was reached; None when Haypile did not run."""
        return results.median(row, HAYPILE, self.metric)

    def is_met(self, value):
        """Whether that is little enough."""
        return value <= self.bound


# CPU seconds a million requests are microseconds a request.
TARGETS = {
    "SET 100B P1": (AtLeast(0.9, REDIS_AOF),),
    "GET 100B P1": (AtLeast(0.95, REDIS),),
    "SET 100B P16": (
        AtLeast(1.2, REDIS_AOF),
        AtLeast(2.8, KVROCKS),
        AtMost(5, "cpu_s_per_million", "CPU s/M"),
        AtMost(8, "p99_ms", "ms p99"),
        AtMost(200, "written_bytes", "B/req"),
    ),
    "GET 100B P16": (AtLeast(0.75, REDIS), AtLeast(2.3, KVROCKS), AtMost(3, "cpu_s_per_million", "CPU s/M")),
    "INCR P16": (AtLeast(0.8, REDIS_AOF),),
    "HSET P16": (AtLeast(0.7, REDIS_AOF),),
    "LPUSH P16": (AtLeast(0.6, REDIS_AOF),),
    "SADD P16": (AtLeast(0.7, REDIS_AOF),),
    "ZADD P16": (AtLeast(0.7, REDIS_AOF),),
    "MSET10 P1": (AtLeast(1.1, REDIS_AOF),),
    "LRANGE100 P1": (AtLeast(0.8, REDIS),),
    "SET 4K P4": (AtLeast(1.0, REDIS_AOF), AtMost(4700, "written_bytes", "B/req")),
    "GET 4K P4": (AtLeast(0.7, REDIS),),
    MEMORY: (AtMost(400, "resident_mb", "MB"),),
    REPLICATED: (AtLeast(0.8, REDIS),),
    LAG: (AtMost(0.05, "seconds", "s"),),
    FULL_SYNC: (AtMost(1.8, "seconds", "s"),),
    RECOVERY: (AtMost(0.4, "seconds", "s"),),
}


def judged(row, results):
    """The targets of a row, each with what was reached and whether that meets it; without those whose servers did not run."""
    for target in TARGETS.get(row, ()):
        value = target.value(row, results)
        if value is not None:
            yield target, value, target.is_met(value)
