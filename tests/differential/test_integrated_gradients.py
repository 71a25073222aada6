"""Integrated gradients against the record, captum and the slow second implementation, in double precision."""

from __future__ import annotations

from collections.abc import Iterator

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.importance.attribution.integrated_gradients import IntegratedGradientsAbs
from tests.differential.test_attribution import close, places
from tests.importance.replay_scenes import both_ways, gated_scene, recorded_scene
from tests.reference.integrated import integrated
from tests.reference.recorded import LAYERS, SETS, recorded
from tests.support.attribution import MODELS, Gated, by_captum, gated, mean_abs

FEW = ["conv1", "layer2.1.conv1", "layer4.1.conv1"]
"""Layers of a ResNet-18 that are compared: captum cannot write into what `out += identity` writes into."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def world(request: pytest.FixtureRequest) -> Iterator[Gated]:
    with gated(request.param, batch=2) as found:
        for module in found.model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # what captum puts there must not be written into
        yield found


def layers(world: Gated) -> list[str]:
    """Return the layers that are compared."""
    names = list(world.session.graph.layers)
    return FEW if set(FEW) < set(names) else names


def ours(world: Gated, place: str, n_steps: int) -> dict[str, Tensor]:
    with gated_scene(world, place, layers(world)) as scene:
        return IntegratedGradientsAbs(attribute_to=place, n_steps=n_steps).compute(scene)


@pytest.mark.parametrize("set_name", SETS)
def test_record(set_name: str) -> None:
    data = recorded(set_name)
    with recorded_scene(data) as scene:
        found = IntegratedGradientsAbs(attribute_to="layer").compute(scene)
    for i in LAYERS:
        expected = data.tensor(f"raw/integrated_gradients_abs/{i}")
        torch.testing.assert_close(found[f"fc{i}"], expected, rtol=1e-12, atol=0)


def test_captum(world: Gated) -> None:
    for place in places(world):
        theirs = by_captum(captum.LayerIntegratedGradients, world, place, captums(world, place), n_steps=5)
        close(ours(world, place, 5), theirs, 1e-9)


def captums(world: Gated, place: str) -> list[str]:
    """Return the layers that captum takes: no attention, which puts out a tuple."""
    sites = world.sites(place)
    return [name for name in layers(world) if not isinstance(sites[name].module, nn.MultiheadAttention)]


def test_second_implementation(world: Gated) -> None:
    for place in places(world):
        sites, found = world.sites(place), ours(world, place, 4)
        for name in layers(world)[::2]:
            site, total = sites[name], torch.zeros(sites[name].units, dtype=torch.float64)
            for x, label in zip(world.x, world.y.tolist(), strict=True):
                with world.still():
                    (value,) = integrated(world.model, site.module, x, label, 4, site.raw)
                total += mean_abs(value, site.axis) / len(world.x)
            torch.testing.assert_close(found[name], total, rtol=1e-9, atol=1e-12)


def test_reruns_equal_whole_forwards(world: Gated) -> None:
    place = places(world)[-1]
    with gated_scene(world, place, layers(world)[:2]) as scene:
        make = lambda: IntegratedGradientsAbs(attribute_to=place, n_steps=3)  # noqa: E731
        short, whole = both_ways(make, scene)
    close(short, whole, 1e-12)
