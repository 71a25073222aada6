"""Values between 0 and 1 by row and column, as coloured cells with numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fgadahat_hooks.plots.canvas import INSET, as_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "Blues"
"""Ordered by lightness, so that any eye, and a black and white printer, can tell more from less."""
MAX_NUMBERS = 400
"""A map of more cells than these has no numbers."""
_MAX_NAMES = 60
_INK = "#111111"


def in_percent(value: float) -> str:
    """Return a share as a whole number of percent."""
    return f"{100 * value:.0f}"


def draw(
    axes: Axes,
    values: Tensor,
    names: tuple[Sequence[str], Sequence[str]],
    *,
    number: Callable[[float], str] | None = in_percent,
) -> None:
    """Draw values between 0 and 1; what is NaN stays grey.

    Args:
        axes: Where to draw.
        values: `(rows, columns)`.
        names: Names of the rows and of the columns; of many rows only some are written.
        number: Writes a value into its cell; None leaves the numbers out.
    """
    axes.set_facecolor(INSET)
    image = axes.imshow(values.numpy(), vmin=0, vmax=1, cmap=COLOURS, aspect="auto", interpolation="nearest")
    for set_ticks, labels, turn in ((axes.set_yticks, names[0], 0), (axes.set_xticks, names[1], 45)):
        step = -(-len(labels) // _MAX_NAMES)
        shown = range(0, len(labels), step or 1)
        set_ticks(list(shown), [as_text(labels[i]) for i in shown], rotation=turn)
    if number is not None and values.numel() <= MAX_NUMBERS:
        _write(axes, image, values, number)


def _write(axes: Axes, image: Any, values: Tensor, number: Callable[[float], str]) -> None:
    for row, column in (~values.isnan()).nonzero().tolist():
        value = float(values[row, column])
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        options: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": "small",
            "color": "white" if dark else _INK,
        }
        axes.text(column, row, number(value), **options)
