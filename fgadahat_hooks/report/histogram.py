"""A histogram of the importances of a layer's units, small enough for a table row."""

from __future__ import annotations

from markupsafe import Markup
from torch import Tensor

from fgadahat_hooks.report.svg import element, picture, stretched

BINS = 24
_HEIGHT = 34


def histogram(name: str, values: Tensor, top: float) -> Markup:
    """Draw how many units fall into each bin of importance.

    Args:
        name: The layer.
        values: Importance of its units, `(units,)`.
        top: Importance at the right end, the same for all layers.

    Returns:
        The picture; the highest bar has its full height.
    """
    counts = values.float().histc(BINS, 0.0, top or 1.0).tolist()
    highest = max(counts) or 1.0
    bars = [f"M{n} 100v-{max(100 * c / highest, 4.0):.3g}h.86V100z" for n, c in enumerate(counts) if c]
    box = f"0 0 {BINS} 100"
    base = element("line", x1=0, x2="100%", y1=_HEIGHT - 0.5, y2=_HEIGHT - 0.5, class_="grid")
    description = f"{len(values)} units in {BINS} bins from 0 to {top:.3g}; the highest bar is {max(counts):.0f} units."
    inside = stretched(element("path", d="".join(bars), class_="bars"), height=_HEIGHT, box=box)
    return picture(f"Importance of the units of {name}", description, base, inside, height=_HEIGHT, class_="small")
