"""The base of metrics with a plot: a point, or a line for several values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import Metric

from fgadahat_hooks.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class PlottedMetric(Metric):
    """A non-differentiable metric that can be plotted."""

    is_differentiable = False
    higher_is_better: bool | None = True
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure | None, Axes]:
        """Plot a value, or several as a line.

        Args:
            val: A value of `compute` or `forward`, or a list of them; `compute()` if None.
            ax: Axes to draw on; a new figure if None.

        Returns:
            The new figure, None if `ax` was given, and the axes.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        pyplot()
        figure, axes = self._plot(val, ax)
        return figure, axes  # type: ignore[return-value]  # only collections return an array of axes


def pyplot() -> Any:
    """Return matplotlib's pyplot.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            "Plotting needs matplotlib. Install it with `pip install 'fgadahat-hooks[plot]'`."
        ) from error
    return plt
