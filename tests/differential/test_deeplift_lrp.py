"""DeepLIFT, DeepLIFT SHAP and LRP against the record, a slow second implementation and captum, in double precision."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import captum.attr as captum
import pytest
import torch
from captum.attr._core import deep_lift
from captum.attr._utils import lrp_rules
from torch import Tensor, nn

import tests.support.attribution as attached_models
from tests.reference import deeplift as slow_deeplift
from tests.reference import lrp as slow_lrp
from tests.reference.masked_mlp import recorded_mlp
from tests.reference.recorded import LAYERS, SETS, recorded
from tests.reference.recorded_network import RecordedNetwork
from tests.support.attribution import by_captum, gated
from tests.support.captum_models import PLAIN, Cnn, by_layer, images_and_labels
from tests.support.plain_attribution import assert_close_by_unit, measure_layers, weighted_layers

FC = [f"fc{i}" for i in LAYERS]


# ------------------------------------------------------------------ the record and the second implementation
def mean_over_samples(per_sample: Sequence[list[Tensor]]) -> dict[str, Tensor]:
    return {f"fc{i}": torch.stack([found[i].abs() for found in per_sample]).mean(0) for i in LAYERS}


@pytest.mark.parametrize("set_name", SETS)
@pytest.mark.parametrize("name", ["deeplift_abs", "deepliftshap_abs"])
def test_record_of_deeplift(set_name: str, name: str) -> None:
    data = recorded(set_name)
    x, y = data.tensor("t2_x"), data.tensor("t2_y")
    params = {"baselines": torch.zeros(2, x.shape[1])} if name == "deepliftshap_abs" else {}
    found = measure_layers(name, RecordedNetwork(data), FC, x, y, **params)
    for i in LAYERS:
        torch.testing.assert_close(found[f"fc{i}"], data.tensor(f"raw/{name}/{i}"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("set_name", SETS)
def test_record_of_lrp(set_name: str) -> None:
    """The recorded relevance is multiplied by the mask in the backward, ours is not; nothing else differs."""
    data = recorded(set_name)
    net, x, y = recorded_mlp(data), data.tensor("t2_x"), data.tensor("t2_y")
    both = zip(x, y.tolist(), strict=True)
    theirs, ours = zip(
        *((slow_lrp.mlp(net, *s, mask_multiplies_relevance=True), slow_lrp.mlp(net, *s)) for s in both), strict=True
    )
    for name, value in mean_over_samples(theirs).items():
        torch.testing.assert_close(value, data.tensor(f"raw/lrp_abs/{name[-1]}"), rtol=1e-9, atol=0)
    assert_close_by_unit(measure_layers("lrp_abs", RecordedNetwork(data), FC, x, y), mean_over_samples(ours), 1e-9)


@pytest.mark.parametrize("epsilon", [1e-9, 0.1])
@pytest.mark.parametrize(
    ("rule", "gamma"), [("epsilon", 0.25), ("gamma", 0.25), ("gamma", 2.0), ("alpha1_beta0", 0.25)]
)
def test_second_implementation_of_lrp(epsilon: float, rule: str, gamma: float) -> None:
    data = recorded("mlp_small")
    net, x, y = recorded_mlp(data), data.tensor("t2_x"), data.tensor("t2_y")
    slow = [slow_lrp.mlp(net, *s, epsilon, rule=rule, gamma=gamma) for s in zip(x, y.tolist(), strict=True)]
    ours = measure_layers("lrp_abs", RecordedNetwork(data), FC, x, y, epsilon=epsilon, rule=rule, gamma=gamma)
    assert_close_by_unit(ours, mean_over_samples(slow), 1e-9)


def test_second_implementation_of_deeplift() -> None:
    data = recorded("mlp_small")
    net, x, y = recorded_mlp(data), data.tensor("t2_x"), data.tensor("t2_y")
    starts = torch.randn(3, x.shape[1], dtype=x.dtype)
    slow = [
        [slow_deeplift.mlp(net, a, start, label) for a, label in zip(x, y.tolist(), strict=True)] for start in starts
    ]
    one = measure_layers("deeplift_abs", RecordedNetwork(data), FC, x, y, baselines=starts[0])
    assert_close_by_unit(one, mean_over_samples(slow[0]), 1e-9)
    mean = [[sum(layers) / 3 for layers in zip(*same_sample, strict=True)] for same_sample in zip(*slow, strict=True)]
    several = measure_layers("deepliftshap_abs", RecordedNetwork(data), FC, x, y, baselines=starts)
    assert_close_by_unit(several, mean_over_samples(mean), 1e-9)


# ------------------------------------------------------------------ captum, on plain models
OVERLAPPED = {"resnet18": ["conv1"]}
"""Layers below a pool whose windows overlap: see `test_captum_loses_what_overlapping_windows_share`."""


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_captum_deeplift(kind: str) -> None:
    model, theirs, size = PLAIN[kind]()
    x, y = images_and_labels(size=size)
    layers = [name for name in weighted_layers(model) if name not in OVERLAPPED.get(kind, [])]
    start = torch.randn(x.shape, dtype=x.dtype)
    ours = measure_layers("deeplift_abs", model, layers, x, y, baselines=start)
    assert_close_by_unit(ours, by_layer(captum.LayerDeepLift, theirs, layers, x, y, baselines=start), 1e-9)


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_captum_deeplift_shap(kind: str) -> None:
    model, theirs, size = PLAIN[kind]()
    x, y = images_and_labels(size=size)
    layers = [name for name in weighted_layers(model) if name not in OVERLAPPED.get(kind, [])]
    layers = layers[:: max(1, len(layers) // 4)]
    starts = torch.randn(2, *x.shape[1:], dtype=x.dtype)
    ours = measure_layers("deepliftshap_abs", model, layers, x, y, baselines=starts)
    assert_close_by_unit(ours, by_layer(captum.LayerDeepLiftShap, theirs, layers, x, y, baselines=starts), 1e-9)


@pytest.mark.parametrize("kind", sorted(PLAIN))
def test_captum_lrp(kind: str) -> None:
    model, theirs, size = PLAIN[kind]()
    x, y = images_and_labels(size=size)
    ours = measure_layers("lrp_abs", model, weighted_layers(model), x, y)
    assert_close_by_unit(ours, by_layer(captum.LayerLRP, theirs, weighted_layers(model), x, y), 1e-6)


@pytest.mark.parametrize(
    ("rule", "theirs"), [("gamma", lrp_rules.GammaRule), ("alpha1_beta0", lrp_rules.Alpha1_Beta0_Rule)]
)
@pytest.mark.parametrize("kind", ["cnn", "resnet18"])
def test_captum_lrp_by_other_rules(kind: str, rule: str, theirs: type[lrp_rules.PropagationRule]) -> None:
    """Without biases, which captum does not clamp, and on values >= 0, where clamping the weights is the rule."""
    model, plain, size = PLAIN[kind]()
    for module in (*model.modules(), *plain.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    x, y = images_and_labels(size=size)
    found = measure_layers("lrp_abs", model, weighted_layers(model), x, y, rule=rule)
    assert_close_by_unit(found, by_layer(captum.LayerLRP, plain, weighted_layers(model), x, y, rule=theirs), 1e-6)


# ------------------------------------------------------------------ captum, on attached models
@pytest.fixture
def gelu_by_rescale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply captum's own rule to GELU, which it leaves out, so that both use Rescale."""
    monkeypatch.setitem(deep_lift.SUPPORTED_NON_LINEAR, nn.GELU, deep_lift.nonlinear)


