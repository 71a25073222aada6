"""The equations of shares and learning rates against loops and fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgadahat_hooks.functional.plasticity import (
    free_row_factor,
    gradient_learning_rate_factor,
    head_learning_rate_factor,
    learning_rate_factor,
    task_share,
)
from tests.reference import plasticity as reference


@given(st.integers(1, 600), st.integers(1, 40), st.sampled_from([1, 1.5, 2]))
def test_shares_are_those_of_a_row_that_is_cut(units: int, tasks: int, first: float) -> None:
    ours = [task_share(units, tasks, finished, first) for finished in range(tasks)]
    assert ours == reference.parts_of(units, tasks, Fraction(first))
    if units >= 2 * tasks:
        assert sum(ours) == units


def test_a_task_beyond_those_expected_gets_a_part_too() -> None:
    assert task_share(55, 5, 5) == task_share(55, 5, 9) == 10


@given(*[st.floats(0.01, 1)] * 3, st.floats(1e-5, 1e-1), st.floats(0, 1))
def test_factors_are_those_of_the_formula(f: float, p: float, q: float, lr: float, std: float) -> None:
    ours = learning_rate_factor(lr, f, p, q, std, max_factor=8.0, max_step=0.1)
    assert ours == pytest.approx(reference.factor(lr, f, p, q, std, 8.0, 0.1), rel=1e-12)


@given(*[st.floats(0.01, 1)] * 3, st.floats(1e-5, 10), st.floats(0, 0.99))
def test_factors_under_sgd_are_those_of_the_formula(f: float, p: float, q: float, lr: float, momentum: float) -> None:
    ours = gradient_learning_rate_factor(lr, f, p, q, 8.0, momentum)
    assert ours == pytest.approx(reference.gradient_factor(lr, f, p, q, 8.0, momentum), rel=1e-12)


def test_sgd_near_its_limit_of_stability_is_left_alone() -> None:
    assert gradient_learning_rate_factor(0.1, 0.2, 0.4, 0.2, momentum=0.9) == pytest.approx(1.0)
    assert gradient_learning_rate_factor(0.01, 0.2, 0.4, 0.2, momentum=0.9) == pytest.approx(8.0)


def test_without_gates_nothing_is_changed() -> None:
    assert learning_rate_factor(1e-3, 1.0, 1.0, 1.0, 0.1) == 1.0
    assert gradient_learning_rate_factor(1e-2, 1.0, 1.0, 1.0) == 1.0
    assert free_row_factor(1.0) == head_learning_rate_factor(1.0) == 1.0


def test_a_layer_that_learns_nothing_keeps_its_rate() -> None:
    assert learning_rate_factor(1e-3, 0.5, 0.5, 0.0, 0.1) == 1.0
    assert learning_rate_factor(1e-3, 0.0, 0.5, 0.5, 0.1) == 1.0
    assert free_row_factor(0.0) == head_learning_rate_factor(0.0) == 1.0


def test_a_heads_factor_is_limited() -> None:
    assert head_learning_rate_factor(0.25) == 4.0
    assert head_learning_rate_factor(0.01) == 8.0
