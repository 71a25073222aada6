"""Relevance handed down weight by weight (Bach et al. 2015, Eq. 58), one sample at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.masked_mlp import MaskedMlp


def mlp(
    net: MaskedMlp, x: Tensor, label: int, eps: float = 1e-9, *, mask_multiplies_relevance: bool = False
) -> list[Tensor]:
    """Return the relevance of every layer's `z`.

    Args:
        net: The network.
        x: One sample.
        label: Class whose logit is explained.
        eps: The stabiliser.
        mask_multiplies_relevance: At a mask, multiply the relevance by it, as captum does with a product that is no
            module; else keep it, as a product with a constant keeps all of it.
    """
    z = net.pre_activations(x)
    h = [torch.relu(a * m) for a, m in zip(z, net.masks, strict=True)]
    logits = net.head[0] @ h[-1] + net.head[1]
    relevance = torch.zeros_like(logits)
    relevance[label] = logits[label]
    found = []
    for i in reversed(range(len(z))):
        weight = net.head[0] if i == len(z) - 1 else net.layers[i + 1][0]
        sums = logits if i == len(z) - 1 else z[i + 1]
        relevance = _below(h[i], weight, sums, relevance, eps)
        if mask_multiplies_relevance:
            relevance = relevance * net.masks[i]
        found.append(relevance)
    return found[::-1]


def _below(h: Tensor, weight: Tensor, sums: Tensor, relevance: Tensor, eps: float) -> Tensor:
    below = torch.zeros_like(h)
    for i in range(len(sums)):
        stable = sums[i] + (eps if sums[i] >= 0 else -eps)
        for j in range(len(h)):
            below[j] += h[j] * weight[i, j] / stable * relevance[i]
    return below
