"""Identities between the methods that hold whatever the numbers are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fgadahat_hooks import functional as F

unit_interval = st.floats(0, 1)
positive = st.floats(1e-9, 1e3)


def scalar(x: float) -> Tensor:
    """Return a double scalar."""
    return torch.tensor(x, dtype=torch.float64)


def fg_rate(importance: float, alpha: float, scheduler: str = "linear_sparsity_reg", **numbers: float) -> Tensor:
    """Return FG-AdaHAT's rate of one weight."""
    known = {"sparsity": 0.3, "task": 2, "count": 1.0, "base_linear": 10.0, "base_mask_sparsity_reg": 0.1, **numbers}
    factor = F.SCHEDULERS[scheduler](
        sparsity=scalar(known["sparsity"]),
        task=int(known["task"]),
        count=scalar(known["count"]),
        base_linear=known["base_linear"],
        base_mask_sparsity_reg=known["base_mask_sparsity_reg"],
    )
    return F.fg_adahat_rate(scalar(importance), factor, alpha)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6), unit_interval, positive, positive)
def test_fg_adahat_with_masks_for_importance_is_adahat(
    history: list[tuple[bool, bool]], sparsity: float, alpha: float, epsilon: float
) -> None:
    """I := m, b_I = 0, b_R = eps, `sparsity_reg`, `min`, `add_latest`."""
    masks = [torch.tensor(pair, dtype=torch.float64) for pair in history]
    importance: Tensor | None = None
    for task in range(len(masks)):
        finished = F.finish_importance(masks[task] * 3, 3, 0.0, masks[task])
        importance = F.STRATEGIES["add_latest"](importance, [*masks[:task], finished])
    assert importance is not None
    own, inputs = importance
    rate = F.fg_adahat_rate(
        F.aggregate(own, inputs, "min"),
        F.SCHEDULERS["sparsity_reg"](
            sparsity=scalar(sparsity), task=9, count=own, base_linear=10.0, base_mask_sparsity_reg=epsilon
        ),
        alpha,
    )
    summative = torch.stack(masks).sum(0)
    expected = F.adahat_rate(F.aggregate(summative[0], summative[1], "min"), scalar(sparsity), alpha, epsilon)
    torch.testing.assert_close(rate, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scheduler", sorted(F.SCHEDULERS))
def test_intensity_to_zero_is_hat_and_to_infinity_is_no_protection(scheduler: str) -> None:
    """With b_I = 0, a weight that no task uses has importance 0."""
    for importance, protected in ((0.0, 0.0), (0.7, 1.0)):
        hat = F.hat_rate(scalar(protected))
        torch.testing.assert_close(fg_rate(importance, 1e-300, scheduler), hat, rtol=0, atol=1e-200)
        none = F.hat_const_1_rate(scalar(protected))
        torch.testing.assert_close(fg_rate(importance, 1e300, scheduler), none, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [1e-7, 1.5e-7, 1e-6, 1e-3, 0.7, 1e-300])
def test_every_rate_of_the_first_task_is_one(alpha: float) -> None:
    nothing, sparsity = torch.zeros(4, dtype=torch.float64), scalar(0.5)
    rates = [
        *(fg_rate(0.0, alpha, scheduler, task=1, count=0.0).expand(4) for scheduler in F.SCHEDULERS),
        F.adahat_rate(nothing, sparsity, alpha, 0.1),
        F.adahat_no_sum_rate(nothing, 0, sparsity, alpha, 0.1),
        F.adahat_no_reg_rate(nothing, alpha, 0.1),
        F.hat_rate(nothing),
        F.hat_random_rate(nothing),
        F.hat_const_alpha_rate(nothing, alpha),
        F.hat_const_1_rate(nothing),
    ]
    for rate in rates:
        assert torch.equal(rate, torch.ones_like(rate))


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8))
def test_add_all_is_linear_decrease_of_step_one(values: list[float]) -> None:
    importances = [scalar(v).reshape(1) for v in values]
    total: Tensor | None = None
    for task in range(1, len(values) + 1):
        total = F.STRATEGIES["add_all"](total, importances[:task])
    expected = F.STRATEGIES["linear_decrease"](None, importances, linear_step=1.0)
    torch.testing.assert_close(total, expected, rtol=1e-13, atol=0)


@given(
    st.sampled_from(sorted(F.SCHEDULERS)),
    st.sampled_from(["importance", "task", "base_linear", "base_mask_sparsity_reg", "count", "sparsity"]),
    st.floats(0, 50),
    positive,
)
def test_rate_never_rises_and_stays_within_bounds(scheduler: str, what: str, more: float, alpha: float) -> None:
    """Non-increasing in I, t, b_L, b_R; within (0, 1]."""
    start = {"importance": 0.4, "task": 2.0, "base_linear": 1.0, "base_mask_sparsity_reg": 0.1}
    before = {**start, "count": 1.0, "sparsity": 0.2}
    after = {**before, what: before[what] + more}
    low = fg_rate(after.pop("importance"), alpha, scheduler, **after)
    high = fg_rate(before.pop("importance"), alpha, scheduler, **before)
    assert 0 < low <= high <= 1
