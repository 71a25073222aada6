"""Broadcast over the axis of units, and the precision in which importance is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def broadcast_along(row: Tensor, value: Tensor, axis: int) -> Tensor:
    """Return `row`, `(units,)` or one number, in a shape that broadcasts over the value's axis of units."""
    shape = [1] * value.dim()
    shape[axis] = row.numel()
    return row.reshape(shape)


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in single precision if it is in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
