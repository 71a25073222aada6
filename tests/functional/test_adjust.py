from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fgadahat_hooks import functional as F

PROTECTED = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])


@given(st.floats(1e-12, 1e6), st.floats(0, 1e3))
def test_a_free_weight_has_rate_exactly_1_at_any_intensity(alpha: float, factor: float) -> None:
    zero = torch.zeros(1)
    assert F.fg_adahat_rate(zero, factor, alpha).item() == 1
    assert F.adahat_rate(zero, torch.tensor(factor), alpha, 0.1).item() == 1
    assert F.adahat_no_reg_rate(zero, alpha, 0.1).item() == 1


def test_known_rates() -> None:
    assert F.fg_adahat_rate(torch.tensor(0.5), 2.0, 1.0).item() == 0.5
    assert F.adahat_rate(torch.tensor(3.0), torch.tensor(0.5), 1.0, 0.5).item() == 0.25
    assert F.adahat_no_reg_rate(torch.tensor(3.0), 1.0, 1.0).item() == 0.25


def test_no_sum_counts_every_used_weight_as_used_by_all() -> None:
    count, sparsity = torch.tensor([0.0, 1.0, 2.0, 5.0]), torch.tensor(0.3)
    rate = F.adahat_no_sum_rate(count, 5, sparsity, 1e-3, 0.1)
    assert rate[0] == 1
    assert torch.equal(rate[1:], F.adahat_rate(torch.full((3,), 5.0), sparsity, 1e-3, 0.1))


def test_schedulers() -> None:
    known = {"task": 3, "base_linear": 2.0, "base_mask_sparsity_reg": 0.5}
    sparsity, count = torch.tensor(0.5), torch.tensor([[0.0, 1.0]])
    values = {n: f(sparsity=sparsity, count=count, **known).tolist() for n, f in F.SCHEDULERS.items()}  # type: ignore[arg-type]
    assert values == {"linear_sparsity_reg": 5.0, "sparsity_reg": 1.0, "summative_mask_sparsity_reg": [[2.0, 3.0]]}


def test_filter_frees_what_no_task_uses() -> None:
    importance = torch.full_like(PROTECTED, 0.3)
    assert torch.equal(F.filter_by_cumulative_mask(importance, PROTECTED.bool()), importance * PROTECTED)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_hat_and_its_baselines(dtype: torch.dtype) -> None:
    protected = PROTECTED.to(dtype)
    assert torch.equal(F.hat_rate(protected), 1 - PROTECTED)
    assert torch.equal(F.hat_const_1_rate(protected), torch.ones(3, 2))
    assert torch.equal(F.hat_const_alpha_rate(protected, 1e-7), torch.where(PROTECTED > 0, 1e-7, 1.0))
    rate = F.hat_random_rate(protected, torch.Generator().manual_seed(0))
    assert (rate[PROTECTED == 0] == 1).all()
    assert ((rate[PROTECTED == 1] >= 0) & (rate[PROTECTED == 1] < 1)).all()


def test_random_rate_differs_in_each_call_and_repeats_with_its_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [F.hat_random_rate(torch.ones(1000), generator) for _ in range(2)]
    assert not torch.equal(*draws)
    assert torch.equal(draws[0], F.hat_random_rate(torch.ones(1000), torch.Generator().manual_seed(0)))
    assert draws[0].mean().item() == pytest.approx(0.5, abs=0.05)


def test_clip_by_mask() -> None:
    grad, own, inputs = torch.full((2, 2), 8.0), torch.tensor([[1.0], [0.5]]), torch.tensor([[0.25, 1.0]])
    assert F.clip_by_mask(grad, own, inputs, "min").tolist() == [[2.0, 8.0], [2.0, 4.0]]
    assert F.clip_by_mask(grad, own, None, "min").tolist() == [[8.0, 8.0], [4.0, 4.0]]
