"""The numbers by which a run is judged, computed from its accuracy matrix; report and plots show them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AccuracySummary:
    """Accuracies of a run and their means; NaN where nothing was measured.

    The four means are those of `fgadahat_hooks.metrics`, by the same names.

    Attributes:
        learnt: Accuracy on each task right after learning it.
        end: Accuracy on each task after the last one.
        average_accuracy: Mean of `end`.
        learning_accuracy: Mean of `learnt`: plasticity.
        backward_transfer: Mean change of the earlier tasks since they were learnt: stability.
        forgetting: Mean drop of the earlier tasks from the best accuracy they had.
    """

    learnt: tuple[float, ...]
    end: tuple[float, ...]
    average_accuracy: float
    learning_accuracy: float
    backward_transfer: float
    forgetting: float


def accuracy_summary(accuracy: Tensor | None) -> AccuracySummary | None:
    """Return the accuracies of a run and their means, None if nothing was measured.

    Args:
        accuracy: `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. The
            last rows may be all NaN: those of tasks that were not measured yet.
    """
    rows = [] if accuracy is None else accuracy.tolist()
    while rows and all(map(math.isnan, rows[-1])):
        rows.pop()
    if not rows:
        return None
    tasks = len(rows)
    learnt = tuple(rows[task][task] for task in range(tasks))
    end = tuple(rows[-1][:tasks])
    earlier = range(tasks - 1)
    return AccuracySummary(
        learnt,
        end,
        _mean(list(end)),
        _mean(list(learnt)),
        _mean([end[task] - learnt[task] for task in earlier]),
        _mean([_best(rows, task) - end[task] for task in earlier]),
    )


def _best(rows: list[list[float]], task: int) -> float:
    """Return the best accuracy on an earlier task before the last; NaN if a needed one was not measured."""
    needed = [row[task] for row in rows[task:-1]]
    seen_before = [row[task] for row in rows[:task] if not math.isnan(row[task])]
    return math.nan if any(map(math.isnan, needed)) else max(needed + seen_before)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
