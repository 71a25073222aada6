"""Integrated gradients in a layer's space, one sample and one point at a time, by a hook that replaces the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def integrated(model: nn.Module, module: nn.Module, x: Tensor, label: int, steps: int, raw: bool) -> list[Tensor]:
    """Return `(z(x) - z(0)) int dF_y/dz` for each call of a module, for one sample, by Gauss-Legendre quadrature."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    start, end = values(model, module, torch.zeros_like(x), raw), values(model, module, x, raw)
    total = [torch.zeros_like(v) for v in end]
    for point, weight in zip((1 + points) / 2, weights / 2, strict=True):
        at_point = [a + float(point) * (b - a) for a, b in zip(start, end, strict=True)]
        for sum_, slope in zip(total, slopes(model, module, x, label, at_point, raw), strict=True):
            sum_ += float(np.float32(weight)) * slope  # captum rounds the weights
    return [(b - a) * t for a, b, t in zip(start, end, total, strict=True)]


def values(model: nn.Module, module: nn.Module, x: Tensor, raw: bool) -> list[Tensor]:
    """Return the module's output in each call."""
    outputs: list[Tensor] = []

    def record(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output).detach().clone())

    handle = module.register_forward_hook(record, prepend=raw)
    try:
        model(x[None])
    finally:
        handle.remove()
    return outputs


def slopes(
    model: nn.Module, module: nn.Module, x: Tensor, label: int, at_point: list[Tensor], raw: bool
) -> list[Tensor]:
    """Return the gradient of the label's logit where the calls of the module return given values."""
    leaves = [v.clone().requires_grad_() for v in at_point]
    calls = iter(leaves)

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        value = next(calls).clone()
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = module.register_forward_hook(replace, prepend=raw)
    try:
        found = torch.autograd.grad(model(x[None])[0, label], leaves, allow_unused=True)
    finally:
        handle.remove()
    return [torch.zeros_like(v) if g is None else g for v, g in zip(leaves, found, strict=True)]
