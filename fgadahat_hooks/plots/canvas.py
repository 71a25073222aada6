"""The figure to draw on, and the style that all figures share."""

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
"""Colours of two series, of secondary text, of lines, and of cells that were not measured."""


def figure_and_axes(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """Return the figure and axes to draw on.

    Args:
        ax: The user's axes; a new figure that is unknown to pyplot if None.
        width: Width of a new figure, in inches.
        height: Height of a new figure, in inches.

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
        return ax.figure.figure, ax  # `.figure.figure` is the whole figure, also of a subfigure
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def style_axes(axes: Axes, *, grid: str = "") -> None:
    """Remove the frame, and draw thin grid lines for the axis `x` or `y`, or none."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize="small")
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.8)  # type: ignore[arg-type]


def escape_mathtext(name: object) -> str:
    """Return a name whose `$` matplotlib does not read as mathtext."""
    return str(name).replace("$", r"\$")


def percent_axis(axis: Axis) -> None:
    """Label an axis of shares in percent."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
