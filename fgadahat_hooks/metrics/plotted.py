"""The picture of a number that any metric draws: a point, or a line when there are several."""

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
    """A metric without gradient that can be plotted."""

    is_differentiable = False
    higher_is_better: bool | None = True
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure | None, Axes]:
        """Plot a value, or several as a line.

        Args:
            val: What `compute` or `forward` returned, or a list of such values; what `compute` returns when left out.
            ax: Where to draw; a new figure when left out.

        Returns:
            The new figure, if there is one, and the axes.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        pyplot()
        figure, axes = self._plot(val, ax)
        return figure, axes  # type: ignore[return-value]  # an array of axes comes from collections only


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
