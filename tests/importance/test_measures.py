"""All closed-form measures on one layer, against hand-computed values; see also `tests/differential`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.importance import Measure
from tests.importance.views import consumer, view

# For `view()`: the sums of incoming |W| are 3 and 1, of outgoing |W| 1 + 3 + 0 + 200 and 1 + 100 + 0.
EXPECTED = {
    "input_weight_abs_sum": [3.0, 1.0],
    "output_weight_abs_sum": [204.0, 101.0],
    "input_weight_gradient_abs_sum": [3.0, 1.0],
    "output_weight_gradient_abs_sum": [2040.0, 1010.0],
    "activation_abs": [2.0, 4.0],
    "input_weight_abs_sum_x_activation_abs": [6.0, 4.0],
    "output_weight_abs_sum_x_activation_abs": [408.0, 404.0],
    "input_weight_gradient_square_sum": [5.0, 0.5],
    "output_weight_gradient_square_sum": [4001000.0, 1000100.0],
    "input_weight_gradient_square_sum_x_activation_abs": [10.0, 2.0],
    "output_weight_gradient_square_sum_x_activation_abs": [8002000.0, 4000400.0],
    "cbp_adaptation": [1 / 3, 1.0],
    "cbp_adaptive_contribution": [136.0, 404.0],
}


def measure(name: str) -> Measure:
    built: Measure = registry.measures.get(name)()
    return built


@pytest.mark.parametrize("name", EXPECTED)
def test_by_hand(name: str) -> None:
    assert measure(name).compute(view()).tolist() == pytest.approx(EXPECTED[name])


@pytest.mark.parametrize("name", EXPECTED)
def test_name_and_needs(name: str) -> None:
    assert measure(name).name == name
    assert measure(name).needs <= {"weight", "gradient", "activation", "consumers"}
    assert ("activation" in measure(name).needs) == ("activation" in name or name == "cbp_adaptive_contribution")
    assert ("gradient" in measure(name).needs) == ("gradient" in name)


@pytest.mark.parametrize("name", EXPECTED)
def test_reads_nothing_it_does_not_need(name: str) -> None:
    needs = measure(name).needs
    without: dict[str, dict[str, object]] = {
        "gradient": {"weight_grad": None},
        "activation": {"activation": None},
        "consumers": {"consumers": ()},
    }
    changes = {k: v for need, change in without.items() if need not in needs for k, v in change.items()}
    assert measure(name).compute(view(**changes)).tolist() == pytest.approx(EXPECTED[name])


@pytest.mark.parametrize("name", EXPECTED)
def test_result_is_detached_and_finite_for_zeros(name: str) -> None:
    zeros = torch.zeros(2, 3, requires_grad=True)
    nothing = (consumer([[0.0, 0.0]], [(0, 0), (1, 1)]),)
    empty = view(weight=zeros, weight_grad=zeros, activation=torch.zeros(2), consumers=nothing)
    result = measure(name).compute(empty)
    assert not result.requires_grad
    assert result.isfinite().all()
    assert (result >= 0).all()


@pytest.mark.parametrize("name", [n for n in EXPECTED if "gradient" in n])
def test_missing_gradient_names_the_layer(name: str) -> None:
    missing = consumer([[1.0, 1.0]], [(0, 0), (1, 1)], weight_grad=None)
    layer = "fc1" if name.startswith("input") else "head"
    with pytest.raises(BadCallError, match=rf"layer '{layer}'.*weight.grad is None"):
        measure(name).compute(view(weight_grad=None, consumers=(missing,)))


@pytest.mark.parametrize("name", [n for n in EXPECTED if "activation" in n])
def test_missing_activation_names_the_layer(name: str) -> None:
    with pytest.raises(BadCallError, match=r"layer 'fc1'.*activation"):
        measure(name).compute(view(activation=None))


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.startswith("output") or n == "cbp_adaptive_contribution"])
def test_no_consumer_names_the_layer(name: str) -> None:
    with pytest.raises(CapabilityError, match="'fc1' has no known consumer"):
        measure(name).compute(view(consumers=()))


@pytest.mark.parametrize("name", ["input_weight_gradient_square_sum", "output_weight_gradient_square_sum"])
def test_squares_of_half_precision_gradients_do_not_vanish(name: str) -> None:
    small = torch.full((2, 3), 1e-5, dtype=torch.float16)
    reader = consumer([[1.0, 1.0]], [(0, 0), (1, 1)], weight_grad=torch.full((1, 2), 1e-5, dtype=torch.float16))
    result = measure(name).compute(view(weight_grad=small, consumers=(reader,)))
    assert result.dtype is torch.float32
    assert (result > 0).all()


@pytest.mark.parametrize("name", EXPECTED)
def test_parameters_are_refused(name: str) -> None:
    with pytest.raises(BadCallError, match=rf"Measure '{name}' takes no parameters, but got \['n_steps'\]"):
        registry.measures.get(name)(n_steps=50)


@pytest.mark.parametrize("name", EXPECTED)
def test_no_value_is_read_back_to_the_host(name: str) -> None:
    index, values = torch.empty(2, dtype=torch.long, device="meta"), torch.empty(1, 2, device="meta")
    reader = replace(view().consumers[0], weight=values, weight_grad=values, unit=index, feature=index)
    weight, activation = torch.empty(2, 3, device="meta"), torch.empty(2, device="meta")
    on_meta = view(weight=weight, weight_grad=weight, activation=activation, consumers=(reader,))
    assert measure(name).compute(on_meta).is_meta
