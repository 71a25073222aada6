"""Substitutes for operations that `vmap` does not support, or only by moving the axis of copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _evaluation_norm(training: int | None, eps: int) -> Callable[..., Any]:
    """Return a substitute for a batch norm in evaluation: one pass over `x`, channel by channel, statistics unchanged.

    Args:
        training: Position of the argument `training`, if there is one.
        eps: Position of the epsilon.
    """

    def substitute(func: Any, *args: Any, **kwargs: Any) -> Any:
        x, weight, bias, mean, var = args[:5]
        in_training = training is not None and args[training]
        if kwargs or in_training or mean is None or var is None:
            return func(*args, **kwargs)
        scale = torch.rsqrt(var + args[eps])
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = [-1] + [1] * (x.dim() - 2)
        return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))

    return substitute


def _slice_scatter(func: Any, x: Tensor, source: Tensor, dim: int = 0, *limits: Any, **kwargs: Any) -> Tensor:
    """Write into a slice; an open end, which torch records as a huge number, is reduced to the copy's own size."""
    start, end, *step = (*limits, None, None)[: max(2, len(limits))]
    end = None if end is None else min(end, x.shape[dim])
    written: Tensor = func(x, source, dim, start, end, *step, **kwargs)
    return written


_aten = torch.ops.aten
SUBSTITUTES: dict[Any, Callable[..., Any]] = {
    _aten.native_batch_norm.default: _evaluation_norm(5, 7),
    _aten.cudnn_batch_norm.default: _evaluation_norm(5, 7),
    _aten._native_batch_norm_legit.default: _evaluation_norm(5, 7),
    _aten._native_batch_norm_legit_no_training.default: _evaluation_norm(None, 6),
    _aten.slice_scatter.default: _slice_scatter,
}
"""Dispatcher operation: the function that runs in its place, called with the operation and its arguments."""