@pytest.mark.parametrize("place", ["gate", "layer"])
def test_captum_deeplift_with_gates(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setitem(attached_models.MODELS, "cnn", Cnn)
    with gated("cnn") as attached:
        ours = attached.session.measure("deeplift_abs", attached.x, attached.y, attribute_to=place)
        assert_close_by_unit(ours, by_captum(captum.LayerDeepLift, attached, place), 1e-9)


@pytest.mark.usefixtures("gelu_by_rescale")
def test_captum_deeplift_on_a_transformer() -> None:
    """Captum uses the gradients of norms and attention."""
    with gated("vit") as attached, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = attached.session.measure("deeplift_abs", attached.x, attached.y, interactions="gradient")
        assert_close_by_unit(ours, by_captum(captum.LayerDeepLift, attached, "gate"), 1e-9)


def test_captum_lrp_with_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum does not enter a layer that has a gate as a child, so its model has the same masks as modules."""
    monkeypatch.setitem(attached_models.MODELS, "cnn", Cnn)
    with gated("cnn") as attached:
        ours = attached.session.measure("lrp_abs", attached.x, attached.y, attribute_to="layer")
        masks = {g.name: g.soft_mask().detach() for g in attached.session._attached.gate_context.gates}
        state = {k: v for k, v in attached.model.state_dict().items() if "hat_gate" not in k}
    assert all(0.01 < float(mask.min()) < float(mask.max()) < 0.99 for mask in masks.values())
    plain = Cnn(masks).double().eval()
    assert plain.load_state_dict(state, strict=False).unexpected_keys == []
    assert_close_by_unit(ours, by_layer(captum.LayerLRP, plain, weighted_layers(plain), attached.x, attached.y), 1e-6)


def test_captum_has_no_lrp_of_a_transformer() -> None:
    with gated("vit") as attached, pytest.raises(TypeError, match="no rule defined"):
        captum.LayerLRP(attached.model, attached.model.get_submodule("conv_proj")).attribute(
            attached.x, target=attached.y
        )
