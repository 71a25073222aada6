"""A chart with one row a task: its accuracy when it was learnt, and at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from fgadahat_hooks.report.formatting import percent, points
from fgadahat_hooks.report.line_chart import marker
from fgadahat_hooks.report.svg import element, picture, text
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary

_ROW_HEIGHT = 46
"""Height of a task's row in pixels."""
_MAX_NAME = 22
"""Characters of a task name that fit beside the numbers on a phone."""


def pairs_chart(accuracy: AccuracySummary, tasks: Sequence[str]) -> Markup:
    """Draw a track for each task, with a disc at its learning accuracy and a square at its final accuracy.

    Tracks begin at a multiple of 10 % below the lowest accuracy, so that small differences are visible.

    Args:
        accuracy: Accuracies of the run.
        tasks: Names of the tasks, at least as many as were measured.

    Returns:
        The picture.
    """
    rows = list(zip(tasks, accuracy.learnt, accuracy.end, strict=False))
    description = "; ".join(f"{task}: {percent(was)} %, then {percent(now)} %" for task, was, now in rows)
    low = _lowest_tick([*accuracy.learnt, *accuracy.end])
    parts = [part for index, row in enumerate(rows) for part in _row(index * _ROW_HEIGHT, low, *row)]
    bottom = _ROW_HEIGHT * len(rows)
    ends = (
        text(f"{100 * low:.0f} %", 0, bottom + 10, "axis"),
        text("100 %", 100, bottom + 10, "axis", text_anchor="end"),
    )
    return picture("Accuracy of each task when learnt, and at the end", description, *parts, *ends, height=bottom + 16)


def _lowest_tick(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return min(math.floor(10 * min(known)), 9) / 10


def _row(top: int, low: float, task: str, was: float, now: float) -> list[Markup]:
    y = top + 31
    change = f" ({points(now - was, signed=True)})" if abs(now - was) > 0 else ""
    numbers = f"{percent(was)} → {percent(now)} %{change}"
    parts = [
        text(task if len(task) <= _MAX_NAME else task[: _MAX_NAME - 1] + "…", 0, top + 15),
        text(numbers, 100, top + 15, "numbers", text_anchor="end"),
        element("line", x1=_x(low, low), x2=_x(1, low), y1=y, y2=y, class_="track"),
    ]
    if not math.isnan(was) and not math.isnan(now):
        parts.append(element("line", x1=_x(was, low), x2=_x(now, low), y1=y, y2=y, class_="span"))
    shown = [(number, value) for number, value in enumerate((was, now)) if not math.isnan(value)]
    return [*parts, *(marker(number, _x(value, low), y) for number, value in shown)]


def _x(value: float, low: float) -> str:
    return f"{1 + 98 * (value - low) / (1 - low):.4g}%"
