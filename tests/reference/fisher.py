"""Empirical Fisher information of a weight, one forward and backward a sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.reference.layout import rows


def fisher(model: nn.Module, weight: Tensor, x: Tensor, y: Tensor, layer: nn.Module | None = None) -> list[float]:
    """Return for each unit the mean over samples of the summed squares of `d log p(y|x) / dW`.

    A unit is a row of the weight, or of what `rows` returns for the layer.
    """
    total = [0.0] * len(weight if layer is None else rows(layer, weight))
    for sample, label in zip(x, y.tolist(), strict=True):
        probability = model(sample[None]).softmax(1)[0, label]
        (gradient,) = torch.autograd.grad(probability.log(), weight)
        for unit, row in enumerate(gradient if layer is None else rows(layer, gradient)):
            total[unit] += float((row * row).sum()) / len(x)
    return total
