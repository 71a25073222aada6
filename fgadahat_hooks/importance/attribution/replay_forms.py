"""Operations that run again in another form, which many copies at once take, or take without moving their axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _norm_by_statistics(flag: int | None, eps: int) -> Callable[..., Any]:
    """Return the form of a batch norm in evaluation: by channel, in one pass over `x`, and without new statistics.

    Args:
        flag: Place of the argument that tells whether it is in training, if there is one.
        eps: Place of the epsilon.
    """

    def form(func: Any, *args: Any, **kwargs: Any) -> Any:
        x, weight, bias, mean, var = args[:5]
        training = flag is not None and args[flag]
        if kwargs or training or mean is None or var is None:
            return func(*args, **kwargs)
        scale = torch.rsqrt(var + args[eps])
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = [-1] + [1] * (x.dim() - 2)
        return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))

    return form


def _slice_to_the_end(func: Any, x: Tensor, source: Tensor, dim: int = 0, *limits: Any, **kwargs: Any) -> Tensor:
    """Write into a slice; an open end is a number too large for a copy's own axes."""
    start, end, *step = (*limits, None, None)[: max(2, len(limits))]
    end = None if end is None else min(end, x.shape[dim])
    written: Tensor = func(x, source, dim, start, end, *step, **kwargs)
    return written


_aten = torch.ops.aten
FORMS: dict[Any, Callable[..., Any]] = {
    _aten.native_batch_norm.default: _norm_by_statistics(5, 7),
    _aten.cudnn_batch_norm.default: _norm_by_statistics(5, 7),
    _aten._native_batch_norm_legit.default: _norm_by_statistics(5, 7),
    _aten._native_batch_norm_legit_no_training.default: _norm_by_statistics(None, 6),
    _aten.slice_scatter.default: _slice_to_the_end,
}
"""Operation of the dispatcher: what runs in its place; it takes the operation and its arguments."""
