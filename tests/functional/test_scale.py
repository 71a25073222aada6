from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgadahat_hooks.functional import finish_importance, min_max


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_within_zero_and_one_and_in_order(values: list[float]) -> None:
    raw = torch.tensor(values, dtype=torch.float64)
    scaled = min_max(raw)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    order = raw.argsort()
    assert (scaled[order].diff() >= 0).all()


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (3.0, 1.0), (1e-12, 1.0)])
@pytest.mark.parametrize("units", [1, 4])
def test_constant_layer(value: float, expected: float, units: int) -> None:
    assert min_max(torch.full((units,), value)).tolist() == [expected] * units


def test_ends_of_a_wide_range() -> None:
    scaled = min_max(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    assert scaled.tolist() == pytest.approx([0, 0.25, 1], rel=1e-8)
    assert scaled[0] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    assert not min_max(torch.tensor([1.0, bad, 2.0])).isfinite().all()
    assert not min_max(torch.tensor([bad])).isfinite().all()


def test_finish_divides_adds_the_base_and_masks() -> None:
    total, mask = torch.tensor([6.0, 0.0, 6.0]), torch.tensor([True, True, False])
    assert finish_importance(total, 3, 0.5, mask).tolist() == [2.5, 0.5, 0.0]
    assert finish_importance(total, 3, 0.5, None).tolist() == [2.5, 0.5, 2.5]
