"""Scenes on plain and on attached models, and odd models in double precision, for measures that rerun a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.importance.attribution import AttributionMeasure, Batch, Scene, Site, open_scene
from fgadahat_hooks.importance.attribution.target import label_scores
from fgadahat_hooks.layers import layer_type_of
from tests.reference.recorded import LAYERS, Recorded
from tests.reference.recorded_network import RecordedNetwork
from tests.support.attribution import Gated


@contextmanager
def scene_of(model: nn.Module, x: Tensor, y: Tensor, score: Callable[..., Tensor] = label_scores) -> Iterator[Scene]:
    """Open a scene on the raw outputs of all layers of a model that can be gated, but the last."""
    sites = {}
    for name, module in model.named_modules():
        kind = layer_type_of(module)
        if kind is not None:
            sites[name] = Site(name, kind.units(module), module, kind.unit_axis, raw=True)
    sites.popitem()
    with open_scene(model, sites, Batch((x,), {}, lambda output: score(output, y))) as scene:
        yield scene


@contextmanager
def gated_scene(world: Gated, place: str, layers: Iterable[str] | None = None) -> Iterator[Scene]:
    """Open a scene on some layers of an attached model."""
    sites = world.sites(place)
    sites = {name: sites[name] for name in layers or sites}
    batch = Batch((world.x,), {}, lambda output: label_scores(output, world.y))
    with world.session._attached.gate_context.fixed(), open_scene(world.model, sites, batch) as scene:
        yield scene


@contextmanager
def recorded_scene(data: Recorded) -> Iterator[Scene]:
    """Open the scene of the recorded attributions."""
    network = RecordedNetwork(data)
    with scene_of(network, data.tensor("t2_x"), data.tensor("t2_y")) as scene:
        assert list(scene.sites) == [f"fc{i}" for i in LAYERS]
        yield scene


def data(count: int = 3, *shape: int) -> tuple[Tensor, Tensor]:
    """Draw inputs and labels of three classes."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, *(shape or (5,)), generator=generator, dtype=torch.float64), torch.arange(count) % 3


class Small(nn.Module):
    """Two layers and a head; `between` may be anything."""

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
    """A grouped convolution, writing in place in several ways, dropout, a flattened map, and a layer of one unit."""

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


def looks_at_numbers(h: Tensor) -> Tensor:
    """Take one of two ways by the values."""
    return h * 2 if float(h.detach().sum()) > 0 else -h


def through_numpy(h: Tensor) -> Tensor:
    """Take a way that torch does not see."""
    return torch.from_numpy(h.detach().numpy().copy()) * h.sign()


def dropout(h: Tensor) -> Tensor:
    """Drop values in evaluation too."""
    return F.dropout(h, 0.4)


def noise(h: Tensor) -> Tensor:
    """Multiply with noise."""
    return h * torch.bernoulli(h.sigmoid())


def partly_without_gradient(h: Tensor) -> Tensor:
    """Use a factor that has no gradient."""
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
    """Give a gradient of its own."""
    halved: Tensor = _Halve.apply(h)
    return halved


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers": looks_at_numbers,
    "numpy": through_numpy,
    "dropout": dropout,
    "noise": noise,
    "no_grad": partly_without_gradient,
    "own_gradient": own_gradient,
}


def both_ways(make: Callable[[], Any], scene: Scene) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a measure by reruns of parts, and by whole forwards alone."""
    short, whole = make(), make()
    whole._whole._found = frozenset(scene.sites)
    assert isinstance(short, AttributionMeasure)
    return short.compute(scene), whole.compute(scene)
