"""Shapes, strides and storages: what part of a memory a tensor covers, and along which dimensions labels vary."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def storage_key(t: Tensor) -> int:
    """Return the identity of a tensor's storage, stable while the storage or a weak reference to it lives."""
    return int(t.untyped_storage()._cdata)


def is_plain(t: Tensor) -> bool:
    """Return whether a tensor is strided memory and nothing more: not sparse, not nested, no wrapper around others."""
    if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__ or t.layout != torch.strided:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(t)


def product(numbers: Iterable[int]) -> int:
    """Return the product of whole numbers."""
    out = 1
    for number in numbers:
        out *= number
    return out


def reduced(*tensors: Tensor) -> list[Tensor]:
    """Cut every dimension along which all the (equally shaped) tensors have stride zero to size one."""
    out = list(tensors)
    for dim, size in enumerate(out[0].shape):
        if size > 1 and all(t.stride(dim) == 0 for t in out):
            out = [t.narrow(dim, 0, 1) for t in out]
    return out


def compact(t: Tensor) -> Tensor:
    """Give every dimension along which the values are constant stride zero."""
    shape = t.shape
    for dim, size in enumerate(shape):
        if size > 1 and (t.stride(dim) == 0 or bool((t == t.narrow(dim, 0, 1)).all())):
            t = t.narrow(dim, 0, 1)
    return t.expand(shape)


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two label tensors of one shape are equal."""
    return a.shape == b.shape and torch.equal(*reduced(a, b))


def along(labels: Tensor, like: Tensor, axis: int) -> Tensor:
    """Spread `(n,)` over the shape of `like`, which has `n` places along `axis`."""
    shape = [1] * like.dim()
    shape[axis] = labels.numel()
    return labels.view(shape).expand(like.shape)


def memory_order(t: Tensor) -> list[int]:
    """Return the dimensions of more than one place, the slowest in memory first."""
    return sorted((d for d, n in enumerate(t.shape) if n > 1), key=t.stride, reverse=True)


def is_dense(t: Tensor) -> bool:
    """Return whether a tensor covers one stretch of memory, each place once."""
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
    """Return whether a tensor is all of its storage, each place once."""
    size = t.numel() * t.itemsize
    return bool(is_dense(t) and t.storage_offset() == 0 and t.untyped_storage().nbytes() == size)
