"""Writes a stream's table, claims, figures and compact JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from examples.reproduce.claims import judged
from examples.reproduce.run import Result
from examples.reproduce.streams import STREAMS
from examples.reproduce.tables import METRICS, Row, rows_of, table

REFERENCE = "adahat"
SHOWN = ("independent", "finetune", "hat", "adahat", "fg_icu", "hat_preset", "fg_icu_update")


def write(results: Sequence[Result], stream: str, folder: Path) -> None:
    """Write `<stream>.json`, the figures if matplotlib is there, and the stream's section of `README.md`."""
    rows = rows_of(results, stream)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stream}.json").write_text(json.dumps(compact(rows), indent=1) + "\n")
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


def compact(rows: dict[str, Row]) -> dict[str, Any]:
    """Return of each method its recipe and, for each seed, the metrics and what the run proved."""
    return {
        name: {
            "recipe": row.results[row.seeds[0]]["settings"]["recipe"],
            "versions": row.results[row.seeds[0]]["versions"],
            "runs": {seed: _short(row.results[seed]) for seed in row.seeds},
        }
        for name, row in rows.items()
    }


def _short(result: Result) -> dict[str, Any]:
    rounded = {n: None if v is None else round(v, 5) for n, v in result["metrics"].items()}
    capacity = [float(f"{look['capacity']:.3g}") for look in result["looks"] if look]
    return {
        **rounded,
        "identities": result["identities"],
        "bit_identical": result["bit_identical"],
        "capacity": capacity,
        "cpu_seconds": round(result["cpu_seconds"], 1),
    }


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
