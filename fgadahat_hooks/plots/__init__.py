"""Figures of a run as matplotlib objects; they need the extra `plot`.

Each function takes a session, a summary, or the folder of a saved run, and returns `(figure, axes)`. No window is
opened and pyplot is not used: `figure.savefig("use.pdf")` writes a figure, and `ax=` draws into your own axes. One kind
of figure a file; `canvas.py` has the common style. Nothing is measured here: values come from the `RunSummary`.
"""

from fgadahat_hooks.plots.accuracy import accuracy_matrix, stability_plasticity
from fgadahat_hooks.plots.capacity_curve import capacity
from fgadahat_hooks.plots.importance_range import importance
from fgadahat_hooks.plots.masks import mask_overlap, mask_use
from fgadahat_hooks.plots.rate_map import rates

__all__ = [
    "accuracy_matrix",
    "capacity",
    "importance",
    "mask_overlap",
    "mask_use",
    "rates",
    "stability_plasticity",
]
