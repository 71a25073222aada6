"""A tensor on the meta device has no values: a function that reads one back to the host fails here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fgadahat_hooks import functional as F


def units() -> Tensor:
    return torch.empty(4, device="meta")


def weight() -> Tensor:
    return torch.empty(4, 3, device="meta")


def scalar() -> Tensor:
    return torch.empty((), device="meta")


CALLS: dict[str, Callable[[], Tensor]] = {
    "soft_mask": lambda: F.soft_mask(units(), 3.0),
    "hard_mask": lambda: F.hard_mask(units()),
    "annealed_gate": lambda: F.annealed_gate(units(), scalar(), 400.0, 50.0),
    "compensate": lambda: F.compensate(units(), units(), scalar(), 400.0, 50.0),
    "regularization": lambda: F.regularization([units()], [units()]),
    "regularization cross": lambda: F.regularization([units()], [units()], "cross"),
    "layer_sparsity": lambda: F.layer_sparsity(units(), units()),
    **{f"aggregate {m}": lambda m=m: F.aggregate(weight(), weight(), m) for m in F.AGGREGATIONS},  # type: ignore[misc]
    "fg_adahat_rate": lambda: F.fg_adahat_rate(weight(), scalar(), 1e-6),
    "filter_by_cumulative_mask": lambda: F.filter_by_cumulative_mask(weight(), weight()),
    "adahat_rate": lambda: F.adahat_rate(weight(), scalar(), 1e-6, 0.1),
    "adahat_no_sum_rate": lambda: F.adahat_no_sum_rate(weight(), 3, scalar(), 1e-6, 0.1),
    "adahat_no_reg_rate": lambda: F.adahat_no_reg_rate(weight(), 1e-6, 0.1),
    "hat_rate": lambda: F.hat_rate(weight()),
    "hat_const_alpha_rate": lambda: F.hat_const_alpha_rate(weight(), 1e-6),
    "hat_random_rate": lambda: F.hat_random_rate(weight()),
    "hat_const_1_rate": lambda: F.hat_const_1_rate(weight()),
    "clip_by_mask": lambda: F.clip_by_mask(weight(), weight(), None, "min"),
    "min_max": lambda: F.min_max(units()),
    "finish_importance": lambda: F.finish_importance(units(), 3, 0.01, units()),
    **{
        f"scheduler {n}": lambda f=f: f(  # type: ignore[misc]
            sparsity=scalar(), task=2, count=weight(), base_linear=1.0, base_mask_sparsity_reg=0.1
        )
        for n, f in F.SCHEDULERS.items()
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_no_value_is_read_back(name: str) -> None:
    assert CALLS[name]().is_meta


def test_the_backward_of_the_gate_reads_no_value_back() -> None:
    embedding = units().requires_grad_()
    F.annealed_gate(embedding, scalar(), 400.0, 50.0).sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.is_meta
