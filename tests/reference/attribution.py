"""The gradient attributions, one sample and one layer at a time, by hooks that add a leaf tensor to the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def output_and_gradient(
    model: nn.Module, module: nn.Module, x: Tensor, label: int, first: bool
) -> tuple[Tensor, Tensor]:
    """Return the layer's output for one sample, and the gradient of the label's logit with respect to it."""
    leaf: list[Tensor] = []
    outputs: list[Tensor] = []

    def add_leaf(_: nn.Module, __: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        outputs.append(value.detach().clone())
        leaf.append(torch.zeros_like(value, requires_grad=True))
        return (value + leaf[0], *output[1:]) if isinstance(output, tuple) else value + leaf[0]

    handle = module.register_forward_hook(add_leaf, prepend=first)
    try:
        (slope,) = torch.autograd.grad(model(x[None])[0, label], leaf)
    finally:
        handle.remove()
    return outputs[0], slope


OutputAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes one sample's input, returns the layer's output and the gradient with respect to it."""


def gradient_x_activation(at: OutputAndGradient, x: Tensor, unit_axis: int) -> Tensor:
    z, slope = at(x)
    return z * slope


def gradcam(at: OutputAndGradient, x: Tensor, unit_axis: int) -> Tensor:
    z, slope = at(x)
    positions = [d for d in range(1, z.dim()) if d != unit_axis % z.dim()]
    return z * (slope.mean(positions, keepdim=True) if positions else slope)


def internal_influence(at: OutputAndGradient, x: Tensor, unit_axis: int, n: int = 5) -> Tensor:
    points, weights = np.polynomial.legendre.leggauss(n)
    return sum((0.5 * w * at(0.5 * (1 + p) * x)[1] for p, w in zip(points, weights, strict=True)), torch.zeros(()))


def conductance(at: OutputAndGradient, x: Tensor, unit_axis: int, n: int = 6) -> Tensor:
    points = 0.5 * (1 + np.polynomial.legendre.leggauss(n + 1)[0])
    along_path = [at(float(p) * x) for p in points]
    steps = (along_path[k][1] * (along_path[k + 1][0] - along_path[k][0]) for k in range(n))
    return sum(steps, torch.zeros(()))


def gradient_shap(at: OutputAndGradient, x: Tensor, draws: list[float]) -> Tensor:
    slope = sum((at(u * x)[1] for u in draws), torch.zeros(())) / len(draws)
    return slope * (at(x)[0] - at(torch.zeros_like(x))[0])
