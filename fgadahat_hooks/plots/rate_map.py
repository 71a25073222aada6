"""How much of an update still reaches the weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.plots.canvas import place, plain
from fgadahat_hooks.plots.has_tasks import has_tasks
from fgadahat_hooks.plots.heat_map import draw
from fgadahat_hooks.summary.source import Source

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def rates(source: Source, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """Draw the mean adjustment rate of each gated weight when each task had ended, in percent; biases are left out.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Where to draw; a new figure when left out.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No task has ended, or an early release saved the run, without its rates.
        MissingDependencyError: matplotlib is not installed.
    """
    run = has_tasks(source)
    known = dict.fromkeys(name for found in run.rates.values() for name in found if not name.endswith("bias"))
    if not known:
        raise BadCallError(
            "Expected a run with the adjustment rates after each task, but got one without. Pass the live session, or "
            "save it with this release."
        )
    values = torch.tensor([[run.rates.get(task, {}).get(name, math.nan) for task in run.tasks] for name in known])
    figure, axes = place(ax, 3.4 + 0.5 * len(run.tasks), 1.4 + 0.28 * min(len(known), 60))
    draw(axes, values, (list(known), [str(task) for task in run.tasks]))
    plain(axes)
    axes.set_title("mean adjustment rate, %", fontsize="small", loc="left")
    return figure, axes
