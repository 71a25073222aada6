"""The exact values of those entries of one tensor that must not change, in the form that costs least."""

from __future__ import annotations

import torch
from torch import Tensor

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

MOST = 0.5
"""Share of single entries from which a mask and a whole copy take less memory than an index of each."""


class KeptEntries:
    """Some entries of a tensor and the values that they keep; they are selected, never multiplied.

    The tensor is seen as `(before, blocks, inside)`: the mask is the same along the first and the last axis, so that
    rows, columns, and kernels of (out, in) pairs are single blocks, which one `index_copy_` writes. Where blocks are
    single entries and most are kept, a mask and `where` cost less; a tensor that is kept throughout needs neither.

    Attributes:
        shape: Shape of the tensor.
        count: Number of entries that are kept.
        values: Their values: `(before, kept blocks, inside)`, or the whole tensor.
    """

    def __init__(self, tensor: Tensor, mask: Tensor | None = None) -> None:
        """Copy the values that the entries have now.

        Args:
            tensor: The parameter or buffer.
            mask: Which entries are kept, bool, broadcasts to the tensor; None for all.
        """
        tensor = tensor.detach()
        self.shape, self._order = tensor.shape, _order_in_memory(tensor)
        self._index: Tensor | None = None
        self._mask: Tensor | None = None
        self._sizes = (1, 1, tensor.numel())
        if mask is None or bool(mask.all()):
            self.count, self.values = tensor.numel(), tensor.clone()
            return
        mask = mask.to(tensor.device).reshape((1,) * (tensor.dim() - mask.dim()) + mask.shape)
        self.count = int(mask.sum()) * (tensor.numel() // mask.numel())
        mask = mask.permute(self._order)
        self._sizes, axes = _blocks(mask.shape, [tensor.shape[d] for d in self._order])
        if self._sizes[0] * self._sizes[2] == 1 and self.count > MOST * tensor.numel():
            self._mask, self.values = mask.permute(_inverse(self._order)).contiguous(), tensor.clone()
            return
        shape = [tensor.shape[d] for d in self._order]
        whole = mask.expand([shape[d] if d in axes else 1 for d in range(len(shape))])
        self._index = whole.reshape(-1).nonzero().view(-1)
        self.values = self._blocks_of(tensor).index_select(1, self._index)

    @property
    def nbytes(self) -> int:
        """Bytes that are held: values, and what says where they belong."""
        held = [t for t in (self.values, self._index, self._mask) if t is not None]
        return sum(t.numel() * t.element_size() for t in held)

    def write_into(self, tensor: Tensor) -> None:
        """Give the kept entries of a tensor their values; without a copy of it, and without a read by the host."""
        self._follow(tensor)
        if self._mask is not None:
            torch.where(self._mask, self.values, tensor, out=tensor)
        elif self._index is None:
            tensor.copy_(self.values)
        elif (view := self._view_of(tensor)) is not None:
            view.index_copy_(1, self._index, self.values)
        else:  # the layout in memory has changed since
            whole = self._blocks_of(tensor).index_copy(1, self._index, self.values)
            tensor.copy_(whole.view([tensor.shape[d] for d in self._order]).permute(_inverse(self._order)))

    def differing(self, tensor: Tensor) -> Tensor:
        """Return how many kept entries have other bits in a tensor, a scalar: NaN equals NaN, -0.0 is not 0.0."""
        self._follow(tensor)
        differ = bits(self._read(tensor)) != bits(self.values)
        return (differ if self._mask is None else differ & self._mask).sum()

    def only_rounded(self, tensor: Tensor) -> bool:
        """Return whether all differences from the kept values are of the size of a few rounding errors."""
        if not self.values.is_floating_point():
            return False
        now, kept = self._read(tensor), self.values
        close = (now - kept).abs() <= 8 * torch.finfo(kept.dtype).eps * kept.abs()
        close = close | (bits(now) == bits(kept))
        return bool((close if self._mask is None else close | ~self._mask).all())

    def fits(self, tensor: Tensor) -> bool:
        """Return whether a tensor still has the shape and the type that it had."""
        return tensor.shape == self.shape and tensor.dtype == self.values.dtype

    def _read(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor if self._index is None else self._blocks_of(tensor).index_select(1, self._index)

    def _follow(self, tensor: Tensor) -> None:
        """Move the values to where the tensor is now."""
        if self.values.device != tensor.device:
            self.values = self.values.to(tensor.device)
            self._index = None if self._index is None else self._index.to(tensor.device)
            self._mask = None if self._mask is None else self._mask.to(tensor.device)

    def _view_of(self, tensor: Tensor) -> Tensor | None:
        """Return the tensor as blocks, sharing its memory; None if its layout does not allow that."""
        ordered = tensor.detach().permute(self._order)
        return ordered.view(self._sizes) if ordered.is_contiguous() else None

    def _blocks_of(self, tensor: Tensor) -> Tensor:
        return tensor.detach().permute(self._order).reshape(self._sizes)


def bits(values: Tensor) -> Tensor:
    """Return the bits of values as integers, so that a comparison takes NaN for equal to itself."""
    kind = _INTEGERS.get(values.element_size())  # none has the size of complex128, whose numbers are compared
    return values if kind is None else values.contiguous().view(kind)


def _order_in_memory(tensor: Tensor) -> list[int]:
    """Return the axes from the slowest to the fastest in memory, so that channels-last weights are blocks too."""
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda d: (-strides[d], d))


def _inverse(order: list[int]) -> list[int]:
    return [order.index(d) for d in range(len(order))]


def _blocks(mask: torch.Size, shape: list[int]) -> tuple[tuple[int, int, int], range]:
    """Return the sizes `(before, blocks, inside)` and the axes of the blocks, from a mask's shape and the tensor's."""
    varying = [d for d, size in enumerate(mask) if size > 1]
    axes = range(varying[0], varying[-1] + 1) if varying else range(0)
    sizes = [1, 1, 1]
    for d, size in enumerate(shape):
        sizes[0 if d < axes.start else 1 if d < axes.stop else 2] *= size
    return (sizes[0], sizes[1], sizes[2]), axes
