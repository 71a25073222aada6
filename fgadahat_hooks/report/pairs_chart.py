"""Each task's accuracy when it was learnt and at the end, one below the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from fgadahat_hooks.report.line_chart import mark
from fgadahat_hooks.report.svg import element, picture, text
from fgadahat_hooks.report.words import percent, points
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary

_ROW = 46
"""Pixels a task."""
_NAME = 22
"""Letters of a name; a phone has no room for more beside the numbers."""


def pairs_chart(found: AccuracySummary, tasks: Sequence[str]) -> Markup:
    """Draw a track for each task, with a disc where it was and a square where it is now.

    The tracks begin at a round number below the worst accuracy, so that small differences can be seen.

    Args:
        found: What the run reached.
        tasks: Names of the tasks, as many as were measured at least.

    Returns:
        The picture.
    """
    rows = list(zip(tasks, found.learnt, found.end, strict=False))
    said = "; ".join(f"{task}: {percent(was)} %, then {percent(now)} %" for task, was, now in rows)
    low = _start([*found.learnt, *found.end])
    parts = [part for index, row in enumerate(rows) for part in _row(index * _ROW, low, *row)]
    bottom = _ROW * len(rows)
    ends = (
        text(f"{100 * low:.0f} %", 0, bottom + 10, "axis"),
        text("100 %", 100, bottom + 10, "axis", text_anchor="end"),
    )
    return picture("Accuracy of each task when learnt, and at the end", said, *parts, *ends, height=bottom + 16)


def _start(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return min(math.floor(10 * min(known)), 9) / 10


def _row(top: int, low: float, task: str, was: float, now: float) -> list[Markup]:
    y = top + 31
    change = f" ({points(now - was, signed=True)})" if abs(now - was) > 0 else ""
    numbers = f"{percent(was)} → {percent(now)} %{change}"
    parts = [
        text(task if len(task) <= _NAME else task[: _NAME - 1] + "…", 0, top + 15),
        text(numbers, 100, top + 15, "numbers", text_anchor="end"),
        element("line", x1=_at(low, low), x2=_at(1, low), y1=y, y2=y, class_="track"),
    ]
    if not math.isnan(was) and not math.isnan(now):
        parts.append(element("line", x1=_at(was, low), x2=_at(now, low), y1=y, y2=y, class_="span"))
    shown = [(number, value) for number, value in enumerate((was, now)) if not math.isnan(value)]
    return [*parts, *(mark(number, _at(value, low), y) for number, value in shown)]


def _at(value: float, low: float) -> str:
    return f"{1 + 98 * (value - low) / (1 - low):.4g}%"
