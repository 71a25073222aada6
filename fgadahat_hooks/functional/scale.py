"""Scaling of a raw importance within its layer, and the final importance of a task."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_MAX_EPSILON = 1e-8
"""Keeps the division of Eq. 5 finite; same value as in the published code, so a range far below it scales to 0."""


def min_max(importance: Tensor) -> Tensor:
    """Return `(I - min I) / (max I - min I + 1e-8)` over the units of one layer (FG-AdaHAT Eq. 5), `(units,)`.

    If all units of a layer have the same value, they have no order: all of them get 1 if the value is not 0, so that
    used units are protected, and 0 if it is 0. NaN and infinity are passed on as NaN, for the caller to report.

    Args:
        importance: Raw importance `I` of each unit, `(units,)`.
    """
    low, high = importance.aminmax()
    span = high - low
    return torch.where(span == 0, (importance != 0).to(importance.dtype), (importance - low) / (span + MIN_MAX_EPSILON))


def min_max_per_layer(importance: Tensor, layer: Tensor, layers: int) -> Tensor:
    """Return `min_max` of every layer of a concatenated vector, in one pass over all units.

    Args:
        importance: Raw importance of the units of all layers, concatenated, `(total units,)`.
        layer: Number of each unit's layer, `(total units,)`, integers from 0.
        layers: Number of layers.
    """
    low = importance.new_full((layers,), float("inf")).scatter_reduce(0, layer, importance, "amin")
    high = importance.new_full((layers,), float("-inf")).scatter_reduce(0, layer, importance, "amax")
    span = (high - low)[layer]
    scaled = (importance - low[layer]) / (span + MIN_MAX_EPSILON)
    return torch.where(span == 0, (importance != 0).to(importance.dtype), scaled)


def finish_importance(total: Tensor, steps: int | Tensor, base: float, mask: Tensor | None) -> Tensor:
    """Return a task's importance `I^tau_l = (1/N) sum_steps I + b_I`, times its mask (FG-AdaHAT Eq. 4 and 6).

    Args:
        total: Sum of the scaled importance of all measured steps, `(units,)`.
        steps: Number `N` >= 1 of measured steps, one for all units or `(units,)`.
        base: Base importance `b_I` >= 0 of every unit.
        mask: Binary mask of the task, `(units,)`: units outside it get 0, base included; None to keep all units.
    """
    mean = total / steps + base
    return mean if mask is None else mean * mask
