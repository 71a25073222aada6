"""The figures of a run as matplotlib objects; they need the extra `plot`.

Each function takes a session, a summary, or the folder of a saved run, and returns `(figure, axes)`. No window is
opened and pyplot is not touched: `figure.savefig("use.pdf")` writes one, and `ax=` puts it among your own.
"""

from fgadahat_hooks.plots.accuracy import accuracy_matrix, stability_plasticity
from fgadahat_hooks.plots.masks import mask_overlap, mask_use
from fgadahat_hooks.plots.over_tasks import capacity
from fgadahat_hooks.plots.rate_map import rates
from fgadahat_hooks.plots.units import importance

__all__ = [
    "accuracy_matrix",
    "capacity",
    "importance",
    "mask_overlap",
    "mask_use",
    "rates",
    "stability_plasticity",
]
