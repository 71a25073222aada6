"""Empirical Fisher information of a weight, one forward and backward a sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fisher(model: nn.Module, weight: Tensor, x: Tensor, y: Tensor) -> list[float]:
    """Return for each row of a weight the mean over samples of the summed squares of `d log p(y|x) / dW`."""
    total = [0.0] * len(weight)
    for sample, label in zip(x, y.tolist(), strict=True):
        probability = model(sample[None]).softmax(1)[0, label]
        (gradient,) = torch.autograd.grad(probability.log(), weight)
        for unit, row in enumerate(gradient):
            total[unit] += float((row * row).sum()) / len(x)
    return total
