"""Feature ablation against the record, captum and the slow second implementation, in double precision."""

from __future__ import annotations

from collections.abc import Iterator

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.importance.attribution.feature_ablation import FeatureAblationAbs
from tests.differential.test_attribution import close, places
from tests.importance.replay_scenes import both_ways, gated_scene, recorded_scene
from tests.reference.ablation import ablation
from tests.reference.recorded import LAYERS, SETS, recorded
from tests.support.attribution import MODELS, Gated, by_captum, gated

FEW = {"gate": ["layer1.1.conv1"], "layer": ["conv1"]}
"""Layers of a ResNet-18 that are compared; each unit takes captum a forward."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def world(request: pytest.FixtureRequest) -> Iterator[Gated]:
    with gated(request.param, batch=2) as found:
        for module in found.model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # what captum puts there must not be written into
        yield found


def layers(world: Gated, place: str) -> list[str]:
    """Return the layers that are compared."""
    names = list(world.session.graph.layers)
    return FEW[place] if set(FEW[place]) < set(names) else names


def ours(world: Gated, place: str) -> dict[str, Tensor]:
    with gated_scene(world, place, layers(world, place)) as scene:
        return FeatureAblationAbs(attribute_to=place).compute(scene)


@pytest.mark.parametrize("set_name", SETS)
def test_record(set_name: str) -> None:
    data = recorded(set_name)
    with recorded_scene(data) as scene:
        found = FeatureAblationAbs(attribute_to="layer").compute(scene)
    for i in LAYERS:
        torch.testing.assert_close(
            found[f"fc{i}"], data.tensor(f"raw/feature_ablation_abs/{i}"), rtol=1e-12, atol=1e-15
        )


def test_captum(world: Gated) -> None:
    """A captum mask numbers the units, so that a whole unit goes at once."""
    for place in places(world):
        sites = world.sites(place)
        theirs: dict[str, Tensor] = {}
        for name in layers(world, place):
            if not isinstance(sites[name].module, nn.MultiheadAttention):
                shape = (1, *[-1 if d == sites[name].axis else 1 for d in range(_rank(world, name), 0)])
                mask = torch.arange(sites[name].units).view(shape)
                theirs |= by_captum(captum.LayerFeatureAblation, world, place, [name], layer_mask=mask)
        close(ours(world, place), theirs, 1e-9)


def _rank(world: Gated, name: str) -> int:
    """Return minus the number of axes after the samples' in what a layer puts out."""
    with gated_scene(world, "gate", [name]) as scene:
        return 1 - scene.run(grad=False).values[name][0].dim()


def test_second_implementation(world: Gated) -> None:
    for place in places(world):
        sites, found = world.sites(place), ours(world, place)
        for name in layers(world, place)[::3]:
            units = list(range(sites[name].units))[:4]
            with world.still():
                site = sites[name]
                theirs = ablation(world.model, site.module, site.axis, units, (world.x, world.y), site.raw)
            expected = torch.tensor(theirs, dtype=torch.float64)
            torch.testing.assert_close(found[name][units], expected, rtol=1e-9, atol=1e-12)


def test_reruns_equal_whole_forwards(world: Gated) -> None:
    place = places(world)[-1]
    with gated_scene(world, place, layers(world, place)[:1]) as scene:
        short, whole = both_ways(lambda: FeatureAblationAbs(attribute_to=place), scene)
    close(short, whole, 1e-12)
