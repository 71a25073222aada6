"""A heat map of values between 0 and 1, with numbers in its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fgadahat_hooks.plots.canvas import INSET, escape_mathtext

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "Blues"
"""A colour map ordered by lightness, readable for colour-blind readers and in black and white."""
MAX_NUMBERS = 400
"""Maps with more cells than this show no numbers."""
_MAX_NAMES = 60
_INK = "#111111"


def percent_text(value: float) -> str:
    """Return a share in whole percent."""
    return f"{100 * value:.0f}"


def draw_heat_map(
    axes: Axes,
    values: Tensor,
    names: tuple[Sequence[str], Sequence[str]],
    *,
    number: Callable[[float], str] | None = percent_text,
) -> None:
    """Draw values between 0 and 1; NaN stays grey.

    Args:
        axes: Axes to draw on.
        values: `(rows, columns)`.
        names: Names of the rows and of the columns; of many names only some are shown.
        number: Formats the value of a cell; None leaves the numbers out.
    """
    axes.set_facecolor(INSET)
    image = axes.imshow(values.numpy(), vmin=0, vmax=1, cmap=COLOURS, aspect="auto", interpolation="nearest")
    for set_ticks, labels, rotation in ((axes.set_yticks, names[0], 0), (axes.set_xticks, names[1], 45)):
        step = -(-len(labels) // _MAX_NAMES)
        shown = range(0, len(labels), step or 1)
        set_ticks(list(shown), [escape_mathtext(labels[i]) for i in shown], rotation=rotation)
    if number is not None and values.numel() <= MAX_NUMBERS:
        _write_numbers(axes, image, values, number)


def _write_numbers(axes: Axes, image: Any, values: Tensor, number: Callable[[float], str]) -> None:
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
