"""Square matrices over tasks as pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isqrt
from typing import TYPE_CHECKING

from torch import Tensor

from fgadahat_hooks.metrics.plotted import pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = 0.5
"""Below this value a cell is dark, and its text white."""


def square(values: Tensor | Sequence[Tensor]) -> Tensor:
    """Return a matrix of one task as such, which torchmetrics makes a scalar of; the last one of several."""
    last = values if isinstance(values, Tensor) else values[-1]
    tasks = isqrt(last.numel())
    return last.detach().cpu().double().reshape(tasks, tasks)


def heat_map(
    matrix: Tensor, ax: Axes | None, labels: Sequence[Hashable], rows: str, columns: str, add_text: bool
) -> tuple[Figure | None, Axes]:
    """Draw a matrix over tasks whose values are between 0 and 1, empty where it is NaN.

    Args:
        matrix: `(tasks, tasks)`.
        ax: Where to draw; a new figure when left out.
        labels: One a task.
        rows: What a row stands for.
        columns: What a column stands for.
        add_text: Write the numbers into the cells.

    Returns:
        The new figure, if there is one, and the axes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axes = pyplot().subplots() if ax is None else (None, ax)
    axes.imshow(matrix.numpy(), vmin=0, vmax=1)
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    axes.set_xticks(range(len(matrix)), [str(label) for label in labels], rotation=45)
    axes.set_yticks(range(len(matrix)), [str(label) for label in labels])
    if add_text:
        for row, column in (~matrix.isnan()).nonzero().tolist():
            value = float(matrix[row, column])
            color = "white" if value < DARK else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize="small")
    return figure, axes
