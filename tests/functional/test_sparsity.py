from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.functional import layer_sparsity, regularization
from tests.reference import sparsity as reference

MODES = ["original", "cross"]
layer = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=6)


@pytest.mark.parametrize("mode", MODES)
@given(layers=st.lists(layer, min_size=1, max_size=3))
def test_within_zero_and_one(mode: str, layers: list[list[tuple[float, bool]]]) -> None:
    masks = [torch.tensor([m for m, _ in units], dtype=torch.float64) for units in layers]
    used = [torch.tensor([u for _, u in units]) for units in layers]
    value = regularization(masks, used, mode)
    assert value.shape == ()
    assert -1e-15 <= value.item() <= 1 + 1e-15
    as_numbers = regularization(masks, [u.double() for u in used], mode)
    assert torch.equal(value, as_numbers)


def test_one_ratio_over_all_layers_not_a_mean_of_ratios() -> None:
    masks = [torch.ones(1), torch.zeros(3)]
    free = [torch.zeros(1), torch.zeros(3)]
    assert regularization(masks, free).item() == 0.25


def test_only_free_units_count() -> None:
    mask, used = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert layer_sparsity(mask, used).item() == pytest.approx(1 / 3)
    assert regularization([mask], [used], "cross").item() == pytest.approx(1 / 6)


def test_cross_penalises_used_units_that_are_left_out() -> None:
    used = torch.tensor([1.0, 1.0, 0.0])
    assert regularization([torch.tensor([0.0, 0.0, 0.0])], [used], "cross").item() == 0.5
    assert regularization([torch.tensor([1.0, 1.0, 0.0])], [used], "cross").item() == 0


def test_cross_is_half_the_original_before_any_task_ended() -> None:
    mask, none = torch.rand(5), torch.zeros(5)
    assert regularization([mask], [none], "cross").item() == pytest.approx(mask.mean().item() / 2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("used", [0.0, 1.0])
def test_gradient_is_finite_when_nothing_or_all_is_free(mode: str, used: float) -> None:
    mask = torch.rand(4, requires_grad=True)
    regularization([mask], [torch.full((4,), used)], mode).backward()
    assert mask.grad is not None
    assert mask.grad.isfinite().all()


def test_nothing_free_is_zero() -> None:
    assert layer_sparsity(torch.ones(3), torch.ones(3)).item() == 0
    assert regularization([torch.ones(3)], [torch.ones(3)]).item() == 0


@pytest.mark.parametrize("units", [1, 2, 10, 11])
def test_small_layers_are_measured_too(units: int) -> None:
    assert layer_sparsity(torch.ones(units), torch.zeros(units)).item() == 1


@pytest.mark.parametrize("mode", MODES)
@given(layers=st.lists(layer, min_size=1, max_size=3), budget=st.floats(0, 1))
def test_a_budget_agrees_with_the_reference(mode: str, layers: list[list[tuple[float, bool]]], budget: float) -> None:
    masks = [[m for m, _ in units] for units in layers]
    used = [[float(u) for _, u in units] for units in layers]
    first, second = ([torch.tensor(v, dtype=torch.float64) for v in values] for values in (masks, used))
    fast = regularization(first, second, mode, budget)
    assert fast.item() == pytest.approx(reference.regularization(masks, used, mode, budget), abs=1e-12)


def test_units_within_the_budget_cost_nothing_in_each_layer() -> None:
    free = [torch.zeros(4), torch.zeros(4)]
    within = torch.tensor([1.0, 0.0, 0.0, 0.0], requires_grad=True)
    beyond = torch.tensor([1.0, 1.0, 1.0, 0.0], requires_grad=True)
    value = regularization([within, beyond], free, budget=0.25)
    value.backward()
    assert value.item() == 2 / 8
    assert within.grad is not None
    assert beyond.grad is not None
    assert not within.grad.any()
    assert beyond.grad.tolist() == [1 / 8] * 4  # as without a budget


def test_units_that_are_used_do_not_count_against_the_budget() -> None:
    assert regularization([torch.ones(4)], [torch.tensor([1.0, 1.0, 1.0, 0.0])], budget=0.25).item() == 0


@pytest.mark.parametrize("budget", [-0.1, 1.1, float("nan")])
def test_a_budget_is_a_share(budget: float) -> None:
    with pytest.raises(BadCallError, match="`budget` to be within 0 and 1, but got"):
        regularization([torch.ones(1)], [torch.zeros(1)], budget=budget)


def test_unknown_mode_is_an_error() -> None:
    with pytest.raises(BadCallError, match=r"\['original', 'cross'\], but got 'crossed'"):
        regularization([torch.ones(1)], [torch.zeros(1)], "crossed")


def test_no_layer_is_an_error() -> None:
    with pytest.raises(BadCallError, match="at least one mask"):
        regularization([], [])


def test_different_numbers_of_layers_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        regularization([torch.ones(1)], [])
