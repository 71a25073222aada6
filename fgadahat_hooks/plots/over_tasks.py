"""How the room in the network runs out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fgadahat_hooks.plots.canvas import FIRST, SECOND, in_percent, place, plain
from fgadahat_hooks.plots.has_tasks import has_tasks
from fgadahat_hooks.summary.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def capacity(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw network capacity and the share of units in use after each task.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Where to draw; a new figure when left out.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No task has ended.
        MissingDependencyError: matplotlib is not installed.
    """
    run = has_tasks(source)
    count = range(1, len(run.tasks) + 1)
    known = (run.capacity.get(task) for task in run.tasks)
    figure, axes = place(ax, 5.2, 3.2)
    capacities = [math.nan if value is None else value for value in known]
    axes.plot(count, capacities, color=FIRST, marker="o", markersize=4, label="network capacity")
    axes.plot(count, run.use_after(), color=SECOND, marker="s", markersize=4, linestyle="--", label="units used")
    axes.set(ylim=(-0.02, 1.02), xlabel="tasks learnt")
    axes.locator_params(axis="x", integer=True)
    plain(axes, grid="y")
    in_percent(axes.yaxis)
    axes.legend(fontsize="small", frameon=False)
    return figure, axes
