"""The properties that DeepLIFT and LRP guarantee, also where captum violates them, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

import tests.support.attribution as attached_models
from fgadahat_hooks.importance.attribution.deeplift import DeepliftAbs, contributions
from fgadahat_hooks.importance.attribution.lrp import LrpAbs, relevances
from tests.support.captum_models import PLAIN, images_and_labels
from tests.support.plain_attribution import open_plain_batch, weighted_layers


# ------------------------------------------------------------------ where captum is wrong
def total(method: type, model: nn.Module, layer: str, x: Tensor, y: Tensor) -> Tensor:
    value: Tensor = method(model, model.get_submodule(layer)).attribute(x.clone().requires_grad_(), target=y)
    return value.flatten(1).sum(1).detach()


def change(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    found: Tensor = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
    return found.detach()


def ours_by_layer(model: nn.Module, layer: str, x: Tensor, y: Tensor, **params: Any) -> Tensor:
    with open_plain_batch(model, [layer], x, y) as found:
        parts = contributions(DeepliftAbs(**params), found, found.inputs(0.0))[layer]
    return parts[0].flatten(1).sum(1)


class Pooled(nn.Module):
    """A max pool, after a ReLU or with windows that overlap."""

    def __init__(self, stride: int, between: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.between, self.pool = between, nn.MaxPool2d(2, stride)
        self.head = nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.between(self.second(self.first(x)))).flatten(1))
        return logits


@pytest.mark.parametrize(("stride", "between"), [(1, nn.Identity), (2, nn.ReLU)])
def test_captum_loses_what_overlapping_windows_share(stride: int, between: type[nn.Module]) -> None:
    """Captum overwrites an element's share in one window by that in another, where ours adds them.

    It also uses the pool's gradient as its multiplier if the pooled tensor is the ReLU's output itself.
    """
    x, y = images_and_labels()
    model = Pooled(stride, between())
    model(x.float())
    model = model.double()
    expected = change(model, x, y)
    torch.testing.assert_close(ours_by_layer(model, "first", x, y), expected, rtol=1e-9, atol=1e-12)
    theirs = total(captum.LayerDeepLift, model, "first", x, y)
    assert float((theirs - expected).abs().max()) > 1e-3 * float(expected.abs().max())


def test_captum_duplicates_relevance_at_a_sum() -> None:
    """It does unless the sum is a module; ours divides it in both cases."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.head = (nn.Linear(5, n, bias=False) for n in (5, 5, 4))
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            h = self.relu(self.first(x))
            logits: Tensor = self.head(h + self.left(h))
            return logits

    model = Skip().double()
    x, y = torch.randn(3, 5, dtype=torch.float64), torch.arange(3)
    score = model(x).gather(1, y[:, None])[:, 0].detach()
    assert not torch.allclose(total(captum.LayerLRP, model, "first", x, y), score, rtol=1e-3)
    torch.testing.assert_close(relevance(model, ["first"], x, y)["first"].sum(1), score)


# ------------------------------------------------------------------ what the methods guarantee
def relevance(model: nn.Module, layers: Sequence[str], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    with open_plain_batch(model, layers, x, y) as opened:
        found = relevances(LrpAbs(attribute_to="layer", epsilon=1e-12), opened)
    return {name: parts[0].flatten(1) for name, parts in found.items()}


def test_relevance_is_conserved_without_biases() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3, bias=False),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(16, 6, bias=False),
        nn.GELU(),
        nn.Linear(6, 4, bias=False),
    ).double()
    x, y = images_and_labels()
    score = model(x).gather(1, y[:, None])[:, 0].detach()
    for name, value in relevance(model, weighted_layers(model), x, y).items():
        torch.testing.assert_close(value.sum(1), score, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize(("kind", "layer"), [("cnn", "stem"), ("resnet18", "conv1"), ("mlp", "layers.2")])
def test_contributions_sum_to_the_change(kind: str, layer: str) -> None:
    model, _, size = PLAIN[kind]()
    x, y = images_and_labels(size=size)
    torch.testing.assert_close(ours_by_layer(model.eval(), layer, x, y), change(model, x, y), rtol=1e-9, atol=1e-12)


def test_contributions_sum_to_the_change_in_a_transformer() -> None:
    """This includes norms, softmax and attention; with their gradients the sum does not hold."""
    model = attached_models.vit().double().eval()
    x, y = images_and_labels()
    expected = change(model, x, y)
    torch.testing.assert_close(ours_by_layer(model, "conv_proj", x, y), expected, rtol=1e-9, atol=1e-12)
    by_gradient = ours_by_layer(model, "conv_proj", x, y, interactions="gradient")
    assert float((by_gradient - expected).abs().max()) > 0.1 * float(expected.abs().max())
