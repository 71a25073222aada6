"""Rates made for units and carried over are, bit for bit, the rates made for weights."""

from __future__ import annotations

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.callbacks import gradient_adjust
from fgadahat_hooks.callbacks.rates import is_by_unit
from fgadahat_hooks.spec.attach_spec import to_adjustment
from tests.support.learning import learn, recipe
from tests.support.small_models import Net, batch

FG = {"mode": "fg_adahat", "intensity": 0.01}
BY_UNIT = [
    {"mode": "adahat", "intensity": 0.1},
    {"mode": "adahat_no_sum", "intensity": 0.1},
    *(
        {**FG, "scheduler": s, "aggregation": a}
        for s in ("linear_sparsity_reg", "sparsity_reg")
        for a in ("min", "max")
    ),
]
BY_WEIGHT = [
    {**FG, "aggregation": "mean"},
    {**FG, "scheduler": "summative_mask_sparsity_reg"},
    {**FG, "filter_by_cumulative_mask": True},
]


def learnt() -> fh.Session:
    session = fh.attach(Net(), {"adjustment": FG}, batch(1)[0])
    for task in "ab":
        learn(session, task, [batch(seed=ord(task))] * 2, recipe("adamw"))
    return session


@pytest.mark.parametrize("spec", BY_UNIT, ids=str)
def test_they_are_the_same_bits(spec: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_by_unit(to_adjustment(spec))
    session = learnt()
    with session.task("c") as task:
        task.anneal(2, 3)
        context = task.context()
        by_unit = fh.GradientAdjustCallback(spec).rates(context)
        monkeypatch.setattr(gradient_adjust, "is_by_unit", lambda _: False)
        by_weight = fh.GradientAdjustCallback(spec).rates(context)
    assert by_unit.keys() == by_weight.keys()
    assert all(torch.equal(by_unit[name], by_weight[name]) for name in by_unit)
    assert any((rate < 1).any() for rate in by_unit.values())


@pytest.mark.parametrize("spec", BY_WEIGHT, ids=str)
def test_rates_that_are_not_of_one_value_are_made_for_weights(spec: dict[str, object]) -> None:
    assert not is_by_unit(to_adjustment(spec))
