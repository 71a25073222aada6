"""Every rate against the loops and the recorded numbers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks import functional as F
from fgadahat_hooks.layers import Conv2dType, LayerType, LinearType
from tests.reference import rates as reference
from tests.reference.recorded import LAYERS, SETS, Recorded, recorded

AGGREGATIONS = ("min", "max", "mean")
SCHEDULERS = ("linear_sparsity_reg", "sparsity_reg", "summative_mask_sparsity_reg")
FG = list(product(AGGREGATIONS, SCHEDULERS, (False, True)))
PLAIN = ("adahat", "adahat_no_sum", "adahat_no_reg", "hat", "hat_const_alpha", "hat_const_1")
State = dict[str, Tensor]


def our_rate(s: reference.Settings, own: State, inputs: State | None) -> Tensor:
    """Compute one rate with the library from views of the units' values."""

    def agg(key: str, mode: str) -> Tensor:
        return F.aggregate(own[key], None if inputs is None else inputs[key], mode)

    count, protected = agg("summative", "min"), agg("cumulative", "min")
    sparsity = torch.tensor(s.sparsity, dtype=torch.float64)
    if s.mode == "fg_adahat":
        importance = agg("importance", s.aggregation)
        if s.filtered:
            importance = F.filter_by_cumulative_mask(importance, protected)
        factor = F.SCHEDULERS[s.scheduler](
            sparsity=sparsity,
            task=s.task,
            count=count,
            base_linear=s.base_linear,
            base_mask_sparsity_reg=s.base_mask_sparsity_reg,
        )
        return F.fg_adahat_rate(importance, factor, s.alpha)
    rates = {
        "adahat": lambda: F.adahat_rate(count, sparsity, s.alpha, s.epsilon),
        "adahat_no_sum": lambda: F.adahat_no_sum_rate(count, s.task - 1, sparsity, s.alpha, s.epsilon),
        "adahat_no_reg": lambda: F.adahat_no_reg_rate(count, s.alpha, s.epsilon),
        "hat": lambda: F.hat_rate(protected),
        "hat_const_alpha": lambda: F.hat_const_alpha_rate(protected, s.alpha),
        "hat_const_1": lambda: F.hat_const_1_rate(protected),
    }
    return rates[s.mode]()


def our_rates(
    s: reference.Settings, kind: LayerType, module: nn.Module, own: State, inputs: State | None
) -> tuple[Tensor, Tensor]:
    """Return the rates of weight and bias."""
    own_views = {key: kind.unit_view(module, value) for key, value in own.items()}
    input_views = None if inputs is None else {k: kind.input_view(module, v) for k, v in inputs.items()}
    weight = module.get_parameter("weight")
    return our_rate(s, own_views, input_views).expand(weight.shape), our_rate(s, own, None)


def as_units(state: State) -> reference.Units:
    """Turn tensors into lists."""
    return reference.Units(**{key: value.tolist() for key, value in state.items()})


def check(
    s: reference.Settings, kind: LayerType, module: nn.Module, own: State, inputs: State | None
) -> tuple[Tensor, Tensor]:
    """Compare with the loops and return the rates."""
    weight, bias = our_rates(s, kind, module, own, inputs)
    columns, groups = weight.shape[1], getattr(module, "groups", 1)
    looped = reference.weight_rates(s, as_units(own), None if inputs is None else as_units(inputs), columns, groups)
    expected = torch.tensor(looped, dtype=torch.float64)
    expected = expected.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2)).expand(weight.shape)
    torch.testing.assert_close(weight, expected, rtol=1e-13, atol=0)
    bias_expected = torch.tensor(reference.bias_rates(s, as_units(own)), dtype=torch.float64)
    torch.testing.assert_close(bias, bias_expected, rtol=1e-13, atol=0)
    return weight, bias


def recorded_state(data: Recorded, layer: int) -> State:
    """Return importance and masks of a layer's units while task 2 runs."""
    return {
        "importance": data.tensor(f"t1_end/summative_importance{layer}"),
        "cumulative": data.tensor(f"t1_end/cumulative_mask{layer}"),
        "summative": data.tensor(f"t1_end/summative_mask{layer}"),
    }


def recorded_settings(data: Recorded, layer: int, mode: str, **extra: Any) -> reference.Settings:
    """Return the settings that the recorded rates were computed with."""
    sparsity = data.tensor(f"t2/network_sparsity{layer}").item()
    return reference.Settings(mode, data.settings["adjustment_intensity"], 2, sparsity, **extra)


def linear_of(data: Recorded, layer: int) -> nn.Linear:
    """Return a layer of the recorded shape."""
    dims = data.settings["dims"]
    return nn.Linear(dims[layer], dims[layer + 1], dtype=torch.float64)


def check_recorded(data: Recorded, label: str, mode: str, **extra: Any) -> None:
    """Compare all layers with the loops and the recorded rates, and their mean with the recorded capacity."""
    parts = []
    for layer in LAYERS:
        inputs = recorded_state(data, layer - 1) if layer else None
        s = recorded_settings(data, layer, mode, **extra)
        weight, bias = check(s, LinearType(), linear_of(data, layer), recorded_state(data, layer), inputs)
        torch.testing.assert_close(weight, data.tensor(f"rates/{label}/W{layer}"), rtol=1e-12, atol=0)
        torch.testing.assert_close(bias, data.tensor(f"rates/{label}/b{layer}"), rtol=1e-12, atol=0)
        parts += [weight.flatten(), bias]
    assert torch.cat(parts).mean().item() == pytest.approx(data.settings["capacity_by_mode"][label], rel=1e-12)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("aggregation", "scheduler", "filtered"), FG)
