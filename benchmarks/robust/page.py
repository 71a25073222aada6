"""The page of the documentation: what was measured and how, around the tables."""

from __future__ import annotations

from pathlib import Path

from benchmarks.robust import tables
from benchmarks.robust.rows import Found

TEXT = Path(__file__).with_name("page.in.md")


def page(found: Found) -> str:
    """Return the page as Markdown."""
    rows = found.rows
    return TEXT.read_text(encoding="utf-8").format(
        kinds=tables.kinds_table(rows),
        rates=tables.rates_table(rows),
        starts=tables.starts_table(rows),
        variants=tables.variants_table(rows),
        failures=tables.failures_table(found),
        runs=f"{found.runs:,}",
        missing=tables.missing(found),
        without=tables.without_tasks(rows),
        worst=tables.worst_table(rows),
    )
