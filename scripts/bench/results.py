"""What was measured: figures by row, server and round; medians of them; the CSV that holds these."""

import csv
import statistics
from collections import defaultdict

# Name in the CSV, title and unit of each figure. A row has some of them.
METRICS = {
    "rate": "requests/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "cpu_s_per_million": "CPU s/M",
    "written_bytes": "disk B/req",
    "resident_mb": "RSS MB",
    "peak_mb": "peak MB",
    "seconds": "seconds",
}


class Results:
    """Medians are over the rounds. Rows and servers keep the order in which they came first. `head` says in a line of what and where."""

    def __init__(self, head=""):
        self.head = head
        self.figures = defaultdict(list)

    def add(self, row, server, **figures):
        """One measurement."""
        for metric, value in figures.items():
            self.figures[row, server, metric].append(value)

    def rows(self):
        """Names of rows."""
        return list(dict.fromkeys(row for row, _, _ in self.figures))

    def servers(self):
        """Names of servers."""
        return list(dict.fromkeys(server for _, server, _ in self.figures))

    def median(self, row, server, metric):
        """None where that was not measured."""
        values = self.figures.get((row, server, metric))
        return statistics.median(values) if values else None

    def ratio(self, row, server, reference, metric="rate"):
        """How many times another server's median a server's is; None where one is missing."""
        value, other = self.median(row, server, metric), self.median(row, reference, metric)
        return value / other if value is not None and other else None

    def write(self, path):
        """The medians as CSV, after the head as a comment."""
        with open(path, "w", newline="") as file:
            file.write(f"# {self.head}\n")
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["row", "server", "rounds", *METRICS])
            for row in self.rows():
                for server in self.servers():
                    medians = [self.median(row, server, metric) for metric in METRICS]
                    if any(median is not None for median in medians):
                        rounds = max(len(self.figures.get((row, server, metric), ())) for metric in METRICS)
                        lines.writerow([row, server, rounds, *("" if median is None else f"{median:.6g}" for median in medians)])

    @classmethod
    def read(cls, path):
        """Reads such a CSV: its medians as one round."""
        with open(path, newline="") as file:
            first = file.readline()
            results = cls(first[1:].strip())
            lines = csv.DictReader(file)
            if not {"row", "server"} <= set(lines.fieldnames or ()):
                raise ValueError(f"{path} was not written by --csv: it begins with {first!r}")
            for line in lines:
                figures = {metric: float(line[metric]) for metric in METRICS if line.get(metric)}
                results.add(line["row"], line["server"], **figures)
        return results
