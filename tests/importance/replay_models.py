"""Models in double precision, ordinary and unusual ones, and batches on them, for measures that replay a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.importance.attribution import (
    AttributionBatch,
    AttributionCall,
    AttributionMeasure,
    Site,
    open_attribution_batch,
)
from fgadahat_hooks.importance.attribution.target import label_scores
from fgadahat_hooks.layers import layer_type_of
from tests.reference.recorded import LAYERS, Recorded
from tests.reference.recorded_network import RecordedNetwork
from tests.support.attribution import Gated


@contextmanager
def open_raw_batch(
    model: nn.Module, x: Tensor, y: Tensor, score: Callable[..., Tensor] = label_scores
) -> Iterator[AttributionBatch]:
    """Open a batch on the raw outputs of all layers of a model that can be gated, except the last."""
    sites = {}
    for name, module in model.named_modules():
        kind = layer_type_of(module)
        if kind is not None:
            sites[name] = Site(name, kind.units(module), module, kind.unit_axis, raw=True)
    sites.popitem()
    with open_attribution_batch(model, sites, AttributionCall((x,), {}, lambda output: score(output, y))) as batch:
        yield batch


@contextmanager
def open_gated_batch(attached: Gated, place: str, layers: Iterable[str] | None = None) -> Iterator[AttributionBatch]:
    """Open a batch on some layers of an attached model."""
    sites = attached.sites(place)
    sites = {name: sites[name] for name in layers or sites}
    call = AttributionCall((attached.x,), {}, lambda output: label_scores(output, attached.y))
    with (
        attached.session._attached.gate_context.constant_masks(),
        open_attribution_batch(attached.model, sites, call) as batch,
    ):
        yield batch


@contextmanager
def open_recorded_batch(data: Recorded) -> Iterator[AttributionBatch]:
    """Open the batch whose attributions are on record."""
    network = RecordedNetwork(data)
    with open_raw_batch(network, data.tensor("t2_x"), data.tensor("t2_y")) as batch:
        assert list(batch.sites) == [f"fc{i}" for i in LAYERS]
        yield batch


def data(count: int = 3, *shape: int) -> tuple[Tensor, Tensor]:
    """Draw inputs and labels of three classes."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, *(shape or (5,)), generator=generator, dtype=torch.float64), torch.arange(count) % 3


class Small(nn.Module):
    """Two layers and a head, with any function between the layers."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.one, self.two, self.head = (nn.Linear(a, b, dtype=torch.float64) for a, b in ((5, 6), (6, 6), (6, 3)))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.two(self.between(self.one(x)))))
        return logits


class Twice(Small):
    """Calls its second layer twice."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.two(torch.relu(self.one(x))))
        logits: Tensor = self.head(torch.tanh(self.two(h)))
        return logits


class Maps(nn.Module):
    """A grouped convolution, several operations in place, dropout, a flattened map, and a layer of one unit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm, self.relu, self.drop = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.single, self.hidden, self.head = nn.Linear(4 * 9, 1), nn.Linear(4 * 9, 5), nn.Linear(6, 3)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.conv1(x)))
        h = h + 0
        h[:, 1:].mul_(2)
        h = h + self.relu(self.conv2(h))
        h += 1
        h = F.max_pool2d(self.drop(h), 2).flatten(1)
        logits: Tensor = self.head(torch.cat([self.single(h), F.leaky_relu_(self.hidden(h), 0.1)], 1))
        return logits


def depends_on_values(h: Tensor) -> Tensor:
    """Take one of two execution paths, depending on the values."""
    return h * 2 if float(h.detach().sum()) > 0 else -h


def through_numpy(h: Tensor) -> Tensor:
    """Compute through numpy, which torch does not see."""
    return torch.from_numpy(h.detach().numpy().copy()) * h.sign()


def dropout(h: Tensor) -> Tensor:
    """Apply dropout in evaluation too."""
    return F.dropout(h, 0.4)


def noise(h: Tensor) -> Tensor:
    """Multiply by noise."""
    return h * torch.bernoulli(h.sigmoid())


def partly_without_gradient(h: Tensor) -> Tensor:
    """Multiply by a factor without gradient."""
    with torch.no_grad():
        factor = h * 0.5
    return h * factor


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 0.5

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 3.0


def own_gradient(h: Tensor) -> Tensor:
    """Halve, with a custom gradient."""
    halved: Tensor = _Halve.apply(h)
    return halved


ODD_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers": depends_on_values,
    "numpy": through_numpy,
    "dropout": dropout,
    "noise": noise,
    "no_grad": partly_without_gradient,
    "own_gradient": own_gradient,
}


def replayed_and_full(make: Callable[[], Any], batch: AttributionBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a measure by replays, and by full forwards only."""
    by_replay, by_full_forwards = make(), make()
    by_full_forwards._full_forward._layers = frozenset(batch.sites)
    assert isinstance(by_replay, AttributionMeasure)
    return by_replay.compute(batch), by_full_forwards.compute(batch)
