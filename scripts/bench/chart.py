"""Charts, as SVG or PNG by the file's name. Only this needs matplotlib."""

from .servers import HAYPILE, REDIS
from .targets import TARGETS, AtLeast

COLORS = {HAYPILE: "#c0392b", REDIS: "#7f8c8d", "Redis + AOF": "#34495e"}
PEER_COLORS = ("#2980b9", "#16a085", "#8e44ad", "#d35400")


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "haypile"
    return pyplot


def _color(server, servers):
    peers = [name for name in servers if name not in COLORS]
    return COLORS.get(server) or PEER_COLORS[peers.index(server) % len(PEER_COLORS)]


def _save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.endswith(".svg") else None)


def bars(results, path):
    """Requests a second of each row and server, as a share of Redis's; a mark is Haypile's target."""
    pyplot = _pyplot()
    servers = results.servers()
    reference = REDIS if REDIS in servers else servers[0]
    rows = [row for row in results.rows() if results.median(row, reference, "rate")]
    if not rows:
        raise ValueError("no rows to draw: none has requests a second")
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.14 * len(rows) * (len(servers) + 1)))
    height = 0.84 / len(servers)
    for place, server in enumerate(servers):
        shares = [results.ratio(row, server, reference) or 0 for row in rows]
        at = [number + (place - (len(servers) - 1) / 2) * height for number in range(len(rows))]
        axes.barh(at, shares, height, label=server, color=_color(server, servers))
    label = "Haypile's target"
    for number, row in enumerate(rows):
        for target in TARGETS.get(row, ()):
            other = results.ratio(row, target.of, reference) if isinstance(target, AtLeast) else None
            if other:
                axes.plot([target.share * other] * 2, [number - 0.46, number + 0.46], color="black", linewidth=1.5, label=label)
                label = None
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlabel(f"requests a second, as a share of {reference}'s")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    _save(figure, path)


def lines(points, title, logarithmic, path):
    """Curves: points by name, each a list of pairs."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, pairs in points.items():
        server = name.partition(":")[0]
        style = "--" if name.endswith("GET P16") else "-"
        axes.plot(*zip(*pairs), style, marker="o", label=name, color=_color(server, [server]))
    if logarithmic:
        axes.set_xscale("log")
    ticks = sorted({x for pairs in points.values() for x, _ in pairs})
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks], rotation=30)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel(title)
    axes.set_ylabel("requests/s")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    _save(figure, path)
