"""How units lie in a value, and in which precision their importance is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def along(row: Tensor, value: Tensor, axis: int) -> Tensor:
    """Return `(units,)`, or one number, in a shape that broadcasts over a value's axis of units."""
    shape = [1] * value.dim()
    shape[axis] = row.numel()
    return row.reshape(shape)


def precise(x: Tensor) -> Tensor:
    """Return `x` in single precision if it is in half."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
