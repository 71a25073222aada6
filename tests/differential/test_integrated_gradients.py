"""Integrated gradients against the record, captum and the slow second implementation, in double precision."""

from __future__ import annotations

from collections.abc import Iterator

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.importance.attribution.integrated_gradients import IntegratedGradientsAbs
from tests.differential.test_attribution import close, places
from tests.importance.replay_models import open_gated_batch, open_recorded_batch, replayed_and_full
from tests.reference.integrated import integrated
from tests.reference.recorded import LAYERS, SETS, recorded
from tests.support.attribution import MODELS, Gated, by_captum, gated, mean_abs

FEW = ["conv1", "layer2.1.conv1", "layer4.1.conv1"]
"""Layers of a ResNet-18 that are compared: captum cannot replace outputs that `out += identity` overwrites."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def attached(request: pytest.FixtureRequest) -> Iterator[Gated]:
    with gated(request.param, batch=2) as found:
        for module in found.model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # captum's tensors there must not be overwritten
        yield found


def layers(attached: Gated) -> list[str]:
    """Return the layers that are compared."""
    names = list(attached.session.graph.layers)
    return FEW if set(FEW) < set(names) else names


def ours(attached: Gated, place: str, n_steps: int) -> dict[str, Tensor]:
    with open_gated_batch(attached, place, layers(attached)) as batch:
        return IntegratedGradientsAbs(attribute_to=place, n_steps=n_steps).compute(batch)


@pytest.mark.parametrize("set_name", SETS)
def test_record(set_name: str) -> None:
    data = recorded(set_name)
    with open_recorded_batch(data) as batch:
        found = IntegratedGradientsAbs(attribute_to="layer").compute(batch)
    for i in LAYERS:
        expected = data.tensor(f"raw/integrated_gradients_abs/{i}")
        torch.testing.assert_close(found[f"fc{i}"], expected, rtol=1e-12, atol=0)


def test_captum(attached: Gated) -> None:
    for place in places(attached):
        theirs = by_captum(captum.LayerIntegratedGradients, attached, place, captum_layers(attached, place), n_steps=5)
        close(ours(attached, place, 5), theirs, 1e-9)


def captum_layers(attached: Gated, place: str) -> list[str]:
    """Return the layers that captum supports: no attention, whose output is a tuple."""
    sites = attached.sites(place)
    return [name for name in layers(attached) if not isinstance(sites[name].module, nn.MultiheadAttention)]


def test_second_implementation(attached: Gated) -> None:
    for place in places(attached):
        sites, found = attached.sites(place), ours(attached, place, 4)
        for name in layers(attached)[::2]:
            site, total = sites[name], torch.zeros(sites[name].units, dtype=torch.float64)
            for x, label in zip(attached.x, attached.y.tolist(), strict=True):
                with attached.in_evaluation():
                    (value,) = integrated(attached.model, site.module, x, label, 4, site.raw)
                total += mean_abs(value, site.axis) / len(attached.x)
            torch.testing.assert_close(found[name], total, rtol=1e-9, atol=1e-12)


def test_replays_equal_full_forwards(attached: Gated) -> None:
    place = places(attached)[-1]
    with open_gated_batch(attached, place, layers(attached)[:2]) as batch:
        make = lambda: IntegratedGradientsAbs(attribute_to=place, n_steps=3)  # noqa: E731
        replayed, full = replayed_and_full(make, batch)
    close(replayed, full, 1e-12)
