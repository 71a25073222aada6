"""Feature ablation against the record, captum and the slow second implementation, in double precision."""

from __future__ import annotations

from collections.abc import Iterator

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.importance.attribution.feature_ablation import FeatureAblationAbs
from tests.differential.test_attribution import close, places
from tests.importance.replay_models import open_gated_batch, open_recorded_batch, replayed_and_full
from tests.reference.ablation import ablation
from tests.reference.recorded import LAYERS, SETS, recorded
from tests.support.attribution import MODELS, Gated, by_captum, gated

FEW = {"gate": ["layer1.1.conv1"], "layer": ["conv1"]}
"""Layers of a ResNet-18 that are compared; captum needs one forward a unit."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def attached(request: pytest.FixtureRequest) -> Iterator[Gated]:
    with gated(request.param, batch=2) as found:
        for module in found.model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # captum's tensors there must not be overwritten
        yield found


def layers(attached: Gated, place: str) -> list[str]:
    """Return the layers that are compared."""
    names = list(attached.session.graph.layers)
    return FEW[place] if set(FEW[place]) < set(names) else names


def ours(attached: Gated, place: str) -> dict[str, Tensor]:
    with open_gated_batch(attached, place, layers(attached, place)) as batch:
        return FeatureAblationAbs(attribute_to=place).compute(batch)


@pytest.mark.parametrize("set_name", SETS)
def test_record(set_name: str) -> None:
    data = recorded(set_name)
    with open_recorded_batch(data) as batch:
        found = FeatureAblationAbs(attribute_to="layer").compute(batch)
    for i in LAYERS:
        torch.testing.assert_close(
            found[f"fc{i}"], data.tensor(f"raw/feature_ablation_abs/{i}"), rtol=1e-12, atol=1e-15
        )


def test_captum(attached: Gated) -> None:
    """A mask for captum numbers the units, so that it ablates a whole unit at once."""
    for place in places(attached):
        sites = attached.sites(place)
        theirs: dict[str, Tensor] = {}
        for name in layers(attached, place):
            if not isinstance(sites[name].module, nn.MultiheadAttention):
                shape = (1, *[-1 if d == sites[name].axis else 1 for d in range(_rank(attached, name), 0)])
                mask = torch.arange(sites[name].units).view(shape)
                theirs |= by_captum(captum.LayerFeatureAblation, attached, place, [name], layer_mask=mask)
        close(ours(attached, place), theirs, 1e-9)


def _rank(attached: Gated, name: str) -> int:
    """Return minus the number of axes after the samples' axis in a layer's output."""
    with open_gated_batch(attached, "gate", [name]) as batch:
        return 1 - batch.run(grad=False).values[name][0].dim()


def test_second_implementation(attached: Gated) -> None:
    for place in places(attached):
        sites, found = attached.sites(place), ours(attached, place)
        for name in layers(attached, place)[::3]:
            units = list(range(sites[name].units))[:4]
            with attached.in_evaluation():
                site = sites[name]
                theirs = ablation(attached.model, site.module, site.axis, units, (attached.x, attached.y), site.raw)
            expected = torch.tensor(theirs, dtype=torch.float64)
            torch.testing.assert_close(found[name][units], expected, rtol=1e-9, atol=1e-12)


def test_replays_equal_full_forwards(attached: Gated) -> None:
    place = places(attached)[-1]
    with open_gated_batch(attached, place, layers(attached, place)[:1]) as batch:
        replayed, full = replayed_and_full(lambda: FeatureAblationAbs(attribute_to=place), batch)
    close(replayed, full, 1e-12)
