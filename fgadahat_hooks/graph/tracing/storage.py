"""Storages and strides: which part of its storage a tensor covers, and along which dimensions labels vary."""

from __future__ import annotations

import torch
from torch import Tensor


def storage_key(t: Tensor) -> int:
    """Return the identity of a tensor's storage, stable while the storage or a weak reference to it lives."""
    return int(t.untyped_storage()._cdata)


def is_plain(t: Tensor) -> bool:
    """Return whether a tensor is plain strided memory: not sparse, not nested, no wrapper around other tensors."""
    if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__ or t.layout != torch.strided:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(t)


def narrow_expanded(*tensors: Tensor) -> list[Tensor]:
    """Narrow to size one every dimension along which all the (equally shaped) tensors have stride zero."""
    out = list(tensors)
    for dim, size in enumerate(out[0].shape):
        if size > 1 and all(t.stride(dim) == 0 for t in out):
            out = [t.narrow(dim, 0, 1) for t in out]
    return out


def expand_constant(t: Tensor) -> Tensor:
    """Return equal values, with stride zero along every dimension along which they are constant."""
    shape = t.shape
    for dim, size in enumerate(shape):
        if size > 1 and (t.stride(dim) == 0 or bool((t == t.narrow(dim, 0, 1)).all())):
            t = t.narrow(dim, 0, 1)
    return t.expand(shape)


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two label tensors have the same shape and values."""
    return a.shape == b.shape and torch.equal(*narrow_expanded(a, b))


def expand_along(labels: Tensor, like: Tensor, axis: int) -> Tensor:
    """Expand `(n,)` to the shape of `like`, whose size along `axis` is `n`."""
    shape = [1] * like.dim()
    shape[axis] = labels.numel()
    return labels.view(shape).expand(like.shape)


def memory_order(t: Tensor) -> list[int]:
    """Return the dimensions of size above one, by falling stride."""
    return sorted((d for d, n in enumerate(t.shape) if n > 1), key=t.stride, reverse=True)


def is_dense(t: Tensor) -> bool:
    """Return whether a tensor covers one contiguous part of memory, each element once."""
    expected = 1
    for dim in reversed(memory_order(t)):
        if t.stride(dim) != expected:
            return False
        expected *= t.shape[dim]
    return True


def may_overlap(t: Tensor) -> bool:
    """Return whether two elements of a view may share memory (expanded, or overlapping windows)."""
    reach = 0
    for dim in reversed(memory_order(t)):
        if t.stride(dim) <= reach:
            return True
        reach += (t.shape[dim] - 1) * t.stride(dim)
    return False


def covers_storage(t: Tensor) -> bool:
    """Return whether a tensor covers all of its storage, each element once."""
    size = t.numel() * t.itemsize
    return bool(is_dense(t) and t.storage_offset() == 0 and t.untyped_storage().nbytes() == size)
