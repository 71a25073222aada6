"""Heat maps of matrices over tasks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isqrt
from typing import TYPE_CHECKING

from torch import Tensor

from fgadahat_hooks.metrics.plotted import pyplot
from fgadahat_hooks.plots.heat_map import draw_heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def as_square(values: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the matrix, or the last of several; restores the 1 x 1 matrix that torchmetrics squeezed to a scalar."""
    last = values if isinstance(values, Tensor) else values[-1]
    tasks = isqrt(last.numel())
    return last.detach().cpu().double().reshape(tasks, tasks)


def heat_map(
    matrix: Tensor, ax: Axes | None, labels: Sequence[Hashable], rows: str, columns: str, add_text: bool
) -> tuple[Figure | None, Axes]:
    """Draw a matrix over tasks with values between 0 and 1; NaN stays empty.

    Args:
        matrix: `(tasks, tasks)`.
        ax: Axes to draw on; a new figure if None.
        labels: One label a task.
        rows: What a row stands for.
        columns: What a column stands for.
        add_text: Write the numbers into the cells.

    Returns:
        The new figure, None if `ax` was given, and the axes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axes = pyplot().subplots() if ax is None else (None, ax)
    names = [str(label) for label in labels]
    draw_heat_map(axes, matrix, (names, names), number="{:.2f}".format if add_text else None)
    axes.set(xlabel=columns, ylabel=rows)
    return figure, axes
