"""From two units to the weight between them (`Agg` of FG-AdaHAT Eq. 2; `min` in HAT Eq. 2 and AdaHAT Eq. 9)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError


def _mean(own: Tensor, inputs: Tensor) -> Tensor:
    return own / 2 + inputs / 2


AGGREGATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "min": torch.minimum,
    "max": torch.maximum,
    "mean": _mean,
}
"""Elementwise functions of the values of unit `i` (own) and of unit `j` of the previous layer (inputs)."""


def aggregate(own: Tensor, inputs: Tensor | None, mode: str) -> Tensor:
    """Return `Agg(x_{l,i}, x_{l-1,j})` for every weight, broadcast to the weight's shape.

    Args:
        own: Values of the layer's own units, viewed so that they broadcast over the weight, e.g. `(out, 1)`.
        inputs: Values of the units that feed it, e.g. `(1, in)`; None for a bias and for a layer that reads the
            model's input, where only the own unit counts.
        mode: `min`, `max` or `mean` (arithmetic mean of the two).

    Raises:
        BadCallError: If `mode` is none of these.
    """
    if mode not in AGGREGATIONS:
        raise BadCallError(f"Expected `mode` to be one of {list(AGGREGATIONS)}, but got {mode!r}.")
    return own if inputs is None else AGGREGATIONS[mode](own, inputs)
