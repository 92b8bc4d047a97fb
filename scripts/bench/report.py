"""Tables of results, for a terminal and in Markdown."""

from .results import METRICS
from .servers import HAYPILE, REDIS, REDIS_AOF
from .targets import judged

# Digits after the point.
DIGITS = {"rate": 0, "p50_ms": 2, "p99_ms": 2, "p999_ms": 2, "cpu_s_per_million": 2, "written_bytes": 0, "resident_mb": 0, "peak_mb": 0, "seconds": 3}


def figure(value, metric):
    """A figure as it is shown; empty when there is none."""
    return "" if value is None else f"{value:,.{DIGITS[metric]}f}"


def ratio(value):
    """A ratio as it is shown."""
    return "" if value is None else f"{value:.2f}"


def aligned(lines, left=2):
    """Lines of cells as text; the first `left` columns begin at the left, the others end at the right. The last is not filled."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    for cells in lines:
        padded = [cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in enumerate(zip(cells[:-1], widths))]
        yield "  ".join([*padded, cells[-1]]).rstrip()


def verdict(row, results):
    """The targets of a row, each with met or not met."""
    words = [f"{target}: {value:.3g}, {'met' if met else 'NOT MET'}" for target, value, met in judged(row, results)]
    return "; ".join(words)


def table(results):
    """A line for each row and server: all figures; and for Haypile what it is to the others, and the targets."""
    lines = [["row", "server", *METRICS.values(), "/Redis", "/AOF", "targets"]]
    for row in results.rows():
        for server in results.servers():
            medians = {metric: results.median(row, server, metric) for metric in METRICS}
            if all(median is None for median in medians.values()):
                continue
            cells = [row, server, *(figure(median, metric) for metric, median in medians.items())]
            if server == HAYPILE:
                cells += [ratio(results.ratio(row, HAYPILE, REDIS)), ratio(results.ratio(row, HAYPILE, REDIS_AOF)), verdict(row, results)]
            else:
                cells += ["", "", ""]
            lines.append(cells)
    return "\n".join(aligned(lines))


def cell(results, row, server):
    """What a server did in a row, in one cell of Markdown."""
    if (rate := results.median(row, server, "rate")) is not None:
        cpu, p99, written = (results.median(row, server, metric) for metric in ("cpu_s_per_million", "p99_ms", "written_bytes"))
        return f"{rate / 1000:,.0f}k · {cpu:.1f} µs · {p99:.1f} ms · {written:,.0f} B"
    if (seconds := results.median(row, server, "seconds")) is not None:
        return f"{seconds:.3f} s"
    if (resident := results.median(row, server, "resident_mb")) is not None:
        return f"{resident:,.0f} MB"
    return "–"


def markdown(results):
    """A line for each row, a column for each server."""
    servers = sorted(results.servers(), key=lambda server: server == HAYPILE)
    lines = [["", *servers, "Haypile / Redis", "/ Redis + AOF", "target"]]
    for row in results.rows():
        ratios = [ratio(results.ratio(row, HAYPILE, reference)) or "–" for reference in (REDIS, REDIS_AOF)]
        targets = "; ".join(f"{target}: {'met' if met else '**not met**'}" for target, _, met in judged(row, results))
        lines.append([row, *(cell(results, row, server) for server in servers), *ratios, targets or "–"])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
