"""Figures of the units that tasks use, and of those that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fgadahat_hooks.plots.canvas import figure_and_axes, style_axes
from fgadahat_hooks.plots.checks import summary_with_tasks
from fgadahat_hooks.plots.heat_map import draw_heat_map
from fgadahat_hooks.summary.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def mask_use(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the share of each layer's units that each task uses, in percent.

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
    use, names = run.unit_use(), [str(task) for task in run.tasks]
    values = torch.tensor([[use[layer][task] for task in run.tasks] for layer in run.layers])
    figure, axes = figure_and_axes(ax, 3 + 0.5 * len(names), 1.4 + 0.28 * min(len(run.layers), 60))
    draw_heat_map(axes, values, (list(run.layers), names))
    style_axes(axes)
    axes.set_title("units used, % of the layer's", fontsize="small", loc="left")
    return figure, axes


def mask_overlap(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the share of each task's units that each other task uses too, in percent.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Axes to draw on; a new figure if None.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: Fewer than two tasks have ended.
        MissingDependencyError: matplotlib is not installed.
    """
    run = summary_with_tasks(source, 2)
    names = [str(task) for task in run.tasks]
    figure, axes = figure_and_axes(ax, 2.2 + 0.55 * len(names), 1.6 + 0.4 * len(names))
    draw_heat_map(axes, run.overlap(), (names, names))
    style_axes(axes)
    axes.set(xlabel="are used by, %", ylabel="of the units of")
    return figure, axes
