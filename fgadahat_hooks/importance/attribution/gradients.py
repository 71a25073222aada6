"""Gradients of summed scores by several tensors at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def summed_gradients(scores: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = False) -> list[Tensor]:
    """Return the gradient of `scores.sum()` by each tensor, zero where the scores do not depend on it.

    Nothing is added to any parameter's `.grad`.
    """
    if not tensors or not scores.requires_grad:
        return [torch.zeros_like(t) for t in tensors]
    found = torch.autograd.grad(scores.sum(), tensors, retain_graph=retain_graph, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]
