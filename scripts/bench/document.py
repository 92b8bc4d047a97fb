"""The table of docs/performance.md, between two marks."""

from pathlib import Path

from .report import markdown

PATH = Path("docs/performance.md")
BEGIN, END = "<!-- table: written by scripts/bench.sh --doc -->", "<!-- end of the table -->"


def write(results):
    """Replaces the table."""
    text = PATH.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PATH} has not both marks: {BEGIN} and {END}")
    PATH.write_text(f"{before}{BEGIN}\n\n{results.head}\n\n{markdown(results)}\n\n{END}{after}")
