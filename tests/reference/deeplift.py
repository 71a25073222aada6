"""DeepLIFT with explicit matrices of multipliers, one sample at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.reference.masked_mlp import MaskedMlp


def slope(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return `(f(a) - f(b)) / (a - b)`, entry by entry."""
    return torch.stack([(f(p) - f(q)) / (p - q) for p, q in zip(a.flatten(), b.flatten(), strict=True)]).view(a.shape)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of products, added in order."""
    return torch.stack([p * q for p, q in zip(a, b, strict=True)]).sum()


def mlp(net: MaskedMlp, x: Tensor, start: Tensor, label: int) -> list[Tensor]:
    """Return the contributions of every layer's `z`."""
    z, z_start = net.pre_activations(x), net.pre_activations(start)
    multiplier = net.head[0][label]
    found = []
    for i in reversed(range(len(net.layers))):
        after_mask = multiplier * slope(torch.relu, z[i] * net.masks[i], z_start[i] * net.masks[i])
        z_multiplier = after_mask * net.masks[i]
        found.append(z_multiplier * (z[i] - z_start[i]))
        weight = net.layers[i][0]
        multiplier = torch.stack([dot(z_multiplier, column) for column in weight.T])
    return found[::-1]


def softmax(z: Tensor, start: Tensor) -> Tensor:
    """Return the matrix of multipliers of `exp(z - log sum exp z)`."""
    total, total_start = z.exp().sum(), start.exp().sum()
    log_multiplier = slope(torch.log, total, total_start) * slope(torch.exp, z, start)
    exponent_multiplier = torch.eye(len(z), dtype=z.dtype) - log_multiplier[None, :]
    return slope(torch.exp, z.log_softmax(0), start.log_softmax(0))[:, None] * exponent_multiplier


def layer_norm(x: Tensor, start: Tensor, eps: float) -> Tensor:
    """Return the matrix of multipliers of `c / sqrt(mean c^2 + eps)`, `c` the deviations from the mean."""
    n = len(x)
    centre = torch.eye(n, dtype=x.dtype) - 1 / n
    c, c0 = centre @ x, centre @ start
    v, v0 = (c * c).mean(), (c0 * c0).mean()

    def reciprocal(t: Tensor) -> Tensor:
        root: Tensor = 1 / (t + eps).sqrt()
        return root

    scale_multiplier = slope(reciprocal, v, v0) * (c + c0) / n
    smaller, other = (reciprocal(v), c0) if v >= v0 else (reciprocal(v0), c)
    found: Tensor = (smaller * torch.eye(n, dtype=x.dtype) + torch.outer(other, scale_multiplier)) @ centre
    return found


def max_pool(x: Sequence[float], start: Sequence[float]) -> list[float]:
    """Return the contribution of each element of one window to the change of the maximum."""
    top, top0 = max(x), max(start)
    shares = [0.0] * len(x)
    shares[list(x).index(top)] += max(top, top0) - top0
    shares[list(start).index(top0)] += top - max(top, top0)
    return shares
