"""Where a figure is drawn, and what all figures look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgadahat_hooks.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FIRST = "#0a58a6"
SECOND = "#a84a12"
SOFT = "#525d6b"
RULE = "#dce1e8"
INSET = "#eef1f5"
"""Colours: of two series, of what explains them, of lines, and of what was not measured."""


def place(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """Return the figure and axes to draw on.

    Args:
        ax: The user's axes; a new figure, which pyplot does not know, when left out.
        width: Width of a new figure, in inches.
        height: Its height.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "Plotting needs matplotlib. Install it with `pip install 'fgadahat-hooks[plot]'`."
        ) from error
    if ax is not None:
        return ax.figure.figure, ax  # that of a subfigure is the whole one
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def plain(axes: Axes, *, grid: str = "") -> None:
    """Leave out the frame, and draw thin lines along an axis: `x`, `y` or none."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize="small")
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.8)  # type: ignore[arg-type]


def as_text(name: object) -> str:
    """Return a name that matplotlib does not take for mathematics."""
    return str(name).replace("$", r"\$")


def in_percent(axis: Axis) -> None:
    """Write shares as percents along an axis."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
