"""DeepLIFT's multipliers of functions of several elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.reference import deeplift as slow
from tests.support.plain_attribution import (
    Between,
    assert_sums_to_score_change,
    layer_contributions,
    samples_and_baseline,
    score_change,
)


def attention(z: Tensor, **options: Any) -> Tensor:
    q, k, v = z.view(-1, 1, 4, 6).split(2, -1)
    out: Tensor = F.scaled_dot_product_attention(q, k, v, **options)
    return out


def by_hand(z: Tensor) -> Tensor:
    q, k, v = z.view(-1, 1, 4, 6).split(2, -1)
    scores = (q @ k.transpose(-1, -2)).masked_fill(~torch.ones(4, 4, dtype=torch.bool).tril(), -torch.inf)
    out: Tensor = F.softmax(scores / 2**0.5, dim=-1) @ v
    return out


class Heads(nn.Module):
    """Torch's own attention, by either of its two code paths."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.inner, self.need_weights = nn.MultiheadAttention(6, 2, batch_first=True).double(), need_weights

    def forward(self, z: Tensor) -> Tensor:
        z = z.view(-1, 4, 6)
        return self.inner(z, z, z, need_weights=self.need_weights)[0]  # type: ignore[no-any-return]


JOINT: dict[str, tuple[int, int, Callable[[], Callable[[Tensor], Tensor]]]] = {
    "softmax": (6, 6, lambda: nn.Softmax(-1)),
    "log_softmax": (6, 6, lambda: lambda z: z.log_softmax(-1, dtype=torch.float64)),
    "layer_norm": (6, 6, lambda: nn.LayerNorm(6).double()),
    "rms_norm": (6, 6, lambda: lambda z: F.rms_norm(z, (6,), torch.arange(6.0).double())),
    "group_norm": (16, 16, lambda: lambda z: F.group_norm(z.view(-1, 4, 4), 2, torch.arange(1.0, 5.0).double())),
    "normalize": (6, 6, lambda: F.normalize),
    "glu": (6, 3, lambda: F.glu),
    "product": (6, 6, lambda: lambda z: z * z.sigmoid()),
    "product in place": (6, 6, lambda: lambda z: z.clone().mul_(z.sigmoid())),
    "quotient": (6, 6, lambda: lambda z: z / (1 + z.abs())),
    "quotient in place": (6, 6, lambda: lambda z: z.clone().div_(1 + z.abs())),
    "square": (6, 6, lambda: lambda z: z * z),
    "squeeze": (6, 6, lambda: lambda z: z * z.mean(1, keepdim=True).sigmoid()),
    "matmul": (6, 9, lambda: lambda z: z.view(-1, 3, 2) @ z.view(-1, 2, 3)),
    "einsum": (6, 9, lambda: lambda z: torch.einsum("bij,bkj->bik", z.view(-1, 3, 2), z.view(-1, 3, 2))),
    "attention": (24, 8, lambda: attention),
    "causal": (24, 8, lambda: lambda z: attention(z, is_causal=True, scale=0.3)),
    "masked": (
        24,
        8,
        lambda: lambda z: attention(z, attn_mask=torch.eye(4, dtype=torch.bool) | (torch.rand(4, 4) > 2)),
    ),
    "biased": (24, 8, lambda: lambda z: attention(z, attn_mask=torch.arange(16.0, dtype=torch.float64).view(4, 4))),
    "by hand": (24, 8, lambda: by_hand),
    "heads": (24, 24, lambda: Heads(False)),
    "heads with weights": (24, 24, lambda: Heads(True)),
}


def _grouped(z: Tensor) -> Tensor:
    q, k, v = z[:, :16].view(-1, 4, 2, 2), z[:, 16:20].view(-1, 1, 2, 2), z[:, 20:].view(-1, 1, 2, 2)
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@pytest.mark.parametrize("name", sorted(JOINT))
def test_interactions_sum_up(name: str) -> None:
    width, out, make = JOINT[name]
    model, (x, start) = Between(make(), width, out), samples_and_baseline()
    assert_sums_to_score_change(model, x, start)
    assert_sums_to_score_change(model, x)


WITH_ELEMENTWISE = {"squeeze", "product", "product in place", "quotient", "quotient in place"}
"""Those that also contain an element-wise function."""


@pytest.mark.parametrize("name", sorted(set(JOINT) - WITH_ELEMENTWISE))
def test_interactions_by_gradient(name: str) -> None:
    """With gradients, as in captum, a layer gets gradient times difference if all other functions are linear."""
    width, out, make = JOINT[name]
    model, (x, start) = Between(make(), width, out), samples_and_baseline()
    z = model.fc(x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.head(model.function(z.clone()).flatten(1))[:, 0].sum(), z)
    expected = slope * (z - model.fc(start)).detach()
    torch.testing.assert_close(layer_contributions(model, x, start, interactions="gradient"), expected)


@pytest.mark.parametrize(
    ("function", "matrix"),
    [
        (lambda z: z.softmax(-1), slow.softmax),
        (lambda z: F.layer_norm(z, (6,)), lambda a, b: slow.layer_norm(a, b, 1e-5)),
    ],
    ids=["softmax", "layer_norm"],
)
def test_multipliers_by_the_second_implementation(
    function: Callable[[Tensor], Tensor], matrix: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model, (x, start) = Between(function), samples_and_baseline()
    z, z0 = model.fc(x).detach(), model.fc(start).detach()
    weight = model.head.weight[0].detach()
    expected = torch.stack([weight @ matrix(row, z0) * (row - z0) for row in z])
    torch.testing.assert_close(layer_contributions(model, x, start), expected, rtol=1e-8, atol=1e-11)


def test_norms_of_a_constant_baseline_stay_bounded() -> None:
    """The reciprocal standard deviation is a thousand there, and the product over two norms is a million."""
    layers = [part for _ in range(6) for part in (nn.Linear(6, 6, bias=False), nn.LayerNorm(6))]
    model = nn.Sequential(nn.Linear(5, 6, bias=False), *layers, nn.Linear(6, 3)).double()
    x, _ = samples_and_baseline()
    found = layer_contributions(model, x, 0.0, "0")
    torch.testing.assert_close(found.sum(1), score_change(model, x), rtol=1e-9, atol=1e-12)
    assert float(found.abs().max()) < 1e3 * float(score_change(model, x).abs().max())
