"""What was learnt, and what is left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.plots.canvas import FIRST, RULE, SECOND, as_text, in_percent, place, plain
from fgadahat_hooks.plots.heat_map import draw
from fgadahat_hooks.summary.accuracy_summary import accuracy_summary
from fgadahat_hooks.summary.source import Source, as_summary

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NONE = (
    "Expected accuracies, but got a run without any. Pass `accuracy=`, or save them with the run: "
    'session.save(folder, extra={"accuracy": rows}).'
)


def accuracy_matrix(source: Source, ax: Axes | None = None, *, accuracy: Any = None) -> tuple[Figure, Axes]:
    """Draw the accuracy on each task after learning each, in percent.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Where to draw; a new figure when left out.
        accuracy: The accuracy matrix, as for `report`; what the source has when left out.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No accuracies are known, or they are no matrix of the run's tasks.
        MissingDependencyError: matplotlib is not installed.
    """
    run = as_summary(source, accuracy)
    if accuracy_summary(run.accuracy) is None or run.accuracy is None:
        raise BadCallError(_NONE)
    names = [str(task) for task in run.tasks]
    figure, axes = place(ax, 2.2 + 0.55 * len(names), 1.6 + 0.4 * len(names))
    draw(axes, run.accuracy, (names, names))
    plain(axes)
    axes.set(xlabel="accuracy on, %", ylabel="after learning")
    return figure, axes


def stability_plasticity(source: Source, ax: Axes | None = None, *, accuracy: Any = None) -> tuple[Figure, Axes]:
    """Draw each task's accuracy when it was learnt, and at the end.

    The first is plasticity, what is left of it stability; the title has the mean of the first, and the mean change.

    Args:
        source: A session, a summary, or the folder of a saved run.
        ax: Where to draw; a new figure when left out.
        accuracy: The accuracy matrix, as for `report`; what the source has when left out.

    Returns:
        The figure and the axes.

    Raises:
        BadCallError: No accuracies are known, or they are no matrix of the run's tasks.
        MissingDependencyError: matplotlib is not installed.
    """
    run = as_summary(source, accuracy)
    found = accuracy_summary(run.accuracy)
    if found is None:
        raise BadCallError(_NONE)
    rows = range(len(found.end))
    figure, axes = place(ax, 5.2, 1.6 + 0.32 * len(rows))
    axes.hlines(rows, found.learnt, found.end, color=RULE, linewidth=3, zorder=1)
    axes.scatter(found.learnt, rows, s=42, facecolors="white", edgecolors=FIRST, linewidths=2, label="when learnt")
    axes.scatter(found.end, rows, s=22, marker="s", color=SECOND, label="at the end")
    axes.set_yticks(list(rows), [as_text(task) for task in run.tasks[: len(rows)]])
    axes.invert_yaxis()
    plain(axes, grid="x")
    in_percent(axes.xaxis)
    axes.margins(x=0.06)
    change = f", backward transfer {100 * found.backward_transfer:+.1f} points" if len(rows) > 1 else ""
    axes.set_title(f"learning accuracy {100 * found.learning_accuracy:.1f} %{change}", fontsize="small", loc="left")
    axes.legend(fontsize="small", frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure, axes
