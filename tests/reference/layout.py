"""Weights of any layer in the layout of a convolution: one row a unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rows(module: nn.Module, x: Tensor) -> Tensor:
    """Return a weight, or a tensor of its shape, as `(units, inputs of a group, ...)`, row by row."""
    if type(module).__name__ in ("Conv1D", "Embedding"):
        return torch.stack([x[:, unit] for unit in range(x.shape[1])])
    if not getattr(module, "transposed", False):
        return x
    found = []
    for group in x.chunk(int(module.groups)):  # type: ignore[arg-type]
        found += [group[:, unit] for unit in range(x.shape[1])]
    return torch.stack(found)
