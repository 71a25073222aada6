"""Figures of accuracy: the matrix, and learning against final accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.plots.canvas import FIRST, RULE, SECOND, escape_mathtext, figure_and_axes, percent_axis, style_axes
from fgadahat_hooks.plots.heat_map import draw_heat_map
from fgadahat_hooks.summary.accuracy_summary import accuracy_summary
from fgadahat_hooks.summary.source import Source, as_summary

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NO_ACCURACY = (
    "Expected accuracies, but got a run without any. Pass `accuracy=`, or save them with the run: "
    'session.save(folder, extra={"accuracy": rows}).'
)


def accuracy_matrix(source: Source, ax: Axes | None = None, *, accuracy: Any = None) -> tuple[Figure, Axes]:
    """Draw the accuracy on each task after learning each task, in percent.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Axes to draw on; a new figure if None.
        accuracy: The accuracy matrix, as for `report`; that of the source if None.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No accuracies are known, or they are not a matrix over the run's tasks.
        MissingDependencyError: matplotlib is not installed.
    """
    run = as_summary(source, accuracy)
    if accuracy_summary(run.accuracy) is None or run.accuracy is None:
        raise BadCallError(_NO_ACCURACY)
    names = [str(task) for task in run.tasks]
    figure, axes = figure_and_axes(ax, 2.2 + 0.55 * len(names), 1.6 + 0.4 * len(names))
    draw_heat_map(axes, run.accuracy, (names, names))
    style_axes(axes)
    axes.set(xlabel="accuracy on, %", ylabel="after learning")
    return figure, axes


def stability_plasticity(source: Source, ax: Axes | None = None, *, accuracy: Any = None) -> tuple[Figure, Axes]:
    """Draw each task's accuracy right after learning it, and at the end.

    The first is plasticity, the change since then stability; the title has the mean of each.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Axes to draw on; a new figure if None.
        accuracy: The accuracy matrix, as for `report`; that of the source if None.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No accuracies are known, or they are not a matrix over the run's tasks.
        MissingDependencyError: matplotlib is not installed.
    """
    run = as_summary(source, accuracy)
    summary = accuracy_summary(run.accuracy)
    if summary is None:
        raise BadCallError(_NO_ACCURACY)
    rows = range(len(summary.end))
    figure, axes = figure_and_axes(ax, 5.2, 1.6 + 0.32 * len(rows))
    axes.hlines(rows, summary.learnt, summary.end, color=RULE, linewidth=3, zorder=1)
    axes.scatter(summary.learnt, rows, s=42, facecolors="white", edgecolors=FIRST, linewidths=2, label="when learnt")
    axes.scatter(summary.end, rows, s=22, marker="s", color=SECOND, label="at the end")
    axes.set_yticks(list(rows), [escape_mathtext(task) for task in run.tasks[: len(rows)]])
    axes.invert_yaxis()
    style_axes(axes, grid="x")
    percent_axis(axes.xaxis)
    axes.margins(x=0.06)
    change = f", backward transfer {100 * summary.backward_transfer:+.1f} points" if len(rows) > 1 else ""
    axes.set_title(f"learning accuracy {100 * summary.learning_accuracy:.1f} %{change}", fontsize="small", loc="left")
    axes.legend(fontsize="small", frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure, axes
