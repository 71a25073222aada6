"""A figure of the summed importances of units in each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.plots.canvas import FIRST, escape_mathtext, figure_and_axes, style_axes
from fgadahat_hooks.plots.checks import summary_with_tasks
from fgadahat_hooks.summary.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MAX_NAMES = 60


def importance(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the distribution of the summed importances of each layer's units.

    The thin line spans the 5th to the 95th percentile, the thick line the 25th to the 75th; the dot is the median.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Axes to draw on; a new figure if None.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No task has ended, or the run measures no importance.
        MissingDependencyError: matplotlib is not installed.
    """
    run = summary_with_tasks(source)
    values = {name: value.double() for name, value in run.summed_importance.items() if value.numel()}
    if not values:
        raise BadCallError(
            "Expected a run that measures importance, but got one that does not. FG-AdaHAT does; choose "
            "adjustment.mode: fg_adahat."
        )
    quantiles = torch.tensor(_QUANTILES, dtype=torch.float64)
    low, left, median, right, high = torch.stack([value.quantile(quantiles) for value in values.values()], 1).numpy()
    rows = range(len(values))
    figure, axes = figure_and_axes(ax, 5.2, 1.2 + 0.28 * min(len(rows), _MAX_NAMES))
    axes.hlines(rows, low, high, color=FIRST, linewidth=1)
    axes.hlines(rows, left, right, color=FIRST, linewidth=5, alpha=0.45)
    axes.scatter(median, rows, s=18, color=FIRST, zorder=3)
    shown = range(0, len(rows), -(-len(rows) // _MAX_NAMES))
    axes.set_yticks(list(shown), [escape_mathtext(list(values)[row]) for row in shown])
    axes.invert_yaxis()
    style_axes(axes, grid="x")
    axes.set_xlabel("summed importance of a unit: 5, 25, 50, 75, 95 %", fontsize="small")
    return figure, axes