def test_fg_adahat_equals_loops_and_record(name: str, aggregation: str, scheduler: str, filtered: bool) -> None:
    label = f"{aggregation}|{scheduler}|filter_by_cumulative_mask={filtered}"
    extra = {"aggregation": aggregation, "scheduler": scheduler, "filtered": filtered}
    check_recorded(recorded(name), label, "fg_adahat", **extra)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("label", "mode"),
    [
        ("hat:hat", "hat"),
        ("hat:hat_const_1", "hat_const_1"),
        ("adahat:adahat", "adahat"),
        ("adahat:adahat_no_reg", "adahat_no_reg"),
    ],
)
def test_plain_rates_equal_loops_and_record(name: str, label: str, mode: str) -> None:
    check_recorded(recorded(name), label, mode)


@pytest.mark.parametrize("name", SETS)
def test_hat_const_alpha_equals_record(name: str) -> None:
    """The constant is not among the recorded settings, so it is read from the recorded rates."""
    data = recorded(name)
    alpha = min(data.tensor("rates/hat:hat_const_alpha/b0").tolist())
    for layer in LAYERS:
        inputs = recorded_state(data, layer - 1) if layer else None
        s = reference.Settings("hat_const_alpha", alpha, 2, 0.0)
        weight, bias = check(s, LinearType(), linear_of(data, layer), recorded_state(data, layer), inputs)
        assert torch.equal(weight, data.tensor(f"rates/hat:hat_const_alpha/W{layer}"))
        assert torch.equal(bias, data.tensor(f"rates/hat:hat_const_alpha/b{layer}"))


@pytest.mark.parametrize("name", SETS)
def test_adahat_no_sum_shares_its_formula_with_the_record(name: str) -> None:
    """The record has `r / (t + r)`, t = 2, at every weight.

    The library uses the number of finished tasks for t and leaves unused weights free, so the formula is compared
    with a count of 2 everywhere.
    """
    data = recorded(name)
    for layer in LAYERS:
        s = recorded_settings(data, layer, "adahat_no_sum")
        sparsity = torch.tensor(s.sparsity, dtype=torch.float64)
        for part in ("W", "b"):
            expected = data.tensor(f"rates/adahat:adahat_no_sum/{part}{layer}")
            everywhere = F.adahat_no_sum_rate(torch.ones_like(expected), 2, sparsity, s.alpha, s.epsilon)
            torch.testing.assert_close(everywhere, expected, rtol=1e-12, atol=0)
            unused = F.adahat_no_sum_rate(torch.zeros_like(expected), 2, sparsity, s.alpha, s.epsilon)
            assert (unused == 1).all()


@pytest.mark.parametrize("name", SETS)
def test_rate_of_the_training_step_and_adjusted_gradients_equal_record(name: str) -> None:
    data = recorded(name)
    for layer in LAYERS:
        inputs = recorded_state(data, layer - 1) if layer else None
        s = recorded_settings(data, layer, "fg_adahat")
        rates = our_rates(s, LinearType(), linear_of(data, layer), recorded_state(data, layer), inputs)
        for part, rate in zip("Wb", rates, strict=True):
            torch.testing.assert_close(rate, data.tensor(f"t2/rate{part}{layer}"), rtol=1e-12, atol=0)
            adjusted = rate * data.tensor(f"t2/grad{part}{layer}_raw")
            torch.testing.assert_close(adjusted, data.tensor(f"t2/grad{part}{layer}_adjusted"), rtol=1e-12, atol=0)


def random_state(units: int, finished: int, generator: torch.Generator) -> State:
    """Draw a state after several tasks: binary masks, their sum and maximum, some importances 0."""
    masks = torch.randint(0, 2, (finished, units), generator=generator, dtype=torch.float64)
    importance = torch.rand(units, generator=generator, dtype=torch.float64) * finished * masks.amax(0)
    return {"importance": importance, "cumulative": masks.amax(0), "summative": masks.sum(0)}


GEOMETRIES: list[tuple[LayerType, Callable[[], nn.Module]]] = [
    (LinearType(), lambda: nn.Linear(6, 8, dtype=torch.float64)),
    (Conv2dType(), lambda: nn.Conv2d(6, 8, 3, dtype=torch.float64)),
    (Conv2dType(), lambda: nn.Conv2d(6, 8, (2, 3), groups=2, dtype=torch.float64)),
    (Conv2dType(), lambda: nn.Conv2d(6, 6, 3, groups=6, dtype=torch.float64)),
    (Conv2dType(), lambda: nn.Conv2d(6, 12, 1, groups=6, dtype=torch.float64)),
]


@pytest.mark.parametrize("geometry", range(len(GEOMETRIES)))
@pytest.mark.parametrize("mode", ["fg_adahat", *PLAIN])
def test_rates_after_many_tasks_equal_loops(geometry: int, mode: str) -> None:
    kind, build = GEOMETRIES[geometry]
    module, generator = build(), torch.Generator().manual_seed(geometry)
    own = random_state(kind.units(module), 5, generator)
    inputs = random_state(kind.inputs(module), 5, generator)
    for aggregation, scheduler, filtered in FG if mode == "fg_adahat" else FG[:1]:
        s = reference.Settings(mode, 1e-3, 6, 0.37, aggregation, scheduler, filtered)
        check(s, kind, module, own, inputs)
        check(s, kind, module, own, None)
