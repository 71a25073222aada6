"""Accuracies as users have them, as one matrix: nested lists, a tensor, an array or a metric."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError


def accuracy_matrix(accuracy: Any, tasks: int) -> Tensor | None:
    """Return accuracies as a matrix, `(tasks, tasks)` float64; rows that stop early are filled up with NaN.

    Args:
        accuracy: Nested lists with None or NaN where nothing was measured, a tensor, an array, or a
            `metrics.AccuracyMatrix`; None if there are none.
        tasks: Number of finished tasks.

    Raises:
        BadCallError: They are something else.
    """
    if accuracy is None:
        return None
    rows = _rows(accuracy)
    matrix = _filled(rows, tasks)
    if tuple(matrix.shape) != (tasks, tasks):
        what = f"{len(rows)} rows" if isinstance(rows, list) else f"{accuracy!r:.60}"
        raise BadCallError(
            f"Expected accuracies as a matrix of {tasks} x {tasks}, one row for each finished task, but got {what}. "
            "Row i has the accuracy on each task after learning task i, None where it was not measured."
        )
    _check_range(matrix)
    return matrix


def _rows(accuracy: Any) -> Any:
    """Return a metric's value, tensor or array as nested lists, anything else as it is."""
    value = accuracy.compute() if hasattr(accuracy, "compute") else accuracy
    return value.tolist() if hasattr(value, "tolist") else value


def _filled(rows: Any, tasks: int) -> Tensor:
    """Return rows as a tensor, short ones filled up with NaN; an empty tensor if they are not rows of numbers."""
    try:
        numbers = [[math.nan if a is None else float(a) for a in row] for row in rows]
        matrix = torch.tensor([row + [math.nan] * (tasks - len(row)) for row in numbers], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        matrix = torch.zeros(0)
    return matrix.reshape(0, 0) if tasks == 0 and matrix.numel() == 0 else matrix


def _check_range(matrix: Tensor) -> None:
    if bool((matrix < 0).any()) or bool((matrix > 1).any()):
        raise BadCallError(
            f"Expected accuracies between 0 and 1, but got {float(matrix[~matrix.isnan()].max())!r} among them. Divide "
            "percents by 100."
        )
