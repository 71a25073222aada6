"""Writes a stream's table, claims, figures and compact JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from examples.reproduce.archive import as_text, compact, earlier
from examples.reproduce.claims import judged
from examples.reproduce.run import Result
from examples.reproduce.streams import STREAMS
from examples.reproduce.tables import METRICS, rows_of, table

REFERENCE = "independent"
SHOWN = ("independent", "frozen", "finetune", "hat_share", "hat_share_no_gains", "hat_learnt_rates", "hat_preset")


def write(results: Sequence[Result], stream: str, folder: Path, *, keep: bool = True) -> None:
    """Write `<stream>.json`, the figures if matplotlib is there, and the stream's section of `README.md`.

    Args:
        results: The runs.
        stream: Letter of the stream.
        folder: Where the page is.
        keep: Keep the methods that the page has and of which there are no runs.
    """
    rows = rows_of([*results, *(earlier(stream, folder, results) if keep else [])], stream)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stream}.json").write_text(as_text(compact(rows)))
    parts = [table(rows, REFERENCE), judged(rows, stream, split=STREAMS[stream].split)]
    try:
        from examples.reproduce.figures import draw_all
    except ImportError:
        parts.append("No figures: matplotlib is not installed.\n")
    else:
        drawn = draw_all(rows, SHOWN, stream, folder)
        parts.append(" ".join(f"![{path.stem.replace('_', ', ')}]({path.name})" for path in drawn) + "\n")
    insert(folder / "README.md", stream, "\n".join(parts))


def insert(page: Path, stream: str, text: str) -> None:
    """Put a stream's section between its two marks in a page; append the marks if they are not there."""
    begin, end = f"<!-- begin {stream} -->\n", f"<!-- end {stream} -->\n"
    old = page.read_text() if page.exists() else ""
    if begin not in old:
        old += f"\n## Stream {stream}: {STREAMS[stream].title}, {STREAMS[stream].tasks} tasks\n\n{begin}{end}"
    before, rest = old.split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def screen(results: Sequence[Result], stream: str) -> Table:
    """Return the table for a terminal."""
    title = f"Stream {stream}: {STREAMS[stream].title}, {STREAMS[stream].tasks} tasks; percent, mean ± 95 % interval"
    out = Table(title=title, title_justify="left")
    for column in ("method", *(name.replace("_", " ") for name in METRICS), "earlier logits"):
        out.add_column(column)
    rows = rows_of(results, stream).values()
    for row in sorted(rows, key=lambda r: -sum(r.values("average_accuracy"))):
        values = [row.interval(metric) for metric in METRICS]
        same = row.logits
        out.add_row(row.method, *("" if v is None else v.text() for v in values), same)
    return out
