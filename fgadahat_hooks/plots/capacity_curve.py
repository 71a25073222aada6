"""A figure of network capacity and units in use over the tasks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fgadahat_hooks.plots.canvas import FIRST, SECOND, figure_and_axes, percent_axis, style_axes
from fgadahat_hooks.plots.checks import summary_with_tasks
from fgadahat_hooks.summary.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def capacity(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw network capacity and the share of units in use after each task.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Axes to draw on; a new figure if None.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No task has ended.
        MissingDependencyError: matplotlib is not installed.
    """
    run = summary_with_tasks(source)
    count = range(1, len(run.tasks) + 1)
    known = (run.capacity.get(task) for task in run.tasks)
    figure, axes = figure_and_axes(ax, 5.2, 3.2)
    capacities = [math.nan if value is None else value for value in known]
    axes.plot(count, capacities, color=FIRST, marker="o", markersize=4, label="network capacity")
    axes.plot(count, run.use_after(), color=SECOND, marker="s", markersize=4, linestyle="--", label="units used")
    axes.set(ylim=(-0.02, 1.02), xlabel="tasks learnt")
    axes.locator_params(axis="x", integer=True)
    style_axes(axes, grid="y")
    percent_axis(axes.yaxis)
    axes.legend(fontsize="small", frameon=False)
    return figure, axes
