"""The attributions by gradients against the record, captum and the slow second implementation, in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import captum.attr as captum
import numpy as np
import pytest
import torch
from torch import Tensor

from fgadahat_hooks import registry
from fgadahat_hooks.importance.attribution import AttributionCall, Site, open_attribution_batch
from fgadahat_hooks.importance.attribution.gradient_shap import GradientshapAbs
from fgadahat_hooks.importance.attribution.target import label_scores
from tests.reference import attribution as reference
from tests.reference.recorded import LAYERS, SETS, recorded
from tests.reference.recorded_network import RecordedNetwork
from tests.support.attribution import MODELS, Gated, by_captum, gated, mean_abs

PLACES = ("gate", "layer")
RECORDED = ("gradient_x_activation_abs", "gradcam_abs", "internal_influence_abs", "conductance_abs")
CAPTUM: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "gradient_x_activation_abs": (captum.LayerGradientXActivation, {}, {}),
    "internal_influence_abs": (captum.InternalInfluence, {"n_steps": 5}, {"n_steps": 5}),
    "conductance_abs": (captum.LayerConductance, {"n_steps": 6}, {"n_steps": 6}),
}
"""By measure: captum's class, its arguments, ours."""
CLOSE = {"gradient_x_activation_abs": 1e-9, "internal_influence_abs": 1e-7, "conductance_abs": 1e-9}
"""Captum computes the weights of the influence's integral in single precision."""


@pytest.fixture(scope="module", params=sorted(MODELS))
def attached(request: pytest.FixtureRequest) -> Iterator[Gated]:
    with gated(request.param) as found:
        yield found


def places(attached: Gated) -> list[str]:
    """Return where units can be attributed to: a layer that the model uses functionally has no output of its own."""
    functional = any(layer.position == "weight" for layer in attached.session.graph.layers.values())
    return ["gate"] if functional else list(PLACES)


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float) -> None:
    assert set(theirs) <= set(ours)
    for name, value in theirs.items():
        assert bool((value > 0).any()), name
        torch.testing.assert_close(ours[name], value, rtol=rtol, atol=rtol * float(value.max()))


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("name", RECORDED)
def test_record(set_name: str, name: str) -> None:
    data = recorded(set_name)
    network, x, y = RecordedNetwork(data), data.tensor("t2_x"), data.tensor("t2_y")
    modules = {f"fc{i}": network.get_submodule(f"fc{i}") for i in LAYERS}
    sites = {n: Site(n, int(m.get_parameter("weight").shape[0]), m, -1, raw=True) for n, m in modules.items()}
    with open_attribution_batch(
        network, sites, AttributionCall((x,), {}, lambda output: label_scores(output, y))
    ) as batch:
        found = registry.measures.get(name)(attribute_to="layer").compute(batch)
    for i in LAYERS:
        torch.testing.assert_close(found[f"fc{i}"], data.tensor(f"raw/{name}/{i}"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", sorted(CAPTUM))
def test_captum(attached: Gated, name: str) -> None:
    method, theirs, ours = CAPTUM[name]
    for place in places(attached):
        found = attached.session.measure(name, attached.x, attached.y, attribute_to=place, **ours)
        close(found, by_captum(method, attached, place, **theirs), CLOSE[name])


def test_gradcam_equals_captum(attached: Gated) -> None:
    """Captum assumes channels on axis 1, which is wrong for a sequence of tokens."""
    found = attached.session.measure("gradcam_abs", attached.x, attached.y)
    maps = [n for n, site in attached.sites("gate").items() if site.axis == -3]
    theirs = by_captum(captum.LayerGradCam, attached, "gate", maps, attr_dim_summation=False) if maps else {}
    close(found, theirs, 1e-9)


def test_gradient_shap_equals_captum_with_the_same_draws(attached: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum draws from numpy's global stream, once for all samples of an expanded batch."""
    n, size = 4, len(attached.x)
    draws = np.random.default_rng(5).uniform(size=(size, n))  # captum repeats each sample n times in a row

    def drawn(low: float, high: float, count: int) -> Any:
        assert count == size * n
        return draws.reshape(-1)

    monkeypatch.setattr(np.random, "uniform", drawn)
    columns = iter(torch.from_numpy(draws.T.copy()))
    monkeypatch.setattr(GradientshapAbs, "draw", lambda self, count: next(columns))
    ours = attached.session.measure("gradientshap_abs", attached.x, attached.y, n_samples=n)
    baselines = torch.zeros_like(attached.x[:1])
    theirs = by_captum(captum.LayerGradientShap, attached, "gate", baselines=baselines, n_samples=n)
    close(ours, theirs, 1e-9)


@pytest.mark.parametrize("name", ["gradient_x_activation", "gradcam", "internal_influence", "conductance"])
def test_second_implementation(attached: Gated, name: str) -> None:
    steps = {"n_steps": 6} if name == "conductance" else {}
    for place in places(attached):
        ours = attached.session.measure(f"{name}_abs", attached.x, attached.y, attribute_to=place, **steps)
        sites = attached.sites(place)
        picked = list(sites)[:: max(1, len(sites) // 3)]
        with attached.in_evaluation():
            theirs = {n: _slow(attached, sites[n], getattr(reference, name)) for n in picked}
        close(ours, theirs, 1e-9)


def _slow(attached: Gated, site: Site, method: Any) -> Tensor:
    parts = []
    for x, label in zip(attached.x, attached.y.tolist(), strict=True):
        at = lambda v, label=label: reference.output_and_gradient(attached.model, site.module, v, label, site.raw)  # noqa: E731
        parts.append(mean_abs(method(at, x, site.axis), site.axis))
    return torch.stack(parts).mean(0)


def test_gradient_shap_second_implementation(attached: Gated) -> None:
    ours = attached.session.measure("gradientshap_abs", attached.x, attached.y, n_samples=3, seed=7)
    draws = GradientshapAbs(n_samples=3, seed=7)
    columns = torch.stack([draws.draw(len(attached.x)) for _ in range(3)])
    name, site = list(attached.sites("gate").items())[1]
    parts = []
    with attached.in_evaluation():
        for b, (x, label) in enumerate(zip(attached.x, attached.y.tolist(), strict=True)):
            at = lambda v, label=label: reference.output_and_gradient(attached.model, site.module, v, label, site.raw)  # noqa: E731
            parts.append(mean_abs(reference.gradient_shap(at, x, columns[:, b].tolist()), site.axis))
    close(ours, {name: torch.stack(parts).mean(0)}, 1e-9)
