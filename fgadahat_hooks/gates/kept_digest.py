"""A digest of a tensor that must not change, where a copy of it would cost too much memory."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.gates.kept_entries import bits


class KeptDigest:
    """The sum of a tensor's bits: a change is seen, and cannot be undone.

    Attributes:
        shape: Shape of the tensor.
        count: Number of entries that are kept.
    """

    def __init__(self, tensor: Tensor) -> None:
        """Take the digest of the values that the tensor has now."""
        self.count = tensor.numel()
        self.shape, self._dtype = tensor.shape, tensor.dtype
        self._sum = _digest(tensor)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._sum.element_size()

    def differing(self, tensor: Tensor) -> Tensor:
        """Return how many entries may differ, a scalar: all of them or none."""
        return (_digest(tensor) != self._sum.to(tensor.device)) * self.count

    def fits(self, tensor: Tensor) -> bool:
        """Return whether a tensor still has the shape and the type that it had."""
        return tensor.shape == self.shape and tensor.dtype == self._dtype


def _digest(tensor: Tensor) -> Tensor:
    """Return the sum of the bits, modulo 2^64: one entry that changes always changes it."""
    found = bits(tensor.detach())
    found = torch.view_as_real(found).view(torch.int64) if found.is_complex() else found
    return found.sum(dtype=torch.int64)
