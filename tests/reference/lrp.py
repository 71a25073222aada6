"""Relevance propagated backward weight by weight (Bach et al. 2015, Eq. 58), one sample at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.reference.masked_mlp import MaskedMlp


def mlp(
    net: MaskedMlp,
    x: Tensor,
    label: int,
    eps: float = 1e-9,
    *,
    rule: str = "epsilon",
    gamma: float = 0.25,
    mask_multiplies_relevance: bool = False,
) -> list[Tensor]:
    """Return the relevance of every layer's `z`.

    Args:
        net: The network.
        x: One sample.
        label: Class whose logit is attributed.
        eps: The stabiliser.
        rule: How each layer distributes its relevance.
        gamma: How much more a positive weight counts under the rule `gamma`.
        mask_multiplies_relevance: At a mask, multiply the relevance by it, as captum does with a product that is no
            module; otherwise pass it on unchanged, as a product with a constant does.
    """
    z = net.pre_activations(x)
    h = [torch.relu(a * m) for a, m in zip(z, net.masks, strict=True)]
    logits = net.head[0] @ h[-1] + net.head[1]
    relevance = torch.zeros_like(logits)
    relevance[label] = logits[label]
    found = []
    for i in reversed(range(len(z))):
        weight, bias = net.head if i == len(z) - 1 else net.layers[i + 1]
        relevance = _input_relevance(h[i], weight, bias, relevance, eps, rule, gamma)
        if mask_multiplies_relevance:
            relevance = relevance * net.masks[i]
        found.append(relevance)
    return found[::-1]


def _input_relevance(
    h: Tensor, weight: Tensor, bias: Tensor, relevance: Tensor, eps: float, rule: str, gamma: float
) -> Tensor:
    found = torch.zeros_like(h)
    for i in range(len(bias)):
        shares = [_share(float(h[j]), float(weight[i, j]), rule, gamma) for j in range(len(h))]
        total = sum(shares) + _share(1.0, float(bias[i]), rule, gamma)
        if total == 0:
            continue
        for j in range(len(h)):
            found[j] += shares[j] / (total + (eps if total > 0 else -eps)) * relevance[i]
    return found


def _share(z: float, w: float, rule: str, gamma: float) -> float:
    return {"epsilon": z * w, "gamma": z * (w + gamma * max(w, 0.0)), "alpha1_beta0": max(z * w, 0.0)}[rule]
