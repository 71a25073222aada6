"""The values of each chart; None where a run has nothing to show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from torch import Tensor

from fgadahat_hooks.report.formatting import percent
from fgadahat_hooks.report.histogram import histogram
from fgadahat_hooks.report.line_chart import Series, line_chart
from fgadahat_hooks.report.pairs_chart import pairs_chart
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary
from fgadahat_hooks.summary.summary import RunSummary

MAX_PAIRS = 24
"""Most tasks that are drawn as pairs; more are drawn as lines."""


def learning_chart(accuracy: AccuracySummary | None, names: Sequence[str]) -> Markup | None:
    """Draw each task's accuracy when it was learnt and at the end."""
    if accuracy is None:
        return None
    if len(accuracy.learnt) <= MAX_PAIRS:
        return pairs_chart(accuracy, names)
    means = (percent(accuracy.learning_accuracy), percent(accuracy.average_accuracy))
    description = f"{len(accuracy.learnt)} tasks; {means[0]} % when learnt, {means[1]} % at the end."
    lines = (Series("when learnt", accuracy.learnt), Series("at the end", accuracy.end))
    return line_chart("Accuracy of each task when learnt, and at the end", description, lines, "task")


def capacity_chart(run: RunSummary) -> Markup | None:
    """Draw network capacity and the share of units in use over the tasks."""
    if not run.tasks or not run.layers:
        return None
    capacities = (run.capacity.get(task) for task in run.tasks)
    capacity = tuple(math.nan if value is None else value for value in capacities)
    used = run.use_after()
    ends = (percent(capacity[-1]), percent(used[-1]))
    description = f"After {len(used)} tasks the network capacity is {ends[0]} %, and {ends[1]} % of the units are used."
    lines = (Series("network capacity", capacity), Series("units used", used))
    return line_chart("Network capacity and units used over the tasks", description, lines, "tasks learnt")


@dataclass(frozen=True)
class ImportanceRow:
    """One layer's importances: a histogram and three numbers."""

    layer: str
    picture: Markup
    median: float
    mean: float
    top: float
    right: float
    """Importance at the right end of every histogram."""


def importance_rows(run: RunSummary) -> list[ImportanceRow]:
    """Return one row a layer of the importances summed by the summation strategy; empty without importances."""
    values = {name: value.double() for name, value in run.summed_importance.items() if value.numel()}
    if not values or not run.tasks:
        return []
    top = max(float(value.max()) for value in values.values())
    return [_row(name, value, top) for name, value in values.items()]


def _row(name: str, value: Tensor, top: float) -> ImportanceRow:
    numbers = (float(value.median()), float(value.mean()), float(value.max()))
    return ImportanceRow(name, histogram(name, value, top), *numbers, top)
