"""Square matrices over tasks as pictures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isqrt
from typing import TYPE_CHECKING

from torch import Tensor

from fgadahat_hooks.metrics.plotted import pyplot
from fgadahat_hooks.plots.heat_map import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    names = [str(label) for label in labels]
    draw(axes, matrix, (names, names), number="{:.2f}".format if add_text else None)
    axes.set(xlabel=columns, ylabel=rows)
    return figure, axes
