"""A figure of the mean adjustment rates of the weights after each task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.plots.canvas import figure_and_axes, style_axes
from fgadahat_hooks.plots.checks import summary_with_tasks
from fgadahat_hooks.plots.heat_map import draw_heat_map
from fgadahat_hooks.summary.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def rates(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the mean adjustment rate of each gated weight after each task, in percent, without biases.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Axes to draw on; a new figure if None.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No task has ended, or the run was saved by an early release without its rates.
        MissingDependencyError: matplotlib is not installed.
    """
    run = summary_with_tasks(source)
    known = dict.fromkeys(name for found in run.rates.values() for name in found if not name.endswith("bias"))
    if not known:
        raise BadCallError(
            "Expected a run with the adjustment rates after each task, but got one without. Pass the live session, or "
            "save it with this release."
        )
    values = torch.tensor([[run.rates.get(task, {}).get(name, math.nan) for task in run.tasks] for name in known])
    figure, axes = figure_and_axes(ax, 3.4 + 0.5 * len(run.tasks), 1.4 + 0.28 * min(len(known), 60))
    draw_heat_map(axes, values, (list(known), [str(task) for task in run.tasks]))
    style_axes(axes)
    axes.set_title("mean adjustment rate, %", fontsize="small", loc="left")
    return figure, axes
